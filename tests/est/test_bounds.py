"""Bounds on names and their attributes."""

from __future__ import annotations

import pytest
from cryptography import x509
from pyasn1_alt_modules import rfc5280

from estgw.errors import Malformed
from estgw.est import certs
from estgw.est.bounds import UPPER_BOUNDS, NameBounds
from tests.kit.ca import name

# The names of the bounds in pyasn1's module of RFC 5280.
UBS = {
    "commonName": "ub_common_name",
    "emailAddress": "ub_emailaddress_length",
    "generationQualifier": "ub_name",
    "givenName": "ub_name",
    "initials": "ub_name",
    "localityName": "ub_locality_name",
    "name": "ub_name",
    "organizationName": "ub_organization_name",
    "organizationalUnitName": "ub_organizational_unit_name",
    "pseudonym": "ub_pseudonym",
    "serialNumber": "ub_serial_number",
    "stateOrProvinceName": "ub_state_name",
    "surname": "ub_name",
    "title": "ub_title",
}
FREE = NameBounds(subject=1 << 20, san=1 << 20)


def named(oid: x509.ObjectIdentifier, text: str) -> x509.Name:
    with certs.without_warnings():
        return x509.Name([x509.NameAttribute(oid, text, _validate=False)])


def refusal(bounds: NameBounds, subject: x509.Name, *san: x509.GeneralName) -> str:
    with pytest.raises(Malformed) as caught:
        bounds.require(subject, x509.SubjectAlternativeName(san) if san else None)
    return str(caught.value)


def test_the_bounds_are_those_of_rfc_5280():
    ours = {name: bound for name, bound in UPPER_BOUNDS.values() if name != "countryName"}
    assert ours == {name: int(getattr(rfc5280, ub)) for name, ub in UBS.items()}
    for oid, (attribute, _) in UPPER_BOUNDS.items():
        known = getattr(rfc5280, f"id_{attribute}", None) or getattr(rfc5280, f"id_at_{attribute}")
        assert oid.dotted_string == str(known), attribute


@pytest.mark.parametrize("oid", UPPER_BOUNDS, ids=lambda oid: UPPER_BOUNDS[oid][0])
def test_an_attribute_longer_than_its_bound_is_refused(oid):
    attribute, bound = UPPER_BOUNDS[oid]
    FREE.require(named(oid, "ü" * bound), None)  # characters, not bytes
    words = refusal(FREE, named(oid, "x" * (bound + 1)))
    assert words.startswith(f"the {attribute} in the subject has {bound + 1} characters, and RFC 5280 allows {bound}; ")
    assert "name_bounds" in words
    NameBounds(attributes=False, subject=1 << 20).require(named(oid, "x" * (bound + 1)), None)


def test_the_bound_applies_to_an_attribute_anywhere_in_a_name():
    long = x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "x" * 65, _validate=False)
    short = x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")
    together = x509.Name([x509.RelativeDistinguishedName([short, long])])
    assert "organizationalUnitName in the subject" in refusal(NameBounds(), together)
    assert "organizationalUnitName in the subject" in refusal(NameBounds(), x509.Name([short, short, long]))
    inside = x509.DirectoryName(x509.Name([short, long]))
    words = refusal(NameBounds(), name("CN=device"), x509.DNSName("a.example"), inside)
    assert "organizationalUnitName in the subject alternative name" in words


@pytest.mark.parametrize("attributes", [True, False])
def test_the_size_of_a_whole_name_is_bounded(attributes):
    """For attributes without a bound in the RFC, for many attributes, and for names other than X.500 names."""
    bounds = NameBounds(attributes=attributes)
    street = named(x509.NameOID.STREET_ADDRESS, "x" * 4096)
    assert refusal(bounds, street) == (
        f"the subject has {len(street.public_bytes())} bytes, and 4096 are allowed here; "
        "the server's setting is max_subject"
    )
    many = x509.Name([x509.NameAttribute(x509.NameOID.DOMAIN_COMPONENT, "x")] * 300)
    assert "max_subject" in refusal(bounds, many)
    hosts = [x509.DNSName(f"{number:04}.example") for number in range(1200)]
    assert "max_san" in refusal(bounds, name("CN=device"), *hosts)
    uri = x509.UniformResourceIdentifier("https://" + "x" * 16384)
    assert "max_san" in refusal(bounds, name("CN=device"), uri)
    bounds.require(name("CN=device"), x509.SubjectAlternativeName(hosts[:1000]))


def test_bounds_survive_writing_and_reading():
    for bounds in (NameBounds(), NameBounds(False, 100, 200)):
        assert NameBounds.parse(bounds.text) == bounds
    assert NameBounds().text == "rfc5280 4096 16384"
