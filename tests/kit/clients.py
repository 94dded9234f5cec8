"""Clients: their certificates, the attributes that link a request to them, and Digest by hand."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from tests.kit.ca import CLIENT_AUTH, CMC_RA, DAY, NOW, Credential, root
from tests.kit.connection import EST, Connection, Response
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.keys import KEY
from tests.kit.workspace import Workspace

OTP = "1.2.840.113549.1.9.16.2.56"
REVOCATION = "1.2.840.113549.1.9.16.2.57"
LINKING = "1.2.840.113549.1.9.16.2.58"
CHANGE = "1.3.6.1.5.5.7.7.36"

Pair = tuple[Path, Path]


def sha_user(user: str, password: str) -> str:
    """A line of an htpasswd file in the one format that costs nothing to check."""
    digest = base64.b64encode(hashlib.sha1(password.encode()).digest()).decode()
    return f"{user}:{{SHA}}{digest}\n"


def linking(text: str | bytes, tag: int = UTF8, kind: str = LINKING) -> bytes:
    """An attribute with one string."""
    return attribute(kind, tlv(tag, text.encode() if isinstance(text, str) else text))


class People:
    """One client certificate of every kind, all for the same name and key, and what a gateway is told of them."""

    def __init__(self, lab: Workspace, name: str = "device-1") -> None:
        self.directory = lab.path
        self.ours, self.theirs, stranger = root("Our CA"), root("Their CA"), root("A stranger")
        ra = (CLIENT_AUTH, CMC_RA)
        wishes: dict[str, Any] = {"key": KEY}
        made: dict[str, Credential] = {
            "ours": self.ours.issue(name, **wishes),
            "theirs": self.theirs.issue(name, **wishes),
            "unknown": stranger.issue(name, **wishes),
            "expired": self.ours.issue(name, starts=NOW - 9 * DAY, ends=NOW - DAY, **wishes),
            "revoked": self.ours.issue(name, **wishes),
            "our RA": self.ours.issue(name, eku=ra, **wishes),
            "their RA": self.theirs.issue(name, eku=ra, **wishes),
        }
        self.certificates: Mapping[str, Credential] = made
        self.pairs: dict[str, Pair | None] = {"none": None}
        for kind, credential in made.items():
            self.pairs[kind] = credential.write(lab.path, kind.replace(" ", "-"))
        self.config = {
            "explicit": [self._write("ours.pem", self.ours.certificate), str(lab.anchor)],
            "implicit": [self._write("theirs.pem", self.theirs.certificate)],
            "crls": [
                self._write("ours.crl", self.ours.crl(made["revoked"])),
                self._write("theirs.crl", self.theirs.crl()),
            ],
        }

    def _write(self, name: str, item: Any) -> str:
        path = self.directory / name
        path.write_bytes(item.public_bytes(Encoding.PEM))
        return str(path)


# Digest by hand.


def digest_challenge(answer: Response, algorithm: str = "MD5") -> dict[str, str]:
    """The Digest challenge of a 401 for an algorithm."""
    assert answer.status == 401, answer
    found = {}
    for name, value in answer.headers:
        if name.lower() == "www-authenticate" and value.startswith("Digest "):
            parts = dict(re.findall(r'(\w+)="?([^",]*)"?', value))
            found[parts.get("algorithm", "MD5")] = parts
    return found[algorithm]


def digest_answer(
    challenge: Mapping[str, str],
    login: str,
    target: str = f"{EST}/simpleenroll",
    *,
    method: str = "POST",
    nc: int = 1,
    drop: Iterable[str] = (),
    plain: Iterable[str] = ("nc", "qop", "algorithm"),
    **changes: str,
) -> str:
    """The Authorization header of a client that read RFC 7616.

    `changes` enter the computation, `drop` takes parts away afterwards, `plain` go without quotes.
    """
    user, _, password = login.partition(":")
    parts = {"username": user, "realm": challenge["realm"], "nonce": challenge["nonce"], "uri": target}
    parts |= {"cnonce": "0a4f113b", "nc": f"{nc:08x}", "qop": "auth", **changes}
    if "algorithm" in challenge:
        parts.setdefault("algorithm", challenge["algorithm"])
    h = hashlib.sha256 if challenge.get("algorithm") == "SHA-256" else hashlib.md5
    first = h(f"{parts['username']}:{parts['realm']}:{password}".encode()).hexdigest()
    second = h(f"{method}:{parts['uri']}".encode()).hexdigest()
    text = ":".join([first, parts["nonce"], parts["nc"], parts["cnonce"], parts["qop"], second])
    parts.setdefault("response", h(text.encode()).hexdigest())
    kept = {name: value for name, value in parts.items() if name not in set(drop)}
    return "Digest " + ", ".join(f"{k}={v}" if k in plain else f'{k}="{v}"' for k, v in kept.items())


def digest_file(lab: Workspace, *logins: str, realm: str = "estrealm") -> Path:
    """An htdigest file with MD5 and SHA-256 lines, written without our command."""
    path = lab.path / "users.htdigest"
    lines = ""
    for login in logins:
        user, _, password = login.partition(":")
        secret = f"{user}:{realm}:{password}".encode()
        lines += f"{user}:{realm}:{hashlib.md5(secret).hexdigest()}\n"
        lines += f"{user}:{realm}:{hashlib.sha256(secret).hexdigest()}\n"
    path.write_text(lines)
    return path


def text(binding: bytes) -> str:
    """What goes into challengePassword."""
    return base64.b64encode(binding).decode()


def bound(connection: Connection) -> str:
    """The channel binding of a connection of either library."""
    plain = hasattr(connection.tls, "get_channel_binding")
    return text(connection.tls_unique if plain else connection.tls_exporter)
