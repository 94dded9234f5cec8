"""Channel bindings: how they travel and how they compare."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.est import binding
from estgw.est.binding import Binding, BindingType

UNIQUE = Binding(BindingType.TLS_UNIQUE, bytes(range(12)))


def test_the_names_that_scripts_see():
    assert [kind.value for kind in BindingType] == ["tls-unique", "tls-exporter", "tls13-finished"]


def test_rfc_9266():
    assert binding.EXPORTER_LABEL == b"EXPORTER-Channel-Binding"
    assert (binding.EXPORTER_LENGTH, binding.EXPORTER_CONTEXT) == (32, b"")


def test_text_is_base64_without_line_breaks():
    assert UNIQUE.text == "AAECAwQFBgcICQoL"
    assert Binding(BindingType.TLS13_FINISHED, bytes(48)).text == "A" * 64


def test_it_matches_itself():
    assert UNIQUE.matches("AAECAwQFBgcICQoL")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_end_is_forgiven(end):
    assert UNIQUE.matches(UNIQUE.text + end)


@pytest.mark.parametrize(
    "claimed",
    [
        "",
        "AAECAwQFBgcICQo",
        "AAECAwQFBgcICQoM",
        "AAECAwQFBgcICQoLx",
        "AAECAwQFBgcICQoL=",
        "AAECAwQFBgcICQoL junk",
        "\nAAECAwQFBgcICQoL",
        "AAECAwQF\nBgcICQoL",
        "aaecawqfbgcicqol",
        "000102030405060708090a0b",
        "ä€𝄞",
    ],
)
def test_anything_else_does_not_match(claimed):
    assert not UNIQUE.matches(claimed)


@given(st.binary(min_size=1), st.text())
def test_nothing_but_the_value_matches(value, claimed):
    text = base64.b64encode(value).decode()
    assert Binding(BindingType.TLS_EXPORTER, value).matches(claimed) == (claimed.rstrip("\r\n") == text)
