"""The wheel: its files, files that must not be in it, and a workspace made from it outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from estgw import __version__
from tests.kit.csr import csr
from tests.kit.gateway import Gateway
from tests.kit.processes import DEADLINE, ROOT, run
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

TEMPLATE = "estgw/template"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel from a copy of the checkout in which a demo has run, so that there are keys that must be left out."""
    source = tmp_path_factory.mktemp("source")
    files = ("pyproject.toml", "README.md", "LICENSE", "Makefile", "conf.yaml")
    for part in (*files, "estgw", "handlers", "openssl-ca", "docs"):
        run("cp", "-R", ROOT / part, source)
    for made in ("cacert.pem", "index.txt", "ca.lock"):
        (source / "openssl-ca" / made).write_text("made by a run")
    for folder, made in (("private", "cakey.pem"), ("newcerts", "01.pem"), ("pending", "a.request")):
        (source / "openssl-ca" / folder).mkdir(exist_ok=True)
        (source / "openssl-ca" / folder / made).write_text("made by a run")
    for made in ("users.htpasswd", "handlers/examples/one-time-passwords", "handlers/lab10/authorize"):
        (source / made).parent.mkdir(exist_ok=True)
        (source / made).write_text("made by a run")
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    run("make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/runtime", "dist", cwd=source, env=environment)
    (built,) = (source / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as an installer lays it out, except for the modes, which a zip file may lose."""
    path = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(path)
    return path


def test_the_wheel_has_all_shipped_files_and_no_secrets(wheel):
    assert wheel.name == f"estgw-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        content = b"".join(archive.read(name) for name in names)
    scripts = [path for path in (ROOT / "handlers").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in (ROOT / "conf.yaml", *scripts, *ca_files()):
        assert f"{TEMPLATE}/{path.relative_to(ROOT)}" in names
    assert "estgw/py.typed" in names
    assert not [name for name in names if not name.startswith(("estgw/", f"estgw-{__version__}.dist-info/"))]
    assert b"made by a run" not in content
    assert not [name for name in names if name.endswith((".key", ".htpasswd", ".pyc")) or "private" in name]


def test_the_live_page_travels_in_the_wheel_with_what_is_vendored(wheel):
    static = ROOT / "estgw/page/static"
    files = [path for path in static.rglob("*") if path.is_file()]
    assert len(files) > 25
    with zipfile.ZipFile(wheel) as archive:
        for path in files:
            assert archive.read(str(path.relative_to(ROOT))) == path.read_bytes()


def test_the_sheets_of_the_labs_travel_in_the_wheel(unpacked, tmp_path):
    for path in (ROOT / "docs/labs").iterdir():
        assert (unpacked / TEMPLATE / path.relative_to(ROOT)).read_bytes() == path.read_bytes()
    assert b"# Lab 10: " in estgw(unpacked, "lab", "show", "10", cwd=tmp_path).stdout


def ca_files() -> list[Path]:
    """The project's files in openssl-ca/, by the list in .gitignore; all others are made by a run."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    kept = [ROOT / line.removeprefix("!/") for line in ignored if line.startswith("!/openssl-ca/")]
    return [path for entry in kept for path in (entry.iterdir() if entry.is_dir() else [entry])]


def test_the_wheel_installs_estgw_and_estclient(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"estgw-{__version__}.dist-info/entry_points.txt").decode()
    assert {"estgw = estgw.cli.main:main", "estclient = estgw.client.commands.cli:main"} <= set(text.splitlines())


def estgw(unpacked: Path, *arguments: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(unpacked)}
    return run(sys.executable, "-P", "-m", "estgw", *arguments, cwd=cwd, env=environment, status=status)


def test_init_lays_out_a_workspace_that_can_be_edited(unpacked, tmp_path):
    said = estgw(unpacked, "init", "lab", cwd=tmp_path).stdout.decode()
    assert "estgw demo --dir lab" in said
    lab = tmp_path / "lab"
    assert all((lab / path.relative_to(ROOT)).exists() for path in ca_files())
    assert sorted(path.name for path in lab.iterdir()) == [".estgw", "conf.yaml", "handlers", "openssl-ca"]
    for script in ("handlers/openssl/simpleenroll", "handlers/examples/echo-env", "openssl-ca/create-ca"):
        assert os.access(lab / script, os.X_OK)
        assert (lab / script).read_bytes() == (ROOT / script).read_bytes()
    for path in lab.rglob("*"):
        assert not path.stat().st_mode & 0o022, path


def test_init_from_the_wheel_overwrites_nothing(unpacked, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/conf.yaml").write_text("mine")
    refused = estgw(unpacked, "init", "lab", cwd=tmp_path, status=1)
    assert b"conf.yaml exists; a workspace is never overwritten" in refused.stderr
    assert (tmp_path / "lab/conf.yaml").read_text() == "mine"
    assert [path.name for path in (tmp_path / "lab").iterdir()] == ["conf.yaml"]


def test_a_demo_from_the_wheel_works_and_keeps_its_ca(unpacked, tmp_path):
    """The demo runs twice: the second run must keep the CA of the first."""
    anchors = []
    for _ in range(2):
        with demo(unpacked, tmp_path) as process:
            try:
                assert process.stdout is not None
                ready = process.stdout.readline()
                assert ready.startswith("estgw ready https://localhost:"), (tmp_path / "said").read_text()
                gateway = Gateway(Workspace(tmp_path / "lab"), tmp_path, tmp_path / "said", process, ready.split()[-1])
                gateway.lab.verify(gateway.post("simpleenroll", csr()).certificate)
                anchors.append(gateway.lab.anchor.read_bytes())
                process.terminate()
                assert process.wait(DEADLINE) == 0
            finally:
                process.kill()
    assert anchors[0] == anchors[1]
    said = (tmp_path / "said").read_text()
    digest = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", stdin=anchors[0]).stdout.decode()
    assert digest.strip().partition("=")[2] in said
    assert "--anyauth -u estuser:estpwd" in said
    assert "estclient enroll" in said
    assert "openssl verify -CAfile" in said


def demo(unpacked: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "estgw", "demo", "--dir", "lab", "--listen", "127.0.0.1:0"]
    with (folder / "said").open("w") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(unpacked)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )


@pytest.mark.exhaustive
def test_check_from_the_wheel_accepts_the_shipped_configuration(unpacked, lab, own_lab):
    said = estgw(unpacked, "check", "-c", own_lab.path / "conf.yaml", cwd=own_lab.path).stdout
    assert said.endswith(f"{own_lab.path}/conf.yaml: all well\n".encode())
    (own_lab.path / "handlers/openssl/csrattrs").chmod(0o644)
    wrong = estgw(unpacked, "check", "-c", own_lab.path / "conf.yaml", cwd=own_lab.path, status=1).stderr.decode()
    assert "csrattrs: not executable; chmod +x" in wrong
