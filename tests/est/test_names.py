"""Names in certificates: how they are compared, and printed for scripts and logs."""

from __future__ import annotations

import ipaddress
import time

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from estgw.errors import Malformed
from estgw.est import names
from tests.kit.ca import name
from tests.kit.csr import csr
from tests.kit.der import BMP, CN, PRINTABLE, T61, UTF8, dn

UID = "2.5.4.45"
"""uniqueIdentifier: the only attribute whose value is not text."""


def subject(der: bytes) -> x509.Name:
    """A name as it is read from a request."""
    return x509.load_der_x509_csr(csr(der)).subject


def common(tag: int, text: bytes) -> x509.Name:
    return subject(dn((CN, tag, text)))


# Comparing (RFC 5280 7.1).


@pytest.mark.parametrize(
    "other",
    [
        common(PRINTABLE, b"Device One"),
        common(UTF8, b"device ONE"),
        common(UTF8, b"  Device \t  One "),
        common(UTF8, "\N{FULLWIDTH LATIN CAPITAL LETTER D}evice One".encode()),
    ],
)
def test_names_are_equal_whatever_case_space_and_string_type(other):
    assert names.name_key(other) == names.name_key(common(UTF8, b"Device One"))


@pytest.mark.parametrize(
    "other",
    [
        common(UTF8, b"DeviceOne"),
        common(UTF8, b"Device One!"),
        name("O=Device One"),
        name("CN=Device One,O=ours"),
        name("CN=Device One,CN=Device One"),
        x509.Name([]),
    ],
)
def test_different_names_are_not_equal(other):
    assert names.name_key(other) != names.name_key(common(UTF8, b"Device One"))


def test_a_very_long_value_is_folded_quickly():
    """Normalizing takes time that grows with the square of their number: half a minute for 120,000."""
    started = time.process_time()
    assert names.fold("a" + "\u0301\u0316" * 60_000) != names.fold("a" + "\u0316\u0301" * 60_000)
    assert time.process_time() - started < 3


def test_the_order_of_rdns_counts_but_not_the_order_inside_one():
    assert names.name_key(name("CN=a,O=b")) != names.name_key(name("O=b,CN=a"))
    assert names.name_key(name("CN=a+O=b")) == names.name_key(name("O=b+CN=a"))
    assert names.name_key(name("CN=a+O=b")) != names.name_key(name("CN=a,O=b"))


def test_a_value_that_is_not_text_is_compared_and_printed_as_hex():
    bits = subject(dn((UID, 3, b"\0\x01")))
    assert names.name_key(bits) == (frozenset({(UID, "#0001")}),)
    assert names.dn_text(bits) == "2.5.4.45=#0001"


# Subject alternative names.

EVERY_KIND = [
    (x509.DNSName("Host.Example"), "DNS:Host.Example"),
    (x509.RFC822Name("Ann@Example.org"), "email:Ann@Example.org"),
    (x509.UniformResourceIdentifier("urn:x"), "URI:urn:x"),
    (x509.IPAddress(ipaddress.ip_address("192.0.2.1")), "IP:192.0.2.1"),
    (x509.IPAddress(ipaddress.ip_address("2001:db8::1")), "IP:2001:db8::1"),
    (x509.DirectoryName(name("CN=a,O=b")), "dirName:CN=a,O=b"),
    (x509.RegisteredID(x509.ObjectIdentifier("1.2.3")), "RID:1.2.3"),
    (x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\0"), "otherName:1.2.3;0500"),
]


@pytest.mark.parametrize(("entry", "text"), EVERY_KIND)
def test_a_general_name_is_printed_with_its_kind(entry, text):
    assert names.san_text(entry) == text


def test_the_samples_cover_every_kind_of_general_name():
    kinds = {type(entry) for entry, _ in EVERY_KIND}
    assert kinds == set(x509.GeneralName.__subclasses__())


def test_a_new_kind_of_general_name_is_an_error():
    with pytest.raises(AssertionError, match="new kind"):
        names.san_text(object())  # type: ignore[arg-type]


def san(*entries: x509.GeneralName) -> frozenset[tuple[str, str]]:
    return names.san_key(x509.SubjectAlternativeName(entries))


def test_an_empty_san_equals_a_missing_one():
    assert names.san_key(None) == san() == frozenset()


def test_order_and_repetition_in_a_san_do_not_count():
    a, b = x509.DNSName("a"), x509.DNSName("b")
    assert san(a, b) == san(b, a, b)


def test_general_names_of_different_kinds_differ():
    assert len({key for entry, _ in EVERY_KIND for key in san(entry)}) == len(EVERY_KIND)
    assert san(x509.DNSName("x")) != san(x509.UniformResourceIdentifier("x"))


def test_host_names_are_compared_without_case_and_final_dot():
    assert san(x509.DNSName("Host.Example.")) == san(x509.DNSName("host.example"))


def test_only_the_host_of_a_mail_address_is_compared_without_case():
    assert san(x509.RFC822Name("Ann@EXAMPLE.org")) == san(x509.RFC822Name("Ann@example.org"))
    assert san(x509.RFC822Name("ann@example.org")) != san(x509.RFC822Name("Ann@example.org"))


def test_directory_names_are_compared_as_names():
    assert san(x509.DirectoryName(name("CN=A"))) == san(x509.DirectoryName(name("CN=a")))
    assert san(x509.DirectoryName(name("CN=a"))) != san(x509.DirectoryName(name("CN=b")))


def test_san_of_finds_the_san_among_extensions():
    asked = x509.SubjectAlternativeName([x509.DNSName("a")])
    assert names.san_of(x509.Extensions([x509.Extension(asked.oid, False, asked)])) == asked
    assert names.san_of(x509.Extensions([])) is None


# Printing.


def test_dn_text_begins_with_the_most_specific_rdn():
    assert names.dn_text(subject(dn(("2.5.4.10", UTF8, b"Ours"), (CN, UTF8, b"a, b+c")))) == r"CN=a\, b\+c,O=Ours"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\nb", r"CN=a\0Ab"),
        (b"a\rb\x1b[31m", r"CN=a\0Db\1B[31m"),
        ("\u2028\x85".encode(), r"CN=\E2\80\A8\C2\85"),
        ("Zoë €".encode(), "CN=Zoë €"),
    ],
)
def test_control_characters_are_printed_as_hex_pairs(raw, text):
    assert names.dn_text(common(UTF8, raw)) == text


def test_a_nul_is_not_printed_as_is():
    assert "\0" not in names.dn_text(common(UTF8, b"admin\0.evil"))


def test_san_text_escapes_control_characters():
    entry = x509.RFC822Name._init_without_validation("a\n@b")
    assert names.san_text(entry) == r"email:a\0A@b"


@pytest.mark.parametrize(
    ("of", "cn"),
    [
        (name("CN=a,O=b"), "a"),
        (subject(dn((CN, UTF8, b"general"), (CN, UTF8, b"specific"))), "specific"),
        (name("O=b"), None),
        (common(UTF8, b"x\ny"), r"x\0Ay"),
        (common(T61, b"cafe"), "cafe"),
        (common(BMP, "é".encode("utf-16-be")), "é"),
    ],
)
def test_common_name_returns_the_most_specific_text(of, cn):
    assert names.common_name(of) == cn


@given(st.text(st.characters()))
def test_escaped_text_has_no_control_character(text):
    made = names.escape_controls(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000 for char in made)
    if text.isprintable():
        assert made == text


# For `openssl ca -subj`.


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (name("CN=a,O=b"), "/2.5.4.10=b/2.5.4.3=a"),
        (common(UTF8, b"a/CN=evil"), r"/2.5.4.3=a\/CN\=evil"),
        (common(UTF8, rb"a\b+c"), r"/2.5.4.3=a\\b\+c"),
        (x509.Name([]), "/"),
    ],
)
def test_openssl_subject_escapes_slashes_and_signs(of, text):
    assert names.openssl_subject(of) == text


@pytest.mark.parametrize("of", [dn(("1.2.3.4", UTF8, b"x")), dn((UID, 3, b"\0\x01"))])
def test_openssl_subject_refuses_what_openssl_would_drop(of):
    with pytest.raises(Malformed, match="can't be changed to"):
        names.openssl_subject(subject(of))


def test_openssl_subject_keeps_a_multi_valued_rdn():
    made = names.openssl_subject(name("CN=a+O=b"))
    assert made.count("/") == 1
    assert made.count("+") == 1
