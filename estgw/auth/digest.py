"""HTTP Digest (RFC 7616): stateless nonces, replay refused, and the leniency that real clients need.

By hand, since no kept library has the server side.  MD5 is there for clients that know nothing else; inside TLS it
protects the password file rather than the password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.request import parse_http_list, parse_keqv_list

from estgw.auth.credentials import DigestResponse
from estgw.auth.users import rewrite
from estgw.errors import BadRequest, ConfigError, StaleNonce, Unauthenticated

ALGORITHMS: Mapping[str, Callable[..., hashlib._Hash]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
"""SHA-512-256 is left out on purpose: an old curl offers it and computes it wrongly."""
REMEMBERED = 16384
"""How many used nonces are kept; see `Nonces.use` for what happens past that."""

_TIME = struct.Struct(">d")
_RANDOM, _MAC = 8, 16
_NC = re.compile(r"[0-9a-fA-F]{8}")


def parse(parameters: str) -> DigestResponse:
    """Read the parameters of `Authorization: Digest`; raises `Unauthenticated` when they can't be an answer to us.

    Values come with quotes or without, `opaque` is ignored, and a missing algorithm is MD5 (RFC 7616 3.4).
    """
    try:
        # RFC 9110 11.2 has a recipient take white space around the equals sign.
        pairs = ["=".join(part.strip() for part in pair.split("=", 1)) for pair in parse_http_list(parameters)]
        given = {name.lower(): value for name, value in parse_keqv_list(pairs).items()}
    except (ValueError, IndexError):
        raise Unauthenticated(log="the Digest credentials are not a list of name=value") from None
    missing = [name for name in ("username", "realm", "nonce", "uri", "response", "nc", "cnonce") if name not in given]
    if missing:
        raise Unauthenticated(log=f"the Digest credentials lack {', '.join(missing)}")
    if given.get("qop", "").lower() != "auth" or not _NC.fullmatch(given["nc"]):
        raise Unauthenticated(log="the Digest credentials have a qop that was not offered, or no nonce count")
    if any(not value.isprintable() for value in given.values()):
        raise Unauthenticated(log="a control character in the Digest credentials")
    return DigestResponse(
        username=given["username"],
        realm=given["realm"],
        nonce=given["nonce"],
        uri=given["uri"],
        algorithm=given.get("algorithm", "MD5").upper(),
        nc=given["nc"],
        cnonce=given["cnonce"],
        response=given["response"].lower(),
    )


class Nonces:
    """The nonces of one process, each with its own time and a MAC, and the nonce counts that were used.

    No other process has the secret, so that an answer which was given here is good nowhere else.  A nonce's time is
    that of the monotonic clock, which no correction of the date sets back or forth.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, int] = OrderedDict()
        self._floor = -math.inf

    def make(self) -> str:
        """A fresh nonce: base64url, so that it never needs escaping."""
        content = _TIME.pack(time.monotonic()) + secrets.token_bytes(_RANDOM)
        return base64.urlsafe_b64encode(content + self._mac(content)).decode()

    def is_ours(self, nonce: str, max_age: float) -> bool:
        """Whether we made it, and at most `max_age` seconds ago."""
        made = self._made(nonce)
        return made is not None and made > self._floor and time.monotonic() - made <= max_age

    def use(self, nonce: str, count: int) -> bool:
        """Take a nonce count; False when it, or a higher one, was used before.

        Memory is bounded: when the oldest nonce is forgotten, every nonce of its age and older is refused from then
        on, so that forgetting never makes a replay possible.
        """
        if count <= self._used.get(nonce, 0):
            return False
        self._used[nonce] = count
        self._used.move_to_end(nonce)
        while len(self._used) > REMEMBERED:
            forgotten, _ = self._used.popitem(last=False)
            self._floor = max(self._floor, self._made(forgotten) or self._floor)
        return True

    def _made(self, nonce: str) -> float | None:
        try:
            raw = base64.urlsafe_b64decode(nonce)
        except ValueError:
            return None
        if base64.urlsafe_b64encode(raw).decode() != nonce:
            return None  # the decoder overlooks stray characters; one nonce under two spellings has two counts
        content, mac = raw[:-_MAC], raw[-_MAC:]
        if len(content) != _TIME.size + _RANDOM or not hmac.compare_digest(mac, self._mac(content)):
            return None
        moment: float = _TIME.unpack(content[: _TIME.size])[0]
        return moment

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, b"estgw nonce" + content, hashlib.sha256)[:_MAC]


class Digest:
    """The server's side: challenges, and the verdict on an answer."""

    def __init__(
        self,
        realm: str,
        algorithms: Sequence[str],
        hashes: Mapping[tuple[str, str], str],
        nonces: Nonces,
        nonce_age: float,
    ) -> None:
        """`hashes` has H(user:realm:password) in hex by user and algorithm; `nonce_age` is in seconds."""
        self._realm = realm
        self._algorithms = tuple(algorithms)
        self._hashes = dict(hashes)
        self._nonces = nonces
        self._nonce_age = nonce_age

    def challenges(self, *, stale: bool = False) -> list[str]:
        """One WWW-Authenticate value per algorithm, in the configured order (curl takes the first that it knows).

        Exactly these parameters and quotes: two real clients fail on more, and MD5 is meant by omission.  `stale`
        says that the answer before was right but for its nonce (RFC 7616 3.3); a first challenge never says so.
        """
        common = f'Digest realm="{self._realm}", nonce="{self._nonces.make()}", qop="auth"'
        common += ", stale=true" if stale else ""
        return [common if name == "MD5" else f"{common}, algorithm={name}" for name in self._algorithms]

    def verify(self, given: DigestResponse, method: str, targets: Sequence[str]) -> bool:
        """Whether the answer proves the user's password for this request; a replay does not.

        `targets` are the request targets that `uri` may name: the request's own, and the label-less twin that one
        client always sends.  Raises `BadRequest` for any other (RFC 7616 3.4.6), and `StaleNonce` when only the nonce
        is wrong: too old, or another process's.  A wrong password never gets that far.
        """
        if given.uri not in targets:
            raise BadRequest("The digest uri is not the resource of this request.", log=f"digest uri {given.uri!r}")
        if given.realm != self._realm or given.algorithm not in self._algorithms:
            return False
        known = self._hashes.get((given.username, given.algorithm))
        expected = _response(given, method, known or secrets.token_hex(16))
        if not hmac.compare_digest(given.response.encode(), expected.encode()) or known is None:
            return False
        if not self._nonces.is_ours(given.nonce, self._nonce_age):
            raise StaleNonce
        return self._nonces.use(given.nonce, int(given.nc, 16))


def ha1(algorithm: str, username: str, realm: str, password: str) -> str:
    """H(user:realm:password), hex: what a digest file stores (RFC 7616 3.4.2)."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def _response(given: DigestResponse, method: str, known: str) -> str:
    """RFC 7616 3.4.1 with qop=auth."""
    ha2 = _hash(given.algorithm, f"{method}:{given.uri}")
    return _hash(given.algorithm, f"{known}:{given.nonce}:{given.nc}:{given.cnonce}:auth:{ha2}")


def _hash(algorithm: str, text: str) -> str:
    return ALGORITHMS[algorithm](text.encode(), usedforsecurity=False).hexdigest()


_LENGTHS = {32: "MD5", 64: "SHA-256"}


def load(path: Path, realm: str) -> dict[tuple[str, str], str]:
    """Read a digest file: Apache's htdigest lines `user:realm:hex`, with SHA-256 by the length of the hash.

    Lines of other realms are left out.  Raises `ConfigError` with a line for each entry that can't be used.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise ConfigError([f"{path}: {reason}; make it with: estgw passwd --digest {path} NAME"]) from None
    hashes: dict[tuple[str, str], str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.strip().split(":")
        algorithm = _LENGTHS.get(len(parts[-1]))
        if len(parts) != 3 or algorithm is None or not re.fullmatch("[0-9a-fA-F]+", parts[2]):
            faults.append(f"{path}:{number}:1: not of the form user:realm:hash, MD5 or SHA-256 in hex")
        elif parts[1] == realm:
            hashes[parts[0], algorithm] = parts[2].lower()
    if faults:
        raise ConfigError(faults)
    return hashes


def set_password(path: Path, realm: str, user: str, password: str) -> None:
    """Add or change one user of a digest file, for every algorithm; raises what `users.rewrite` raises."""
    lines = [f"{user}:{realm}:{ha1(algorithm, user, realm, password)}" for algorithm in ALGORITHMS]
    rewrite(path, user, lambda line: line.split(":")[:2] == [user, realm], lines)
