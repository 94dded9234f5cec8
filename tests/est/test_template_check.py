"""What a CSR lacks of what is insisted on (RFC 7030 4.5.2, last paragraph)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import example, given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import csrattrs_data
from estgw.est.csr import CSR, NewNames, parse
from estgw.est.csrattrs import TEMPLATE, AttributeWish, CsrAttrs, ExtensionWish, decode_csrattrs
from estgw.est.template_check import TemplateCheck
from tests.est.test_csrattrs import FILES, vector
from tests.kit.ca import name
from tests.kit.csr import challenge, csr, extension_request
from tests.kit.der import CN, IA5, OCTETS, PRINTABLE, SEQUENCE, UTF8, attribute, dn, extension, oid, tlv
from tests.kit.keys import KEY

RSA = rsa.generate_private_key(65537, 2048)
P384, ED25519 = ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()
USAGE, PURPOSES, SAN = "2.5.29.15", "2.5.29.37", "2.5.29.17"
USAGES = x509.KeyUsage(True, False, False, False, True, False, False, False, False)
EKU = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2"), x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")])
NAMES = [
    x509.DNSName("one.example"),
    x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
    x509.RFC822Name("ann@example.org"),
]
DEVICE = parse(
    csr(
        name("2.5.4.5=A-1,OU=Devices,OU=Lab,O=Example,CN=device-1"),
        challenge("secret"),
        attribute("1.2.840.113549.1.9.20", tlv(UTF8, b"hall printer")),
        attribute("1.3.6.1.1.1.1.22", tlv(IA5, b"00:11")),
        extension_request(
            extension(SAN, x509.SubjectAlternativeName(NAMES).public_bytes()),
            extension(USAGE, USAGES.public_bytes()),
            extension(PURPOSES, EKU.public_bytes()),
            extension("1.3.6.1.5.5.7.1.24", bytes.fromhex("3003020105")),
        ),
    )
)
"""A CSR with a bit of everything: P-256, signed with ECDSA and SHA-256."""


def insistence(*wishes: Any) -> TemplateCheck:
    return TemplateCheck.of(csrattrs_data.read(list(wishes), alternatives=True))


def missing(*wishes: Any, csr: CSR = DEVICE, new_names: NewNames | None = None, proves_key: bool = True) -> list[str]:
    return insistence(*wishes).missing(csr, new_names, proves_key=proves_key)


def in_template(*attributes: Any, csr: CSR = DEVICE, **parts: Any) -> list[str]:
    return missing({"template": {**parts, "attributes": list(attributes)}}, csr=csr)


def made(**options: Any) -> CSR:
    return parse(csr("device-1", **options))


# Key and signature.


@pytest.mark.parametrize("form", ["classic", "template"])
@pytest.mark.parametrize(
    ("key", "wanted", "lacks"),
    [
        (KEY, "ec:P-256", []),
        (KEY, "ec", []),
        (KEY, "ec:P-384", ["a key ec:P-384 (it has ec:P-256)"]),
        (KEY, "rsa", ["a key rsa (it has ec:P-256)"]),
        (P384, "ec:P-384", []),
        (RSA, "rsa:2048", []),
        (RSA, "rsa:1024", []),  # longer will do
        (RSA, "rsa", []),
        (RSA, "rsa:3072", ["a key rsa:3072 (it has rsa:2048)"]),
        (RSA, "ec", ["a key ec (it has rsa:2048)"]),
        (ED25519, "ed25519", []),
        (ED25519, "ec:P-256", ["a key ec:P-256 (it has ed25519)"]),
        (KEY, "ml-dsa-65", ["a key ml-dsa-65 (it has ec:P-256)"]),
    ],
)
def test_q7_the_kind_of_key(form, key, wanted, lacks):
    csr = made(key=key)
    assert (missing({"key": wanted}, csr=csr) if form == "classic" else in_template(key=wanted, csr=csr)) == lacks


def test_one_of_several_keys_will_do():
    wanted = [{"key": "ec:P-384"}, {"key": "rsa:2048"}]
    assert missing(*wanted, csr=made(key=RSA)) == missing(*wanted, csr=made(key=P384)) == []
    assert missing(*wanted) == ["a key ec:P-384 or rsa:2048 (it has ec:P-256)"]
    both = [{"key": "ec:P-384"}, {"template": {"key": "ec:P-384"}}]
    assert missing(*both) == ["a key ec:P-384 (it has ec:P-256)"], "said once"


def test_a_key_that_is_named_by_a_bare_oid():
    assert missing("ecPublicKey") == missing("P-256") == []
    assert missing("rsaEncryption") == ["a key rsa (it has ec:P-256)"]
    assert missing("P-384") == ["P-384"]


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        (["ecdsa-with-SHA256"], []),
        (["sha256"], []),
        (["ecdsa-with-SHA384", "sha256"], []),  # one of several
        (["ecdsa-with-SHA384"], ["a signature with ecdsa-with-SHA384 (it has ecdsa-with-SHA256)"]),
        (["sha384", "sha512"], ["a signature with sha384 or sha512 (it has ecdsa-with-SHA256)"]),
        (["ed25519"], ["a signature with ed25519 (it has ecdsa-with-SHA256)"]),
    ],
)
def test_q7_the_signature(wanted, lacks):
    assert missing(*wanted) == lacks


def test_a_signature_without_a_digest():
    assert missing("ed25519", csr=made(key=ED25519)) == []
    assert missing("sha256", csr=made(key=ED25519)) == ["a signature with sha256 (it has ed25519)"]


def test_of_serverkeygens_csr_neither_counts():
    """RFC 7030 4.4.1: its key and signature are ignored."""
    wanted = [{"key": "rsa:3072"}, "sha512", "P-384", {"template": {"key": "ed25519", "subject": ["title"]}}]
    assert missing(*wanted, proves_key=False) == ["title in the subject"]
    assert len(missing(*wanted)) == 4


# Subject.


@pytest.mark.parametrize(
    ("subject", "lacks"),
    [
        (["commonName", "serialNumber"], []),
        ([{"O": "Example"}, {"OU": "Lab"}], []),
        ([{"O": "  EXAMPLE "}], []),  # names are compared as names
        ([{"O": {"printable": "Example"}}], []),
        ([{"OU": "Devices"}, "OU"], []),
        (["OU", {"OU": "Devices"}, "OU"], ["organizationalUnitName in the subject"]),
        (["OU", {"OU": "Lab"}, {"OU": "Devices"}], ["organizationalUnitName in the subject"]),
        ([{"O": "Other"}], ["organizationName=Other in the subject"]),
        (["title", {"C": "DE"}], ["countryName=DE in the subject", "title in the subject"]),
        ([["commonName", "serialNumber"]], []),  # how they are grouped into RDNs does not count
        ([{"2.999.1": {"integer": 5}}], ["2.999.1=5 in the subject"]),
        ([], []),
    ],
)
def test_the_subject(subject, lacks):
    assert in_template(subject=subject) == lacks


# Attributes.


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        ("challengePassword", []),
        ("macAddress", []),
        ("serialNumber", []),  # in the subject
        ("subjectAltName", []),  # among the extensions
        ("estIdentityLinking", ["estIdentityLinking"]),
        ("2.999.1", ["2.999.1"]),
        ({"macAddress": "00:11"}, []),
        ({"friendlyName": "hall printer"}, []),  # another kind of string
        ({"serialNumber": "A-1"}, []),
        ({"serialNumber": "B-2"}, ["serialNumber=B-2"]),
        ({"macAddress": ["00:11", "00:22"]}, ["macAddress=00:22"]),
        ({"2.999.1": []}, ["2.999.1"]),
        ({"2.999.1": {"oid": "P-256"}}, ["2.999.1=P-256"]),
    ],
)
def test_attributes(wanted, lacks):
    assert missing(wanted) == lacks
    assert in_template(wanted) == lacks


# Extensions.


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        ({"keyUsage": "digitalSignature"}, []),  # more is no fault
        ({"keyUsage": ["critical", "keyAgreement"]}, []),  # nor is not being critical
        ({"keyUsage": ["digitalSignature", "cRLSign"]}, ["cRLSign in keyUsage"]),
        ({"extendedKeyUsage": ["serverAuth", "codeSigning"]}, ["codeSigning in extendedKeyUsage"]),
        ({"subjectAltName": ["DNS:ONE.example", "IP:192.0.2.1"]}, []),
        ({"subjectAltName": ["DNS:two.example", "URI:urn:x"]},
         ["DNS:two.example in subjectAltName", "URI:urn:x in subjectAltName"]),
        ({"subjectAltName": ["email:ANN@example.org"]}, ["email:ANN@example.org in subjectAltName"]),
        ({"tlsfeature": {"hex": "3003020105"}}, []),
        ({"tlsfeature": {"hex": "3003020111"}}, ["tlsfeature with the value 3003020111"]),
        ({"basicConstraints": "CA:FALSE"}, ["basicConstraints"]),
    ],
)  # fmt: skip
def test_extensions(wanted, lacks):
    assert missing({"extensions": wanted}) == lacks
    assert in_template({"extensions": wanted}) == lacks


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        ({"keyUsage": None, "subjectAltName": None}, []),
        ({"basicConstraints": None}, ["basicConstraints"]),
        ({"subjectAltName": ["DNS", "IP", "email:ann@example.org"]}, []),
        ({"subjectAltName": ["DNS", "URI"]}, ["URI in subjectAltName"]),
    ],
)
def test_extensions_left_to_the_client(wanted, lacks):
    assert in_template({"extensions": wanted}) == lacks


def test_a_csr_that_asks_for_no_extensions():
    wanted = {"keyUsage": "digitalSignature", "subjectAltName": ["DNS:a", "IP:192.0.2.1"]}
    assert missing({"extensions": wanted}, csr=made()) == ["keyUsage", "subjectAltName"]


def test_an_empty_san_has_nobody_in_it():
    csr = made_with(extension(SAN, b"\x30\0"))
    assert in_template({"extensions": {"subjectAltName": ["DNS"]}}, csr=csr) == ["DNS in subjectAltName"]


def made_with(*extensions: bytes) -> CSR:
    return parse(csr("device-1", extension_request(*extensions)))


# Other names.


def test_where_other_names_are_asked_for_those_count():
    """RFC 6402 2.8: they are what will be issued."""
    names = NewNames(
        x509.Name.from_rfc4514_string("CN=new"), x509.SubjectAlternativeName([x509.DNSName("new.example")])
    )
    wanted = {
        "template": {"subject": [{"CN": "new"}], "attributes": [{"extensions": {"subjectAltName": "DNS:new.example"}}]}
    }
    assert missing(wanted, new_names=names) == []
    assert len(missing(wanted)) == 2
    bare = NewNames(x509.Name.from_rfc4514_string("CN=new"), None)
    assert missing(wanted, new_names=bare) == ["subjectAltName"]


# All of it.


def test_everything_at_once_in_one_sentence():
    wanted = insistence({"key": "ec:P-384"}, "sha384", "title", {"template": {"subject": ["L"]}})
    with pytest.raises(Malformed) as raised:
        wanted.require(DEVICE, None, proves_key=True)
    assert raised.value.sentence == (
        "The CSR lacks what is insisted on here: localityName in the subject; a key ec:P-384 (it has ec:P-256); "
        "a signature with sha384 (it has ecdsa-with-SHA256); title."
    )
    insistence("challengePassword").require(DEVICE, None, proves_key=True)


def test_nothing_is_insisted_on_by_nothing():
    assert missing() == missing({"template": None}) == []


@pytest.mark.parametrize("name", FILES)
def test_every_vector_can_be_insisted_on(name):
    wanted = TemplateCheck.of(decode_csrattrs(vector(name)))
    assert all(wanted.missing(made())) is True


@pytest.mark.parametrize(
    "item",
    [
        AttributeWish(TEMPLATE, (b"\x05\0",)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, ExtensionWish(PURPOSES, False, b"junk").encode()),)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, ExtensionWish(SAN, False, b"").encode()),)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, b"\x05\0"),)),
    ],
)
def test_what_cannot_be_compared_is_found_at_the_start(item):
    with pytest.raises(Malformed):
        TemplateCheck.of(CsrAttrs((item,)))


@pytest.mark.parametrize("kind", [USAGE, PURPOSES, "1.3.6.1.5.5.7.1.24"])
@given(noise=st.binary(max_size=12))
@example(noise=b"0\x00")
def test_noise_in_a_csr_is_refused_or_lacking(kind, noise):
    wanted = {USAGE: "digitalSignature", PURPOSES: "clientAuth", "1.3.6.1.5.5.7.1.24": {"hex": "3003020105"}}
    try:
        csr = made_with(tlv(SEQUENCE, oid(kind), tlv(OCTETS, noise)))
        insistence({"extensions": {kind: wanted[kind]}}).require(csr, None, proves_key=True)
    except Malformed:
        return
    assert missing({"extensions": {kind: wanted[kind]}}, csr=csr) == []


@pytest.mark.parametrize("digest", [hashes.SHA384(), hashes.SHA512()])
def test_longer_digests(digest):
    builder = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string("CN=x"))
    csr = parse(builder.sign(KEY, digest).public_bytes(Encoding.DER))
    assert missing(digest.name, csr=csr) == []
    assert missing("sha256", csr=csr) != []


def test_a_printable_and_a_utf8_string_are_the_same_text():
    parsed = parse(csr(dn((CN, UTF8, b"x"), ("2.5.4.5", PRINTABLE, b"5"))))
    assert in_template(subject=[{"CN": {"printable": "X"}}, {"serialNumber": {"utf8": "5"}}], csr=parsed) == []
