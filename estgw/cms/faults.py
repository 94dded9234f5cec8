"""Why a CMS message is not taken, beyond being malformed; each is a `Malformed` too, for callers who don't mind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from estgw.errors import Malformed


class BadAlgorithm(Malformed):
    """An algorithm that is unknown here, or too weak (SHA-1, MD5); CMC answers it with badAlg."""


class BadSignature(Malformed):
    """A signature that does not fit the key, or is missing; CMC answers it with badMessageCheck."""


class BadDigest(BadSignature):
    """The signed digest is not the content's: the content has changed since."""


class NotForThisKey(Malformed):
    """An encrypted message that this private key does not open."""


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put the name of the part in front of whatever fault is found in it; the kind of fault stays."""
    try:
        yield
    except Malformed as fault:
        raise type(fault)(f"{where}: {fault}") from None
