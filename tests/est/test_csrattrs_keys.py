"""The wanted kind of key: words, the classic form and the form in a template."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from estgw.errors import Malformed
from estgw.est import csrattrs_keys as keys
from estgw.est import oids
from estgw.est.csrattrs import EC_PUBLIC_KEY, RSA_ENCRYPTION, AttributeWish, KeyWish
from estgw.est.csrattrs_keys import Kind
from estgw.est.der import elements, whole
from tests.kit.der import BIT_STRING, INTEGER, SEQUENCE, oid, tlv

P256, P384 = "1.2.840.10045.3.1.7", "1.3.132.0.34"
ED25519, ML_DSA_65 = "1.3.101.112", "2.16.840.1.101.3.4.3.18"
NULL = b"\x05\0"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("ec", Kind(EC_PUBLIC_KEY)),
        ("ec:P-256", Kind(EC_PUBLIC_KEY, P256)),
        ("ec:1.2.3.4", Kind(EC_PUBLIC_KEY, "1.2.3.4")),
        ("rsa", Kind(RSA_ENCRYPTION)),
        ("rsa:3072", Kind(RSA_ENCRYPTION, bits=3072)),
        ("ed25519", Kind(ED25519)),
        ("ml-dsa-65", Kind(ML_DSA_65)),
    ],
)
def test_a_kind_of_key_is_read_and_written(words, kind):
    assert keys.read_kind(words) == kind
    assert str(kind) == words


def test_a_curve_may_have_its_other_names():
    assert keys.read_kind("ec:prime256v1") == keys.read_kind("ec:secp256r1") == Kind(EC_PUBLIC_KEY, P256)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (None, "a kind of key is wanted, such as ec:P-256"),
        (256, "a kind of key is wanted"),
        (["ec"], "a kind of key is wanted"),
        ("", "'' is no kind of key; there are ec:P-256 and other curves, rsa:3072, ed25519"),
        ("P-256", "'P-256' is no kind of key"),
        ("EC:P-256", "is no kind of key"),
        ("ec:", "'' is no name known here"),
        ("ec:P-257", "do you mean P-25"),
        ("ec:sha256", "'sha256' is no curve; there are P-256"),
        ("rsa:", "an RSA key has 1024 to 16384 bits, not ''"),
        ("rsa:512", "not '512'"),
        ("rsa:16385", "not '16385'"),
        ("rsa:99999999999", "an RSA key has"),
        ("rsa:٣٠٧٢", "an RSA key has"),
        ("ed25519:x", "is no kind of key"),
    ],
)
def test_an_invalid_kind_of_key_is_refused_with_the_reason(words, what):
    with pytest.raises(Malformed) as raised:
        keys.read_kind(words)
    assert what in str(raised.value)


# The classic form (RFC 9908 3.2).


@pytest.mark.parametrize(
    ("words", "attribute"),
    [
        ("ec", AttributeWish(EC_PUBLIC_KEY)),
        ("ec:P-384", AttributeWish(EC_PUBLIC_KEY, (oid(P384),))),
        ("rsa", AttributeWish(RSA_ENCRYPTION)),
        ("rsa:4096", AttributeWish(RSA_ENCRYPTION, (tlv(INTEGER, b"\x10\0"),))),
        ("ed25519", AttributeWish(ED25519)),
    ],
)
def test_the_classic_form_of_a_key_is_read_and_written(words, attribute):
    assert keys.read_classic(words) == attribute
    assert keys.write_classic(attribute) == [words]


# The template's form (RFC 9908 3.4).


@pytest.mark.parametrize(
    ("words", "wish"),
    [
        ("ec", KeyWish(EC_PUBLIC_KEY)),
        ("ec:P-256", KeyWish(EC_PUBLIC_KEY, oid(P256))),
        ("rsa", KeyWish(RSA_ENCRYPTION, NULL)),
        ("ed25519", KeyWish(ED25519)),
        ("ml-dsa-65", KeyWish(ML_DSA_65)),
    ],
)
def test_the_template_form_of_a_key_is_read_and_written(words, wish):
    assert keys.read_template_key(words) == wish
    assert keys.write_template_key(wish) == words


@pytest.mark.parametrize("bits", [1024, 2047, 2048, 2049, 3072, 4095, 16384])
def test_an_rsa_size_is_a_dummy_key_of_that_length(bits):
    wish = keys.read_template_key(f"rsa:{bits}")
    assert wish.bits == bits
    assert keys.write_template_key(wish) == f"rsa:{bits}"
    assert wish.public_key is not None
    spki = tlv(SEQUENCE, tlv(SEQUENCE, oid(RSA_ENCRYPTION), NULL), wish.public_key)
    dummy = load_der_public_key(spki)
    assert isinstance(dummy, rsa.RSAPublicKey)
    assert dummy.key_size == bits
    assert dummy.public_numbers().n == (1 << bits) - 1, "and nobody takes it for a key"


def test_another_dummy_key_is_written_as_fields():
    spki = rsa.generate_private_key(65537, 2048).public_key()
    der = spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    _, public = elements(der, "a key")
    wish = KeyWish(RSA_ENCRYPTION, NULL, whole(public))
    made = keys.write_template_key(wish)
    assert made.keys() == {"algorithm", "parameters", "public_key"}
    assert (made["algorithm"], made["parameters"]) == ("rsaEncryption", {"hex": "0500"})
    assert keys.read_template_key(made) == wish


@pytest.mark.parametrize(
    "wish",
    [
        KeyWish("2.999.1"),
        KeyWish("2.999.1", tlv(SEQUENCE)),
        KeyWish(RSA_ENCRYPTION),  # without the NULL
        KeyWish(EC_PUBLIC_KEY, oid("1.2.840.113549.1.9.7")),  # not a curve
        KeyWish(EC_PUBLIC_KEY, oid(P256), tlv(BIT_STRING, b"\0\4")),
        KeyWish(EC_PUBLIC_KEY, tlv(SEQUENCE, tlv(INTEGER, b"\1"))),  # explicit parameters
        KeyWish(RSA_ENCRYPTION, NULL, tlv(BIT_STRING, b"\0junk")),
        KeyWish(RSA_ENCRYPTION, NULL, tlv(BIT_STRING)),
    ],
)
def test_any_key_of_a_template_survives_writing_and_reading(wish):
    assert keys.read_template_key(keys.write_template_key(wish)) == wish


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({}, "the name or number of an algorithm is wanted"),
        ({"algorithm": 5}, "the name or number of an algorithm is wanted"),
        ({"algorithm": "ec", "curve": "P-256"}, "'curve' is no part of a key; there are algorithm"),
        ({"algorithm": "nobody"}, "'nobody' is no name known here"),
        ({"algorithm": "ecPublicKey", "parameters": {"oid": "nobody"}}, "'nobody' is no name known here"),
        ({"algorithm": "ecPublicKey", "public_key": "xyz"}, "no hex digits"),
        ({"algorithm": "ecPublicKey", "public_key": 5}, 'hex digits are wanted; quote them ("5")'),
    ],
)
def test_wrong_fields_of_a_key_are_refused_with_the_reason(data, what):
    with pytest.raises(Malformed) as raised:
        keys.read_template_key(data)
    assert what in str(raised.value)


def test_keys_have_the_object_identifiers_of_the_library():
    der = ed25519.Ed25519PrivateKey.generate().public_key()
    spki = der.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert keys.read_template_key("ed25519").oid in oids.PLAIN_KEYS
    assert oid(ED25519) in spki
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()):
        point = ec.generate_private_key(curve).public_key()
        found = keys.read_template_key(f"ec:{curve.name}").parameters
        assert found is not None
        assert found in point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
