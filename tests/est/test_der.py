"""The few DER functions that other modules share."""

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
def test_wrap_writes_der_and_length_reads_it(content):
    made = der.wrap(b"\x04", content)
    assert made == tlv(OCTETS, content)
    assert der.length(made) == len(made)
    assert der.length(made + b"more") == len(made)
    assert der.whole(asn1.decode_der(asn1.TLV, made)) == made


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80\0\0", b"\x30\x85\0\0\0\0\1x", b"\x30\xff"])
def test_length_is_none_where_no_definite_length_can_be_read(data):
    assert der.length(data) is None


def test_a_truncated_length_is_read_from_the_bytes_there():
    assert der.length(b"\x30\x82\x01") == 5


def test_elements_of_a_sequence_are_split():
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
def test_bytes_that_are_no_sequence_are_malformed(data):
    with pytest.raises(Malformed, match="not a thing: "):
        der.elements(data, "a thing")


def test_an_attribute_is_decoded_with_any_number_of_values():
    found = der.decode(der.Attribute, attribute("1.2.3", tlv(INTEGER, b"\1"), tlv(INTEGER, b"\2")), "an attribute")
    assert found.type.dotted_string == "1.2.3"
    assert [bytes(value.data) for value in found.values.as_list()] == [b"\1", b"\2"]
    assert der.decode(der.Attribute, attribute("1.2.3"), "an attribute").values.as_list() == []


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_malformed(data):
    for kind in (der.Attribute, der.ContentInfo, asn1.TLV):
        with contextlib.suppress(Malformed):
            der.decode(kind, data, "it")
    try:
        parts = der.elements(data, "it")
    except Malformed:
        return
    assert tlv(SEQUENCE, *(der.whole(part) for part in parts)) == data
