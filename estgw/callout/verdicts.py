"""The contract between gateway and script, version 1, as data: what an exit status means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The two kinds of callout."""

    HANDLER = "handler"  # its stdout is the response
    AUTHORIZE = "authorize"  # may this client do this? the exit status is the answer
    AUTHENTICATE = "authenticate"  # is this password right? likewise


@dataclass(frozen=True)
class ExitStatus:
    """One row of the verdicts: which HTTP status a callout's exit status becomes.

    `authorize` and `authenticate` are None where the callout says yes and the request goes on.
    """

    exit: int
    name: str
    handler: int
    authorize: int | None
    authenticate: int | None
    shows_words: bool
    sees: str

    def status(self, kind: Kind) -> int | None:
        """The HTTP status for this kind of callout; None is a decision's yes."""
        return {
            Kind.HANDLER: self.handler,
            Kind.AUTHORIZE: self.authorize,
            Kind.AUTHENTICATE: self.authenticate,
        }[kind]


# sysexits, because 1 and 2 are what `set -e`, a traceback and argparse end with: those must never mean "refused".
EXIT_STATUS: tuple[ExitStatus, ...] = (
    ExitStatus(0, "OK", 200, None, None, False, "the body, or the `Status:` given"),
    ExitStatus(65, "DATAERR", 400, 400, 500, True, "stdout as text/plain"),
    ExitStatus(69, "UNAVAILABLE", 503, 503, 503, True, "stdout as text/plain, `Retry-After`"),
    ExitStatus(75, "TEMPFAIL", 202, 202, 503, False, "an empty body and `Retry-After`; 503 where nothing can wait"),
    ExitStatus(77, "NOPERM", 403, 403, 401, True, "stdout as text/plain; the challenge on a 401"),
    ExitStatus(64, "USAGE", 501, 500, 500, False, "fixed text: the script does not know this operation"),
)
KNOWN: Mapping[int, ExitStatus] = {row.exit: row for row in EXIT_STATUS}
OTHERWISE = ExitStatus(-1, "anything else, a signal", 500, 500, 500, False, "fixed text with the request id")
