"""Certificates and certs-only messages."""

from __future__ import annotations

import contextlib
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import certs, encoding
from tests.kit.ca import CLIENT_AUTH, broken_certificate, certificate, root
from tests.kit.csr import SAN, csr
from tests.kit.der import CN, UTF8, armoured, dn, extension, oid, tlv, vector
from tests.kit.keys import OTHER, key_pem

CA = root("CA")
LEAF = certificate(CA)
DUPLICATE_EKU = [extension("2.5.29.37", tlv(0x30, oid("1.3.6.1.5.5.7.3.28")))] * 2
X400_SAN = [extension(SAN, tlv(0x30, tlv(0xA3, tlv(0x30))))]


def der(made: x509.Certificate) -> bytes:
    return made.public_bytes(Encoding.DER)


def broken(*extensions: bytes) -> x509.Certificate:
    return certs.load(broken_certificate(CA, dn((CN, UTF8, b"x")), *extensions))


# The certs-only message.


def test_packed_certificates_are_unpacked():
    found = certs.unpack(certs.pack([LEAF, CA.certificate]))
    assert {der(each) for each in found} == {der(LEAF), der(CA.certificate)}


def test_openssl_reads_a_packed_certificate():
    command = ["openssl", "pkcs7", "-inform", "DER", "-print_certs"]
    printed = subprocess.run(command, input=certs.pack([LEAF]), capture_output=True, check=True).stdout
    assert certs.load_pem(printed) == [LEAF]


def test_a_packed_message_is_signed_data_without_signers():
    # RFC 5272 4.1: SignedData, version 1, no content, no signers.
    made = certs.pack([LEAF])
    assert b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02" in made[:20]
    assert b"\x02\x01\x01\x31\x00\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01" in made[:45]
    assert made.endswith(b"\x31\x00")


@pytest.mark.parametrize(
    ("file", "count"),
    [
        ("rfc7030-a1-cacerts-response.b64", 4),
        ("rfc7030-a3-simpleenroll-response.b64", 1),
        ("rfc7030-a4-serverkeygen-part2-certs.b64", 1),
    ],
)
def test_published_base64_messages_are_unpacked(file, count):
    assert len(certs.unpack(encoding.decode_base64(vector(file)))) == count


@pytest.mark.parametrize("file", ["rfc9148-a1-cacerts-response.der", "rfc9148-a2-enroll-response.der"])
def test_published_binary_messages_are_unpacked(file):
    assert len(certs.unpack(vector(file))) == 1


@pytest.mark.parametrize("data", [b"", b"junk", tlv(0x30), der(LEAF), vector("rfc9148-a2-enroll-request.der")])
def test_bytes_that_are_no_certs_only_message_are_refused(data):
    with pytest.raises(Malformed, match="certs-only"):
        certs.unpack(data)


# Single certificates.


def test_a_certificate_is_loaded_from_der():
    assert certs.load(der(LEAF)) == LEAF


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        der(LEAF)[:-1],
        der(LEAF) + b"\0",
        certs.pack([LEAF]),
        broken_certificate(CA, dn((CN, UTF8, b"x")), version=7),
    ],
)
def test_bytes_that_are_no_certificate_are_refused(data):
    with pytest.raises(Malformed, match="not a certificate"):
        certs.load(data)


@pytest.mark.parametrize("label", ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_load_pem_takes_every_certificate_in_order(label):
    text = armoured(der(LEAF), label) + key_pem(OTHER) + armoured(der(CA.certificate), "CERTIFICATE")
    assert certs.load_pem(text) == [LEAF, CA.certificate]
    assert certs.load_pem(b"nothing here") == []


def test_load_pem_refuses_a_certificate_block_with_other_contents():
    with pytest.raises(Malformed, match="not a certificate"):
        certs.load_pem(armoured(b"junk", "CERTIFICATE"))


@given(st.binary())
def test_any_bytes_are_read_or_malformed(data):
    for reader in (certs.load, certs.unpack, certs.load_pem):
        with contextlib.suppress(Malformed):
            reader(data)


# Fields of a certificate.


def test_has_eku_finds_cmc_ra():
    ra = certificate(CA, "CN=ra", x509.ExtendedKeyUsage([CLIENT_AUTH, certs.CMC_RA]))
    assert certs.CMC_RA.dotted_string == "1.3.6.1.5.5.7.3.28"
    assert certs.has_eku(ra, certs.CMC_RA)
    assert not certs.has_eku(certificate(CA, "CN=x", x509.ExtendedKeyUsage([CLIENT_AUTH])), certs.CMC_RA)
    assert not certs.has_eku(LEAF, certs.CMC_RA)


def test_san_is_returned_or_none():
    asked = x509.SubjectAlternativeName([x509.DNSName("host.example")])
    assert certs.san(certificate(CA, "CN=x", asked)) == asked
    assert certs.san(LEAF) is None


@pytest.mark.parametrize(
    "extensions", [DUPLICATE_EKU, X400_SAN, [extension("2.5.29.37", b"junk"), extension(SAN, b"junk")]]
)
def test_unreadable_extensions_confer_nothing(extensions):
    odd = broken(*extensions)
    assert not certs.has_eku(odd, certs.CMC_RA)
    assert not certs.may_authenticate(odd)
    assert certs.san(odd) is None


def test_spki_is_the_public_key_in_der():
    assert certs.spki(LEAF) == x509.load_der_x509_csr(csr()).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert certs.spki(certificate(CA, key=OTHER)) != certs.spki(LEAF)


def test_a_public_key_of_an_unknown_kind_is_refused():
    ec, unknown = oid("1.2.840.10045.2.1"), oid("1.2.840.10045.2.9")
    odd = certs.load(der(LEAF).replace(ec, unknown))
    with pytest.raises(Malformed, match="public key can't be read"):
        certs.spki(odd)


@pytest.mark.parametrize(
    ("serial", "text"),
    [(1, "01"), (0xABC, "0ABC"), (0x80, "80"), (1 << 158, "40" + "0" * 38), (0xDEADBEEF, "DEADBEEF")],
)
def test_a_serial_number_is_printed_as_openssl_does(serial, text):
    made = certificate(CA, serial=serial)
    assert certs.serial_hex(made) == text
    command = ["openssl", "x509", "-noout", "-serial"]
    printed = subprocess.run(command, input=made.public_bytes(Encoding.PEM), capture_output=True, check=True).stdout
    assert printed.decode().strip() == f"serial={text}"
