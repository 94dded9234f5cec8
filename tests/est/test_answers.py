"""The output of a handler becomes the answer that its operation promises."""

from __future__ import annotations

import base64
import email

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs7
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import answers, certs, encoding
from estgw.est.answers import Answer, to_wire
from estgw.est.operations import Body
from tests.kit.ca import certificate, root
from tests.kit.csr import CHALLENGE_PASSWORD, csr
from tests.kit.der import SEQUENCE, SET, UTF8, armoured, attribute, oid, tlv, vector
from tests.kit.keys import KEY, OTHER, SHA256_ECDSA, key_pem, rsa_key

CA = root("CA")
LEAF = certificate(CA)
DER = LEAF.public_bytes(Encoding.DER)
ROOT_DER = CA.certificate.public_bytes(Encoding.DER)
LEAF_PEM = LEAF.public_bytes(Encoding.PEM)
ROOT_PEM = CA.certificate.public_bytes(Encoding.PEM)
KEY_PEM = key_pem(KEY)
SHORT_ED25519 = bytes.fromhex("302d020100300506032b65700421041f") + bytes(31)
"""A key of 31 octets, for which cryptography raises InternalError."""
BASE64 = {"Content-Transfer-Encoding": "base64"}


def unpacked(answer: Answer) -> list[x509.Certificate]:
    return pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer.body))


COATS = {
    "PEM": LEAF_PEM,
    "openssl x509 -text": b"Certificate:\n    Data:\n" + LEAF_PEM,
    "DER": DER,
    "base64": base64.b64encode(DER),
    "PKCS#7 in DER": certs.pack([LEAF]),
    "PKCS#7 in PEM": armoured(certs.pack([LEAF]), "PKCS7"),
    "CMS in PEM": armoured(certs.pack([LEAF]), "CMS"),
    "PKCS#7 in base64": base64.encodebytes(certs.pack([LEAF])),
}


@pytest.mark.parametrize("coat", COATS)
@pytest.mark.parametrize("kind", [Body.ISSUED, Body.CA_CERTS])
def test_a_certificate_in_any_encoding_becomes_certs_only(coat, kind):
    answer = to_wire(kind, COATS[coat], columns=64)
    assert unpacked(answer) == [LEAF]
    assert answer.headers == BASE64
    assert answer.issued == (LEAF if kind is Body.ISSUED else None)


def test_base64_is_broken_into_lines_only_if_asked():
    assert len(to_wire(Body.ISSUED, LEAF_PEM, columns=64).body.split(b"\n")[0]) == 64
    assert b"\n" not in to_wire(Body.ISSUED, LEAF_PEM, columns=None).body


def test_cacerts_may_have_several_certificates():
    assert set(unpacked(to_wire(Body.CA_CERTS, ROOT_PEM + LEAF_PEM, columns=64))) == {CA.certificate, LEAF}


def test_the_cacerts_example_of_rfc_7030_passes_unchanged():
    body = vector("rfc7030-a1-cacerts-response.b64")  # four certificates, not in DER's order
    assert to_wire(Body.CA_CERTS, body, columns=64).body == body


@pytest.mark.parametrize("output", [LEAF_PEM + ROOT_PEM, certs.pack([LEAF, CA.certificate])])
def test_an_enrolment_with_two_certificates_is_refused(output):
    with pytest.raises(Malformed, match="2 certificates, where the answer holds the issued one alone"):
        to_wire(Body.ISSUED, output, columns=64)


@pytest.mark.parametrize("kind", [Body.ISSUED, Body.CA_CERTS])
def test_output_with_a_private_key_is_refused(kind):
    for text in (KEY_PEM, key_pem(KEY, PrivateFormat.TraditionalOpenSSL)):
        with pytest.raises(Malformed, match="private key"):
            to_wire(kind, text + LEAF_PEM, columns=64)


@pytest.mark.parametrize(
    "output",
    [
        b"Signature ok\n",
        b"{}",
        tlv(SEQUENCE),
        armoured(b"junk", "CERTIFICATE"),
        LEAF_PEM[:-40],
        armoured(csr()),
        b"\xff" * 100,
    ],
)
@pytest.mark.parametrize("kind", [Body.ISSUED, Body.CA_CERTS])
def test_output_without_a_certificate_is_refused(kind, output):
    with pytest.raises(Malformed):
        to_wire(kind, output, columns=64)


# csrattrs.

GOOD_ATTRIBUTES = [
    tlv(SEQUENCE),
    tlv(SEQUENCE, oid(CHALLENGE_PASSWORD)),
    tlv(SEQUENCE, oid(SHA256_ECDSA), attribute("1.2.840.10045.2.1", oid("1.2.840.10045.3.1.7"))),
    tlv(SEQUENCE, attribute("1.2.3")),
]


@pytest.mark.parametrize("der", GOOD_ATTRIBUTES)
def test_csrattrs_in_der_or_base64_are_sent(der):
    for output in (der, base64.encodebytes(der)):
        answer = to_wire(Body.CSRATTRS, output, columns=64)
        assert base64.b64decode(answer.body) == der
        assert answer.headers == BASE64


@pytest.mark.parametrize(
    "file",
    [
        "rfc7030-4.5.2-csrattrs.b64",
        "rfc7030-a2-csrattrs-response.b64",
        "rfc9148-a4-csrattrs-response.der",
        "rfc9908-5.2-rfc7030-example-corrected.b64",
        "derived-rfc9908-template.b64",
        "derived-csrattrs-empty-sequence.b64",
        "derived-csrattrs-challengepassword-only.b64",
    ],
)
def test_published_csrattrs_are_sent_with_the_same_der(file):
    body = vector(file)
    made = to_wire(Body.CSRATTRS, body, columns=64).body
    assert made == encoding.encode_base64(base64.b64decode(body) if file.endswith("b64") else body)


@pytest.mark.parametrize(
    "output",
    [
        tlv(SEQUENCE, tlv(UTF8, b"x")),
        tlv(SEQUENCE, tlv(SEQUENCE)),
        tlv(SEQUENCE, oid("1.2.3"), tlv(SEQUENCE, oid("1.2.3"))),
        tlv(SEQUENCE, tlv(6)),
        tlv(SET, oid("1.2.3")),
        DER,
        b"challengePassword\n",
        armoured(KEY_PEM, "PRIVATE KEY"),
        armoured(tlv(SEQUENCE, tlv(UTF8, b"x")), "ANY"),
    ],
)
def test_output_that_is_no_csrattrs_is_refused(output):
    with pytest.raises(Malformed):
        to_wire(Body.CSRATTRS, output, columns=64)


# Server-side key generation (RFC 7030 4.4.2).


def parts(answer: Answer) -> list[tuple[str, str, bytes]]:
    """Content-Type, Content-Transfer-Encoding and content of each part, as a mail reader sees them."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + answer.body)
    assert message.is_multipart()
    assert not message.defects
    found = []
    for part in message.walk():
        if part is not message:
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            found.append((str(part["Content-Type"]), str(part["Content-Transfer-Encoding"]), content))
    return found


@pytest.mark.parametrize("columns", [64, None])
def test_keygen_sends_the_key_and_the_certificate_in_two_parts(columns):
    answer = to_wire(Body.KEYGEN, KEY_PEM + LEAF_PEM, columns=columns)
    assert answer.headers["Content-Type"].startswith("multipart/mixed; boundary=")
    (key_type, key_encoding, key), (bag_type, bag_encoding, bag) = parts(answer)
    assert (key_type, key_encoding) == ("application/pkcs8", "base64")
    assert (bag_type, bag_encoding) == ("application/pkcs7-mime; smime-type=certs-only", "base64")
    loaded = serialization.load_der_private_key(key, None)
    assert loaded.public_key() == LEAF.public_key()
    assert pkcs7.load_der_pkcs7_certificates(bag) == [LEAF]
    assert answer.issued == LEAF


def test_keygen_lines_end_in_cr_lf():
    body = to_wire(Body.KEYGEN, KEY_PEM + LEAF_PEM, columns=64).body
    assert body.count(b"\n") == body.count(b"\r\n")
    assert body.endswith(b"--\r\n")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_keygen_sends_pkcs_8_whatever_was_printed(form):
    rsa = certificate(CA, key=rsa_key(2048))
    for made, key in ((LEAF, KEY), (rsa, rsa_key(2048))):
        output = made.public_bytes(Encoding.PEM) + key_pem(key, form)
        _, _, der = parts(to_wire(Body.KEYGEN, output, columns=64))[0]
        assert der == key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, serialization.NoEncryption())


def test_keygen_accepts_ec_parameters_before_the_key():
    parameters = armoured(oid("1.2.840.10045.3.1.7"), "EC PARAMETERS")
    assert len(parts(to_wire(Body.KEYGEN, parameters + KEY_PEM + LEAF_PEM, columns=64))) == 2


def test_keygen_sends_an_enveloped_key():
    enveloped = tlv(SEQUENCE, oid("1.2.840.113549.1.7.3"), tlv(0xA0, tlv(SEQUENCE)))
    made = parts(to_wire(Body.KEYGEN, armoured(enveloped, "CMS") + LEAF_PEM, columns=64))
    assert made[0][0] == "application/pkcs7-mime; smime-type=server-generated-key"
    assert made[0][2] == enveloped


def test_the_published_keygen_pair_is_accepted():
    key = armoured(base64.b64decode(vector("rfc7030-a4-serverkeygen-part1-pkcs8.b64")), "PRIVATE KEY")
    bag = certs.unpack(base64.b64decode(vector("rfc7030-a4-serverkeygen-part2-certs.b64")))
    assert to_wire(Body.KEYGEN, key + bag[0].public_bytes(Encoding.PEM), columns=64).issued == bag[0]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "two PEM blocks"),
        (LEAF_PEM, "two PEM blocks"),
        (KEY_PEM, "two PEM blocks"),
        (KEY_PEM * 2 + LEAF_PEM, "two PEM blocks"),
        (KEY_PEM + LEAF_PEM + ROOT_PEM, "two PEM blocks"),
        (key_pem(OTHER) + LEAF_PEM, "does not fit the certificate"),
        (armoured(b"junk", "PRIVATE KEY") + LEAF_PEM, "the private key can't be read"),
        (armoured(SHORT_ED25519, "PRIVATE KEY") + LEAF_PEM, "the private key can't be read"),
        (armoured(tlv(SEQUENCE), "ENCRYPTED PRIVATE KEY") + LEAF_PEM, "two PEM blocks"),
    ],
)
def test_invalid_keygen_output_is_refused_with_the_reason(output, words):
    with pytest.raises(Malformed, match=words):
        to_wire(Body.KEYGEN, output, columns=64)


def test_a_refusal_never_quotes_key_material():
    spoilt = KEY_PEM.replace(b"MIG", b"MIH", 1)
    with pytest.raises(Malformed) as refusal:
        to_wire(Body.KEYGEN, spoilt + LEAF_PEM, columns=64)
    assert not any(len(word) > 30 for word in str(refusal.value).split())


def test_the_multipart_boundary_cannot_be_base64():
    assert "-" in answers.BOUNDARY


# Other bodies.


def test_a_cmc_response_in_any_encoding_is_sent():
    signed = tlv(SEQUENCE, oid("1.2.840.113549.1.7.2"), tlv(0xA0, tlv(SEQUENCE)))
    for output in (signed, base64.b64encode(signed), armoured(signed, "CMS"), armoured(signed, "PKCS7")):
        assert base64.b64decode(to_wire(Body.CMC, output, columns=64).body) == signed
    assert to_wire(Body.CMC, vector("altmod-rfc6402-cmc-fullpkirequest.b64"), columns=64).headers == BASE64


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (tlv(SEQUENCE, oid("1.2.840.113549.1.7.3"), tlv(0xA0, tlv(SEQUENCE))), "not SignedData"),
        (tlv(SEQUENCE), "not a CMS message"),
        (LEAF_PEM, "one PEM block PKCS7"),
        (b"junk", "base64"),
    ],
)
def test_output_that_is_no_cmc_response_is_refused_with_the_reason(output, words):
    with pytest.raises(Malformed, match=words):
        to_wire(Body.CMC, output, columns=64)


@pytest.mark.parametrize("output", [DER, base64.b64encode(DER), LEAF_PEM, armoured(DER, "X509 CRL")])
def test_der_in_any_encoding_is_sent(output):
    answer = to_wire(Body.DER, output, columns=64)
    assert base64.b64decode(answer.body) == DER
    assert answer.headers == BASE64


@pytest.mark.parametrize("output", [DER + b"\0", DER[:-1], b"junk", KEY_PEM, LEAF_PEM + ROOT_PEM])
def test_output_that_is_not_one_der_value_is_refused(output):
    with pytest.raises(Malformed):
        to_wire(Body.DER, output, columns=64)


def test_raw_output_is_sent_unchanged():
    assert to_wire(Body.RAW, b"\0anything\xff", columns=64) == Answer(b"\0anything\xff")


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda inner: armoured(inner, "CERTIFICATE")))
def test_any_output_is_an_answer_or_malformed(output):
    for kind in Body:
        try:
            to_wire(kind, output, columns=64)
        except Malformed:
            continue
        assert kind in (Body.RAW, Body.DER, Body.CSRATTRS)
