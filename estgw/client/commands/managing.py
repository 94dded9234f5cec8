"""`fullcmc` and its commands: send a finished message, or make one to enrol, renew, revoke, or get a CRL."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import cmc, cmcrequest, crls, files, fullcmc, keys, request
from estgw.client.commands import certificate_output, connecting, enrolling, options, waiting
from estgw.client.commands.enrolling import Attempt, Way
from estgw.client.commands.report import Report
from estgw.client.faults import Exit, InvalidAnswer, UsageError, clean
from estgw.client.fullcmc import Author, Secret, Transaction
from estgw.client.request import Plan
from estgw.client.transport.pki_response import Response
from estgw.client.transport.session import RequestMaker, Session
from estgw.cmc.values import REASONS
from estgw.cms.identifiers import IssuerAndSerial
from estgw.errors import Malformed
from estgw.est import csr, encoding
from estgw.est.csrattrs import AttributeWish

T = TypeVar("T")


def send(arguments: argparse.Namespace, report: Report) -> Exit:
    """Send a CMC request that was made elsewhere, and judge the answer."""
    data = options.request(arguments.cmc)
    try:
        message = cmc.request(data)
    except Malformed as fault:
        raise UsageError(f"{arguments.cmc}: {fault}") from None
    with connecting.open_session(arguments, report) as session:
        response = waiting.until_done(lambda: _answer(session, message, report), arguments.wait, report)
    if arguments.outform == "pem":
        _write_bag(response, arguments.out, report)
    else:
        is_der = arguments.outform == "der"
        certificate_output.write(
            report, response.der if is_der else encoding.encode_pem(response.der, "PKCS7"), arguments.out
        )
    return report.done()


def _write_bag(response: Response, path: Path | None, report: Report) -> None:
    """Write the certificates, then the CRLs of an answer as PEM; the answer to a revocation has neither."""
    found = response.message.bag
    if len(found) < len(response.message.certificates):
        raise InvalidAnswer("the CMC answer holds certificates that can't be read")
    if not found and not response.message.crls:
        if response.is_simple:
            raise InvalidAnswer("the server's PKCS#7 holds no certificate")
        report.say("The answer holds no certificate and no CRL.")
        return
    lists = b"".join(encoding.encode_pem(each, crls.PEM_LABEL) for each in response.message.crls)
    certificate_output.write(report, certificate_output.render(found, "pem") + lists, path)


def _answer(session: Session, message: bytes, report: Report) -> Response:
    """The answer, after its signer and its status have been checked.

    Nonce and transaction may be missing, since the message was made elsewhere; wrong ones are refused.
    """
    answer = session.fullcmc(message)
    connecting.describe(session, report)
    response = fullcmc.read(answer)
    cmc.authenticate(response, session.trust, session.place.host)
    if response.statuses:
        report.fact(cmc=response.words)
    cmc.check_echo(response, *cmc.marks_of(message), may_lack=True)
    fullcmc.judge(response, answer)
    return response


class Cmc(Way):
    """Requests in a CMC message, signed by the holder of `--cert` or by the new key.

    With a secret, the new key always signs: `--cert` may then be the device maker's, which is for TLS only.
    """

    def __init__(self, arguments: argparse.Namespace, report: Report) -> None:
        super().__init__(arguments)
        self._report = report
        self._secret = _shared_secret(arguments)
        self._passphrase = _passphrase(arguments.revocation_secret_file)

    def ready(self, session: Session, made: bytes | RequestMaker) -> Attempt:
        """A PKCS#10 that was made elsewhere, sent by an RA for example."""
        if session.identity is None:
            raise UsageError("a CSR that is made elsewhere needs --cert and --key, to sign the message around it")
        if self._secret is not None:
            raise UsageError("a CSR that is made elsewhere can't be linked to a secret")
        make = (lambda _: made) if isinstance(made, bytes) else made
        transaction = Transaction(session, Author.holder(session.identity))
        return self._attempt(transaction, lambda: transaction.enroll(cmcrequest.ready(make)))

    def own(self, session: Session, plan: Plan, key: PrivateKeyTypes) -> Attempt:
        """A PKCS#10, or with `--crmf` a CRMF request, for a key that is on this side."""
        arguments = self.arguments
        can_sign = not arguments.encrypted_pop
        if not can_sign and keys.spec_of(key).kind not in ("ec", "rsa"):
            raise UsageError("--encrypted-pop is for RSA and EC keys, which can decrypt")
        if self._passphrase is not None:
            wish = AttributeWish(csr.REVOCATION_CHALLENGE, (request.string(self._passphrase),))
            plan = replace(plan, attributes=(*plan.attributes, wish))
        if session.identity is not None and self._secret is None:
            author = Author.holder(session.identity)
        else:
            author = Author.new_key(key, can_sign=can_sign)
            plan = cmcrequest.with_key_id(plan, key)
        made = cmcrequest.pkcs10(plan, key)
        if arguments.crmf:
            made = cmcrequest.crmf(plan, key, challenge=not can_sign)
        transaction = Transaction(session, author, self._secret)
        claimed = enrolling.claimed
        return self._attempt(
            transaction,
            lambda: transaction.enroll(lambda binding, witness: made(claimed(arguments, binding), witness), key),
        )

    def _attempt(self, transaction: Transaction, attempt: Attempt) -> Attempt:
        def once() -> x509.Certificate:
            try:
                return attempt()
            finally:
                _tell(transaction, self._report)

        return once


def enroll(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get a first certificate by CMC."""
    return enrolling.enroll_by(Cmc(arguments, report), report)


def renew(arguments: argparse.Namespace, report: Report) -> Exit:
    """Renew `--cert` by CMC, in place."""
    return enrolling.renew_by(Cmc(arguments, report), report)


def revoke(arguments: argparse.Namespace, report: Report) -> Exit:
    """Have a certificate revoked: `--cert` itself, or another one as an RA."""
    target = _target(arguments)
    passphrase = _passphrase(arguments.secret_file)
    if arguments.cert is None and passphrase is None:
        raise UsageError("a revocation needs credentials: --cert and --key, or --secret-file for a passphrase")
    reason = next(number for number, word in REASONS.items() if word == arguments.reason)
    with connecting.open_session(arguments, report) as session:
        author = Author() if session.identity is None else Author.holder(session.identity)
        transaction = Transaction(session, author)
        _run(session, transaction, lambda: transaction.revoke(target, reason, passphrase), arguments, report)
    report.say(f"Revoked: serial {target.serial:X}, {arguments.reason}")
    report.fact(revoked=f"{target.serial:X}", reason=arguments.reason)
    return report.done()


def get_crl(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get a CA's CRL, and check its signature under the anchors for the server."""
    if arguments.outform == "p7":
        raise UsageError("a CRL can't be a PKCS#7: use --outform pem or der")
    with connecting.open_session(arguments, report) as session:
        issuer = _issuer(arguments, session)
        author = Author.nobody() if session.identity is None else Author.holder(session.identity)
        transaction = Transaction(session, author)
        crl = _run(session, transaction, lambda: transaction.crl(issuer), arguments, report)
    certificate_output.write(report, crls.render(crl, arguments.outform), arguments.out)
    report.say(f"CRL: {crls.line(crl)}")
    report.fact(crl=crls.facts(crl))
    return report.done()


def _run(
    session: Session, transaction: Transaction, attempt: Callable[[], T], arguments: argparse.Namespace, report: Report
) -> T:
    """Run a transaction, and repeat it within the time of `--wait`."""

    def once() -> T:
        try:
            return attempt()
        finally:
            _tell(transaction, report)
            connecting.describe(session, report)
            session.close()

    return waiting.until_done(once, arguments.wait, report)


def _tell(transaction: Transaction, report: Report) -> None:
    if transaction.words:
        report.fact(cmc=transaction.words)
        report.detail(f"the CMC answer is {', '.join(transaction.words)}")


def _shared_secret(arguments: argparse.Namespace) -> Secret | None:
    """`--secret-file` and `--identification`; without a file the terminal asks for the secret."""
    file = getattr(arguments, "secret_file", None)
    name = getattr(arguments, "identification", None)
    if file is None and name is None:
        return None
    return Secret(options.secret(file, f"Secret of {clean(name or '', 100)}: "), name)


def _passphrase(file: Path | None) -> str | None:
    """The passphrase that revokes a certificate (RFC 5272 6.11, RFC 7894 3.2)."""
    found = None if file is None else options.secret(file, "")
    if found is not None and len(found) > csr.MAXIMUM_STRING:
        raise UsageError(f"{file}: a passphrase has at most {csr.MAXIMUM_STRING} characters")
    return found


def _target(arguments: argparse.Namespace) -> IssuerAndSerial:
    """The certificate to be revoked."""
    if arguments.target is not None:
        if arguments.serial is not None or arguments.issuer is not None:
            raise UsageError("--target names the certificate: leave out --serial and --issuer")
        return IssuerAndSerial.of(files.certificates(arguments.target)[0])
    own = None if arguments.cert is None else files.certificates(arguments.cert)[0]
    if arguments.serial is not None:
        if arguments.issuer is not None:
            return IssuerAndSerial(_subject(arguments.issuer).public_bytes(), arguments.serial)
        if own is not None:
            return IssuerAndSerial(own.issuer.public_bytes(), arguments.serial)
        raise UsageError("--serial needs the CA: --issuer FILE")
    if arguments.issuer is not None:
        raise UsageError("--issuer is for --serial")
    if own is None:
        raise UsageError("no certificate to revoke: --cert, --target FILE, or --serial HEX")
    return IssuerAndSerial.of(own)


def _issuer(arguments: argparse.Namespace, session: Session) -> x509.Name:
    """The CA of the CRL: the one in `--issuer`, the issuer of our own certificate, or the only anchor."""
    if arguments.issuer is not None:
        return _subject(arguments.issuer)
    if session.identity is not None:
        return session.identity.certificate.issuer
    known = list(dict.fromkeys(each.subject for each in session.trust.explicit))
    if len(known) != 1:
        raise UsageError("the CRL needs a CA: give its certificate with --issuer FILE")
    return known[0]


def _subject(path: Path) -> x509.Name:
    return files.certificates(path)[0].subject
