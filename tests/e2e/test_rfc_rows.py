"""Rows of rfc_coverage.md that no other test checks on the wire. Each test begins with the id of its row."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from tests.kit.ca import common_name
from tests.kit.connection import EST, V12
from tests.kit.csr import csr
from tests.kit.der import INTEGER, SEQUENCE, oid, tlv
from tests.kit.keys import KEY

GOOD = csr()


def test_u2_the_mandatory_operations_are_served(gateway, device):
    assert gateway.get(f"{EST}/cacerts").status == 200
    assert gateway.post(f"{EST}/simpleenroll", GOOD).status == 200
    assert gateway.post(f"{EST}/simplereenroll", GOOD, login=None, certificate=device).status == 200


def test_u6_requests_with_and_without_a_label_are_served(gateway, device):
    for place in (EST, f"{EST}/python"):
        assert gateway.get(f"{place}/cacerts").status == 200
        assert gateway.get(f"{place}/csrattrs").status == 200
        assert gateway.post(f"{place}/simpleenroll", GOOD).status == 200
        assert gateway.post(f"{place}/simplereenroll", GOOD, login=None, certificate=device).status == 200


def test_u8_the_path_alone_decides_between_enroll_and_renew(gateway, device):
    other = csr("device-2")
    assert gateway.post("simpleenroll", other, login=None, certificate=device).status == 200
    assert gateway.post("simplereenroll", other, login=None, certificate=device).status == 403


@pytest.mark.parametrize(
    ("path", "login"),
    [("simpleenroll", None), ("simpleenroll", "estuser:wrong"), ("python/simpleenroll", None), ("fullcmc", None)],
)
def test_a4_every_401_has_a_challenge(gateway, path, login):
    headers = {"Content-Type": "application/pkcs7-mime"} if path == "fullcmc" else {}
    answer = gateway.post(path, GOOD, login=login, headers=headers)
    assert answer.status == 401
    assert str(answer.header("WWW-Authenticate")).startswith("Basic realm=")


def test_a3_a_client_with_a_certificate_gets_no_challenge(gateway, device):
    for operation in ("simpleenroll", "simplereenroll"):
        answer = gateway.post(operation, GOOD, login=None, certificate=device)
        assert (answer.status, answer.header("WWW-Authenticate"), answer.header("Set-Cookie")) == (200, None, None)


@pytest.mark.parametrize("operation", ["cacerts", "csrattrs"])
def test_z6_cacerts_and_csrattrs_need_no_login(gateway, operation):
    answer = gateway.get(operation)
    assert (answer.status, answer.header("WWW-Authenticate")) == (200, None)


def test_k3_cacerts_is_signed_data_without_signers(gateway):
    """RFC 5652 5.1: version 1, no digests, id-data without content, certificates, no signers. The encoding is DER."""
    der = gateway.get("cacerts").der
    bag = [one.public_bytes(Encoding.DER) for one in pkcs7.load_der_pkcs7_certificates(der)]
    nothing, data, signed_data = tlv(0x31), oid("1.2.840.113549.1.7.1"), oid("1.2.840.113549.1.7.2")
    signed = tlv(SEQUENCE, tlv(INTEGER, b"\x01"), nothing, tlv(SEQUENCE, data),
                     tlv(0xA0, *bag), nothing)  # fmt: skip
    assert der == tlv(SEQUENCE, signed_data, tlv(0xA0, signed))


@pytest.mark.parametrize("encoding", ["base64", "binary", "7bit", "quoted-printable", "x-nonsense", "", None])
@pytest.mark.parametrize("body", [base64.b64encode(GOOD), GOOD], ids=["base64", "DER"])
def test_e3_the_header_content_transfer_encoding_is_ignored(gateway, encoding, body):
    answer = gateway.post("simpleenroll", body, headers={"Content-Transfer-Encoding": encoding})
    assert answer.certificate.public_key() == KEY.public_key()


@pytest.mark.parametrize(
    "body",
    {
        "one line": base64.b64encode(GOOD),
        "64 columns": b"".join(base64.b64encode(GOOD)[at : at + 64] + b"\n" for at in range(0, 1000, 64)).strip(),
        "76 columns and CRLF": base64.encodebytes(GOOD).replace(b"\n", b"\r\n"),
        "blanks around": b" \t\r\n" + base64.b64encode(GOOD) + b"\r\n \t\n",
        "tabs and spaces inside": base64.encodebytes(GOOD).replace(b"\n", b"\t \n"),
        "carriage returns alone": base64.encodebytes(GOOD).replace(b"\n", b"\r"),
    }.items(),
    ids=lambda item: item[0],
)
def test_e4_white_space_inside_base64_is_accepted(gateway, body):
    assert gateway.post("simpleenroll", body[1]).certificate.public_key() == KEY.public_key()


def test_e6_a_flipped_bit_in_the_signature_is_refused(gateway):
    before = gateway.lab.books()
    answer = gateway.post("simpleenroll", GOOD[:-1] + bytes([GOOD[-1] ^ 1]))
    assert (answer.status, answer.words) == (400, "The CSR's signature does not fit its key.")
    assert gateway.lab.books() == before


USAGE = {"digital_signature": False, "content_commitment": False, "key_encipherment": True, "data_encipherment": False,
         "key_agreement": False, "key_cert_sign": False, "crl_sign": False, "encipher_only": False,
         "decipher_only": False}  # fmt: skip


@pytest.mark.parametrize("label", ["", "python/"], ids=["openssl", "python"])
def test_e7_a_csr_without_digital_signature_usage_is_certified(gateway, label):
    certificate = gateway.post(f"{label}simpleenroll", csr("device-1", x509.KeyUsage(**USAGE))).certificate
    gateway.lab.verify(certificate)


@pytest.mark.parametrize("label", ["", "python/"], ids=["openssl", "python"])
@pytest.mark.parametrize("critical", [False, True], ids=["", "critical"])
def test_e8_an_unknown_extension_is_left_out(gateway, label, critical):
    wish = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.9900.1"), b"\x05\x00")
    host = x509.DNSName("device.example")
    builder = x509.CertificateSigningRequestBuilder(common_name("device-1"))
    builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    body = builder.add_extension(wish, critical=critical).sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    certificate = gateway.post(f"{label}simpleenroll", body).certificate
    found = {extension.oid: extension.value for extension in certificate.extensions}
    assert wish.oid not in found
    assert list(found[x509.SubjectAlternativeName.oid]) == [host]


def test_e10_one_certificate_can_enrol_several_times(gateway, device):
    issued = {gateway.post("simpleenroll", csr(name), login=None, certificate=device).certificate for name in "abc"}
    assert len(issued) == 3


def test_e25_no_path_is_answered_with_a_redirect(gateway):
    for path in ("", "/", "/cacerts/", "//cacerts", "/../est/cacerts", "/simpleenroll"):
        answer = gateway.get(f"{EST}{path}")
        assert (answer.status >= 400, answer.header("Location")) == (True, None)


def test_g15_a_refusal_is_plain_text(gateway):
    assert gateway.post("serverkeygen", GOOD).words == "serverkeygen is not switched on here."


def test_pop3_the_binding_of_an_earlier_connection_is_refused(gateway):
    """A new connection has a new binding."""
    with gateway.connect(version=V12) as first:
        value = base64.b64encode(first.tls_unique).decode()
    answer = gateway.post("simpleenroll", csr(challenge=value), version=V12)
    assert (answer.status, "tls-unique" in answer.words) == (400, True)


def test_x1_answers_are_base64_with_any_header(gateway):
    for headers in ({}, {"Content-Transfer-Encoding": "binary"}, {"Accept-Encoding": "gzip"}):
        for answer in (gateway.get("cacerts", headers=headers), gateway.post("simpleenroll", GOOD, headers=headers)):
            assert answer.der[:1] == b"\x30"
            assert answer.header("Content-Transfer-Encoding") == "base64"
            assert answer.header("Content-Encoding") is None


def test_x3_a_csr_in_ber_is_accepted(gateway):
    """The outermost length is indefinite, or longer than necessary: BER is enough (RFC 5967 2.1)."""
    body = GOOD[3:]
    assert GOOD[:2] == b"\x30\x81"
    for ber in (b"\x30\x80" + body + b"\0\0", b"\x30\x84" + len(body).to_bytes(4, "big") + body):
        assert gateway.post("simpleenroll", ber).status == 200
    answer = gateway.post("simpleenroll", b"\x30\x80" + body)
    assert (answer.status, answer.words) == (400, "Not a PKCS#10 CSR: InvalidLength in its ASN.1.")
