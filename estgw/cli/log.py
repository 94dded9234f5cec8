"""`estgw log`: requests from the gateway's log, each with the lines of its scripts.

The log is read line by line, so its length does not matter.  The lines of a request come before the line of the request
itself; they are kept until that one comes, and the oldest go first when there are too many.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import zlib
from argparse import Namespace
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from estgw import logs
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError

MOST_LAST = 1000
"""Requests that --last keeps at once."""
LINE = 1_048_576
"""The longest line that is read, in bytes; a longer one counts as not JSON."""
WAITING, REQUEST = 16_777_216, 131_072
"""Bytes, roughly, of all lines that wait for the line of their request, and of those of one request."""
_GONE = "client went away"
_SHOWN_ELSEWHERE = {"event", "level", "timestamp", "request_id", "worker", "exception", "handler", "line"}


@dataclass
class _Lines:
    """Those of one request, without its own."""

    texts: list[str] = field(default_factory=list)
    size: int = 0

    def add(self, text: str) -> int:
        """Keep a line if there is room; returns how much more room that takes."""
        if self.size > REQUEST:
            return 0
        cost = len(text) + 200  # for the objects
        self.size += cost
        self.texts.append(text if self.size <= REQUEST else "    [further lines are left out]")
        return cost


class Reader:
    """Parses a log, and counts what is no line of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.unreadable = 0
        self.first_unreadable = 0
        self.cut = False
        """The last line has no end, as in a copy of a log that is being written."""
        self.requests = 0

    def events(self) -> Iterator[dict[str, Any]]:
        """The lines that are JSON objects."""
        for number, raw in enumerate(self._lines(), start=1):
            event = None
            with suppress(ValueError, RecursionError):
                event = json.loads(raw)
            if isinstance(event, dict):
                yield event
            elif raw.endswith(b"\n") and raw.strip():
                self.unreadable += 1
                self.first_unreadable = self.first_unreadable or number
            elif raw.strip():
                self.cut = True

    def entries(self) -> Iterator[tuple[dict[str, Any], list[str]]]:
        """The requests, each with the lines that have its request id, ready to print."""
        waiting: OrderedDict[str, _Lines] = OrderedDict()
        size = 0
        for event in self.events():
            request_id = str(event.get("request_id", ""))
            if event.get("event") == "request" and "status" in event:
                self.requests += 1
                lines = waiting.pop(request_id, None) or _Lines()
                size -= lines.size
                yield event, lines.texts
            elif event.get("event") == _GONE and "path" in event:
                self.requests += 1
                yield {**event, "status": "gone", "reason": _GONE}, waiting.get(request_id, _Lines()).texts
            elif request_id:
                size += waiting.setdefault(request_id, _Lines()).add(_line(event))
                while size > WAITING:
                    _, dropped = waiting.popitem(last=False)
                    size -= dropped.size

    def remarks(self) -> Iterator[str]:
        """What could not be read."""
        if self.unreadable:
            yield (
                f"{self.unreadable} lines are not of a log in JSON, the first of them line {self.first_unreadable}; "
                "they are left out. In conf.yaml, log: {format: json} makes such a log on a terminal, too"
            )
        if self.cut:
            yield "the last line is cut off and left out"

    def _lines(self) -> Iterator[bytes]:
        with suppress(EOFError):  # of a compressed file that is cut off
            while line := self._file.readline(LINE):
                end = line
                while not end.endswith(b"\n") and (end := self._file.readline(LINE)):
                    pass  # the rest of a line that is too long
                yield line if end is line or not end else line + b"\n"
            return
        self.cut = True


def log(arguments: Namespace) -> int:
    """Print the requests that fit, under the date of each day."""
    last = arguments.last
    shown: deque[tuple[str, str]] = deque(maxlen=last)
    count, days = 0, _Days()
    try:
        with _opened(arguments.file) as file:
            reader = Reader(file)
            for event, lines in reader.entries():
                if not _fits(arguments, event):
                    continue
                count += 1
                line = logs.escape(logs.request_line(event))
                if hint := event.get("hint"):
                    line = logs.with_hint(line, logs.escape(str(hint)))
                text = "\n".join([line, *lines])
                if last is None:
                    days.show(_day(event), text)
                else:
                    shown.append((_day(event), text))
        for day, text in shown:
            days.show(day, text)
    except BrokenPipeError:
        raise  # of standard output, not of the file
    except (OSError, zlib.error) as fault:
        raise ConfigError([f"{arguments.file}: {getattr(fault, 'strerror', None) or fault}"]) from None
    for remark in reader.remarks():
        print(f"estgw: {arguments.file}: {remark}", file=sys.stderr)
    if count:
        return 0
    raise ConfigError([f"{arguments.file}: none of its {reader.requests} requests is {_wanted(arguments)}"])


class _Days:
    """Prints texts, and each date before its first text."""

    def __init__(self) -> None:
        self._day = ""

    def show(self, day: str, text: str) -> None:
        """Print a text of that day."""
        if day != self._day:
            self._day = day
            print(day)
        print(text)


def _day(event: Mapping[str, Any]) -> str:
    """The date of a line, in UTC; `no date` for a line without a time."""
    found = re.match(r"\d{4}-\d\d-\d\d", str(event.get("timestamp", "")))
    return found[0] if found else "no date"


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The log, unpacked if it is compressed by gzip; `-` is standard input."""
    with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
        buffered = io.BufferedReader(file)  # type: ignore[type-var]  # of a BufferedReader, or of a pipe's
        if buffered.peek(2)[:2] == b"\x1f\x8b":
            with gzip.open(buffered) as unpacked:
                yield unpacked  # type: ignore[misc]  # GzipFile has all of IO that is used
        else:
            yield buffered


def _fits(arguments: Namespace, event: Mapping[str, Any]) -> bool:
    status = event["status"]
    return (
        (arguments.user is None or _is_by(arguments.user, event))
        and (arguments.label is None or arguments.label == event.get("label", ""))
        and (not arguments.failures or not isinstance(status, int) or status >= 400)
    )


def _is_by(user: str, event: Mapping[str, Any]) -> bool:
    return user in (event.get("user"), event.get("claimed_user")) or event.get("identity") == f"CN={user}"


def _wanted(arguments: Namespace) -> str:
    """The filters, in words."""
    words = ["a failure" if arguments.failures else "there"]
    words += [f"of user {arguments.user}"] if arguments.user is not None else []
    words += [f"under label {arguments.label}"] if arguments.label is not None else []
    return logs.escape(" ".join(words))


def _line(event: Mapping[str, Any]) -> str:
    """A line that belongs to a request: a script's word, or another event."""
    if "line" in event:
        return logs.escape(f"    {event.get('handler', '')}: {event['line']}")[: logs.LINE_LIMIT]
    fields = (f"{name}={value}" for name, value in event.items() if name not in _SHOWN_ELSEWHERE)
    return logs.escape("    " + "  ".join([str(event.get("event", "")), *fields]))[: logs.LINE_LIMIT]


def _count(text: str) -> int:
    number = int(text)
    if not 0 < number <= MOST_LAST:
        raise ValueError(text)
    return number


_count.__name__ = f"number from 1 to {MOST_LAST}"  # argparse says: invalid ... value

COMMANDS = (
    Command(
        name="log",
        summary="Print the requests of a log in JSON as a terminal shows them, with the lines of their scripts.",
        description="Also a log that gzip has compressed. Requests with a wrong password belong to the user name "
        "that was sent, and requests with a certificate to the user whose name is its whole subject, CN=NAME.",
        run=log,
        options=[
            Option("file", "the gateway's log; - is standard input", "FILE", type=Path),
            Option("--user", "only requests of this user", "NAME"),
            Option("--label", "only requests under this CA label; empty: those without one", "LABEL"),
            Option("--failures", "only requests with a status of 400 or more, or whose client went away"),
            Option("--last", f"only the last N of these, {MOST_LAST} at most", "N", type=_count),
        ],
        example="log gateway.log --user p7 --failures --last 1",
    ),
)
