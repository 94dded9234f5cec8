"""Private directories: who keeps them, and who removes those of dead processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estgw.callout import home
from estgw.callout.home import AGE, Home
from tests.kit.processes import ROOT

OWNER = """
import sys, time
from pathlib import Path
from estgw.callout.home import Home
directory = Home(Path(sys.argv[1])).directory()
directory.mkdir()
(directory / "key.pem").write_text("secret")
print(directory, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def owner(where: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that has a private directory, with a key in the directory of a request."""
    command = [sys.executable, "-c", OWNER, str(where)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_a_private_directory_has_mode_700_and_goes_with_its_owner(tmp_path):
    made = Home(tmp_path)
    assert made.path.stat().st_mode & 0o777 == 0o700
    first, second = made.directory(), made.directory()
    assert first != second
    first.mkdir()
    (first / "key.pem").write_text("secret")
    made.close()
    assert not list(tmp_path.iterdir())


def test_the_directory_of_a_running_process_is_kept(tmp_path):
    with owner(tmp_path) as (_, directory):
        home.sweep(tmp_path)
        assert (directory / "key.pem").exists()


def test_the_directory_of_a_killed_process_is_removed(tmp_path):
    with owner(tmp_path) as (process, directory):
        process.kill()
        process.wait()
        assert (directory / "key.pem").exists()
        Home(tmp_path).close()
        assert not list(tmp_path.iterdir())


def test_a_running_script_of_a_killed_gateway_keeps_its_directory(tmp_path):
    with owner(tmp_path) as (process, directory):
        process.kill()
        process.wait()
        other = directory.parent / "other"
        other.mkdir()
        script = subprocess.Popen(["sleep", "60"], env={"EST_TMPDIR": str(directory), "PATH": os.environ["PATH"]})
        try:
            home.sweep(tmp_path)
            assert (directory / "key.pem").exists()
            assert not other.exists()
            os.utime(directory, (time.time() - AGE - 1,) * 2)
            home.sweep(tmp_path)  # no callout takes this long
            assert not directory.exists()
        finally:
            script.kill()
            script.wait()
        home.sweep(tmp_path)
        assert not list(tmp_path.iterdir())


def test_outlive_removes_the_directory_when_its_last_script_ends(tmp_path):
    with owner(tmp_path) as (process, directory):
        process.kill()
        process.wait()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "EST_TMPDIR": str(directory)}
        with subprocess.Popen(["sleep", "60"], env=environment) as script:
            code = "import sys, pathlib; from estgw.callout import home; home.outlive(pathlib.Path(sys.argv[1]))"
            command = [sys.executable, "-c", code, str(directory.parent)]
            with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as heir:
                time.sleep(0.5)
                assert (directory / "key.pem").exists()
                script.kill()
                script.wait()
                assert heir.wait(20) == 0
        assert not list(tmp_path.iterdir())


def test_sweep_leaves_foreign_files_and_directories_alone(tmp_path):
    """Links, files, directories open to others, other names, and a user's own directory with a similar name."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "precious").touch()
    (tmp_path / f"estgw-{'a' * 16}").symlink_to(elsewhere)
    (tmp_path / f"estgw-{'b' * 16}").touch()
    (tmp_path / f"estgw-{'c' * 16}").mkdir(mode=0o755)
    (tmp_path / "estgw-env-abcdefgh").mkdir(mode=0o700)
    mine = tmp_path / "estgw-notebook"
    mine.mkdir(mode=0o700)
    (mine / "precious").touch()
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 2 * AGE,) * 2, follow_symlinks=False)
    before = sorted(tmp_path.rglob("*"))
    home.sweep(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    assert (elsewhere / "precious").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_sweep_leaves_another_users_directory_alone(tmp_path):
    path = tmp_path / f"estgw-{'a' * 16}"
    path.mkdir(mode=0o700)
    os.chown(path, 54321, 54321)
    home.sweep(tmp_path)
    assert path.exists()


def test_directories_of_earlier_versions_are_removed_by_age(tmp_path):
    request, supervisor = tmp_path / f"estgw-{'0a' * 16}", tmp_path / "estgw-ab_9xyz1"
    for path in (request, supervisor, supervisor / "locks", supervisor / "tmp-1", supervisor / "tmp-1" / request.name):
        path.mkdir(mode=0o700)
    (request / "key.pem").touch()
    home.sweep(tmp_path)
    assert (request / "key.pem").exists()
    assert supervisor.exists()
    for path in (request, supervisor):
        os.utime(path, (time.time() - AGE - 1,) * 2)
    home.sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_sweep_removes_links_and_does_not_follow_them(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    with owner(tmp_path) as (process, directory):
        process.kill()
        process.wait()
    (directory / "link").symlink_to(precious)
    (directory.parent / "link").symlink_to(precious)
    home.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [precious]
    assert (precious / "file").exists()


def test_a_removed_private_directory_is_made_again(tmp_path):
    made = Home(tmp_path)
    made.path.rmdir()
    directory = made.directory()
    directory.mkdir()
    home.sweep(tmp_path)
    assert directory.exists()
    made.close()
    assert not list(tmp_path.iterdir())


def test_concurrent_processes_do_not_sweep_each_others_directories(tmp_path):
    code = (
        "import sys; from pathlib import Path; from estgw.callout.home import Home\n"
        "for _ in range(60):\n"
        "    made = Home(Path(sys.argv[1])); path = made.directory(); path.mkdir(); (path / 'f').touch()\n"
        "    assert made.directory().parent == path.parent and (path / 'f').exists(); made.close()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) for _ in range(4)]
    assert [each.wait(120) for each in running] == [0] * 4
    assert not list(tmp_path.iterdir())
