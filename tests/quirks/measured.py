"""The verdicts of clients that are not ours, as measured: what is not here is a PASS."""

from __future__ import annotations

from collections.abc import Mapping

from estgw.quirks.seen import Result

CURL: Mapping[Result, str] = {
    Result.FAIL: "wrong-key wrong-issuer wrong-name html junk no-type wrong-type later later-date later-none "
    "pop-wanted keygen-other-key ra-wrong-host",
    Result.UNCLEAR: "two-certs rollover-bag shuffled-bag",
    Result.UNTRIED: "template-only unknown-attrs keygen-clear",
}
"""curl 7.88 keeps whatever comes, and does not know what 202 means in EST."""
PKI: Mapping[Result, str] = {
    Result.FAIL: "wrong-key wrong-issuer wrong-name no-type wrong-type later-date basic-then-digest digest-sha256 "
    "redirect-same crlf-76 chunked pop-wanted not-serverauth ra-wrong-host tls13",
    Result.UNTRIED: "template-only unknown-attrs keygen-clear keygen-other-key",
}
"""strongSwan 5.9.8."""


def result(measured: Mapping[Result, str], quirk: str) -> str:
    """The verdict on one quirk, as a word."""
    return next((found.value for found, names in measured.items() if quirk in names.split()), Result.PASS.value)
