"""CSRs made here: every kind of key, and CSR attributes with and without a template."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from estgw.client import keys, request
from estgw.client.commands.options import wanted as read_names
from estgw.client.faults import ClientError, InvalidAnswer, UsageError
from estgw.client.request import Wanted
from estgw.est import csr, csrattrs
from estgw.est.binding import Binding, BindingType
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish, NamePart, Template
from estgw.est.der import SEQUENCE, wrap

VECTORS = Path(__file__).parents[1] / "vectors"
BINDING = Binding(BindingType.TLS_EXPORTER, bytes(range(32)))
DEVICE = Wanted(x509.Name.from_rfc4514_string("CN=device,O=Example"))
KEY = keys.generate(keys.parse_spec("ec:P-256"))


def made(wanted=DEVICE, attrs=None, key=KEY, binding=BINDING):
    plan = request.plan(wanted, attrs)
    parsed = csr.parse(request.build(plan, key, binding))
    csr.verify(parsed)
    return parsed


@pytest.mark.parametrize(
    "spec",
    ["ec:P-256", "ec:p-384", "ec:521", "rsa:2048", "ed25519", "ed448", "ml-dsa-44", "ML-DSA-65", "ml-dsa-87"],
)
def test_every_kind_of_key_signs_a_csr(spec):
    key = keys.generate(keys.parse_spec(spec))
    assert str(keys.spec_of(key)).lower().replace("-", "") == spec.lower().replace("-", "").replace("ec:5", "ec:p5")
    parsed = made(key=key)
    assert parsed.spki == keys.spki(key)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == BINDING.text
    again = keys.load(keys.to_pem(key))
    assert keys.spki(again) == keys.spki(key)


@pytest.mark.parametrize("spec", ["ec:P-256", "rsa:2048", "ed25519"])
def test_openssl_verifies_our_csr(spec):
    parsed = made(Wanted(DEVICE.subject, (x509.DNSName("a.example"),)), key=keys.generate(keys.parse_spec(spec)))
    done = subprocess.run(
        ["openssl", "req", "-verify", "-noout", "-text"], input=parsed.pem, capture_output=True, check=True
    )
    text = done.stdout.decode()
    assert "challengePassword" in text
    assert BINDING.text in text
    assert "DNS:a.example" in text
    assert b"OK" in done.stderr


@pytest.mark.parametrize(
    "spec", ["", "ec", "ec:P-224", "rsa:1024", "rsa:99999", "rsa:", "dsa", "ed25519:1", "ml-dsa-99"]
)
def test_an_unknown_kind_of_key_is_a_usage_error(spec):
    with pytest.raises(UsageError):
        keys.parse_spec(spec)


def test_a_string_is_printable_if_possible_else_utf8():
    assert request.string("aZ09+/=") == b"\x13\x07aZ09+/="
    assert request.string("a_b") == b"\x0c\x03a_b"
    assert request.string("ä") == b"\x0c\x02\xc3\xa4"


def test_identity_linking_replaces_challenge_password_where_listed():
    """RFC 7894 4: it is preferred if listed, and then there is no challengePassword."""
    parsed = made(attrs=CsrAttrs((csr.CHALLENGE_PASSWORD, csr.EST_IDENTITY_LINKING)))
    assert parsed.text_attribute(csr.EST_IDENTITY_LINKING) == BINDING.text
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) is None


def test_attributes_without_a_template_are_followed():
    attrs = CsrAttrs(
        (
            csr.CHALLENGE_PASSWORD,
            AttributeWish(csrattrs.RSA_ENCRYPTION, (b"\x02\x02\x10\x00",)),
            AttributeWish("1.2.840.113549.1.9.20", (b"\x1e\x02\x00a",)),
            AttributeWish("2.999.1", (b"\x0c\x01x",)),
            "1.2.840.113549.1.1.13",
            "1.3.6.1.1.1.1.22",
            "2.5.4.10",
        )
    )
    plan = request.plan(DEVICE, attrs)
    assert (str(plan.key), plan.hash_name) == ("rsa:4096", "SHA-512")
    assert plan.attributes == (AttributeWish("1.2.840.113549.1.9.20", (b"\x1e\x02\x00a",)),)
    assert len(plan.notes) == 1  # about the MAC address; O is in the subject
    assert "1.3.6.1.1.1.1.22" in plan.notes[0]


def test_the_extension_of_rfc_9908_5_1_is_copied_into_the_csr():
    """A fully specified extension is copied byte for byte, and the client's own names are added."""
    der = base64.b64decode(
        "MGgwZgYJKoZIhvcNAQkOMVkwVzBVBgNVHREBAf8ESzBJoEcGCCsGAQUFBwgKoDsWOXJmYzg5OTQrZmQ3MzlmYzIzYzM0NDAxMTIyMzM0NDU1"
        "MDAwMDAwMDArQGFjcC5leGFtcGxlLmNvbQ=="
    )
    parsed = made(Wanted(DEVICE.subject, (x509.DNSName("a.example"),)), csrattrs.decode_csrattrs(der))
    other, name = parsed.san
    assert other.type_id.dotted_string == "1.3.6.1.5.5.7.8.10"
    assert name == x509.DNSName("a.example")
    assert parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def template_of_the_rfc(**more):
    attrs = csrattrs.decode_csrattrs(base64.b64decode((VECTORS / "derived-rfc9908-template.b64").read_bytes()))
    # A client that knows the template must ignore the other attributes (RFC 9908 4).
    return CsrAttrs((*attrs.items, AttributeWish(csrattrs.RSA_ENCRYPTION), "1.2.840.113549.1.1.13"))


def test_the_template_of_rfc_9908_is_filled_in():
    import ipaddress

    wanted = Wanted(DEVICE.subject, (x509.IPAddress(ipaddress.ip_address("192.0.2.7")), x509.DNSName("own.example")))
    plan = request.plan(wanted, template_of_the_rfc())
    assert (str(plan.key), plan.hash_name) == ("ec:P-256", None)
    assert any("2.5.4.10" in note for note in plan.notes)
    parsed = made(wanted, template_of_the_rfc())
    assert parsed.subject.rfc4514_string() == "OU=myGroup,OU=myDept,CN=device"
    assert [entry.value for entry in parsed.san] == [
        "www.myServer.com",
        ipaddress.ip_address("192.0.2.7"),
        "own.example",
    ]
    usage = parsed.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert usage.value.key_agreement
    assert list(parsed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == BINDING.text


@pytest.mark.parametrize(
    ("subject", "san", "words"),
    [("O=Example", (x509.DNSName("a"),), "--subject"), ("CN=x", (x509.DNSName("a"),), "--ip"), ("CN=x", (), "--ip")],
)
def test_a_template_names_the_option_that_is_missing(subject, san, words):
    with pytest.raises(UsageError, match=words):
        request.plan(Wanted(x509.Name.from_rfc4514_string(subject), san), template_of_the_rfc())


def attrs_with(template):
    return CsrAttrs((AttributeWish(csrattrs.TEMPLATE, (template.encode(),)),))


def test_a_template_with_fixed_values_is_filled_in():
    wishes = (
        ExtensionWish("2.5.29.17"),
        ExtensionWish("2.5.29.15", True),
        ExtensionWish("1.2.3.4", False, b"\x05\x00"),
        ExtensionWish("1.2.3.5"),
    )
    request_template = AttributeWish(csrattrs.EXTENSION_TEMPLATE, (b"\x30\x00",))
    encoded = b"".join(wish.encode() for wish in wishes)
    request_template = AttributeWish(csrattrs.EXTENSION_TEMPLATE, (b"\x30" + bytes([len(encoded)]) + encoded,))
    template = Template(
        subject=((NamePart("2.5.4.3"), NamePart("2.5.4.5", b"\x13\x02AB")),),
        key=KeyWish("2.16.840.1.101.3.4.3.18"),
        attributes=(
            AttributeWish("2.999.7", (b"\x0c\x01x",)),
            AttributeWish(csr.EST_IDENTITY_LINKING),
            request_template,
        ),
    )
    with pytest.raises(UsageError, match="--dns"):
        request.plan(DEVICE, attrs_with(template))
    plan = request.plan(Wanted(DEVICE.subject, (x509.DNSName("a"),)), attrs_with(template))
    assert str(plan.key) == "ml-dsa-65"
    assert any("1.2.3.5" in note for note in plan.notes)
    parsed = csr.parse(request.build(plan, KEY, BINDING))
    csr.verify(parsed)
    assert parsed.text_attribute(csr.EST_IDENTITY_LINKING) == BINDING.text
    assert bytes(parsed.attributes["2.999.7"][0].data) == b"x"
    (rdn,) = parsed.subject.rdns
    assert {attribute.value for attribute in rdn} == {"device", "AB"}
    assert parsed.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    (unknown,) = [one for one in parsed.extensions if one.oid.dotted_string == "1.2.3.4"]
    assert unknown.value.value == b"\x05\x00"


def test_a_renewal_keeps_its_names_despite_a_template():
    fixed = Wanted(DEVICE.subject, (x509.DNSName("old.example"),), san_critical=True, is_fixed=True)
    parsed = made(fixed, template_of_the_rfc())
    assert parsed.subject == DEVICE.subject
    assert [entry.value for entry in parsed.san] == ["old.example"]
    assert parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical


def test_csr_attributes_with_an_unsupported_key_are_refused():
    with pytest.raises(ClientError, match=r"1\.2\.840\.10045\.2\.1"):
        request.plan(DEVICE, CsrAttrs((AttributeWish(csrattrs.EC_PUBLIC_KEY, (csrattrs.encode_oid("1.3.132.0.10"),)),)))


def test_a_malformed_template_is_an_invalid_answer():
    with pytest.raises(InvalidAnswer):
        request.plan(DEVICE, CsrAttrs((AttributeWish(csrattrs.TEMPLATE, (b"\x30\x00",)),)))


@pytest.mark.parametrize(
    "attributes",
    [
        {"subject": "device"},
        {"ip": ["nohost"]},
        {"email": ["ü@x"]},
        {"uri": ["http://ü"]},
        {"dns": [""]},
        {"email": [""]},
        {"uri": ["x:y", ""]},
    ],
)
def test_malformed_names_are_a_usage_error(attributes):
    from argparse import Namespace

    names = {"subject": "CN=x", "dns": [], "ip": [], "email": [], "uri": []} | attributes
    with pytest.raises(UsageError):
        read_names(Namespace(**names))


def test_an_encrypted_key_asks_for_its_password():
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    assert keys.spki(keys.load(pem, lambda: b"pw")) == keys.spki(KEY)
    for ask in (None, lambda: b"wrong"):
        with pytest.raises(UsageError):
            keys.load(pem, ask)
    with pytest.raises(UsageError):
        keys.load(b"no key")


@pytest.mark.parametrize("oid", ["2b656e", "2b656f", "2b6570", "2b6571"])
def test_a_private_key_of_a_wrong_length_is_no_key(oid):
    """X25519, X448, Ed25519 and Ed448: cryptography raises an InternalError for them."""
    inside = wrap(SEQUENCE, wrap(b"\x06", bytes.fromhex(oid))) + wrap(b"\x04", wrap(b"\x04", bytes(31)))
    with pytest.raises(UsageError, match="not a private key, or of a kind that can't be read"):
        keys.load(wrap(SEQUENCE, b"\x02\x01\x00" + inside))
