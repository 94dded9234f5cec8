"""The command `estgw cmc explain`; tests/cmc tests its words."""

from __future__ import annotations

import base64
import io
import sys

import pytest

from estgw.cli import main
from tests.kit.der import VECTORS, armoured

VECTOR = VECTORS / "altmod-rfc6402-cmc-fullpkirequest.b64"


@pytest.mark.parametrize("form", ["base64", "der", "pem", "stdin"])
def test_explain_reads_pem_der_base64_and_stdin(tmp_path, monkeypatch, capsys, form):
    der = base64.b64decode(VECTOR.read_bytes())
    file = tmp_path / "request"
    file.write_bytes({"der": der, "pem": armoured(der, "CMS")}.get(form, VECTOR.read_bytes()))
    if form == "stdin":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(VECTOR.read_bytes())))
    assert main.main(["cmc", "explain", "-" if form == "stdin" else str(file)]) == 0
    printed = capsys.readouterr()
    assert "PKIData" in printed.out
    assert printed.out.endswith("\n")
    assert printed.err == ""


@pytest.mark.parametrize("content", [b"", b"hello!", b"\x30\x03\x02\x01\x05", armoured(b"\x30\0", "PRIVATE KEY"), None])
def test_explain_refuses_other_files(tmp_path, capsys, content):
    file = tmp_path / "request"
    if content is not None:
        file.write_bytes(content)
    assert main.main(["cmc", "explain", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("estgw: ")
    assert printed.err.count("\n") == 1


def test_a_wrong_command_line_exits_2(capsys):
    for arguments in (["cmc"], ["cmc", "explain"]):
        with pytest.raises(SystemExit) as ended:
            main.main(arguments)
        assert ended.value.code == 2
