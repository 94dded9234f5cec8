"""TLS channel bindings as EST uses them (RFC 7030 3.5): their kinds, their text form and their comparison."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from enum import Enum


class BindingType(Enum):
    """The kinds of channel binding that can link a request to its connection."""

    TLS_UNIQUE = "tls-unique"
    """RFC 5929: the first Finished message.  TLS 1.2 only; RFC 8446 leaves it undefined for 1.3."""
    TLS_EXPORTER = "tls-exporter"
    """RFC 9266: 32 bytes of keying material; RFC 9148 3 uses it for EST over coaps with TLS 1.3."""
    TLS13_FINISHED = "tls13-finished"
    """The client's Finished message on TLS 1.3, as libest's client sends it; no standard defines it."""


EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
EXPORTER_LENGTH = 32
EXPORTER_CONTEXT = b""
"""Empty, not absent (RFC 9266 2): in TLS 1.2 the two give different values."""


@dataclass(frozen=True)
class Binding:
    """The channel binding of one connection."""

    type: BindingType
    value: bytes

    @property
    def text(self) -> str:
        """The text that a client puts into challengePassword: base64 without line breaks."""
        return base64.b64encode(self.value).decode()

    def matches(self, claimed: str) -> bool:
        """Whether `claimed`, a text, is this binding.  Compares whole values in constant time.

        A final line break is ignored, since `openssl base64` leaves one in a script's variable.
        """
        return hmac.compare_digest(claimed.rstrip("\r\n").encode(), self.text.encode())
