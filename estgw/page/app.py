"""The live page over the records of a gateway: the list, the records, events, replays, and what a participant edits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from aiohttp import hdrs, web

from estgw.page import export, guard, rows
from estgw.page.events import BATCH, Events
from estgw.page.files import FileFault, Files
from estgw.page.site import Access, Asked, Handler, Route, Site, as_json, empty
from estgw.page.standing import Standing
from estgw.page.viewers import View
from estgw.record.ring import Entry, Ring

Replay: TypeAlias = Callable[[str], Awaitable[str]]
"""Replays the record of that id and returns the id of the new one.  Raises `ReplayFailed`."""

Labs: TypeAlias = Callable[[str, str], Awaitable[tuple[str, str]]]
"""Runs list, show, start or check with the number of a lab or empty: what it says, and why it failed or empty."""

REPLAYS = 4
"""Replays that run or wait; one more gets a 503."""
LABS = 4
"""Checks of labs that run or wait; one more gets a 503."""
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
class Desk:
    """What viewers may do besides looking; None: they may not."""

    replay: Replay | None = None
    """Behind the button; without one there is no button."""
    files: Files | None = None
    """What may be edited, by viewers that see all."""
    labs: Labs | None = None
    """`estgw lab`, for viewers that see all."""
    standing: Standing | None = None
    """Hands to be raised, and what a trainer asks."""


class Page(Site):
    """The page over the records of one ring."""

    def __init__(self, ring: Ring, facts: Facts, access: Access, desk: Desk | None = None) -> None:
        self._views = {label: View(ring, label) for label in access.tokens.values()}
        self._facts = facts
        self._desk = desk or Desk()
        self._replays = self._lab_runs = 0
        self._explaining = asyncio.Semaphore(EXPLANATIONS)
        self._saving = asyncio.Lock()
        self._events = Events()
        routes: tuple[tuple[str, str, Handler], ...] = (
            ("/api/facts", "GET", self._get_facts),
            ("/api/records", "GET", self._get_rows),
            ("/api/records/([0-9a-f]{1,32})", "GET", self._get_record),
            ("/api/records/([0-9a-f]{1,32})/explain", "GET", self._get_words),
            ("/api/events", "GET", self._get_events),
            ("/api/export", "GET", self._get_export),
            ("/api/replay/([0-9a-f]{1,32})", "POST", self._post_replay),
            ("/api/standing", "GET", self._get_standing),
            ("/api/hand/(up|down)", "POST", self._post_hand),
            ("/api/labs", "GET", self._get_labs),
            ("/api/labs/([0-9]{1,2})", "GET", self._get_lab),
            ("/api/labs/([0-9]{1,2})/(start|check)", "POST", self._post_lab),
            ("/api/files", "GET", self._get_files),
            ("/api/file", "GET", self._get_file),
            ("/api/file", "PUT", self._put_file),
        )
        super().__init__(access, tuple(Route(re.compile(path), method, call) for path, method, call in routes))

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

    def _view(self, asked: Asked) -> View:
        return self._views[asked.label]

    async def _get_facts(self, asked: Asked) -> web.StreamResponse:
        desk = self._desk
        labs = desk.labs is not None and asked.label is None
        may = {"replay": desk.replay is not None, "edit": self._files_for(asked) is not None, "labs": labs}
        hand = desk.standing.hand(asked.label) if desk.standing is not None else None
        return as_json({**asdict(self._facts), **may, "hand": hand, "label": asked.label})

    async def _get_rows(self, asked: Asked) -> web.StreamResponse:
        since = asked.request.query.get("since", "0")
        if not re.fullmatch("[0-9]{1,15}", since):
            return empty(400)
        view = self._view(asked)
        found, last = view.since(int(since)), view.last
        made = []
        for start in range(0, len(found), BATCH):
            made += [rows.row(number, entry.outline()) for number, entry in found[start : start + BATCH]]
            await asyncio.sleep(0)  # let the gateway serve others
        return as_json({"last": last, "rows": made})

    async def _get_record(self, asked: Asked, identifier: str) -> web.StreamResponse:
        entry = self._view(asked).get(identifier)
        return empty(404) if entry is None else as_json(entry.record())

    async def _get_words(self, asked: Asked, identifier: str) -> web.StreamResponse:
        entry = self._view(asked).get(identifier)
        if entry is None:
            return empty(404)
        async with self._explaining:
            from estgw.page.explain import explained  # all of CMC, which a gateway starts without

            return as_json(await asyncio.to_thread(explained, entry.record()))

    async def _get_events(self, asked: Asked) -> web.StreamResponse:
        after = asked.request.headers.get("Last-Event-ID", "0")
        if not re.fullmatch("[0-9]{1,15}", after):
            return empty(400)
        if self._events.are_many:
            return empty(503, PATIENCE)
        return await self._events.stream(asked.request, self._view(asked), int(after))

    async def _get_export(self, asked: Asked) -> web.StreamResponse:
        query = asked.request.query
        form = query.get("format", "json")
        wanted = [each for text in query.getall("id", []) for each in text.split(",")]
        if form not in export.FORMATS or len(wanted) > export.IDS:
            return empty(400)
        entries = export.chosen(self._view(asked), wanted)
        if wanted and not entries:
            return empty(404)
        return await self._download(asked.request, entries, form)

    async def _download(self, request: web.BaseRequest, entries: list[Entry], form: str) -> web.StreamResponse:
        name = export.file_name(entries, form)
        response = web.StreamResponse(
            headers={
                **guard.HEADERS,
                hdrs.CONTENT_TYPE: "application/json",
                hdrs.CONTENT_DISPOSITION: f'attachment; filename="{name}"',
            }
        )
        await response.prepare(request)
        for piece in export.pieces(entries, form, self._facts.url):
            await response.write(piece.encode("utf-8", "backslashreplace"))
            await asyncio.sleep(0)  # let the gateway serve others
        await response.write_eof()
        return response

    async def _post_replay(self, asked: Asked, identifier: str) -> web.StreamResponse:
        replay = self._desk.replay
        if replay is None or self._view(asked).get(identifier) is None:
            return empty(404)
        if self._replays >= REPLAYS:
            return empty(503, PATIENCE)
        self._replays += 1
        try:
            return as_json({"id": await replay(identifier), "error": None})
        except ReplayFailed as fault:
            # A fault in words is a result: the page shows the sentence.
            return as_json({"id": None, "error": str(fault)})
        finally:
            self._replays -= 1

    async def _get_standing(self, asked: Asked) -> web.StreamResponse:
        standing = self._desk.standing
        return empty(404) if standing is None else as_json(standing.of(self._view(asked)))

    async def _post_hand(self, asked: Asked, way: str) -> web.StreamResponse:
        if self._desk.standing is None:
            return empty(404)
        try:
            self._desk.standing.raise_hand(asked.label, up=way == "up")
        except OSError as fault:
            return as_json({"hand": way != "up", "error": f"the hand can't be kept: {fault.strerror}"})
        return as_json({"hand": way == "up", "error": None})

    async def _get_labs(self, asked: Asked) -> web.StreamResponse:
        return await self._lab(asked, "list", "")

    async def _get_lab(self, asked: Asked, number: str) -> web.StreamResponse:
        return await self._lab(asked, "show", number)

    async def _post_lab(self, asked: Asked, number: str, what: str) -> web.StreamResponse:
        return await self._lab(asked, what, number)

    async def _lab(self, asked: Asked, what: str, number: str) -> web.StreamResponse:
        if self._desk.labs is None or asked.label is not None:
            return empty(404)
        if self._lab_runs >= LABS:
            return empty(503, PATIENCE)
        self._lab_runs += 1
        try:
            said, fault = await self._desk.labs(what, number)
        finally:
            self._lab_runs -= 1
        return as_json({"said": said, "error": fault or None})

    def _files_for(self, asked: Asked) -> Files | None:
        """What the viewer may edit: nothing for one label's, since its scripts run as everybody's do."""
        return self._desk.files if asked.label is None else None

    async def _get_files(self, asked: Asked) -> web.StreamResponse:
        files = self._files_for(asked)
        return empty(404) if files is None else await self._told(files.all)

    async def _get_file(self, asked: Asked) -> web.StreamResponse:
        files = self._files_for(asked)
        name, version = asked.request.query.get("name", ""), asked.request.query.get("version")
        return empty(404) if files is None else await self._told(files.read, name, version)

    async def _put_file(self, asked: Asked) -> web.StreamResponse:
        files = self._files_for(asked)
        if files is None:
            return empty(404)
        query = asked.request.query
        async with self._saving:
            return await self._told(files.save, query.get("name", ""), asked.body, query.get("instead", ""))

    async def _told(self, work: Callable[..., dict[str, Any]], *arguments: object) -> web.StreamResponse:
        """The result of work in a thread, or the sentence that says why there is none."""
        try:
            return as_json({**await asyncio.to_thread(work, *arguments), "error": None})
        except FileFault as fault:
            return as_json({"error": str(fault)})
