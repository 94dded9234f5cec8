"""SignedData: with openssl as the peer, with pyasn1 as a second reader, and with each part broken."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from pyasn1_alt_modules import rfc5652

from estgw.cms import algorithms, signed
from estgw.cms.faults import BadAlgorithm, BadDigest, BadSignature
from estgw.cms.fields import integer, octets, oid, sequence, set_of, tagged
from estgw.cms.identifiers import Attribute, IssuerAndSerial, key_id_of, subject_key_id
from estgw.cms.signed import Signer
from estgw.errors import Malformed
from estgw.est import certs
from tests.kit.ca import NOW, holder, root
from tests.kit.keys import KEYS
from tests.kit.reference import OPENSSL_SIGNS, openssl, reads

PKI_DATA = "1.3.6.1.5.5.7.12.2"
CONTENT = b"what is signed" * 20


def sign(kind="p256", content_type=PKI_DATA, content=CONTENT, **options):
    credential = holder(kind)
    signer = Signer.of(credential.key, credential.certificate)
    return signed.sign(content_type, content, [signer], certificates=[credential.certificate], **options)


def verify(message):
    for signer in message.signers:
        certificate = signed.certificate_of(message, signer)
        assert certificate is not None
        signed.verify(message, signer, certificate)


# Messages that we sign.


@pytest.mark.parametrize("kind", KEYS)
def test_a_signed_message_is_parsed_and_verified(kind):
    message = signed.parse(sign(kind, signing_time=NOW))
    verify(message)
    assert (message.content_type, message.content, message.crls) == (PKI_DATA, CONTENT, ())
    assert message.bag == [holder(kind).certificate]
    (signer,) = message.signers
    assert signer.whom == IssuerAndSerial.of(holder(kind).certificate)
    assert signer.signing_time == NOW
    assert signer.is_signed


@pytest.mark.parametrize("kind", KEYS)
def test_pyasn1_reads_our_message(kind):
    der = sign(kind, signing_time=NOW, crls=[root("a").crl().public_bytes(Encoding.DER)])
    outer = reads(der, rfc5652.ContentInfo())
    inner = reads(bytes(outer["content"]), rfc5652.SignedData())
    assert int(inner["version"]) == 3
    assert bytes(inner["encapContentInfo"]["eContent"]) == CONTENT
    assert inner["signerInfos"][0]["sid"].getName() == "issuerAndSerialNumber"
    assert len(inner["crls"]) == 1


@pytest.mark.parametrize("kind", OPENSSL_SIGNS)
def test_openssl_verifies_our_signature(kind, tmp_path):
    certificate, _ = holder(kind).write(tmp_path, kind)
    for content_type in (PKI_DATA, signed.DATA):
        der = sign(kind, content_type, signing_time=NOW)
        assert openssl(["-verify", "-inform", "DER", "-CAfile", certificate, "-purpose", "any"], der) == CONTENT


def test_a_key_without_a_certificate_signs_by_its_identifier(tmp_path):
    key = holder("p256").key
    key_id = key_id_of(key.public_key())
    der = signed.sign(PKI_DATA, CONTENT, [Signer(key, key_id)])
    message = signed.parse(der)
    assert message.signers[0].whom == key_id == subject_key_id(holder("p256").certificate)
    signed.verify(message, message.signers[0], key.public_key())
    assert signed.certificate_of(message, message.signers[0]) is None
    inner = reads(bytes(reads(der, rfc5652.ContentInfo())["content"]), rfc5652.SignedData())
    assert int(inner["signerInfos"][0]["version"]) == 3
    certificate, _ = holder("p256").write(tmp_path, "p256")
    checks = ["-verify", "-inform", "DER", "-CAfile", certificate, "-certfile", certificate, "-purpose", "any"]
    assert openssl(checks, der) == CONTENT


def test_several_signers_are_all_verified():
    holders = [holder("p256"), holder("rsa"), holder("ed25519")]
    signers = [Signer.of(each.key, each.certificate) for each in holders]
    der = signed.sign(PKI_DATA, CONTENT, signers, certificates=[each.certificate for each in holders])
    message = signed.parse(der)
    assert len(message.signers) == 3
    verify(message)
    reads(bytes(reads(der, rfc5652.ContentInfo())["content"]), rfc5652.SignedData())


def test_a_signer_is_found_by_issuer_and_serial_or_by_key_id():
    credential = holder("p384")
    signers = [Signer.of(credential.key, credential.certificate), Signer(credential.key, b"another")]
    by_id = subject_key_id(credential.certificate)
    assert by_id is not None
    signers.append(Signer(credential.key, by_id))
    bag = [holder("p256").certificate, credential.certificate]
    message = signed.parse(signed.sign(PKI_DATA, CONTENT, signers, certificates=bag))
    found = {signer.whom: signed.certificate_of(message, signer) for signer in message.signers}
    assert found == {
        IssuerAndSerial.of(credential.certificate): credential.certificate,
        b"another": None,
        by_id: credential.certificate,
    }


def test_a_signing_time_after_2050_is_read():
    message = signed.parse(sign(signing_time=dt.datetime(2051, 1, 1, tzinfo=dt.UTC)))
    assert message.signers[0].signing_time == dt.datetime(2051, 1, 1, tzinfo=dt.UTC)


def test_certs_only_is_the_same_bytes_as_pack():
    bag = [holder("p256").certificate, holder("rsa").certificate]
    der = signed.certs_only(bag)
    assert set(certs.unpack(der)) == set(bag)
    assert certs.pack(bag) == der
    message = signed.parse(der)
    assert (message.content, message.signers, set(message.bag)) == (None, (), set(bag))


def test_certs_only_may_carry_a_crl(tmp_path):
    crl = root("a").crl().public_bytes(Encoding.DER)
    message = signed.parse(signed.certs_only([holder("p256").certificate], [crl]))
    assert message.crls == (crl,)


def test_a_message_without_signers_is_parsed():
    message = signed.parse(signed.sign(PKI_DATA, CONTENT, []))
    assert (message.content, message.signers) == (CONTENT, ())


def test_a_digest_without_a_signature_never_counts_as_a_signature():
    """RFC 5272 C.1: a key that cannot sign puts a digest there. It must never pass signature verification."""
    der = signed.sign(PKI_DATA, CONTENT, [Signer(None, b"key")])
    message = signed.parse(der)
    (signer,) = message.signers
    assert not signer.is_signed
    assert signer.algorithm == algorithms.Algorithm(algorithms.NO_SIGNATURE, b"\x05\x00")
    with pytest.raises(BadSignature, match="in place of a signature"):
        signed.verify(message, signer, holder("p256").key.public_key())
    signed.verify_digest(message, signer)
    with pytest.raises(BadDigest):
        signed.verify_digest(dataclasses.replace(message, content=b"another"), signer)
    with pytest.raises(BadSignature, match="is another"):
        signed.verify_digest(message, dataclasses.replace(signer, signature=bytes(32)))
    with pytest.raises(BadSignature, match="nothing that it is for"):
        signed.verify_digest(dataclasses.replace(message, content=None), signer)
    with pytest.raises(BadSignature, match="no digest"):
        signed.verify_digest(message, signed.parse(sign()).signers[0])


# Messages that openssl signs.


@pytest.mark.parametrize("kind", OPENSSL_SIGNS)
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-keyid"],
        ["-md", "sha384"],
        ["-stream"],
        ["-indef", "-econtent_type", PKI_DATA],
        ["-noattr"],
        ["-nocerts", "-nosmimecap"],
    ],
)
def test_a_signature_of_openssl_is_verified_for_its_key_alone(kind, options, tmp_path):
    certificate, key = holder(kind).write(tmp_path, kind)
    content = CONTENT * 500  # more than one piece of a stream
    arguments = ["-sign", "-nodetach", "-outform", "DER", "-signer", certificate, "-inkey", key, *options]
    message = signed.parse(openssl(arguments, content))
    assert message.content == content
    (signer,) = message.signers
    signed.verify(message, signer, holder(kind).key.public_key())
    with pytest.raises(BadSignature):
        signed.verify(message, signer, holder(kind, "another").key.public_key())
    with pytest.raises(BadSignature):
        signed.verify(dataclasses.replace(message, content=content[:-1]), signer, holder(kind).key.public_key())


def test_rsa_pss_is_verified_but_not_with_sha_1(tmp_path):
    certificate, key = holder("rsa").write(tmp_path, "rsa")
    arguments = ["-sign", "-nodetach", "-outform", "DER", "-signer", certificate, "-inkey", key]
    good = signed.parse(openssl([*arguments, "-keyopt", "rsa_padding_mode:pss", "-md", "sha256"], CONTENT))
    assert good.signers[0].algorithm.oid == algorithms.RSA_PSS
    verify(good)
    with pytest.raises(BadSignature):
        signed.verify(good, good.signers[0], holder("rsa", "another").key.public_key())
    weak = signed.parse(openssl([*arguments, "-keyopt", "rsa_padding_mode:pss", "-md", "sha1"], CONTENT))
    with pytest.raises(BadAlgorithm, match="SHA-1"):
        verify(weak)


@pytest.mark.parametrize("digest", ["sha1", "md5"])
@pytest.mark.parametrize("attributes", [[], ["-noattr"]])
def test_a_weak_digest_is_refused(digest, attributes, tmp_path):
    certificate, key = holder("rsa").write(tmp_path, "rsa")
    arguments = ["-sign", "-nodetach", "-outform", "DER", "-signer", certificate, "-inkey", key, "-md", digest]
    with pytest.raises(BadAlgorithm, match="not taken"):
        verify(signed.parse(openssl([*arguments, *attributes], CONTENT)))


def test_content_other_than_data_needs_signed_attributes(tmp_path):
    """RFC 5652 5.3: signed attributes are required for any content type other than data."""
    certificate, key = holder("p256").write(tmp_path, "p256")
    arguments = ["-sign", "-nodetach", "-outform", "DER", "-signer", certificate, "-inkey", key, "-noattr"]
    message = signed.parse(openssl([*arguments, "-econtent_type", PKI_DATA], CONTENT))
    with pytest.raises(BadSignature, match="without the signed attributes"):
        verify(message)


def test_a_detached_signature_is_refused(tmp_path):
    certificate, key = holder("p256").write(tmp_path, "p256")
    message = signed.parse(openssl(["-sign", "-outform", "DER", "-signer", certificate, "-inkey", key], CONTENT))
    assert message.content is None
    with pytest.raises(BadSignature, match="without the content"):
        verify(message)


# Parts that do not fit together.


def changed(message, **changes):
    """The message with other fields in its first signer."""
    return dataclasses.replace(message, signers=(dataclasses.replace(message.signers[0], **changes),))


def test_a_message_with_other_content_is_refused():
    message = signed.parse(sign())
    with pytest.raises(BadDigest, match="its digest is another"):
        verify(dataclasses.replace(message, content=b"another"))


def test_a_message_with_another_content_type_is_refused():
    message = signed.parse(sign())
    with pytest.raises(BadSignature, match="content type is not the message's"):
        verify(dataclasses.replace(message, content_type="1.3.6.1.5.5.7.12.3"))


@pytest.mark.parametrize("gone", [signed.CONTENT_TYPE, signed.MESSAGE_DIGEST])
def test_a_missing_signed_attribute_is_refused(gone):
    message = signed.parse(sign())
    left = tuple(each for each in message.signers[0].signed_attributes if each.oid != gone)
    with pytest.raises(BadSignature, match="without content type or digest"):
        verify(changed(message, signed_attributes=left))


def test_an_attribute_that_was_not_signed_is_refused():
    message = signed.parse(sign())
    more = (*message.signers[0].signed_attributes, Attribute("1.2.3.4", (b"\x05\x00",)))
    with pytest.raises(BadSignature, match="does not fit"):
        verify(changed(message, signed_attributes=more))


def test_a_signed_attribute_with_two_values_is_malformed():
    message = signed.parse(sign())
    first, *rest = message.signers[0].signed_attributes
    with pytest.raises(Malformed, match="2 values"):
        verify(changed(message, signed_attributes=(Attribute(first.oid, first.values * 2), *rest)))


@pytest.mark.parametrize("kind", KEYS)
def test_a_changed_signature_is_refused(kind):
    message = signed.parse(sign(kind))
    signature = bytearray(message.signers[0].signature)
    signature[-1] ^= 1
    with pytest.raises(BadSignature):
        verify(changed(message, signature=bytes(signature)))


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("other", ["rsa", "p256", "ed25519", "ml-dsa-44"])
def test_a_key_of_another_kind_does_not_verify(kind, other):
    if kind != other:
        message = signed.parse(sign(kind))
        with pytest.raises((BadAlgorithm, BadSignature)):
            signed.verify(message, message.signers[0], holder(other).key.public_key())


def test_attributes_signed_in_any_order_are_verified():
    """RFC 5652 5.4 signs the sorted DER. Some writers sign the order that they send, and both are the same set."""
    message = signed.parse(sign(signing_time=NOW))
    attributes = sorted((each.encode() for each in message.signers[0].signed_attributes), reverse=True)
    as_sent = b"\x31" + sequence(*attributes)[1:]
    assert as_sent != set_of(attributes)
    for what in (as_sent, set_of(attributes)):
        signature = algorithms.sign(holder("p256").key, what)
        verify(changed(message, signature=signature, as_sent=as_sent))


# Messages that cannot be read.


def rebuild(*, version=b"\x02\x01\x03", content=None, bag=b"", signers=b"\x31\x00", extra=b""):
    content = content or sequence(oid(PKI_DATA), tagged(0, octets(b"x")))
    inner = sequence(version, b"\x31\x00", content, bag, signers, extra)
    return sequence(oid(signed.SIGNED_DATA), tagged(0, inner))


def test_the_frame_of_the_next_tests_is_sound():
    assert signed.parse(rebuild()).content == b"x"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut off"),
        (b"\x30\x00", "without content type"),
        (sequence(oid(signed.DATA), tagged(0, octets(b"x"))), "not SignedData"),
        (sequence(oid(signed.SIGNED_DATA)), "without content"),
        (sequence(oid(signed.SIGNED_DATA), tagged(0)), "not what its tag says"),
        (rebuild() + b"\x00", "bytes too many"),
        (rebuild()[:-1], "cut off"),
        (rebuild(version=b"\x02\x01\x06"), "version 6"),
        (rebuild(version=b"\x02\x01\x00"), "version 0"),
        (rebuild(extra=b"\x05\x00"), "1 fields too many"),
        (rebuild(content=sequence(oid(PKI_DATA), tagged(0, sequence()))), "content is not what its tag says"),
        (rebuild(signers=set_of([sequence()])), "signer 1: a SignerInfo without version"),
        (rebuild(signers=set_of(sequence(bytes([2, 1, n])) for n in range(17))), "17 signers; 16 are the most"),
        (rebuild(bag=b"\xa0" + sequence(*[sequence()] * 201)[1:]), "201 of them; 200 are the most"),
        (rebuild(bag=b"\xa0" + sequence(*[b"\x30\x00"] * 1001)[1:]), "1001 elements; 1000 are the most"),
    ],
)
def test_a_malformed_message_is_refused_with_the_reason(data, words):
    with pytest.raises(Malformed, match=words):
        signed.parse(data)


def test_unreadable_certificates_are_left_out_of_the_bag():
    message = signed.parse(rebuild(bag=b"\xa0" + sequence(sequence(), tagged(1, b"\x05\x00"))[1:]))
    assert (message.certificates, message.bag) == ((b"\x30\x00",), [])


def test_a_bag_with_odd_certificates_is_read_safely():
    """A negative serial number, an unknown key, an invalid issuer: any sender may put them into a bag."""
    sound = holder("p256").certificate
    der = sound.public_bytes(Encoding.DER)
    serial = integer(sound.serial_number)
    negative = der.replace(serial, serial[:2] + b"\x81" + serial[3:])
    strange = der.replace(oid("1.2.840.10045.2.1"), oid("1.3.840.10045.2.1"))
    nameless = der.replace(b"\x0c\x06holder", b"\x0c\x06h\xfflder")
    assert len({der, negative, strange, nameless}) == 4
    whom = IssuerAndSerial.of(sound)
    bag = [negative, strange, nameless, der]
    signer = sequence(integer(1), whom.encode(), *[sequence(oid("1.2.3"))] * 2, octets(b""))
    message = signed.parse(rebuild(bag=b"\xa0" + sequence(*bag)[1:], signers=set_of([signer])))
    assert [each.public_bytes(Encoding.DER) for each in message.bag] == [negative, strange, der]
    found = signed.certificate_of(message, message.signers[0])
    assert found is not None
    assert found.public_bytes(Encoding.DER) == strange
    with pytest.raises(Malformed, match="a public key that can't be used"):
        signed.verify(message, message.signers[0], found)


def test_deep_nesting_is_refused_quickly():
    started = time.process_time()
    for data in (b"\x30\x80" * 1_000_000, b"\x30\x80" * 500_000 + b"\x00\x00" * 500_000):
        with pytest.raises(Malformed):
            signed.parse(data)
    inner = b""
    for _ in range(2000):
        inner = sequence(inner)
    with pytest.raises(Malformed):
        signed.parse(inner)
    assert time.process_time() - started < 5


def test_a_large_content_and_bag_are_read_quickly():
    started = time.process_time()
    message = signed.parse(sign(content=bytes(200_000)))
    verify(message)
    bag = [holder(kind).certificate for kind in KEYS]
    assert set(signed.parse(signed.certs_only(bag)).bag) == set(bag)
    assert time.process_time() - started < 5


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed(data):
    with pytest.raises(Malformed):
        signed.parse(data)


SAMPLE = sign(signing_time=NOW)


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_refused_or_leaves_the_signed_content(place, byte):
    """Whatever the byte changes, the message is refused or has the signed content."""
    data = SAMPLE[:place] + bytes([byte]) + SAMPLE[place + 1 :]
    try:
        message = signed.parse(data)
        for signer in message.signers:
            signed.verify(message, signer, holder("p256").key.public_key())
    except Malformed:
        return
    if message.signers:
        assert message.content == CONTENT
