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
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=0)
        if as_text
        else structlog.processors.JSONRenderer()
    )
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
