"""The results of a run: lines for a person, JSON for a program, JUnit for a build server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from estgw.client.faults import clean
from estgw.quirks.runner import Trial
from estgw.quirks.seen import Result
from estgw.quirks.table import Quirk

FORMAT = 1
"""The version of the JSON; readers ignore keys that they do not know."""


def line(trial: Trial) -> str:
    """One trial for a person; one that failed has a second line."""
    words = clean("; ".join(trial.verdict.evidence), 400).replace("\n", " ")
    found = f"{trial.verdict.result.value.upper():8} {trial.quirk.name:18} {words}"
    if trial.verdict.result is not Result.FAIL:
        return found
    return f"{found}\n{'':9}{good(trial.quirk)}"


def good(quirk: Quirk) -> str:
    """What a good client does, where that is written, and why it matters."""
    return f"The server {quirk.server}; a good client {quirk.client} ({quirk.clause}): {quirk.why}."


def summary(trials: Sequence[Trial]) -> str:
    """The last line."""
    counts = Counter(trial.verdict.result for trial in trials)
    words = {Result.PASS: "passed", Result.FAIL: "failed", Result.UNCLEAR: "unclear", Result.UNTRIED: "untried"}
    return ", ".join(f"{counts[result]} {word}" for result, word in words.items())


def to_json(client: str, trials: Sequence[Trial]) -> str:
    """All trials as one JSON object."""
    rows = [
        {
            "quirk": trial.quirk.name,
            "verdict": trial.verdict.result.value,
            "evidence": [clean(words) for words in trial.verdict.evidence],
            "server": trial.quirk.server,
            "client": trial.quirk.client,
            "clause": trial.quirk.clause,
            "why": trial.quirk.why,
            "seconds": round(trial.seconds, 3),
        }
        for trial in trials
    ]
    return json.dumps({"format": FORMAT, "client": client, "quirks": rows}, indent=2) + "\n"


def to_junit(client: str, trials: Sequence[Trial]) -> str:
    """All trials as JUnit's XML; UNCLEAR and UNTRIED are skipped tests."""
    counts = Counter(trial.verdict.result for trial in trials)
    suite = ElementTree.Element(
        "testsuite",
        name=f"quirks of {client}",
        tests=str(len(trials)),
        failures=str(counts[Result.FAIL]),
        errors="0",
        skipped=str(counts[Result.UNCLEAR] + counts[Result.UNTRIED]),
        time=f"{sum(trial.seconds for trial in trials):.3f}",
    )
    for trial in trials:
        case = ElementTree.SubElement(
            suite, "testcase", classname="quirks", name=trial.quirk.name, time=f"{trial.seconds:.3f}"
        )
        words = clean("; ".join(trial.verdict.evidence))
        if trial.verdict.result is Result.FAIL:
            ElementTree.SubElement(case, "failure", message=words).text = good(trial.quirk)
        elif trial.verdict.result is not Result.PASS:
            ElementTree.SubElement(case, "skipped", message=f"{trial.verdict.result.value}: {words}")
        else:
            ElementTree.SubElement(case, "system-out").text = words
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
