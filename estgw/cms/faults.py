"""Reasons to refuse a CMS message.  Each is a `Malformed` too, for callers that do not tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from estgw.errors import Malformed


class BadAlgorithm(Malformed):
    """An algorithm is unknown, or too weak (SHA-1, MD5).  CMC answers it with badAlg."""


class BadSignature(Malformed):
    """A signature does not fit the key, or is missing.  CMC answers it with badMessageCheck."""


class BadDigest(BadSignature):
    """The signed digest is not the content's: the content was changed after it was signed."""


class NotForThisKey(Malformed):
    """The private key does not decrypt the message."""


@contextmanager
def within(where: str) -> Iterator[None]:
    """Put the name of the part before the text of a fault that is found in it.  The class of the fault stays."""
    try:
        yield
    except Malformed as fault:
        raise type(fault)(f"{where}: {fault}") from None
