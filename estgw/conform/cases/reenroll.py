"""/simplereenroll (RFC 7030 4.2.2)."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from cryptography.x509.oid import NameOID

from estgw.client import keys
from estgw.client.transport.tls import Identity
from estgw.conform import checks, csrs, facts
from estgw.conform.case import Case
from estgw.conform.csrs import Wish
from estgw.conform.facts import NAME, Enrolment
from estgw.conform.model import Level, Need, failed, noted, skipped, warned
from estgw.conform.probe import Form, Probe
from estgw.est import certs, names
from estgw.est.csr import CHANGE_SUBJECT_NAME
from estgw.est.csrattrs import AttributeWish
from estgw.est.der import SEQUENCE, wrap

_OTHER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "estgw-conform-another")])


def renewal(probe: Probe, identity: Identity) -> Wish:
    """A CSR that renews a certificate: the same names, the same key, linked as this server lets us."""
    san = certs.san(identity.certificate)
    linking = None if probe.way.is_linked else csrs.unlinked
    return Wish(identity.certificate.subject, identity.key, tuple(san or ()), linking=linking, is_fixed=True)


def send(probe: Probe, wish: Wish, identity: Identity) -> Enrolment:
    """Send a renewal over TLS with the certificate, and with the password too where the server wants both."""
    done = facts.enrol(probe, wish, Form("simplereenroll", identity=identity, with_login=False))
    if done.reply.status == 401 and probe.login.is_usable:
        return facts.enrol(probe, wish, Form("simplereenroll", identity=identity))
    return done


def renew(probe: Probe) -> str:
    """E14."""
    identity = facts.own(probe)
    wish = renewal(probe, identity)
    done = probe.once("renewed", lambda probe: send(probe, wish, identity))
    if done.reply.is_refusal:
        raise warned(f"a renewal with the same key is refused: {done.reply}; a CA may want new keys")
    checks.issued(done, wish)
    return "200 for the same key"


def rekey(probe: Probe) -> str:
    """E14."""
    identity = facts.own(probe)
    wish = replace(renewal(probe, identity), key=keys.generate(keys.spec_of(identity.key)))
    done = send(probe, wish, identity)
    if done.reply.is_refusal:
        raise failed(f"a renewal with a new key: {done.reply}")
    checks.issued(done, wish)
    return "200 for a new key"


def subject(probe: Probe) -> str:
    """E11."""
    identity = _renewable(probe, facts.own(probe))
    done = send(probe, replace(renewal(probe, identity), subject=_OTHER), identity)
    return _kept(done, identity, "the CSR has another subject than the certificate")


def san_added(probe: Probe) -> str:
    """E11."""
    identity = _renewable(probe, facts.own(probe))
    wish = renewal(probe, identity)
    done = send(probe, replace(wish, san=(*wish.san, x509.DNSName(f"added.{NAME}"))), identity)
    return _kept(done, identity, "the CSR adds a DNS name to the certificate's")


def san_removed(probe: Probe) -> str:
    """E11."""
    identity = _renewable(probe, facts.named(probe))
    done = send(probe, replace(renewal(probe, identity), san=()), identity)
    return _kept(done, identity, "the CSR lacks the DNS name of the certificate")


def _kept(done: Enrolment, identity: Identity, what: str) -> str:
    """A renewal for other names has to be refused; one that keeps the old names is the lesser fault."""
    new, old = done.certificate, identity.certificate
    if new is not None and _same_names(new, old):
        raise warned(f"{what}, and the server issues a certificate for the old names without a word")
    return checks.refused(done.reply, what)


def _same_names(one: x509.Certificate, other: x509.Certificate) -> bool:
    return names.name_key(one.subject) == names.name_key(other.subject) and names.san_key(
        certs.san(one)
    ) == names.san_key(certs.san(other))


def change_name(probe: Probe) -> str:
    """E12, E13."""
    identity = _renewable(probe, facts.own(probe))
    value = wrap(SEQUENCE, _OTHER.public_bytes())
    wish = replace(renewal(probe, identity), attributes=(AttributeWish(CHANGE_SUBJECT_NAME, (value,)),))
    done = send(probe, wish, identity)
    if done.reply.status != 200:
        raise noted(f"ChangeSubjectName is refused: {done.reply}")
    certificate = checks.issued(done)
    if names.name_key(certificate.subject) != names.name_key(_OTHER):
        raise warned(f"ChangeSubjectName is ignored: the new certificate is for {names.dn_text(certificate.subject)}")
    if certs.san(certificate) is not None:
        raise warned("the new certificate has a SAN; without subjectAlt it has none (RFC 6402 2.8)")
    return "200, and the new certificate has the new name"


def other_ca(probe: Probe) -> str:
    """Z5, T8."""
    identity = probe.setup.other
    assert identity is not None
    wish = renewal(probe, identity)
    form = Form("simplereenroll", identity=identity, with_login=False)
    return checks.refusal_or_end(lambda: facts.enrol(probe, wish, form).reply, "the certificate is another CA's")


def password_only(probe: Probe) -> str:
    """E15."""
    identity = facts.own(probe)
    done = facts.enrol(probe, renewal(probe, identity), Form("simplereenroll"))
    raise noted(f"a renewal by password, without the certificate: {done.reply}")


def _renewable(probe: Probe, identity: Identity) -> Identity:
    """A refusal of a wrong renewal proves nothing where a right one is refused too."""
    wish = renewal(probe, identity)
    name = f"renews {identity.certificate.serial_number}"
    kept = len(probe.transcript.lines)
    done = probe.once(name, lambda probe: send(probe, replace(wish, key=keys.generate(csrs.DEFAULT_KEY)), identity))
    del probe.transcript.lines[kept:]
    if done.reply.status != 200:
        raise skipped(f"a plain renewal is answered with {done.reply}: see reenroll.rekey")
    return identity


_ALL = (Need.ISSUE, Need.LOGIN)
CASES = (
    Case("renew", "reenroll", Level.MUST, "RFC 7030 4.2.2", ("E14", "E1", "T7", "U8"),
         "A renewal with the same key is answered with a certificate, or refused by policy.", renew, _ALL),
    Case("rekey", "reenroll", Level.MUST, "RFC 7030 4.2.2", ("E14", "T7"),
         "A renewal with a new key is answered with a certificate for that key.", rekey, _ALL),
    Case("subject", "reenroll", Level.MUST, "RFC 7030 4.2.2", ("E11",),
         "A renewal with another subject is refused.", subject, _ALL),
    Case("san-added", "reenroll", Level.MUST, "RFC 7030 4.2.2", ("E11",),
         "A renewal with one more DNS name is refused.", san_added, _ALL),
    Case("san-removed", "reenroll", Level.MUST, "RFC 7030 4.2.2", ("E11",),
         "A renewal without the certificate's DNS name is refused.", san_removed, _ALL),
    Case("change-name", "reenroll", Level.SHOULD, "RFC 7030 4.2.2, RFC 6402 2.8", ("E12", "E13"),
         "ChangeSubjectName changes the subject, or is refused.", change_name, _ALL),
    Case("other-ca", "reenroll", Level.MUST, "RFC 7030 3.7, 3.3.2", ("Z5", "T8"),
         "A certificate of a CA that the server does not trust renews nothing.", other_ca, (Need.ISSUE, Need.OTHER)),
    Case("password-only", "reenroll", Level.INFO, "RFC 7030 2.3", ("E15",),
         "A renewal by password, without the old certificate, is the server's choice.", password_only,
         (Need.ISSUE, Need.PASSWORD)),
)  # fmt: skip
