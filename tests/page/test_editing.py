"""The editor's files: names, bounds, syntax, versions, and a save that is interrupted."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from estgw.page import files
from estgw.page.files import FileFault, Files
from tests.kit.processes import PATH

BASH = "#!/bin/bash\necho one\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "handlers"
    for name, text in {
        "openssl/simpleenroll": BASH,
        "openssl/policy.sh": "helper() { :; }\n",
        "openssl/csrattrs.yaml": "attributes: []\n",
        "python/ca.py": "NAME = 1\n",
    }.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (made / "openssl/simpleenroll").chmod(0o755)
    return made


@pytest.fixture
def editor(folder: Path) -> Files:
    return Files(folder, folder.parent / "versions", PATH)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def save(editor: Files, name: str, text: str, instead: str) -> None:
    editor.save(name, text.encode(), digest(instead))


def refusal(editor: Files, name: str, content: bytes, instead: str = BASH) -> str:
    with pytest.raises(FileFault) as refused:
        editor.save(name, content, digest(instead))
    return str(refused.value)


def test_a_saved_text_takes_the_place_of_the_old_one_and_keeps_its_mode(editor, folder):
    path = folder / "openssl/simpleenroll"
    before = path.stat().st_ino
    save(editor, "openssl/simpleenroll", "#!/bin/bash\necho two\n", BASH)
    assert path.read_text() == "#!/bin/bash\necho two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert path.stat().st_ino != before, "renamed into place"
    made = editor.read("openssl/simpleenroll")
    assert made["digest"] == digest("#!/bin/bash\necho two\n")
    (version,) = made["versions"]
    assert editor.read("openssl/simpleenroll", version["version"])["text"] == BASH


def test_the_last_ten_versions_are_kept_and_the_newest_comes_first(editor):
    texts = [f"#!/bin/bash\necho {number}\n" for number in range(13)]
    for before, text in zip([BASH, *texts], texts, strict=False):
        save(editor, "openssl/simpleenroll", text, before)
    kept = editor.read("openssl/simpleenroll")["versions"]
    found = [editor.read("openssl/simpleenroll", each["version"])["text"] for each in kept]
    assert found == texts[2:12][::-1]


@pytest.mark.parametrize(
    ("name", "text", "old", "words"),
    [
        ("openssl/simpleenroll", "#!/bin/bash\nif true; then\n", BASH, "simpleenroll:"),
        ("openssl/policy.sh", "helper() {\n", "helper() { :; }\n", "policy.sh:"),
        ("python/ca.py", "def\n", "NAME = 1\n", "ca.py:1: syntax error: invalid syntax"),
        ("openssl/csrattrs.yaml", "a: [\n", "attributes: []\n", "csrattrs.yaml:"),
    ],
)
def test_a_syntax_error_is_told_with_its_line_and_nothing_is_saved(editor, folder, name, text, old, words):
    said = refusal(editor, name, text.encode(), old)
    assert words in said
    assert said.endswith("; nothing was saved")
    assert str(folder.parent) not in said
    assert (folder / name).read_text() == old
    assert editor.read(name)["versions"] == []


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "/etc/passwd", "openssl/../../secret", "openssl", "", ".", "openssl/simpleenroll/",
        "./openssl/simpleenroll", "openssl/new", "openssl/link", "linked/secret", "openssl/.hidden", "openssl/\0",
        "%2e%2e/secret", "openssl//simpleenroll",
    ],
)  # fmt: skip
def test_only_files_that_are_listed_can_be_read_or_saved(editor, folder, name):
    (folder.parent / "secret").write_text(BASH)
    (folder / "openssl/link").symlink_to(folder.parent / "secret")
    (folder / "linked").symlink_to(folder.parent)
    (folder / "openssl/.hidden").write_text(BASH)
    assert "is none of the files that can be edited here" in refusal(editor, name, b"#!/bin/bash\n")
    with pytest.raises(FileFault, match="is none of the files"):
        editor.read(name)
    assert (folder.parent / "secret").read_text() == BASH


def test_a_version_is_looked_up_among_the_files_own(editor, folder):
    save(editor, "openssl/simpleenroll", BASH + "# more\n", BASH)
    (version,) = editor.read("openssl/simpleenroll")["versions"]
    for wrong in ("../../secret", "", f"x/{version['version']}"):
        with pytest.raises(FileFault, match="has no such version"):
            editor.read("openssl/simpleenroll", wrong)
    with pytest.raises(FileFault, match="has no such version"):
        editor.read("openssl/policy.sh", version["version"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"#!/bin/bash\necho \0\n", "simpleenroll:2: a control character (code 0) is in it"),
        (b"#!/bin/bash\r\n", "simpleenroll:1: a carriage return is in it; use Unix line ends"),
        (b"#!/bin/bash\n\xff\n", "simpleenroll is not UTF-8"),
        (b"#!/bin/bash\n" + b"#" * files.SIZE, "would have 65548 bytes, and 65536 is the most; nothing was saved"),
    ],
)
def test_what_is_no_text_to_edit_is_refused_in_words(editor, folder, content, words):
    assert words in refusal(editor, "openssl/simpleenroll", content)
    assert (folder / "openssl/simpleenroll").read_text() == BASH


def test_a_large_file_and_one_with_a_zero_in_it_are_not_read(editor, folder):
    with (folder / "openssl/large").open("wb") as file:
        file.truncate(100 << 20)
    (folder / "openssl/odd").write_bytes(b"a\0b")
    os.mkfifo(folder / "openssl/fifo")
    listed = {each["name"]: each["large"] for each in editor.all()["files"]}
    assert listed["openssl/large"]
    assert "openssl/fifo" not in listed
    with pytest.raises(FileFault, match="more than 65536 bytes"):
        editor.read("openssl/large")
    with pytest.raises(FileFault, match="control character"):
        editor.read("openssl/odd")


def test_a_file_that_was_changed_meanwhile_is_not_overwritten(editor, folder):
    (folder / "openssl/simpleenroll").write_text("#!/bin/bash\necho by another editor\n")
    assert "has been changed by someone else" in refusal(editor, "openssl/simpleenroll", b"#!/bin/bash\n")
    assert "another editor" in (folder / "openssl/simpleenroll").read_text()


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_an_interrupted_save_leaves_the_old_file_whole(editor, folder, monkeypatch, step):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        if step == "fsync":
            patched.setattr(os, "fsync", fail)
        else:
            patched.setattr(Path, "rename", fail)
        said = refusal(editor, "openssl/simpleenroll", b"#!/bin/bash\necho two\n")
    assert said == "openssl/simpleenroll was not saved: No space left on device"
    assert (folder / "openssl/simpleenroll").read_text() == BASH
    assert editor.read("openssl/simpleenroll")["versions"] == []
    save(editor, "openssl/simpleenroll", "#!/bin/bash\necho two\n", BASH)


def test_what_a_killed_save_has_left_is_removed_by_a_later_one(editor, folder):
    save(editor, "openssl/simpleenroll", BASH + "# more\n", BASH)
    (kept,) = (folder.parent / "versions").iterdir()
    left = kept / "save-abandoned"
    left.write_text("half a fi")
    os.utime(left, (0, 0))
    save(editor, "openssl/simpleenroll", BASH, BASH + "# more\n")
    assert not left.exists()
    assert not [path for path in kept.iterdir() if path.name.startswith("save-")]
