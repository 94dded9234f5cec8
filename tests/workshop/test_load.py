"""Twenty participants, each enrolling ten times at once: nobody gets a 5xx, and none has too much memory."""

from __future__ import annotations

import concurrent.futures
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from estgw.workshop import identity
from tests.workshop.conftest import Course

pytestmark = pytest.mark.exhaustive

MEMORY = 70_000_000
"""Bytes of a participant's processes of its own, and its part of what it shares with others."""
SHORT = "  # handshake_timeout: 10 "


@pytest.mark.timeout(900)
def test_twenty_participants_enrol_ten_times_at_once_each(python):
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    folder.chmod(0o711)
    course = Course(folder / "course", python)
    try:
        ports = [
            "--port",
            str(course.base),
            "--page-port",
            str(course.base + 30),
            "--trainer-port",
            str(course.base + 60),
        ]
        where = ["--name", "localhost", "--name", "127.0.0.1", "--listen", "127.0.0.1", "--uid-base", str(course.base)]
        course.run("init", course.own, "--participants", "20", *where, *ports)
        names = course.workshop.ids()
        for name in names:  # 200 clients in one process are slow, and slower where the machine has other work
            config = course.seat(name).folder / "conf.yaml"
            text = config.read_text()
            assert SHORT in text
            config.write_text(text.replace(SHORT, "  handshake_timeout: 300"))
        with course.served():
            with concurrent.futures.ThreadPoolExecutor(200) as threads:
                jobs = [threads.submit(course.enrol, name, seconds=300) for _ in range(10) for name in names]
                statuses = Counter(job.result()[0] for job in jobs)
            print(statuses)
            assert statuses == {200: 200}
            weights = {name: proportional(course.seat(name).uid) for name in names}
            print(sorted(weights.values()))
            assert max(weights.values()) < MEMORY, weights
            assert not any(course.child(name)["restarts"] for name in names)
    finally:
        shutil.rmtree(folder)


def proportional(uid: int | None) -> int:
    """Bytes of all processes of a user id, with its part of each page that several processes share (Pss)."""
    mine = [pid for pid, owner, _ in identity.processes() if owner == uid]
    lines = [line for pid in mine for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
