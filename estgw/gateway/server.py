"""The life of the process: listen, reload on SIGHUP, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import re
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from estgw.callout import scratch, shortage
from estgw.callout.home import INTERVAL, Home, sweep
from estgw.callout.named_locks import NamedLocks
from estgw.callout.warm import Warm
from estgw.config.fields import split_address
from estgw.config.model import Config
from estgw.errors import apology
from estgw.gateway import advice, live_page, state, taping
from estgw.gateway.app import App
from estgw.gateway.drain import linger
from estgw.gateway.labels import Snapshot
from estgw.gateway.notices import Notices
from estgw.gateway.reload import told
from estgw.gateway.reply import SERVER
from estgw.gateway.service_manager import READY, ServiceManager
from estgw.gateway.state import ProcessResources, State
from estgw.gateway.worker_share import ALONE, WorkerShare
from estgw.logs import escape, log, new_request_id
from estgw.metrics.endpoint import exposed
from estgw.metrics.meter import meter
from estgw.metrics.table import CONNECTIONS, HANDSHAKE_FAILURES, OF_ALL, OF_WORKERS, REQUESTS, WORKERS
from estgw.record import explain as hints
from estgw.record.gates import Gate
from estgw.record.recorder import Recorder, recorder
from estgw.record.tape import Verdict
from estgw.tls import proxy
from estgw.tls.adapter import TLSObject
from estgw.tls.listener import Listener, Observer
from estgw.tls.sockets import bind, endpoint

Ready = Callable[[str, str | None], None]
"""Called with the URL once connections are accepted, and with the link of the live page, if there is one."""

LINGER = 5.0
"""Seconds for which the rest of a refused body is read and dropped, so that the answer is not lost."""


class Protocol(RequestHandler):
    """aiohttp's HTTP/1.1 protocol, with an answer of ours to input that is not HTTP."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer input that can't be parsed as HTTP; `App` answers all requests."""
        peer, request_id = self.peername, new_request_id()
        told = str(message or exc or "").splitlines() or ["?"]
        # The parser quotes the bytes that it could not read, which may be an Authorization header.
        reason = escape(re.sub(r""":? b?['"].*""", "", told[0])[:200].rstrip(":. "))
        address = peer[0] if isinstance(peer, tuple) else None
        said, hint = f"not HTTP: {reason}", None
        if status == 400:
            hint = hints.hint(Gate.PATH, said)
            log.info("request", status=status, peer=address, reason=said, hint=hint, request_id=request_id)
            text = f"This is not a well-formed HTTP request: {reason}."
        else:
            log.error("request", status=status, peer=address, exc_info=exc, request_id=request_id)
            text = apology(request_id)
        meter.add(REQUESTS, "other", "", str(status))
        headers = {"Server": SERVER, "Content-Type": "text/plain; charset=utf-8"}
        response = web.Response(status=status, body=f"{text}\n".encode(), headers=headers)
        response.force_close()
        recorder = self._manager.recorder if isinstance(self._manager, HTTPServer) else None
        if recorder is not None:
            verdict = Verdict(status, Gate.PATH, said, hint, taping.reply(response))
            taping.unreadable(recorder, self.transport, request_id, verdict)
        # aiohttp made up this request, as one of HTTP/1.0; a server answers with its own version (RFC 9110 2.5).
        request._version = HttpVersion11
        return response


class HTTPServer(web.Server):
    """aiohttp's low-level server, making our protocols."""

    recorder: Recorder | None = None

    def __call__(self) -> RequestHandler:
        """One protocol per connection."""
        return Protocol(self, loop=self._loop, **self._kwargs)


class Server:
    """One gateway process, the only one or one of several."""

    def __init__(self, config_file: Path, snapshot: Snapshot, share: WorkerShare = ALONE) -> None:
        """Read the configuration.  No port is bound yet.  Raises `ConfigError`."""
        self._config_file = config_file
        self._home = Home(scratch.place())
        self._recorder: Recorder | None = None
        self._resources = ProcessResources(
            warm=Warm(home=self._home.path), share=share, locks=NamedLocks(share.directory)
        )
        try:
            state = self.load(snapshot)
            self._recorder = recorder(state.config.record, config_file)
            self._app = App(state, self._home, self._recorder)
        except BaseException:
            self.close()
            raise
        self._listener: Listener | None = None
        self._stop = asyncio.Event()
        self.is_ready = False
        """Whether connections are accepted and will be: not from the order to stop on."""

    @property
    def recorder(self) -> Recorder | None:
        """What records requests, if anything does."""
        return self._recorder

    @property
    def config(self) -> Config:
        """The configuration in use."""
        return self._app.state.config

    def load(self, snapshot: Snapshot) -> State:
        """Another state, for `adopt`; raises `ConfigError`."""
        return state.load(self._config_file, self._resources, snapshot)

    def close(self) -> None:
        """Write the records that wait, remove the private directory, and end the warm parent."""
        if self._recorder is not None:
            self._recorder.close()
        self._home.close()
        self._resources.warm.close()

    def adopt(self, fresh: State) -> None:
        """Serve the next requests with another state.  Addresses and limits of `server` stay."""
        advice.raise_limit(advice.descriptors(fresh.config, self._resources.share))
        self._app.state.caller.retire()
        self._app.reload(fresh)
        if self._listener is not None:
            self._listener.context = fresh.context
            self._listener.proxies = _proxies(fresh.config)

    def stop(self) -> None:
        """Drain, and let `run` come to its end."""
        self.is_ready = False
        self._stop.set()

    async def run(
        self, sockets: Iterable[socket.socket], ready: Callable[[list[int]], None], hangup: Callable[[], None]
    ) -> None:
        """Serve bound sockets until `stop`, SIGTERM or SIGINT; `hangup` is for SIGHUP.

        `ready` gets their ports once connections are accepted.  Raises OSError when one can't be listened on.
        """
        settings = self.config.server
        limit = advice.raise_limit(advice.descriptors(self.config, self._resources.share))
        http = HTTPServer(
            self._app,
            keepalive_timeout=min(settings.idle_timeout, settings.max_connection_age),
            lingering_time=LINGER,
            access_log=None,
            # A compressed body would be a bomb; EST has none, so it is passed on and found not to be base64.
            auto_decompress=False,
        )
        http.recorder = self._recorder
        listener = self._listener = Listener(
            http,
            self._app.state.context,
            self._observer(),
            handshake_timeout=settings.handshake_timeout,
            max_connections=advice.connections(self.config, self._resources.share, limit),
            proxies=_proxies(self.config),
        )
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(shortage.note)
        loop.add_signal_handler(signal.SIGHUP, hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        sweeping = loop.create_task(self._sweep_now_and_then())
        try:
            ports = [listener.take(sock) for sock in sockets]
            self.is_ready = not self._stop.is_set()
            ready(ports)
            await self._stop.wait()
            if self._resources.share is ALONE:  # else the supervisor has waited, for all
                await linger(settings.drain_delay)
            log.info("draining", seconds=settings.drain_timeout)
        finally:
            sweeping.cancel()
            # No new connections; idle ones end at once, requests under way get their time.
            listener.stop_accepting()
            http.pre_shutdown()
            await http.shutdown(settings.drain_timeout)
            await listener.close()
            self._app.state.caller.retire()
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        log.info("stopped")

    def _observer(self) -> Observer:
        recorder = self._recorder

        def failed(address: str, reason: str, tls: TLSObject | None) -> None:
            meter.add(HANDSHAKE_FAILURES)
            hint = taping.note_failure(recorder, address, reason, tls)
            log.info("TLS handshake failed", peer=address, reason=reason, hint=hint)

        opened = None if recorder is None else functools.partial(taping.remember_bindings, recorder)
        return Observer(failed, _note_exhausted, lambda number: meter.set(CONNECTIONS, number), opened)

    async def _sweep_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await scratch.aside(sweep, self._home.path.parent)


def _proxies(config: Config) -> list[proxy.Network]:
    return [ipaddress.ip_network(each) for each in config.server.proxies]


def _note_exhausted(fault: OSError) -> None:
    if not shortage.report("no connection can be accepted", fault):
        log.error("no connection can be accepted", reason=fault.strerror)


def serve(config_file: Path, *, listen: str | None, ready: Ready, demo: str | None = None) -> None:
    """Run a gateway in this process until SIGTERM or SIGINT.  Raises `ConfigError` or OSError.

    `listen` replaces the configured addresses, and sockets that systemd passes replace both.  A `demo` records requests
    if the configuration is silent about that, and its text, if it is not empty, takes the place of `server.name`.
    """
    snapshot = Snapshot.take(config_file, demo=demo)
    settings = snapshot.settings
    manager = ServiceManager()
    passed = manager.sockets()
    addresses = (listen,) if listen else settings.server.listen
    if passed:
        addresses = tuple(endpoint(sock.getsockname()) for sock in passed)

    async def main() -> None:
        feeding = asyncio.create_task(manager.feed())

        def accepting(ports: list[int]) -> None:
            notices.adopt(snapshot)
            log.info("listening", addresses=", ".join(addresses), port=ports[0])
            meter.set(WORKERS, 1)
            if page is not None:
                page.opened(settings, ports[0])
            manager.say(READY)
            ready(f"https://{endpoint((settings.server.name, ports[0]))}", page.link if page is not None else None)

        def reload() -> None:
            with told(config_file):
                fresh = Snapshot.take(config_file, demo=demo)
                server.adopt(server.load(fresh))
                if page is not None:
                    page.adopt(fresh.settings)
                notices.adopt(fresh)

        sockets = passed or (bind(*split_address(address)) for address in addresses)
        with (
            contextlib.closing(Server(config_file, snapshot)) as server,
            contextlib.closing(Notices(config_file, settings)) as notices,
        ):
            async with (
                exposed(settings.metrics.listen, (*OF_WORKERS, *OF_ALL), lambda: server.is_ready),
                live_page.shown(settings, config_file, server.recorder, addresses, demo=demo is not None) as page,
            ):
                await server.run(sockets, accepting, reload)
        feeding.cancel()

    asyncio.run(main())
