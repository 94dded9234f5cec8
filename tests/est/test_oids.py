"""Names of object identifiers."""

from __future__ import annotations

import pytest
from cryptography import x509

from estgw.errors import Malformed
from estgw.est import oids

ROWS = oids._ALL


def test_every_number_in_the_table_is_an_object_identifier():
    assert all(x509.ObjectIdentifier(number).dotted_string == number for number in ROWS)


def test_no_name_belongs_to_two_numbers():
    names = [name.lower() for row in ROWS.values() for name in row]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("number", ROWS)
def test_every_name_is_read_in_any_case_and_the_first_is_printed(number):
    for name in ROWS[number]:
        assert {oids.oid_of(each) for each in (name, name.upper(), name.lower())} == {number}
    assert oids.name_of(number) == ROWS[number][0]


# From the registries, for numbers that are easily wrong.
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("challengePassword", "1.2.840.113549.1.9.7"),
        ("id-aa-estIdentityLinking", "1.2.840.113549.1.9.16.2.58"),
        ("certificationRequestInfoTemplate", "1.2.840.113549.1.9.16.2.61"),  # RFC 9908 3.4; some copies have .63
        ("extensionReqTemplate", "1.2.840.113549.1.9.16.2.62"),
        ("id-ExtensionReq", "1.2.840.113549.1.9.14"),
        ("macAddress", "1.3.6.1.1.1.1.22"),
        ("P-384", "1.3.132.0.34"),
        ("prime256v1", "1.2.840.10045.3.1.7"),
        ("ml-dsa-65", "2.16.840.1.101.3.4.3.18"),
        ("ecdsa-with-SHA384", "1.2.840.10045.4.3.3"),
        ("favouriteDrink", "0.9.2342.19200300.100.1.5"),
    ],
)
def test_names_have_the_numbers_of_the_registries(name, number):
    assert oids.oid_of(name) == number


@pytest.mark.parametrize("number", ["2.999.1", "1.2.840.113549.1.9.7", "0.9.2342", "2.5"])
def test_a_dotted_number_is_read_as_itself(number):
    assert oids.oid_of(number) == number


def test_a_number_without_a_name_is_printed_as_the_number():
    assert oids.name_of("2.999.1") == "2.999.1"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("serialNumbr", "'serialNumbr' is no name known here; do you mean serialNumber?"),
        ("zzzzqqqq", "'zzzzqqqq' is no name known here; give it as a dotted number"),
        ("", "'' is no name known here"),
        ("12", "'12' is no name known here"),
        ("1.2.3 ", "not an object identifier: '1.2.3 '"),
        ("9.9.9", "not an object identifier"),
        ("1..2", "not an object identifier"),
        ("1.2.", "not an object identifier"),
        ("1.2.٣", "not an object identifier"),
        ("1.2." + "9" * 1000, "not an object identifier: '1.2.9"),
        ("x" * 1000, "is no name known here"),
    ],
)
def test_an_unknown_name_or_invalid_number_is_refused(text, what):
    with pytest.raises(Malformed) as raised:
        oids.oid_of(text)
    assert what in str(raised.value)
    assert len(str(raised.value)) < 200


def test_curve_of_accepts_curves_and_unknown_numbers_alone():
    assert oids.curve_of("secp256r1") == oids.oid_of("P-256")
    assert oids.curve_of("1.2.3.4") == "1.2.3.4"  # a number without a name here
    for other in ("sha256", "ed25519", "nothing", "1.3.101.112"):
        with pytest.raises(Malformed):
            oids.curve_of(other)


def test_signatures_has_signature_and_digest_algorithms_alone():
    assert {oids.oid_of(name) for name in ("ecdsa-with-SHA256", "sha256", "ed25519", "ml-dsa-44")} <= oids.SIGNATURES
    assert oids.oid_of("ecPublicKey") not in oids.SIGNATURES
    assert oids.DIGESTS["sha3-256"] == "2.16.840.1.101.3.4.2.8"
