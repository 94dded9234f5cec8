"""The options of `estclient` as data, and the functions that read their values; nothing here loads TLS."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

from estgw.commandline.table import Group, Option

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_REASONS = (
    "unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
    "certificateHold", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
)  # fmt: skip
"""CRLReason (RFC 5280 5.3.1)."""
_KINDS = (
    "auto", "ec:P-256", "ec:P-384", "ec:P-521", "rsa:3072", "ed25519", "ed448", "ml-dsa-44", "ml-dsa-65", "ml-dsa-87",
)  # fmt: skip


def duration(text: str) -> timedelta:
    """Read `30d`, `12h`, `90m`, `45s`, `2w` or plain seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30d, 12h or 45s")
    return timedelta(seconds=int(number) * _UNITS[unit])


def _seconds(text: str) -> float:
    return duration(text).total_seconds()


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 86400")
    return seconds


def _fingerprint(text: str) -> str:
    digits = text.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise argparse.ArgumentTypeError(f"{text!r} is not a SHA-256 fingerprint of 64 hex digits")
    return digits


def _serial(text: str) -> int:
    digits = text.lower().removeprefix("0x").replace(":", "").replace(" ", "")
    if not digits or len(digits) > 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise argparse.ArgumentTypeError(f"{text!r} is not a serial number in hex")
    return int(digits, 16)


COMMON = (
    Group(
        "server",
        (
            Option("-u --url", "HOST[:PORT], https://HOST/PATH, or the full URL of any operation", "URL",
                   required=True),
            Option("--label", "the CA label, when the URL has none", "LABEL"),
            Option("-c --cacert", "explicit trust anchors, PEM or DER; may be repeated", "FILE", type=Path,
                   repeatable=True),
            Option("--implicit", "trust the system's anchors too; then the server's name must match"),
            Option("--tls", "use this TLS version only", choices=("1.2", "1.3")),
            Option("--timeout", "for TCP, for TLS and for each answer (default: 30)", "SECONDS", type=_timeout,
                   default=30.0),
            Option("--allow-redirect", "follow redirects to another origin, and repeat all checks there"),
        ),
    ),
    Group(
        "your credentials",
        (
            Option("-p --userpass", "for HTTP Basic or Digest; without PASS, which ps(1) would show, a terminal asks",
                   "USER[:PASS]"),
            Option("--password-file", "the first line is the password", "FILE", type=Path),
            Option("--cert", "the certificate for TLS client authentication, PEM", "FILE", type=Path),
            Option("--key", "its private key, when it is not in the same file", "FILE", type=Path),
        ),
    ),
    Group(
        "output",
        (
            Option("-o --out", "write the result there, not to stdout", "FILE", type=Path),
            Option("--outform", "PEM, DER, or a PKCS#7 in PEM (default: pem)", choices=("pem", "der", "p7"),
                   default="pem"),
            Option("--json", "print one JSON object on stdout"),
            Option("-v --verbose", "say more on stderr"),
            Option("--trace", "show the exchange on stderr, with secrets masked"),
        ),
    ),
)  # fmt: skip

FINGERPRINT = Option("--fingerprint", "trust the root with this fingerprint; may be repeated", "SHA256",
                     type=_fingerprint, repeatable=True)  # fmt: skip
_SCRIPT = Option("-R --request-script",
                 "run this after the handshake, with the binding in TLS_UNIQUE_SR; it prints the CSR",
                 "SCRIPT", type=Path, dest="script")  # fmt: skip
_CSR = Option("--csr", "a finished CSR as PEM, DER or base64; - is stdin", "FILE", type=Path)
_NEW_KEY = Option("--new-key",
                  "make a key: ec:P-256, rsa:3072, ed25519, ml-dsa-65, ...; without KIND the server's choice",
                  "KIND", without_value="auto", suggestions=_KINDS)  # fmt: skip
_REUSE_KEY = Option("--reuse-key", "make the CSR with this key, as after a 202", "FILE", type=Path)

SOURCES = Group("the request", (_SCRIPT, _CSR, _NEW_KEY, _REUSE_KEY), exclusive=True, required=True)
SERVER_KEY_SOURCES = Group("the request (default: made here)", (_SCRIPT, _CSR), exclusive=True)
NEW_KEY_OUT = Option("--key-out", "the file for the new key (default: OUT with .key); OUT itself puts both in one file",
                     "FILE", type=Path)  # fmt: skip
SERVER_KEY_OUT = Option("--key-out", "the file for the key (default: OUT with .key); OUT itself puts both in one file",
                        "FILE", type=Path)  # fmt: skip
_NO_CSRATTRS = Option("--no-csrattrs", "do not ask the server for CSR attributes")
NAMES = Group(
    "names in a CSR that is made here",
    (
        Option("--subject", "RFC 4514, such as CN=device-1,O=Example", "DN"),
        Option("--dns", "a DNS name; may be repeated, as the next three", "NAME", repeatable=True),
        Option("--ip", "an IP address", "ADDRESS", repeatable=True),
        Option("--email", "a mail address", "ADDRESS", repeatable=True),
        Option("--uri", "a URI", "URI", repeatable=True),
        _NO_CSRATTRS,
    ),
)
POP = Group(
    "proof of possession, linked to the TLS connection (RFC 7030 3.5)",
    (
        Option("--no-pop", "leave the channel binding out of the CSR"),
        Option("--require-pop", "stop when the CSR can't be linked"),
        Option("--pop-finished", "at TLS 1.3 link by the Finished message, as libest's servers want it"),
    ),
)
ANY_CERTIFICATE = Option("--any-certificate",
                         "accept other names than the CSR's, and an issuer that the server does not show")  # fmt: skip
WAIT = Option("--wait", "repeat a request that gets 202 during that time (also 10m, 2h; default: 0)", "SECONDS",
              type=_seconds, default=0.0)  # fmt: skip
RENEWAL = (
    _NEW_KEY,
    Option("--key-out", "with -o: the file for the new key", "FILE", type=Path),
    Option("--if-expires-within", "do nothing as long as more than TIME (30d, 12h) is left", "TIME", type=duration),
    _NO_CSRATTRS,
)
DECRYPTION = Group(
    "encryption of the key besides TLS (RFC 7030 4.4.1)",
    (
        Option("--decrypt-key", "a shared AES key, in hex or 16 to 32 bytes", "FILE", type=Path),
        Option("--decrypt-key-id", "its name on the server; hex after 0x", "ID"),
        Option("--decrypt-cert", "a certificate to encrypt to, RSA or EC", "FILE", type=Path),
        Option("--decrypt-cert-key", "its private key", "FILE", type=Path),
    ),
)

CMC_FILE = Option("--cmc", "the PKIData in its SignedData, as PEM, DER or base64; - is stdin", "FILE", type=Path,
                  required=True)  # fmt: skip
CMC_FORMAT = (
    Option("--crmf", "a CRMF request (RFC 4211) in place of a PKCS#10"),
    Option("--encrypted-pop", "with --crmf: for keys that only decrypt; prove possession by a challenge"),
    Option("--revocation-secret-file", "a passphrase that can revoke it later, with fullcmc revoke --secret-file",
           "FILE", type=Path),
)  # fmt: skip
SHARED_SECRET = Group(
    "a secret that you share with the CA; the new key then signs (RFC 5272 6.2)",
    (
        Option("--secret-file", "the secret: the first line; - is stdin", "FILE", type=Path),
        Option(
            "--identification", "the CA's name for the secret; without --secret-file the terminal asks for it", "NAME"
        ),
    ),
)
TARGET = (
    Group(
        "which certificate (default: --cert)",
        (
            Option("--target", "the certificate itself", "FILE", type=Path),
            Option("--serial", "its serial number", "HEX", type=_serial),
            Option("--issuer", "with --serial: its CA's certificate (default: --cert's CA)", "FILE", type=Path),
        ),
    ),
    Option("--reason", "the reason (default: unspecified)", choices=_REASONS, default="unspecified"),
    Option("--secret-file", "the passphrase that was sent with the request, in the first line; - is stdin",
           "FILE", type=Path),
)  # fmt: skip
CRL_ISSUER = Option("--issuer", "the CA's certificate (default: --cert's CA, or the only one in -c)", "FILE", type=Path)
