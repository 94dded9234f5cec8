"""The workspace that people edit, and the demo's CA."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from estgw.cli import workspace
from estgw.cli.workspace import WorkspaceError
from estgw.est import certs, names
from estgw.gateway import state
from tests.kit.processes import ROOT, run
from tests.kit.workspace import Workspace


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which a demo has run and files were edited."""
    made = tmp_path / "template"
    made.mkdir()
    shutil.copy(ROOT / "conf.yaml", made)
    for part in ("handlers", "openssl-ca"):
        shutil.copytree(ROOT / part, made / part)
    for name in ("cacert.pem", "server.pem", "private/cakey.pem", "index.txt", "newcerts/01.pem"):
        (made / "openssl-ca" / name).parent.mkdir(exist_ok=True)
        (made / "openssl-ca" / name).write_text("secret")
    (made / "handlers/python/__pycache__").mkdir(parents=True, exist_ok=True)
    (made / "handlers/python/__pycache__/ca.pyc").write_text("x")
    (made / "handlers/openssl/.simpleenroll.swp").write_text("x")
    monkeypatch.setattr(workspace, "template", lambda: made)
    return made


def test_init_lays_out_the_shipped_files(tmp_path):
    workspace.init(tmp_path / "lab")
    made = {str(path.relative_to(tmp_path / "lab")) for path in (tmp_path / "lab").rglob("*") if path.is_file()}
    made = {name for name in made if not name.startswith(".estgw/")}
    assert made >= {
        "conf.yaml",
        "handlers/openssl/simpleenroll",
        "handlers/examples/echo-env",
        "openssl-ca/README.md",
        "openssl-ca/create-ca",
        "openssl-ca/openssl.cnf",
        "openssl-ca/profiles/client",
    }
    for name in made:
        assert (tmp_path / "lab" / name).read_bytes() == (ROOT / name).read_bytes()


@pytest.mark.usefixtures("template")
def test_init_leaves_out_files_that_a_run_made_in_a_checkout(tmp_path):
    workspace.init(tmp_path / "lab")
    made = {path.name for path in (tmp_path / "lab").rglob("*")}
    assert not made & {
        "cacert.pem", "server.pem", "cakey.pem", "private", "index.txt", "newcerts", "ca.pyc", "__pycache__",
        ".simpleenroll.swp",
    }  # fmt: skip


def test_init_overwrites_nothing_in_an_existing_directory(tmp_path):
    (tmp_path / "notes").write_text("mine")
    workspace.init(tmp_path)
    (tmp_path / "conf.yaml").write_text("mine")
    with pytest.raises(WorkspaceError, match=r"conf\.yaml exists; a workspace is never overwritten"):
        workspace.init(tmp_path)
    assert (tmp_path / "conf.yaml").read_text() == "mine"


@pytest.mark.parametrize("part", ["handlers", "openssl-ca"])
def test_init_refuses_a_directory_with_one_part_of_a_workspace(tmp_path, part):
    (tmp_path / part).mkdir()
    with pytest.raises(WorkspaceError, match=f"{part} exists"):
        workspace.init(tmp_path)
    assert not (tmp_path / "conf.yaml").exists()


def test_init_names_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match=r"file.*: (Not a directory|File exists)"):
        workspace.init(tmp_path / "file")


# Mode bits.


@pytest.mark.usefixtures("loose_umask")
def test_scripts_are_executable_and_nothing_is_writable_by_others(tmp_path):
    workspace.init(tmp_path / "lab")
    for path in (tmp_path / "lab").rglob("*"):
        assert not mode(path) & 0o022, path
        if path.is_file():
            wanted = path.read_bytes().startswith(b"#!") and ".estgw" not in path.parts
            assert bool(mode(path) & stat.S_IXUSR) is wanted, path


@pytest.mark.parametrize(
    ("before", "after"), [(0o644, 0o755), (0o666, 0o755), (0o600, 0o700), (0o640, 0o750), (0o755, 0o755)]
)
def test_every_reader_of_a_script_may_run_it(tmp_path, before, after):
    workspace.init(tmp_path)
    script = tmp_path / "handlers/openssl/simpleenroll"
    script.chmod(before)
    workspace.tighten(tmp_path)
    assert mode(script) == after


def test_tighten_keeps_keys_private_and_ignores_links(tmp_path):
    workspace.init(tmp_path)
    private = tmp_path / "openssl-ca/private"
    private.mkdir(mode=0o700)
    (private / "cakey.pem").write_text("secret")
    (private / "cakey.pem").chmod(0o600)
    outside = tmp_path / "outside"
    outside.write_text("#!/bin/bash\n")
    outside.chmod(0o666)
    (tmp_path / "handlers/link").symlink_to(outside)
    (tmp_path / "handlers/broken").symlink_to(tmp_path / "nowhere")
    workspace.tighten(tmp_path)
    assert (mode(private), mode(private / "cakey.pem"), mode(outside)) == (0o700, 0o600, 0o666)


# The demo.


def test_a_demo_can_be_served(lab):
    assert state.load(lab.path / "conf.yaml").services


@pytest.mark.usefixtures("loose_umask")
def test_prepare_demo_makes_ca_and_users_once(tmp_path):
    assert workspace.prepare_demo(tmp_path / "lab")
    books = Workspace(tmp_path / "lab").books()
    users = (tmp_path / "lab/users.htpasswd").read_bytes()
    assert users.startswith(b"estuser:$2")
    assert mode(tmp_path / "lab/users.htpasswd") == 0o600
    assert not workspace.prepare_demo(tmp_path / "lab")
    assert Workspace(tmp_path / "lab").books() == books
    assert (tmp_path / "lab/users.htpasswd").read_bytes() == users
    state.load(tmp_path / "lab/conf.yaml")


def test_a_demo_with_names_has_them_in_its_certificate_and_keeps_its_ca(tmp_path):
    path = tmp_path / "lab"
    assert workspace.prepare_demo(path, ["est.lab.example", "192.0.2.10"])
    lab = Workspace(path)
    assert {"DNS:est.lab.example", "IP:192.0.2.10", "DNS:localhost"} <= names_in(lab)
    root, key, books = lab.root, (lab.ca / "private/serverkey.pem").read_bytes(), lab.books()
    assert not workspace.prepare_demo(path, ["192.0.2.10"])
    assert lab.books() == books, "the certificate has this name already"
    assert not workspace.prepare_demo(path, ["192.0.2.11", "2001:db8::1"])
    assert lab.root == root
    assert {"IP:192.0.2.11", "IP:2001:db8::1", "DNS:localhost"} <= names_in(lab)
    assert (lab.ca / "private/serverkey.pem").read_bytes() != key
    assert not [row for row in lab.rows if row[0] == "R"]


def names_in(lab: Workspace) -> set[str]:
    return {names.san_text(entry) for entry in certs.san(lab.load("server.pem")[0]) or ()}


@pytest.mark.parametrize(
    "name", ["a_b.example", "est.example:8443", "https://est.example", "192.0.2.256", "-x.example", ""]
)
def test_a_name_that_no_certificate_can_hold_makes_no_demo(tmp_path, name):
    with pytest.raises(
        WorkspaceError, match=r"create-ca failed: create-ca: .*(not a host name or IP address|wants a value)"
    ):
        workspace.prepare_demo(tmp_path / "lab", [name])
    assert not (tmp_path / "lab" / workspace.ANCHOR).exists()
    assert not (tmp_path / "lab" / workspace.USERS).exists()


def test_prepare_demo_makes_a_missing_users_file(own_lab):
    (own_lab.path / "users.htpasswd").unlink()
    assert not workspace.prepare_demo(own_lab.path)
    assert (own_lab.path / "users.htpasswd").exists()


def test_prepare_demo_makes_scripts_executable_again(own_lab):
    for path in (own_lab.path / "handlers").rglob("*"):
        if path.is_file():
            path.chmod(0o664)
    workspace.prepare_demo(own_lab.path)
    state.load(own_lab.path / "conf.yaml")


def test_prepare_demo_reports_why_create_ca_failed(tmp_path):
    workspace.init(tmp_path)
    (tmp_path / "openssl-ca/create-ca").write_text("#!/bin/bash\necho no openssl here >&2\nexit 3\n")
    with pytest.raises(WorkspaceError, match="create-ca failed: no openssl here"):
        workspace.prepare_demo(tmp_path)


def test_a_demo_works_in_a_directory_with_an_odd_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = Path("two words & 'quotes'")
    assert workspace.prepare_demo(odd)
    state.load(odd / "conf.yaml")


def test_the_fingerprint_is_the_one_that_openssl_prints(lab):
    printed = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", lab.anchor).stdout.decode()
    assert printed.strip().split("=")[1] == workspace.fingerprint(lab.path)


def test_the_template_of_a_checkout_is_the_checkout():
    assert workspace.template() == ROOT
