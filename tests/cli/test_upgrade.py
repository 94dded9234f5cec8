"""`estgw init --diff` and `--merged`: changes by the user and by a newer version."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from estgw import __version__
from estgw.cli import main as command_line
from estgw.cli import upgrade, workspace
from estgw.gateway import state
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

SCRIPT = "handlers/openssl/simpleenroll"
LIFETIME = "handlers/openssl/settings.sh"


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that estgw ships; tests change them, as a newer version does."""
    made = tmp_path / "template"
    made.mkdir()
    shutil.copy(ROOT / "conf.yaml", made)
    for path in workspace.shipped(ROOT):
        target = made / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    monkeypatch.setattr(workspace, "template", lambda: made)
    return made


@pytest.fixture
def laid_out(template: Path, tmp_path: Path) -> Path:
    workspace.init(tmp_path / "lab")
    return tmp_path / "lab"


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = command_line.main(["init", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_init_keeps_the_shipped_originals_byte_for_byte(laid_out, template):
    originals = laid_out / ".estgw/shipped"
    assert (originals / "VERSION").read_text() == f"{__version__}\n"
    kept = {str(path.relative_to(originals)) for path in originals.rglob("*") if path.is_file()}
    assert kept == {str(path.relative_to(template)) for path in workspace.shipped(template)} | {"VERSION"}
    for name in kept - {"VERSION"}:
        assert (originals / name).read_bytes() == (ROOT / name).read_bytes()
        assert not stat.S_IMODE((originals / name).stat().st_mode) & 0o133, "no program, and for its owner to write"
    assert os.listdir(laid_out / ".estgw") == ["shipped"]


def test_conf_yaml_carries_the_version_that_shipped_it():
    assert (ROOT / "conf.yaml").read_text().startswith(f"# Shipped with estgw {__version__}; ")


def test_the_gateway_and_check_ignore_the_originals(own_lab, capsys):
    shutil.rmtree(own_lab.path / ".estgw/shipped/handlers")
    (own_lab.path / ".estgw/shipped/conf.yaml").write_text("nonsense: [")
    assert state.load(own_lab.path / "conf.yaml").services
    assert command_line.main(["check", "-c", str(own_lab.path / "conf.yaml")]) == 0
    assert ".estgw" not in capsys.readouterr().out


def test_a_demo_in_a_checkout_makes_no_originals(tmp_path):
    for path in workspace.shipped(ROOT):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    workspace.prepare_demo(tmp_path)
    assert Workspace(tmp_path).rows
    assert not (tmp_path / ".estgw").exists()


def test_diff_of_an_unchanged_workspace_says_unchanged(laid_out, capsys):
    status, out, err = main(capsys, "--diff", laid_out)
    head, unchanged = out.splitlines()
    assert (status, err) == (0, "")
    assert head == f"{laid_out}: shipped with estgw {__version__}, compared with estgw {__version__}"
    assert unchanged.startswith("unchanged: ")


def test_diff_shows_changes_of_both_sides_and_their_conflicts(laid_out, template, capsys, monkeypatch):
    (laid_out / ".estgw/shipped/VERSION").write_text("0.0.9\n")
    edit(laid_out / "handlers/openssl/cacerts", "set -euo pipefail", "set -euo pipefail # mine")  # changed by you
    edit(template / "handlers/openssl/csrattrs", "set -euo pipefail", "set -euo pipefail # ours")  # changed by us
    edit(laid_out / SCRIPT, "# only_user_name", "only_user_name")  # both, far apart
    edit(template / SCRIPT, "#!/bin/bash\n", "#!/bin/bash\n# a new remark\n")
    edit(laid_out / LIFETIME, "lifetime=90d", "lifetime=1d")  # both, at the same place
    edit(template / LIFETIME, "lifetime=90d", "lifetime=60d")
    (template / "handlers/openssl/brand-new").write_text("#!/bin/bash\n")
    (template / "openssl-ca/find").write_text("#!/bin/bash\n")
    (laid_out / "openssl-ca/find").unlink()  # removed by you, changed by us
    (laid_out / "handlers/examples/genp10").unlink()  # removed by you
    (template / "handlers/examples/echo-env").unlink()  # removed by us
    (template / "handlers/examples/allow-list").unlink()  # removed by us, and changed by you
    (laid_out / "handlers/examples/allow-list").write_text("#!/bin/bash\n# mine\n")
    (laid_out / "handlers/openssl/my-own").write_text("mine")
    monkeypatch.chdir(laid_out)
    status, out, err = main(capsys, "--diff")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f".: shipped with estgw 0.0.9, compared with estgw {__version__}"
    assert {
        "changed by you: handlers/openssl/cacerts",
        "changed by us: handlers/openssl/csrattrs",
        f"changed by you and by us: {SCRIPT}",
        f"changed by you and by us: {LIFETIME}",
        "new: shipped now, and not in your workspace: handlers/openssl/brand-new",
        "removed by you, and changed by us: openssl-ca/find",
        "removed by you: handlers/examples/genp10",
        "removed by us: not shipped any more: handlers/examples/echo-env",
        "removed by us, and changed by you: handlers/examples/allow-list",
    } == set(lines[2:11])
    assert "-set -euo pipefail\n+set -euo pipefail # mine\n" in out
    assert "-set -euo pipefail\n+set -euo pipefail # ours\n" in out
    assert f"{SCRIPT}: you and we have changed different places; both changes can be taken" in lines
    number = (
        (ROOT / LIFETIME)
        .read_text()
        .splitlines()
        .index(next(line for line in (ROOT / LIFETIME).read_text().splitlines() if line.startswith("lifetime=90d")))
    )
    words = f"you and we have changed the same place, at lines {number + 1} of the original; decide by hand"
    assert f"{LIFETIME}: {words}" in lines
    assert "my-own" not in out


def test_merged_makes_the_shipped_files_the_new_originals(laid_out, template, capsys):
    (laid_out / ".estgw/shipped/VERSION").write_text("0.0.9\n")
    edit(template / LIFETIME, "lifetime=90d", "lifetime=60d")
    edit(laid_out / LIFETIME, "lifetime=90d", "lifetime=60d # as they do")
    assert f"changed by you and by us: {LIFETIME}" in main(capsys, "--diff", laid_out)[1]
    status, out, _ = main(capsys, "--merged", laid_out)
    assert (status, out) == (
        0,
        f"{laid_out}/.estgw/shipped has the files of estgw {__version__} now; estgw init --diff starts from them\n",
    )
    out = main(capsys, "--diff", laid_out)[1]
    assert f"changed by you: {LIFETIME}" in out
    assert "by us" not in out
    assert os.listdir(laid_out / ".estgw") == ["shipped"]


def test_diff_of_a_workspace_without_originals_says_so(laid_out, capsys):
    shutil.rmtree(laid_out / ".estgw")
    edit(laid_out / LIFETIME, "lifetime=90d", "lifetime=1d")
    (laid_out / "openssl-ca/find").unlink()
    status, out, _ = main(capsys, "--diff", laid_out)
    assert status == 0
    assert f"{laid_out}/.estgw/shipped is missing: an older version of estgw has made this workspace." in out
    assert f"only the differences from estgw {__version__} are known, and not who made them." in out
    assert f"differs: {LIFETIME}" in out
    assert "new: shipped now, and not in your workspace: openssl-ca/find" in out
    assert f"estgw init --merged {laid_out}" in out
    assert main(capsys, "--merged", laid_out)[0] == 0
    assert f"changed by you: {LIFETIME}" in main(capsys, "--diff", laid_out)[1]


def test_diff_escapes_control_characters_and_names_binary_files(laid_out, capsys):
    (laid_out / LIFETIME).write_text("\x1b[2J\tx\n")
    (laid_out / "openssl-ca/find").write_bytes(b"\x7fELF\0\xff")
    out = main(capsys, "--diff", laid_out)[1]
    assert "\x1b" not in out
    assert "+\\x1b[2J" in out
    assert "openssl-ca/find: it is very long or no text, so its lines are not compared" in out


@pytest.mark.parametrize("option", ["--diff", "--merged"])
def test_diff_and_merged_refuse_a_directory_that_is_no_workspace(tmp_path, capsys, option):
    status, _, err = main(capsys, option, tmp_path)
    assert status == 1
    assert f"{tmp_path} is no workspace: there is no conf.yaml in it; make one with: estgw init DIR" in err
    status, _, err = main(capsys, option, ROOT)
    assert status == 1
    assert "is the checkout that estgw runs from; git diff shows what has changed in it" in err
    assert not (ROOT / ".estgw").exists()


@pytest.mark.parametrize("arguments", [["--diff", "--merged"], []])
def test_init_refuses_two_options_or_no_directory(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["init", *arguments])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert ("give one of them" if arguments else "the directory of the workspace is missing") in err


TEN = [f"line {number}" for number in range(1, 11)]


def replaced(number: int, *texts: str) -> list[str]:
    """Ten lines with others in the place of one."""
    return [*TEN[: number - 1], *texts, *TEN[number:]]


@pytest.mark.parametrize(
    ("users", "ours", "places"),
    [
        (replaced(3, "mine"), replaced(7, "ours"), []),
        (replaced(3, "mine"), replaced(3, "ours"), [(3, 3)]),
        (replaced(3, "the same"), replaced(3, "the same"), []),
        (replaced(3), replaced(3, "ours"), [(3, 3)]),
        (replaced(3, "mine"), replaced(4, "ours"), [(3, 4)]),
        ([*TEN, "mine"], [*TEN, "ours"], [(11, 11)]),
        (["mine", *TEN], [*TEN, "ours"], []),
        (["mine"], replaced(5, "ours"), [(1, 10)]),
        (replaced(2, "mine", "too"), replaced(2, "ours"), [(2, 2)]),
    ],
)
def test_changes_of_both_conflict_where_they_overlap_or_touch(users, ours, places):
    assert upgrade.meeting_places(TEN, users, ours) == places
