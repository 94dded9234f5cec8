"""Each MUST case fails a server that breaks it, and only such a server."""

from __future__ import annotations

from typing import Any

import pytest

from estgw.conform import table
from estgw.conform.model import Level, Status
from tests import test_rfc_coverage
from tests.conform.faults import FAULTS, STRANGER, Fault
from tests.conform.judging import identity, judge, one, setup
from tests.conform.server import EST, LABEL, Good
from tests.kit.ca import CA, Credential

MUST = [case.id for case in table.CASES if case.level is Level.MUST]


def test_every_must_case_names_a_server_that_fails_it() -> None:
    assert sorted(FAULTS) == sorted(MUST)


@pytest.mark.parametrize("case", MUST)
def test_a_must_case_fails_the_server_that_breaks_it(case: str, ca: CA, holder: Credential) -> None:
    fault: Fault = FAULTS[case]
    good = Good(ca, fault=fault.answer, **fault.good)
    shown = fault.holder(ca) if fault.holder else holder
    with EST(shown, good, **fault.est) as server:
        result = one(setup(server, ca, **fault.setup), case)
    assert result.status is Status.FAIL, result
    assert result.exchange


@pytest.mark.parametrize(
    "configuration",
    [
        {},
        {"digest": ("SHA-256", "MD5")},
        {"must_link": True, "attributes": bytes.fromhex("300b06092a864886f70d010907")},
    ],
    ids=["plain", "digest", "linking required"],
)
def test_a_correct_server_fails_nothing(configuration: dict[str, Any], ca: CA, holder: Credential) -> None:
    with EST(holder, Good(ca, **configuration)) as server:
        report = judge(setup(server, ca, label=LABEL, other=identity(STRANGER)))
    wrong = {each.case.id: each.seen for each in report.results if each.status in (Status.FAIL, Status.ERROR)}
    assert wrong == {}
    assert {each.case.id for each in report.results if each.status is Status.WARN} == {"tls.resume"}
    assert report.exit_status(strict=False) == 0
    assert report.exit_status(strict=True) == 1


def test_every_row_about_a_server_has_a_case_or_a_reason() -> None:
    tested = {row for case in table.CASES for row in case.rows}
    assert tested <= set(test_rfc_coverage.IDS)
    assert not tested & table.UNTESTABLE.keys()
    ours = {row[0] for row in test_rfc_coverage.ROWS if not row[1].startswith("client:")}
    missing = ours - tested - table.UNTESTABLE.keys()
    assert missing == set()


def test_the_names_of_cases_are_unique_and_their_sentences_end() -> None:
    ids = [case.id for case in table.CASES]
    assert len(set(ids)) == len(ids)
    assert [case.id for case in table.CASES if not case.expected.endswith(".")] == []
