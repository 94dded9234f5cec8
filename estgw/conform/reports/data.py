"""JSON and JUnit: the report for programs and for continuous integration."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

from estgw import __version__
from estgw.conform.case import Result
from estgw.conform.model import Status
from estgw.conform.runner import Report
from estgw.conform.table import UNTESTABLE

FORMAT = 1
"""Grows when a key changes its meaning or goes away."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(report: Report) -> str:
    """The whole report as JSON text."""
    counts = report.counts
    data = {
        "format": FORMAT,
        "program": f"estgw {__version__}",
        "server": report.url,
        "seconds": round(report.seconds, 1),
        "issued": report.issued,
        "ended_early": report.ended_early,
        "counts": {status.value: count for status, count in counts.of.items()},
        "must": {"passed": counts.passed, "failed": counts.failed, "not_tested": counts.untested},
        "cases": [_entry(each) for each in report.results],
        "not_testable": UNTESTABLE,
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _entry(result: Result) -> dict[str, Any]:
    case = result.case
    return {
        "case": case.id,
        "level": case.level.value,
        "clause": case.clause,
        "requirements": list(case.rows),
        "expected": case.expected,
        "status": result.status.value,
        "seen": result.seen,
        "expected_failure": result.reason,
        "seconds": round(result.seconds, 3),
        "command": result.command,
        "exchange": result.exchange,
    }


def as_junit(report: Report) -> str:
    """The report as JUnit XML: a testsuite for each group.

    FAIL is a failure, ERROR an error, SKIP and an expected FAIL are skipped; a WARN is in system-out.
    """
    suites = ElementTree.Element("testsuites", name="estgw conform", time=f"{report.seconds:.3f}")
    groups: dict[str, list[Result]] = {}
    for result in report.results:
        groups.setdefault(result.case.group, []).append(result)
    for group, results in groups.items():
        attributes = {
            "name": group,
            "tests": str(len(results)),
            "failures": str(sum(each.is_bad or each.is_surprise for each in results)),
            "errors": str(sum(each.status is Status.ERROR for each in results)),
            "skipped": str(sum(_is_skipped(each) for each in results)),
            "time": f"{sum(each.seconds for each in results):.3f}",
        }
        suite = ElementTree.SubElement(suites, "testsuite", attributes)
        for result in results:
            _testcase(suite, result)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _is_skipped(result: Result) -> bool:
    return result.status is Status.SKIP or (result.status is Status.FAIL and result.reason is not None)


def _testcase(suite: ElementTree.Element, result: Result) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=f"estgw.conform.{result.case.group}", name=result.case.name,
        time=f"{result.seconds:.3f}",
    )  # fmt: skip
    seen = _xml(result.seen)
    if result.is_bad or result.is_surprise:
        words = seen if result.is_bad else f"expected to fail ({_xml(result.reason or '')}), and it passes"
        node = ElementTree.SubElement(case, "failure", message=words, type=result.case.level.value)
        node.text = _xml("\n".join([result.case.clause, f"expected: {result.case.expected}", *result.exchange]))
    elif result.status is Status.ERROR:
        ElementTree.SubElement(case, "error", message=seen)
    elif _is_skipped(result):
        ElementTree.SubElement(case, "skipped", message=f"{_xml(result.reason)}: {seen}" if result.reason else seen)
    ElementTree.SubElement(case, "system-out").text = f"{result.status.value}: {seen}\n{_xml(result.command)}"


def _xml(text: str) -> str:
    """A text without the characters that XML 1.0 can't hold."""
    return _NOT_XML.sub("?", text)
