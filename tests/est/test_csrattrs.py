"""CSR attributes: published examples survive decoding and encoding, and malformed ones are refused."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, strategies

from estgw.errors import Malformed
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish, NamePart, Template

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted({path.name for pattern in ("*csrattrs*", "*9908*") for path in VECTORS.glob(pattern)})
EXAMPLES = {
    "RFC 9908 5.1": "MGgwZgYJKoZIhvcNAQkOMVkwVzBVBgNVHREBAf8ESzBJoEcGCCsGAQUFBwgKoDsWOXJmYzg5OTQrZmQ3MzlmYzIzYzM0NDAx"
    "MTIyMzM0NDU1MDAwMDAwMDArQGFjcC5leGFtcGxlLmNvbQ==",
    "RFC 9908 5.4": "MCkGCSqGSIb3DQEJBzARBgkqhkiG9w0BAQExBAICEAAGCSqGSIb3DQEBCw==",
    "RFC 9908 5.5": "MC4GCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAiBgNVBAUGCCqGSM49BAMD",
    # 5.3 was published with the same bytes.
    "RFC 9908 5.6": "MEUGCSqGSIb3DQEJBzASBgcqhkjOPQIBMQcGBSuBBAAjBgkqhkiG9w0BCRQGCgmSJomT8ixkAQUGA1UEBQYIKoZIzj0EAwQ=",
    "a template beside the old style": "MIHVBgkqhkiG9w0BCQcwFQYHKoZIzj0CATEKBggqhkjOPQMBBwYIKoZIzj0EAwIwgaYGCyqGSIb3"
    "DQEJEAI9MYGWMIGTAgEAMCwxBzAFBgNVBAMxDzANBgNVBAsMBm15RGVwdDEQMA4GA1UECwwHbXlHcm91cKAVMBMGByqGSM49AgEGCCqGSM49"
    "AwEHoUkwRwYLKoZIhvcNAQkQAj4xODA2MB0GA1UdEQQWMBSCEHd3dy5teVNlcnZlci5jb22HADAOBgNVHQ8BAf8EBAMCA4gwBQYDVR0l",
    "the smallest template": "MBgwFgYLKoZIhvcNAQkQAj0xBzAFAgEAoQA=",
}
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
P256, P384 = "1.2.840.10045.3.1.7", "1.3.132.0.34"


def vector(name: str) -> bytes:
    data = (VECTORS / name).read_bytes()
    return base64.b64decode(data) if name.endswith(".b64") else data


def example(name: str) -> CsrAttrs:
    return csrattrs.decode_csrattrs(base64.b64decode(EXAMPLES[name]))


@pytest.mark.parametrize("name", [*FILES, *EXAMPLES])
def test_every_published_example_survives_decoding_and_encoding(name):
    der = vector(name) if name in FILES else base64.b64decode(EXAMPLES[name])
    attrs = csrattrs.decode_csrattrs(der)
    assert attrs.encode() == der
    if attrs.template is not None:
        (raw,) = [value for one in attrs.attributes if one.oid == csrattrs.TEMPLATE for value in one.values]
        assert attrs.template.encode() == raw


def test_at_least_six_files_of_examples_are_found():
    assert len(FILES) >= 6


def test_the_template_of_rfc_9908_3_4_is_decoded():
    template = csrattrs.decode_csrattrs(vector("derived-rfc9908-template.b64")).template
    assert template is not None
    assert template == Template(
        subject=(
            (NamePart("2.5.4.3"),),
            (NamePart("2.5.4.11", b"\x0c\x06myDept"),),
            (NamePart("2.5.4.11", b"\x0c\x07myGroup"),),
        ),
        key=KeyWish(csrattrs.EC_PUBLIC_KEY, csrattrs.encode_oid(P256)),
        attributes=template.attributes,
    )
    assert template.key is not None
    assert template.key.curve == P256
    san, usage, extended = csrattrs.extensions(template.attributes)
    assert (san.oid, (san.value or b"")[-2:]) == ("2.5.29.17", b"\x87\x00")
    assert usage == ExtensionWish("2.5.29.15", True, bytes.fromhex("03020388"))
    assert extended == ExtensionWish("2.5.29.37")


def test_the_faulty_example_of_rfc_7030_is_decoded_without_extensions():
    """RFC 9908 3.2 calls it wrong. It is read, and the odd value is ignored."""
    attrs = csrattrs.decode_csrattrs(vector("rfc7030-4.5.2-csrattrs.b64"))
    assert attrs.oids == (CHALLENGE_PASSWORD, "1.2.840.10045.4.3.3")
    assert csrattrs.extensions(attrs.attributes) == ()


def test_an_rsa_size_and_a_curve_are_read():
    (rsa,) = example("RFC 9908 5.4").attributes
    assert KeyWish(rsa.oid, rsa.values[0]).bits == 4096
    (curve,) = example("RFC 9908 5.5").attributes
    assert KeyWish(curve.oid, curve.values[0]).curve == P384


def test_an_rsa_size_is_read_from_a_dummy_key():
    """RFC 9908 3.4: a template gives the size by a public key of that length."""
    modulus = b"\x02\x82\x01\x01\x00" + b"\xff" * 256
    key = b"\x30\x82\x01\x0a" + modulus + b"\x02\x03\x01\x00\x01"
    wish = KeyWish(csrattrs.RSA_ENCRYPTION, b"\x05\x00", b"\x03\x82\x01\x0f\x00" + key)
    assert wish.bits == 2048
    assert csrattrs.decode_template(Template(key=wish).encode()).key == wish


@pytest.mark.parametrize(
    "der",
    [
        "",
        "04023000",
        "3003020101",  # an INTEGER
        "300430020500",  # an attribute without OID
        "30073005060155310000",  # a byte too many
        "3080",
        "300c300a06032a030431030c0261",  # a SET cut off
        "30043002060155",
    ],
)
def test_malformed_csrattrs_are_refused(der):
    with pytest.raises(Malformed):
        csrattrs.decode_csrattrs(bytes.fromhex(der))


@pytest.mark.parametrize(
    "der",
    [
        "3003020100",  # no attributes field
        "3005020101a100",  # version 2
        "3007020100a100a100",  # attributes twice
        "3007020100a1003000",  # subject in the wrong place
        "3007020100a000a100",  # a key without content
        "30080201003103a10000",
        "300902010030020500a100",  # a subject of another type
        "3009020100a0023000a100",
    ],
)
def test_a_malformed_template_is_refused(der):
    with pytest.raises(Malformed):
        csrattrs.decode_template(bytes.fromhex(der))


def test_two_templates_are_refused():
    twice = AttributeWish(csrattrs.TEMPLATE, (Template().encode(), Template().encode()))
    with pytest.raises(Malformed):
        _ = CsrAttrs((twice,)).template


def test_an_invalid_object_identifier_is_refused():
    with pytest.raises(Malformed):
        CsrAttrs(("5.6.7",)).encode()


_OIDS = strategies.sampled_from([CHALLENGE_PASSWORD, "2.5.4.5", "2.999.1", P256, csrattrs.EXTENSION_REQUEST])
_VALUES = strategies.sampled_from([b"\x05\x00", b"\x0c\x01a", b"\x30\x00", b"\x06\x01\x55"])
_ATTRIBUTES = strategies.builds(AttributeWish, _OIDS, strategies.lists(_VALUES, max_size=3).map(csrattrs.set_of))
_PARTS = strategies.builds(NamePart, _OIDS, strategies.none() | _VALUES)
_SUBJECTS = strategies.lists(strategies.lists(_PARTS, min_size=1, max_size=2).map(tuple), max_size=3).map(tuple)
_TEMPLATES = strategies.builds(
    Template,
    strategies.none() | _SUBJECTS,
    strategies.none() | strategies.builds(KeyWish, _OIDS, strategies.none() | _VALUES),
    strategies.lists(_ATTRIBUTES, max_size=3).map(tuple),
)


@given(strategies.lists(_OIDS | _ATTRIBUTES, max_size=5).map(tuple), strategies.none() | _TEMPLATES)
def test_any_encoded_csrattrs_are_decoded_again(items, template):
    if template is not None:
        items = (*items, AttributeWish(csrattrs.TEMPLATE, (template.encode(),)))
    attrs = CsrAttrs(items)
    assert csrattrs.decode_csrattrs(attrs.encode()) == attrs
    assert attrs.template == template


@given(strategies.binary(max_size=60))
def test_any_bytes_are_malformed_or_reencoded_unchanged(noise):
    for data in (noise, b"\x30" + bytes([len(noise)]) + noise):
        try:
            attrs = csrattrs.decode_csrattrs(data)
            _ = attrs.template
            csrattrs.extensions(attrs.attributes)
        except Malformed:
            continue
        assert attrs.encode() == data
