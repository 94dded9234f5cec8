"""The three runners, kept warm in a thread, so that tests need not wait for a parent to start."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from estgw.callout.pool import Pool
from estgw.callout.process import Limits, Outcome, Script
from estgw.callout.runners import Runners
from estgw.callout.warm import Warm

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_CTYPE": "C.UTF-8", "TZ": "UTC"}
"""The variables that the contract promises and an interpreter reads."""
LIMITS = Limits(seconds=20, stdout=64 * 1024, stderr=64 * 1024)

T = TypeVar("T")


class Running:
    """An event loop in a thread, with the runners of one configuration."""

    def __init__(self, size: int = 4, requests: int = 1000) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.warm = Warm()
        self.pool = Pool(self.warm, size, requests)
        self.runners = Runners.warm(self.warm, self.pool)
        self.do(self._start())

    async def _start(self) -> None:
        self.warm.start()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        """Start a coroutine and return a concurrent future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and wait for it."""
        result: T = self.submit(coroutine).result(60)
        return result

    def run(
        self,
        runner: str,
        program: Path,
        stdin: bytes = b"",
        limits: Limits = LIMITS,
        env: dict[str, str] | None = None,
    ) -> Outcome:
        return self.do(self.runners.run(runner, program, ENV if env is None else env, stdin, limits))

    def run_both(
        self,
        runner: str,
        first: Path,
        second: Path,
        limits: tuple[Limits, Limits] = (LIMITS, LIMITS),
        stdin: bytes = b"",
    ) -> tuple[Outcome, Outcome | None]:
        """Run a decision and a handler in one process."""
        by = self.runners.for_both((runner, runner), (first, second))
        assert by is not None
        scripts = Script(first, ENV, b"", limits[0]), Script(second, ENV, stdin, limits[1])
        return self.do(self.runners.run_both(by, *scripts))

    def close(self) -> None:
        async def end() -> None:
            self.pool.close()
            self.warm.close()

        self.do(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextlib.contextmanager
def running(size: int = 4, requests: int = 1000) -> Iterator[Running]:
    """Runners that are closed at the end of the block."""
    made = Running(size, requests)
    try:
        yield made
    finally:
        made.close()


def script(directory: Path, text: str, name: str = "handler") -> Path:
    """A Python script of the gateway's own interpreter."""
    path = directory / name
    path.write_bytes(f"#!{sys.executable}\n{text}\n".encode())
    path.chmod(0o755)
    return path


def alive(pid: int) -> bool:
    """Whether a process runs. Zombies do not count."""
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except (FileNotFoundError, ProcessLookupError):
        return False


def dead(pid: int) -> bool:
    return not alive(pid)


def quick(seconds: float) -> Limits:
    return Limits(seconds, LIMITS.stdout, LIMITS.stderr)
