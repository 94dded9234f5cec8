"""`explain` describes messages completely, printably, within bounds, and without failing."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estgw.cmc import crmf, outline, parts
from estgw.cmc.controls import BY_NAME, TABLE, Control
from estgw.cmc.crmf import CertReqMsg, TypeAndValue
from estgw.cmc.explain import explain
from estgw.cmc.messages import PKI_DATA, OtherMsg, PKIData, PKIResponse, TaggedContentInfo
from estgw.cmc.requests import CRMFRequest, OtherRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus, ExtendedFailInfo, PendInfo, StatusInfo
from estgw.cmc.values import GetCert, RevokeRequest
from estgw.cms import signed
from estgw.cms.fields import integer, octets, sequence, tagged, text
from estgw.cms.signed import Signer
from estgw.errors import Malformed
from estgw.est import encoding
from tests.cmc.samples import (
    ENVELOPE,
    FULL_TEMPLATE,
    KEY_ID,
    MOMENT,
    VALUES,
    crmf_request,
    pkcs10,
    request_message,
    response_message,
)
from tests.kit.ca import DAY, NOW, common_name, holder, root
from tests.kit.der import VECTORS
from tests.kit.keys import KEY, OTHER

REQUEST = request_message()


def body(text_):
    """The text without its first line, which has the length and so changes with every ECDSA signature."""
    return text_.partition("\n")[2]


def test_a_request_is_explained_part_by_part():
    words = explain(REQUEST)
    assert words.startswith(f"SignedData, {len(REQUEST)} octets\n")
    proof = BY_NAME["identityProofV2"]
    witness = Control.decode(PKIData.decode(signed.parse(REQUEST).content or b"").controls[3].encode()).value.witness
    assert proof.number == 34
    assert (
        body(words)
        == f"""\
  signer 1: key identifier {KEY_ID.hex()}
    digest SHA-256, signature ecdsa-with-SHA256
    signature: fits the key of request 102
    signing time: 2030-01-02T03:04:05+00:00
  PKIData
    control 1: transactionId (RFC 5272 6.6)
      10132985123483401
    control 2: senderNonce (RFC 5272 6.6)
      1020
    control 3: identification (RFC 5272 6.2.3)
      d\u00e9vice 7
    control 4: identityProofV2 (RFC 5272 6.2.1)
      hash: SHA-256
      mac: HMAC-SHA256
      witness: {witness.hex()}
    request 101: PKCS#10
      subject: CN=device
      key: EC on secp256r1
      signature: ecdsa-with-SHA256
      subjectKeyIdentifier: {KEY_ID.hex()}
      possession: its signature fits its key
    request 102: CRMF
      subject: CN=device
      public key: EC on secp256r1
      extensions
        subjectKeyIdentifier: {KEY_ID.hex()}
        subjectAltName (critical): DNS:device.example
      signature: ecdsa-with-SHA256
      possession: its signature fits its key
"""
    )


def test_a_response_is_explained_part_by_part():
    message = response_message(
        StatusInfo.failed(CMCFailInfo.BAD_IDENTITY, (3, (5, 1), 0), "no such secret"),
        StatusInfo(CMCStatus.PENDING, (), pending=PendInfo(b"\x01", MOMENT)),
        StatusInfo(CMCStatus.FAILED, (1,), extended=ExtendedFailInfo("1.2.3.4", text("odd"))),
    )
    ca = holder("p256", "CA").certificate
    until = ca.not_valid_after_utc.date().isoformat()
    serial = f"{ca.serial_number:X}"
    serial = serial.zfill(len(serial) + len(serial) % 2)
    number = f"0x{ca.serial_number:x}"
    assert (
        body(explain(message))
        == f"""\
  signer 1: issuer CN=CA, serial number {number}
    digest SHA-256, signature ecdsa-with-SHA256
    signature: fits the certificate of CN=CA
    signing time: 2030-01-02T03:04:05+00:00
  certificate: CN=CA, serial number {serial}, issued by CN=CA, valid until {until}
  PKIResponse
    control 1: statusInfoV2 (RFC 5272 6.1.1)
      failed (badIdentity): no such secret
      about 3, 5/1, 0 (the whole)
    control 2: statusInfoV2 (RFC 5272 6.1.1)
      pending
      about nothing
      ask again at 2030-01-02T03:04:05+00:00 with the token 01
    control 3: statusInfoV2 (RFC 5272 6.1.1)
      failed (1.2.3.4)
      about 1
      extended failure 1.2.3.4: odd
    control 90: recipientNonce (RFC 5272 6.6)
      1020
"""
    )


def test_base64_pem_and_ber_are_explained_like_der():
    pem = encoding.encode_pem(REQUEST, "CMS")
    for coat in (encoding.encode_base64(REQUEST), pem, pem.replace(b"CMS", b"PKCS7"), b"\n" + pem):
        assert explain(coat) == explain(REQUEST)
    loose = b"\x30\x80" + REQUEST[4:] + b"\0\0"
    assert body(explain(loose)) == body(explain(REQUEST))


def test_content_without_a_cms_around_it_is_explained():
    message = signed.parse(REQUEST)
    assert explain(message.content or b"").startswith("PKIData\n  control 1: transactionId")
    assert explain(PKIResponse().encode()) == "PKIResponse\n"


def test_a_request_of_a_microsoft_client_is_explained():
    words = explain((VECTORS / "altmod-rfc6402-cmc-fullpkirequest.b64").read_bytes())
    assert (
        "    signature: not checked with the key of request 1: a signature on a digest by SHA-1 is not taken" in words
    )
    assert "    control 2: 1.3.6.1.4.1.311.10.10.1\n      3063020100300302" in words
    assert "      key: RSA of 1024 bits\n      signature: sha1WithRSAEncryption\n" in words
    assert "      keyUsage (critical): digitalSignature\n" in words
    assert "possession: ! request 1: a signature by sha1WithRSAEncryption is not taken; use SHA-256" in words


def test_every_control_is_explained_with_its_section():
    controls = [Control.make(number, kind, VALUES[kind][-1]) for number, kind in enumerate(VALUES, 1)]
    words = explain(PKIData(tuple(controls)).encode())
    for number, row in enumerate((BY_NAME[kind] for kind in VALUES), 1):
        section = row.section if row.section.startswith("RFC") else f"RFC 5272 {row.section}"
        assert f"control {number}: {row.name} ({section})\n    " in words
    assert "!" not in words
    assert len(TABLE) == len(controls)
    for fragment in (
        "for request 101: PKCS#10",
        "EnvelopedData: data, encrypted with aes256-CBC",
        "key agreement by dhSinglePass-stdDH-sha256kdf",
        "data: 5/1",
        "requests: 101, 102",
        "parts: 1, 5/2",
        "(RFC 5272 6.17)\n    5, 6\n",
        "(RFC 6402 2.9)\n    5/1\n",
        "issuer uid",
        "not after: 2055-01-01T00:00:00+00:00",
        "replace: no",
        "reason: superseded",
        "name: DNS:device.example",
    ):
        assert fragment in words, fragment


def test_a_passphrase_is_not_shown():
    revocation = RevokeRequest(common_name("CA").public_bytes(), 77, 1, None, b"passphrase", "why")
    words = explain(PKIData((Control.make(1, "revokeRequest", revocation),)).encode())
    assert (
        words
        == """\
PKIData
  control 1: revokeRequest (RFC 5272 6.11)
    issuer: CN=CA
    serial: 77
    passphrase: 10 octets, not shown
    comment: why
    reason: keyCompromise
"""
    )
    assert b"passphrase".hex() not in words


def test_nested_messages_are_explained_up_to_four_deep():
    message = REQUEST
    for number in range(5):
        data = PKIData((), (), (TaggedContentInfo(10 + number, message),))
        message = signed.sign(PKI_DATA, data.encode(), [Signer(None, b"RA")])
    words = explain(message)
    assert words.count("signature: none (id-alg-noSignature)") == 4
    assert "        message 12\n" in words
    assert "! more than 4 messages in one another" in words
    assert "transactionId" not in words


def test_an_issuer_in_the_wrong_form_is_shown_with_the_fault():
    ca = common_name("CA").public_bytes()
    sent = (sequence(ca, integer(7)), sequence(tagged(4, ca)), sequence(tagged(4, ca), integer(7), b"\x0a\x01\x00"))
    named = zip(("getCert", "getCRL", "revokeRequest"), sent, strict=True)
    controls = [Control(number, BY_NAME[kind].oid, (value,)) for number, (kind, value) in enumerate(named, 1)]
    words = explain(PKIData(tuple(controls)).encode())
    assert "    issuer: dirName:CN=CA (sent as a bare Name, where RFC 5272 6.9 has a GeneralName)\n" in words
    assert words.count("    issuer: CN=CA (sent as a GeneralName, where RFC 5272 has a Name)\n") == 2
    assert "sent as" not in explain(PKIData((Control.make(1, "getCert", GetCert(tagged(4, ca), 7)),)).encode())
    assert "issuer sent as" not in words


def test_unknown_parts_are_shown_as_octets():
    information = TypeAndValue("1.2", text("i"))
    data = PKIData(
        (Control(1, "1.2.3.4", (octets(b"abc"), text("words"))), Control(2, BY_NAME["getCert"].oid, (b"\x05\x00",))),
        (
            OtherRequest(3, "1.2.3.5", octets(bytes(40))),
            CRMFRequest(CertReqMsg(crmf_request(4).message.request, crmf.RA_VERIFIED, (information,))),
        ),
        (TaggedContentInfo(5, ENVELOPE), TaggedContentInfo(6, sequence()), TaggedContentInfo(7, signed.certs_only([]))),
        (OtherMsg(8, "1.2.3.6", b"\x02\x01\x05"),),
    )
    words = explain(data.encode())
    assert "  control 1: 1.2.3.4\n    616263\n    words\n" in words
    assert "  control 2: getCert (RFC 5272 6.9)\n    ! its value with tag 0x05 in place of 0x30\n    0500\n" in words
    assert f"  request 3: 1.2.3.5, {'00' * 32}... (40 octets)\n" in words
    assert "    possession: raVerified, as the request claims\n" in words
    assert "  message 5\n    EnvelopedData: data, encrypted with aes256-CBC\n" in words
    assert "  message 6\n    ! a ContentInfo without content type\n" in words
    assert "  message 7\n    SignedData, " in words
    assert "  other message 8: 1.2.3.6, 5\n" in words
    assert "    1.2: i\n" in words


def test_a_duplicate_body_part_id_is_shown():
    nonce = Control.make(1, "senderNonce", b"x")
    words = explain(signed.sign(PKI_DATA, PKIData((nonce, nonce)).encode(), []))
    assert "  no signer\n  ! PKIData: the body part id 1 is there twice: control 1 and control 2\n" in words


def test_a_signature_that_does_not_fit_is_shown_as_such():
    data = PKIData((), (crmf_request(7, OTHER),)).encode()
    assert "does not fit the key of request 7: the signature does not fit" in explain(
        signed.sign(PKI_DATA, data, [Signer(KEY, KEY_ID)])
    )
    assert "not checked, the signer's key is not in the message" in explain(
        signed.sign(PKI_DATA, data, [Signer(KEY, b"nobody")])
    )


def test_a_key_of_an_unknown_kind_is_explained_as_unusable():
    odd = pkcs10().der.replace(bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072b8648ce3d0201"))
    data = PKIData((), (PKCS10Request(7, odd),)).encode()
    words = explain(signed.sign(PKI_DATA, data, [Signer(KEY, KEY_ID)]))
    assert "signature: not checked, the signer's key is not in the message" in words
    assert "request 7: PKCS#10\n      subject: CN=device\n      signature: ecdsa-with-SHA256\n" in words
    assert "possession: ! request 7: the CSR's public key can't be used" in words


def test_a_bag_with_a_crl_is_explained():
    ca = root("the CA")
    words = explain(signed.certs_only([ca.certificate], [ca.crl(ca).public_bytes(Encoding.DER)]))
    assert f"  CRL: CN=the CA, of {(NOW - DAY).date()}, 1 entries\n" in words
    assert words.endswith("  no content\n")


def test_control_characters_are_escaped():
    rude = "a\x1b[31m\r\nb\u202ec\x00"
    status = StatusInfo(CMCStatus.FAILED, (1,), rude)
    subject = common_name("x\x1b]0;y").public_bytes()
    request = CRMFRequest(CertReqMsg(crmf.request_for(KEY.public_key(), 7, subject)))
    for message in (
        PKIResponse((Control.make(1, "statusInfoV2", status),)).encode(),
        PKIData((Control.make(1, "identification", rude),), (request,)).encode(),
    ):
        words = explain(message)
        assert all(char.isprintable() or char == "\n" for char in words)
    assert "a\\x1b[31m\\r\\nb\\u202ec\\x00" in explain(PKIData((Control.make(1, "identification", rude),)).encode())


def test_width_and_number_of_lines_are_bounded():
    long = PKIData(tuple(Control.make(number, "identification", "x" * 10_000) for number in range(1, 101)))
    words = explain(long.encode())
    assert max(map(len, words.splitlines())) < outline.MAXIMUM_WIDTH + 50
    many = tuple(
        Control(number, "1.2.3.4", tuple(octets(bytes([byte])) for byte in range(20))) for number in range(1, 101)
    )
    words = explain(PKIData(many).encode())
    assert len(words.splitlines()) == outline.MAXIMUM_LINES + 1
    assert words.endswith("\n... and so on\n")


def test_unreadable_certificates_and_extensions_are_shown_as_such():
    bag = b"\xa0" + sequence(sequence(octets(b"x")))[1:]
    broken = sequence(b"\x02\x01\x03", b"\x31\x00", sequence(b"\x06\x03\x2a\x03\x04"), bag, b"\x31\x00")
    outer = sequence(b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", b"\xa0" + sequence(broken)[1:])
    assert "a certificate that can't be read: 3003040178" in explain(outer)
    template = crmf.CertTemplate(subject=sequence(octets(b"")), public_key=sequence(), extensions=sequence(sequence()))
    request = CRMFRequest(CertReqMsg(crmf.CertRequest(7, template)))
    words = explain(PKIData((), (request,)).encode())
    assert "subject: 30020400\n" in words
    assert "public key: unknown, 3000\n" in words
    assert "! an extension that can't be read" in words
    assert parts.EMPTY_NAME == b"\x30\x00"


@pytest.mark.parametrize("data", [b"", b"nothing of the kind", b"\x30\x00", sequence(octets(b"x")), b"\x30\x80" * 100])
def test_bytes_that_are_no_message_are_malformed(data):
    with pytest.raises(Malformed):
        explain(data)


def test_a_certificate_is_refused():
    with pytest.raises(Malformed):
        explain(holder("p256").certificate.public_bytes(Encoding.PEM))


@given(st.binary(max_size=200))
def test_any_bytes_are_explained_or_malformed(data):
    try:
        explain(data)
    except Malformed:
        return


EVERYTHING = signed.sign(
    PKI_DATA,
    PKIData(
        tuple(Control.make(number, kind, VALUES[kind][-1]) for number, kind in enumerate(VALUES, 1)),
        (pkcs10(), CRMFRequest(CertReqMsg(crmf.CertRequest(102, FULL_TEMPLATE)))),
        (TaggedContentInfo(200, response_message(VALUES["statusInfoV2"][1])), TaggedContentInfo(201, ENVELOPE)),
    ).encode(),
    [Signer(KEY, KEY_ID)],
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(EVERYTHING) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_bytes_are_explained_printably_or_malformed(changes):
    data = bytearray(EVERYTHING)
    for place, byte in changes:
        data[place] = byte
    try:
        words = explain(bytes(data))
    except Malformed:
        return
    assert all(char.isprintable() or char == "\n" for char in words)


@given(st.integers(0, len(EVERYTHING) - 1))
def test_a_message_that_is_cut_off_is_malformed(length):
    with pytest.raises(Malformed):
        explain(EVERYTHING[:length])


def test_large_messages_are_explained_or_refused_quickly():
    started = time.process_time()
    for data in (b"\x30\x80" * 500_000, sequence(*[b"\x30\x00"] * 100_000)):
        with pytest.raises(Malformed):
            explain(data)
    explain(signed.sign(PKI_DATA, PKIData((Control.make(1, "dataReturn", bytes(200_000)),)).encode(), []))
    assert time.process_time() - started < 5
