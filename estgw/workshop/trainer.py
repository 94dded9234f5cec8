"""The trainer's page: a row for each participant, who is reset or whose hand is lowered here.

It is a process of its own under a user id of its own.  A reset needs root, so it asks the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from estgw import logs
from estgw.config.fields import split_address
from estgw.page.serving import Address, bind, served
from estgw.page.site import Access, Asked, Route, Site, as_json, empty
from estgw.workshop import control
from estgw.workshop.fault import WorkshopError
from estgw.workshop.standings import Standings

FRESH = 1.5
"""Seconds for which an answer holds: several windows of a trainer cost the participants' gateways no more than one."""


class TrainersPage(Site):
    """The page over the standings of all participants."""

    index = "/trainer.html"

    def __init__(self, told: Mapping[str, Any], access: Access) -> None:
        self._told = told
        self._standings = Standings(told["seats"])
        self._control = Path(told["control"])
        self._asking = asyncio.Lock()
        self._last: tuple[float, dict[str, Any]] = (0.0, {})
        super().__init__(
            access,
            (
                Route(re.compile("/api/participants"), "GET", self._get_participants),
                Route(re.compile("/api/participants/(p[0-9]{2})/reset"), "POST", self._post_reset),
                Route(re.compile("/api/participants/(p[0-9]{2})/lower"), "POST", self._post_lower),
            ),
        )

    async def end(self) -> None:
        """Close the connections to the participants' pages."""
        await self._standings.close()

    async def _get_participants(self, _: Asked) -> web.StreamResponse:
        now = asyncio.get_running_loop().time()
        async with self._asking:
            if now - self._last[0] > FRESH or not self._last[1]:
                self._last = (asyncio.get_running_loop().time(), await self._ask())
        return as_json(self._last[1])

    async def _ask(self) -> dict[str, Any]:
        found = await self._standings.all()
        try:
            status = await asyncio.to_thread(control.ask, self._control, do="status") or {}
        except WorkshopError:
            status = {}
        children = {child["id"]: child for child in status.get("children", ())}
        links = {seat["id"]: seat for seat in self._told["seats"]}
        for standing in found:
            child, seat = children.get(standing["id"], {}), links[standing["id"]]
            standing |= {key: child.get(key) for key in ("memory", "restarts", "killed")}
            standing["page"] = f"https://{self._told['name']}:{seat['page_port']}/#{seat['token']}"
        return {"participants": found, "reset": bool(children), "shared": self._told["shared"]}

    async def _post_reset(self, _: Asked, name: str) -> web.StreamResponse:
        if name not in {seat["id"] for seat in self._told["seats"]}:
            return empty(404)
        try:
            answer = await asyncio.to_thread(control.ask, self._control, do="reset", who=name)
        except WorkshopError as fault:
            return as_json({"old": None, "error": str(fault)})
        self._last = (0.0, {})
        if answer is None:
            return as_json({"old": None, "error": f"say on the machine: estgw workshop reset {name}"})
        return as_json(answer)

    async def _post_lower(self, _: Asked, name: str) -> web.StreamResponse:
        if name not in {seat["id"] for seat in self._told["seats"]}:
            return empty(404)
        self._last = (0.0, {})
        try:
            await self._standings.lower(name)
        except (OSError, TimeoutError) as fault:
            return as_json({"error": f"the page of {name} can't be reached: {type(fault).__name__}"})
        return as_json({"error": None})


def main() -> int:
    """Serve the page that a trainer.json describes, from the workspace that is the working directory."""
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logs.configure("json", "info")
    asyncio.run(_serve(told))
    return 0


async def _serve(told: Mapping[str, Any]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    files = (Path("openssl-ca/server.pem"), Path("openssl-ca/private/serverkey.pem"))
    address = Address(*split_address(told["listen"]), tls=files)
    page = TrainersPage(told, Access({told["token"]: None}, frozenset(told["hosts"]), address.scheme))
    async with served(page, bind(address), address, told["name"], told["token"]):
        await stop.wait()
    await page.end()
