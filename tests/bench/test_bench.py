"""The benchmarks' own code: counting, statistics and tables.  No test here measures time."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography import x509

from tests.bench import load, picture, rivals, table, versus
from tests.bench.rounds import Noise, interleave, median, ratio, spread
from tests.bench.targets import Target
from tests.kit.ca import root
from tests.kit.connection import EST
from tests.kit.csr import csr
from tests.kit.gateway import running_gateway

FIRST, SECOND = {"rate": 100.0}, {"rate": 300.0}


def test_candidates_take_turns_in_alternating_order():
    asked: list[str] = []

    def candidate(name: str):
        def run():
            asked.append(name)
            return {"rate": float(len(asked))}

        return run

    found = interleave({name: candidate(name) for name in "abc"}, 2, Noise(), lambda _: None)
    assert "".join(asked) == "abccba"
    assert found["a"] == [{"rate": 1.0}, {"rate": 6.0}]


def test_ratios_are_taken_within_a_round():
    assert median([FIRST, SECOND, {"rate": 110.0}], "rate") == 110
    assert ratio([FIRST, SECOND], [{"rate": 50.0}, {"rate": 150.0}], "rate") == 2
    assert ratio([FIRST], [{"rate": 0.0}], "rate") == 0


def test_the_noise_is_half_the_distance_between_the_quartiles():
    assert spread([90, 100, 110, 100, 100]) == "±0%"
    assert spread([80, 90, 100, 110, 120]) == "±10%"
    assert spread([80]) == "?"


def test_a_target_is_met_or_missed():
    assert [Target("d", "x", measured, 1.2).row()[""] for measured in (1.19, 1.2)] == ["MISSED", "met"]
    assert [Target("f", "x", measured, 3, at_most=True).row()[""] for measured in (3, 3.01)] == ["met", "MISSED"]


CPU = {"server CPU ms": 9.0, "gateway CPU ms": 9.0, "parent CPU ms": 0.0, "children CPU ms": 30.0}
ROW = {"part": "h", "by": "Bash, shipped", "TLS": "fresh", "per second": 40.0, **CPU}
RESULT = {
    "machine": {"CPUs": 2},
    "parts": {
        "(h)": [{**ROW, "clients": number} for number in (1, 8)],
        "(i)": [{"part": "i", "by": "nobody"}],
        "(g)": [{"by": "nobody"}],
    },
    "targets": [Target("h", "met in time", 2, 1).row(), Target("i", "elsewhere", 2, 1).row()],
}


def test_the_page_of_figures_gets_the_rows_and_targets_of_one_part():
    page = picture.filled("before\n<!-- figures -->\nold\n<!-- end -->\nafter\n", RESULT)
    assert page.startswith("before\n<!-- figures -->\n```text\nCPUs: 2\n")
    assert page.endswith("```\n<!-- end -->\nafter\n")
    assert page.count("Bash, shipped") == 2
    assert "met in time" in page
    assert not any(word in page for word in ("old", "nobody", "elsewhere", "server CPU"))
    assert picture.filled(page, RESULT) == page


def test_the_page_of_figures_has_figures_of_both_sets_and_of_both_other_servers():
    page = picture.PAGE.read_text()
    for who in (*rivals.OURS, rivals.LIBEST, rivals.GLOBALSIGN):
        assert len(re.findall(rf"\n{who} +\d", page)) == 2 * len(rivals.CLIENTS)
    for file in (picture.RATE, picture.CPU):
        assert f"](images/{file.name})" in page
        assert file.stat().st_size < 60_000


def test_pictures_are_drawn_of_these_rows(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: tests/bench/requirements.lock")
    for draw in (picture.draw_rate, picture.draw_cpu):
        draw(picture.rows_of(RESULT, "h"), tmp_path / "drawn.svg")
        assert "Bash, shipped" in (tmp_path / "drawn.svg").read_text()


def test_a_target_compares_with_the_best_of_the_other_servers():
    found = {
        versus.Cell(who, "trivial", 8, False): [{"rate": rate, "p50": 1.0, "p99": 2.0}]
        for who, rate in (("estgw", 90.0), ("nginx", 100.0), ("apache", 60.0))
    }
    (target,) = versus.targets(found)
    assert (target.what, target.measured, target.met) == ("trivial by estgw, 8 fresh / nginx", 0.9, False)


def test_the_table_has_aligned_columns():
    rows = [{"part": "c", "by": "fork", "per second": 1234.5}, {"part": "c", "by": "exec Bash", "errors": 3}]
    assert table.table(rows) == [
        "by         per second  errors",
        "fork          1,234.5",
        "exec Bash                   3",
    ]
    text = table.render({"machine": {"CPUs": 2}, "parts": {"(c)": rows}, "targets": [Target("c", "x", 2, 1).row()]})
    assert text.splitlines()[-1] == "x       ≥ 1            2  met"


@pytest.mark.client("cc")
def test_the_client_counts_only_certificates_for_its_own_keys(lab, tmp_path):
    if not load.can_build():
        pytest.skip("OpenSSL's headers are not installed")
    clients = load.Load(tmp_path, csrs=3)
    made = root("bench")
    own, issued, mine = tmp_path / "own", tmp_path / "issued.pem", lab.copy(tmp_path / "lab")
    own.write_bytes(base64.b64encode(csr("bench", key=made.key)) + b"\n")
    issued.write_bytes(made.pem)
    mine.script("handlers/openssl/simpleenroll", f"cat {issued}")
    with running_gateway(mine) as gateway:
        path = f"{EST}/simpleenroll"
        good = clients.run(gateway.port, path, clients=2, seconds=30, count=4, keep=False, csrs=own)
        assert (good.done, good.errors) == (4, 0)
        kept = clients.run(gateway.port, path, clients=2, seconds=30, count=4, keep=True)
        assert (kept.done, kept.errors, kept.fault) == (0, 4, "a certificate for another key")
        anonymous = clients.run(gateway.port, path, clients=1, seconds=30, count=1, keep=False, login=None)
        assert (anonymous.errors, anonymous.fault[:12]) == (1, "HTTP/1.1 401")
        greeted = clients.run(gateway.port, "/", clients=1, seconds=30, count=2, keep=False, greet=True)
        assert (greeted.done, greeted.errors) == (2, 0)


def test_every_csr_has_its_own_key(tmp_path):
    load.make_csrs(tmp_path / "csrs", 3)
    lines = (tmp_path / "csrs").read_bytes().splitlines()
    requests = [x509.load_der_x509_csr(base64.b64decode(line, validate=True)) for line in lines]
    assert len({request.public_key().public_numbers() for request in requests}) == 3  # type: ignore[union-attr]
