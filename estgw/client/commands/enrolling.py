"""`enroll` and `reenroll`: make a key and a CSR, get the certificate, store both (RFC 7030 4.2)."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import files, keys, request
from estgw.client.commands import certificate_output, connecting, options, script, waiting
from estgw.client.commands.report import Report
from estgw.client.faults import ClientError, Exit, InvalidAnswer, Refused, ServerFailed, UsageError
from estgw.client.request import Plan, Wanted
from estgw.client.transport import trust
from estgw.client.transport.session import RequestMaker, Session
from estgw.errors import Malformed
from estgw.est import certs, csr
from estgw.est.binding import Binding
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING

Attempt = Callable[[], x509.Certificate]
"""Requests a certificate once; may be called again after a `TryLater`."""
_HAVE_NO_CSRATTRS = (400, 405, 410)
"""Statuses for /csrattrs from servers that do not have it, besides the 204 and 404 of RFC 7030 4.5.2 and a 501."""


class Way:
    """How a request is sent: here as a PKCS#10, by one of the simple operations (RFC 7030 4.2)."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def ready(self, session: Session, made: bytes | RequestMaker) -> Attempt:
        """Enrol with a request that was made elsewhere."""
        renews = self.arguments.operation == "simplereenroll"
        return lambda: session.reenroll(made) if renews else session.enroll(made)

    def own(self, session: Session, plan: Plan, key: PrivateKeyTypes) -> Attempt:
        """Enrol with a request for a key that is on this side."""
        return self.ready(session, linked(plan, key, self.arguments))


def enroll(arguments: argparse.Namespace, report: Report) -> Exit:
    """Get a first certificate."""
    return enroll_by(Way(arguments), report)


def enroll_by(way: Way, report: Report) -> Exit:
    """Get a first certificate; `way` sends the request."""
    arguments = way.arguments
    options.require_sense(arguments)
    key_path = key_path_of(arguments) if arguments.new_key is not None else None
    with connecting.open_session(arguments, report) as session:
        if arguments.script is not None or arguments.csr is not None:
            attempt = way.ready(session, ready(arguments, session, report))
            certificate = _send(session, attempt, arguments, report)
            certificate_output.deliver(report, [certificate], arguments.outform, arguments.out)
        else:
            wanted = options.wanted(arguments)
            key = None if arguments.reuse_key is None else options.private_key(arguments.reuse_key)
            plan = follow(arguments, session, wanted, report)
            key = key or keys.generate(choose(arguments.new_key, plan))
            certificate = _enroll_with(session, way, plan, key, key_path, report)
    report.say(f"Issued: {certificate_output.line(certificate)}")
    report.fact(certificate=certificate_output.facts(certificate))
    return report.done()


def _enroll_with(
    session: Session,
    way: Way,
    plan: Plan,
    key: PrivateKeyTypes,
    key_path: Path | None,
    report: Report,
) -> x509.Certificate:
    """Store a new key, get its certificate, and store that.  The key is on disk before the request is sent."""
    arguments = way.arguments
    attempt = way.own(session, plan, key)
    if key_path is not None:
        session.connect()  # no key is left behind if the server can't be reached or trusted
        files.create_key(key_path, keys.to_pem(key))
        report.fact(key=str(key_path))
    try:
        certificate = _send(session, attempt, arguments, report)
    except Refused:
        if key_path is not None:
            key_path.unlink()  # made above, for a certificate that was refused
        raise
    except ClientError:
        if key_path is not None:
            report.say(f"The key is in {key_path}; --reuse-key {key_path} uses it again.")
        raise
    if key_path is not None and arguments.out is not None and key_path == arguments.out:
        files.write(key_path, keys.to_pem(key) + certificate_output.render([certificate], "pem"), mode=0o600)
    else:
        certificate_output.deliver(report, [certificate], arguments.outform, arguments.out)
    return certificate


def reenroll(arguments: argparse.Namespace, report: Report) -> Exit:
    """Renew `--cert`, with its key or a new one, and replace the old pair by the new one (RFC 7030 4.2.2)."""
    return renew_by(Way(arguments), report)


def renew_by(way: Way, report: Report) -> Exit:
    """Renew `--cert` in place; `way` sends the request."""
    arguments = way.arguments
    options.require_sense(arguments)
    if arguments.cert is None:
        raise UsageError(f"{arguments.command} needs the certificate to be renewed and its key: --cert FILE --key FILE")
    old = files.certificates(arguments.cert)[0]
    left = old.not_valid_after_utc - datetime.now(UTC)
    if arguments.if_expires_within is not None and left > arguments.if_expires_within:
        report.say(f"Nothing to do: {certificate_output.line(old)}")
        report.fact(certificate=certificate_output.facts(old), renewed=False)
        return report.done()
    key_path = arguments.key or arguments.cert
    if arguments.new_key is not None and not _is_in_place(arguments) and key_path_of(arguments).exists():
        raise ClientError(f"{key_path_of(arguments)} exists already; a key is never overwritten")
    with connecting.open_session(arguments, report) as session:
        plan = follow(arguments, session, request.fixed_to(old), report)
        if arguments.new_key is None:
            key = options.private_key(key_path)
            certificate = _send(session, way.own(session, plan, key), arguments, report)
            _renewed(arguments, certificate, key_path, None, report)
        else:
            staged = key_path.with_name(key_path.name + ".next")
            key = _staged_key(staged, choose(arguments.new_key, plan), old)
            certificate = _send(session, way.own(session, plan, key), arguments, report)
            _renewed(arguments, certificate, key_path, keys.to_pem(key), report)
            staged.unlink()
    report.say(f"Renewed: {certificate_output.line(certificate)}")
    report.fact(certificate=certificate_output.facts(certificate), renewed=True)
    return report.done()


def _staged_key(path: Path, spec: keys.KeySpec, old: x509.Certificate) -> PrivateKeyTypes:
    """The next key: a new one, or the key of a run that got 202 or was interrupted, which the CA may know already.

    A run that was interrupted at its very end leaves the key that is in use by now, which is not taken again.  A run
    that was interrupted at its beginning leaves a file without a key, which is replaced.
    """
    if path.exists():
        with contextlib.suppress(UsageError):
            key = options.private_key(path)
            if keys.spec_of(key) == spec and keys.spki(key) != certs.spki(old):
                return key
        path.unlink()
    key = keys.generate(spec)
    files.create_key(path, keys.to_pem(key))
    return key


def _renewed(
    arguments: argparse.Namespace, certificate: x509.Certificate, key_path: Path, key: bytes | None, report: Report
) -> None:
    """Store the new certificate and key: over the old pair, or in the files of `-o` and `--key-out`."""
    target = arguments.out or arguments.cert
    report.fact(out=str(target))
    if not _is_in_place(arguments):
        if key is not None:
            files.create_key(key_path_of(arguments), key)
        files.write(target, certificate_output.render([certificate], arguments.outform))
        return
    pem = certificate_output.render([certificate, *_chain(arguments.cert, certificate, report)], "pem")
    if key is not None:
        files.replace_pair(arguments.cert, key_path, pem, key)
    elif key_path.resolve() == target.resolve():
        # One file for both: the key stays as it was, byte for byte.
        kept = b"".join(files.private_key_blocks(files.read(key_path)))
        files.renew(target, kept + pem, holds_key=True)
    else:
        files.renew(target, pem)


def _is_in_place(arguments: argparse.Namespace) -> bool:
    """Whether the new certificate replaces the old one; `-o` may name the same file."""
    return arguments.out is None or bool(arguments.out.resolve() == arguments.cert.resolve())


def _chain(path: Path, certificate: x509.Certificate, report: Report) -> list[x509.Certificate]:
    """The chain behind the old certificate in its file, if it fits the new one.

    The answer has the issued certificate alone (RFC 7030 4.2.3), and readers of the file may need the chain.
    """
    chain = files.certificates(path)[1:]
    if chain and not trust.is_signed_by(certificate, chain[0]):
        report.say(f"{path}: the chain behind the old certificate does not fit the new one and is left out.")
        return []
    return chain


def ready(arguments: argparse.Namespace, session: Session, report: Report) -> bytes | RequestMaker:
    """The request of `-R SCRIPT` or `--csr FILE`."""
    if arguments.script is not None:
        url = session.place.url(arguments.operation)

        def make(binding: Binding | None) -> bytes:
            made = script.run(arguments.script, None if arguments.no_pop else binding, url, arguments.timeout)
            if arguments.require_pop and (binding is None or not _is_linked(made, binding)):
                raise ClientError(f"{arguments.script} did not put the channel binding into the CSR (--require-pop)")
            return made

        return make
    if arguments.require_pop:
        raise ClientError("a finished CSR can't be linked to the connection (--require-pop): use -R or --new-key")
    if not arguments.no_pop:
        report.say("A finished CSR can't be linked to the connection (RFC 7030 3.5); it is sent without a link.")
    return options.request(arguments.csr)


def linked(plan: Plan, key: PrivateKeyTypes, arguments: argparse.Namespace) -> RequestMaker:
    """A maker that signs a new CSR for every connection."""

    def make(binding: Binding | None) -> bytes:
        return request.build(plan, key, claimed(arguments, binding))

    return make


def claimed(arguments: argparse.Namespace, binding: Binding | None) -> Binding | None:
    """The binding for a request: the connection's, or none with `--no-pop`."""
    if binding is None and arguments.require_pop:
        raise ClientError("this connection has no channel binding (--require-pop)")
    return None if arguments.no_pop else binding


def follow(arguments: argparse.Namespace, session: Session, wanted: Wanted, report: Report) -> Plan:
    """A plan for the CSR that follows /csrattrs, unless `--no-csrattrs` is given (RFC 7030 4.5: clients ask first)."""
    attrs = None
    try:
        attrs = None if arguments.no_csrattrs else session.csrattrs()
    except (Refused, ServerFailed, InvalidAnswer) as fault:
        if not isinstance(fault, Refused) or fault.http_status not in _HAVE_NO_CSRATTRS:
            report.say("The request for CSR attributes failed; --no-csrattrs skips it.")
            raise
        report.say(f"Warning: csrattrs at {fault.url}: {fault}\nGoing on as if the server asked for no CSR attribute.")
    plan = request.plan(wanted, attrs)
    for note in plan.notes:
        report.detail(note)
    return plan


def choose(asked: str | None, plan: Plan) -> keys.KeySpec:
    """The kind of key to make: the user's, or for `auto` the server's."""
    if asked is None or asked == "auto":
        return plan.key or keys.parse_spec(keys.DEFAULT)
    spec = keys.parse_spec(asked)
    if plan.key is not None and plan.key != spec:
        raise ClientError(
            f"the server wants a key {plan.key}, not {spec}; --no-csrattrs enrols with {spec} all the same"
        )
    return spec


def _send(session: Session, attempt: Attempt, arguments: argparse.Namespace, report: Report) -> x509.Certificate:
    def once() -> x509.Certificate:
        try:
            return attempt()
        finally:
            connecting.describe(session, report)
            session.close()  # the next try uses a new connection and a new binding (RFC 7030 4.2.3)

    return waiting.until_done(once, arguments.wait, report)


def key_path_of(arguments: argparse.Namespace) -> Path:
    """The file for a new key: `--key-out`, or beside `-o`; never stdout."""
    if arguments.key_out is not None:
        return Path(arguments.key_out)
    if arguments.out is None:
        raise UsageError("a new key needs a file: --key-out FILE, or -o FILE for both")
    path = Path(arguments.out)
    return path.with_suffix(".key") if path.suffix != ".key" else path.with_name(path.name + ".key")


def _is_linked(made: bytes, binding: Binding) -> bool:
    try:
        parsed = csr.parse(made)
        claims = [parsed.text_attribute(oid) for oid in (CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)]
    except Malformed:
        return False
    return any(claim is not None and binding.matches(claim) for claim in claims)
