"""The TLS side of a gateway alone, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL

from estgw.tls.adapter import TLSContext, tls_info
from estgw.tls.context import TLSSettings, server_context
from estgw.tls.info import TLSInfo
from estgw.tls.listener import Listener, Observer
from estgw.tls.sockets import bind
from tests.kit.ca import CLIENT_AUTH, DAY, NOW, SERVER_AUTH, Credential, root

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = {"TLSv1.2": V12, "TLSv1.3": V13}
DEADLINE = 10


class World:
    """One CA hierarchy, a server certificate, and clients of every kind; files in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = root("Root CA")
        self.sub = self.root.sub("Sub CA")
        self.sub_sub = self.sub.sub("Sub Sub CA")
        self.other = root("Other CA")
        impostor = root("Root CA")
        self.clients = {
            "valid": self.root.issue("device"),
            "no-eku": self.root.issue("device", eku=None),
            "below-sub-ca": self.sub.issue("device"),
            "below-sub-sub-ca": self.sub_sub.issue("device"),
            "stranger": root("Foreign CA").issue("stranger"),
            "self-signed": Credential(*_self_signed()),
            "impostor": impostor.issue("device"),
            "expired": self.root.issue("device", starts=NOW - 3 * DAY, ends=NOW - DAY),
            "too-early": self.root.issue("device", starts=NOW + DAY),
            "server-only": self.root.issue("device", eku=(SERVER_AUTH,)),
            "client-and-server": self.root.issue("device", eku=(CLIENT_AUTH, SERVER_AUTH)),
            "other-ca": self.other.issue("device"),
        }
        self.files = {name: client.write(directory, name) for name, client in self.clients.items()}
        self.server = self.root.server().write(directory, "server")
        self.root_file, _ = self.root.write(directory, "root")

    def settings(self, **changes: Any) -> TLSSettings:
        defaults: dict[str, Any] = {"anchors": (self.root.certificate,)}
        return TLSSettings(*self.server, **(defaults | changes))

    def context(self, **changes: Any) -> TLSContext:
        return server_context(self.settings(**changes))

    def client(self, version: ssl.TLSVersion | None = None, name: str | None = None) -> ssl.SSLContext:
        """A client context of the standard library."""
        context = ssl.create_default_context(cafile=str(self.root_file))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if name is not None:
            context.load_cert_chain(*self.files[name])
        return context


def _self_signed() -> tuple[Any, Any]:
    ca = root("self-made")
    return ca.certificate, ca.key


class Echo(asyncio.Protocol):
    """Writes back what it gets, after noting what the handshake established and who is at either end."""

    def __init__(self, infos: list[TLSInfo], ends: list[Any] | None = None) -> None:
        self._infos = infos
        self._ends = [] if ends is None else ends

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ends.append((transport.get_extra_info("peername"), transport.get_extra_info("sockname")))
        self._infos.append(tls_info(transport, transport.get_extra_info("ssl_object").context))

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@dataclass
class Serving:
    """A running listener, and the result of each connection."""

    infos: list[TLSInfo] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    listener: Listener = field(init=False)
    port: int = field(init=False)

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason in self.failures]


@asynccontextmanager
async def serving(
    context: TLSContext, factory: Callable[[], asyncio.BaseProtocol] | None = None, **limits: Any
) -> AsyncIterator[Serving]:
    """A listener on 127.0.0.1. When it closes, it must leave no task and no connection behind."""
    state = Serving()
    state.listener = Listener(
        factory or (lambda: Echo(state.infos, state.ends)),
        context,
        Observer(
            on_failure=lambda peer, reason, _: state.failures.append((peer, reason)),
            on_exhausted=lambda fault: state.failures.append(("", f"can't accept: {fault.strerror}")),
            on_count=state.counts.append,
        ),
        **limits,
    )
    state.port = state.listener.take(bind("127.0.0.1", 0))
    try:
        yield state
    finally:
        await state.listener.close()
    assert state.listener.connections == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds. The test fails after the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # a condition is any expression here
            await asyncio.sleep(0.002)


def exchange(
    port: int,
    context: ssl.SSLContext,
    *,
    host: str = "127.0.0.1",
    session: ssl.SSLSession | None = None,
    header: bytes = b"",
    then: Callable[[ssl.SSLSocket], Any] = lambda tls: None,
) -> Any:
    """Connect with the standard library, send a word and get it back. Returns `then` of the open socket."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection((host, port), timeout=DEADLINE))
        plain.sendall(header)
        tls = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost", session=session))
        tls.sendall(b"word")
        assert tls.recv(100) == b"word"
        result = then(tls)
        tls.unwrap().close()  # raises unless the server answers close_notify
        return result


def meet(world: World, client: ssl.SSLContext, **settings: Any) -> TLSInfo:
    """What the gateway knows about one connection of `client`."""

    async def scene() -> TLSInfo:
        async with serving(world.context(**settings)) as gateway:
            await asyncio.to_thread(exchange, gateway.port, client)
            assert gateway.failures == []
            return gateway.infos[0]

    return asyncio.run(scene())


def meet_credential(world: World, tmp_path: Path, credential: Credential, **settings: Any) -> TLSInfo:
    client = world.client()
    client.load_cert_chain(*credential.write(tmp_path, "credential"))
    return meet(world, client, **settings)


def subjects(certificates: tuple[x509.Certificate, ...]) -> list[str]:
    return [certificate.subject.rfc4514_string() for certificate in certificates]


def openssl_exchange(
    port: int, context: SSL.Context, *, then: Callable[[SSL.Connection], Any] = lambda tls: None
) -> Any:
    """The same with pyOpenSSL."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as plain:
        plain.settimeout(None)
        tls = SSL.Connection(context, plain)
        tls.set_connect_state()
        tls.set_tlsext_host_name(b"localhost")
        tls.do_handshake()
        tls.sendall(b"word")
        assert tls.recv(100) == b"word"
        result = then(tls)
        tls.shutdown()
        return result


async def run(*command: str | Path, stdin: bytes = b"") -> str:
    """A program's output, standard error included."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(DEADLINE):
        output, _ = await process.communicate(stdin)
    return output.decode(errors="replace")
