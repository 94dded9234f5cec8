"""Reading the Authorization header. `test_passwords` has the table of headers that can be read."""

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
def test_basic_credentials_are_read_as_the_client_sent_them(user, password):
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
def test_any_header_is_read_or_refused_with_401(headers):
    try:
        found = http.parse(headers)
    except Unauthenticated as refusal:
        assert refusal.public == ""
        return
    assert (found is None) is (headers == [])
    if found is not None:
        assert found.scheme in ("Basic", "Digest")
        assert not any(ord(char) < 0x20 for char in found.username + (found.password or ""))


def test_a_header_longer_than_the_bound_is_refused():
    token = encoded("a:" + "x" * 3000)
    longest = f"Basic {token}".ljust(http.MAXIMUM_HEADER)
    assert http.parse([longest]) is not None
    with pytest.raises(Unauthenticated):
        http.parse([longest + " "])


@pytest.mark.parametrize(("scheme", "named"), [("Bearer", True), ("negotiate", True), ("hunter2", False)])
def test_the_log_names_known_schemes_but_not_a_possible_password(scheme, named):
    with pytest.raises(Unauthenticated, match="scheme not offered") as refusal:
        http.parse([f"{scheme} abc"])
    assert (scheme in str(refusal.value)) is named


def test_the_basic_challenge_names_the_realm():
    assert http.basic_challenge("estrealm") == 'Basic realm="estrealm"'
