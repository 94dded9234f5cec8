"""`serverkeygen`: a private key of the server's making (RFC 7030 4.4)."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from estgw.client import (
    answers,
    certificate_output,
    cms,
    commands,
    enrolling,
    files,
    keys,
    multipart,
    options,
    request,
    sealing,
    waiting,
)
from estgw.client.faults import ClientError, Exit, InvalidAnswer, UsageError, clean
from estgw.client.report import Report
from estgw.client.session import RequestMaker, Session
from estgw.client.wire import Answer
from estgw.errors import Malformed
from estgw.est import certs, csr, encoding
from estgw.est.binding import Binding

CLEAR = "application/pkcs8"
ENCRYPTED = "server-generated-key"


def serverkeygen(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get a key and its certificate from the server."""
    options.require_sense(arguments)
    secret = sealing.wanted(arguments)
    key_path = enrolling.key_path_of(arguments)
    with commands.open_session(arguments, report) as session:
        made = _maker(arguments, session, secret, report)
        files.create_key(key_path, b"")  # a key that could not be stored must not be asked for

        def attempt() -> tuple[bytes, x509.Certificate]:
            try:
                answer = session.serverkeygen(made)
                return read(answer, secret, lambda: _anchors(arguments, session))
            finally:
                commands.describe(session, report)
                session.close()

        try:
            key, certificate = waiting.until_done(attempt, arguments.wait, report)
        except BaseException:
            key_path.unlink()
            raise
    pem = encoding.encode_pem(key, "PRIVATE KEY")
    if key_path == arguments.out:
        files.write(key_path, pem + certificate_output.render([certificate], "pem"), mode=0o600)
    else:
        files.write(key_path, pem, mode=0o600)
        certificate_output.deliver(report, [certificate], arguments.outform, arguments.out)
    report.say(f"Issued: {certificate_output.line(certificate)}; its key is in {key_path}")
    report.fact(certificate=certificate_output.facts(certificate), key=str(key_path))
    return report.done()


def read(
    answer: Answer, secret: sealing.Secret, anchors: Callable[[], Sequence[x509.Certificate]] = tuple
) -> tuple[bytes, x509.Certificate]:
    """Private key (PKCS#8 DER) and certificate of an answer (RFC 7030 4.4.2); raises `InvalidAnswer`.

    A key in the clear is refused when `secret` asked for encryption.  `anchors` is called for the certificates
    that the signer of an encrypted key must lead to.
    """
    key_type, key_body, certificate_body = _parts(answer)
    found = answers.bag_of(certificate_body)
    try:
        der = encoding.decode(key_body, ("PRIVATE KEY", *certs.PKCS7_LABELS))
    except Malformed as fault:
        raise InvalidAnswer(f"the private key can't be read: {fault}") from None
    if key_type == CLEAR:
        if secret.is_wanted:
            raise InvalidAnswer("the private key came in the clear although its encryption was asked for; refused")
    else:
        if not secret.is_wanted:
            raise InvalidAnswer(
                "the private key came encrypted, and nobody asked for it: --decrypt-key, --decrypt-cert"
            )
        content = _opened(der, secret)
        der = cms.private_key_info(cms.verified_content(content, anchors()))
    return der, _fitting(der, found)


def _opened(der: bytes, secret: sealing.Secret) -> bytes:
    if secret.key is not None:
        return cms.open_with_secret(der, secret.key, secret.key_id)
    if secret.certificate is None or secret.certificate_key is None:
        raise AssertionError("sealing.wanted lets no such thing through")
    return cms.open_with_certificate(der, secret.certificate, secret.certificate_key)


def _fitting(der: bytes, found: list[x509.Certificate]) -> x509.Certificate:
    try:
        key = load_der_private_key(der, password=None)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        fitting = [certificate for certificate in found if certs.spki(certificate) == spki]
    except certs.UNREADABLE:
        # The library's own words are left out: they might quote key material.
        raise InvalidAnswer("the private key can't be read") from None
    if len(fitting) != 1:
        raise InvalidAnswer("the private key does not fit the certificate")
    return fitting[0]


def _parts(answer: Answer) -> tuple[str, bytes, bytes]:
    """Type and body of the key's part, and the body of the certificate's, in either order."""
    if answer.content_type != "multipart/mixed":
        raise InvalidAnswer(f"an answer of type {clean(answer.content_type, 100)!r}, not multipart/mixed")
    parts = multipart.split(answer.headers, answer.body)
    keys_found = [part for part in parts if part.content_type == CLEAR or part.smime_type == ENCRYPTED]
    rest = [part for part in parts if part not in keys_found and part.content_type == "application/pkcs7-mime"]
    if len(parts) != 2 or len(keys_found) != 1 or len(rest) != 1:
        kinds = ", ".join(f"{part.content_type} {part.smime_type}".strip() for part in parts)
        raise InvalidAnswer(f"a serverkeygen answer is a key and a certificate; this one has: {clean(kinds, 200)}")
    return keys_found[0].content_type, keys_found[0].body, rest[0].body


def _maker(
    arguments: argparse.Namespace, session: Session, secret: sealing.Secret, report: Report
) -> bytes | RequestMaker:
    if arguments.script is not None or arguments.csr is not None:
        made = enrolling.ready(arguments, session, report)
        if isinstance(made, bytes):
            _require_attributes(made, secret)
            return made

        def checked(binding: Binding | None) -> bytes:
            printed = made(binding)
            _require_attributes(printed, secret)
            return printed

        return checked
    plan = enrolling.follow(arguments, session, options.wanted(arguments), report)
    # RFC 7030 4.4.1: the server ignores this key; it only has to sign the CSR.
    throwaway = keys.generate(plan.key or keys.parse_spec(keys.DEFAULT))

    def make(binding: Binding | None) -> bytes:
        if binding is None and arguments.require_pop:
            raise ClientError("this connection has no channel binding (--require-pop)")
        return request.build(plan, throwaway, None if arguments.no_pop else binding, secret.attributes)

    return make


def _require_attributes(made: bytes, secret: sealing.Secret) -> None:
    """A CSR made elsewhere must itself ask for the encryption that we are going to insist on."""
    try:
        present = csr.parse(made).attributes
    except Malformed as fault:
        raise UsageError(f"the request can't be used: {fault}") from None
    missing = [wish.oid for wish in secret.attributes if wish.oid not in present]
    if missing:
        raise UsageError(f"the CSR does not ask for encryption: it lacks {' and '.join(missing)} (RFC 7030 4.4.1)")


def _anchors(arguments: argparse.Namespace, session: Session) -> list[x509.Certificate]:
    """Identifier the signer of the key must lead to: the explicit anchors, else what this server calls its CA."""
    explicit = [one for path in arguments.cacert for one in options.certificates(path)]
    return explicit or session.cacerts()
