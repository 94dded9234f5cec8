"""The user's password: which scheme it is sent by, and when to stop sending it.

A server may lock an account after a few wrong passwords, so a password that was refused twice is not sent again.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from estgw.client.transport.challenge import Authorizer, Challenge, Credentials, parse
from estgw.conform.http import Reply

_MAXIMUM_REFUSALS = 2
"""`http.wrong-password` and `http.empty-user`, which send one wrong password each, need one that was not refused."""
_DIGEST = re.compile(r"(?i)(response=\W?)[0-9a-f]{32,128}")


class Login:
    """A user's credentials against one server."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._authorizer = None if credentials is None else Authorizer(credentials)
        self._refusals = 0
        self.was_accepted = False
        self.challenges: Sequence[Challenge] = ()
        """The challenges of the first 401."""
        self.raw_challenges: Sequence[str] = ()

    @property
    def user(self) -> str:
        """The user's name; empty when there is none."""
        return "" if self._credentials is None else self._credentials.user

    @property
    def is_given(self) -> bool:
        """Whether there is a password, good or not."""
        return self._credentials is not None

    @property
    def is_usable(self) -> bool:
        """Whether there is a password that the server has not refused."""
        return self._credentials is not None and self._refusals < _MAXIMUM_REFUSALS

    @property
    def offers_digest(self) -> bool:
        """Whether the server has offered Digest."""
        return any(each.scheme == "digest" for each in self.challenges)

    def header(self, method: str, target: str) -> str | None:
        """The Authorization for one request, or None.  Before a challenge was seen it is Basic, which some wait for."""
        if self._authorizer is None or not self.is_usable:
            return None
        if not self._authorizer.scheme:
            self._authorizer.learn(['Basic realm=""'])
        return self._authorizer.header(method, target)

    def meet(self, reply: Reply) -> None:
        """Read the challenges of a 401 to a request without credentials."""
        values = reply.all("WWW-Authenticate")
        if reply.status != 401 or not values:
            return
        self._remember(values)
        if self._authorizer is not None:
            self._authorizer.learn(values)

    def _remember(self, values: Sequence[str]) -> None:
        if not self.challenges:
            self.challenges, self.raw_challenges = parse(values), values

    def judge(self, reply: Reply) -> bool:
        """Take note of the answer to a request with the password; True if another try is due (a stale nonce)."""
        if reply.status != 401:
            self.was_accepted = self.was_accepted or reply.is_success or reply.status in (400, 403, 415)
            return False
        values = reply.all("WWW-Authenticate")
        # After a password was good once, another 401 means another nonce, whether it says stale=true or not.
        again = bool(self.challenges) and not self.was_accepted
        if self._authorizer is not None and values and self._authorizer.learn(values, again=again):
            self._remember(values)
            return True
        if not self.was_accepted:
            self._refusals += 1
        return False

    def basic(self, password: str | None = None, user: str | None = None) -> str:
        """A Basic Authorization with another password or user than the given ones."""
        given = self._credentials or Credentials("", "")
        pair = f"{given.user if user is None else user}:{given.password if password is None else password}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def authorizer(self) -> Authorizer:
        """A fresh authorizer for these credentials, for a case that plays with Digest."""
        return Authorizer(self._credentials or Credentials("", ""))

    def masked(self, text: str) -> str:
        """A text without the password, should a server send it back: in the clear, as Basic's base64, as a Digest."""
        text = _DIGEST.sub(r"\1***", text)
        if self._credentials is None or not self._credentials.password:
            return text
        pair = f"{self._credentials.user}:{self._credentials.password}"
        text = text.replace(base64.b64encode(pair.encode()).decode(), "***")
        # A password of one letter must not take that letter out of every word.
        return re.sub(rf"(?<!\w){re.escape(self._credentials.password)}(?!\w)", "***", text)
