"""Passphrases for revocation (RFC 5272 6.11).

A request sets one by revocationChallenge (RFC 7894 3.2), and a revokeRequest shows it again.  the register has them
stretched by scrypt.  The number of guesses for each certificate is limited.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography import x509

from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.policy import Policy
from estgw.cmc_service.state import Spent, State, mark
from estgw.est import certs


def remember(state: State, certificate: x509.Certificate, passphrase: str) -> None:
    """Keep the passphrase of a new certificate until the certificate expires."""
    salt = os.urandom(16)
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    state.put("passphrase", certs.serial_hex(certificate), salt + _stretched(passphrase.encode(), salt), lasts)


def require(state: State, policy: Policy, certificate: x509.Certificate, given: bytes) -> None:
    """Raise `Refused` unless this is the passphrase that the certificate was asked for with."""
    key, lasts, most = mark("revoke", certificate.serial_number), policy.tries_per, policy.tries
    kept = state.get("passphrase", certs.serial_hex(certificate))
    kind = "unknown" if kept is None else "wrong"
    try:
        if state.wrong(kind, key) >= most:
            raise Spent
        # Stretching takes too long for a transaction, which would make other clients wait.
        is_right = _is_same(kept, given)
        if not state.judge(kind, key, lasts, most=most, is_right=is_right):
            raise Refused(CMCFailInfo.BAD_IDENTITY, "the passphrase is wrong")
    except Spent:
        raise Refused(CMCFailInfo.TRY_LATER, "too many wrong passphrases for this certificate") from None


def _is_same(kept: bytes | None, given: bytes) -> bool:
    """Compare; it takes as long when there is nothing to compare with."""
    kept = kept or bytes(48)
    return hmac.compare_digest(_stretched(given[:1024], kept[:16]), kept[16:])


def _stretched(secret: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=salt, n=2**14, r=8, p=1, dklen=32)
