"""HTTP Digest (RFC 7616), the server's side.

Theory of operation.  A 401 carries a challenge with a nonce.  A nonce holds the time at which it was made and a MAC by
a secret of this process, so the server needs no list of the nonces that it has given out.  A client answers with the
hash of its password, the nonce and a nonce count (`nc`), which it raises for each request with the same nonce.

    parse           reads the answer: the syntax, and the parameters that an answer to these challenges has
    Digest.verify   checks the target, then the hash, then the age of the nonce, then the nonce count

The order matters.  `StaleNonce` asks the client to repeat its request with a new nonce, without asking a person for the
password, so only an answer with the right password gets it.  `Nonces.use` refuses a count that was used, and so a
replay.  Its memory is bounded: forgetting a nonce makes that nonce and all older ones invalid.

The module is written by hand, since no maintained library has the server's side.  MD5 is for clients without SHA-256;
inside TLS it protects the password file rather than the password.
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
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from urllib.request import parse_http_list, parse_keqv_list

from estgw.auth.credentials import DigestResponse
from estgw.auth.users import remove_lines, require_name, rewrite
from estgw.errors import BadRequest, ConfigError, StaleNonce, Unauthenticated

ALGORITHMS: Mapping[str, Callable[..., hashlib._Hash]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
"""SHA-512-256 is omitted deliberately: an old curl offers it and computes it wrongly."""
REMEMBERED = 16384
"""Used nonces that are remembered; `Nonces.use` tells how older ones are forgotten."""

_TIME = struct.Struct(">d")
_RANDOM, _MAC = 8, 16
_NC = re.compile(r"[0-9a-fA-F]{8}")


def parse(parameters: str) -> DigestResponse:
    """Return the answer in the parameters of `Authorization: Digest`.

    Values may have quotes or not, `opaque` is ignored, and a missing algorithm means MD5 (RFC 7616 3.4).  Raises
    `Unauthenticated` when the parameters can't be an answer to one of our challenges.
    """
    try:
        # RFC 9110 11.2 requires recipients to accept white space around the equals sign.
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
    """The nonces of one process, each with its time and a MAC, and the nonce counts that were used.

    No other process has the secret, so an answer that was accepted here can't be replayed elsewhere.  Times are taken
    from the monotonic clock, which corrections of the date do not change.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._used: OrderedDict[str, int] = OrderedDict()
        self._floor = -math.inf

    def make(self) -> str:
        """Return a new nonce in base64url, which needs no escaping."""
        content = _TIME.pack(time.monotonic()) + secrets.token_bytes(_RANDOM)
        return base64.urlsafe_b64encode(content + self._mac(content)).decode()

    def is_ours(self, nonce: str, max_age: float) -> bool:
        """Whether this process made the nonce, at most `max_age` seconds ago."""
        made = self._made(nonce)
        return made is not None and made > self._floor and time.monotonic() - made <= max_age

    def use(self, nonce: str, count: int) -> bool:
        """Record a nonce count.  False if it or a higher one was used before.

        Memory is bounded.  When the oldest nonce is forgotten, each nonce of its age or older is refused from then on,
        so that forgetting makes no replay possible.
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
            return None  # the decoder ignores stray characters; a nonce in two spellings would have two counts
        content, mac = raw[:-_MAC], raw[-_MAC:]
        if len(content) != _TIME.size + _RANDOM or not hmac.compare_digest(mac, self._mac(content)):
            return None
        moment: float = _TIME.unpack(content[: _TIME.size])[0]
        return moment

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, b"estgw nonce" + content, hashlib.sha256)[:_MAC]


class Digest:
    """Challenges, and the verification of answers."""

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
        """Return one WWW-Authenticate value for each algorithm, in the configured order; curl takes the first it knows.

        The parameters and quotes are exactly these, since two real clients fail on others; without a parameter the
        algorithm is MD5.  `stale` tells the client that its answer was right except for the nonce (RFC 7616 3.3).  It
        is False for a first challenge.
        """
        common = f'Digest realm="{self._realm}", nonce="{self._nonces.make()}", qop="auth"'
        common += ", stale=true" if stale else ""
        return [common if name == "MD5" else f"{common}, algorithm={name}" for name in self._algorithms]

    def verify(self, given: DigestResponse, method: str, targets: Sequence[str]) -> bool:
        """Whether the answer proves the user's password for this request and is not a replay.

        `targets` are the request targets that `uri` may name: the request's own, and the same without the label, which
        one client always sends.  Raises `BadRequest` for another target (RFC 7616 3.4.6), and `StaleNonce` when the
        password is right and the nonce is too old or another process's.
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
    """Return H(user:realm:password) in hex, as a digest file stores it (RFC 7616 3.4.2)."""
    return _hash(algorithm, f"{username}:{realm}:{password}")


def _response(given: DigestResponse, method: str, known: str) -> str:
    """The expected response by RFC 7616 3.4.1 with qop=auth, in hex."""
    ha2 = _hash(given.algorithm, f"{method}:{given.uri}")
    return _hash(given.algorithm, f"{known}:{given.nonce}:{given.nc}:{given.cnonce}:auth:{ha2}")


def _hash(algorithm: str, text: str) -> str:
    return ALGORITHMS[algorithm](text.encode(), usedforsecurity=False).hexdigest()


_LENGTHS = {32: "MD5", 64: "SHA-256"}


def load(path: Path, realm: str) -> dict[tuple[str, str], str]:
    """Return H(user:realm:password) in hex, by user and algorithm, from a digest file.

    Its lines have the form `user:realm:hex` of Apache's htdigest; the length of the hash tells MD5 from SHA-256.  Lines
    of other realms are skipped.  Raises `ConfigError` with a line for each entry that can't be used.
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


def set_passwords(path: Path, realm: str, passwords: Mapping[str, str]) -> None:
    """Add or change users of a digest file, for every algorithm, all of them or none.

    Raises ValueError with a sentence for a name that the format can't hold.
    """
    for user in passwords:
        require_name(user)
    lines = [
        f"{user}:{realm}:{ha1(algorithm, user, realm, password)}"
        for user, password in passwords.items()
        for algorithm in ALGORITHMS
    ]
    rewrite(path, lambda line: _user_of(line, realm) in passwords, lines)


def remove(path: Path, realm: str, names: Collection[str]) -> None:
    """Remove users of a realm from a digest file, all of them or none.  Raises ValueError for one who is not there."""
    remove_lines(path, names, lambda line: _user_of(line, realm))


def _user_of(line: str, realm: str) -> str:
    """The user of a line of this realm; no name for a line of another."""
    user, *rest = line.split(":")
    return user if rest[:1] == [realm] else ""
