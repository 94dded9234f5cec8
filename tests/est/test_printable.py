"""Text from elsewhere: nothing in it can be obeyed."""

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
def test_what_is_shown(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(0, 20))
def test_any_text(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * 10 + 3
