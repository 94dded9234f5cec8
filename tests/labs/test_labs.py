"""Each lab: not yet when fresh, wrong after a mistake, done after its sheet, whose blocks print what it shows."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from estgw.cli import main as command_line
from estgw.cli import workspace
from estgw.labs import sheets
from estgw.labs.table import LABS
from tests.kit import documents
from tests.kit.processes import DEADLINE, ROOT
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace
from tests.labs.mistakes import MISTAKES

RECORDS: dict[str, Any] = {"record": {"dir": "records", "keep": 50}}
PAGES = {int(path.name[:2]): path for path in sorted((ROOT / sheets.FOLDER).glob("[0-9]*.md"))}
COSTLY = {5, 6, 7, 8, 9, 10}
"""Labs whose sheets start the most processes; make test-all runs them."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The check configures the log of the whole process."""
    with logging_as_before():
        yield


class Course:
    """A learner with a lab."""

    def __init__(self, shell: documents.Shell, number: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.shell, self.number, self._capsys = shell, number, capsys

    def check(self, *options: str) -> tuple[int, str, dict[str, str]]:
        """Exit status and output of a check, and the outcomes that it has written down."""
        config = self.shell.lab.path / "conf.yaml"
        status = command_line.main(["lab", "check", str(self.number), "-c", str(config), *options])
        kept = json.loads((self.shell.lab.path / ".estgw/labs.json").read_text())
        return status, self._capsys.readouterr().out, kept[str(self.number)]

    def wait_for(self, step: str, outcome: str, words: str = "") -> str:
        """The line of that step, once its outcome is that: a record is on the disk a moment after the answer."""

        def found() -> str | None:
            _, printed, kept = self.check()
            line = next(line for line in printed.splitlines() if f"  {step} " in f"{line} ")
            return line if kept[step] == outcome and words in line else None

        for _ in range(20):
            if line := found():
                return line
            time.sleep(0.25)
        raise AssertionError(f"{step} is not {outcome} ({words}):\n{self.check()[1]}")


def watch(shell: documents.Shell, command: str) -> None:
    """Run a command that goes on until Ctrl-C, and press that after its first answer."""
    with subprocess.Popen(
        shlex.split(command), cwd=shell.lab.path, env=shell.environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
    assert said[0].startswith("sandbox: ")
    assert said[2] == "same: 200, CN=lab3.example.org, 90 days\n"


@pytest.mark.client("curl")
@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=[pytest.mark.exhaustive] * (number in COSTLY)) for number in LABS]
)
def test_a_lab_is_not_done_when_fresh_finds_the_mistakes_and_is_done_after_its_sheet(
    number: int, own_lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    mistakes = list(MISTAKES[number])
    checked = 0
    with documents.shell(own_lab, RECORDS) as shell:
        course = Course(shell, number, capsys)
        status, _, fresh = course.check()
        assert (status, set(fresh.values())) == (3, {"not yet"})
        assert list(fresh) == [step.name for step in LABS[number].steps]
        for block in documents.blocks(PAGES[number]):
            while mistakes and block.is_run and mistakes[0].before in block.text:
                made = mistakes.pop(0)
                shell.run(made.commands)  # which may fail, as mistakes do
                course.wait_for(made.step, "wrong", made.words)
                shell.run(made.undo)
            if block.how == "run: watch":
                watch(shell, block.text)
                continue
            if block.how != "run: check":
                shell.follow(block)
                continue
            assert block.text == f"estgw lab check {number}\n"
            for step in LABS[number].steps:
                course.wait_for(step.name, "done")
            assert course.check()[0] == 0
            checked += 1
        if number == 1:
            assert set(course.check("--label", "python")[2].values()) == {"not yet"}
            assert command_line.main(["lab", "start", "1", "-c", str(own_lab.path / "conf.yaml")]) == 0
            assert set(course.check()[2].values()) == {"not yet"}
    assert (mistakes, checked) == ([], 1)


def test_every_lab_has_a_sheet_and_two_mistakes_and_a_row_in_the_index() -> None:
    shipped = sheets.sheets(workspace.template())
    assert list(shipped) == list(PAGES) == list(LABS) == list(MISTAKES) == list(range(1, 11))
    index = (ROOT / sheets.FOLDER / "README.md").read_text(encoding="utf-8")
    for number, path in PAGES.items():
        assert f"| [{number}]({path.name}) |" in index
        assert all(block.is_run for block in documents.blocks(path) if block.language == "sh")
        assert len(MISTAKES[number]) == 2
        assert all(mistake.step in {step.name for step in LABS[number].steps} for mistake in MISTAKES[number])
