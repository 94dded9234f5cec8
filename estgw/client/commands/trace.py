"""`--trace`: every exchange on stderr in full, with secrets masked."""

from __future__ import annotations

import re
from collections.abc import Callable

from estgw.client.faults import clean
from estgw.client.transport.wire import Exchange
from estgw.errors import Malformed
from estgw.est import csr

_SECRET_HEADERS = ("cookie", "set-cookie")
_KEY_TYPE = b"application/pkcs8"
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
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
    """The body, unless it is a CSR or a CMC message with a secret in it (RFC 7894)."""
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
    return b"\n--".join(map(_without_key, body.split(b"\n--"))).decode("utf-8", "replace")


def _without_key(part: bytes) -> bytes:
    """One part of a multipart; a part that names a key type outside its head is not shown at all."""
    if _KEY_TYPE not in part.lower():
        return part
    end = _BLANK_LINE.search(part)
    if end is None or _KEY_TYPE not in part[: end.start()].lower():
        return b"[%d bytes with a private key ***]" % len(part)
    return part[: end.end()] + b"[%d bytes of private key ***]" % len(part[end.end() :].removesuffix(b"\r"))


def _body(say: Callable[[str], None], mark: str, text: str) -> None:
    say(mark)
    for line in clean(text, _MAXIMUM).splitlines():
        say(f"{mark} {line}")
