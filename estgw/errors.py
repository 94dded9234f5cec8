"""The ways in which a request can fail, with the status and the text that the client gets.

A `RequestError` has two texts: one for the client, which names the fault and nothing else, and an optional one for the
log.  Any other exception becomes a 500 with the request id (`estgw.gateway.app`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping


class Malformed(ValueError):
    """Bytes do not have the form that they should have; the text names the fault.

    `estgw.est` raises it without knowing whose bytes they are.  The caller does: a client's become a 400, a handler's a
    500, and a server's the exit status 7 of `estclient`.
    """

    @property
    def sentence(self) -> str:
        """The fault as a sentence for a person."""
        text = str(self)
        return f"{text[:1].upper()}{text[1:]}."


class Unusable(Exception):
    """Something on this machine can't be made, changed or used; the text says why."""


class ConfigError(Exception):
    """The configuration can't be used; `faults` has a line `file:line:column: fault` for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


MAXIMUM_WORDS = 4096
"""Characters of a refusal.  It may quote a peer's text, such as a name of any length."""


class RequestError(Exception):
    """A request that does not end with status 200; each subclass is one HTTP status.

    A text of more than `MAXIMUM_WORDS` characters, for the client or the log, is cut and ends in dots.
    """

    status = 500
    close = False
    """Whether the connection must end with the answer, because the body has not been read."""

    def __init__(self, public: str = "", *, log: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(_bounded(log or public))
        self.public = _bounded(public)
        self.headers = dict(headers or {})


def _bounded(text: str) -> str:
    return text if len(text) <= MAXIMUM_WORDS else f"{text[:MAXIMUM_WORDS]}..."


class Pending(RequestError):
    """202: accepted, retry later (RFC 7030 4.2.3).  Real clients need an empty body and whole seconds."""

    status = 202

    def __init__(self, retry_after: int, *, log: str = "pending") -> None:
        super().__init__("", log=log, headers={"Retry-After": str(retry_after)})


class BadRequest(RequestError):
    """400: the request has a fault."""

    status = 400


class Unauthenticated(RequestError):
    """401: the request has no credentials or wrong ones.  The caller adds the challenge; the body stays empty."""

    status = 401


class StaleNonce(Unauthenticated):
    """401 with `stale=true`: the password is right, and the client needs only a new Digest nonce (RFC 7616 3.3)."""

    def __init__(self) -> None:
        super().__init__(log="the password is right; the Digest nonce is too old, or another process's")


class Forbidden(RequestError):
    """403: the client is known and may not do this."""

    status = 403


class NoLongerTrusted(Forbidden):
    """403: the certificate of this connection would fail a new handshake, so the connection ends."""

    close = True


class NotFound(RequestError):
    """404: this server has no such operation or label."""

    status = 404


class MethodNotAllowed(RequestError):
    """405: wrong method.  The answer has the `Allow` header that RFC 9110 15.5.6 requires."""

    status = 405

    def __init__(self, public: str, allow: str) -> None:
        super().__init__(public, headers={"Allow": allow})


class RequestTimedOut(RequestError):
    """408: the body did not arrive in time."""

    status = 408
    close = True


class TooLarge(RequestError):
    """413: the body is too large.  Its rest is not read, so the connection can't be used again."""

    status = 413
    close = True


class UnsupportedMediaType(RequestError):
    """415: the operation does not accept this Content-Type."""

    status = 415


def spread(seconds: int) -> int:
    """Between once and twice so many seconds, at random.

    A fleet that was refused in one second would otherwise come back in one second.
    """
    return seconds + secrets.randbelow(seconds + 1)


class TooManyGuesses(RequestError):
    """429: this address has failed to authenticate too often in a short time (RFC 6585 4)."""

    status = 429

    def __init__(self, *, retry_after: int) -> None:
        text = "Too many failed attempts from this address; try again later."
        super().__init__(text, headers={"Retry-After": str(retry_after)})


def apology(request_id: str) -> str:
    """The text for a client when the fault is the server's: it names the request id and no detail."""
    return f"The server could not do this. Its log says why, under request {request_id}."


class HandlerFailed(RequestError):
    """500: the handler broke the contract.  Only the log has the details."""

    status = 500


class NotSupported(RequestError):
    """501: the handler does not support this operation; EST clients treat it like 404 (RFC 7030 4.3.2)."""

    status = 501


class Unavailable(RequestError):
    """503: the gateway is too busy, or the handler can't reach its CA."""

    status = 503

    def __init__(self, public: str, *, retry_after: int, log: str = "") -> None:
        super().__init__(public, log=log, headers={"Retry-After": str(retry_after)})


class HandlerTimedOut(RequestError):
    """504: the handler exceeded its time limit."""

    status = 504
