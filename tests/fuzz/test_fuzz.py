"""Every target with its corpus and some mutations, for which `make fuzz` takes more time, and tests of the mutator
itself.
"""

from __future__ import annotations

import time
from random import Random

import pytest

from estgw.errors import ConfigError, Malformed
from tests.fuzz import checks, mutator, runner, wire
from tests.fuzz.mutator import LONGEST, mutate
from tests.kit.csr import challenge, csr
from tests.kit.der import armoured, vector
from tests.kit.gateway import running_gateway

SECONDS = 10.0
"""For all targets together. A corpus that takes longer still runs completely."""
MUTATIONS = 300
WIRE = 8
"""Mutations over the wire for each kind of connection, which cost more than most functions."""

TARGETS = runner.targets()


def run(name: str, target: tuple[runner.Function, list[bytes]], most: int, seconds: float) -> None:
    function, seeds = target
    campaign = runner.Campaign(name, function, seeds, Random(name))
    campaign.run(seconds, most)
    told = [f"{each.what}\npython -m tests.fuzz {name} {each.save()}" for each in campaign.findings.values()]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_answers_or_refuses_any_input(name):
    run(name, TARGETS[name], MUTATIONS, SECONDS / len(TARGETS))


@pytest.fixture(scope="module")
def wire_targets(lab, tmp_path_factory):
    with running_gateway(lab.copy(tmp_path_factory.mktemp("fuzz")), wire.OVERRIDES) as gateway:
        yield wire.targets(gateway)


@pytest.mark.parametrize("name", wire.NAMES)
def test_a_gateway_survives_any_bytes_on_the_wire(wire_targets, name):
    run(name, wire_targets[name], WIRE, SECONDS)


def test_every_target_has_seeds():
    assert [name for name, (_, seeds) in TARGETS.items() if not seeds] == []


def test_every_directory_of_the_corpus_belongs_to_a_target():
    assert {path.name for path in runner.CORPUS.iterdir()} <= {*TARGETS, *wire.NAMES}


# The fuzzer itself can find faults.


def crash(data: bytes) -> None:
    if data.count(b"\0") > 1:
        raise KeyError("two")


def loop(data: bytes) -> None:
    end = time.thread_time() + runner.SLOWEST + 0.1
    while data.startswith(b"slow") and time.thread_time() < end:
        pass


def test_an_unexpected_exception_is_a_finding():
    found = runner.check("crash", crash, b"\0\0")
    assert found is not None
    assert "KeyError: 'two'" in found.what
    assert runner.check("crash", crash, b"\0") is None


def test_an_input_that_takes_too_long_is_a_finding(monkeypatch):
    monkeypatch.setattr(runner, "SLOWEST", 0.1)
    found = runner.check("loop", loop, b"slow")
    assert found is not None
    assert found.what.endswith("s of CPU for 4 bytes")
    assert runner.check("loop", loop, b"quick") is None


def test_a_campaign_reports_a_fault_once():
    campaign = runner.Campaign("crash", crash, [b"some seed", b"another"], Random(1))
    campaign.run(60, 2000)
    (found,) = campaign.findings.values()
    assert found.data.count(b"\0") > 1


def test_a_finding_is_saved_to_a_file(tmp_path):
    found = runner.Finding("crash", b"\0\0", "words")
    assert found.save(tmp_path).read_bytes() == b"\0\0"


def test_a_fault_of_another_kind_is_a_finding():
    """A target names the exceptions that it may raise. Any other exception of the project is a finding."""
    with pytest.raises(AssertionError, match="ConfigError"), checks.only(Malformed):
        raise ConfigError(["x:1:1: y"])


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"Traceback",
    ],
)
def test_a_malformed_answer_on_the_wire_is_a_finding(stream):
    with pytest.raises(AssertionError):
        wire.require_http(stream)


def test_well_formed_answers_on_the_wire_are_accepted():
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    wire.require_http(b"HTTP/1.1 100 Continue\r\n\r\n" + one + one)
    wire.require_http(b"HTTP/1.1 405 No\r\nContent-Length: 3\r\n\r\n" + one, heads=True)


# Mutations.

SEEDS = [csr("device-1"), armoured(csr("device-2")), b"one\ntwo\nthree\n"]


def test_the_same_seed_makes_the_same_mutations():
    def some() -> list[bytes]:
        rng = Random(7)
        return [mutate(rng, seed, SEEDS) for seed in SEEDS * 50]

    assert some() == some()


def test_mutations_are_bounded_and_mostly_different():
    rng = Random(7)
    made = [mutate(rng, seed, SEEDS) for seed in SEEDS * 300]
    assert max(map(len, made)) <= LONGEST
    assert len(set(made)) > len(made) / 2


def test_a_der_tree_is_written_as_it_was_read():
    for der in (csr("device-1", challenge("x")), vector("rfc9148-a2-enroll-response.der")):
        assert b"".join(node.encode() for node in mutator.read(der)) == der
    assert mutator.read(b"\x30\x05abc") == []
    assert mutator.read(b"\x30\x80\0\0") == []


def test_many_changes_to_a_tree_leave_all_lengths_right():
    """Then only the changed element is wrong, and the parser reads the rest."""
    rng, der = Random(3), csr("device-1", challenge("x"))
    whole = sum(bool(mutator.read(mutate(rng, der))) for _ in range(400))
    assert whole > 100
