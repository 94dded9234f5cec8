"""Base64, PEM and DER: recognised, decoded and encoded."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import encoding
from estgw.est.encoding import PEMBlock, decode, decode_base64, encode_base64, encode_pem, pem_blocks
from tests.kit.der import INTEGER, OCTETS, SEQUENCE, armoured, tlv, vector

DER = tlv(SEQUENCE, tlv(INTEGER, b"\x05"))
LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


# Base64.


@pytest.mark.parametrize(
    "text", [b"MAMCAQU=", b"MAMC\nAQU=\n", b"MAMC\r\nAQU=\r\n", b" M\tA M C\fA\vQU=", b"\n\n MAMCAQU= \n"]
)
def test_white_space_in_base64_is_ignored(text):
    assert decode_base64(text) == DER


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"MAMC-QU=", "byte 0x2d at offset 4"),
        (b"MAMC_QU=", "byte 0x5f"),
        (b"MAM\nC\0AQU=", "byte 0x00 at offset 4, white space aside"),
        (b"M\xc3\xa4", "byte 0xc3"),
        (b"MAMCAQU", "truncated"),
        (b"MAMCA", "truncated"),
        (b"MA=CAQU=", "truncated"),
        (b"MAMCAQU==", "truncated"),
        (b"====", "truncated"),
    ],
)
def test_invalid_base64_is_refused_with_the_reason(text, words):
    with pytest.raises(Malformed, match=words):
        decode_base64(text)


@given(st.binary())
def test_base64_is_read_as_the_standard_library_does_or_refused(text):
    try:
        found = decode_base64(text)
    except Malformed:
        return
    stripped = bytes(byte for byte in text if byte not in b" \t\r\n\f\v")
    assert found == base64.b64decode(stripped, validate=True)


@given(st.binary(), st.integers(1, 100) | st.none())
def test_any_bytes_survive_base64(data, columns):
    assert decode_base64(encode_base64(data, columns=columns)) == data


def test_base64_has_lines_of_64_columns_each_with_a_line_feed():
    lines = encode_base64(bytes(100)).split(b"\n")
    assert [len(line) for line in lines] == [64, 64, 8, 0]


def test_unbroken_base64_has_no_line_feed():
    assert b"\n" not in encode_base64(bytes(1000), columns=None)


@pytest.mark.parametrize(
    ("file", "length"),
    [
        ("rfc7030-a1-cacerts-response.b64", 4246),
        ("rfc7030-a2-csrattrs-response.b64", 171),
        ("rfc7030-a3-simpleenroll-request.b64", 882),
        ("rfc7030-a3-simpleenroll-response.b64", 1122),
        ("rfc7030-a4-serverkeygen-request.b64", 963),
    ],
)
def test_base64_lines_are_those_of_rfc_7030_appendix_a(file, length):
    body = vector(file)
    assert len(body) == length  # the Content-Length in the RFC
    assert encode_base64(decode_base64(body)) == body


# PEM.


def test_pem_blocks_are_found_in_order_with_text_around_them():
    text = b"Subject: x\n" + encode_pem(DER, "A") + b"between\n" + encode_pem(b"", "B C") + b"after"
    assert pem_blocks(text) == [PEMBlock("A", DER), PEMBlock("B C", b"")]


def test_pem_with_carriage_returns_or_without_line_ends_is_read():
    assert pem_blocks(encode_pem(DER, "A").replace(b"\n", b"\r\n")) == [PEMBlock("A", DER)]
    assert pem_blocks(encode_pem(DER, "A").replace(b"\n", b" ")) == [PEMBlock("A", DER)]


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN A-----\nMAMCAQU=\n",
        b"-----BEGIN A-----\nMAMCAQU=\n-----END B-----\n",
        b"-----END A-----\nMAMCAQU=\n-----BEGIN A-----\n",
        b"-----BEGIN a-----\nMAMCAQU=\n-----END a-----\n",
        b"-----BEGIN " + b"A" * 65 + b"-----\n-----END " + b"A" * 65 + b"-----\n",
    ],
)
def test_text_that_is_no_pem_block_is_ignored(text):
    assert pem_blocks(text) == []


def test_an_unfinished_block_does_not_hide_the_next_one():
    assert pem_blocks(b"-----BEGIN A-----\nMAMC\n" + encode_pem(DER, "B")) == [PEMBlock("B", DER)]


def test_encrypted_pem_is_refused_as_such():
    text = b"-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nMAMCAQU=\n-----END A-----\n"
    with pytest.raises(Malformed, match="A is encrypted or has headers"):
        pem_blocks(text)


def test_bad_base64_in_a_pem_block_is_refused_with_its_label():
    with pytest.raises(Malformed, match="PEM block A: not base64"):
        pem_blocks(b"-----BEGIN A-----\n*\n-----END A-----\n")


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN A-----\n" * 14_000,
        b"-----BEGIN A-----\n" + b"A-----\n" * 40_000,
        b"-----" * 50_000,
        b"-----BEGIN " * 20_000,
        b"-----BEGIN A-----" + b"\n" * 250_000,
        b"".join(b"-----BEGIN %d-----\n" % number for number in range(12_000)),
    ],
)
def test_a_body_full_of_pem_markers_is_read_quickly(text):
    began = time.process_time()
    assert pem_blocks(text) == []
    assert time.process_time() - began < 1


@given(st.binary(), st.from_regex(r"[A-Z0-9][A-Z0-9 ]{0,63}", fullmatch=True))
def test_any_bytes_survive_pem(data, label):
    assert pem_blocks(encode_pem(data, label)) == [PEMBlock(label, data)]


# Recognising the encoding.


@pytest.mark.parametrize(
    "body",
    [
        DER,
        DER + b"\r\n",
        b"\n" + DER,
        b"MAMCAQU=",
        b"MAMCAQU=\r\n",
        b"\r\n MAM CAQU=",
        armoured(DER),
        armoured(DER, "NEW CERTIFICATE REQUEST"),
        b"Certificate Request:\n    Data:\n" + armoured(DER),
        b"\n\n" + armoured(DER).replace(b"\n", b"\r\n"),
    ],
)
def test_der_base64_and_pem_bodies_are_decoded(body):
    assert decode(body, LABELS) == DER


def test_der_that_ends_in_cr_lf_keeps_it():
    der = tlv(SEQUENCE, tlv(OCTETS, b"signature\r\n"))
    assert decode(der, ()) == der
    assert decode(der + b"\r\n", ()) == der


def test_trailing_bytes_are_left_for_the_parser():
    assert decode(DER + b"\r\nx", ()) == DER + b"\r\nx"
    assert decode(DER + b"\n", ()) == DER + b"\n"


def test_der_that_looks_like_base64_is_refused_as_base64():
    with pytest.raises(Malformed, match="base64"):
        decode(b"0000", ())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \r\n\t", "empty"),
        (b"hello, world", "not base64: byte 0x2c"),
        (b"\x31\x02\x05\x00", "not base64: byte 0x02"),
        (b"MAMCAQ", "truncated base64"),
        (base64.b64encode(b"junk"), "base64 of something that is not a DER SEQUENCE"),
        (b"=", "truncated base64"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMAMC", "does not end"),
        (armoured(DER, "CERTIFICATE"), "one PEM block CERTIFICATE REQUEST is wanted; the body has: CERTIFICATE"),
        (armoured(DER) * 2, "has: CERTIFICATE REQUEST, CERTIFICATE REQUEST"),
    ],
)
def test_an_unreadable_body_is_refused_with_the_reason(body, words):
    with pytest.raises(Malformed, match=words):
        decode(body, LABELS)


def test_without_labels_any_pem_block_but_a_key_is_accepted():
    assert decode(armoured(DER, "X509 CRL"), ()) == DER
    with pytest.raises(Malformed, match="no key"):
        decode(armoured(DER, "EC PRIVATE KEY"), ())


def test_a_refusal_lists_only_the_first_of_many_blocks():
    with pytest.raises(Malformed) as refusal:
        decode(armoured(DER, "CERTIFICATE") * 500, LABELS)
    assert len(str(refusal.value)) < 400


@given(st.binary(max_size=400) | st.text("MA=0-BEGIN CERTIFICATE\r\n").map(str.encode))
@example(b"0")
@example(b"0" * 4)
@example(b"0-----BEGIN A-----\n\n-----END A-----")
def test_any_body_is_decoded_or_malformed(body):
    for labels in ((), LABELS):
        try:
            der = decode(body, labels)
        except Malformed as fault:
            assert str(fault).isprintable()
        else:
            assert der[:1] == b"\x30" or b"-----BEGIN" in body


def test_pem_has_lines_of_64_columns_between_its_markers():
    assert encode_pem(DER, "X").splitlines() == [b"-----BEGIN X-----", b"MAMCAQU=", b"-----END X-----"]
    assert encoding.encode_pem(bytes(60), "X").splitlines()[1] == b"A" * 64
