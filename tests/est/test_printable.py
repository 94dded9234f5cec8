"""Foreign text is shown without characters that a terminal obeys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estgw.est.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00fc", "plain \u00fc"),
        ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ("\x1b[31m\x00\x9b", "\\x1b[31m\\x00\\x9b"),
        ("\u202e\u2028\ud800", "\\u202e\\u2028\\ud800"),
        ("x" * 501, "x" * 500 + "..."),
        ("x" * 500, "x" * 500),
    ],
)
def test_control_characters_are_escaped_and_long_text_is_cut(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(0, 20))
def test_any_text_becomes_printable_and_bounded(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * 10 + 3
