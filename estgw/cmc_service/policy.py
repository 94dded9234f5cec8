"""What the policy of fullcmc can say; `fullcmc` itself says it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509


@dataclass(frozen=True)
class Who:
    """Who answers for a message: what `fullcmc` decides by."""

    name: str
    """For the log, and the owner of what waits: `certificate 1A2B of CN=device-1`, `secret device-7`."""
    certificate: x509.Certificate | None = None
    """A certificate of ours that signed the message."""
    is_ra: bool = False
    """That one has id-kp-cmcRA."""
    identification: str | None = None
    """Whose shared secret it was, if it was one."""
    secret: str | None = field(default=None, repr=False)
    is_authenticated: bool = True
    """False for somebody whom neither a signature, a secret nor the connection vouches for."""
    signed_at: datetime | None = None
    """The signing time under a signature of the sender's own; None for a message without one."""

    @property
    def is_proved(self) -> bool:
        """Whether the message itself, and not the connection, says who it is."""
        return self.certificate is not None or self.identification is not None


@dataclass(frozen=True)
class Policy:
    """The decisions, all of them; see `fullcmc` for what each means."""

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
    may_revoke: Callable[[Who, x509.Certificate], bool]
