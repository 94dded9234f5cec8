"""A workshop with a label for each participant, by any user: rows of one's own, and the clear word about keys."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from estgw.workshop import supervisor
from tests.kit.processes import until
from tests.workshop.conftest import Course

pytestmark = pytest.mark.slow

SCRIPT = "openssl/simpleenroll"


@pytest.mark.exhaustive
def test_init_says_that_scripts_can_read_each_others_keys_and_each_command_says_what_is_next(tmp_path):
    made = Course(tmp_path / "course", Path(sys.executable))
    done = made.init(1, "--isolation", "labels")
    assert "each participant's scripts can read the CA's key and everybody's files" in done.stderr
    for step in ("serve", "check", "handouts"):
        assert f"    estgw workshop {step} {made.own}\n" in done.stdout
    for command in (made.run("check", made.own, status=1).stderr, made.run("status", made.own).stdout):
        assert "nothing answers" in command
        assert f"estgw workshop serve {made.own}" in command
    assert (
        f"whom to reset is missing: estgw workshop reset p07 {made.own}" in made.run("reset", made.own, status=1).stderr
    )


@pytest.mark.exhaustive
def test_a_gateway_that_cannot_start_is_named_with_its_log(tmp_path, monkeypatch):
    made = Course(tmp_path / "course", Path(sys.executable))
    made.init(1, "--isolation", "labels")
    monkeypatch.setattr(supervisor, "UP", 1.0)
    words = f"127.0.0.1:{made.seat('p01').port} is in use by another program"

    async def serve() -> list[Path]:
        told: list[list[Path]] = []

        def ready(silent: list[Path]) -> None:
            told.append(silent)
            until(lambda: words in silent[0].read_text())
            os.kill(os.getpid(), signal.SIGTERM)

        await supervisor.Supervisor(made.workshop).run(ready)
        return told[0]

    with socket.create_server(("127.0.0.1", made.seat("p01").port)):
        assert (made.folder / "gateway/gateway.log") in asyncio.run(serve())


def test_each_participant_enrols_under_a_label_and_sees_its_own_rows(shared):
    for name in ("p01", "p02"):
        assert shared.enrol(name)[0] == 200
    until(lambda: all(shared.page(name, "GET", "/api/records")[1]["rows"] for name in ("p01", "p02")))
    for name in ("p01", "p02"):
        rows = shared.page(name, "GET", "/api/records")[1]["rows"]
        assert rows
        assert {row["label"] for row in rows} == {name}
    theirs = shared.page("p02", "GET", "/api/records")[1]["rows"][0]["id"]
    assert shared.page("p01", "GET", f"/api/records/{theirs}")[0] == 404


def test_nobody_edits_scripts_in_a_page_of_a_shared_gateway(shared):
    assert shared.page("p01", "GET", "/api/files")[0] == 404


def test_a_policy_of_one_label_leaves_the_others_alone_and_reset_brings_the_shipped_one_back(shared):
    script = shared.seat("p01").folder / "p01/handlers" / SCRIPT
    shipped = script.read_text()
    script.write_text("#!/bin/bash\necho no; exit 77\n")
    (script.parent / "mine.sh").write_text("one() { :; }\n")
    assert shared.enrol("p01") == (403, b"no\n")
    assert shared.enrol("p02")[0] == 200
    done = shared.run("reset", "p01", shared.own)
    assert "p01 is as on the first day" in done.stdout
    assert script.read_text() == shipped
    assert not (script.parent / "mine.sh").exists()
    old = next((shared.folder / "old").iterdir())
    assert (old / SCRIPT).read_text() == "#!/bin/bash\necho no; exit 77\n"
    assert shared.enrol("p01")[0] == 200


def test_a_hand_is_the_participants_own(shared):
    shared.page("p02", "POST", "/api/hand/up")
    found = until(
        lambda: [
            one["id"] for one in shared.page("trainer", "GET", "/api/participants")[1]["participants"] if one["hand"]
        ]
    )
    assert found == ["p02"]


@pytest.mark.exhaustive
def test_check_and_handouts_name_the_label(shared):
    assert shared.run("check", shared.own).stdout.endswith("all well\n")
    shared.run("handouts", shared.own)
    text = (shared.folder / "handouts/p02.html").read_text()
    assert f"https://localhost:{shared.base}/.well-known/est/p02" in text
