"""The verdict on HTTP credentials: which files and schemes there are, and whether a claim is true."""

from __future__ import annotations

from collections.abc import Sequence

from estgw.auth.credentials import Credentials
from estgw.auth.digest import Digest
from estgw.auth.http import basic_challenge
from estgw.auth.users import Users


class Passwords:
    """Everything that this gateway can verify a password with; empty when it takes none."""

    def __init__(self, realm: str, users: Users | None, digest: Digest | None) -> None:
        self._realm = realm
        self._users = users
        self._digest = digest

    def challenges(self, *, basic_only: bool = False, stale: bool = False) -> list[str]:
        """The WWW-Authenticate values of a 401, Digest first, one header each; empty: passwords are not taken.

        `basic_only` is for routes with an `authenticate` callout, which needs to see the password; `stale` is for a
        Digest that was right but for its nonce.
        """
        if basic_only:
            return [basic_challenge(self._realm)]
        offered = self._digest.challenges(stale=stale) if self._digest else []
        return [*offered, basic_challenge(self._realm)] if self._users else offered

    async def verify(self, claimed: Credentials, method: str, targets: Sequence[str]) -> bool:
        """Whether the credentials are good for this request; raises what `Digest.verify` raises."""
        if claimed.response is not None:
            return self._digest is not None and self._digest.verify(claimed.response, method, targets)
        # Basic is verified only where it is offered: whoever switched it off does not want passwords on the wire.
        return self._users is not None and await self._users.verify(claimed.username, claimed.password or "")
