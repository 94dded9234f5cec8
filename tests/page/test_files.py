"""The files of the page: what is not our own is as published, and what is our own hangs together."""

from __future__ import annotations

import hashlib
import re

import pytest

from estgw.page.site import STATIC, TYPES, static_files

VENDOR = STATIC / "vendor/asn1js"


def test_the_vendored_files_are_as_published():
    sums = dict(line.split()[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {"asn1.js", "oids.js", "LICENSE"}
    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in sums} == sums
    assert {path.name for path in VENDOR.iterdir()} == {*sums, "SHA256SUMS", "README.md"}


def test_the_vendored_files_say_where_they_are_from():
    assert (VENDOR / "LICENSE").read_text().startswith("ISC License")
    readme = (VENDOR / "README.md").read_text()
    assert "@lapo/asn1js" in readme
    assert "2.1.3" in readme


OWN = [path for path in sorted(STATIC.rglob("*")) if path.suffix in TYPES and "vendor" not in path.parts]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_our_files_are_small_and_call_on_nobody(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)


def test_every_module_that_is_imported_is_there():
    files = static_files()
    for path in OWN:
        if path.suffix != ".js":
            continue
        for name in re.findall(r"(?:from|import\()\s*\"(\.[^\"]+)\"", path.read_text()):
            assert f"/{(path.parent / name).resolve().relative_to(STATIC)}" in files, (path.name, name)


def test_every_name_that_is_imported_is_used():
    for path in OWN:
        if path.suffix != ".js":
            continue
        text = path.read_text()
        for names, star in re.findall(r"import (?:\{([^}]+)\}|\* as (\w+)) from", text):
            for name in [each.split(" as ")[-1].strip() for each in names.split(",")] if names else [star]:
                assert len(re.findall(rf"\b{name}\b", text)) > 1, (path.name, name)


def test_every_file_that_the_page_names_is_there():
    index = (STATIC / "index.html").read_text()
    named = re.findall(r'(?:href|src)="(/[^"]+)"', index)
    assert len(named) > 6
    assert [name for name in named if name not in static_files()] == []
