"""`serverkeygen`: get a private key from the server, and its certificate (RFC 7030 4.4)."""

from __future__ import annotations

import argparse

from cryptography import x509

from estgw.client import files, keygen, keys, request
from estgw.client.commands import certificate_output, connecting, enrolling, options, waiting
from estgw.client.commands.report import Report
from estgw.client.faults import ClientError, Exit, UsageError
from estgw.client.sealing import Secret
from estgw.client.transport.session import RequestMaker, Session
from estgw.errors import Malformed
from estgw.est import csr, encoding
from estgw.est.binding import Binding


def serverkeygen(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get a key and its certificate from the server."""
    options.require_sense(arguments)
    secret = options.sealing_secret(arguments)
    key_path = enrolling.key_path_of(arguments)
    with connecting.open_session(arguments, report) as session:
        made = _maker(arguments, session, secret, report)
        files.create_key(key_path, b"")  # fail before the request if the key could not be stored

        def attempt() -> tuple[bytes, x509.Certificate]:
            try:
                answer = session.serverkeygen(made)
                return keygen.read(answer, secret, lambda: _anchors(arguments, session))
            finally:
                connecting.describe(session, report)
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


def _maker(arguments: argparse.Namespace, session: Session, secret: Secret, report: Report) -> bytes | RequestMaker:
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
    # The server ignores this key (RFC 7030 4.4.1); it only signs the CSR.
    throwaway = keys.generate(plan.key or keys.parse_spec(keys.DEFAULT))

    def make(binding: Binding | None) -> bytes:
        if binding is None and arguments.require_pop:
            raise ClientError("this connection has no channel binding (--require-pop)")
        return request.build(plan, throwaway, None if arguments.no_pop else binding, secret.attributes)

    return make


def _require_attributes(made: bytes, secret: Secret) -> None:
    """Raise `UsageError` unless a CSR that was made elsewhere asks for the encryption of these options."""
    try:
        present = csr.parse(made).attributes
    except Malformed as fault:
        raise UsageError(f"the request can't be used: {fault}") from None
    missing = [wish.oid for wish in secret.attributes if wish.oid not in present]
    if missing:
        raise UsageError(f"the CSR does not ask for encryption: it lacks {' and '.join(missing)} (RFC 7030 4.4.1)")


def _anchors(arguments: argparse.Namespace, session: Session) -> list[x509.Certificate]:
    """The anchors for the signer of the key: the explicit ones, or else the CA certificates of this server."""
    explicit = [one for path in arguments.cacert for one in files.certificates(path)]
    return explicit or session.cacerts()
