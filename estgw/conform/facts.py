"""What several cases look at, found out once: the CA's certificates, its CSR attributes, the first certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import keys, request
from estgw.client.faults import ClientError, InvalidAnswer
from estgw.client.request import Wanted
from estgw.client.transport import answers
from estgw.client.transport.tls import Identity
from estgw.conform import csrs
from estgw.conform.csrs import Maker, Wish
from estgw.conform.http import Reply
from estgw.conform.model import skipped
from estgw.conform.probe import PLAIN, Form, Probe, Way
from estgw.errors import Malformed
from estgw.est import certs, csr, csrattrs, encoding
from estgw.est.binding import Binding
from estgw.est.csrattrs import CsrAttrs

NAME = "device.estgw-conform.example"
"""The DNS name of the certificate with a subject alternative name (RFC 6761: example is nobody's)."""


@dataclass(frozen=True)
class Enrolment:
    """A request for a certificate and its answer."""

    reply: Reply
    der: bytes
    """The CSR."""
    key: PrivateKeyTypes = field(repr=False)

    @property
    def certificate(self) -> x509.Certificate | None:
        """The certificate for the CSR's key, or None."""
        if self.reply.status != 200:
            return None
        try:
            wanted = csr.parse(self.der).spki
            return next((each for each in answers.bag_of(self.reply.body) if certs.spki(each) == wanted), None)
        except (ClientError, Malformed):
            return None

    @property
    def identity(self) -> Identity | None:
        """Certificate and key for TLS, or None."""
        certificate = self.certificate
        return None if certificate is None else Identity(certificate, self.key)


# What the server says without being asked for a certificate.


def cacerts(probe: Probe) -> Reply:
    """The answer of /cacerts, with a login if the server wants one."""

    def find(probe: Probe) -> Reply:
        reply = probe.get("cacerts")
        if reply.status in (401, 403):
            probe.login.meet(reply)
            return probe.get("cacerts", with_login=True)
        return reply

    return probe.once("cacerts", find)


def bag(probe: Probe) -> list[x509.Certificate]:
    """The CA's certificates; a case that needs them is skipped when they can't be read."""
    reply = cacerts(probe)
    try:
        return answers.bag_of(reply.body) if reply.status == 200 else []
    except InvalidAnswer:
        raise skipped("the CA's certificates can't be read: see cacerts.form") from None


def attrs_reply(probe: Probe) -> Reply:
    """The answer of /csrattrs, with a login if the server wants one."""

    def find(probe: Probe) -> Reply:
        reply = probe.get("csrattrs")
        return probe.get("csrattrs", with_login=True) if reply.status in (401, 403) else reply

    return probe.once("csrattrs", find)


def attrs(probe: Probe) -> CsrAttrs | None:
    """The server's CSR attributes, or None when it has none or they can't be read."""
    kept = len(probe.transcript.lines)
    try:
        reply = attrs_reply(probe)
        found = csrattrs.decode_csrattrs(encoding.decode(reply.body, ())) if reply.status == 200 else None
        if found is not None:
            request.plan(Wanted(probe.setup.name(0)), found)
    except (ClientError, Malformed):
        return None
    finally:
        del probe.transcript.lines[kept:]  # not what the case is about
    return found


# Requests for certificates.


def key(probe: Probe, number: int = 0) -> PrivateKeyTypes:
    """A key of the kind that the server asks for; the same number is the same key."""

    def find(probe: Probe) -> PrivateKeyTypes:
        wanted = attrs(probe)
        plan = None if wanted is None else request.plan(Wanted(probe.setup.name(0)), wanted)
        return keys.generate(plan.key if plan is not None and plan.key is not None else csrs.DEFAULT_KEY)

    return probe.once(f"key {number}", find)


def wish(probe: Probe) -> Wish:
    """A CSR with the next name and the first key, linked as this server lets us."""
    return Wish(probe.name(), key(probe), linking=None if probe.way.is_linked else csrs.unlinked)


def maker(probe: Probe, wanted: Wish) -> Maker:
    """A maker of a CSR by the server's CSR attributes."""
    return csrs.maker(wanted, attrs(probe))


def enrol(probe: Probe, wanted: Wish | None = None, form: Form = PLAIN) -> Enrolment:
    """Send one CSR on a connection of its own."""
    wanted = wanted or wish(probe)
    make = maker(probe, wanted)
    made = b""

    def changed(binding: Binding | None) -> bytes:
        nonlocal made
        made = form.change(make(binding))
        return made

    reply = probe.post(changed, replace(form, change=lambda der: der))
    return Enrolment(reply, made, wanted.key)


def first(probe: Probe) -> Enrolment:
    """The first enrolment: linked, then without a link, then over TLS 1.2, until one is answered with 200 or 202.

    RFC 7030 3.5 names no binding for TLS 1.3, so a server may refuse the one of RFC 9266.
    """

    def find(probe: Probe) -> Enrolment:
        if probe.setup.is_read_only:
            raise skipped("it gets a certificate issued, and --read-only was given")
        tries = [Way(), Way(is_linked=False), Way("1.2")]
        done: Enrolment | None = None
        for way in tries:
            before, probe.way = probe.way, way
            try:
                done = enrol(probe)
            except ClientError:
                if done is None:
                    raise
                probe.way = before
                break
            if done.reply.is_success or not done.reply.is_refusal:
                return done
        probe.way = Way()
        assert done is not None
        return done

    return probe.once("first", find)


def require_enrolment(probe: Probe) -> None:
    """Skip a case that proves nothing where a plain enrolment does not work."""
    status = first(probe).reply.status
    if status != 200:
        raise skipped(f"a plain enrolment is answered with {status}: see enroll.issue")


def own(probe: Probe) -> Identity:
    """A certificate to renew: the one of the first enrolment, else --cert."""
    return _certificate(probe, first)


def named(probe: Probe) -> Identity:
    """A certificate with a DNS name as subject alternative name, freshly issued."""

    def find(probe: Probe) -> Enrolment:
        first(probe)
        return enrol(probe, replace(wish(probe), san=(x509.DNSName(NAME),)))

    found = _certificate(probe, lambda probe: probe.once("named", find))
    if certs.san(found.certificate) is None:
        raise skipped("the server issues certificates without the subject alternative name that was asked for")
    return found


def _certificate(probe: Probe, find: Callable[[Probe], Enrolment]) -> Identity:
    if probe.setup.is_read_only and probe.setup.identity is not None:
        return probe.setup.identity
    done = find(probe)
    if done.identity is not None:
        return done.identity
    if probe.setup.identity is not None:
        return probe.setup.identity
    raise skipped(f"simpleenroll gives no certificate ({done.reply}): see enroll.issue, or give --cert and --key")


def anonymous(probe: Probe) -> Enrolment:
    """A CSR sent without any credentials."""
    return probe.once("anonymous", lambda probe: enrol(probe, form=Form(with_login=False)))
