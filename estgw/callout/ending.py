"""Words for the log about how a script ended: what it did, why that is a fault, and the way out.

A person who edits a script reads nothing but these sentences, so they quote what the script printed.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from estgw.callout import program as programs
from estgw.callout.call import Call
from estgw.logs import escape, masked

QUOTED = 200
"""Characters of a script's first line that the log quotes."""
CANNOT_EXECUTE = frozenset({126, 127})
"""What a shell and env(1) exit with when a program can't be executed, or is not found."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]{40,}")
TOO_LARGE = "SIGXFSZ: it wrote a file larger than callouts.max_file"


def without_password(text: bytes, call: Call) -> bytes:
    """A script's output without the password that its client sent, which a script may have printed to look at it."""
    password = call.client.claimed.password if call.client.claimed else None
    return text.replace(password.encode("utf-8", "surrogateescape"), b"[password removed]") if password else text


def quoted(stdout: bytes) -> str:
    """The first line with text in it, in quotes and without control characters; empty if there is none.

    Binary data and base64 are named and not quoted, because they may be a private key.
    """
    head = stdout[: 16 * QUOTED]
    if len(_BINARY.findall(head)) > len(head) // 16:
        return "binary data"
    text = masked(head.decode("utf-8", "backslashreplace"))
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if _BASE64.fullmatch(line):
        return "base64"
    return f'"{escape(line[:QUOTED])}{"..." if len(line) > QUOTED else ""}"' if line else ""


def printed(stdout: bytes) -> str:
    """A sentence that quotes what a script printed, with a space before it; empty if it printed nothing."""
    text = quoted(stdout)
    return f" It printed {text}." if text else ""


def exited(script: Path, status: int, stdout: bytes, search_path: str) -> str:
    """An exit status that the contract does not know."""
    if status == 128 + signal.SIGXFSZ:
        return f"{script.name} exited with {status} ({TOO_LARGE})"
    if status in CANNOT_EXECUTE:
        found = programs.faults(script, search_path)
        why = "; ".join(found) if found else "a command in it was not found or can't be executed"
        return f"{script.name} exited with {status}: {why}.{printed(stdout)}"
    by = f" (128 + {signal.Signals(status - 128).name})" if status - 128 in set(signal.Signals) else ""
    return (
        f"{script.name} exited with {status}{by}, which is a fault of the script; to refuse, exit 77.{printed(stdout)}"
    )


def killed(script: Path, number: int) -> str:
    """A signal that ended a script."""
    if number == signal.SIGXFSZ:
        return f"{script.name}: ended by signal {number} ({TOO_LARGE})"
    name = f" ({signal.Signals(number).name})" if number in set(signal.Signals) else ""
    return f"{script.name}: ended by signal {number}{name}"


def not_started(script: Path, fault: str, search_path: str) -> str:
    """A script that could not be started: what `estgw check` says of it, then the kernel's word, which may mislead."""
    found, kernels = programs.faults(script, search_path), fault.removeprefix(f"{script}: ")
    known = [text for text in found if text != fault]
    return f"could not start {'; '.join(known)} ({kernels})" if known else f"could not start {fault}"


def not_an_answer(script: Path, fault: str, stdout: bytes) -> str:
    """A handler's stdout that is not what its operation promises."""
    text = printed(stdout)
    way_out = f".{text} stdout is the answer; messages go to stderr." if text else ""
    return f"{script.name}: {fault}{way_out}"
