"""workshop.yaml and the commands that need no workshop to run."""

from __future__ import annotations

import re

import pytest

from estgw.cli import workshop as commands
from estgw.errors import ConfigError
from estgw.workshop import checking, inside, plan, standings
from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import Workshop
from tests.kit.processes import ROOT

GOOD = "participants: 3\nnames: [est.lab.example, 192.0.2.10]\n"


def load(tmp_path, text: str) -> Workshop:
    (tmp_path / plan.FILE).write_text(text)
    return plan.load(tmp_path)


def test_what_is_written_is_read_again(tmp_path):
    made = load(tmp_path, GOOD)
    plan.save(made)
    assert plan.load(tmp_path) == made
    assert made.ids() == ["p01", "p02", "p03"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("participants: 0\nnames: [a.example]\n", "a number from 1 to 99 is expected"),
        ("participants: 100\nnames: [a.example]\n", "a number from 1 to 99 is expected"),
        ("participants: true\nnames: [a.example]\n", "a number from 1 to 99 is expected"),
        ("participants: 3\nnames: []\n", "a list of host names and IP addresses is expected, one at least"),
        ("participants: 3\nnames: [a_b.example]\n", "not a host name or IP address: 'a_b.example'"),
        ("participants: 3\nnames: ['']\n", "a name is empty"),
        ("participants: 3\nnames: ['est.example:8443']\n", "leave out the port"),
        ("participants: 3\nnames: [$(id).example]\n", "a host name has letters, digits, hyphens and dots"),
        ("participants: 3\n", "names is missing"),
        (GOOD + "colour: red\n", "no such key here"),
        (GOOD + "isolation: containers\n", "processes or labels is expected"),
        (GOOD + "port: 8600\n", "overlap"),
        (GOOD + "trainer_port: 8502\n", "overlap"),
        (GOOD + "port: 80\n", "a number from 1024 to 65000"),
        (GOOD + "listen: est.example\n", "an IP address is expected"),
        (GOOD + "disk: 5\n", "64 MiB at least"),
        ("- 1\n", "a mapping is expected"),
    ],
)
def test_a_value_that_cannot_be_is_told_in_words(tmp_path, text, words):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert words in "\n".join(refused.value.faults)


def test_a_directory_without_a_workshop_is_told(tmp_path):
    with pytest.raises(WorkshopError, match=r"is no workshop: there is no workshop\.yaml in it"):
        plan.load(tmp_path)


def test_secrets_stay_and_new_participants_get_their_own(tmp_path):
    made = load(tmp_path, GOOD)
    plan.keep_secrets(made)
    before = plan.seats(made)
    assert (tmp_path / plan.SECRETS).stat().st_mode & 0o077 == 0
    more = load(tmp_path, GOOD.replace("3", "5"))
    with pytest.raises(WorkshopError, match="has nothing of p04"):
        plan.seats(more)
    plan.keep_secrets(more)
    assert plan.seats(more)[:3] == before
    assert len({seat.token for seat in plan.seats(more)} | {seat.password for seat in plan.seats(more)}) == 10
    assert len({port for seat in plan.seats(more) for port in (seat.port, seat.page_port)}) == 10


@pytest.mark.parametrize("name", ["p00", "p04", "p1", "P01", "trainer", "../p01", ""])
def test_only_participants_can_be_named(tmp_path, name):
    made = load(tmp_path, GOOD)
    plan.keep_secrets(made)
    with pytest.raises(WorkshopError, match="they are p01 to p03"):
        plan.seat(made, name)


def test_two_commands_do_not_change_a_workshop_at_once(tmp_path):
    with (
        plan.locked(tmp_path),
        pytest.raises(WorkshopError, match="another command is changing"),
        plan.locked(tmp_path),
    ):
        pass


ORDER = {
    "listen": "0.0.0.0:8501", "page": "0.0.0.0:8601", "name": "est.lab.example", "labels": [], "keep": 200,
    "names": ["est.lab.example", "192.0.2.10", "2001:db8::1", "*.lab.example"],
}  # fmt: skip


def test_the_shipped_configuration_becomes_a_participants(tmp_path):
    made = inside.configured((ROOT / "conf.yaml").read_text(), ORDER)
    for line in (
        '  listen: ["0.0.0.0:8501"]',
        "  name: est.lab.example",
        "    runner: exec",
        '  hosts: ["est.lab.example"]',
        '  edit: "handlers"',
        "  hand: true",
    ):
        assert re.search(f"^{re.escape(line)}", made, re.MULTILINE), line


def test_a_line_that_is_not_there_is_told():
    with pytest.raises(WorkshopError, match=r"conf\.yaml has no line like 'listen"):
        inside.configured("server:\n", ORDER)


@pytest.mark.parametrize(
    ("names", "here", "now"),
    [
        (("est.example", "192.0.2.1"), ["192.0.2.9"], ("est.example", "192.0.2.9")),
        (("192.0.2.1", "est.example"), ["192.0.2.9"], ("192.0.2.9", "est.example")),
        (("192.0.2.1",), ["192.0.2.1", "192.0.2.9"], ("192.0.2.1",)),
        (("192.0.2.1",), [], ()),
        (("est.example",), ["192.0.2.9"], ("est.example",)),
    ],
)
def test_addresses_that_have_gone_give_way_to_the_present_ones(names, here, now):
    assert commands._moved(names, here) == now


@pytest.mark.parametrize(
    ("standing", "words"),
    [
        ({"refusals": 5, "last": None}, "5 refusals in a row"),
        ({"refusals": 4, "last": {"at": "2026-11-30T10:00:00.000Z"}}, "silent for 10 min"),
        ({"refusals": 0, "last": {"at": "2026-11-30T10:00:01.000Z"}}, ""),
        ({"refusals": 0, "last": None}, ""),
        ({"refusals": 0, "last": {"at": "nonsense"}}, ""),
    ],
)
def test_five_refusals_or_ten_silent_minutes_are_being_stuck(standing, words):
    assert standings.stuck(standing, now=1796033400.0) == words


def test_what_is_wrong_at_all_ports_of_a_host_is_told_once():
    ports = [("p01", 8501), ("p01", 8601)]
    assert checking.told("192.0.2.10", ports, ["No route to host"] * 2) == [
        "192.0.2.10: No route to host, at each of 2 ports"
    ]
    assert checking.told("2001:db8::1", ports, ["", "Connection refused"]) == [
        "p01: [2001:db8::1]:8601: Connection refused"
    ]
    assert checking.told("localhost", ports, ["", ""]) == []


def test_a_lab_is_done_when_all_its_steps_are():
    labs = {"10": {"a": "done"}, "2": {"a": "done", "b": "not yet"}, "1": {"a": "done"}, "3": {}, "4": "x"}
    assert standings.labs_done(labs) == ["1", "10"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"last": 1, "refusal": [], "labs": 3, "refusals": "x", "hand": "yes"},
        {"last": {"at": {"deep": []}, "status": "200", "reason": "x" * 10_000}},
    ],
)
def test_an_answer_of_a_participants_process_is_bounded_and_of_the_right_types(answer):
    found = standings._sound(answer)
    assert found["hand"] is False
    assert found["labs"] == []
    assert isinstance(found["refusals"], int)
    assert all(len(str(value)) <= 500 for value in (found["last"] or {}).values())
