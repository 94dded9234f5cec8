"""BER to DER: the forms that CMS writers use, and bounds for any other input."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import ber
from tests.kit.der import OCTETS, SEQUENCE, SET, UTF8, oid, tlv


@pytest.mark.parametrize(
    ("given_", "der"),
    [
        ("0500", "0500"),
        ("3080 0000", "3000"),
        ("3080 0201050000", "3003020105"),
        ("3080 3080 020105 0000 0000", "30053003020105"),
        ("a080 0401aa 0000", "a0030401aa"),
        ("2480 0401aa 0402bbcc 0000", "0403aabbcc"),
        ("2480 2480 0401aa 0000 0401bb 0000", "0402aabb"),
        ("2400", "0400"),
        ("308103 020105", "3003020105"),  # longer than needed
        ("30840000 0003 020105", "3003020105"),
        ("04820001 aa", "0401aa"),
        ("3f8101 80 0000", "3f810100"),  # a tag of two octets
    ],
)
def test_ber_becomes_der(given_, der):
    assert ber.to_der(bytes.fromhex(given_)) == bytes.fromhex(der)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_pieces_of_any_length_are_joined_with_a_der_length(size):
    pieces = tlv(OCTETS, bytes(size // 2)) + tlv(OCTETS, bytes(size - size // 2))
    assert ber.to_der(b"\x24\x80" + pieces + b"\0\0") == tlv(OCTETS, bytes(size))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("", "cut off"),
        ("30", "cut off"),
        ("1f81", "cut off"),
        ("3003 0201", "cut off"),
        ("3080 020105", "cut off"),
        ("0480 aa 0000", "a primitive BER value of indefinite length"),
        ("3003 0202 0505", "longer than the one around it"),
        ("2403 020105", "a BER octet string with something else in it"),
        ("0500 00", "1 bytes too many after the end"),
        ("3080 0000 0000", "2 bytes too many"),
        ("30ff" + "01" * 126, "cut off"),
        ("30" + "89" + "ff" * 9, "cut off"),
    ],
)
def test_malformed_ber_is_refused_with_the_reason(data, what):
    with pytest.raises(Malformed) as raised:
        ber.to_der(bytes.fromhex(data))
    assert what in str(raised.value)


def test_ber_nested_deeper_than_the_bound_is_refused():
    def nested(depth: int) -> bytes:
        return b"\x30\x80" * depth + b"\0\0" * depth

    assert ber.to_der(nested(ber.MAXIMUM_DEPTH + 1))
    with pytest.raises(Malformed, match="nested too deeply"):
        ber.to_der(nested(ber.MAXIMUM_DEPTH + 2))
    with pytest.raises(Malformed, match="nested too deeply"):
        ber.to_der(b"\x30\x80" * 1_000_000)


def test_too_many_elements_are_refused_quickly():
    started = time.monotonic()
    with pytest.raises(Malformed, match="too many elements"):
        ber.to_der(b"\x30\x80" + b"\x05\0" * 3_000_000 + b"\0\0")
    assert time.monotonic() - started < 10


_PRIMITIVES = st.builds(lambda tag, content: tlv(tag, content), st.sampled_from([2, 4, 5, 12]), st.binary(max_size=200))
_VALUES = st.recursive(
    _PRIMITIVES,
    lambda inner: st.builds(
        lambda tag, parts: tlv(tag, *parts), st.sampled_from([SEQUENCE, SET, 0xA0]), st.lists(inner)
    ),
    max_leaves=10,
)


@given(_VALUES)
def test_der_is_returned_unchanged(value):
    assert ber.to_der(value) == value


@given(st.lists(_VALUES, max_size=4))
def test_an_indefinite_length_becomes_definite(parts):
    assert ber.to_der(b"\x30\x80" + b"".join(parts) + b"\0\0") == tlv(SEQUENCE, *parts)


@given(st.binary(max_size=60))
def test_any_bytes_are_converted_or_malformed(noise):
    for data in (noise, b"\x30\x80" + noise, b"\x24\x80" + noise):
        try:
            der = ber.to_der(data)
        except Malformed:
            continue
        assert ber.to_der(der) == der


def test_signed_bytes_inside_are_kept():
    signed = tlv(SEQUENCE, oid("1.2.3"), tlv(UTF8, b"x" * 200))
    assert signed in ber.to_der(b"\x30\x80\xa0\x80" + signed + b"\0\0\0\0")
