"""`estgw init --diff`: what the user and newer versions of estgw have changed in a workspace since it was laid out.

Each file has three texts that are compared: the original in `.estgw/shipped`, the user's, and the one shipped now.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from estgw import __version__
from estgw.cli import workspace
from estgw.cli.workspace import SHIPPED, VERSION
from estgw.logs import escape

MOST = 1_000_000
"""Bytes of a file whose lines are compared."""


class Change(Enum):
    """What has become of a file."""

    NONE = "unchanged"
    USERS = "changed by you"
    OURS = "changed by us"
    BOTH = "changed by you and by us"
    UNKNOWN = "differs"
    NEW = "new: shipped now, and not in your workspace"
    DELETED = "removed by you"
    DELETED_CHANGED = "removed by you, and changed by us"
    DROPPED = "removed by us: not shipped any more"
    DROPPED_CHANGED = "removed by us, and changed by you"


@dataclass(frozen=True)
class File:
    """A shipped file in its three texts; None: there is no such file."""

    name: str
    original: bytes | None
    users: bytes | None
    ours: bytes | None

    def change(self, *, has_originals: bool) -> Change | None:
        """What has become of it; None for a file that is neither in the workspace nor shipped."""
        original, users, ours = self.original, self.users, self.ours
        if users == ours:
            return None if users is None else Change.NONE
        if not has_originals:
            return Change.NEW if users is None else Change.UNKNOWN
        if users is None:
            if original is None:
                return Change.NEW
            return Change.DELETED if original == ours else Change.DELETED_CHANGED
        if ours is None:
            return Change.DROPPED if users == original else Change.DROPPED_CHANGED
        if original == users:
            return Change.OURS
        return Change.USERS if original == ours else Change.BOTH


def report(directory: Path) -> Iterator[str]:
    """The lines of `estgw init --diff`; raises `WorkspaceError` for what is no workspace."""
    workspace.require(directory)
    version = _version(directory)
    if version is None:
        yield (
            f"{directory / SHIPPED} is missing: an older version of estgw has made this workspace. So only the "
            f"differences from estgw {__version__} are known, and not who made them. When you have taken over what you "
            f"want, keep the originals for the next time with: estgw init --merged {directory}"
        )
    else:
        yield f"{directory}: shipped with estgw {version}, compared with estgw {__version__}"
    unchanged = 0
    changed = []
    for file in files(directory):
        change = file.change(has_originals=version is not None)
        if change is Change.NONE:
            unchanged += 1
        elif change is not None:
            changed.append((file, change))
    yield f"unchanged: {unchanged} files"
    yield from (f"{change.value}: {file.name}" for file, change in sorted(changed, key=lambda each: each[1].value))
    for file, change in changed:
        yield from _details(file, change, version or "an older version")


def files(directory: Path) -> Iterator[File]:
    """All files that were shipped or are shipped now."""
    source, originals = workspace.template(), directory / SHIPPED
    names = {str(path.relative_to(source)) for path in workspace.shipped(source)}
    names |= {str(path.relative_to(originals)) for path in originals.rglob("*") if path.is_file()} - {VERSION}
    for name in sorted(names):
        yield File(name, _content(originals / name), _content(directory / name), _content(source / name))


def _version(directory: Path) -> str | None:
    """The version that shipped the originals; None if there are none."""
    text = _content(directory / SHIPPED / VERSION)
    return None if text is None else escape(text.decode(errors="replace").strip())[:40]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _details(file: File, change: Change, version: str) -> Iterator[str]:
    """The differences of a file, and where the user's and ours meet."""
    original, users, ours = file.original, file.users, file.ours
    shipped_with, now = f"as shipped with estgw {version}", f"as shipped with estgw {__version__}"
    if change is Change.UNKNOWN:
        yield from _diff(file.name, (now, ours), ("yours", users))
    if change in (Change.USERS, Change.BOTH, Change.DROPPED_CHANGED):
        yield from _diff(file.name, (shipped_with, original), ("yours", users))
    if change in (Change.OURS, Change.BOTH, Change.DELETED_CHANGED) and ours is not None:
        yield from _diff(file.name, (shipped_with, original), (now, ours))
    if change is Change.BOTH:
        yield ""
        places = meeting_places(_lines(original), _lines(users), _lines(ours))
        where = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in places)
        yield (
            f"{file.name}: you and we have changed the same place, at lines {where} of the original; decide by hand"
            if places
            else f"{file.name}: you and we have changed different places; both changes can be taken"
        )


def meeting_places(original: list[str], users: list[str], ours: list[str]) -> list[tuple[int, int]]:
    """The lines of the original, counted from 1, at which both have changed something; the same change does not count.

    Changes that touch each other meet, too: nobody knows in which order they belong.
    """
    found: list[tuple[int, int]] = []
    for begin, end, text in _changes(original, users):
        for other_begin, other_end, other_text in _changes(original, ours):
            same = (begin, end, text) == (other_begin, other_end, other_text)
            if same or begin > other_end or other_begin > end:
                continue
            first = min(begin, other_begin) + 1
            last = max(end, other_end, first)
            if found and first <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], last))
            else:
                found.append((first, last))
    return found


def _changes(original: list[str], changed: list[str]) -> list[tuple[int, int, list[str]]]:
    """Ranges of the original, and what stands in their place."""
    matcher = difflib.SequenceMatcher(None, original, changed, autojunk=False)
    return [
        (begin, end, changed[first:last]) for tag, begin, end, first, last in matcher.get_opcodes() if tag != "equal"
    ]


def _diff(name: str, old: tuple[str, bytes | None], new: tuple[str, bytes | None]) -> Iterator[str]:
    yield ""
    if any(content is not None and (len(content) > MOST or b"\0" in content) for _, content in (old, new)):
        yield f"{name}: it is very long or no text, so its lines are not compared"
        return
    titles = (f"{name}  ({old[0]})", f"{name}  ({new[0]})")
    for line in difflib.unified_diff(_lines(old[1]), _lines(new[1]), *titles, lineterm=""):
        yield line if line.replace("\t", " ").isprintable() else escape(line)


def _lines(content: bytes | None) -> list[str]:
    return (content or b"").decode("utf-8", "backslashreplace").split("\n")
