"""Running targets: one input, a corpus, or mutations for some time.

A target is a function over bytes. Any exception is a finding, except those of `EXPECTED`, with which the project
refuses input. An input that takes more than `SLOWEST` seconds of CPU is a finding, too.
"""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

import tests.fuzz
from estgw.client.faults import ClientError
from estgw.errors import ConfigError, Malformed, RequestError
from tests.fuzz.mutator import mutate
from tests.kit.processes import ROOT

Function = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"
FINDINGS = ROOT / "dist" / "fuzz"
EXPECTED = (Malformed, RequestError, ConfigError, ClientError)
SLOWEST = 1.0
"""Seconds of CPU for one input."""
SMALL = 8192
"""Bytes of an input that is worth more mutations: larger inputs take longer and find nothing else."""
_PACKAGE = str(ROOT / "estgw")


@dataclass(frozen=True)
class Finding:
    """An input that a target did not handle."""

    target: str
    data: bytes
    what: str
    """A traceback, or the time that it took."""

    @property
    def place(self) -> str:
        """Equal for findings of the same fault: the kind of exception and the last line of ours in the traceback."""
        lines = [line.strip() for line in self.what.splitlines()]
        ours = [line for line in lines if line.startswith("File ") and str(ROOT) in line and "tests/fuzz/" not in line]
        return " ".join([lines[-1].partition(":")[0], *ours[-1:]])

    def save(self, directory: Path = FINDINGS) -> Path:
        """Write the input to a new file."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        path.write_bytes(self.data)
        return path


def targets() -> dict[str, tuple[Function, list[bytes]]]:
    """All targets by name: function and seeds, including those of the corpus."""
    found: dict[str, tuple[Function, list[bytes]]] = {}
    for module in pkgutil.iter_modules(tests.fuzz.__path__, "tests.fuzz."):
        if module.name.rpartition(".")[2].startswith("targets_"):
            for name, (function, seeds) in importlib.import_module(module.name).TARGETS.items():
                assert name not in found, f"two targets are called {name}"
                found[name] = (function, [*seeds, *corpus(name)])
    return found


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    directory = CORPUS / name
    return [path.read_bytes() for path in sorted(directory.iterdir())] if directory.is_dir() else []


def check(name: str, function: Function, data: bytes) -> Finding | None:
    """Run one input. Returns the finding, if there is one."""
    try:
        seconds = _seconds(function, data)
        if seconds > SLOWEST:  # perhaps the time went elsewhere, such as into an import
            seconds = _seconds(function, data)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a panic in cryptography is not an Exception
        return Finding(name, data, traceback.format_exc())
    return Finding(name, data, f"{seconds:.1f} s of CPU for {len(data)} bytes") if seconds > SLOWEST else None


def _seconds(function: Function, data: bytes) -> float:
    started = time.thread_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", UserWarning)  # about odd certificates: lines in the gateway's log
        with suppress(*EXPECTED):
            function(data)
    return time.thread_time() - started


@dataclass
class Campaign:
    """One target under mutations, with its results so far."""

    name: str
    function: Function
    seeds: Sequence[bytes]
    rng: Random
    lines: Lines | None = None
    """Guides the mutations: an input that reaches new lines is changed further."""
    executions: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)
    """By place, with the shortest input of each."""
    kept: list[bytes] = field(default_factory=list)
    """Inputs that reached new lines."""

    def run(self, seconds: float, most: int = sys.maxsize) -> None:
        """Run every seed first, then mutations for some seconds, at most `most` of them."""
        end = time.monotonic() + seconds
        for seed in self.seeds:
            self._try(seed)
        pool = [seed for seed in self.seeds if len(seed) <= SMALL] or [b""]
        while most > 0 and time.monotonic() < end:
            data = mutate(self.rng, self.rng.choice(pool), pool)
            most -= 1
            if self._try(data) and len(data) <= SMALL:
                pool.append(data)
                self.kept.append(data)

    def _try(self, data: bytes) -> bool:
        """Whether an input reached a new line."""
        self.executions += 1
        if self.lines is None:
            return self._note(check(self.name, self.function, data))
        with self.lines.watched():
            finding = check(self.name, self.function, data)
        if finding is not None and "s of CPU" in finding.what:
            finding = check(self.name, self.function, data)  # watching takes time, too
        self._note(finding)
        return self.lines.is_new

    def _note(self, finding: Finding | None) -> bool:
        if finding is not None:
            known = self.findings.get(finding.place)
            if known is None or len(finding.data) < len(known.data):
                self.findings[finding.place] = finding
        return False


class Lines:
    """The lines of the package that no input has reached yet."""

    def __init__(self) -> None:
        self.is_new = False
        """Whether the last input reached one."""
        self._missing: dict[CodeType, set[int]] = {}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Trace the code that runs inside."""
        self.is_new = False
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        missing = self._missing.get(code)
        if missing is None:
            ours = code.co_filename.startswith(_PACKAGE)
            missing = {line for _, _, line in code.co_lines() if line} if ours else set()
            self._missing[code] = missing
        if not missing:
            return None

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            if frame.f_lineno in missing:
                missing.discard(frame.f_lineno)
                self.is_new = True
            return line

        return line


def campaigns(chosen: Mapping[str, tuple[Function, list[bytes]]], seed: int | str) -> list[Campaign]:
    """A guided campaign for each target, each with its own random generator."""
    return [
        Campaign(name, function, seeds, Random(f"{seed} {name}"), Lines()) for name, (function, seeds) in chosen.items()
    ]
