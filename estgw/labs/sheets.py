"""The sheets: Markdown files that a person reads, and that say what a lab adds to conf.yaml."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("docs/labs")
"""Below the directory of the shipped files."""
DEFAULT_URL = "https://localhost:8443"
"""The gateway's address in the sheets."""
DEFAULT_USER, DEFAULT_PASSWORD = "estuser", "estpwd"
"""Those of the demo, in the sheets."""
_TITLE = re.compile(r"# Lab (\d+): (.+)")
_TIME = re.compile(r"^Time: (.+)\.$", re.MULTILINE)
_SETTINGS = re.compile(r"<!-- start -->\n```yaml\n(.*?)```\n", re.DOTALL)
_HINT = re.compile(r"<details>\n<summary>(.*?)</summary>\n(.*?)</details>\n", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->\n", re.DOTALL)


class LabError(Exception):
    """A lab can't be shown, started or checked; the text says why."""


@dataclass(frozen=True)
class Gateway:
    """The gateway and the user that the commands of a sheet name."""

    url: str = DEFAULT_URL
    user: str = DEFAULT_USER


@dataclass(frozen=True)
class Sheet:
    """One sheet."""

    number: int
    title: str
    time: str
    """How long it takes, in words."""
    text: str

    @property
    def settings(self) -> str:
        """What the lab adds to conf.yaml, as YAML; empty: nothing."""
        found = _SETTINGS.search(self.text)
        return found[1] if found else ""

    def shown(self, gateway: Gateway, *, hints: bool) -> str:
        """The sheet for a terminal and that gateway; without hints, it says where they would be."""
        fold = f"(Here is a hint: estgw lab show {self.number} --hints)\n"
        return _HINT.sub(lambda hint: f"{hint[1]}\n{hint[2]}" if hints else fold, self.markdown(gateway))

    def markdown(self, gateway: Gateway) -> str:
        """The sheet as Markdown for that gateway, with hints in `<details>`; its reader replaces `PASSWORD`."""
        text = _COMMENT.sub("", self.text).replace(DEFAULT_URL, gateway.url)
        if gateway.user == DEFAULT_USER:
            return text
        login = f"{gateway.user}:PASSWORD"
        return text.replace(f"{DEFAULT_USER}:{DEFAULT_PASSWORD}", login).replace(DEFAULT_USER, gateway.user)


def sheets(shipped: Path) -> dict[int, Sheet]:
    """All sheets below the directory of the shipped files, by their numbers.  Raises `LabError`."""
    found = {}
    for path in sorted((shipped / FOLDER).glob("[0-9][0-9]-*.md")):
        text = path.read_text(encoding="utf-8")
        title, time = _TITLE.match(text), _TIME.search(text)
        if title is None or time is None:
            raise LabError(f"{path} has no title such as `# Lab 1: …`, or no line `Time: ….`")
        found[int(title[1])] = Sheet(int(title[1]), title[2], time[1], text)
    if not found:
        raise LabError(f"{shipped / FOLDER} has no sheets of labs")
    return found
