"""PKCS#10 requests: good ones, and every kind of bad one that a client may send."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import csr as csrs
from estgw.est import encoding
from estgw.est.csr import ATTRIBUTE_NAMES, CHALLENGE_PASSWORD, OTP_CHALLENGE, REVOCATION_CHALLENGE
from tests.kit.ca import certificate, name, root
from tests.kit.csr import EXTENSION_REQUEST, SAN, challenge, csr, extension_request, san
from tests.kit.der import (
    BIT_STRING,
    BMP,
    BOOLEAN,
    CN,
    IA5,
    OCTETS,
    PRINTABLE,
    SEQUENCE,
    SET,
    T61,
    UNIVERSAL,
    UTF8,
    armoured,
    attribute,
    dn,
    extension,
    oid,
    tlv,
    vector,
)
from tests.kit.keys import KEY, MD5_RSA, OTHER, SHA1_ECDSA, SHA1_RSA, SHA256_ECDSA, rsa_key

CA = root("CA")
GOOD = csr("device-1", san(x509.DNSName("host.example")))


def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def broken_signature(der: bytes) -> bytes:
    """The same request with one bit of its subject changed."""
    return der.replace(b"device-1", b"device-0", 1)


# Reading.


@pytest.mark.parametrize(
    "body",
    [
        GOOD,
        base64.b64encode(GOOD),
        base64.encodebytes(GOOD),
        base64.encodebytes(GOOD).replace(b"\n", b"\r\n"),
        armoured(GOOD),
        armoured(GOOD, "NEW CERTIFICATE REQUEST"),
        GOOD + b"\r\n",
    ],
)
def test_a_csr_in_any_encoding_is_the_same_request(body):
    assert csrs.parse(body).der == GOOD


def test_subject_san_attributes_and_digests_are_read():
    found = csrs.parse(csr("device-1", challenge("secret"), san(x509.DNSName("host.example"))))
    assert found.subject.rfc4514_string() == "CN=device-1"
    assert found.san == x509.SubjectAlternativeName([x509.DNSName("host.example")])
    assert found.attributes.keys() == {CHALLENGE_PASSWORD, EXTENSION_REQUEST}
    assert found.sha256 == hashlib.sha256(found.der).hexdigest()
    assert found.spki == spki_of(KEY)
    assert found.spki_sha256 == hashlib.sha256(spki_of(KEY)).hexdigest()
    assert encoding.pem_blocks(found.pem) == [encoding.PEMBlock("CERTIFICATE REQUEST", found.der)]


def test_a_csr_without_attributes_has_no_san():
    found = csrs.parse(csr())
    assert (found.san, dict(found.attributes)) == (None, {})


def test_a_csr_made_by_cryptography_is_read():
    builder = x509.CertificateSigningRequestBuilder(name("CN=x")).add_attribute(
        x509.ObjectIdentifier(CHALLENGE_PASSWORD), b"secret"
    )
    found = csrs.parse(builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER))
    csrs.verify(found)
    assert found.text_attribute(CHALLENGE_PASSWORD) == "secret"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "the body is empty"),
        (b"\r\n", "the body is empty"),
        (b"not base64!", "not base64"),
        (base64.b64encode(GOOD)[:-3], "truncated base64"),
        (base64.b64encode(GOOD[:-1]), "cut off: 1 bytes are missing"),
        (base64.b64encode(b"any old junk"), "not a DER SEQUENCE"),
        (base64.b64encode(b"0" + bytes(60)), "59 bytes too many"),
        (base64.b64encode(tlv(SEQUENCE, bytes(60))), "not a PKCS#10 CSR"),
        (GOOD + b"\0", "1 bytes too many after the end"),
        (GOOD + GOOD, "bytes too many"),
        (GOOD[:-10], "10 bytes are missing"),
        (b"0", "truncated base64"),
        (b"\x30\x80" + bytes(20), "not a PKCS#10 CSR"),
        (armoured(GOOD, "CERTIFICATE"), "PEM block CERTIFICATE REQUEST is wanted"),
        (certificate(CA).public_bytes(Encoding.DER), "not a PKCS#10 CSR"),
        (csr(version=1), "version"),
        (csr(dn((CN, BOOLEAN, b"\xff"))), "not a PKCS#10 CSR"),
        (csr(dn((CN, UTF8, b"\xff"))), "not a PKCS#10 CSR"),
        (csr(tlv(SEQUENCE, tlv(SET))), "relative distinguished name"),
        (csr("x", attribute(EXTENSION_REQUEST)), "single-valued"),
        (csr("x", attribute(EXTENSION_REQUEST, tlv(SEQUENCE), tlv(SEQUENCE))), "single-valued"),
        (csr("x", extension_request(extension(SAN, b"junk"))), "not a PKCS#10 CSR"),
        (csr("x", extension_request(*[extension(SAN, tlv(SEQUENCE, tlv(0x82, b"a")))] * 2)), "Duplicate"),
        (csr("x", extension_request(extension(SAN, tlv(SEQUENCE, tlv(0xA3, tlv(SEQUENCE)))))), "x400Address"),
        (csr("x", extension_request(extension(SAN, tlv(SEQUENCE, tlv(0xA5))))), "EDIPartyName"),
        (csr("x", tlv(SEQUENCE, oid("1.2.3"))), "not a PKCS#10 CSR"),
        (csr("x", attribute("1.2.3"), attribute("1.2.3", tlv(OCTETS, b"2"))), "attribute 1.2.3 twice"),
        (csr("x", san(x509.DNSName("a")), challenge("a"), shuffled=True), "Ordering"),
        (csr("x", challenge("a"), challenge("b")), "attribute challengePassword twice"),
        (csr("x", attribute("1.2.3", *(tlv(OCTETS, b"%03d" % n) for n in range(101)))), "1.2.3 has more than 100"),
    ],
)  # fmt: skip
def test_a_malformed_csr_is_refused_with_the_reason(body, words):
    with pytest.raises(Malformed, match=words) as refusal:
        csrs.parse(body)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 300


@given(st.binary(max_size=300))
@example(b"0\x82")
@example(b"0\x84\xff\xff\xff\xff")
def test_any_bytes_are_malformed(body):
    with pytest.raises(Malformed):
        csrs.parse(body)


_RICH = csr(
    dn((CN, UTF8, b"device-1"), ("2.5.4.10", PRINTABLE, b"Ours")),
    challenge("AAECAwQFBgcICQoL"),
    san(x509.DNSName("host.example"), x509.RFC822Name("a@b.example")),
)


@given(st.integers(0, len(_RICH) - 1), st.integers(0, 255), st.integers(0, 3))
def test_a_csr_with_changed_bytes_is_refused_or_verifies_unchanged(at, value, more):
    spoilt = bytearray(_RICH)
    spoilt[at : at + 1] = bytes([value]) * (1 + more)
    try:
        found = csrs.parse(bytes(spoilt))
        csrs.require_subject(found)
        for oid in ATTRIBUTE_NAMES:
            found.text_attribute(oid)
        csrs.change_subject_name(found)
        assert found.pem and len(found.spki_sha256) == 64
        csrs.verify(found)
    except Malformed:
        return
    # A request that verifies has the signed content. Only the encoding of the signature may differ.
    assert found.request.tbs_certrequest_bytes == csrs.parse(_RICH).request.tbs_certrequest_bytes


# The library warns about such names, but we accept them.


@pytest.mark.parametrize("text", [b"a" * 100, b""])
def test_a_common_name_of_any_length_is_accepted(text):
    assert len(csrs.parse(csr(dn((CN, UTF8, text)))).subject.rdns) == 1


# Proof of possession.


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_csrs_of_every_accepted_curve_are_verified(key):
    csrs.verify(csrs.parse(csr(key=key)))


def test_a_csr_with_rsa_of_2048_bits_is_verified():
    csrs.verify(csrs.parse(csr(key=rsa_key(2048))))


def modern_csr(key: ed448.Ed448PrivateKey | mldsa.MLDSA44PrivateKey) -> bytes:
    request = x509.CertificateSigningRequestBuilder(name("CN=x")).sign(key, None)
    return request.public_bytes(Encoding.DER)


def test_a_csr_with_ed448_is_verified():
    csrs.verify(csrs.parse(modern_csr(ed448.Ed448PrivateKey.generate())))


def test_a_csr_with_ml_dsa_is_verified():
    try:
        body = modern_csr(mldsa.MLDSA44PrivateKey.generate())
    except Exception as fault:  # noqa: BLE001 - any exception means that this OpenSSL has no ML-DSA
        pytest.skip(f"no ML-DSA here: {fault}")
    csrs.verify(csrs.parse(body))


@pytest.mark.parametrize("key", [KEY, ed25519.Ed25519PrivateKey.generate()])
def test_a_changed_csr_is_refused(key):
    with pytest.raises(Malformed, match="signature does not fit its key"):
        csrs.verify(csrs.parse(broken_signature(csr("device-1", key=key))))


def test_a_csr_signed_by_another_key_is_refused():
    with pytest.raises(Malformed, match="signature does not fit its key"):
        csrs.verify(csrs.parse(csr(spki=spki_of(OTHER))))


def test_rsa_of_1024_bits_is_refused():
    with pytest.raises(Malformed, match="an RSA key of 1024 bits; 2048 is the least"):
        csrs.verify(csrs.parse(csr(key=rsa_key(1024))))


def test_an_rsa_key_beyond_the_bound_is_refused_without_verification():
    numbers = rsa.RSAPublicNumbers(65537, (1 << 16400) + 1)
    spki = numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Malformed, match="an RSA key of 16401 bits"):
        csrs.verify(csrs.parse(csr(spki=spki)))


def test_p_192_is_refused():
    with pytest.raises(Malformed, match=r"an EC key of 192 bits; 224 is the least|can't be used"):
        csrs.verify(csrs.parse(csr(key=ec.generate_private_key(ec.SECP192R1()))))


def test_a_dsa_key_is_refused():
    with pytest.raises(Malformed, match="a DSA key"):
        csrs.verify(csrs.parse(csr(key=dsa.generate_private_key(1024))))


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [(SHA1_RSA, "signed with SHA1; use SHA-256"), (MD5_RSA, "signed with MD5; use SHA-256")],
)
def test_an_rsa_signature_with_a_weak_hash_is_refused(algorithm, words):
    with pytest.raises(Malformed, match=words):
        csrs.verify(csrs.parse(csr(key=rsa_key(2048), algorithm=algorithm)))


def test_an_ecdsa_signature_with_sha_1_is_refused():
    with pytest.raises(Malformed, match="SHA1"):
        csrs.verify(csrs.parse(csr(algorithm=SHA1_ECDSA)))


def test_an_unknown_signature_algorithm_is_refused():
    unknown = csr().replace(oid(SHA256_ECDSA), oid("1.2.840.10045.4.3.9"))
    with pytest.raises(Malformed, match=r"can't be checked|does not fit"):
        csrs.verify(csrs.parse(unknown))


@pytest.mark.parametrize(
    "algorithm",
    [
        tlv(SEQUENCE, oid("1.2.3.4")),
        tlv(SEQUENCE, oid("1.2.840.10045.2.1"), oid("1.3.36.3.3.2.8.1.1.99")),
        tlv(SEQUENCE, oid("1.2.840.113549.1.1.1"), tlv(5)),
    ],
)
def test_an_unreadable_public_key_is_refused(algorithm):
    found = csrs.parse(csr(spki=tlv(SEQUENCE, algorithm, tlv(BIT_STRING, b"\0\1\2"))))
    assert len(found.spki_sha256) == 64  # serverkeygen ignores the key, but needs a digest for the id of the request
    with pytest.raises(Malformed, match="public key can't be used"):
        csrs.verify(found)
    with pytest.raises(Malformed, match="public key can't be used"):
        _ = found.spki


def test_a_key_that_cannot_sign_is_refused():
    x25519 = tlv(SEQUENCE, tlv(SEQUENCE, oid("1.3.101.110")), tlv(BIT_STRING, b"\0", b"\1" * 32))
    with pytest.raises(Malformed, match=r"does not fit|can't be checked"):
        csrs.verify(csrs.parse(csr(spki=x25519)))


def test_an_empty_subject_is_refused():
    with pytest.raises(Malformed, match="subject is empty"):
        csrs.require_subject(csrs.parse(csr(tlv(SEQUENCE))))
    csrs.require_subject(csrs.parse(csr()))


# Attributes.


@pytest.mark.parametrize(
    ("tag", "codec", "text"),
    [
        (UTF8, "utf-8", "Zoë's €"),
        (PRINTABLE, "ascii", "AAECAwQFBgcICQoL"),
        (IA5, "ascii", "a@b"),
        (T61, "latin-1", "Zoë"),
        (BMP, "utf-16-be", "Zoë €"),
        (UNIVERSAL, "utf-32-be", "Zoë €"),
        (UTF8, "utf-8", ""),
        (UTF8, "utf-8", "x" * 255),
    ],
)
def test_a_challenge_password_in_every_string_type_is_read(tag, codec, text):
    assert csrs.parse(csr("x", challenge(text, tag, codec))).text_attribute(CHALLENGE_PASSWORD) == text


def test_a_csr_without_challenge_password_returns_none():
    assert csrs.parse(csr()).text_attribute(CHALLENGE_PASSWORD) is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([tlv(BOOLEAN, b"\xff")], "challengePassword has ASN.1 tag 0x01, which is no text"),
        ([tlv(OCTETS, b"x")], "tag 0x04"),
        ([tlv(SEQUENCE)], "tag 0x30"),
        ([], "challengePassword attribute has 0 values, not one"),
        ([tlv(UTF8, b"a"), tlv(UTF8, b"b")], "has 2 values, not one"),
        ([tlv(UTF8, b"\xff")], "not valid utf-8"),
        ([tlv(PRINTABLE, b"\xe9")], "not valid ascii"),
        ([tlv(BMP, b"\0")], "not valid utf-16-be"),
        ([tlv(BMP, b"\xd8\0")], "not valid utf-16-be"),
        ([tlv(UNIVERSAL, b"\0\0\xd8\0")], "not valid utf-32-be"),
        ([tlv(UTF8, b"x" * 256)], "longer than 255 characters"),
    ],
)
def test_a_malformed_challenge_password_is_refused_with_the_reason(values, words):
    found = csrs.parse(csr("x", attribute(CHALLENGE_PASSWORD, *values)))
    with pytest.raises(Malformed, match=words):
        found.text_attribute(CHALLENGE_PASSWORD)


def test_otp_is_read_and_an_empty_revocation_challenge_is_refused():
    found = csrs.parse(csr("x", attribute(OTP_CHALLENGE, tlv(UTF8, b"123")), attribute(REVOCATION_CHALLENGE)))
    assert found.text_attribute(OTP_CHALLENGE) == "123"
    with pytest.raises(Malformed, match="revocationChallenge attribute has 0 values"):
        found.text_attribute(REVOCATION_CHALLENGE)


# Published requests.


def test_rfc_7030_a_3_is_read_and_refused_for_sha_1():
    found = csrs.parse(vector("rfc7030-a3-simpleenroll-request.b64"))
    assert found.subject.rfc4514_string() == "CN=demostep4 1368141352"
    assert found.text_attribute(CHALLENGE_PASSWORD) == "+rrCir/7+EYu50T4"
    assert bytes(found.attributes[CHALLENGE_PASSWORD][0].tag_bytes) == bytes([PRINTABLE])
    with pytest.raises(Malformed, match="SHA1"):
        csrs.verify(found)


def test_rfc_7030_a_4_is_read():
    found = csrs.parse(vector("rfc7030-a4-serverkeygen-request.b64"))
    assert found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == (
        "serverKeyGen req by client in demo step 12 1368141955"
    )


def test_rfc_9148_a_2_has_a_challenge_password_that_is_no_base64():
    found = csrs.parse(vector("rfc9148-a2-enroll-request.der"))
    csrs.verify(found)
    text = found.text_attribute(CHALLENGE_PASSWORD)
    assert text
    with pytest.raises(ValueError, match=r"base64|padding|characters|data"):
        base64.b64decode(text, validate=True)


def test_the_one_time_password_of_a_published_csr_is_read():
    found = csrs.parse(vector("altmod-rfc7894-csr-otpchallenge.b64"))
    assert found.text_attribute(OTP_CHALLENGE) == "90503846"


def test_a_published_csr_with_an_unusable_key_is_refused():
    found = csrs.parse(vector("altmod-rfc9883-csr-statement-of-possession.b64"))
    with pytest.raises(Malformed):
        csrs.verify(found)


# Changing names (RFC 6402 2.8).

NEW_SUBJECT = dn((CN, UTF8, b"new"))
NEW_SAN = tlv(0xA1, tlv(0x82, b"new.example"))


@pytest.mark.parametrize(
    ("value", "subject", "san_entries"),
    [
        (tlv(SEQUENCE, NEW_SUBJECT, NEW_SAN), "CN=new", ["new.example"]),
        (tlv(SEQUENCE, NEW_SUBJECT), "CN=new", None),
        (tlv(SEQUENCE, NEW_SAN), "", ["new.example"]),
    ],
)
def test_change_subject_name_gives_the_new_names(value, subject, san_entries):
    wanted = csrs.change_subject_name(csrs.parse(csr("old", attribute(csrs.CHANGE_SUBJECT_NAME, value))))
    assert wanted is not None
    assert wanted.subject.rfc4514_string() == subject
    found = wanted.san.get_values_for_type(x509.DNSName) if wanted.san else None
    assert found == san_entries


def test_a_csr_without_change_subject_name_returns_none():
    assert csrs.change_subject_name(csrs.parse(csr())) is None


@pytest.mark.parametrize(
    "values",
    [
        [],
        [tlv(SEQUENCE, NEW_SUBJECT), tlv(SEQUENCE, NEW_SAN)],
        [tlv(SEQUENCE)],
        [tlv(UTF8, b"new")],
        [tlv(SEQUENCE, tlv(OCTETS, b"x"))],
        [tlv(SEQUENCE, dn((CN, UTF8, b"\xff")))],
        [tlv(SEQUENCE, tlv(0xA1, tlv(0x82, b"\xff")))],
        [tlv(SEQUENCE, tlv(0xA1, tlv(0xA3, tlv(SEQUENCE))))],
    ],
)
def test_a_malformed_change_subject_name_is_refused(values):
    with pytest.raises(Malformed):
        csrs.change_subject_name(csrs.parse(csr("old", attribute(csrs.CHANGE_SUBJECT_NAME, *values))))


# Renewal needs the same names (RFC 7030 4.2.2).


def certificate_with(subject: str, *alt: x509.GeneralName) -> x509.Certificate:
    extensions = [x509.SubjectAlternativeName(alt)] if alt else []
    return certificate(CA, subject, *extensions)


@pytest.mark.parametrize(
    ("request_", "certificate_"),
    [
        (csr("device-1"), certificate_with("CN=device-1")),
        (csr(dn((CN, PRINTABLE, b"Device-1"))), certificate_with("CN=device-1")),
        (GOOD, certificate_with("CN=device-1", x509.DNSName("HOST.example"))),
        (
            csr("device-1", san(x509.DNSName("a"), x509.DNSName("b"))),
            certificate_with("CN=device-1", x509.DNSName("b"), x509.DNSName("a")),
        ),
    ],
)
def test_equal_names_are_no_difference(request_, certificate_):
    assert csrs.difference(csrs.parse(request_), certificate_) is None


@pytest.mark.parametrize(
    ("request_", "certificate_", "words"),
    [
        (
            csr("device-2"),
            certificate_with("CN=device-1"),
            "the CSR's subject is CN=device-2, the certificate's is CN=device-1",
        ),
        (csr(name("CN=device-1,O=x")), certificate_with("CN=device-1"), "the CSR's subject is CN=device-1,O=x"),
        (csr(tlv(SEQUENCE)), certificate_with("CN=device-1"), "the CSR's subject is , the certificate's"),
        (GOOD, certificate_with("CN=device-1"), "the CSR adds DNS:host.example in its subject alternative name"),
        (
            csr(),
            certificate_with("CN=device-1", x509.DNSName("a")),
            "the CSR lacks DNS:a in its subject alternative name",
        ),
        (
            csr("device-1", san(x509.RFC822Name("a@b"))),
            certificate_with("CN=device-1", x509.DNSName("a")),
            "the CSR adds email:a@b and the CSR lacks DNS:a in its",
        ),
        (
            csr("device-1", san(x509.DirectoryName(name("CN=x")))),
            certificate_with("CN=device-1"),
            "the CSR adds dirName:",
        ),
    ],
)
def test_a_difference_in_names_is_put_into_words(request_, certificate_, words):
    assert words in str(csrs.difference(csrs.parse(request_), certificate_))
