"""The HTTP side of the page: who asks is judged first (`guard`), then one table says what there is.

Every failure has an empty body: a stranger learns nothing, and the page knows its own words for each status.  A GET
needs no token for the files of the page itself, since a browser sends none with them; they are the same for everybody.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import hdrs, web

from estgw.logs import log
from estgw.page import explain, export, guard, rows
from estgw.page.events import Events
from estgw.record.ring import Record, Ring

Replay: TypeAlias = Callable[[str], Awaitable[str]]
"""Replays the record of that id and returns the id of the new one.  Raises `ReplayFailed`."""

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The kinds of file that are served; what else lies there, such as a licence, is not."""

REPLAYS = 4
"""Replays that run or wait; one more gets a 503."""
EXPLANATIONS = 4
"""Messages that are explained at once, in threads."""
PATIENCE = {"Retry-After": "5"}


class ReplayFailed(Exception):
    """A record can't be replayed; the text says why, and what to do."""


@dataclass(frozen=True)
class Facts:
    """What the page says of its gateway, and puts into the commands that it offers."""

    name: str
    url: str
    """The gateway's base URL, without a slash at its end."""
    folder: str
    config: str
    anchor: str | None = None
    """A PEM file that verifies the gateway's certificate."""


@dataclass(frozen=True)
class Access:
    """What a request has to bring."""

    token: str
    hosts: frozenset[str] = frozenset()
    """Names in lower case that may stand in Host, besides those of the loopback and the listening address."""
    scheme: str = "http"


class Page:
    """The page over the records of one ring; call it with each request."""

    def __init__(self, ring: Ring, facts: Facts, access: Access, replay: Replay | None = None) -> None:
        """Read the files of the page.  `replay` is behind the button; without one there is no button."""
        self._ring = ring
        self._facts = facts
        self._access = access
        self._replay = replay
        self._replays = 0
        self._explaining = asyncio.Semaphore(EXPLANATIONS)
        self._events = Events(ring)
        self._files = static_files()
        self._routes: tuple[tuple[re.Pattern[str], str, _Handler], ...] = (
            (re.compile("/api/facts"), "GET", self._get_facts),
            (re.compile("/api/records"), "GET", self._get_rows),
            (re.compile("/api/records/([0-9a-f]{1,32})"), "GET", self._get_record),
            (re.compile("/api/records/([0-9a-f]{1,32})/explain"), "GET", self._get_words),
            (re.compile("/api/events"), "GET", self._get_events),
            (re.compile("/api/export"), "GET", self._get_export),
            (re.compile("/api/replay/([0-9a-f]{1,32})"), "POST", self._post_replay),
        )

    def describe(self, facts: Facts) -> None:
        """Tell other facts from now on, as a reload may change the gateway's name."""
        self._facts = facts

    @property
    def listeners(self) -> int:
        """Pages that listen for new rows."""
        return self._events.open

    def close(self) -> None:
        """End the streams of all listeners, so that the server can stop."""
        self._events.close()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._answer(request)
        except ConnectionError:
            return empty(400)  # it is not sent; raising would log a traceback
        except Exception:  # noqa: BLE001 - a fault of the page is logged, and costs this request alone
            log.exception("the page failed", path=request.rel_url.raw_path[:200])
            return empty(500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, headers = request.rel_url.raw_path, request.headers
        local = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        if not guard.is_own_host(headers.getall(hdrs.HOST, []), local, self._access.hosts):
            return empty(403)
        if not request.raw_path.startswith("/"):  # a form for proxies, whose authority takes the place of Host
            return empty(404)
        if _has_body(request):  # no request here has one
            refused = empty(413)
            refused.force_close()
            return refused
        if not path.startswith("/api/"):
            return self._file(request, path)
        if not guard.has_token(headers.getall(hdrs.AUTHORIZATION, []), self._access.token):
            return empty(403)
        for pattern, method, handler in self._routes:
            if found := pattern.fullmatch(path):
                if request.method != method:
                    return empty(405, {hdrs.ALLOW: method})
                if method == "POST" and not self._is_from_here(request):
                    return empty(403)
                return await handler(request, *found.groups())
        return empty(404)

    def _is_from_here(self, request: web.BaseRequest) -> bool:
        origins = request.headers.getall(hdrs.ORIGIN, [])
        return guard.is_own_origin(origins, request.headers[hdrs.HOST], self._access.scheme)

    def _file(self, request: web.BaseRequest, path: str) -> web.Response:
        file = self._files.get("/index.html" if path == "/" else path)
        if file is None:
            return empty(404)
        if request.method not in ("GET", "HEAD"):
            return empty(405, {hdrs.ALLOW: "GET, HEAD"})
        kind, content = file
        return web.Response(body=content, headers={**guard.HEADERS, hdrs.CONTENT_TYPE: kind})

    async def _get_facts(self, _: web.BaseRequest) -> web.StreamResponse:
        return as_json({**asdict(self._facts), "replay": self._replay is not None})

    async def _get_rows(self, request: web.BaseRequest) -> web.StreamResponse:
        since = request.query.get("since", "0")
        if not re.fullmatch("[0-9]{1,15}", since):
            return empty(400)
        found = self._ring.since(int(since))
        return as_json({"last": self._ring.last, "rows": [rows.row(*each) for each in found]})

    async def _get_record(self, _: web.BaseRequest, identifier: str) -> web.StreamResponse:
        record = self._ring.get(identifier)
        return empty(404) if record is None else as_json(record)

    async def _get_words(self, _: web.BaseRequest, identifier: str) -> web.StreamResponse:
        record = self._ring.get(identifier)
        if record is None:
            return empty(404)
        async with self._explaining:
            return as_json(await asyncio.to_thread(explain.explained, record))

    async def _get_events(self, request: web.BaseRequest) -> web.StreamResponse:
        after = request.headers.get("Last-Event-ID", "0")
        if not re.fullmatch("[0-9]{1,15}", after):
            return empty(400)
        if self._events.are_many:
            return empty(503, PATIENCE)
        return await self._events.stream(request, int(after))

    async def _get_export(self, request: web.BaseRequest) -> web.StreamResponse:
        form = request.query.get("format", "json")
        wanted = [each for text in request.query.getall("id", []) for each in text.split(",")]
        if form not in export.FORMATS or len(wanted) > export.IDS:
            return empty(400)
        records = export.chosen(self._ring, wanted)
        if wanted and not records:
            return empty(404)
        return await self._download(request, records, form)

    async def _download(self, request: web.BaseRequest, records: list[Record], form: str) -> web.StreamResponse:
        name = export.file_name(records, form)
        response = web.StreamResponse(
            headers={
                **guard.HEADERS,
                hdrs.CONTENT_TYPE: "application/json",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"',
            }
        )
        await response.prepare(request)
        for piece in export.pieces(records, form, self._facts.url):
            await response.write(piece.encode("utf-8", "backslashreplace"))
            await asyncio.sleep(0)  # let the gateway serve others
        await response.write_eof()
        return response

    async def _post_replay(self, _: web.BaseRequest, identifier: str) -> web.StreamResponse:
        if self._replay is None or self._ring.get(identifier) is None:
            return empty(404)
        if self._replays >= REPLAYS:
            return empty(503, PATIENCE)
        self._replays += 1
        try:
            return as_json({"id": await self._replay(identifier), "error": None})
        except ReplayFailed as fault:
            # A fault in words is a result: the page shows the sentence.
            return as_json({"id": None, "error": str(fault)})
        finally:
            self._replays -= 1


_Handler: TypeAlias = Callable[..., Awaitable[web.StreamResponse]]


def static_files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of each file of the page by its path; nothing else is ever read for a request."""
    return {
        f"/{path.relative_to(STATIC).as_posix()}": (TYPES[path.suffix], path.read_bytes())
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in TYPES
    }


def empty(status: int, more: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer without a body."""
    return web.Response(status=status, headers={**guard.HEADERS, **(more or {})})


def as_json(value: Mapping[str, Any]) -> web.Response:
    """Return an answer in JSON."""
    headers = {**guard.HEADERS, hdrs.CONTENT_TYPE: "application/json"}
    return web.Response(body=json.dumps(value).encode(), headers=headers)


def _has_body(request: web.BaseRequest) -> bool:
    return bool(request.headers.get(hdrs.TRANSFER_ENCODING)) or request.headers.get(hdrs.CONTENT_LENGTH, "0") != "0"
