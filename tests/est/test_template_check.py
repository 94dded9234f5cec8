"""The parts of the template that a CSR lacks (RFC 7030 4.5.2, last paragraph)."""

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
"""A CSR with every kind of part: P-256, signed with ECDSA and SHA-256."""


def check_of(*wishes: Any) -> TemplateCheck:
    return TemplateCheck.of(csrattrs_data.read(list(wishes), alternatives=True))


def missing(*wishes: Any, csr: CSR = DEVICE, new_names: NewNames | None = None, proves_key: bool = True) -> list[str]:
    return check_of(*wishes).missing(csr, new_names, proves_key=proves_key)


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
        (RSA, "rsa:1024", []),  # longer is accepted
        (RSA, "rsa", []),
        (RSA, "rsa:3072", ["a key rsa:3072 (it has rsa:2048)"]),
        (RSA, "ec", ["a key ec (it has rsa:2048)"]),
        (ED25519, "ed25519", []),
        (ED25519, "ec:P-256", ["a key ec:P-256 (it has ed25519)"]),
        (KEY, "ml-dsa-65", ["a key ml-dsa-65 (it has ec:P-256)"]),
    ],
)
def test_q7_a_key_of_another_kind_or_too_short_is_lacking(form, key, wanted, lacks):
    csr = made(key=key)
    assert (missing({"key": wanted}, csr=csr) if form == "classic" else in_template(key=wanted, csr=csr)) == lacks


def test_one_of_several_wanted_keys_is_enough():
    wanted = [{"key": "ec:P-384"}, {"key": "rsa:2048"}]
    assert missing(*wanted, csr=made(key=RSA)) == missing(*wanted, csr=made(key=P384)) == []
    assert missing(*wanted) == ["a key ec:P-384 or rsa:2048 (it has ec:P-256)"]
    both = [{"key": "ec:P-384"}, {"template": {"key": "ec:P-384"}}]
    assert missing(*both) == ["a key ec:P-384 (it has ec:P-256)"], "said once"


def test_a_key_may_be_named_by_an_object_identifier_alone():
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
def test_q7_a_signature_with_another_algorithm_is_lacking(wanted, lacks):
    assert missing(*wanted) == lacks


def test_ed25519_satisfies_ed25519_but_no_digest():
    assert missing("ed25519", csr=made(key=ED25519)) == []
    assert missing("sha256", csr=made(key=ED25519)) == ["a signature with sha256 (it has ed25519)"]


def test_key_and_signature_of_a_serverkeygen_csr_are_not_checked():
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
        ([["commonName", "serialNumber"]], []),  # the grouping into RDNs does not count
        ([{"2.999.1": {"integer": 5}}], ["2.999.1=5 in the subject"]),
        ([], []),
    ],
)
def test_a_missing_or_different_part_of_the_subject_is_lacking(subject, lacks):
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
        ({"friendlyName": "hall printer"}, []),  # another string type
        ({"serialNumber": "A-1"}, []),
        ({"serialNumber": "B-2"}, ["serialNumber=B-2"]),
        ({"macAddress": ["00:11", "00:22"]}, ["macAddress=00:22"]),
        ({"2.999.1": []}, ["2.999.1"]),
        ({"2.999.1": {"oid": "P-256"}}, ["2.999.1=P-256"]),
    ],
)
def test_a_missing_or_different_attribute_is_lacking(wanted, lacks):
    assert missing(wanted) == lacks
    assert in_template(wanted) == lacks


# Extensions.


@pytest.mark.parametrize(
    ("wanted", "lacks"),
    [
        ({"keyUsage": "digitalSignature"}, []),  # more usages are accepted
        ({"keyUsage": ["critical", "keyAgreement"]}, []),  # not being critical is accepted
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
def test_a_missing_or_different_extension_is_lacking(wanted, lacks):
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
def test_extensions_left_to_the_client_must_be_there(wanted, lacks):
    assert in_template({"extensions": wanted}) == lacks


def test_a_csr_without_extensions_lacks_each_extension():
    wanted = {"keyUsage": "digitalSignature", "subjectAltName": ["DNS:a", "IP:192.0.2.1"]}
    assert missing({"extensions": wanted}, csr=made()) == ["keyUsage", "subjectAltName"]


def test_an_empty_san_lacks_a_name_left_to_the_client():
    csr = made_with(extension(SAN, b"\x30\0"))
    assert in_template({"extensions": {"subjectAltName": ["DNS"]}}, csr=csr) == ["DNS in subjectAltName"]


def made_with(*extensions: bytes) -> CSR:
    return parse(csr("device-1", extension_request(*extensions)))


# Changed names.


def test_changed_names_are_checked_in_place_of_the_csrs():
    """RFC 6402 2.8: the changed names are those that will be issued."""
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


# The whole check.


def test_the_refusal_lists_everything_that_is_lacking():
    wanted = check_of({"key": "ec:P-384"}, "sha384", "title", {"template": {"subject": ["L"]}})
    with pytest.raises(Malformed) as raised:
        wanted.require(DEVICE, None, proves_key=True)
    assert raised.value.sentence == (
        "The CSR lacks what is insisted on here: localityName in the subject; a key ec:P-384 (it has ec:P-256); "
        "a signature with sha384 (it has ecdsa-with-SHA256); title."
    )
    check_of("challengePassword").require(DEVICE, None, proves_key=True)


def test_an_empty_template_requires_nothing():
    assert missing() == missing({"template": None}) == []


@pytest.mark.parametrize("name", FILES)
def test_every_vector_can_be_a_template_check(name):
    """A CSR that has nothing of it is told about each thing that it lacks, in printable words."""
    wanted = TemplateCheck.of(decode_csrattrs(vector(name)))
    missing = list(wanted.missing(made()))
    assert bool(missing) == (
        name not in ("derived-csrattrs-empty-sequence.b64", "derived-rfc9908-template-minimal.b64")
    )
    assert all(words.isprintable() for words in missing)


@pytest.mark.parametrize(
    "item",
    [
        AttributeWish(TEMPLATE, (b"\x05\0",)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, ExtensionWish(PURPOSES, False, b"junk").encode()),)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, ExtensionWish(SAN, False, b"").encode()),)),
        AttributeWish("1.2.840.113549.1.9.14", (tlv(SEQUENCE, b"\x05\0"),)),
    ],
)
def test_a_template_that_cannot_be_compared_is_refused_when_loaded(item):
    with pytest.raises(Malformed):
        TemplateCheck.of(CsrAttrs((item,)))


@pytest.mark.parametrize("kind", [USAGE, PURPOSES, "1.3.6.1.5.5.7.1.24"])
@given(noise=st.binary(max_size=12))
@example(noise=b"0\x00")
def test_any_bytes_of_an_extension_are_refused_or_lacking(kind, noise):
    wanted = {USAGE: "digitalSignature", PURPOSES: "clientAuth", "1.3.6.1.5.5.7.1.24": {"hex": "3003020105"}}
    try:
        csr = made_with(tlv(SEQUENCE, oid(kind), tlv(OCTETS, noise)))
        check_of({"extensions": {kind: wanted[kind]}}).require(csr, None, proves_key=True)
    except Malformed:
        return
    assert missing({"extensions": {kind: wanted[kind]}}, csr=csr) == []


@pytest.mark.parametrize("digest", [hashes.SHA384(), hashes.SHA512()])
def test_a_longer_digest_satisfies_its_own_name_alone(digest):
    builder = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string("CN=x"))
    csr = parse(builder.sign(KEY, digest).public_bytes(Encoding.DER))
    assert missing(digest.name, csr=csr) == []
    assert missing("sha256", csr=csr) != []


def test_printable_and_utf8_strings_with_the_same_text_are_equal():
    parsed = parse(csr(dn((CN, UTF8, b"x"), ("2.5.4.5", PRINTABLE, b"5"))))
    assert in_template(subject=[{"CN": {"printable": "X"}}, {"serialNumber": {"utf8": "5"}}], csr=parsed) == []
