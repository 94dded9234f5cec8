"""Proofs of identity by a shared secret (RFC 5272 6.2): identityProofV2 and identityProof, and the file of secrets."""

from __future__ import annotations

import hmac
from pathlib import Path

from estgw.cmc import proofs
from estgw.cmc.messages import PKIData
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.ca import CAFailed
from estgw.cmc_service.policy import Policy
from estgw.cmc_service.state import Spent, State, mark
from estgw.errors import Malformed

SECRETS = "cmc-secrets"
CONTROLS = ("identityProofV2", "identityProof")


def verify(policy: Policy, directory: Path, state: State, data: PKIData) -> tuple[str | None, str | None]:
    """Identification and secret, both None where no proof is given; raises `Refused` for a wrong one."""
    try:
        given = {name: data.value(name) for name in CONTROLS}
        identification = data.value("identification")
    except Malformed as fault:
        raise Refused.by(fault) from None
    parts = [each.body_part_id for name in CONTROLS for each in data.find(name)]
    if not parts:
        return None, None
    if given["identityProof"] is not None and given["identityProofV2"] is None and not policy.old_proofs:
        raise Refused(CMCFailInfo.BAD_ALG, "identityProof rests on SHA-1; use identityProofV2", parts)
    secret = secret_of(directory, identification)
    sequence, known = data.request_sequence, secret or ""
    try:
        is_right = all(
            proofs.is_identity_proof_v2(value, sequence, known, identification)
            if name == "identityProofV2"
            else proofs.is_identity_proof(value, sequence, known, identification)
            for name, value in given.items()
            if value is not None
        )
    except Malformed as fault:
        raise Refused(Refused.by(fault).failure, str(fault), parts) from None
    # An identification without a secret is of another kind, so that made-up names take no room from the others.
    kind = "unknown" if secret is None else "wrong"
    try:
        if state.judge(kind, mark(identification), policy.tries_per, most=policy.tries,
                       is_right=is_right and secret is not None):  # fmt: skip
            return identification, secret
    except Spent:
        raise Refused(CMCFailInfo.TRY_LATER, "too many wrong proofs for this identification", parts) from None
    raise Refused(CMCFailInfo.BAD_IDENTITY, "the proof of identity is wrong", parts)


def secret_of(directory: Path, identification: str | None) -> str | None:
    """The secret of an identification: `cmc-secrets` has an identification and a secret on each line."""
    file = directory / SECRETS
    if identification is None or not file.exists():
        return None
    if file.stat().st_mode & 0o077:
        raise CAFailed(f"{file}: others may read the secrets in it; chmod 600")
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *secret = line.split(maxsplit=1)
        if not secret:
            raise CAFailed(f"{file}:{number}: not an identification and a secret")
        if hmac.compare_digest(name.encode(), identification.encode()):
            return secret[0].strip()
    return None
