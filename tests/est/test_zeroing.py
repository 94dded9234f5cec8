"""Certificates in the output of scripts are found and made useless, in every form."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cms import signed
from estgw.cms.signed import Signer
from estgw.est import certs, zeroing
from tests.callout.calls import CA, CERTIFICATE
from tests.kit.ca import certificate
from tests.kit.csr import csr
from tests.kit.der import SEQUENCE, armoured, tlv
from tests.kit.keys import OTHER, key_pem

LEAF = certificate(CA, "CN=leaf")
DER, PEM = LEAF.public_bytes(Encoding.DER), LEAF.public_bytes(Encoding.PEM)
PACKED = certs.pack([LEAF, CERTIFICATE])
MESSAGE = signed.sign("1.2.3", certs.pack([LEAF]), [Signer.of(OTHER, certificate(CA, key=OTHER))], certificates=[LEAF])

FORMS = {
    "PEM": PEM,
    "PEM with text around it": b"subject=CN=leaf\n" + PEM + b"\n# end\n",
    "DER": DER,
    "base64": base64.encodebytes(DER),
    "a certs-only PKCS#7": PACKED,
    "a certs-only PKCS#7 as PEM": armoured(PACKED, "PKCS7"),
    "a certs-only PKCS#7 as base64": base64.b64encode(PACKED),
    "a message with one in it and one inside": MESSAGE,
    "a key and a certificate": key_pem(OTHER) + PEM,
}


@pytest.mark.parametrize("output", FORMS.values(), ids=FORMS)
def test_every_certificate_in_the_output_gets_a_signature_of_zeros(output):
    assert LEAF in zeroing.certificates(output)
    made = zeroing.without_signatures(output)
    found = zeroing.certificates(made)
    assert len(found) == len(zeroing.certificates(output))
    assert all(map(zeroing.is_zeroed, found))
    assert LEAF.signature not in made
    assert [each.tbs_certificate_bytes for each in found] == [
        each.tbs_certificate_bytes for each in zeroing.certificates(output)
    ]


@pytest.mark.parametrize("name", ["PEM with text around it", "a key and a certificate"])
def test_text_around_a_certificate_stays_unchanged(name):
    before, after = FORMS[name], zeroing.without_signatures(FORMS[name])
    assert before.partition(b"-----BEGIN CERT")[0] == after.partition(b"-----BEGIN CERT")[0]
    assert before.rpartition(b"-----END CERT")[2] == after.rpartition(b"-----END CERT")[2]
    assert len(before) == len(after)


def test_a_zeroed_certificate_does_not_verify():
    (made,) = zeroing.certificates(zeroing.without_signatures(PEM))
    assert made.subject == LEAF.subject
    with pytest.raises(InvalidSignature):
        made.verify_directly_issued_by(CA.certificate)


def test_a_known_certificate_keeps_its_signature():
    made = zeroing.without_signatures(PACKED, {CERTIFICATE.public_bytes(Encoding.DER)})
    left, other = sorted(zeroing.certificates(made), key=lambda each: each.subject.rfc4514_string())
    assert (zeroing.is_zeroed(left), zeroing.is_zeroed(other)) in ((False, True), (True, False))
    assert CERTIFICATE in (left, other)


@pytest.mark.parametrize(
    "output", [b"", b"hello", b"\x30\x80\x00", b"-----BEGIN CERTIFICATE-----\nMIIB\n", b"\x30\xff"]
)
def test_output_without_a_certificate_stays_unchanged(output):
    assert zeroing.without_signatures(output) == output
    assert zeroing.certificates(output) == []


def test_a_csr_keeps_its_signature():
    asked = csr()
    assert zeroing.without_signatures(asked) == asked


@pytest.mark.parametrize("words", ["+ printf {}", "{}", "one\n{}\ntwo"])
def test_a_certificate_in_text_is_left_out(words):
    made = zeroing.without_certificates(words.format(PEM.decode()))
    assert PEM.decode()[60:120] not in made
    assert "(a certificate, left out)" in made


def test_a_truncated_certificate_in_text_is_left_out():
    assert zeroing.without_certificates(PEM.decode()[:200]) == "(a certificate, left out)"


def test_very_deep_nesting_is_searched_without_error():
    nested = b"\x30\x00"
    for _ in range(2000):
        nested = tlv(SEQUENCE, nested)
    assert zeroing.certificates(nested) == []
