"""Answers of other people's servers, as they came: `python -m tests.conform.recorded URL CA ABOUT` records.

Only answers that do not depend on a key of the client's can be given again, so a recording covers what a server says
without credentials, and of itself.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tests.client.rogue import Request

FOLDER = Path(__file__).with_name("recorded")
JUNK = base64.encodebytes(b"no CSR")
ASKED: Mapping[str, tuple[str, str]] = {
    "GET cacerts": ("GET", "cacerts"),
    "GET csrattrs": ("GET", "csrattrs"),
    "GET simpleenroll": ("GET", "simpleenroll"),
    "POST cacerts": ("POST", "cacerts"),
    "POST simpleenroll": ("POST", "simpleenroll"),
    "POST simplereenroll": ("POST", "simplereenroll"),
    "POST serverkeygen": ("POST", "serverkeygen"),
    "POST fullcmc": ("POST", "fullcmc"),
    "GET nothing": ("GET", "no-such-operation"),
}
"""Name, method and last part of the path of each request."""


class Recorded:
    """A recording, as the `answer` of a `rogue.Server`."""

    is_lax = False
    is_down = False

    def __init__(self, name: str) -> None:
        found = json.loads((FOLDER / f"{name}.json").read_text())
        self.about: str = found["about"]
        self.verdicts: Mapping[str, str] = found["verdicts"]
        """What `estgw conform` said of the server itself, for the cases that these answers decide."""
        self._answers = {key: base64.b64decode(value) for key, value in found["answers"].items()}

    def __call__(self, request: Request) -> bytes:
        name = f"{request.method} {request.target.rpartition('/')[2]}"
        return self._answers.get(name, self._answers["GET nothing"])


def ask(url: str, ca: str, method: str, operation: str) -> bytes:
    """All bytes of one answer."""
    place = urlsplit(url)
    body = JUNK if method == "POST" else b""
    head = [f"{method} /.well-known/est/{operation} HTTP/1.1", f"Host: {place.netloc}", "Connection: close"]
    if body:
        head += ["Content-Type: application/pkcs10", f"Content-Length: {len(body)}"]
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection((place.hostname, place.port), timeout=15) as plain,
        context.wrap_socket(plain, server_hostname=place.hostname) as line,
    ):
        line.sendall("\r\n".join([*head, "", ""]).encode() + body)
        answer = b""
        with contextlib.suppress(OSError):  # many servers end without close_notify
            while piece := line.recv(65536):
                answer += piece
        return answer


def main() -> None:
    """Print a recording; the verdicts come from `estgw conform --json`, by hand."""
    url, ca, about = sys.argv[1:]
    answers = {name: base64.b64encode(ask(url, ca, *asked)).decode() for name, asked in ASKED.items()}
    json.dump({"about": about, "verdicts": {}, "answers": answers}, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
