"""How a CSR asks for protection of the key that the server makes (RFC 7030 4.4.1)."""

from __future__ import annotations

import pytest

from estgw.client.sealing import Secret
from estgw.errors import Malformed
from estgw.est import keygen
from estgw.est.csr import parse
from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES, Protection, Wish, wish
from tests.kit.csr import csr
from tests.kit.der import INTEGER, OCTETS, SEQUENCE, UTF8, attribute, oid, tlv

NULL = tlv(5)
OAEP, MGF1, STD_DH = "1.2.840.113549.1.1.7", "1.2.840.113549.1.1.8", "1.3.132.1.11.1"
SHA1, SHA256, SHA384 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2"
WRAP256 = "2.16.840.1.101.3.4.1.45"


def algorithm(dotted: str, *parameters: bytes) -> bytes:
    return tlv(SEQUENCE, oid(dotted), *parameters)


def oaep(hashed: str | None, masked: str | None, *more: bytes, null: bytes = NULL) -> bytes:
    """RSAES-OAEP with its parameters (RFC 4055 4.1)."""
    first = [tlv(0xA0, algorithm(hashed, null))] if hashed else []
    second = [tlv(0xA1, algorithm(MGF1, algorithm(masked, null)))] if masked else []
    return algorithm(OAEP, tlv(SEQUENCE, *first, *second, *more))


def key_id(kind: str = DECRYPT_KEY_ID, value: bytes = b"device-7") -> bytes:
    return attribute(kind, tlv(OCTETS, value))


def capabilities(*listed: bytes) -> bytes:
    return attribute(SMIME_CAPABILITIES, tlv(SEQUENCE, *listed))


def read(*attributes: bytes) -> Wish:
    return wish(parse(csr("keyless", *attributes)))


@pytest.mark.parametrize("attributes", [[], [capabilities(algorithm(OAEP))], [capabilities()]])
def test_a_csr_without_a_key_identifier_asks_for_no_protection(attributes):
    assert read(*attributes) == Wish(Protection.NONE, b"", ())


@pytest.mark.parametrize(
    ("kind", "protection"),
    [(DECRYPT_KEY_ID, Protection.SYMMETRIC), (ASYMMETRIC_DECRYPT_KEY_ID, Protection.ASYMMETRIC)],
)
@pytest.mark.parametrize("value", [b"x", b"\0\xff", b"x" * keygen.MAXIMUM_KEY_ID])
def test_a_key_identifier_asks_for_its_kind_of_protection(kind, protection, value):
    found = read(key_id(kind, value), capabilities(algorithm(WRAP256)))
    assert found == Wish(protection, value, ("id-aes256-wrap",))


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        *((algorithm(dotted), name) for dotted, name in keygen.ALGORITHMS.items()),
        (algorithm("1.2.840.113549.1.1.1", NULL), "rsaEncryption"),
        (algorithm("1.2.3.4"), "1.2.3.4"),
        (algorithm("1.2.840.113549.3.2", tlv(INTEGER, b"\0\x80")), "1.2.840.113549.3.2"),  # RC2 with its key length
        # RFC 3560 6, RFC 4055 4.1
        (algorithm(OAEP, NULL), "rsaesOaep"),
        (oaep(None, None), "rsaesOaep"),
        (oaep(SHA1, SHA1), "rsaesOaep"),
        (oaep(SHA256, SHA256), "rsaesOaep:sha256"),
        (oaep(SHA256, SHA256, null=b""), "rsaesOaep:sha256"),
        (oaep(SHA384, SHA384), "rsaesOaep:sha384"),
        (oaep(SHA256, None), OAEP),
        (oaep(None, SHA256), OAEP),
        (oaep(SHA256, SHA384), OAEP),
        (oaep("1.2.3", "1.2.3"), OAEP),
        (oaep(SHA256, SHA256, tlv(0xA2, algorithm("1.2.840.113549.1.1.9", tlv(OCTETS, b"label")))), OAEP),
        (algorithm(OAEP, tlv(SEQUENCE, tlv(0xA0))), OAEP),
        (algorithm(OAEP, tlv(SEQUENCE, tlv(0xA1, algorithm("1.2.3")))), OAEP),
        # RFC 5753 7.2
        (algorithm(STD_DH, algorithm(WRAP256)), "dhSinglePass-stdDH-sha256kdf-scheme:id-aes256-wrap"),
        (algorithm(STD_DH, algorithm("1.2.3")), "dhSinglePass-stdDH-sha256kdf-scheme:1.2.3"),
        (algorithm(STD_DH, NULL), "dhSinglePass-stdDH-sha256kdf-scheme"),
    ],
)
def test_algorithms_are_named_with_their_parameters(entry, name):
    assert read(key_id(), capabilities(entry)).algorithms == (name,)


def test_algorithms_keep_the_order_of_the_client():
    entries = [algorithm(WRAP256), algorithm(OAEP), algorithm("1.2.3.4"), algorithm(OAEP)]
    names = ("id-aes256-wrap", "rsaesOaep", "1.2.3.4", "rsaesOaep")
    assert read(key_id(), capabilities(*entries)).algorithms == names


def test_the_attributes_of_estclient_are_read():
    secret = Secret(b"device-7", key=bytes(32), capabilities=(algorithm(WRAP256),))
    assert read(*(sent.encode() for sent in secret.attributes)) == Wish(
        Protection.SYMMETRIC, b"device-7", ("id-aes256-wrap",)
    )


GOOD = capabilities(algorithm(WRAP256))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ([key_id()], "has no SMIMECapabilities to say how"),
        ([key_id(), key_id(ASYMMETRIC_DECRYPT_KEY_ID), GOOD], "both to a symmetric and to an asymmetric key"),
        ([key_id(value=b""), GOOD], "DecryptKeyIdentifier has 0 octets"),
        ([key_id(value=b"x" * 129), GOOD], "has 129 octets, not 1 to 128"),
        ([key_id(ASYMMETRIC_DECRYPT_KEY_ID, b""), GOOD], "AsymmetricDecryptKeyIdentifier has 0 octets"),
        ([attribute(DECRYPT_KEY_ID, tlv(UTF8, b"device-7")), GOOD], "no OCTET STRING"),
        ([attribute(DECRYPT_KEY_ID), GOOD], "has 0 values, not one"),
        ([attribute(DECRYPT_KEY_ID, tlv(OCTETS, b"a"), tlv(OCTETS, b"b")), GOOD], "has 2 values, not one"),
        ([key_id(), capabilities()], "SMIMECapabilities has 0 entries"),
        ([key_id(), capabilities(*[algorithm(WRAP256)] * 65)], "SMIMECapabilities has 65 entries"),
        ([key_id(), attribute(SMIME_CAPABILITIES)], "SMIMECapabilities has 0 values"),
        ([key_id(), attribute(SMIME_CAPABILITIES, tlv(OCTETS, b"x"))], "SMIMECapabilities"),
        ([key_id(), capabilities(tlv(OCTETS, b"x"))], "SMIMECapabilities"),
        ([key_id(), capabilities(tlv(SEQUENCE))], "an entry that is no algorithm"),
        ([key_id(), capabilities(tlv(SEQUENCE, NULL))], "an entry that is no algorithm"),
        ([key_id(), capabilities(algorithm("1.2.3", NULL, NULL))], "an entry that is no algorithm"),
        ([key_id(), capabilities(algorithm(OAEP, tlv(OCTETS, b"x")))], "RSAES-OAEP parameters"),
        ([key_id(), capabilities(algorithm(OAEP, tlv(SEQUENCE, tlv(0xA0, NULL))))], "SMIMECapabilities"),
        ([key_id(), capabilities(algorithm(STD_DH, tlv(SEQUENCE, NULL)))], "an entry that is no algorithm"),
    ],
)
def test_an_unreadable_wish_for_protection_is_refused(attributes, words):
    with pytest.raises(Malformed, match=words):
        read(*attributes)
