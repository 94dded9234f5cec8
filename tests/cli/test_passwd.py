"""`estgw passwd` for a whole course: names from a file, generated passwords, removal."""

from __future__ import annotations

import asyncio
import io
import math
import re
import stat
import sys
from pathlib import Path

import pytest

from estgw.auth import digest, users
from estgw.cli import main as command_line
from estgw.cli import passwd

SHA = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="


def main(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    status = command_line.main(["passwd", *(str(argument) for argument in arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def printed_passwords(out: str) -> dict[str, str]:
    return dict(line.split(" ") for line in out.splitlines())


def verified(file: Path, user: str, password: str) -> bool:
    return asyncio.run(users.load(file).verify(user, password))


def test_each_name_of_a_file_gets_a_password_that_is_printed(tmp_path, capsys):
    file = tmp_path / "users.htpasswd"
    file.write_text(f"# staff\n{SHA}\np2:{SHA[4:]}\n")
    (tmp_path / "names").write_bytes("\ufeff# the course\r\n\r\np1\r\n  p2 \r\nJörg X\r\np1000\r\n".encode())
    status, out, err = main(capsys, file, "--from", tmp_path / "names")
    assert (status, err) == (0, "")
    printed = dict(line.rsplit(" ", 1) for line in out.splitlines())
    assert list(printed) == ["p1", "p2", "Jörg X", "p1000"]
    assert len(set(printed.values())) == 4
    for user, password in printed.items():
        assert verified(file, user, password)
        assert password not in file.read_text()
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# staff", SHA]
    assert [line.partition(":")[0] for line in lines[2:]] == list(printed)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_generated_password_has_64_bits_at_least():
    made = [passwd.generated() for _ in range(200)]
    assert all(re.fullmatch("[a-km-np-z]{4}(-[a-km-np-z]{4}){3}", each) for each in made)
    assert len(set(made)) == 200
    assert set("".join(made)) - {"-"} == set(passwd.LETTERS)
    assert passwd.GROUPS * passwd.GROUP * math.log2(len(passwd.LETTERS)) >= 64


def test_names_are_read_from_standard_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"p1\np2\n")))
    status, out, _ = main(capsys, tmp_path / "users", "--from", "-")
    assert (status, list(printed_passwords(out))) == (0, ["p1", "p2"])


@pytest.mark.parametrize(
    "order", [("--generate", "FILE", "p1"), ("FILE", "--generate", "p1"), ("FILE", "p1", "--generate")]
)
def test_option_generate_may_stand_anywhere(tmp_path, capsys, order):
    file = tmp_path / "users"
    status, out, err = main(capsys, *(str(file) if word == "FILE" else word for word in order))
    assert (status, err) == (0, "")
    assert verified(file, "p1", printed_passwords(out)["p1"])


def test_names_of_a_file_get_digest_passwords_in_their_realm(tmp_path, capsys):
    file = tmp_path / "users.htdigest"
    (tmp_path / "names").write_text("p1\np2\n")
    digest.set_passwords(file, "other", {"p1": "elsewhere"})
    status, out, _ = main(capsys, "--digest", "--realm", "lab", file, "--from", tmp_path / "names")
    assert status == 0
    hashes = digest.load(file, "lab")
    for user, password in printed_passwords(out).items():
        for algorithm in digest.ALGORITHMS:
            assert hashes[user, algorithm] == digest.ha1(algorithm, user, "lab", password)
    assert main(capsys, "--digest", "--realm", "lab", file, "--remove", "p1") == (0, "", "")
    assert {user for user, _ in digest.load(file, "lab")} == {"p2"}
    assert {user for user, _ in digest.load(file, "other")} == {"p1"}


def test_the_file_is_replaced_once_for_all_names(tmp_path, capsys, monkeypatch):
    replaced = []
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        replaced.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    (tmp_path / "names").write_text("".join(f"p{number}\n" for number in range(20)))
    assert main(capsys, tmp_path / "users", "--from", tmp_path / "names")[0] == 0
    assert replaced == [tmp_path / "users"]


def test_a_full_disk_prints_no_password(tmp_path, capsys, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    (tmp_path / "names").write_text("p1\n")
    status, out, err = main(capsys, tmp_path / "users", "--from", tmp_path / "names")
    assert (status, out) == (1, "")
    assert "No space left on device" in err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "there is no name in it; write one a line"),
        (b"# nobody\n\n", "there is no name in it"),
        (b"p1\np2\n\np1\n", "names:4: p1 is on line 1 already; name each user once"),
        (b"p1\na:b\n", "names:2: 'a:b': a user name has no colon"),
        (b"p1\na\x1b[2Jb\n", "a user name has no colon, no control character"),
        (b"\xff\xfep\x001\x00", "it is not text in UTF-8; nothing was changed"),
        (
            b"".join(b"p%d\n" % number for number in range(10_001)),
            "it has 10001 names, and 10000 is the most; split it",
        ),
    ],
)
def test_an_unusable_file_of_names_changes_nothing(tmp_path, capsys, text, words):
    file = tmp_path / "users"
    (tmp_path / "names").write_bytes(text)
    status, out, err = main(capsys, file, "--from", tmp_path / "names")
    assert (status, out) == (1, "")
    assert words in err
    assert "nothing was changed" in err
    assert "\x1b" not in err
    assert not file.exists()


def test_users_are_removed_together_or_not_at_all(tmp_path, capsys):
    file = tmp_path / "users"
    file.write_text(f"# staff\n{SHA}\np2:{SHA[4:]}\np3:{SHA[4:]}\n")
    status, _, err = main(capsys, file, "--remove", "p2", "--remove", "p9", "--remove", "x\x1b")
    assert status == 1
    assert "\x1b" not in err
    status, _, err = main(capsys, file, "--remove", "p2", "--remove", "p9")
    assert (status, err) == (1, f"estgw: {file} has no user p9; nothing was changed\n")
    assert main(capsys, file, "--remove", "p2", "--remove", "p3") == (0, "", "")
    assert file.read_text() == f"# staff\n{SHA}\n"
    assert main(capsys, file, "--remove", "ann") == (0, "", "")
    users.load(file)


@pytest.mark.parametrize("name", ["", "# staff", "a:b"])
def test_remove_refuses_a_comment_or_an_empty_name(tmp_path, capsys, name):
    file = tmp_path / "users"
    digest.set_passwords(file, "other", {"p1": "x"})
    with file.open("a") as text:
        text.write("# staff\n")
    before = file.read_text()
    for options in (["--digest"], []):
        assert main(capsys, *options, file, "--remove", name)[0] == 1
    assert file.read_text() == before


def test_remove_from_a_missing_file_fails(tmp_path, capsys):
    status, _, err = main(capsys, tmp_path / "users", "--remove", "p1")
    assert status == 1
    assert "No such file or directory" in err
    assert not (tmp_path / "users").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of these: USER, --from NAMES_FILE, or --remove NAME"),
        (["p1", "--from", "names"], "give one of these"),
        (["p1", "--remove", "p2"], "give one of these"),
        (["--remove", "p2", "--generate"], "leave out --generate"),
        (["p1", "p2"], "unrecognized arguments: p2"),
        (["--generate", "p1", "p2"], "unrecognized arguments: p1 p2"),
    ],
)
def test_options_that_exclude_each_other_exit_2(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["passwd", str(tmp_path / "users"), *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
