"""The little DER that the other rooms share."""

from __future__ import annotations

import contextlib

import pytest
from cryptography.hazmat import asn1
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import der
from tests.kit.der import INTEGER, OCTETS, SEQUENCE, attribute, oid, tlv


@given(st.binary(max_size=70_000))
def test_wrap_and_length(content):
    made = der.wrap(b"\x04", content)
    assert made == tlv(OCTETS, content)
    assert der.length(made) == len(made)
    assert der.length(made + b"more") == len(made)
    assert der.whole(asn1.decode_der(asn1.TLV, made)) == made


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80\0\0", b"\x30\x85\0\0\0\0\1x", b"\x30\xff"])
def test_a_length_that_says_nothing(data):
    assert der.length(data) is None


def test_a_length_that_is_cut_off_is_that_of_what_is_there():
    assert der.length(b"\x30\x82\x01") == 5


def test_elements_of_a_sequence():
    data = tlv(SEQUENCE, tlv(INTEGER, b"\x05"), tlv(OCTETS, b"x" * 300), oid("1.2.3"))
    assert [der.whole(part) for part in der.elements(data, "data")] == [
        tlv(INTEGER, b"\x05"),
        tlv(OCTETS, b"x" * 300),
        oid("1.2.3"),
    ]
    assert der.elements(tlv(SEQUENCE), "data") == []


@pytest.mark.parametrize(
    "data",
    [b"", b"\x30", b"\x31\x00", b"\x30\x01", b"\x30\x00\x00", b"\x30\x80\x00\x00", b"\x30\x81\x00", b"\x30\x01\x05"],
)
def test_what_is_no_sequence(data):
    with pytest.raises(Malformed, match="not a thing: "):
        der.elements(data, "a thing")


def test_attributes():
    found = der.decode(der.Attribute, attribute("1.2.3", tlv(INTEGER, b"\1"), tlv(INTEGER, b"\2")), "an attribute")
    assert found.type.dotted_string == "1.2.3"
    assert [bytes(value.data) for value in found.values.as_list()] == [b"\1", b"\2"]
    assert der.decode(der.Attribute, attribute("1.2.3"), "an attribute").values.as_list() == []


@given(st.binary(max_size=200))
def test_anything_decodes_or_is_malformed(data):
    for kind in (der.Attribute, der.ContentInfo, asn1.TLV):
        with contextlib.suppress(Malformed):
            der.decode(kind, data, "it")
    try:
        parts = der.elements(data, "it")
    except Malformed:
        return
    assert tlv(SEQUENCE, *(der.whole(part) for part in parts)) == data
