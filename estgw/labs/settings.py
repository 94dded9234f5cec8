"""What a lab adds to conf.yaml: as text, so that comments and order stay."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from estgw.labs.sheets import LabError

_KEY = re.compile(r"^(\w+):.*$", re.MULTILINE)
_ENTRY = re.compile(r"^  (\w+):", re.MULTILINE)


def added(text: str, settings: str, path: Path) -> str:
    """The text of conf.yaml with the settings of a lab; the same text if it has them already.

    Each top-level key of the settings gets its lines below the same key of the file, or at the end of the file with the
    key.  Raises `LabError` if the file has such a key in another form, or other values for an entry.
    """
    for section in _sections(settings):
        key, lines = section.split("\n", 1)
        if section.strip() in text or (lines.strip() and f"\n{lines}" in text):
            continue
        there = re.search(rf"^{key}[ \t]*(#.*)?$\n", text, re.MULTILINE)
        if there is None and re.search(rf"^{key}", text, re.MULTILINE):
            raise LabError(f"{path} has `{key}` in one line; add these lines to it yourself:\n{section}")
        if there is None:
            text = f"{text.rstrip()}\n\n{section}"
            continue
        rest = re.split(r"^(?=[^\s#])", text[there.end() :], maxsplit=1, flags=re.MULTILINE)[0]
        if taken := set(_ENTRY.findall(lines)) & set(_ENTRY.findall(rest)):
            raise LabError(f"{path} has `{min(taken)}` below `{key}` already; make it this, or remove it:\n{section}")
        text = text[: there.end()] + lines + text[there.end() :]
    return text


def _sections(settings: str) -> list[str]:
    """The top-level keys with their lines."""
    starts = [match.start() for match in _KEY.finditer(settings)]
    return [settings[start:end] for start, end in itertools.pairwise([*starts, len(settings)])]
