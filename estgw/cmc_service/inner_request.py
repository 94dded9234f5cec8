"""One request for a certificate inside a message, from its proof of possession to the certificate.

It is checked as the gateway checks one that comes alone: signature, linking, names, template; then
`authorize` is asked, and the CA issues.
"""

import contextlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

import ca
import store
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request, Possession, TaggedRequest
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service import authorize as ask
from estgw.cmc_service import pending, pop
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.authorize import Wish
from estgw.cmc_service.exchange import Case
from estgw.cmc_service.pending import Kept
from estgw.cmc_service.state import mark
from estgw.errors import ConfigError, Malformed
from estgw.est import certs, names
from estgw.est import csr as csrs
from estgw.est.bounds import NameBounds
from estgw.est.csr import CSR, NewNames

PASSING = (CMCFailInfo.TRY_LATER, CMCFailInfo.INTERNAL_CA_ERROR)
"""Failures that say nothing of the request: it may be asked about again."""
ARCHIVE = "1.3.6.1.5.5.7.5.1.4"  # pkiArchiveOptions (RFC 4211 6.4)


def handle(case: Case, request: TaggedRequest) -> None:
    """Deal with one request; the answer says what came of it.  Raises `Refused`."""
    if isinstance(request, OtherRequest):
        raise Refused(None, f"requests of the format {request.oid} are not known", status=CMCStatus.NO_SUPPORT)
    if case.full is not None:
        raise case.full
    try:
        csr = request.csr
        names.require_sound(csr.san)
        public = pop.require_key(csr)
        proof = pop.possession_of(case, request, public)
        if proof is None:
            return
        linked = pop.link(case, request, csr)
    except Malformed as fault:
        raise Refused.by(fault, CMCFailInfo.POP_FAILED) from None
    _require_fresh(case, csr, proof)
    changes = case.changes.get(request.body_part_id)
    if isinstance(changes, Refused):
        raise changes
    signs = proof is Possession.PROVED
    kept = Kept(mark(case.who.name), request.encode(), linked, signs, changes)
    _decide(case, request, kept, request.body_part_id)


def _require_fresh(case: Case, csr: CSR, proof: Possession) -> None:
    """Of what rests on a shared secret alone, one certificate for each key, unless the key's holder has said when.

    An identity proof is good for ever, for the same requests in any message (RFC 5272 6.2.1).  Only a signing time by
    the new key, or the answer to our challenge, tells the sender's message from a copy.  The register remembers keys
    for longer than cmc.sqlite could remember messages.
    """
    who = case.who
    by_secret = who.certificate is None and who.identification is not None
    if by_secret and who.signed_at is None and proof is not Possession.CHALLENGE and store.has_key(csr.spki):
        words = "there is a certificate for this key, and nothing says when the message was signed: "
        raise Refused(CMCFailInfo.BAD_TIME, words + "sign with signingTime (RFC 5652 11.3), or make a new key")


def resume(case: Case, request: PKCS10Request | CRMFRequest, kept: Kept, part: int) -> None:
    """Look again at a request that waits; its proofs were good when it came."""
    _decide(case, request, kept, part)


def _decide(case: Case, request: PKCS10Request | CRMFRequest, kept: Kept, part: int) -> None:
    """Everything that may have changed since a request began to wait, and the end of it."""
    if time.monotonic() > case.deadline:
        raise Refused(CMCFailInfo.TRY_LATER, "no time left for this request: send fewer in one message")
    _require_client(case)
    try:
        wish = _named(case, request, kept.changes, kept.pop)
        NameBounds.parse(os.environ["EST_NAME_BOUNDS"]).require(wish.subject, wish.san)
        _require_template(request, wish)
        env = ask.environment(wish, case.who)
    except Malformed as fault:
        raise Refused.by(fault) from None
    name = env["EST_PENDING_ID"]
    try:
        verdict = _verdict(case, env)
    except Refused as why:
        if why.failure not in PASSING:
            pending.forget(case.state, name)
        raise
    if verdict.waits:
        token = pending.wait(case.state, kept, name, case.policy.remember)
        case.answer.wait(part, token, case.policy.retry)
        return
    with pending.taken(case.state, kept, name, case.policy.remember):
        certificate = verdict.certificate
        if certificate is None:
            with verdict:
                certificate = _issue(case, wish, env, kept.signs)
                verdict.issued(certificate)
    status = CMCStatus.SUCCESS
    if case.policy.confirm is not None:
        pending.expect_confirmation(case.state, certificate, case.who, case.policy.confirm)
        status = CMCStatus.CONFIRM_REQUIRED
    case.answer.good(part, certificate, status=status)


def _require_client(case: Case) -> None:
    """A certificate that proves who a client is by simplereenroll does so here, and no other (RFC 7030 3.3.2).

    The holder of another certificate may still revoke it, confirm it and ask for lists.
    """
    certificate = case.who.certificate
    if certificate is not None and not certs.may_authenticate(certificate):
        words = "the signer's certificate is not for clients: its extended key usage lacks clientAuth; enroll instead"
        raise Refused(CMCFailInfo.BAD_IDENTITY, words)


def _verdict(case: Case, env: dict[str, str]) -> pending.Verdict:
    """What authorize says, and then a human, if one is asked."""
    if not ask.authorize(env, case.deadline - time.monotonic() + 1):
        return pending.Verdict(waits=True)
    if not case.policy.human:
        return pending.Verdict()
    return pending.approval(case.books.folder, env, case.state, mark(case.who.name))


# Names, extensions and the template.


def _named(case: Case, request: PKCS10Request | CRMFRequest, changes: NewNames | None, pop: str) -> Wish:
    """Whose certificate it will be, and whether it renews one; raises `Refused`, `Malformed`."""
    csr, who = request.csr, case.who
    wanted = csrs.change_subject_name(csr)
    if wanted is not None:
        if os.environ["EST_MAY_CHANGE_SUBJECT"] != "1":
            raise Refused(CMCFailInfo.BAD_REQUEST, "names are not changed here: leave ChangeSubjectName out")
        if who.certificate is None:
            raise Refused(
                CMCFailInfo.BAD_IDENTITY, "ChangeSubjectName needs a certificate whose names are to be changed"
            )
        names.require_sound(wanted.san)
    new_names = changes or wanted
    if new_names is None:
        csrs.require_subject(csr)
    else:
        names.require_sound(new_names.san)
        names.openssl_subject(new_names.subject)
    renewed = None
    if who.certificate is not None and (not who.is_ra or changes is None):
        difference = csrs.difference(csr, who.certificate)
        if difference is not None and not who.is_ra:
            raise Refused(CMCFailInfo.BAD_IDENTITY, f"only an RA may ask for others: {difference}")
        renewed = who.certificate if difference is None else None
    return Wish(request.body_part_id, csr, new_names, pop, renewed)


def _require_template(request: PKCS10Request | CRMFRequest, wish: Wish) -> None:
    """What the configuration insists on, and what nobody here can give."""
    for extension in wish.csr.extensions:
        if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
            words = f"the critical extension {extension.oid.dotted_string} is not known here"
            raise Refused(CMCFailInfo.UNSUPPORTED_EXT, words)
    if wish.csr.text_attribute(csrs.OTP_CHALLENGE) is not None and ask.env_program() is None:
        raise Refused(CMCFailInfo.BAD_REQUEST, "the request carries otpChallenge, and nothing here can verify it")
    if (template := os.environ.get("EST_CSR_TEMPLATE")) is None:
        return
    from estgw.config import csrattrs_yaml

    try:
        wanted = csrattrs_yaml.load_template_check(Path(template))
    except ConfigError as fault:
        ca.fail(str(fault))
    wanted.require(pending.with_signature(request), wish.new_names, proves_key=True)


# Issuing.


def _issue(case: Case, wish: Wish, env: Mapping[str, str], signs: bool) -> x509.Certificate:
    """A certificate in the register; raises `Refused`."""
    if case.policy.must_archive and not _may_sign(wish.csr):
        words = "keys for encryption are kept here, so the server makes them: ask serverkeygen"
        raise Refused(CMCFailInfo.MUST_ARCHIVE_KEYS, words)
    if ARCHIVE in wish.csr.attributes:
        raise Refused(CMCFailInfo.BAD_REQUEST, "private keys of clients are not archived here")
    if case.policy.no_key_reuse and store.has_key(wish.csr.spki):
        raise Refused(CMCFailInfo.NO_KEY_REUSE, "there is a certificate for this key: make a new key")
    os.environ["EST_PENDING_ID"] = env["EST_PENDING_ID"]  # for the register
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stdout(spoken):
            certificate = ca.issue(
                wish.subject,
                wish.csr.request.public_key(),
                list(wish.san or ()),
                case.policy.profile,
                case.policy.lifetime,
                signs=not _is_for_both(wish.csr) or (signs and _may_sign(wish.csr)),
            )
    except SystemExit as end:
        if end.code == os.EX_UNAVAILABLE:
            raise Refused(CMCFailInfo.TRY_LATER, "the CA is busy") from None
        if end.code in (os.EX_NOPERM, os.EX_DATAERR):
            raise Refused(CMCFailInfo.BAD_REQUEST, spoken.getvalue().strip()) from None
        raise
    if (passphrase := env.get("EST_REVOCATION_CHALLENGE")) is not None:
        lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        pending.remember_passphrase(case.state, certificate, passphrase, lasts)
    return certificate


def _is_for_both(csr: CSR) -> bool:
    """Whether a key of this kind can be for encryption as well as for signatures."""
    return isinstance(csr.request.public_key(), rsa.RSAPublicKey | ec.EllipticCurvePublicKey)


def _may_sign(csr: CSR) -> bool:
    """Whether the key usage asked for has signatures; without one it is anything that the key can do."""
    try:
        usage = csr.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    encrypts = usage.key_encipherment or usage.data_encipherment or usage.key_agreement
    return usage.digital_signature or usage.content_commitment or not encrypts
