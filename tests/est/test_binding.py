"""Channel bindings: how they are sent and compared."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.est import binding
from estgw.est.binding import Binding, BindingType

UNIQUE = Binding(BindingType.TLS_UNIQUE, bytes(range(12)))


def test_binding_types_have_the_names_that_scripts_see():
    assert [kind.value for kind in BindingType] == ["tls-unique", "tls-exporter", "tls13-finished"]


def test_the_exporter_has_the_label_of_rfc_9266():
    assert binding.EXPORTER_LABEL == b"EXPORTER-Channel-Binding"
    assert (binding.EXPORTER_LENGTH, binding.EXPORTER_CONTEXT) == (32, b"")


def test_the_text_is_base64_without_line_breaks():
    assert UNIQUE.text == "AAECAwQFBgcICQoL"
    assert Binding(BindingType.TLS13_FINISHED, bytes(48)).text == "A" * 64


def test_a_binding_matches_its_own_text():
    assert UNIQUE.matches("AAECAwQFBgcICQoL")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_end_after_the_text_is_accepted(end):
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
def test_any_other_text_does_not_match(claimed):
    assert not UNIQUE.matches(claimed)


@given(st.binary(min_size=1), st.text())
def test_only_the_base64_of_the_value_matches(value, claimed):
    text = base64.b64encode(value).decode()
    assert Binding(BindingType.TLS_EXPORTER, value).matches(claimed) == (claimed.rstrip("\r\n") == text)
