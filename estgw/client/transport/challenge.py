"""HTTP authentication from the client's side: Basic (RFC 7617) and Digest (RFC 7616).

`session` calls this module only after the server has been authenticated and authorized (RFC 7030 3.2.3).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from estgw.client.faults import UsageError

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf"\s*({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|({_WORD}))\s*(?:,|$)", re.DOTALL)
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?:[ \t]+|\s*(?=,|$))")
_TOKEN68 = re.compile(r"([A-Za-z0-9._~+/-]+=*)\s*(?:,|$)")

_HASHES: Mapping[str, Callable[[bytes], str]] = {
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}
"""Best first.  Without SHA-512-256: some clients and servers use that name for another hash than FIPS 180-4."""


@dataclass(frozen=True)
class Credentials:
    """A user name and a password; the name may be empty (RFC 7030 3.2.3)."""

    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if ":" in self.user or any(ord(char) < 0x20 or ord(char) == 0x7F for char in self.user + self.password):
            raise UsageError("a user name has no colon, and neither it nor the password control characters")


@dataclass(frozen=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(headers: Sequence[str]) -> list[Challenge]:
    """All challenges of all WWW-Authenticate headers in order; one that can't be read ends its header's list."""
    found = []
    for header in headers:
        at = 0
        while scheme := _SCHEME.match(header, at):
            at = scheme.end()
            parameters: dict[str, str] = {}
            if not _PARAMETER.match(header, at) and (word := _TOKEN68.match(header, at)) and word[1].endswith("="):
                at = word.end()  # token68, as Negotiate has it
            while parameter := _PARAMETER.match(header, at):
                name, quoted, token = parameter.groups()
                value = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
                parameters.setdefault(name.lower(), value)
                at = parameter.end()
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


class Authorizer:
    """Answers challenges with one set of credentials; one object per origin and session."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._challenge: Challenge | None = None
        self._algorithm = ""
        self._count = 0

    @property
    def scheme(self) -> str:
        """The scheme in use, such as `Basic` or `Digest SHA-256`; empty before a challenge."""
        if self._challenge is None:
            return ""
        return f"Digest {self._algorithm}" if self._algorithm else "Basic"

    def learn(self, headers: Sequence[str], *, again: bool = False) -> bool:
        """Read the challenges of a 401; False if none of them can be answered (again).

        `again` says that the challenge before this one has been answered: then the credentials are wrong,
        unless Digest says that only the nonce was stale (RFC 7616 3.3), or is offered in the place of Basic: another
        challenge may be answered (RFC 9110 15.5.2).  Basic that has been sent before is the same the next time, so its
        refusal is final at once.
        """
        best = self._best(parse(headers))
        if best is None:
            return False
        challenge, algorithm = best
        is_stale = bool(algorithm) and challenge.parameters.get("stale", "").lower() == "true"
        is_other = bool(algorithm) and self.scheme == "Basic"
        if not is_stale and not is_other and (again or (self.scheme == "Basic" and not algorithm)):
            return False
        self._challenge, self._algorithm, self._count = challenge, algorithm, 0
        return True

    def header(self, method: str, target: str) -> str | None:
        """The Authorization value for one request; None before a challenge has been seen."""
        if self._challenge is None:
            return None
        if not self._algorithm:
            pair = f"{self._credentials.user}:{self._credentials.password}"
            return "Basic " + base64.b64encode(pair.encode()).decode()
        return self._digest(self._challenge.parameters, method, target)

    @staticmethod
    def _best(challenges: Sequence[Challenge]) -> tuple[Challenge, str] | None:
        """The strongest challenge we can answer: Digest SHA-256, Digest MD5, Basic."""
        for algorithm in _HASHES:
            for challenge in challenges:
                offered = challenge.parameters.get("algorithm", "MD5").upper()
                qop = challenge.parameters.get("qop")
                usable = qop is None or "auth" in [word.strip().lower() for word in qop.split(",")]
                named = {"realm", "nonce"} <= challenge.parameters.keys()
                named = named and all(value.isprintable() for value in challenge.parameters.values())
                if challenge.scheme == "digest" and offered.removesuffix("-SESS") == algorithm and usable and named:
                    return challenge, algorithm
        return next(((challenge, "") for challenge in challenges if challenge.scheme == "basic"), None)

    def _digest(self, parameters: Mapping[str, str], method: str, target: str) -> str:
        """RFC 7616 3.4; without a qop it is RFC 2069's older response, which servers of 2012 ask for."""
        hashed = _HASHES[self._algorithm]
        realm, nonce = parameters["realm"], parameters["nonce"]
        self._count += 1
        count, cnonce = f"{self._count:08x}", secrets.token_urlsafe(18)
        secret = hashed(f"{self._credentials.user}:{realm}:{self._credentials.password}".encode())
        if parameters.get("algorithm", "").upper().endswith("-SESS"):
            secret = hashed(f"{secret}:{nonce}:{cnonce}".encode())
        request = hashed(f"{method}:{target}".encode())
        quoted = {"username": self._credentials.user, "realm": realm, "nonce": nonce, "uri": target}
        plain = {"algorithm": parameters["algorithm"]} if "algorithm" in parameters else {}
        if "qop" in parameters:
            quoted["response"] = hashed(f"{secret}:{nonce}:{count}:{cnonce}:auth:{request}".encode())
            quoted["cnonce"] = cnonce
            plain |= {"qop": "auth", "nc": count}
        else:
            quoted["response"] = hashed(f"{secret}:{nonce}:{request}".encode())
        if "opaque" in parameters:
            quoted["opaque"] = parameters["opaque"]
        parts = [f'{name}="{_quote(value)}"' for name, value in quoted.items()]
        # http.client encodes header values as Latin-1, so the UTF-8 bytes are decoded as Latin-1 first.
        text = "Digest " + ", ".join(parts + [f"{name}={value}" for name, value in plain.items()])
        return text.encode().decode("latin-1")


def _quote(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
