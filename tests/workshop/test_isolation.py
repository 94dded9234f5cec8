"""What one participant's scripts can do to others, as root: nothing, and the machine goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from estgw.workshop import identity
from tests.kit.processes import ROOT, alive, until
from tests.workshop.conftest import SYSTEM, Course, reachable_python

pytestmark = pytest.mark.slow

SCRIPT = "openssl/simpleenroll"


@pytest.fixture
def script(course: Course):
    """Run a text as p02's script, once, as anybody can who has p02's page; what it has printed, and the status."""
    changed = []

    def run(text: str, *, seconds: float = 60) -> tuple[int, str]:
        found = course.edit("p02", SCRIPT, f"#!/bin/bash\n{text}\n")
        changed.append(found["text"])
        try:
            status, body = course.enrol("p02", seconds=seconds)
        except OSError:
            return 0, ""
        return status, body.decode(errors="replace")

    yield run
    until(lambda: not end_scripts(course))
    until(course.all_up)
    course.edit("p02", SCRIPT, changed[0])


def end_scripts(course: Course) -> list[int]:
    """Kill what p02 runs besides its gateway, and return what was there."""
    kept, uid = course.child("p02")["pid"], course.seat("p02").uid
    found = [pid for pid, owner, _ in identity.processes() if owner == uid and pid != kept]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def require_well(course: Course) -> None:
    """p01 gets a certificate, and gets it soon."""
    began = time.monotonic()
    assert course.enrol("p01")[0] == 200
    assert time.monotonic() - began < 30


def test_each_gateway_has_a_user_id_and_no_rights(course):
    for number, name in enumerate(("trainer", "p01", "p02")):
        lines = Path(f"/proc/{course.child(name)['pid']}/status").read_text().splitlines()
        found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert found["Uid"].split() == [str(course.base + number)] * 4
        assert found["Groups"].split() in ([], [str(course.base + number)])
        assert {found[key] for key in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert found["NoNewPrivs"] == "1"


def test_a_script_cannot_read_anything_of_another_participant(course, script):
    theirs = course.seat("p01").folder
    files = [
        theirs / "openssl-ca/private/cakey.pem",
        theirs / "page.tokens",
        theirs / "users.htpasswd",
        theirs / "conf.yaml",
    ]
    files += [course.folder / name for name in ("secrets.json", "workshop.yaml", "trainer.json", ".pristine/p01.tar")]
    pid = course.child("p01")["pid"]
    files += [Path(f"/proc/{pid}/environ"), Path(f"/proc/{pid}/mem")]
    assert all(path.exists() for path in files)
    reads = "\n".join(f"head -c1 {path} >/dev/null 2>&1 && echo READ {path}" for path in files)
    lists = f"ls {theirs} {theirs}/records {course.folder} {course.folder}/old 2>/dev/null"
    status, said = script(
        f"echo begin; {reads}\n{lists}\ntouch {theirs}/x {course.folder}/x 2>/dev/null && echo WROTE\nexit 77"
    )
    assert (status, said.split()) == (403, ["begin"])


def test_a_token_of_another_participant_opens_no_page(course):
    theirs = course.seat("p02").token
    for path in ("/api/records", "/api/facts", "/api/files", "/api/standing"):
        assert course.page("p01", "GET", path, token=theirs) == (403, b"")
        assert course.page("trainer", "GET", path, token=theirs) == (403, b"")
    status, _ = course.page("p01", "PUT", f"/api/file?name={SCRIPT}&instead=", b"x", token=theirs)
    assert status == 403
    assert course.page("trainer", "POST", "/api/participants/p01/reset", token=theirs) == (403, b"")


def test_a_script_cannot_stop_the_gateway_of_another_or_the_supervisor(course, script):
    assert course.process is not None
    pids = [course.child("p01")["pid"], course.child("trainer")["pid"], course.process.pid]
    kills = "; ".join(f"kill -KILL {pid} 2>/dev/null && echo KILLED {pid}" for pid in pids)
    status, said = script(f"{kills}\ntest -S {course.folder}/.run/control && echo SOCKET\necho end; exit 77")
    assert (status, said.split()) == (403, ["end"])
    assert all(map(alive, pids))
    require_well(course)


def test_a_script_that_forks_without_end_costs_its_owner_alone(course, script):
    script("f() { while :; do f & done; }; f 2>/dev/null; wait", seconds=4)
    mine = [pid for pid, uid, _ in identity.processes() if uid == course.seat("p02").uid]
    assert len(mine) <= 80
    subprocess.run(["true"], check=True)
    require_well(course)


def test_a_script_that_eats_memory_is_killed_and_the_others_go_on(course, script):
    # Three processes, each below the bound of one.
    eat = "python3 -c 'import time; x = bytearray(200 << 20); time.sleep(20)'"
    before = course.child("p02")["killed"]
    script(f"for n in 1 2 3; do {eat} & done; wait", seconds=12)
    until(lambda: course.child("p02")["killed"] > before)
    require_well(course)
    found = course.child("p01")
    assert found["killed"] == 0


def test_one_process_cannot_have_more_memory_than_its_owner(course, script):
    status, said = script("python3 -c 'bytearray(600 << 20)' 2>&1 | tail -n1; exit 77")
    assert (status, said.strip()) == (403, "MemoryError")


def test_a_script_has_a_tmp_of_its_own_that_is_bounded(course, script):
    fill = "head -c 100M /dev/zero >/tmp/big 2>/dev/null; stat -c %s /tmp/big; rm -f /tmp/big"
    mark = Path("/tmp/estgw-test-mark")
    mark.write_text("")
    try:
        status, said = script(f"ls {mark} 2>/dev/null; {fill}; exit 77")
    finally:
        mark.unlink()
    size = int(said.split()[0])
    assert status == 403
    assert 1 << 20 < size <= 64 << 20
    require_well(course)


def test_a_dead_gateway_is_started_again_without_what_its_scripts_have_left(course):
    before = course.child("p02")
    left = subprocess.Popen(
        ["sleep", "300"], user=course.seat("p02").uid, group=course.seat("p02").uid, extra_groups=()
    )
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: course.child("p02")["pid"] not in (None, before["pid"]))
    assert left.wait(20) == -signal.SIGKILL
    until(course.all_up)
    assert course.child("p02")["restarts"] == before["restarts"] + 1


@pytest.mark.parametrize("kind", ["symlink", pytest.param("fifo", marks=pytest.mark.exhaustive)])
def test_what_lies_in_a_participants_directory_leads_root_nowhere(course, script, kind):
    """Root opens nothing there: the handouts need the server's certificate, and the owner's rights read it."""
    place = "openssl-ca/server.pem"
    trap = f"ln -s {course.folder}/secrets.json" if kind == "symlink" else "mkfifo"
    script(f'cd "$EST_CA_DIR/.." && cp {place} keep.pem && rm {place} && {trap} {place}; exit 77')
    done = course.run("handouts", course.own, status=1)
    assert "p02" in done.stderr
    assert course.seat("p01").password not in done.stderr
    script(
        'cd "$EST_CA_DIR/.." && rm -f openssl-ca/server.pem && ln -s current/server.pem openssl-ca/server.pem; exit 77'
    )
    course.run("handouts", course.own)


@pytest.mark.exhaustive
def test_a_file_system_of_ones_own_is_filled_by_its_owner_alone(python):
    if shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices or mkfs.ext4 are missing")
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    folder.chmod(0o711)
    course = Course(folder / "course", python)
    try:
        course.init(2, "--disk", "64")
        with course.served():
            assert course.seat("p01").folder.is_mount()
            course.edit("p02", SCRIPT, '#!/bin/bash\nhead -c 200M /dev/zero >"$EST_CA_DIR/fill"; exit 77\n')
            course.enrol("p02")
            assert os.statvfs(course.seat("p02").folder).f_bavail < 100
            image = (course.folder / ".images/p02.img").stat()
            assert image.st_size == 64 << 20
            assert image.st_blocks * 512 < 66 << 20
            require_well(course)
            course.run("reset", "p02", course.own)
            until(course.all_up)
            assert course.enrol("p02")[0] == 200
        assert not course.seat("p01").folder.is_mount()
        course.run("wipe", "--yes", course.own)
        assert [path.name for path in course.folder.iterdir()] == ["log"]
    finally:
        shutil.rmtree(folder)


def test_a_directory_a_checkout_or_an_interpreter_that_participants_cannot_reach_is_refused_in_words(python):
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    options = ("--participants", "1", "--name", "localhost", "--uid-base", "57000")
    try:
        closed = Course(folder / "course", python)
        done = closed.run("init", closed.own, *options, status=1)
        assert f"{folder} is closed to participants, who need {folder}" in done.stderr
        assert "open it with chmod o+x, or install estgw elsewhere" in done.stderr
        assert list(folder.iterdir()) == []
        for part in ("estgw", "handlers", "openssl-ca"):
            shutil.copytree(ROOT / part, folder / "checkout" / part)
        shutil.copy2(ROOT / "conf.yaml", folder / "checkout")
        closed = Course(python.parent / "course", python)
        done = closed.run("init", closed.own, *options, status=1, checkout=folder / "checkout")
        assert f"{folder} is closed to participants, who need {folder}/checkout/estgw/__init__.py" in done.stderr
        assert "open it with chmod o+x, or install estgw elsewhere" in done.stderr
        # An interpreter of its own in a closed directory, as pyenv puts it into a home.
        reachable_python(folder / "home")
        own = folder / "home/bin/python"
        own.unlink()
        shutil.copy2(SYSTEM, own)
        closed = Course(python.parent / "course", own)
        done = closed.run("init", closed.own, *options, status=1)
        assert f"{folder} is closed to participants, who need {own}" in done.stderr
        assert f"estgw runs by {own}: make a virtual environment below /opt with an interpreter that" in done.stderr
        assert not closed.folder.exists()
    finally:
        shutil.rmtree(folder)


def test_the_page_of_a_participant_is_known_by_its_own_ca_alone(course):
    context = ssl.create_default_context(cafile=str(course.seat("p02").anchor))
    with pytest.raises(OSError, match="certificate verify failed"):
        urllib.request.urlopen(f"https://127.0.0.1:{course.seat('p01').page_port}/", context=context, timeout=20)
