"""The life of the process: listen, reload on SIGHUP, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Callable
from pathlib import Path

from aiohttp import HttpVersion11, web
from aiohttp.web_protocol import RequestHandler

from estgw import state
from estgw.app import App
from estgw.callout.warm import Warm
from estgw.config import split_address
from estgw.errors import ConfigError, apology
from estgw.logs import escape, log, new_request_id
from estgw.reply import SERVER
from estgw.state import State
from estgw.tls.listener import Listener

Ready = Callable[[str], None]
"""Told the URL once connections are accepted."""

LINGER = 5.0
"""Seconds for which the rest of a refused body is read and thrown away, so that the answer is not lost."""


class Protocol(RequestHandler):
    """aiohttp's HTTP/1.1 protocol with our words for what never became a request."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what can't be parsed as HTTP; anything else was dealt with in `App`."""
        peer, request_id = self.peername, new_request_id()
        told = str(message or exc or "").splitlines() or ["?"]
        # The parser quotes what it choked on, which may be an Authorization header.
        reason = escape(re.sub(r""":? b?['"].*""", "", told[0])[:200].rstrip(":. "))
        address = peer[0] if isinstance(peer, tuple) else None
        if status == 400:
            log.info("request", status=status, peer=address, reason=f"not HTTP: {reason}", request_id=request_id)
            text = f"This is not a well-formed HTTP request: {reason}."
        else:
            log.error("request", status=status, peer=address, exc_info=exc, request_id=request_id)
            text = apology(request_id)
        headers = {"Server": SERVER, "Content-Type": "text/plain; charset=utf-8"}
        response = web.Response(status=status, body=f"{text}\n".encode(), headers=headers)
        response.force_close()
        # aiohttp made up this request, as one of HTTP/1.0; a server answers with its own version (RFC 9110 2.5).
        request._version = HttpVersion11
        return response


class HTTPServer(web.Server):
    """aiohttp's low-level server, making our protocols."""

    def __call__(self) -> RequestHandler:
        """One protocol per connection."""
        return Protocol(self, loop=self._loop, **self._kwargs)


class Server:
    """One gateway process."""

    def __init__(self, config_file: Path, listen: str | None = None) -> None:
        """Raises `ConfigError`; `listen` takes the place of the configured addresses."""
        self._config_file = config_file
        self._warm = Warm()
        try:
            self._state = state.load(config_file, self._warm)
        except ConfigError:
            self._warm.close()
            raise
        self._listen = (listen,) if listen else self._state.config.server.listen
        self._app = App(self._state)
        self._stop = asyncio.Event()

    async def run(self, ready: Ready) -> None:
        """Serve until SIGTERM or SIGINT; `ready` gets the URL once connections are accepted.

        Raises OSError when an address can't be listened on.
        """
        settings = self._state.config.server
        http = HTTPServer(
            self._app,
            keepalive_timeout=settings.idle_timeout,
            lingering_time=LINGER,
            access_log=None,
            # A compressed body would be a bomb; EST has none, so it is passed on and found not to be base64.
            auto_decompress=False,
        )
        listener = Listener(
            http,
            self._state.context,
            handshake_timeout=settings.handshake_timeout,
            max_connections=settings.max_connections,
            on_failure=_log_failure,
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload, listener)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            ports = [await listener.start(*split_address(address)) for address in self._listen]
            log.info("listening", addresses=", ".join(self._listen), port=ports[0])
            ready(f"https://{settings.name}:{ports[0]}")
            await self._stop.wait()
            log.info("draining", seconds=settings.drain_timeout)
        finally:
            # No new connections; idle ones end at once, requests under way get their time.
            listener.stop_accepting()
            http.pre_shutdown()
            await http.shutdown(settings.drain_timeout)
            await listener.close()
            self._app.state.caller.retire()
            self._warm.close()
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
        log.info("stopped")

    def _reload(self, listener: Listener) -> None:
        """Swap in a new state, or keep the old one and say why.  Addresses and limits of `server` stay."""
        try:
            fresh: State = state.load(self._config_file, self._warm)
        except ConfigError as refusal:
            log.error("reload failed, the old configuration stays", faults=refusal.faults)
            return
        self._app.state.caller.retire()
        self._app.reload(fresh)
        listener.context = fresh.context
        log.info("reloaded", file=str(self._config_file))


def _log_failure(address: str, reason: str) -> None:
    log.info("TLS handshake failed", peer=address, reason=reason)


def serve(config_file: Path, *, listen: str | None, ready: Ready) -> None:
    """Run a gateway until it is told to stop; raises `ConfigError` or OSError."""

    async def main() -> None:
        await Server(config_file, listen).run(ready)

    asyncio.run(main())
