"""csrattrs.yaml as data: reading and writing keep every byte, and each fault has its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import csrattrs, csrattrs_data
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish, NamePart, Template, decode_csrattrs
from estgw.est.csrattrs_values import Unfit
from tests.est.test_csrattrs import EXAMPLES, FILES, example, vector
from tests.kit.der import BMP, IA5, INTEGER, OCTETS, PRINTABLE, SEQUENCE, UTF8, attribute, oid, tlv

CHALLENGE_PASSWORD, SERIAL_NUMBER, COMMON_NAME = "1.2.840.113549.1.9.7", "2.5.4.5", "2.5.4.3"
USAGE, SAN, TLS_FEATURE = "2.5.29.15", "2.5.29.17", "1.3.6.1.5.5.7.1.24"
P256 = "1.2.840.10045.3.1.7"


def read(*wishes: Any) -> CsrAttrs:
    return csrattrs_data.read(list(wishes))


def faults(*wishes: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(Unfit) as raised:
        read(*wishes)
    return list(raised.value.faults)


def fault(*wishes: Any) -> tuple[tuple[str | int, ...], str]:
    """The only fault."""
    (found,) = faults(*wishes)
    return found


def template(data: Any) -> Template:
    found = read({"template": data}).template
    assert found is not None
    return found


# Published examples.


@pytest.mark.parametrize("name", FILES)
def test_every_vector_survives_writing_and_reading(name):
    attrs = decode_csrattrs(vector(name))
    assert csrattrs_data.read(csrattrs_data.write(attrs)).encode() == vector(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_survives_writing_and_reading(name):
    assert csrattrs_data.read(csrattrs_data.write(example(name))) == example(name)


def test_a_template_beside_the_classic_form_is_put_into_words():
    assert csrattrs_data.write(example("a template beside the old style")) == [
        "challengePassword",
        {"key": "ec:P-256"},
        "ecdsa-with-SHA256",
        {
            "template": {
                "subject": ["commonName", {"organizationalUnitName": "myDept"}, {"organizationalUnitName": "myGroup"}],
                "key": "ec:P-256",
                "attributes": [
                    {
                        "extensions": {
                            "subjectAltName": ["DNS:www.myServer.com", "IP"],
                            "keyUsage": ["critical", "digitalSignature", "keyAgreement"],
                            "extendedKeyUsage": None,
                        }
                    }
                ],
            }
        },
    ]


# Single wishes.


@pytest.mark.parametrize(
    ("wish", "der"),
    [
        ("challengePassword", oid(CHALLENGE_PASSWORD)),
        ("1.2.840.113549.1.9.7", oid(CHALLENGE_PASSWORD)),
        ({"key": "ec:P-256"}, attribute("1.2.840.10045.2.1", oid(P256))),
        ({"key": "rsa:4096"}, attribute("1.2.840.113549.1.1.1", tlv(INTEGER, b"\x10\0"))),
        ({"friendlyName": "hi"}, attribute("1.2.840.113549.1.9.20", tlv(BMP, b"\0h\0i"))),
        ({"macAddress": "00:11"}, attribute("1.3.6.1.1.1.1.22", tlv(IA5, b"00:11"))),
        ({"serialNumber": {"utf8": "1"}}, attribute(SERIAL_NUMBER, tlv(UTF8, b"1"))),
        ({"2.999.1": ["b", "a"]}, attribute("2.999.1", tlv(UTF8, b"a"), tlv(UTF8, b"b"))),  # DER's order
        ({"2.999.1": []}, attribute("2.999.1")),
        ({"2.999.1": {"oid": "P-256"}}, attribute("2.999.1", oid(P256))),
        ({"hex": "06032a0304"}, oid("1.2.3.4")),
        ({"hex": "3007 06032a0304 3100"}, attribute("1.2.3.4")),
        (
            {"extensions": {"keyUsage": ["critical", "digitalSignature"], "tlsfeature": {"hex": "3003020105"}}},
            attribute(
                csrattrs.EXTENSION_REQUEST,
                tlv(
                    SEQUENCE,
                    tlv(SEQUENCE, oid(USAGE), b"\x01\x01\xff", tlv(OCTETS, b"\x03\x02\x07\x80")),
                    tlv(SEQUENCE, oid(TLS_FEATURE), tlv(OCTETS, bytes.fromhex("3003020105"))),
                ),
            ),
        ),
        ({"extensionRequest": {"oid": "macAddress"}}, attribute(csrattrs.EXTENSION_REQUEST, oid("1.3.6.1.1.1.1.22"))),
        ({"template": None}, attribute(csrattrs.TEMPLATE, bytes.fromhex("3005020100a100"))),
        ({"template": {}}, attribute(csrattrs.TEMPLATE, bytes.fromhex("3005020100a100"))),
    ],
)  # fmt: skip
def test_a_wish_is_encoded(wish, der):
    assert read(wish).encode() == tlv(SEQUENCE, der)


def test_wishes_keep_their_order():
    assert read("serialNumber", "challengePassword").oids == (SERIAL_NUMBER, CHALLENGE_PASSWORD)


@pytest.mark.parametrize(
    ("wish", "loc", "what"),
    [
        (None, (0,), "a name or number is wanted here, or one with a colon and its value"),
        (5, (0,), "a name or number is wanted here"),
        (["x"], (0,), "a name or number is wanted here"),
        ({}, (0,), "a name or number is wanted here"),
        ({"a": "b", "c": "d"}, (0,), "a name or number is wanted here"),
        ("serialNumbr", (0,), "do you mean serialNumber?"),
        ({"serialNumbr": "x"}, (0, "serialNumbr"), "do you mean serialNumber?"),
        ({"serialNumber": None}, (0, "serialNumber"), "there is a colon and no value; leave the colon out"),
        ({"serialNumber": "a@b"}, (0, "serialNumber"), "a PrintableString has no '@'"),
        ({"2.999.1": ["x", 5]}, (0, "2.999.1", 1), "a number; quote it"),
        ({"key": "ec:P-1"}, (0, "key"), "is no name known here"),
        ({"subject": ["CN"]}, (0, "subject"), "not here"),
        ({"hex": "zz"}, (0, "hex"), "no hex digits"),
        ({"hex": "0500"}, (0, "hex"), "neither OID nor Attribute"),
        ({"hex": ""}, (0, "hex"), "one whole DER value is wanted"),
        ({"hex": "06012a06012a"}, (0, "hex"), "one whole DER value is wanted"),
        ({"extensions": None}, (0, "extensions"), "extensions are wanted here"),
        ({"extensions": ["keyUsage"]}, (0, "extensions"), "extensions are wanted here"),
        ({"extensions": {"keyUsag": "x"}}, (0, "extensions", "keyUsag"), "do you mean keyUsage?"),
        ({"extensions": {"keyUsage": "sign"}}, (0, "extensions", "keyUsage"), "is no key usage"),
        ({"extensions": {"keyUsage": []}}, (0, "extensions", "keyUsage"), "an empty list; leave the value out"),
        ({"extensions": {"keyUsage": [5]}}, (0, "extensions", "keyUsage"), "texts are wanted here"),
        ({"extensions": {"tlsfeature": "status_request"}}, (0, "extensions", "tlsfeature"), "give its DER as {hex"),
        ({"extensions": {"keyUsage": None}}, (0, "extensions"), "only a template can leave the value"),
        ({"extensions": {"subjectAltName": "DNS"}}, (0, "extensions"), "only a template can leave the value"),
        ({"extensions": {"keyUsage": "cRLSign", USAGE: "cRLSign"}}, (0, "extensions"), "stands here twice"),
    ],
)
def test_an_invalid_wish_is_refused_with_its_place(wish, loc, what):
    where, said = fault(wish)
    assert where == loc
    assert what in said


def test_all_faults_are_reported_at_once():
    assert [where for where, _ in faults("nobody", "serialNumber", {"key": "x"}, {"template": {"key": "y"}})] == [
        (0,),
        (2, "key"),
        (3, "template", "key"),
    ]


@pytest.mark.parametrize("data", [None, "serialNumber", {"key": "ec"}, 5])
def test_data_that_is_not_a_list_is_refused(data):
    with pytest.raises(Malformed, match="a list of wishes is wanted"):
        csrattrs_data.read(data)


@pytest.mark.parametrize("word", ["key", "extensions", "template"])
def test_a_second_key_extensions_or_template_is_refused(word):
    """RFC 9908 3.2 and 3.4."""
    wish = {"key": {"key": "ec"}, "extensions": {"extensions": {"keyUsage": "cRLSign"}}, "template": {"template": None}}
    assert fault(wish[word], "serialNumber", wish[word]) == ((2,), f"a second {word}, and RFC 9908 3 has room for one")


def test_alternatives_allow_several_keys_but_no_second_template():
    wishes = [{"key": "ec:P-256"}, {"key": "rsa:3072"}]
    assert len(csrattrs_data.read(wishes, alternatives=True).attributes) == 2
    with pytest.raises(Malformed):
        csrattrs_data.read([*wishes, {"template": None}, {"template": None}], alternatives=True)


# Templates (RFC 9908 3.4).


def test_a_template_subject_has_given_and_open_parts():
    assert template({"subject": ["CN", {"O": "Example"}, {"serialNumber": None}, ["OU", {"L": "Here"}]]}).subject == (
        (NamePart(COMMON_NAME),),
        (NamePart("2.5.4.10", tlv(UTF8, b"Example")),),
        (NamePart(SERIAL_NUMBER),),
        (NamePart("2.5.4.11"), NamePart("2.5.4.7", tlv(UTF8, b"Here"))),
    )
    assert template({"subject": []}).subject == ()
    assert template({"subject": None}).subject is None


def test_a_template_has_a_key_and_attributes():
    found = template({"key": "ec", "attributes": ["challengePassword", {"friendlyName": "x"}, "serialNumber"]})
    assert found.key == KeyWish("1.2.840.10045.2.1")
    assert {one.oid: len(one.values) for one in found.attributes} == {
        SERIAL_NUMBER: 0,
        CHALLENGE_PASSWORD: 0,
        "1.2.840.113549.1.9.20": 1,
    }


def test_extensions_without_a_value_use_the_template_type():
    closed = template({"attributes": [{"extensions": {"keyUsage": "digitalSignature"}}]})
    assert [one.oid for one in closed.attributes] == [csrattrs.EXTENSION_REQUEST]
    for words in (None, ["critical"], "critical"):
        left = template({"attributes": [{"extensions": {"keyUsage": words}}]})
        assert [one.oid for one in left.attributes] == [csrattrs.EXTENSION_TEMPLATE]
        assert csrattrs.extensions(left.attributes) == (ExtensionWish(USAGE, words is not None),)
    san = template({"attributes": [{"extensions": {"subjectAltName": ["DNS:a", "IP"]}}]})
    assert [one.oid for one in san.attributes] == [csrattrs.EXTENSION_TEMPLATE]


def test_template_attributes_are_sorted_unless_as_written():
    names = ["challengePassword", "serialNumber"]
    assert template({"attributes": names}) == template({"attributes": names[::-1]})
    written = {"attributes": names, "order": "as written"}
    assert [one.oid for one in template(written).attributes] == [CHALLENGE_PASSWORD, SERIAL_NUMBER]
    assert csrattrs_data.write(read({"template": written})) == [{"template": written}]
    assert csrattrs_data.write(read({"template": {"attributes": names}})) == [{"template": {"attributes": names[::-1]}}]


@pytest.mark.parametrize(
    ("data", "loc", "what"),
    [
        ("x", (), "a template is wanted here: subject, key, attributes, each with a colon"),
        (["CN"], (), "a template is wanted here"),
        ({"subjct": []}, ("subjct",), "this is no part of a template"),
        ({"subject": "CN"}, ("subject",), "a list is wanted here"),
        ({"subject": [5]}, ("subject", 0), "a name or number is wanted here"),
        ({"subject": ["CN", "nobody"]}, ("subject", 1), "is no name known here"),
        ({"subject": [[]]}, ("subject", 0), "an empty RDN"),
        ({"subject": [["CN", "nobody"]]}, ("subject", 0, 1), "is no name known here"),
        ({"subject": [{"C": "ö"}]}, ("subject", 0, "C"), "a PrintableString has no"),
        ({"key": "x"}, ("key",), "is no kind of key"),
        ({"attributes": "x"}, ("attributes",), "a list is wanted here"),
        ({"attributes": [{"key": "ec"}]}, ("attributes", 0, "key"), "stands beside the template's attributes"),
        ({"attributes": [{"template": {}}]}, ("attributes", 0, "template"), "stands beside"),
        ({"attributes": [{"hex": "06012a"}]}, ("attributes", 0), "an Attribute is wanted here"),
        ({"attributes": [None]}, ("attributes", 0), "a name or number is wanted here"),
        ({"order": "mine"}, ("order",), "there is no order but 'as written'"),
        (
            {"attributes": [{"extensions": {"keyUsage": None}}, {"extensionRequest": {"keyUsage": "cRLSign"}}]},
            ("attributes",),
            "exclude each other (RFC 9908 3.4)",
        ),
    ],
)
def test_an_invalid_template_is_refused_with_its_place(data, loc, what):
    where, said = fault({"template": data})
    assert where == (0, "template", *loc)
    assert what in said


# Anything that a server sends can be written in words.

_OIDS = st.sampled_from(
    [CHALLENGE_PASSWORD, SERIAL_NUMBER, "2.999.1", P256, "1.2.840.10045.2.1", "1.2.840.113549.1.1.1",
     csrattrs.EXTENSION_REQUEST, csrattrs.EXTENSION_TEMPLATE, "1.3.101.112"]
)  # fmt: skip
_EXTENSIONS = st.lists(
    st.builds(
        ExtensionWish,
        st.sampled_from([USAGE, SAN, "2.5.29.19", "2.5.29.37", TLS_FEATURE, "2.999.7"]),
        st.booleans(),
        st.none() | st.sampled_from([b"\x03\x02\x07\x80", b"\x03\x01\0", b"\x30\0", b"\x30\x02\x82\0", b"", b"junk"]),
    ),
    max_size=3,
).map(lambda wishes: tlv(SEQUENCE, *(wish.encode() for wish in wishes)))
_VALUES = (
    st.sampled_from(
        [b"\x05\0", tlv(UTF8, b"a"), tlv(PRINTABLE, b"a"), tlv(SEQUENCE), oid(P256), tlv(INTEGER, b"\x10\0")]
    )
    | _EXTENSIONS
    | st.text(max_size=5).map(lambda text: tlv(UTF8, text.encode()))
)
_ATTRIBUTES = st.builds(AttributeWish, _OIDS, st.lists(_VALUES, max_size=3).map(csrattrs.set_of))
_PARTS = st.builds(NamePart, _OIDS, st.none() | _VALUES)
_RDNS = st.lists(_PARTS, min_size=1, max_size=2).map(lambda parts: tuple(sorted(parts, key=NamePart.encode)))
_TEMPLATES = st.builds(
    Template,
    st.none() | st.lists(_RDNS, max_size=3).map(tuple),
    st.none() | st.builds(KeyWish, _OIDS, st.none() | _VALUES),
    st.lists(_ATTRIBUTES, max_size=3).map(tuple),
)


@given(st.lists(_OIDS | _ATTRIBUTES, max_size=5).map(tuple), st.none() | _TEMPLATES)
def test_any_csrattrs_survive_writing_and_reading(items, template):
    if template is not None:
        items = (*items, AttributeWish(csrattrs.TEMPLATE, (template.encode(),)))
    attrs = CsrAttrs(items)
    assert csrattrs_data.read(csrattrs_data.write(attrs)) == attrs


@given(st.lists(st.sampled_from([b"\x31\0", b"\x30\0", tlv(UTF8, b"b"), tlv(UTF8, b"a"), b"\x05\0"]), max_size=4))
def test_values_out_of_order_survive_writing_and_reading(values):
    attrs = CsrAttrs((AttributeWish("2.999.1", tuple(values)), AttributeWish(csrattrs.TEMPLATE, tuple(values))))
    assert csrattrs_data.read(csrattrs_data.write(attrs)) == attrs


_DATA = st.recursive(
    st.none()
    | st.integers()
    | st.sampled_from(["key", "ec", "template", "hex", "DNS", "critical", "", "2.5.4.3", "CN"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "key",
                    "template",
                    "subject",
                    "attributes",
                    "extensions",
                    "hex",
                    "order",
                    "keyUsage",
                    "SAN",
                    "CN",
                    "utf8",
                    "integer",
                    "oid",
                    "friendlyName",
                    "algorithm",
                    "parameters",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(st.lists(_DATA, max_size=4))
def test_any_data_is_read_or_refused(data):
    try:
        attrs = csrattrs_data.read(data)
    except Malformed:
        return
    assert csrattrs_data.read(csrattrs_data.write(attrs)) == attrs
