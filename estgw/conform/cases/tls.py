"""TLS (RFC 7030 3.3 as updated by RFC 8996)."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.conform import handshake, hello
from estgw.conform.case import Case
from estgw.conform.model import Level, failed, noted, skipped, warned
from estgw.conform.probe import Probe
from estgw.est import certs

_MINIMUM_BITS = 2048
_LONGEST_SERIAL = 20
"""Octets (RFC 5280 4.1.2.2)."""


def plain(probe: Probe) -> str:
    """T1."""
    place = probe.setup.place
    probe.transcript.add(f"> GET {probe.target('cacerts')} without TLS")
    heard = hello.plain_http(place, probe.target("cacerts"), probe.setup.timeout)
    probe.transcript.add(f"< {heard[:80].decode('latin-1')}")
    words = heard.partition(b"\r\n")[0].decode("latin-1")
    if heard.startswith(b"HTTP/1.") and heard[9:10] == b"2":
        raise failed(f"plain HTTP is answered with {words}")
    return f"plain HTTP: {words}" if heard.startswith(b"HTTP/1.") else "plain HTTP gets no HTTP answer"


def old_versions(probe: Probe) -> str:
    """T2."""
    seen = []
    for version in (hello.TLS10, hello.TLS11):
        heard = _say(probe, version, hello.USUAL_SUITES)
        if heard.version is not None and heard.version <= hello.TLS11:
            raise failed(f"the server speaks {hello.NAMES.get(heard.version, hex(heard.version))}")
        seen.append(f"{hello.NAMES[version]}: {heard.words or 'refused'}")
    return "; ".join(seen)


def versions(probe: Probe) -> str:
    """T2."""
    found = handshake.versions(probe)
    if not found:
        raise failed("neither TLS 1.2 nor 1.3")
    raise noted(f"TLS {' and '.join(found)}")


def resume(probe: Probe) -> str:
    """T3."""
    seen = [f"{name}: {handshake.resumes(probe.setup, version)}" for name, version in handshake.VERSIONS.items()]
    if any(each.endswith(": yes") for each in seen):
        return "; ".join(seen)
    raise warned(f"sessions are not resumed ({'; '.join(seen)}); clients make full handshakes instead")


def server_cert(probe: Probe) -> str:
    """T4, T6: the path has been validated in the handshake; this looks at the certificate itself."""
    with probe.line() as line:
        verdict = line.connected.verdict
    certificate = verdict.certificate
    probe.transcript.add(*certificate.public_bytes(Encoding.PEM).decode().splitlines())
    broken = [*_broken(certificate)]
    if broken:
        raise failed("the server's certificate: " + "; ".join(broken))
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left.days < 1:
        raise warned("the server's certificate ends in less than a day")
    by = "its name" if verdict.by == "name" else "id-kp-cmcRA"
    return f"valid for {left.days} days, authorized by {by}"


def _broken(certificate: x509.Certificate) -> list[str]:
    found = []
    if certificate.version is not x509.Version.v3:
        found.append("it is not of version 3")
    if certificate.serial_number <= 0 or certificate.serial_number.bit_length() > 8 * _LONGEST_SERIAL - 1:
        found.append("its serial number is not positive with at most 20 octets (RFC 5280 4.1.2.2)")
    try:
        if isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5):
            found.append(f"it is signed with {certificate.signature_hash_algorithm.name.upper()}")
        key = certificate.public_key()
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MINIMUM_BITS:
            found.append(f"its RSA key has {key.key_size} bits")
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.digital_signature:
            found.append("its key usage lacks digitalSignature, and the handshake is signed (RFC 8446 4.4.2.2)")
    except x509.ExtensionNotFound:
        pass
    except (*certs.UNREADABLE, UnsupportedAlgorithm) as fault:
        found.append(f"it can't be read: {fault}")
    return found


def asks_client(probe: Probe) -> str:
    """T7."""
    seen = []
    for version in handshake.versions(probe):
        is_asked = handshake.asks_for_certificate(probe.setup, handshake.VERSIONS[version])
        probe.transcript.add(f"* handshake of TLS {version}: {'a' if is_asked else 'no'} CertificateRequest")
        if not is_asked:
            raise failed(f"TLS {version}: no CertificateRequest in the handshake")
        seen.append(f"TLS {version}: yes")
    if not seen:
        raise skipped("no handshake")
    return "CertificateRequest: " + ", ".join(seen)


def weak_suites(probe: Probe) -> str:
    """T13."""
    heard = _say(probe, hello.TLS12, tuple(hello.WEAK_SUITES))
    if heard.suite is not None:
        raise failed(f"the server takes {hello.WEAK_SUITES.get(heard.suite, hex(heard.suite))}")
    return f"offered alone, they get {heard.words}"


def renegotiate(probe: Probe) -> str:
    """T16."""
    heard = _say(probe, hello.TLS12, hello.USUAL_SUITES)
    if heard.version is None:
        return f"no TLS 1.2 with these suites ({heard.words}), so nothing to renegotiate"
    if not hello.has_secure_renegotiation(heard):
        raise warned("the ServerHello of TLS 1.2 lacks renegotiation_info (RFC 5746 3.6)")
    renegotiates = handshake.renegotiates(probe.setup)
    return "RFC 5746; a renegotiation is " + ("done" if renegotiates else "refused")


def _say(probe: Probe, version: int, suites: tuple[int, ...]) -> hello.Heard:
    probe.transcript.add(
        f"> ClientHello of {hello.NAMES[version]}, suites {' '.join(f'{each:04x}' for each in suites)}"
    )
    heard = hello.say(probe.setup.place, version, suites, probe.setup.timeout)
    if heard.version is None:
        probe.transcript.add(f"< {heard.words}")
    else:
        probe.transcript.add(f"< ServerHello of {hello.NAMES.get(heard.version, '')}, suite {heard.suite or 0:04x}")
    return heard


CASES = (
    Case("plain", "tls", Level.MUST, "RFC 7030 3.3", ("T1", "A2"),
         "The port answers no EST request without TLS.", plain),
    Case("old-versions", "tls", Level.MUST, "RFC 8996 6", ("T2",),
         "A ClientHello of TLS 1.0 and of TLS 1.1 is refused.", old_versions),
    Case("versions", "tls", Level.INFO, "RFC 7030 3.3, RFC 8996", ("T2",),
         "TLS 1.2 or 1.3 or both.", versions),
    Case("resume", "tls", Level.SHOULD, "RFC 7030 3.3", ("T3",),
         "A session is resumed on a second connection.", resume),
    Case("server-cert", "tls", Level.MUST, "RFC 7030 3.3.1, RFC 5280", ("T4", "T6"),
         "The server's certificate follows RFC 5280 and fits the handshake.", server_cert),
    Case("asks-client", "tls", Level.MUST, "RFC 7030 3.3.2", ("T7",),
         "The handshake asks for a client certificate.", asks_client),
    Case("weak-suites", "tls", Level.MUST, "RFC 7030 3.2.3, 6", ("T13",),
         "NULL, anonymous, EXPORT and DES suites, offered alone, are refused.", weak_suites),
    Case("renegotiate", "tls", Level.SHOULD, "RFC 7030 3.5, RFC 5746 3.6", ("T16",),
         "The ServerHello of TLS 1.2 has renegotiation_info, or there is no TLS 1.2.", renegotiate),
)  # fmt: skip
