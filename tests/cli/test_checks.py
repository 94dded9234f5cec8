"""`estgw check`: faults that a gateway does not look for, and the labels that have them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from estgw.cli import ca_check
from estgw.cli import main as command_line
from tests.kit.ca import DAY, NOW, root
from tests.kit.processes import PATH, ROOT, run
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """`estgw run` configures the log of the whole process."""
    with logging_as_before():
        yield


def test_files_that_the_page_names_are_looked_at(own_lab, capsys):
    conf = own_lab.path / "conf.yaml"
    page = "page: {listen: 127.0.0.1:8444, tokens: page.tokens, edit: nowhere}"
    conf.write_text(f"{conf.read_text()}\nrecord: {{keep: 10}}\n{page}\n")
    (own_lab.path / "page.tokens").write_text("no token\n")
    status, faults = check(own_lab, capsys)
    assert status == 1
    assert any("page.tokens: " in fault and "others can read it" in fault for fault in faults), faults
    assert any("page.edit: " in fault and "no such directory" in fault for fault in faults), faults


def check(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit status, and the faults without the folder."""
    status = command_line.main(["check", "-c", str(lab.path / "conf.yaml")])
    err = capsys.readouterr().err
    return status, [line.removeprefix("estgw: ").removeprefix(f"{lab.path}/") for line in err.splitlines()]


def test_syntax_errors_are_named_with_their_label(own_lab, capsys):
    own_lab.script("handlers/openssl/simpleenroll", "fi")
    with (own_lab.path / "handlers/python/ca.py").open("a") as file:
        file.write("def broken(:\n")
    status, found = check(own_lab, capsys)
    assert status == 1
    bash, python = found
    fault = "syntax error: near unexpected token `fi'"
    assert bash == f"handlers/openssl/simpleenroll:2: {fault} (the default label)"
    number = len((own_lab.path / "handlers/python/ca.py").read_text().splitlines())
    assert python == f"handlers/python/ca.py:{number}: syntax error: invalid syntax (label python)"


def test_a_fault_of_a_label_makes_check_fail_and_is_reported_once(own_lab, capsys):
    (own_lab.path / "handlers/python/authorize").chmod(0o644)
    status, found = check(own_lab, capsys)
    script = own_lab.path / "handlers/python/authorize"
    assert (status, found) == (1, [f"handlers/python/authorize: not executable; chmod +x {script} (label python)"])


def test_check_names_the_malformed_row_of_an_index(own_lab, capsys):
    row = b"V\t270101000000Z\t\t0A\tunknown\t/CN=x\n"
    (own_lab.ca / "index.txt").write_bytes(row + b"V\t270101000000Z\t0B\tunknown\t/CN=y\n" + row)
    status, (found,) = check(own_lab, capsys)
    assert status == 1
    assert found == (
        "openssl-ca/index.txt:2: not a row of the register, which has six fields with tabs in between; "
        "correct it by hand, or bring it back from a backup (the default label, label python)"
    )


def test_check_accepts_a_cut_off_row_that_the_next_script_repairs(own_lab, capsys):
    (own_lab.ca / "index.txt").write_bytes(b"V\t270101000000Z\t\t0A\tunknown\t/CN=x\nV\t2701")
    assert check(own_lab, capsys) == (0, [])


def test_an_index_that_is_missing_is_a_fault(own_lab, capsys):
    (own_lab.ca / "index.txt").unlink()
    labels = "(the default label, label python)"
    assert check(own_lab, capsys) == (
        1,
        [f"openssl-ca/index.txt: is missing; bring it back from a backup {labels}"],
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("basicConstraints = critical, CA:MAYBE\n", "invalid boolean string"),
        ("extendedKeyUsage = clientAuht\n", "invalid object identifier; clientAuht"),
        ("keyUsage\n", "missing equal sign"),
        ("nonsense = x\n", "name=nonsense"),
    ],
)
def test_a_bad_profile_is_named_with_the_words_of_openssl(own_lab, text, words):
    (own_lab.ca / "profiles/own").write_text(text)
    (found,) = ca_check.faults(own_lab.ca, PATH)
    assert found.startswith(f"{own_lab.ca}/profiles/own: openssl can't use this profile: ")
    assert words in found


def test_a_profile_may_name_variables_of_the_request(own_lab):
    (own_lab.ca / "profiles/own").write_text("subjectAltName = email:$ENV::REMOTE_USER@example.org\n")
    assert ca_check.faults(own_lab.ca, PATH) == []


def test_a_ca_directory_that_cannot_be_written_is_a_fault(own_lab):
    """Root may write anywhere, so the check runs without that privilege."""
    for path in (own_lab.ca / "newcerts", own_lab.ca / "index.txt"):
        path.chmod(0o500)
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    command = [*drop, sys.executable, "-m", "estgw", "check", "-c", own_lab.path / "conf.yaml"]
    done = run(*command, status=1, cwd=ROOT)
    found = done.stderr.decode().splitlines()
    assert [line.partition(": can't be written by ")[0] for line in found] == [
        f"estgw: {own_lab.ca}/newcerts",
        f"estgw: {own_lab.ca}/index.txt",
    ]
    assert "so nothing can be issued; change its owner or its mode, or run this as the gateway's user" in found[0]


def test_a_user_without_an_account_is_named_by_its_number(own_lab, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 4294967294)
    assert ca_check.faults(own_lab.ca, PATH) == []
    monkeypatch.setattr(os, "access", lambda path, mode: path != own_lab.ca)
    (found,) = ca_check.faults(own_lab.ca, PATH)
    assert found.startswith(f"{own_lab.ca}: can't be written by user id 4294967294, who runs this")


def test_a_directory_of_a_remote_ca_has_no_faults(tmp_path: Path):
    assert ca_check.faults(tmp_path, PATH) == []


def test_a_server_name_that_the_certificate_does_not_have_is_a_fault(own_lab, capsys):
    own_lab.edit("conf.yaml", "  # name: localhost  ", "  name: est.example  # ")
    status, (fault,) = check(own_lab, capsys)
    assert status == 1
    assert fault == (
        f"server.name: est.example is not in the certificate {own_lab.ca}/server.pem, which is for DNS:localhost, "
        "IP:127.0.0.1, IP:::1; change server.name, or get a certificate for it (openssl-ca/README.md has the commands)"
    )
    own_lab.edit("conf.yaml", "  name: est.example  # ", "  name: 127.0.0.1  # ")
    assert check(own_lab, capsys) == (0, [])


def test_check_warns_of_an_expired_anchor_and_does_not_fail(own_lab, capsys):
    old, _ = root("maker", starts=NOW - 9 * DAY, ends=NOW - DAY).write(own_lab.path, "old")
    path = own_lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    data["client_auth"]["implicit"] = [str(old)]
    path.write_text(yaml.safe_dump(data))
    assert command_line.main(["check", "-c", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"{path}: the implicit anchor CN=maker ({old}) is over since {NOW - DAY:%Y-%m-%d %H:%M} UTC: " in out
    assert out.endswith("it can be served as it is\n")


def test_estgw_run_names_the_fault_of_its_label(own_lab, capsys):
    (own_lab.path / "handlers/python/authorize").chmod(0o644)
    config = ["-c", str(own_lab.path / "conf.yaml")]
    assert command_line.main(["run", "cacerts", "--label", "python", *config]) == 1
    assert "handlers/python/authorize: not executable; chmod +x " in capsys.readouterr().err
    assert command_line.main(["run", "cacerts", *config]) == 0


def test_check_reports_faults_of_labels_together_with_all_others(own_lab, capsys):
    (own_lab.path / "handlers/python/authorize").chmod(0o644)
    (own_lab.path / "users.htpasswd").write_text("nonsense\n")
    status, found = check(own_lab, capsys)
    assert status == 1
    assert [fault.partition(":")[0] for fault in found] == ["users.htpasswd", "handlers/python/authorize"]
