"""The scoreboard of `estgw quirks serve`: what each client has done so far, as JSON and as a page.

Everything here comes from peers, so it is bounded: clients in number, each one's requests, and all of it in bytes.
"""

from __future__ import annotations

import ipaddress
import json
import re
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Mapping
from importlib import resources

from estgw.client.faults import clean
from estgw.quirks.seen import Event, Exchange, Step
from estgw.quirks.table import QUIRKS
from estgw.quirks.wire import Reply, Request

FORMAT = 1
MOST_CLIENTS = 200
MOST_EVENTS = 60
"""Of one client at one quirk; the oldest go first."""
MOST_BYTES = 32 * 1024 * 1024
"""Of all that is remembered; the clients go first that have been silent longest."""
_EVENT = 1000
"""Bytes of an event without its CSR and body, roughly."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/scores.js": ("scores.js", "text/javascript; charset=utf-8"),
    "/scores.css": ("scores.css", "text/css; charset=utf-8"),
}
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")


class _Record:
    """What one client has done, by quirk."""

    def __init__(self) -> None:
        self.events: dict[str, deque[Event]] = {}
        self.size = 0

    def add(self, event: Event) -> None:
        """Remember an event in the place of the oldest."""
        events = self.events.setdefault(event.quirk, deque())
        events.append(event)
        self.size += _size(event)
        if len(events) > MOST_EVENTS:
            self.size -= _size(events.popleft())


class Scores:
    """The scoreboard.  Its methods may be called in many threads."""

    def __init__(self, hosts: Collection[str] = ()) -> None:
        """`hosts` are the names and addresses of the server, beside those of this machine."""
        self._hosts = {host.lower() for host in hosts}
        self._clients: OrderedDict[str, _Record] = OrderedDict()
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()
        static = resources.files("estgw.quirks").joinpath("static")
        self._files = {path: static.joinpath(name).read_bytes() for path, (name, _) in _PAGES.items()}

    def note(self, event: Event) -> None:
        """Remember an event.

        A handshake names no client: it counts for the last one that this address has named.
        """
        with self._lock:
            if isinstance(event, Exchange):
                name = event.client or f"{event.address} {event.agent}".strip()
                self._last[event.address] = name
            else:
                name = self._last.get(event.address, event.address)
            record = self._clients.pop(name, None) or _Record()
            self._clients[name] = record
            record.add(event)
            while len(self._clients) > MOST_CLIENTS or (len(self._clients) > 1 and self._bytes() > MOST_BYTES):
                gone, _ = self._clients.popitem(last=False)
                self._last = {address: name for address, name in self._last.items() if name != gone}

    def _bytes(self) -> int:
        return sum(record.size for record in self._clients.values())

    def table(self) -> Mapping[str, object]:
        """All verdicts, as `GET /scores` sends them; the client that was here last comes first."""
        with self._lock:
            found = {
                name: {quirk: tuple(events) for quirk, events in record.events.items()}
                for name, record in reversed(self._clients.items())
            }
        return {
            "format": FORMAT,
            "quirks": [
                {"quirk": row.name, "server": row.server, "client": row.client, "clause": row.clause, "why": row.why}
                for row in QUIRKS.values()
            ],
            "clients": [{"client": name, "verdicts": _judged(events)} for name, events in found.items()],
        }

    def page(self, request: Request) -> Reply | None:
        """The page, its parts and the JSON; None for other paths."""
        path = request.target.partition("?")[0]
        if path not in _PAGES and path != "/scores":
            return None
        if not self._is_own_host(request.headers.get_all("Host", [])):
            return Reply(403, headers=HEADERS)  # DNS rebinding: another site's name leads here
        if request.method != "GET":
            return Reply(405, headers=(("Allow", "GET"), *HEADERS))
        if path == "/scores":
            return Reply(200, json.dumps(self.table()).encode(), "application/json", HEADERS)
        return Reply(200, self._files[path], _PAGES[path][1], HEADERS)

    def _is_own_host(self, host: list[str]) -> bool:
        found = _HOST.fullmatch(host[0]) if len(host) == 1 else None
        if found is None:
            return False
        name = (found["six"] or found["name"]).lower()
        if name in self._hosts or name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _judged(found: Mapping[str, tuple[Event, ...]]) -> Mapping[str, object]:
    verdicts = {}
    for name, events in found.items():
        quirk = QUIRKS[name]
        verdict = quirk.judge([Step(quirk.steps[0], events)])
        verdicts[name] = {"verdict": verdict.result.value, "evidence": [clean(words) for words in verdict.evidence]}
    return verdicts


def _size(event: Event) -> int:
    return _EVENT + (len(event.csr) + len(event.key) + len(event.body) if isinstance(event, Exchange) else 0)
