"""The output of `estclient`: words for a person on stderr, the result on stdout, as PEM or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from estgw.client.faults import ClientError, Exit, Refused, TryLater


class Report:
    """The output of one run.  Text from a peer has passed through `clean` or `names` before it comes here."""

    def __init__(self, command: str, operation: str = "", *, as_json: bool, is_verbose: bool) -> None:
        """`operation` is the EST operation that the command is for."""
        self._command = command
        self._operation = operation
        self._as_json = as_json
        self._is_verbose = is_verbose
        self._facts: dict[str, Any] = {}
        self._has_progress = False

    @property
    def as_json(self) -> bool:
        """Whether stdout gets one JSON object and nothing else."""
        return self._as_json

    def say(self, text: str) -> None:
        """One or more lines for a person."""
        self._end_progress()
        _tell(text + "\n")

    def detail(self, text: str) -> None:
        """One or more lines for a person, with `-v` only."""
        if self._is_verbose:
            self.say(text)

    def progress(self, text: str) -> None:
        """A line that the next one replaces, on a terminal only."""
        if _is_terminal():
            self._has_progress = True
            _tell(f"\r\x1b[K{text}")

    def fact(self, **facts: Any) -> None:
        """Add facts to the JSON object."""
        self._facts |= facts

    def output(self, data: bytes) -> None:
        """The result itself on stdout; with `--json` it is a fact instead.  Raises `ClientError`."""
        if not self._as_json:
            _print(data)

    def done(self) -> Exit:
        """Close a successful run."""
        self._end_progress()
        self._object({"status": "done", "exit": int(Exit.DONE)})
        return Exit.DONE

    def failed(self, fault: ClientError) -> Exit:
        """Close a failed run: its words go to stderr, its facts into the JSON object."""
        is_other = fault.operation not in ("", self._operation)
        where = f"{fault.operation} at {fault.url}: " if is_other else ""
        self.say(f"estclient {self._command}: {where}{fault}")
        facts: dict[str, Any] = {"status": fault.status.name.lower(), "exit": int(fault.status), "error": str(fault)}
        if fault.operation:
            facts |= {"operation": fault.operation, "url": fault.url}
        if isinstance(fault, TryLater):
            facts |= {"retry_after": fault.seconds, "retry_at": f"{fault.when:%Y-%m-%dT%H:%M:%SZ}"}
        if isinstance(fault, Refused):
            facts |= {"http_status": fault.http_status, "words": fault.words}
        with contextlib.suppress(ClientError):
            self._object(facts)
        return fault.status

    def _object(self, facts: dict[str, Any]) -> None:
        if self._as_json:
            text = json.dumps({"command": self._command, **facts, **self._facts}, indent=2, ensure_ascii=True)
            _print(text.encode() + b"\n")

    def _end_progress(self) -> None:
        if self._has_progress:
            self._has_progress = False
            _tell("\r\x1b[K")


def _is_terminal() -> bool:
    return bool(sys.stderr) and sys.stderr.isatty()


def _tell(text: str) -> None:
    """Write words to stderr; a closed or full stderr does not fail the run."""
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _print(data: bytes) -> None:
    """Write bytes to stdout; raises `ClientError` if that fails, since the result would be lost."""
    if sys.stdout is None:
        raise ClientError("standard output is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as fault:
        # The interpreter flushes stdout again when it exits, and would print an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ClientError(f"standard output: {fault.strerror}") from None
