"""The decisions that the script `fullcmc` makes.  Most are a value; `may_revoke` is a function."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509


@dataclass(frozen=True)
class Signer:
    """The client that a message is from, by its signature, a shared secret or the connection."""

    name: str
    """For the log, and the owner of what waits: `certificate 1A2B of CN=device-1`, `secret device-7`."""
    certificate: x509.Certificate | None = None
    """The certificate of this CA that signed the message."""
    is_ra: bool = False
    """That certificate has id-kp-cmcRA (RFC 6402 2.10)."""
    identification: str | None = None
    """The identification whose shared secret proves the identity (RFC 5272 6.2)."""
    secret: str | None = field(default=None, repr=False)
    is_authenticated: bool = True
    """False where neither a signature, nor a secret, nor the connection says who the client is."""
    signed_at: datetime | None = None
    """The signing time under the client's own signature; None for a message without one."""

    @property
    def is_proved(self) -> bool:
        """Whether the message itself, and not the connection, says who the client is."""
        return self.certificate is not None or self.identification is not None


@dataclass(frozen=True)
class Policy:
    """All decisions; the script `fullcmc` says what each means."""

    profile: str
    lifetime: timedelta
    members: bool
    ras: bool
    secrets: bool
    connection: bool
    old_proofs: bool
    tries: int
    tries_per: timedelta
    clock: timedelta
    remember: timedelta
    challenges: bool
    no_key_reuse: bool
    must_archive: bool
    may_add: Collection[str]
    confirm: timedelta | None
    human: bool
    retry: int
    anchors: bool
    may_revoke: Callable[[Signer, x509.Certificate], bool]
