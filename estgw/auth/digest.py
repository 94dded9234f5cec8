"""HTTP Digest (RFC 7616): stateless nonces, replay refused, and the leniency that real clients need.

By hand, since no kept library has the server side.  MD5 is there for clients that know nothing else; inside TLS it
protects the password file rather than the password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import parse_http_list, parse_keqv_list

from estgw.auth.users import rewrite
from estgw.errors import BadRequest, ConfigError, Unauthenticated

ALGORITHMS: Mapping[str, Callable[..., hashlib._Hash]] = {"SHA-256": hashlib.sha256, "MD5": hashlib.md5}
"""SHA-512-256 is left out on purpose: an old curl offers it and computes it wrongly."""
REMEMBERED = 16384
"""How many used nonces are kept; see `Nonces.use` for what happens past that."""

_TIME = struct.Struct(">d")
_RANDOM, _MAC = 8, 16
_NC = re.compile(r"[0-9a-fA-F]{8}")
_BWS = re.compile(r"\s*=\s*")
"""RFC 9110 11.2 has a recipient take white space around the equals sign."""


@dataclass(frozen=True)
class DigestResponse:
    """A client's answer to a Digest challenge; nothing in it is verified."""

    username: str
    realm: str
    nonce: str
    uri: str
    algorithm: str
    nc: str
    cnonce: str
    response: str = field(repr=False)


def parse(parameters: str) -> DigestResponse:
    """Read the parameters of `Authorization: Digest`; raises `Unauthenticated` when they can't be an answer to us.

    Values come with quotes or without, `opaque` is ignored, and a missing algorithm is MD5 (RFC 7616 3.4).
    """
    try:
        pairs = [_BWS.sub("=", pair, count=1) for pair in parse_http_list(parameters)]
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
    """Nonces that carry their own time and a MAC, and the nonce counts that were used.

    The secret may be shared between gateways; the counts are each gateway's own.
    """

    def __init__(self, secret: bytes, max_age: float) -> None:
        self._secret = secret
        self._max_age = max_age
        self._used: OrderedDict[str, int] = OrderedDict()
        # Counts of earlier nonces, if the secret is older than we are, are not known here.
        self._floor = time.time()

    def continue_from(self, older: Nonces) -> None:
        """Take over what is known of an older instance's nonces, if the secret is the same (after a reload)."""
        if hmac.compare_digest(self._secret, older._secret):
            self._used, self._floor = older._used, older._floor

    def make(self) -> str:
        """A fresh nonce: base64url, so that it never needs escaping."""
        content = _TIME.pack(time.time()) + secrets.token_bytes(_RANDOM)
        return base64.urlsafe_b64encode(content + self._mac(content)).decode()

    def is_ours(self, nonce: str) -> bool:
        """Whether we made it, and not too long ago."""
        made = self._made(nonce)
        return made is not None and made > self._floor and 0 <= time.time() - made + 1 <= self._max_age + 1

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
            self._floor = max(self._floor, self._made(forgotten) or 0.0)
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
        self, realm: str, algorithms: Sequence[str], hashes: Mapping[tuple[str, str], str], nonces: Nonces
    ) -> None:
        """`hashes` has H(user:realm:password) in hex by user and algorithm."""
        self._realm = realm
        self._algorithms = tuple(algorithms)
        self._hashes = dict(hashes)
        self._nonces = nonces

    def continue_from(self, older: Digest) -> None:
        """Let clients that were challenged before a reload answer after it, once."""
        self._nonces.continue_from(older._nonces)

    def challenges(self) -> list[str]:
        """One WWW-Authenticate value per algorithm, best first (curl takes the first that it knows).

        Exactly these parameters and quotes: two real clients fail on more, and MD5 is meant by omission.
        """
        nonce = self._nonces.make()
        common = f'Digest realm="{self._realm}", nonce="{nonce}", qop="auth"'
        return [common if name == "MD5" else f"{common}, algorithm={name}" for name in self._algorithms]

    def verify(self, given: DigestResponse, method: str, targets: Sequence[str]) -> bool:
        """Whether the answer proves the user's password for this request; a replay does not.

        `targets` are the request targets that `uri` may name: the request's own, and the label-less twin that one
        client always sends.  Raises `BadRequest` for any other (RFC 7616 3.4.6).
        """
        if given.uri not in targets:
            raise BadRequest("The digest uri is not the resource of this request.", log=f"digest uri {given.uri!r}")
        if (
            given.realm != self._realm
            or given.algorithm not in self._algorithms
            or not self._nonces.is_ours(given.nonce)
        ):
            return False
        known = self._hashes.get((given.username, given.algorithm))
        expected = _response(given, method, known or secrets.token_hex(16))
        right = hmac.compare_digest(given.response.encode(), expected.encode())
        return right and known is not None and self._nonces.use(given.nonce, int(given.nc, 16))


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
