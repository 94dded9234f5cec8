"""Syntax errors in scripts are found, with file and line, and no script runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from estgw.callout import syntax
from tests.kit.processes import PATH, ROOT


def script(folder: Path, text: str, name: str = "simpleenroll") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("#!/bin/bash\nif true; then\n    echo\n", 4, "unexpected end of file"),
        ("#!/usr/bin/env bash\necho )\n", 2, "near unexpected token `)'"),
        ("#!/bin/bash -e\ncase x in\n    x) echo;;\nfi\n", 4, "near unexpected token `newline'"),
        ("#!/bin/sh\necho )\n", 2, '")" unexpected'),
        (f"#!{sys.executable}\nprint(\n", 2, "'(' was never closed"),
        ("#!/usr/bin/env python3\ndef f():\nreturn 1\n", 3, "expected an indented block"),
        (f"#!{sys.executable} -I\nx = = 1\n", 2, "invalid syntax"),
    ],
)
def test_a_syntax_error_is_reported_with_its_line(tmp_path, text, line, words):
    path = script(tmp_path, text)
    (found,) = syntax.faults(path, PATH)
    assert found.startswith(f"{path}:{line}: syntax error: ")
    assert words in found


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/bash\n[[ $EST_OPERATION == simpleenroll ]] || exit 64\n",
        "#!/usr/bin/env python3\nimport not_there\n",
        "#!/usr/bin/perl\nthis is (no Perl\n",
        "#!/no/such/bash\nif\n",
        "if\n",
    ],
)
def test_sound_scripts_and_other_languages_have_no_syntax_fault(tmp_path, text):
    assert syntax.faults(script(tmp_path, text), PATH) == []


def test_the_syntax_check_runs_no_code(tmp_path, monkeypatch):
    """The file that BASH_ENV names does not run either."""
    monkeypatch.setenv("BASH_ENV", str(script(tmp_path, "touch ran\n", "environment")))
    monkeypatch.chdir(tmp_path)
    assert syntax.faults(script(tmp_path, "#!/bin/bash\ntouch ran\n"), PATH) == []
    assert syntax.faults(script(tmp_path, "#!/usr/bin/env python3\nopen('ran', 'w')\n"), PATH) == []
    assert not (tmp_path / "ran").exists()


def test_syntax_errors_in_libraries_beside_scripts_are_reported(tmp_path):
    script(tmp_path, "x = (\n", "policy.py")
    script(tmp_path, "fi\n", "issue.sh")
    script(tmp_path, "neither (\n", "notes.txt")
    found = syntax.library_faults(tmp_path, PATH)
    assert [fault.partition(": ")[0] for fault in found] == [f"{tmp_path}/issue.sh:1", f"{tmp_path}/policy.py:1"]


@pytest.mark.parametrize("folder", ["openssl", "python", "examples"])
def test_the_shipped_scripts_have_no_syntax_fault(folder):
    scripts = [path for path in sorted((ROOT / "handlers" / folder).iterdir()) if path.is_file()]
    assert [fault for path in scripts for fault in syntax.faults(path, PATH)] == []
    assert syntax.library_faults(ROOT / "handlers" / folder, PATH) == []
