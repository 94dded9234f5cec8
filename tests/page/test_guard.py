"""Whom the page answers: the token, the Host, the Origin."""

from __future__ import annotations

import pytest

from estgw.page import guard

TOKEN = "0123456789abcdef0123456789abcdef"


def test_a_token_has_128_random_bits():
    made = {guard.new_token() for _ in range(50)}
    assert len(made) == 50
    assert {len(bytes.fromhex(token)) for token in made} == {16}


def test_the_right_token_is_known():
    assert guard.find_token([f"Bearer {TOKEN}"], {TOKEN: None})
    assert guard.find_token([f"bearer {TOKEN}"], {TOKEN: None})  # RFC 9110 11.1: schemes are compared without case


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        [TOKEN],
        [f"Basic {TOKEN}"],
        ["Bearer "],
        [f"Bearer {TOKEN[:-1]}"],
        [f"Bearer {TOKEN}0"],
        [f"Bearer {TOKEN.upper()}"],
        [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
        ["Bearer \udcff"],
    ],
)
def test_another_token_is_refused(given):
    assert not guard.find_token(given, {TOKEN: None})


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8444", "127.0.0.1:8444", "127.0.0.9", "[::1]:8444", "10.1.2.3:8444", "lab.example:1"],
)
def test_our_own_names_are_known(host):
    assert guard.is_own_host([host], "10.1.2.3", {"lab.example"})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8444",
        "10.1.2.4",
        "localhost:8444:1",
        "user@localhost",
        "localhost/",
        "",
        "[::1",
        "::1",
        "127.0.0.1.evil.example",
        "127.1",
        "0x7f000001",
        "localhost:999999",
        "l\u00f6calhost",
    ],
)
def test_another_host_is_refused(host):
    assert not guard.is_own_host([host], "10.1.2.3", {"lab.example"})


def test_no_host_and_two_hosts_are_refused():
    assert not guard.is_own_host([], "127.0.0.1", set())
    assert not guard.is_own_host(["localhost", "localhost"], "127.0.0.1", set())


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        ("http://127.0.0.1:8444", True),
        ("http://127.0.0.1:8445", False),
        ("https://127.0.0.1:8444", False),
        ("http://localhost:8444", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_our_own_origin_may_post(origin, own):
    assert guard.is_own_origin([origin], "127.0.0.1:8444", "http") is own


def test_a_post_without_an_origin_is_foreign():
    assert not guard.is_own_origin([], "127.0.0.1:8444", "http")
