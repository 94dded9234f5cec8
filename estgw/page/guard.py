"""Access to the page: the token, the Host, the Origin, and the headers of every answer.

A page on another site can make a browser send requests here, and a name of its own can be made to lead to this address
(DNS rebinding).  Against the first stand the token, which no other site knows and no browser sends by itself, and the
Origin of a POST.  Against the second stands the Host.  A cookie would not do: browsers send cookies to every port of a
host, so the gateway and all other programs there would get it.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence

TOKEN_BYTES = 16
"""128 bits: RFC 6750 5.3 wants a token that can't be guessed."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer, failures included."""

_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::[0-9]{1,5})?")


def new_token() -> str:
    """Return a random token as 32 hex digits."""
    return secrets.token_hex(TOKEN_BYTES)


def find_token(authorization: Sequence[str], tokens: Iterable[str]) -> str | None:
    """The token that the Authorization headers bear, if they are one (RFC 6750 2.1); takes the same time for all."""
    if len(authorization) != 1:
        return None
    scheme, _, given = authorization[0].partition(" ")
    # Lone surrogates stand for bytes that are not UTF-8.
    wanted = given.strip().encode("utf-8", "surrogateescape")
    found = None
    for token in tokens:
        if hmac.compare_digest(wanted, token.encode()):
            found = token
    return found if scheme.lower() == "bearer" else None


def is_own_host(host: Sequence[str], local: str, hosts: Collection[str]) -> bool:
    """Whether the Host headers are one, and it names this machine.

    `local` is the address at which the connection arrived; `hosts` are further names in lower case.  The port is free,
    since a tunnel may lead from another one.
    """
    found = _HOST.fullmatch(host[0]) if len(host) == 1 else None
    if found is None:
        return False
    name = (found["six"] or found["name"]).lower()
    if name in hosts or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
        return address.is_loopback or address == ipaddress.ip_address(local)
    except ValueError:
        return False


def is_own_origin(origin: Sequence[str], host: str, scheme: str) -> bool:
    """Whether the Origin headers are one, and it is that of this page; `host` is the Host header, known to be ours."""
    return len(origin) == 1 and origin[0].lower() == f"{scheme}://{host}".lower()
