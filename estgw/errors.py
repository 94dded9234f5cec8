"""Every way a request can fail, with the status and the words that the client gets.

A `RequestError` carries two texts: the one for the client, which names the fault and nothing else, and an
optional one for the log.  Any other exception becomes a 500 with the request id (`app.answer_for`).
"""

from __future__ import annotations

from collections.abc import Mapping


class Malformed(ValueError):
    """Bytes are not what they claim to be; the text says which fault it is.

    Raised by `estgw.est`, which does not know whose bytes they are: from a client they are a 400, from a
    handler a 500, from a server the client's exit status 7.
    """

    @property
    def sentence(self) -> str:
        """The fault as a sentence for a person."""
        text = str(self)
        return f"{text[:1].upper()}{text[1:]}."


class ConfigError(Exception):
    """The configuration can't be used; `faults` holds one `file:line:column: what` line each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


MAXIMUM_WORDS = 4096
"""Characters of a refusal: it may quote what a peer has sent, such as a name of any length."""


class RequestError(Exception):
    """A request that ends in anything but 200; each subclass is one HTTP status.

    What is longer than `MAXIMUM_WORDS`, for the client or for the log, ends in dots.
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
    """Accepted, come back later (RFC 7030 4.2.3).  Real clients need an empty body and whole seconds."""

    status = 202

    def __init__(self, retry_after: int, *, log: str = "pending") -> None:
        super().__init__("", log=log, headers={"Retry-After": str(retry_after)})


class BadRequest(RequestError):
    """400: the request itself is at fault."""

    status = 400


class Unauthenticated(RequestError):
    """401: no credentials, or wrong ones; the caller adds the challenge and the body stays empty."""

    status = 401


class StaleNonce(Unauthenticated):
    """401 with `stale=true`: the password is right and the Digest nonce is not, so a new one will do (RFC 7616 3.3)."""

    def __init__(self) -> None:
        super().__init__(log="the password is right; the Digest nonce is too old, or another process's")


class Forbidden(RequestError):
    """403: known who it is, and the answer is no."""

    status = 403


class NoLongerTrusted(Forbidden):
    """403: the certificate of this connection would fail a new handshake, so the connection ends."""

    close = True


class NotFound(RequestError):
    """404: no such operation or label here."""

    status = 404


class MethodNotAllowed(RequestError):
    """405, with the `Allow` header that RFC 9110 15.5.6 demands."""

    status = 405

    def __init__(self, public: str, allow: str) -> None:
        super().__init__(public, headers={"Allow": allow})


class RequestTimedOut(RequestError):
    """408: the body did not arrive in time."""

    status = 408
    close = True


class TooLarge(RequestError):
    """413: refused before the rest of the body is read, so the connection can't be used again."""

    status = 413
    close = True


class UnsupportedMediaType(RequestError):
    """415: the Content-Type is not one that the operation takes."""

    status = 415


class TooManyGuesses(RequestError):
    """429: this address has failed to authenticate too often and too fast (RFC 6585 4)."""

    status = 429

    def __init__(self, *, retry_after: int) -> None:
        text = "Too many failed attempts from this address; try again later."
        super().__init__(text, headers={"Retry-After": str(retry_after)})


def apology(request_id: str) -> str:
    """What a client is told when the fault is ours: nothing but where to look."""
    return f"The server could not do this. Its log says why, under request {request_id}."


class HandlerFailed(RequestError):
    """500: the handler broke its side of the contract; only the log says how."""

    status = 500


class NotSupported(RequestError):
    """501: the handler does not know this operation; EST clients read it like 404 (RFC 7030 4.3.2)."""

    status = 501


class Unavailable(RequestError):
    """503: too busy, or the CA behind the handler is away."""

    status = 503

    def __init__(self, public: str, *, retry_after: int, log: str = "") -> None:
        super().__init__(public, log=log, headers={"Retry-After": str(retry_after)})


class HandlerTimedOut(RequestError):
    """504: the handler took longer than it may."""

    status = 504
