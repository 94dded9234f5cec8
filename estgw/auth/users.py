"""The password file in Apache's htpasswd format.  libpass reads the hashes; a thread verifies passwords."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import tempfile
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from passlib.context import CryptContext
from passlib.exc import PasslibHashWarning

from estgw.errors import ConfigError
from estgw.est.printable import printable

# `estgw passwd` writes the first; `htpasswd` of any version writes one of the others.  Plain text and DES crypt, which
# libpass would accept too, are omitted deliberately.
_CONTEXT = CryptContext(
    schemes=["bcrypt", "sha512_crypt", "sha256_crypt", "apr_md5_crypt", "ldap_sha1"],
    bcrypt__rounds=10,
)
REMEMBERED = 1024
"""Verified credentials that are remembered at once; the oldest is forgotten first."""
REFRESH = 0.25
"""The last part of the time for which a password is remembered; a request in it has the password verified again."""
BCRYPT_BYTES = 72
"""bcrypt ignores further bytes of a password, and bcrypt 5 refuses longer ones."""


class Users:
    """The users of one password file at the time when it was read."""

    def __init__(self, hashes: Mapping[str, str], *, remember: float = 60.0) -> None:
        self._hashes = dict(hashes)
        # An unknown user's password is verified with a hash of the kind that known users have, so that both take the
        # same time.
        known = next(iter(self._hashes.values()), None)
        self._decoy = known or _CONTEXT.hash(secrets.token_hex(8))
        self._remember = remember
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, float] = OrderedDict()
        self._checks: dict[bytes, asyncio.Task[bool]] = {}

    @property
    def names(self) -> list[str]:
        """The users' names, in the order of the file."""
        return list(self._hashes)

    def remembers(self, user: str, password: str) -> bool:
        """Whether the password was found right a short time ago.

        One that is about to be forgotten is verified again in the background, so that its next request need not wait.
        """
        digest, now = self._digest(user, password), time.monotonic()
        until = self._verified.get(digest, 0.0)
        if now < until < now + self._remember * REFRESH:
            self._check(digest, user, password)
        return now < until

    async def verify(self, user: str, password: str) -> bool:
        """Whether the password is the user's.

        Verifying a hash takes 60 ms and more.  So it runs in a thread, a success is remembered for a short time under a
        keyed digest, and requests with the same credentials at the same time share one verification.
        """
        if self.remembers(user, password):
            return True
        # Shielded: the client that asked first may go away while others wait for the same result.
        return await asyncio.shield(self._check(self._digest(user, password), user, password))

    def _digest(self, user: str, password: str) -> bytes:
        # Python has BLAKE2 itself. HMAC by OpenSSL takes 60 us where little of OpenSSL is in the processor's cache.
        return hashlib.blake2b(f"{user}\0{password}".encode(), key=self._key).digest()

    def _check(self, digest: bytes, user: str, password: str) -> asyncio.Task[bool]:
        """The verification of these credentials that is under way, or a new one."""
        check = self._checks.get(digest)
        if check is None:
            check = self._checks[digest] = asyncio.create_task(self._verify_in_thread(digest, user, password))
            check.add_done_callback(lambda ended: self._forget_check(digest, ended))
        return check

    def _forget_check(self, digest: bytes, ended: asyncio.Task[bool]) -> None:
        del self._checks[digest]
        if not ended.cancelled():
            ended.exception()  # a machine without a free thread: the requests that wait get it, a refresh is repeated

    async def _verify_in_thread(self, digest: bytes, user: str, password: str) -> bool:
        good = await asyncio.to_thread(self._verify, user, password)
        if good and self._remember:
            self._verified[digest] = time.monotonic() + self._remember
            self._verified.move_to_end(digest)
            while len(self._verified) > REMEMBERED:
                self._verified.popitem(last=False)
        return good

    def _verify(self, user: str, password: str) -> bool:
        stored = self._hashes.get(user)
        if len(password.encode()) > BCRYPT_BYTES:
            password, stored = "", None
        try:
            matches = _CONTEXT.verify(password, stored or self._decoy)
        except ValueError:
            return False
        return bool(matches) and stored is not None


def load(path: Path, *, remember: float = 60.0) -> Users:
    """Return the users in an htpasswd file.  Raises `ConfigError` with a line for each entry that can't be used.

    `remember` is the time in seconds for which a verified password is remembered; 0 turns that off.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault)
        raise ConfigError([f"{path}: {reason}; make it with: estgw passwd {path} NAME"]) from None
    hashes: dict[str, str] = {}
    faults = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, stored = line.partition(":")
        if not colon:
            faults.append(f"{path}:{number}:1: not of the form user:hash")
        elif user in hashes:
            faults.append(f"{path}:{number}:1: the user stands here twice")
        elif not _is_hash(stored.strip()):
            faults.append(f"{path}:{number}:{len(user) + 2}: not a hash that is accepted (bcrypt is best)")
        else:
            hashes[user] = stored.strip()
    if faults:
        raise ConfigError(faults)
    return Users(hashes, remember=remember)


def _is_hash(stored: str) -> bool:
    """Whether a password can be verified with this hash.  A truncated one would answer faster than the others."""
    scheme = _CONTEXT.identify(stored)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PasslibHashWarning)  # for a salt that libpass would shorten
            return scheme is not None and _CONTEXT.handler(scheme).from_string(stored).checksum is not None
    except (ValueError, PasslibHashWarning):
        return False


def set_password(path: Path, user: str, password: str) -> None:
    """Add or change one user of an htpasswd file.  Raises as `set_passwords` does."""
    set_passwords(path, {user: password})


def set_passwords(path: Path, passwords: Mapping[str, str]) -> None:
    """Add or change users of an htpasswd file, all of them or none.

    Raises ValueError with a sentence for a name or password that the format can't hold.
    """
    for user, password in passwords.items():
        require_name(user)
        if len(password.encode()) > BCRYPT_BYTES:
            raise ValueError(f"bcrypt takes {BCRYPT_BYTES} bytes of password at most")
        if not (password + " ").isprintable():
            raise ValueError("no client can send a password with a control character in it (RFC 7617 2)")
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # a hash takes 60 ms and more, without Python's lock
        hashes = list(threads.map(_CONTEXT.hash, passwords.values()))
    added = [f"{user}:{stored}" for user, stored in zip(passwords, hashes, strict=True)]
    rewrite(path, lambda line: line.partition(":")[0] in passwords, added)


def remove(path: Path, names: Collection[str]) -> None:
    """Remove users of an htpasswd file, all of them or none.  Raises ValueError for one that is not there."""
    remove_lines(path, names, lambda line: line.partition(":")[0])


def remove_lines(path: Path, names: Collection[str], user_of: Callable[[str], str]) -> None:
    """Remove the lines of users; `user_of` tells whose line it is.  Raises ValueError for a user who is not there."""
    for user in names:
        require_name(user)
        if not user:  # an empty line or a comment would count as the one without a name
            raise ValueError("a user name has no colon, no control character and no # in front; this one is empty")
    there = {user_of(line) for line in path.read_text(encoding="utf-8").splitlines()}
    if missing := [user for user in names if user not in there]:
        raise ValueError(f"{path} has no user {', '.join(map(printable, missing))}; nothing was changed")
    rewrite(path, lambda line: user_of(line) in names, [])


def require_name(user: str) -> None:
    """Raise ValueError with a sentence for a name that a password file can't hold."""
    if ":" in user or user.startswith("#") or not (user + " ").isprintable():
        raise ValueError("a user name has no colon, no control character and no # in front")


def rewrite(path: Path, replaced: Callable[[str], bool], added: list[str]) -> None:
    """Replace lines of a password file, atomically.  Only the owner can read the file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if not replaced(line)]
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in [*kept, *added])
            file.flush()
            os.fsync(file.fileno())  # otherwise a power cut could leave a file without users
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
