"""The cache of answers: its keys, its lifetime, its bounds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import MappingProxyType

import pytest

from estgw.callout import cache
from estgw.callout.cache import Cache
from estgw.callout.cgi import Output
from estgw.callout.contract import ENV_VARS
from estgw.callout.environment import environment_of
from tests.callout.calls import client, full, plain
from tests.kit.scripts import script

HERE = MappingProxyType({"EST_OPERATION": "cacerts", "REMOTE_ADDR": "192.0.2.1"})
KEEP = Output(b"body", keep=60)


@pytest.fixture
def program(tmp_path):
    return script(tmp_path, "echo body")


def kept(program: Path, output: Output = KEEP) -> Cache:
    made = Cache()
    made.put(program, HERE, output)
    return made


def test_a_kept_answer_is_given_again(program):
    assert kept(program).get(program, HERE) is KEEP


def test_an_answer_without_keep_is_not_cached(program):
    assert kept(program, Output(b"body")).get(program, HERE) is None


@pytest.mark.parametrize("name", [row.name for row in ENV_VARS if row.passing])
def test_a_variable_of_one_request_does_not_change_the_key(program, name):
    assert kept(program).get(program, {**HERE, name: "another"}) is KEEP


@pytest.mark.parametrize("name", ["REMOTE_ADDR", "REMOTE_USER", "EST_CLIENT_CERT_SHA256", "HTTP_USER_AGENT", "POLICY"])
def test_any_other_variable_changes_the_key(program, name):
    assert kept(program).get(program, {**HERE, name: "another"}) is None


def test_two_requests_of_one_client_share_an_answer(tmp_path, program):
    first, again = (
        environment_of(plain(tmp_path / one, request_id=one, client=client(port=port)))
        for one, port in (("1", 40000), ("2", 40001))
    )
    made = Cache()
    made.put(program, first, KEEP)
    assert made.get(program, again) is KEEP
    assert made.get(program, environment_of(full(tmp_path, "cacerts"))) is None


def test_environments_with_the_same_repr_have_different_keys(program):
    made = Cache()
    made.put(program, {"A": "1', 'B': '2"}, KEEP)
    assert made.get(program, {"A": "1", "B": "2"}) is None


def test_an_edited_script_loses_its_cached_answer(program):
    made = kept(program)
    program.write_text("#!/bin/bash\necho more\n")
    assert made.get(program, HERE) is None


def test_a_removed_script_loses_its_cached_answer(program):
    made = kept(program)
    program.unlink()
    assert made.get(program, HERE) is None


def test_a_cached_answer_expires_after_its_time(program, monkeypatch):
    made = kept(program)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 59)
    assert made.get(program, HERE) is KEEP
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert made.get(program, HERE) is None
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert made.get(program, HERE) is None


def test_a_newer_answer_replaces_the_old_one(program):
    made = kept(program)
    newer = Output(b"newer", keep=1)
    made.put(program, HERE, newer)
    assert made.get(program, HERE) is newer


def test_the_oldest_answers_are_dropped_first(program, monkeypatch):
    monkeypatch.setattr(cache, "MAXIMUM_ANSWERS", 3)
    made = Cache()
    for query in "abcd":
        made.put(program, {"QUERY_STRING": query}, KEEP)
    assert [made.get(program, {"QUERY_STRING": query}) for query in "abcd"] == [None, KEEP, KEEP, KEEP]


def test_the_bytes_of_all_answers_are_bounded(program, monkeypatch):
    monkeypatch.setattr(cache, "MAXIMUM_BYTES", 10)
    made = Cache()
    for query, size in (("a", 6), ("b", 4), ("c", 5), ("d", 11)):
        made.put(program, {"QUERY_STRING": query}, Output(bytes(size), keep=60))
    there = [query for query in "abcd" if made.get(program, {"QUERY_STRING": query})]
    assert there == ["b", "c"]


def test_a_value_that_is_not_unicode_is_cached(program):
    odd = {"HTTP_X": os.fsdecode(b"\xff")}
    made = Cache()
    made.put(program, odd, KEEP)
    assert made.get(program, odd) is KEEP
