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
PKI_BY_CHANCE = "split"
"""It reads the records of TLS that have arrived, so on a busy machine it may miss some: PASS or FAIL."""
LIBEST: Mapping[Result, str] = {
    Result.FAIL: "wrong-key wrong-issuer wrong-name two-certs later later-date later-none busy basic-then-digest "
    "digest-sha256 redirect-same one-line chunked lower-case rollover-bag shuffled-bag pop-wanted ra-wrong-host tls13",
    Result.UNCLEAR: "html junk no-type wrong-type endless-401 cut-body",
    Result.UNTRIED: "template-only unknown-attrs keygen-clear keygen-other-key",
}
"""The example client of libest 3.2.0p (a464ba8), which ends with exit status 0 whatever happens.

Built without safec, and with OpenSSL 3.0, where FIPS_mode counts as off.
"""
GLOBALSIGN: Mapping[Result, str] = {
    Result.FAIL: "wrong-key wrong-issuer wrong-name basic-then-digest digest-sha256 redirect-same pop-wanted "
    "keygen-other-key ra-wrong-host",
    Result.UNCLEAR: "later later-date",
    Result.UNTRIED: "template-only unknown-attrs keygen-clear",
}
"""GlobalSign's estclient, 30 commits after 1.0.6 (a0d54bb): Go 1.19, another version of go-tpm, and no HSM."""
MEASURED: Mapping[str, Mapping[Result, str]] = {
    "curl 7.88": CURL,
    "pki 5.9.8": PKI,
    "libest 3.2.0p": LIBEST,
    "GlobalSign 1.0.6+30": GLOBALSIGN,
}
"""The columns of docs/judge-my-client.md."""


def result(measured: Mapping[Result, str], quirk: str) -> str:
    """The verdict on one quirk, as a word."""
    return next((found.value for found, names in measured.items() if quirk in names.split()), Result.PASS.value)
