"""The page over a ring of our own, served from a thread, so that a browser in the test's thread can look at it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from estgw.page import guard
from estgw.page.app import Desk, Facts, Page, ReplayFailed
from estgw.page.files import Files
from estgw.page.serving import Address, Served, bind, served
from estgw.page.site import Access
from estgw.page.standing import Standing
from estgw.record.ring import Ring
from tests.kit.processes import DEADLINE, PATH

T = TypeVar("T")

FACTS = Facts("lab", "https://localhost:8443", "/lab", "/lab/conf.yaml", "/lab/openssl-ca/anchors.pem")


class Shown:
    """A page that is being served: its address, its token, and its ring."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Ring, token: str) -> None:
        self._loop, self.ring, self.token = loop, ring, token
        self.served: Served
        self.application: Page
        self.replayed: list[str] = []
        self.replays: Callable[[str], Any] | None = None

    @property
    def listeners(self) -> int:
        """Pages that listen now."""
        return self.application.listeners

    @property
    def url(self) -> str:
        """The link, token included."""
        return self.served.url

    @property
    def base(self) -> str:
        return self.url.partition("/#")[0]

    def add(self, *records: Mapping[str, Any]) -> None:
        """Let records happen."""

        async def put() -> None:
            for record in records:
                self.ring.add(record)

        self.start(put())

    def start(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the thread of the server, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE)

    async def lab(self, what: str, number: str) -> tuple[str, str]:
        """Two labs, as `estgw lab` prints them; the second can't be started."""
        if what == "list":
            return " 1  done      First (10 min)\n 2            Second (20 min)\n", ""
        if what == "show":
            return SHEET.format(number), ""
        return (
            (f"{what} of lab {number}\n", "") if (what, number) != ("start", "2") else ("", "conf.yaml can't be read")
        )

    async def replay(self, identifier: str) -> str:
        self.replayed.append(identifier)
        if self.replays is None:
            raise ReplayFailed("its body was cut, so it can't be replayed")
        made = self.replays(identifier)
        self.ring.add(made)
        return str(made["id"])

    def ask(
        self, method: str, path: str, *, token: str | None = None, body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request, with the token if none is given (an empty one is none); underscores of names become hyphens."""
        place = urlsplit(self.base)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token != "":
            given.setdefault("Authorization", f"Bearer {token or self.token}")
        with contextlib.closing(connection):
            connection.request(method, path, body, given)
            response = connection.getresponse()
            return response, response.read()


SHEET = """# Lab {}: A sheet

Two lines of `one`
paragraph.

```sh
est=https://localhost:8443 # <b>
```

```
shown
```

<details>
<summary>Hint: the solution</summary>

Nothing.
</details>
"""


@contextlib.contextmanager
def shown(
    *records: Mapping[str, Any],
    keep: int = 10_000,
    replays: bool = True,
    hosts: frozenset[str] = frozenset(),
    facts: Facts = FACTS,
    port: int = 0,
    token: str | None = None,
    tls: tuple[Path, Path] | None = None,
    tokens: Mapping[str, str | None] | None = None,
    folder: Path | None = None,
) -> Iterator[Shown]:
    """Serve the page with these records in its ring.

    With a `folder`, the files of its handlers/ can be edited, and hands raised.
    """
    ready, done = threading.Event(), threading.Event()
    made: list[Shown] = []
    failures: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ring = Ring(keep, 1 << 30)
        page = Shown(loop, ring, token or guard.new_token())
        address = Address("127.0.0.1", port, tls=tls)
        access = Access({page.token: None, **(tokens or {})}, hosts, address.scheme)
        desk = Desk(
            replay=page.replay if replays else None,
            files=Files(folder / "handlers", folder / "versions", PATH) if folder else None,
            labs=page.lab if folder else None,
            standing=Standing(folder) if folder else None,
        )
        page.application = Page(ring, facts, access, desk)
        async with served(page.application, bind(address), address, None, page.token) as page.served:
            for record in records:
                ring.add(record)
            made.append(page)
            ready.set()
            await asyncio.to_thread(done.wait)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as fault:  # noqa: BLE001 - it is raised where the test waits
            failures.append(fault)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(DEADLINE)
    try:
        if failures:
            raise failures[0]
        yield made[0]
    finally:
        done.set()
        thread.join(DEADLINE)
    if failures:
        raise failures[0]
