"""The log: structured lines with the request id and without secrets.

structlog's renderers escape control characters, so no peer can forge a line.  Code never passes a secret (password,
Authorization header, private key) to a logger.  `masked` is for the stderr of scripts, which might print a key.
"""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

import structlog

LINE_LIMIT = 4096
"""The longest line of a handler's stderr in the log, in characters; the rest of a line is cut."""

_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.DOTALL
)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def configure(form: str, level: str, stream: TextIO | None = None, *, worker: int | None = None) -> None:
    """Set up logging: `form` is `json`, `text` or `auto` (text on a terminal), `level` is the name of a level.

    If there are several workers, each line has the number of its `worker`.
    """
    stream = stream or sys.stderr
    as_text = form == "text" or (form == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if worker is not None:
        shared.insert(0, lambda _logger, _method, event: {**event, "worker": worker})
    renderer: Any = _Text(colors=stream.isatty()) if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*shared, _escape, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        # A line and its end go out in one write, so that lines of several processes do not mix.
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )
    # cryptography warns of a client's odd certificate; that becomes a line of the log too.
    logging.captureWarnings(True)
    # aiohttp and asyncio use the standard library's logging; their warnings and errors go into this log.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], format="%(message)s", force=True)


COLUMNS = 120
"""Of one line about a request that went well, in the text form."""
SERIAL = 16
"""Characters of a serial number in that line; JSON has all of it."""
_COLOURS = {2: "32", 3: "36", 4: "33", 5: "31"}  # of a status on a terminal, by its first digit


class _Text:
    """The text form: `request` events in a form that a person reads at a glance, all others as structlog has them."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors
        self._others = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0)

    def __call__(self, logger: Any, method: str, event: structlog.typing.EventDict) -> str:
        if event.get("event") != "request" or "status" not in event:
            return self._others(logger, method, event)
        status = str(event["status"])
        line = request_line(event)
        if hint := event.get("hint"):
            line = with_hint(line, str(hint))
        colour = _COLOURS.get(int(status[0]))
        return line.replace(status, f"\x1b[{colour}m{status}\x1b[0m", 1) if self._colors and colour else line


def request_line(event: Mapping[str, Any]) -> str:
    """One request in one line: time, status, operation, client and reason first.

    A request that went well takes at most `COLUMNS` characters; its subject is cut for that.  A reason is never cut.
    """
    place = "/".join(str(event[key]) for key in ("label", "operation") if event.get(key)) or str(event.get("path", ""))
    client = str(event.get("identity") or event.get("peer") or "")
    if claimed := event.get("claimed_user"):
        client += f" as {claimed}"
    head = [str(event.get("timestamp", ""))[11:19], str(event["status"]), place]
    if "worker" in event:
        head.insert(1, f"worker {event['worker']}")
    tail = [f"serial {_cut(str(event['serial']), SERIAL)}"] if "serial" in event else []
    tail += [f"{event['ms']} ms"] if "ms" in event else []
    tail += [str(event["request_id"])] if "request_id" in event else []
    if reason := event.get("reason"):
        return "  ".join(part for part in (*head, client, str(reason), *tail) if part)
    subject = f"for {event['subject']}" if event.get("subject") else ""
    room = COLUMNS - len("  ".join((*head, *tail))) - 4
    client = _cut(client, max(8, room - min(len(subject), room // 2)))
    subject = _cut(subject, max(0, room - len(client)))
    return _cut("  ".join(part for part in (*head, client, subject, *tail) if part), COLUMNS)


def with_hint(line: str, hint: str) -> str:
    """A line about a request that was refused, with what to do next: at its end if it fits, else on the next line."""
    whole = f"{line}  {HINT} {hint}"
    return whole if len(whole) <= COLUMNS else f"{line}\n    {HINT} {hint}"


HINT = "next:"
"""In front of a hint, for a person."""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(0, length - 3)]}..."


class _Unfailing:
    """A stream that ignores faults such as a full disk: the log loses a line, and the request still gets its answer."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Forward(logging.Handler):
    """Passes records of the standard library to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, **fields)


def _escape(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Make control characters in all values visible, since the text renderer does not escape all of them."""
    return {
        key: escape(value) if isinstance(value, str) and key != "exception" else value for key, value in event.items()
    }


def escape(text: str) -> str:
    """Return a text with control characters and lone surrogates as \\xNN or \\uNNNN."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def new_request_id() -> str:
    """Return a random request id: 10 hex digits, short enough to read out on the phone."""
    return secrets.token_hex(5)


def masked(text: str) -> str:
    """Return a script's output with private keys in PEM replaced."""
    return _PRIVATE_KEY.sub("[private key removed]", text)


def stderr_lines(raw: bytes, *, truncated: bool) -> list[str]:
    """Return a handler's stderr as lines for the log: decoded, masked, bounded, without empty lines."""
    text = masked(raw.decode("utf-8", "backslashreplace"))
    lines = [line[:LINE_LIMIT] for line in text.splitlines() if line.strip()]
    return [*lines, "[stderr cut off here]"] if truncated else lines
