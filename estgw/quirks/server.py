"""The quirk server: its ports, the way from a URL to a quirk, and what is noted of each request."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from estgw.client.faults import clean
from estgw.errors import NotFound, RequestError
from estgw.est.operations import OPERATIONS
from estgw.quirks import wire
from estgw.quirks.desk import Asked, Desk, link_of
from estgw.quirks.listener import Bounds, Listener, Pieces, context_of
from estgw.quirks.material import Face, Material
from estgw.quirks.seen import Event, Exchange, Handshake, Observer, Place
from estgw.quirks.table import QUIRKS, Quirk, listing
from estgw.quirks.wire import Link, Reply, Request

_LABEL = re.compile(r"quirk-(?P<quirk>[a-z0-9-]{1,40})(?:\.(?P<client>[A-Za-z0-9_.-]{1,40}))?")
_LONGEST_AGENT = 100
_HIGHEST_PORT = 65535


class Pages(Protocol):
    """Pages beside EST, such as the scoreboard's."""

    def page(self, request: Request) -> Reply | None:
        """The answer to a request for a page; None if it is for none."""


@dataclass(frozen=True)
class Settings:
    """How a server is started."""

    host: str = "127.0.0.1"
    port: int = 0
    """The main port; the ports of the faults of TLS follow it.  0: any free ones."""
    names: tuple[str, ...] = ()
    """More host names and addresses under which it is reached."""
    default: str | None = None
    """The quirk for URLs without a label; None: such a URL is a 404."""
    bounds: Bounds = field(default_factory=Bounds)


class QuirkServer:
    """All ports.  Use it as a context manager, or call `close`."""

    def __init__(self, settings: Settings, observer: Observer, pages: Pages | None = None) -> None:
        """Make CA and certificates, and listen.  Raises `OSError` with the address that can't be had."""
        named = () if settings.host in ("0.0.0.0", "::") else (settings.host,)  # noqa: S104
        self.material = Material(("localhost", "127.0.0.1", "::1", *named, *map(str.lower, settings.names)))
        self.desk = Desk(self.material)
        self.default = settings.default
        self.ports: dict[str, int] = {}
        """The ports of the quirks that have one of their own."""
        self._observer = observer
        self._pages = pages
        self._listeners: list[Listener] = []
        try:
            for number, (place, quirk, face) in enumerate(_faces()):
                self._listen(settings, number, place, quirk, face)
        except OSError:
            self.close()
            raise

    def _listen(self, settings: Settings, number: int, place: Place, quirk: Quirk | None, face: Face) -> None:
        address = (settings.host, settings.port + number if settings.port else 0)
        if address[1] > _HIGHEST_PORT:
            raise OSError(f"port {address[1]} does not exist; choose a lower first port")
        context = context_of(face, self.material.face(face))
        try:
            listener = Listener(address, context, _Port(self, place, quirk), settings.bounds)
        except OSError as fault:
            words = os.strerror(fault.errno) if fault.errno else str(fault)
            count = sum(1 for _ in _faces())
            raise OSError(
                f"{address[0]}:{address[1]}: {words}; the server takes {count} ports in a row, from --listen on"
            ) from None
        self._listeners.append(listener)
        if place is Place.OWN and quirk is not None:
            self.ports[quirk.name] = listener.port
        elif quirk is not None:
            self.desk.ports[quirk.name] = listener.port

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all ports and their connections."""
        for listener in self._listeners:
            listener.close()

    @property
    def port(self) -> int:
        """The main port."""
        return self._listeners[0].port

    @property
    def aside(self) -> Mapping[str, int]:
        """The ports to which redirects lead, by quirk."""
        return self.desk.ports

    def port_of(self, quirk: Quirk) -> int:
        """The port at which a quirk is met."""
        return self.ports.get(quirk.name, self.port)

    def drain(self, seconds: float) -> None:
        """Wait until all connections have ended, so that nothing is noted later; at most so many seconds."""
        end = time.monotonic() + seconds
        while any(listener.busy for listener in self._listeners) and time.monotonic() < end:
            time.sleep(0.01)

    def note(self, event: Event) -> None:
        """Tell the observer."""
        self._observer(event)

    def page(self, request: Request) -> Reply | None:
        """A page beside EST."""
        return self._pages.page(request) if self._pages else None


def _faces() -> Iterator[tuple[Place, Quirk | None, Face]]:
    """The ports in order: the main one, then those of quirks."""
    yield Place.MAIN, None, Face()
    for quirk in QUIRKS.values():
        if quirk.face is not None:
            yield Place.OWN, quirk, quirk.face
        if quirk.aside is not None:
            yield Place.ASIDE, quirk, quirk.aside


class _Port:
    """What one port does with its connections (a `listener.Handler`)."""

    def __init__(self, server: QuirkServer, place: Place, quirk: Quirk | None) -> None:
        self._server = server
        self._place = place
        self._quirk = quirk

    def opened(self, link: Link, fault: str) -> None:
        if self._quirk is not None:
            place, address = self._place, link.address
            self._server.note(Handshake(self._quirk.name, place, address, link.number, fault, link.version))

    def refuse(self, fault: RequestError) -> bytes:
        reply = wire.sentence(fault, closes=True)
        return reply.head() + reply.body

    def answer(self, request: Request) -> Pieces:
        came = time.monotonic()
        if self._place is Place.MAIN and (page := self._server.page(request)) is not None:
            return page.encode()
        asked = None
        try:
            asked, quirk = self._asked(request)
            asked, reply = self._served(asked, quirk)
        except RequestError as fault:
            reply = wire.sentence(fault)
        if asked is not None:
            self._server.note(_noted(asked, reply, self._place, came))
        return reply.encode()

    def _served(self, asked: Asked, quirk: Quirk) -> tuple[Asked, Reply]:
        """The answer, and the request with what has been read of it."""
        desk = self._server.desk
        try:
            asked = desk.read(asked)
        except RequestError as fault:
            return asked, wire.sentence(fault)
        if OPERATIONS[asked.operation].takes_body and (challenge := quirk.login(asked, desk)) is not None:
            return asked, challenge
        try:
            asked = desk.count(asked)
            reply = desk.answer(asked)
        except RequestError as fault:
            return asked, wire.sentence(fault)
        if reply.status in (200, 204) and asked.operation in quirk.spoils and self._place is Place.MAIN:
            reply = quirk.spoil(asked, reply, desk)
        return asked, reply

    def _asked(self, request: Request) -> tuple[Asked, Quirk]:
        """The quirk, client and operation of a URL; raises `NotFound`."""
        segments = request.target.partition("?")[0].split("/")
        operation = segments[-1].lower()
        found = next((match for part in segments[:-1] if (match := _LABEL.fullmatch(part))), None)
        quirk = self._quirk or self._named(found["quirk"] if found else self._server.default)
        if operation not in OPERATIONS:
            raise NotFound(f"No EST operation in the path: /.well-known/est/quirk-{quirk.name}/cacerts would be one.")
        label = found[0] if found else f"quirk-{quirk.name}"
        client = (found["client"] or "") if found else ""
        return Asked(request, quirk.name, client, operation, label, is_again="again" in segments[-2:]), quirk

    def _named(self, name: str | None) -> Quirk:
        quirk = QUIRKS.get(name or "")
        if quirk is None:
            words = f"There is no quirk-{name}." if name else "No quirk in the path."
            raise NotFound(f"{words} /.well-known/est/quirk-NAME[.CLIENT]/simpleenroll chooses one of:\n{listing()}")
        if quirk.face is not None:
            raise NotFound(f"quirk-{quirk.name} is a fault of TLS and has port {self._server.ports[quirk.name]}.")
        return quirk


def _noted(asked: Asked, reply: Reply, place: Place, came: float) -> Exchange:
    link, claims = link_of(asked)
    request = asked.request
    return Exchange(
        quirk=asked.quirk,
        place=place,
        client=asked.client,
        address=request.link.address,
        agent=clean(request.headers.get("User-Agent", ""), _LONGEST_AGENT).replace("\n", " "),
        connection=request.link.number,
        came=came,
        left=time.monotonic(),
        method=request.method,
        operation=asked.operation,
        status=reply.status,
        scheme=asked.login.scheme,
        is_right=asked.login.is_right,
        key=asked.csr.key_info if asked.csr is not None else b"",
        csr=asked.csr.der if asked.csr is not None else b"",
        link=link,
        claims_link=claims,
        body=reply.body,
        certificate=reply.certificate,
    )
