"""The checks that a callout's file can be run and is safe to run."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from estgw.callout.program import faults
from tests.kit.scripts import script

PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "handlers"
    made.mkdir(mode=0o755)
    return made


def only_fault(program: Path) -> str:
    """The only fault that is found."""
    (found,) = faults(program, PATH)
    return found


def with_first_line(folder: Path, line: bytes) -> Path:
    program = folder / "program"
    program.write_bytes(line)
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    "line",
    [
        b"#!/bin/bash\n",
        b"#! /bin/bash -eu\n",
        b"#!/bin/sh",
        b"#!/usr/bin/env bash\n",
        b"#!/usr/bin/env -S bash -eu\n",
        b"#!/usr/bin/env -i\n",
    ],
)
def test_a_script_with_a_usable_interpreter_has_no_fault(folder, line):
    assert faults(with_first_line(folder, line), PATH) == []


def test_a_binary_program_has_no_fault(folder):
    shutil.copy("/bin/cat", folder / "cat")
    assert faults(folder / "cat", PATH) == []


def test_a_link_is_judged_by_its_target(folder):
    script(folder, "exit 0")
    (folder / "link").symlink_to("program")
    assert faults(folder / "link", PATH) == []
    (folder / "program").unlink()
    assert only_fault(folder / "link").endswith("link: No such file or directory")


def test_a_missing_program_is_reported(folder):
    assert only_fault(folder / "program") == f"{folder}/program: No such file or directory"
    assert only_fault(folder / "no-dir/program").endswith("No such file or directory")


def test_a_directory_or_socket_is_reported_as_not_a_file(folder):
    assert only_fault(folder) == f"{folder}: not a regular file"
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket must be short
        try:
            made.bind("socket")
        finally:
            os.chdir(here)
    assert only_fault(folder / "socket").endswith("not a regular file")


def test_a_script_that_is_not_executable_is_reported_with_chmod(folder):
    program = script(folder, "exit 0")
    program.chmod(0o644)
    assert only_fault(program) == f"{program}: not executable; chmod +x {program}"


def test_the_suggested_chmod_quotes_the_path(folder):
    program = script(folder, "exit 0", name="two words")
    program.chmod(0o644)
    assert f"chmod +x '{program}'" in only_fault(program)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_program_writable_by_others_is_reported(folder, mode):
    program = script(folder, "exit 0")
    program.chmod(mode)
    assert only_fault(program) == f"{program}: writable by group or others; chmod go-w {program}"


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_a_directory_writable_by_others_is_reported(folder, mode):
    program = script(folder, "exit 0")
    folder.chmod(mode)
    assert only_fault(program) == f"{folder}: writable by group or others; chmod go-w {folder}"
    folder.chmod(0o1777)
    assert faults(program, PATH) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "neither a #! line nor a program"),
        (b"echo hello\n", "neither a #! line nor a program"),
        (b"\xef\xbb\xbf#!/bin/bash\n", "a byte order mark stands before its #! line: save it as UTF-8 without BOM"),
        (b"#!/bin/bash\r\n", "carriage return"),
        (b"#!\n", "nothing after #!"),
        (b"#!   \n", "nothing after #!"),
        (b"#!/no/such/bash\n", "its interpreter /no/such/bash does not exist"),
        (b"#!/etc/passwd\n", "its interpreter /etc/passwd does not exist"),
        (b"#!/usr/bin/env no-such-program\n", f"its interpreter no-such-program is not in {PATH}"),
        (b"#!\xff\xfe\n", "does not exist"),
    ],
)
def test_a_bad_interpreter_line_is_reported_with_the_reason(folder, line, words):
    assert words in only_fault(with_first_line(folder, line))


def test_an_interpreter_is_searched_in_the_path_of_callouts(folder):
    own = folder / "bin"
    own.mkdir()
    script(own, "exit 0", name="my-python")
    program = with_first_line(folder, b"#!/usr/bin/env my-python\n")
    assert "is not in" in only_fault(program)
    assert faults(program, f"{own}:{PATH}") == []


@pytest.mark.parametrize("name", ["ca.py", "lib.sh"])
def test_a_module_beside_it_writable_by_others_is_reported(folder, name):
    program = script(folder, "exit 0")
    beside = folder / name
    beside.touch()
    beside.chmod(0o664)
    assert only_fault(program) == f"{beside}: writable by group or others; chmod go-w {beside}"
    beside.chmod(0o644)
    assert faults(program, PATH) == []


@pytest.mark.parametrize("name", ["pack/part.py", "pack/inner/part.py", "__pycache__/ca.cpython-311.pyc"])
def test_a_package_beside_it_writable_by_others_is_reported(folder, name):
    program, part = script(folder, "exit 0"), folder / name
    part.parent.mkdir(parents=True)
    for package in (folder / "pack", folder / "pack/inner"):
        if package.exists():
            (package / "__init__.py").touch()
    part.touch()
    for path in (part, part.parent):
        before = path.stat().st_mode
        path.chmod(0o777)
        assert only_fault(program) == f"{path}: writable by group or others; chmod go-w {path}"
        path.chmod(before)
    assert faults(program, PATH) == []


def test_other_directories_beside_it_are_not_checked(folder):
    program, other = script(folder, "exit 0"), folder / "pending"
    other.mkdir()
    other.chmod(0o777)
    assert faults(program, PATH) == []


def test_all_faults_of_a_program_are_reported_at_once(folder):
    program = with_first_line(folder, b"text\n")
    program.chmod(0o666)
    folder.chmod(0o777)
    assert len(faults(program, PATH)) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_program_is_reported(folder):
    program = script(folder, "exit 0")
    program.chmod(0o311)
    assert only_fault(program).endswith("can't be read: Permission denied")
