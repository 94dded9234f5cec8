"""Real clients through all quirks: ours passes, and the others have the verdicts that were measured."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from estgw.quirks import runner
from estgw.quirks.clients import client_of
from estgw.quirks.seen import Result
from estgw.quirks.table import QUIRKS
from tests.kit.cases import some
from tests.quirks.measured import CURL, GLOBALSIGN, LIBEST, PKI, PKI_BY_CHANCE

pytestmark = pytest.mark.slow


ALL = tuple(QUIRKS.values())


def failures(name, quirks=ALL):
    """The verdicts that are no PASS, by result, and the lines of the report for a test that fails."""
    trials = runner.run(client_of(name), quirks, lambda _: None)
    assert [trial.quirk for trial in trials] == list(quirks)
    found: dict[Result, list[str]] = {}
    for trial in trials:
        if trial.verdict.result is not Result.PASS:
            found.setdefault(trial.verdict.result, []).append(trial.quirk.name)
    return {result: " ".join(names) for result, names in found.items()}, [
        (trial.quirk.name, trial.verdict) for trial in trials
    ]


@pytest.mark.parametrize("first", some(range(4), 4))
def test_estclient_passes_every_quirk(first):
    found, lines = failures("estclient", ALL[first::4])
    assert found == {}, lines


@pytest.mark.client("curl")
def test_curl_has_the_verdicts_that_were_measured():
    found, lines = failures("curl")
    assert found == CURL, lines


@pytest.mark.client("pki")
def test_pki_has_the_verdicts_that_were_measured():
    version = subprocess.run(["pki", "--help"], capture_output=True, text=True, check=False)
    if not re.search(r"strongSwan 5\.9\.8\b", version.stdout + version.stderr):
        pytest.skip("the verdicts were measured with strongSwan 5.9.8")
    found, lines = failures("strongswan")
    found[Result.FAIL] = " ".join(name for name in found[Result.FAIL].split() if name != PKI_BY_CHANCE)
    assert found == PKI, lines


@pytest.mark.timeout(600)  # libest waits ten seconds for each connection that a server keeps open
@pytest.mark.parametrize(
    ("name", "variable", "measured"),
    [("libest", "LIBEST_ESTCLIENT", LIBEST), ("globalsign", "GLOBALSIGN_ESTCLIENT", GLOBALSIGN)],
)
def test_a_client_built_elsewhere_has_the_verdicts_that_were_measured(name, variable, measured, tmp_path, monkeypatch):
    """Both programs are called estclient, and Debian 12 has neither."""
    program = os.environ.get(variable)
    if not program:
        pytest.skip(f"{variable} does not name the estclient of {name}")
    (tmp_path / "estclient").symlink_to(program)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found, lines = failures(name)
    assert found == measured, lines
