"""Helpers for policies.  Each answers yes or no about the request that the script serves.

    if not policy.allowed_suffix("example.org"):
        policy.refuse(f"not ours to certify: {policy.fault}")

After a no about a name, `fault` says which name it was, or that there was none.  ../README.md has a table of the
helpers ("Helpers for policies").  ../openssl/policy.sh has the same ones for Bash, and a test compares their answers.

Not a program.  It loads the library for certificates where that is needed only, so that `authorize` starts fast.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

fault = ""


def refuse(words: str, status: int = os.EX_NOPERM) -> NoReturn:
    """End the script with a no (403); the client reads these words."""
    print(words)
    sys.exit(status)


def allowed_suffix(*domains: str) -> bool:
    """Whether the request names a host, and every name in it (CN and SAN) is a host in one of these domains.

    "example.org" is that host and all below it, ".example.org" only what is below it.  Wildcards, addresses, mailboxes
    and URIs are no hosts.
    """
    subject = os.environ.get("EST_CSR_SUBJECT", "")
    if len(os.fsencode(subject)) > 4096:
        return _no("its subject is too long")
    # RFC 4514: "," and "+" separate the parts of a subject, unless a backslash escapes them.
    parts = re.findall(r"(?:\\.?|[^\\,+])+", subject, re.DOTALL)
    asked = [part for part in parts if part.startswith("CN=")] + list(_family("EST_CSR_SAN_"))
    if not asked:
        return _no("it names no host")
    return all(_is_host_in(name, domains) or _no(name) for name in asked)


_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"(?:CN=|DNS:)({_LABEL}(?:\.{_LABEL})*)"


def _is_host_in(name: str, domains: tuple[str, ...]) -> bool:
    """Whether a name such as DNS:a.example.org or CN=a.example.org is a host in one of the domains."""
    found = re.fullmatch(_HOST, name) if len(name) <= 4 + 253 else None
    if found is None:
        return False
    host = found[1].lower()
    return any(
        (host if domain.startswith(".") else f".{host}").endswith(f".{domain.removeprefix('.')}")
        for domain in map(_lower, domains)
    )


def only_user_name() -> bool:
    """Whether the request asks for CN=REMOTE_USER, and for no other name in subject or SAN."""
    user, subject = os.environ.get("REMOTE_USER"), os.environ.get("EST_CSR_SUBJECT")
    has_san = any(_family("EST_CSR_SAN_")) or os.environ.get("EST_CSR_EXT_SAN")
    return bool(user) and subject == f"CN={user}" and not has_san


def only_certificate_names() -> bool:
    """Whether the request asks for the subject of the client's verified certificate, and in its SAN for no name but the
    hosts and mailboxes of this certificate.
    """
    own = {_lower(f"dns:{name}") for name in _family("SSL_CLIENT_SAN_DNS_")}
    own |= {_lower(f"email:{name}") for name in _family("SSL_CLIENT_SAN_Email_")}
    subject, mine = os.environ.get("EST_CSR_SUBJECT", ""), os.environ.get("SSL_CLIENT_S_DN")
    if os.environ.get("SSL_CLIENT_VERIFY") != "SUCCESS" or subject != mine:
        return _no(subject)
    return all(_lower(name) in own or _no(name) for name in _family("EST_CSR_SAN_"))


def is_listed(value: str, file: str | Path) -> bool:
    """Whether the value is a line of the file; capital or small letters make no difference."""
    return bool(value) and os.fsencode(value).lower() in {line.lower() for line in _listed(file)}


def is_user_of_label(file: str | Path) -> bool:
    """Whether the client has logged in as a user who may use this label.

    The file has a label, a blank and a user name on each line; "-" is for requests without a label.
    """
    user = os.environ.get("REMOTE_USER", "")
    entry = os.fsencode(f"{os.environ.get('EST_LABEL') or '-'} {user}")
    return (bool(user) and entry in _listed(file)) or _no(user or "a client without a password")


def office_hours(start: int, end: int) -> bool:
    """Whether it is Monday to Friday, from one hour to the other, UTC.  `office_hours(8, 18)` ends at 18:00."""
    now = datetime.fromtimestamp(time.time(), UTC)
    return now.isoweekday() < 6 and start <= now.hour < end


def is_revoked(file: str | Path) -> bool:
    """Whether the register of this CA says that the certificate in the file is revoked.

    A file without a certificate ends the script (500).
    """
    import ca

    return ca.is_revoked(ca.read_certificate(file))


def ends_within(span: str | timedelta, file: str | Path) -> bool:
    """Whether the certificate in the file ends within this time, such as 30d, or has ended.

    A file without a certificate ends the script (500).
    """
    import ca

    left = ca.duration(span)
    return ca.read_certificate(file).not_valid_after_utc - datetime.now(UTC) < left


def _listed(file: str | Path) -> set[bytes]:
    """The lines of a file; none, and a word in the log, if it can't be read."""
    try:
        return {line.removesuffix(b"\r") for line in Path(file).read_bytes().split(b"\n")}
    except OSError as missing:
        print(missing, file=sys.stderr)
        return set()


def _family(prefix: str) -> Iterator[str]:
    """The values of the variables that begin like this, in the order of Bash's ${!prefix@}."""
    return (os.environ[name] for name in sorted(os.environ) if name.startswith(prefix))


def _lower(text: str) -> str:
    """ASCII letters in small; `str.lower` turns some other letters into ASCII ones, such as the Kelvin sign."""
    return os.fsdecode(os.fsencode(text).lower())


def _no(words: str) -> bool:
    global fault
    fault = words
    return False
