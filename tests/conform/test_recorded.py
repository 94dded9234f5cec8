"""Reports on other people's servers stay plausible: their recorded answers get the verdicts that the servers got."""

from __future__ import annotations

import pytest

from tests.conform.judging import judge, setup
from tests.conform.recorded import FOLDER, Recorded
from tests.conform.server import EST


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.json")))
def test_recorded_answers_get_the_verdicts_that_the_server_got(ca, holder, name):
    recorded = Recorded(name)
    with EST(holder, recorded) as server:
        report = judge(setup(server, ca, credentials=None), *recorded.verdicts)
    found = {each.case.id: each.status.value for each in report.results}
    assert found == recorded.verdicts, {each.case.id: each.seen for each in report.results}
