"""What a lab adds to conf.yaml, what checks write down, and the sheets in a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from estgw.auth import users
from estgw.cli import main as command_line
from estgw.cli import workspace
from estgw.labs import outcomes, settings, sheets
from estgw.labs.sheets import LabError
from estgw.labs.step import done, not_yet, wrong
from estgw.labs.table import LABS
from tests.kit.processes import ROOT
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

SHIPPED = (ROOT / "conf.yaml").read_text(encoding="utf-8")
ADDED = "labels:\n  lab5: {}\npop:\n  rules:\n    - {label: lab5, pop: required}\n"
HERE = Path("conf.yaml")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Commands configure the log of the whole process."""
    with logging_as_before():
        yield


@pytest.fixture
def here(own_lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The workspace as working directory."""
    monkeypatch.chdir(own_lab.path)
    return own_lab


# conf.yaml.


def test_the_settings_of_a_lab_are_added_below_the_keys_that_are_there_and_comments_stay():
    text = settings.added(SHIPPED, ADDED, HERE)
    before, after = yaml.safe_load(SHIPPED), yaml.safe_load(text)
    assert after == {
        **before,
        "labels": {"lab5": {}, **before["labels"]},
        "pop": {"rules": [{"label": "lab5", "pop": "required"}]},
    }
    assert [line for line in text.splitlines() if line and line not in ADDED] == [
        line for line in SHIPPED.splitlines() if line and line not in ADDED
    ]


@pytest.mark.parametrize("number", LABS)
def test_the_settings_of_each_lab_are_added_once(number):
    lines = sheets.sheets(workspace.template())[number].settings
    once = settings.added(SHIPPED, lines, HERE)
    assert settings.added(once, lines, HERE) == once
    assert (once != SHIPPED) == bool(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels: {a: {}}\n", "`labels:` in one line"),
        ("labels:\n  lab5: {profile: draft}\n", "`lab5` below `labels:` already"),
        ("pop:\n  rules:\n    - {ra: true, pop: waived}\n", "`rules` below `pop:` already"),
    ],
)
def test_settings_that_clash_with_those_of_a_lab_are_named_and_nothing_is_changed(text, words):
    with pytest.raises(LabError) as refusal:
        settings.added(text, ADDED, HERE)
    assert words in str(refusal.value)


def test_a_start_that_would_spoil_conf_yaml_leaves_it_as_it_was(here, capsys):
    path = here.path / "conf.yaml"
    path.write_text(path.read_text() + "\nnonsense: 1\n")
    before = path.read_bytes()
    assert command_line.main(["lab", "start", "4"]) == 1
    said = capsys.readouterr().err
    assert "nonsense" in said
    assert ".conf" not in said
    assert path.read_bytes() == before
    assert not (here.path / ".estgw/labs.json").exists()
    assert not list(here.path.glob(".conf*"))


def test_a_start_keeps_the_mode_of_conf_yaml_and_says_what_to_do(here, capsys):
    path = here.path / "conf.yaml"
    path.chmod(0o640)
    assert command_line.main(["lab", "start", "4"]) == 0
    printed = capsys.readouterr().out
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert "conf.yaml has these lines now:\nlabels:\n  lab4:\n" in printed
    assert "pkill -HUP" in printed
    assert command_line.main(["lab", "start", "4"]) == 0
    assert "has these lines now" not in capsys.readouterr().out


# .estgw/labs.json.


def test_outcomes_are_kept_for_the_user_alone_and_those_of_other_labs_stay(tmp_path):
    outcomes.keep(tmp_path, 1, {"a": done("yes"), "b": not_yet("no")})
    outcomes.keep(tmp_path, 2, {"c": wrong("no")})
    path = tmp_path / outcomes.OUTCOMES
    assert json.loads(path.read_text()) == {"1": {"a": "done", "b": "not yet"}, "2": {"c": "wrong"}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["labs.json"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_what_root_writes_for_a_learner_belongs_to_the_learner(here, capsys):
    learner = 12345
    for path in (here.path, here.path / "conf.yaml"):
        os.chown(path, learner, learner)
    shutil.rmtree(here.path / ".estgw")
    assert command_line.main(["lab", "start", "4"]) == 0
    made = [here.path / "conf.yaml", here.path / ".estgw", *(here.path / ".estgw").iterdir()]
    assert len(made) == 4
    assert {path.stat().st_uid for path in made} == {learner}


def test_an_outcome_that_can_t_be_written_down_is_still_said(here, capsys):
    shutil.rmtree(here.path / ".estgw")
    (here.path / ".estgw").write_text("a file")
    assert command_line.main(["lab", "check", "1"]) == 3
    said = capsys.readouterr()
    assert "not yet   certificate" in said.out
    assert "this outcome could not be written down: " in said.err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"1": 7}', '{"1": {"a": "perhaps"}}', "[" * 100_000])
def test_a_spoiled_file_of_outcomes_counts_as_none(tmp_path, text):
    (tmp_path / ".estgw").mkdir()
    (tmp_path / outcomes.OUTCOMES).write_text(text)
    assert not any(outcomes.outcomes(tmp_path).values())
    outcomes.keep(tmp_path, 1, {"b": done("yes")})
    assert outcomes.outcomes(tmp_path)["1"] == {"b": "done"}


def test_a_start_forgets_what_a_check_said_and_notes_the_time(here, capsys):
    outcomes.keep(here.path, 1, {"a": wrong("no")})
    assert command_line.main(["lab", "start", "1"]) == 0
    assert outcomes.outcomes(here.path)["1"] == {}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", outcomes.started(here.path, 1))
    assert outcomes.started(here.path, 2) == ""


# Sheets and commands.


def test_a_list_has_a_line_for_each_lab_with_its_worst_outcome(here, capsys):
    outcomes.keep(here.path, 1, {"a": done("yes")})
    outcomes.keep(here.path, 2, {"a": done("yes"), "b": not_yet("no")})
    outcomes.keep(here.path, 3, {"a": not_yet("no"), "b": wrong("no")})
    assert command_line.main(["lab", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12].strip() for line in lines[:4]] == ["1  done", "2  not yet", "3  wrong", "4"]
    assert len(lines) == 10
    assert lines[8] == " 9            ML-DSA (15 minutes)"


def test_a_sheet_hides_its_hints_until_they_are_asked_for(here, capsys):
    assert command_line.main(["lab", "show", "3"]) == 0
    short = capsys.readouterr().out
    assert command_line.main(["lab", "show", "3", "--hints"]) == 0
    long = capsys.readouterr().out
    assert "(Here is a hint: estgw lab show 3 --hints)" in short
    assert "sed -i 's/^# allowed_suffix" in long
    assert "sed -i 's/^# allowed_suffix" not in short
    for text in (short, long):
        assert "<!--" not in text
        assert "<details>" not in text


def test_a_sheet_in_markdown_keeps_its_hints_folded(here, capsys):
    assert command_line.main(["lab", "show", "3", "--markdown"]) == 0
    text = capsys.readouterr().out
    assert "<!--" not in text
    assert "<details>\n<summary>Hint: the line</summary>\n" in text
    assert "sed -i 's/^# allowed_suffix" in text


def test_a_sheet_has_the_address_of_the_gateway(here, capsys):
    here.edit("conf.yaml", "listen: [127.0.0.1:8443]", "listen: [127.0.0.1:9443]\n  name: lab.example")
    assert command_line.main(["lab", "show", "1"]) == 0
    assert "est=https://lab.example:9443/.well-known/est\n" in capsys.readouterr().out


def test_a_sheet_names_the_only_user_of_the_gateway_and_leaves_its_password_to_be_typed(here, capsys):
    assert command_line.main(["lab", "show", "2"]) == 0
    assert "login=estuser:estpwd\n" in capsys.readouterr().out
    users.remove(here.path / "users.htpasswd", ["estuser"])
    users.set_passwords(here.path / "users.htpasswd", {"p07": "not-in-a-sheet"})
    assert command_line.main(["lab", "show", "2"]) == 0
    text = capsys.readouterr().out
    assert "login=p07:PASSWORD\n" in text
    assert "-u p07:wrong" in text
    assert "estuser" not in text
    users.set_passwords(here.path / "users.htpasswd", {"p08": "not-in-a-sheet"})
    assert command_line.main(["lab", "show", "2"]) == 0
    assert "login=estuser:estpwd\n" in capsys.readouterr().out, "which of several users reads it is not known"


@pytest.mark.parametrize("number", ["0", "11", "-1", "one", "1 ", "٣"])
def test_an_unknown_lab_is_answered_with_the_numbers_that_there_are(number, capsys):
    assert command_line.main(["lab", "show", "--", number]) == 1
    assert "the labs have the numbers 1 to 10" in capsys.readouterr().err


def test_a_check_without_records_says_where_they_come_from(here, capsys):
    assert command_line.main(["lab", "check", "1"]) == 3
    assert "estgw demo makes them" in capsys.readouterr().out


def test_a_check_of_an_unknown_label_is_refused(here, capsys):
    assert command_line.main(["lab", "check", "1", "--label", "p07"]) == 1
    assert "has no such label" in capsys.readouterr().err
