"""`--trace`: every exchange on stderr, in full, but for what must not lie about in a scroll-back buffer."""

from __future__ import annotations

import re
from collections.abc import Callable

from estgw.client.faults import clean
from estgw.client.wire import Exchange
from estgw.errors import Malformed
from estgw.est import csr

_SECRET_HEADERS = ("cookie", "set-cookie")
_KEY_PART = re.compile(
    rb"(Content-Type:\s*application/pkcs8\b.*?\r?\n\r?\n)(.*?)(?=\r?\n--)", re.DOTALL | re.IGNORECASE
)
_CMC_TYPE = "application/pkcs7-mime"
_MAXIMUM = 16_384
"""Characters of a body that are shown."""


def tracer(say: Callable[[str], None]) -> Callable[[Exchange], None]:
    """An observer that describes exchanges line by line through `say`."""

    def show(exchange: Exchange) -> None:
        connected, answer = exchange.connected, exchange.answer
        if answer is None:
            say(f"* {connected.version} {connected.cipher} to {connected.place.authority}")
            say(f"> {exchange.method} {clean(exchange.target)} HTTP/1.1")
            for name, value in exchange.headers.items():
                say(f"> {name}: {_masked(name, value)}")
            _body(say, ">", _request_text(exchange.body, exchange.headers.get("Content-Type", "")))
            return
        say(f"< {answer.status} {answer.reason}")
        for name, value in answer.headers.items():
            say(f"< {clean(name, 100)}: {_masked(name, value)}")
        _body(say, "<", _answer_text(answer.body))

    return show


def _masked(name: str, value: str) -> str:
    if name.lower() == "authorization":
        return f"{value.split(' ', 1)[0]} ***"
    return "***" if name.lower() in _SECRET_HEADERS else clean(value)


def _request_text(body: bytes, content_type: str) -> str:
    """The body, unless it is a CSR that carries a secret of RFC 7894, or a CMC message with one."""
    if content_type.startswith(_CMC_TYPE):
        from estgw.client import cmc

        if cmc.has_secret(body):
            return f"[{len(body)} bytes of CMC with a secret in it ***]"
    try:
        attributes = csr.parse(body).attributes if body else {}
    except Malformed:
        attributes = {}
    if csr.OTP_CHALLENGE in attributes or csr.REVOCATION_CHALLENGE in attributes:
        return f"[{len(body)} bytes of CSR with a secret in it ***]"
    return body.decode("utf-8", "replace")


def _answer_text(body: bytes) -> str:
    """The body, without the private key of a serverkeygen answer (RFC 7030 4.4.2)."""
    masked = _KEY_PART.sub(lambda match: match[1] + b"[%d bytes of private key ***]" % len(match[2]), body)
    if b"application/pkcs8" in body.lower() and masked == body:
        return f"[{len(body)} bytes with a private key ***]"
    return masked.decode("utf-8", "replace")


def _body(say: Callable[[str], None], mark: str, text: str) -> None:
    say(mark)
    for line in clean(text, _MAXIMUM).splitlines():
        say(f"{mark} {line}")
