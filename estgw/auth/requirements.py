"""Check that a client is authenticated as an operation requires (RFC 7030 3.2.3, 3.3.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from estgw.auth import http
from estgw.auth.credentials import Credentials
from estgw.auth.identity import Client, Trust
from estgw.errors import Forbidden, Unauthenticated
from estgw.est.operations import Requires

Verifier = Callable[[Client], Awaitable[bool]]
"""Whether a client's claimed credentials are right; may raise a `RequestError`."""


async def authenticate(client: Client, headers: Sequence[str], requires: Requires, verify: Verifier) -> Client:
    """Verify the client's credentials, and return the client with its user name; `require` comes next.

    `headers` are the request's Authorization headers.  Credentials are checked even where the certificate alone is
    enough: wrong ones are always refused.  An operation that requires nothing (cacerts, RFC 7030 4.1.2) never refuses.

    Raises `Unauthenticated`.
    """
    if requires is Requires.NONE:
        return replace(client, claimed=_claimed_or_none(headers))
    claimed = http.parse(headers)
    if claimed is not None:
        client = replace(client, claimed=claimed)
        if not await verify(client):
            # One sentence for an unknown user and for a wrong password, in the log as well as on the wire.
            raise Unauthenticated(log="wrong user name or password")
        client = client.with_user(claimed.username)
    return client


def require(client: Client, requires: Requires) -> None:
    """Check that the client is authenticated as the operation requires it.

    Raises `Unauthenticated` (401: try a password) or `Forbidden` (403: a password would not help).
    """
    has_certificate = client.trust is not Trust.NONE
    has_user = client.user is not None
    if requires in (Requires.TLS, Requires.BOTH) and not has_certificate:
        raise Forbidden(f"This operation needs a TLS client certificate{client.why_not}.")
    if requires in (Requires.HTTP, Requires.BOTH) and not has_user:
        raise Unauthenticated(log="no credentials")
    if requires is Requires.ANY and not (has_certificate or has_user):
        raise Unauthenticated(log=f"no credentials, and no client certificate{client.why_not}")


def _claimed_or_none(headers: Sequence[str]) -> Credentials | None:
    try:
        return http.parse(headers)
    except Unauthenticated:
        return None
