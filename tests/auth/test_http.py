"""What an Authorization header claims; `test_passwords` has the table of those that can be read."""

from __future__ import annotations

import base64

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from estgw.auth import http
from estgw.errors import Unauthenticated


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])), st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_what_a_client_sends_is_what_is_read(user, password):
    name = user.replace(":", "")
    found = http.parse([f"Basic {encoded(f'{name}:{password}')}"])
    if len(encoded(f"{name}:{password}")) < 4000:
        assert found is not None
        assert (found.username, found.password) == (name, password)


@given(
    st.lists(
        st.text()
        | st.text().map(lambda rest: f"Basic {rest}")
        | st.binary().map(lambda raw: f"basic {base64.b64encode(raw).decode()}")
        | st.text('=",abcdeurnlisp 0129').map(lambda rest: f"Digest {rest}"),
        max_size=2,
    )
)
@example(["Basic \udcff"])
@example(["Digest username"])
@example(["\x00"])
def test_any_header_is_a_claim_or_a_401(headers):
    try:
        found = http.parse(headers)
    except Unauthenticated as refusal:
        assert refusal.public == ""
        return
    assert (found is None) is (headers == [])
    if found is not None:
        assert found.scheme in ("Basic", "Digest")
        assert not any(ord(char) < 0x20 for char in found.username + (found.password or ""))


def test_a_header_of_the_greatest_length():
    token = encoded("a:" + "x" * 3000)
    longest = f"Basic {token}".ljust(http.MAXIMUM_HEADER)
    assert http.parse([longest]) is not None
    with pytest.raises(Unauthenticated):
        http.parse([longest + " "])


@pytest.mark.parametrize(("scheme", "named"), [("Bearer", True), ("negotiate", True), ("hunter2", False)])
def test_a_word_that_may_be_a_password_stays_out_of_the_log(scheme, named):
    with pytest.raises(Unauthenticated, match="scheme not offered") as refusal:
        http.parse([f"{scheme} abc"])
    assert (scheme in str(refusal.value)) is named


def test_the_challenge():
    assert http.basic_challenge("estrealm") == 'Basic realm="estrealm"'
