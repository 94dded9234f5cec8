"""Values in the words of csrattrs.yaml: read, written, and refused with a reason."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import csrattrs_values as values
from estgw.est.csrattrs_values import CODECS, MOST_FAULTS, Unfit, at, collect, read_value, text_of, write_value
from estgw.est.der import decode
from tests.kit.der import BMP, IA5, INTEGER, PRINTABLE, SEQUENCE, UTF8, oid, tlv

SERIAL_NUMBER, MAC_ADDRESS, FRIENDLY_NAME, COMMON_NAME = (
    "2.5.4.5",
    "1.3.6.1.1.1.1.22",
    "1.2.840.113549.1.9.20",
    "2.5.4.3",
)
USAGE, SAN, CONSTRAINTS, PURPOSES = "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"


def words(oid_: str, der: bytes) -> list[str]:
    return CODECS[oid_][1](der)


# Strings and other single values.


@pytest.mark.parametrize(
    ("oid_", "data", "der"),
    [
        (COMMON_NAME, "Zoë", tlv(UTF8, "Zoë".encode())),
        (SERIAL_NUMBER, "A-1", tlv(PRINTABLE, b"A-1")),
        (MAC_ADDRESS, "00:11", tlv(IA5, b"00:11")),
        (FRIENDLY_NAME, "Tür", tlv(BMP, "Tür".encode("utf-16-be"))),
        ("", "x", tlv(UTF8, b"x")),
        ("", "", tlv(UTF8)),
        (COMMON_NAME, {"printable": "x"}, tlv(PRINTABLE, b"x")),
        (SERIAL_NUMBER, {"utf8": "ü"}, tlv(UTF8, "ü".encode())),
        ("", {"ia5": "a@b"}, tlv(IA5, b"a@b")),
        ("", {"bmp": "a"}, tlv(BMP, b"\0a")),
        ("", {"oid": "macAddress"}, oid(MAC_ADDRESS)),
        ("", {"oid": "2.999.1"}, oid("2.999.1")),
        ("", {"integer": 0}, tlv(INTEGER, b"\0")),
        ("", {"integer": 127}, tlv(INTEGER, b"\x7f")),
        ("", {"integer": 128}, tlv(INTEGER, b"\0\x80")),
        ("", {"integer": -1}, tlv(INTEGER, b"\xff")),
        ("", {"integer": 4096}, tlv(INTEGER, b"\x10\0")),
        ("", {"hex": "0500"}, b"\x05\0"),
    ],
)
def test_a_value_is_read_and_written(oid_, data, der):
    assert read_value(data, oid_) == der
    assert write_value(der, oid_) == data


def test_hex_may_have_colons_and_spaces():
    assert read_value({"hex": "30:03 02:01\n05"}) == bytes.fromhex("3003020105")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (5, 'a number; quote it for a text ("5"), or write {integer: 5}'),
        (None, "a text is wanted, or one of utf8, printable"),
        (["x"], "a text is wanted"),
        ({"utf8": "a", "ia5": "b"}, "a text is wanted, or one of"),
        ({"utf9": "a"}, "'utf9' is no kind of value; there are utf8"),
        ({"integer": "5"}, "a whole number is wanted"),
        ({"utf8": 5}, 'a text is wanted; quote it ("5")'),
        ({"utf8": None}, "a text is wanted"),
        ({"oid": "nobody"}, "'nobody' is no name known here"),
        ({"hex": "0"}, "no hex digits, or an odd number of them: '0'"),
        ({"hex": "zz"}, "no hex digits"),
        ({"hex": "050"}, "no hex digits"),
        ({"hex": "050000"}, "not one whole DER value"),
        ({"hex": ""}, "not one whole DER value"),
        ({"printable": "a@b"}, "a PrintableString has no '@' (RFC 5280 A.1)"),
        ({"ia5": "ü"}, "'ü' is no character of this kind of string (ia5)"),
    ],
)
def test_an_invalid_value_is_refused_with_the_reason(data, what):
    with pytest.raises(Malformed) as raised:
        read_value(data)
    assert what in str(raised.value)


@pytest.mark.parametrize(
    "der",
    [
        tlv(0x0C, b"\xff"),  # not UTF-8
        tlv(0x13, b"a@b"),  # not printable
        tlv(0x1E, b"a"),  # half a character
        tlv(0x1E, b"\xd8\0"),  # half a pair
        tlv(0x14, b"T61"),
        tlv(0x06, b"\x80"),
        tlv(INTEGER, b"\0\0\x05"),  # not DER
        tlv(INTEGER),
        tlv(SEQUENCE, b"\x05\0"),
    ],
)
def test_a_value_without_words_is_written_as_hex(der):
    assert write_value(der) == {"hex": der.hex()}


def test_text_of_returns_the_text_of_strings_alone():
    assert [text_of(tlv(tag, b"a")) for tag in (UTF8, PRINTABLE, IA5)] == ["a"] * 3
    assert text_of(tlv(BMP, b"\0a")) == "a"
    assert text_of(tlv(INTEGER, b"\5")) is None
    assert text_of(oid("1.2.3")) is None


@given(st.text(max_size=20), st.sampled_from([COMMON_NAME, SERIAL_NUMBER, MAC_ADDRESS, FRIENDLY_NAME]))
def test_any_text_is_encoded_or_refused(text, oid_):
    try:
        der = read_value(text, oid_)
    except Malformed:
        return
    assert read_value(write_value(der, oid_), oid_) == der


@given(st.binary(max_size=20), st.sampled_from([2, 3, 4, 6, 12, 19, 22, 30, 48]))
def test_any_value_survives_writing_and_reading(content, tag):
    der = tlv(tag, content)
    made = write_value(der)
    try:
        decode(asn1.TLV, der, "a value")
    except Malformed:
        return
    assert read_value(made) == der


# Places of faults.


def test_at_adds_the_place_to_a_fault():
    with pytest.raises(Unfit) as raised, at("a", 1), at("b"):
        raise Malformed("what")
    assert raised.value.faults == ((("a", 1, "b"), "what"),)
    assert str(raised.value) == "what"


def refuse_small(step: int | str, number: int) -> int:
    if number < 5:
        raise Malformed(f"{number} is too small")
    return number * 2


def test_collect_reports_all_faults_at_once():
    assert collect([5, 6], refuse_small) == [10, 12]
    assert collect({"a": 5}, refuse_small) == [10]
    with pytest.raises(Unfit) as raised:
        collect([1, 5, 2], refuse_small)
    assert raised.value.faults == (((0,), "1 is too small"), ((2,), "2 is too small"))


def test_collect_stops_at_the_bound_on_faults():
    asked = []

    def refuse(step, number):
        asked.append(step)
        raise Malformed("no")

    with pytest.raises(Unfit) as raised:
        collect(range(1000), refuse)
    assert len(raised.value.faults) == len(asked) == MOST_FAULTS


# Extensions: our encoding equals the library's.


@pytest.mark.parametrize(
    ("oid_", "made", "extension"),
    [
        (USAGE, ["digitalSignature"], x509.KeyUsage(True, False, False, False, False, False, False, False, False)),
        (
            USAGE,
            ["digitalSignature", "keyAgreement", "decipherOnly"],
            x509.KeyUsage(True, False, False, False, True, False, False, False, True),
        ),
        (
            USAGE,
            ["nonRepudiation", "keyEncipherment", "dataEncipherment", "keyCertSign", "cRLSign"],
            x509.KeyUsage(False, True, True, True, False, True, True, False, False),
        ),
        (PURPOSES, ["clientAuth", "cmcRA"], x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")])),  # noqa: E501
        (PURPOSES, ["1.2.3.4"], x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3.4")])),
        (CONSTRAINTS, ["CA:FALSE"], x509.BasicConstraints(False, None)),
        (CONSTRAINTS, ["CA:TRUE"], x509.BasicConstraints(True, None)),
        (CONSTRAINTS, ["CA:TRUE", "pathlen:0"], x509.BasicConstraints(True, 0)),
        (CONSTRAINTS, ["CA:TRUE", "pathlen:200"], x509.BasicConstraints(True, 200)),
    ],
)  # fmt: skip
def test_an_extension_is_read_and_written_as_the_library_does(oid_, made, extension):
    der = extension.public_bytes()
    assert CODECS[oid_][0](made) == der
    assert words(oid_, der) == made


def test_every_kind_of_general_name_is_read_and_written():
    made = [
        "DNS:host.example",
        "email:ops@example.org",
        "URI:urn:example:1",
        "IP:192.0.2.1",
        "IP:2001:db8::1",
        "RID:1.2.3.4",
        "otherName:1.3.6.1.5.5.7.8.4;0500",
        "dirName:CN=x,O=Example",
    ]
    der = x509.SubjectAlternativeName(
        [
            x509.DNSName("host.example"),
            x509.RFC822Name("ops@example.org"),
            x509.UniformResourceIdentifier("urn:example:1"),
            x509.IPAddress(ipaddress.ip_address("192.0.2.1")),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
            x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4"), b"\x05\0"),
            x509.DirectoryName(x509.Name.from_rfc4514_string("CN=x,O=Example")),
        ]
    ).public_bytes()
    assert CODECS[SAN][0](made) == der
    assert words(SAN, der) == made


def test_a_directory_name_may_use_any_known_attribute_name():
    der = CODECS[SAN][0](["dirName:serialNumber=A-1,CN=x"])
    assert words(SAN, der) == ["dirName:2.5.4.5=A-1,CN=x"]
    assert CODECS[SAN][0](words(SAN, der)) == der


def test_general_names_left_to_the_client_are_empty():
    """RFC 9908 3.4: an empty directoryName, a zero-length iPAddress and so on."""
    made = ["email", "DNS", "URI", "IP", "dirName"]
    assert CODECS[SAN][0](made).hex() == "300c8100820086008700a4023000"
    assert words(SAN, bytes.fromhex("300c8100820086008700a4023000")) == made


@pytest.mark.parametrize(
    ("oid_", "made", "what"),
    [
        (USAGE, ["signing"], "'signing' is no key usage; there are digitalSignature"),
        (PURPOSES, ["nothing"], "'nothing' is no name known here"),
        (CONSTRAINTS, ["CA"], "basicConstraints is CA:FALSE, or CA:TRUE"),
        (CONSTRAINTS, ["pathlen:0"], "basicConstraints is"),
        (CONSTRAINTS, ["CA:TRUE", "CA:TRUE"], "basicConstraints is"),
        (CONSTRAINTS, ["CA:TRUE", "pathlen:x"], "basicConstraints is"),
        (CONSTRAINTS, ["CA:TRUE", "pathlen:٣"], "basicConstraints is"),
        (SAN, ["host.example"], "'host.example' does not begin with email, DNS"),
        (SAN, ["dns:host"], "does not begin with"),
        (SAN, ["DNS:"], "DNS without a value; to leave it to the client, write the kind alone, no colon"),
        (SAN, ["RID"], "RID without a value"),
        (SAN, ["otherName"], "otherName without a value"),
        (SAN, ["DNS:höst"], "DNS: only ASCII goes in there"),
        (SAN, ["IP:192.0.2"], "can't be read as IP"),
        (SAN, ["dirName:nonsense"], "can't be read as dirName: a name is wanted, such as CN=device-1,O=Example"),
        (SAN, ["dirName:nobody=x"], "can't be read as dirName: a name is wanted"),
        (SAN, ["dirName:C=Germany"], "can't be read as dirName: "),
        (SAN, ["otherName:1.2.3;0"], "no hex digits"),
        (SAN, ["otherName:1.2.3"], "not one whole DER value"),
        (SAN, ["RID:nobody"], "is no name known here"),
    ],
)
def test_invalid_words_of_an_extension_are_refused_with_the_reason(oid_, made, what):
    with pytest.raises(Malformed) as raised:
        CODECS[oid_][0](made)
    assert what in str(raised.value)


@pytest.mark.parametrize("oid_", CODECS)
@given(noise=st.binary(max_size=30))
def test_any_bytes_of_an_extension_have_words_or_are_malformed(oid_, noise):
    for der in (
        noise,
        tlv(SEQUENCE, noise),
        tlv(3, noise),
        tlv(SEQUENCE, tlv(0x87, noise)),
        tlv(SEQUENCE, tlv(0xA4, noise)),
    ):
        try:
            assert all(isinstance(word, str) for word in words(oid_, der))
        except Malformed:
            continue


def test_every_key_usage_has_its_own_bit():
    ders = {values.read_usages([usage]) for usage in values._USAGES}
    assert len(ders) == 9
