"""Verify HTTP credentials with the configured schemes and password files."""

from __future__ import annotations

from collections.abc import Sequence

from estgw.auth.credentials import Credentials
from estgw.auth.digest import Digest
from estgw.auth.http import basic_challenge
from estgw.auth.users import Users


class Passwords:
    """The means by which this gateway verifies passwords: an htpasswd file, Digest, both or none."""

    def __init__(self, realm: str, users: Users | None, digest: Digest | None) -> None:
        self._realm = realm
        self._users = users
        self._digest = digest

    def challenges(self, *, basic_only: bool = False, stale: bool = False) -> list[str]:
        """Return the WWW-Authenticate values of a 401, Digest first, one header each; empty if no scheme is configured.

        `basic_only` is for routes with an `authenticate` callout, which needs the password itself.  `stale` is for a
        Digest answer that was right except for its nonce.
        """
        if basic_only:
            return [basic_challenge(self._realm)]
        offered = self._digest.challenges(stale=stale) if self._digest else []
        return [*offered, basic_challenge(self._realm)] if self._users else offered

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that are offered, in the order of the challenges."""
        return (*(["Digest"] if self._digest else []), *(["Basic"] if self._users else []))

    def remembers(self, claimed: Credentials) -> bool:
        """Whether Basic credentials were found right a short time ago."""
        return (
            self._users is not None
            and claimed.password is not None
            and self._users.remembers(claimed.username, claimed.password)
        )

    async def verify(self, claimed: Credentials, method: str, targets: Sequence[str]) -> bool:
        """Whether the credentials are right for this request.  Raises as `Digest.verify` does."""
        if claimed.response is not None:
            return self._digest is not None and self._digest.verify(claimed.response, method, targets)
        # Basic is verified only where it is offered: a configuration without it wants no passwords on the wire.
        return self._users is not None and await self._users.verify(claimed.username, claimed.password or "")
