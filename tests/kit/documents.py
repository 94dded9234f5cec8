"""The fenced blocks of a document, run as a reader would paste them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.kit.gateway import Gateway, merged, running_gateway
from tests.kit.preloaded import forked_estclient, forked_estgw, script
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

_BLOCK = re.compile(
    r"(?:<!-- (?P<how>[a-z][a-z :]*) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)
RELOAD = 'pkill -HUP -f "estgw demo"'
"""What the documents say where the gateway must read its configuration again; a test knows its process."""

# Variables in small letters stay from block to block, as they do in a terminal.
_SHELL = """
if [[ -e $VARIABLES ]]; then . "$VARIABLES"; fi
trap 'for _name in $(compgen -v); do [[ $_name != [a-z]* ]] || declare -p "$_name"; done >"$VARIABLES"' EXIT
"""


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment above it, which says what is done with it."""

    language: str
    text: str
    how: str
    """`run`, `run: WORD` or `conf`; empty: nothing."""
    shown: str | None = None
    """What the document says that it prints: the text of a block without a language right behind it."""

    @property
    def is_run(self) -> bool:
        """Whether it is a command to paste."""
        return self.how.startswith("run")


def blocks(path: Path) -> list[Block]:
    """The blocks of a document, in their order."""
    text = path.read_text(encoding="utf-8")
    found = list(_BLOCK.finditer(text))
    made = []
    for number, match in enumerate(found):
        following = found[number + 1] if number + 1 < len(found) else None
        is_output = following is not None and not following["language"] and not following["how"]
        gap = text[match.end() : following.start()] if following else "-"
        shown = following["text"] if following and is_output and not gap.strip() else None
        made.append(Block(match["language"], match["text"], match["how"] or "", shown))
    return made


def shows(printed: str, wanted: str) -> bool:
    """Whether a program has printed what a document shows; `…` there stands for anything."""
    return re.fullmatch(re.escape(wanted).replace("…", "(?s:.*?)"), printed) is not None


class Shell:
    """A terminal in a workspace whose gateway is running."""

    def __init__(self, lab: Workspace, gateway: Gateway, path: str, overrides: Mapping[str, Any]) -> None:
        self.lab, self.gateway, self._path, self._overrides = lab, gateway, path, overrides

    def run(self, text: str, language: str = "sh") -> subprocess.CompletedProcess[str]:
        """Run a block with the port of this gateway."""
        script = text.replace("https://localhost:8443", self.gateway.url)
        assert script != text or "https://localhost" not in text
        script = script.replace(RELOAD, f"kill -HUP {self.gateway.process.pid}")
        command = [sys.executable, "-W", "error", "-c", script]
        if language != "python":
            command = ["bash", "-euo", "pipefail", "-c", f"{_SHELL}\n{script}"]
        return subprocess.run(
            command,
            cwd=self.lab.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def environment(self) -> dict[str, str]:
        """That of the terminal."""
        ours = {"PATH": self._path, "PYTHONPATH": str(ROOT), "VARIABLES": str(self.lab.path / ".variables")}
        return {**os.environ, **ours}

    def paste(self, text: str, language: str = "sh") -> str:
        """Run a block, and return its output; it must succeed."""
        done = self.run(text, language)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def follow(self, block: Block) -> str:
        """Do what a document says there, and return what it printed; that must be as the document shows."""
        if block.how == "conf":
            self.configure(block.text)
            return ""
        if not block.is_run:
            return ""
        before = len(self.gateway.log)
        if RELOAD in block.text:
            self.gateway.configure(self._overrides)
        done = self.run(block.text, block.language)
        assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
        if RELOAD in block.text:
            self.gateway.wait_for("reloaded", after=before)
        if block.shown is not None:
            # curl shows its progress on standard error, but not where its output goes to a terminal.
            said = (done.stdout, done.stderr, done.stdout + done.stderr)
            assert any(shows(text, block.shown) for text in said), f"{block.text}\nprints\n{said}\nnot\n{block.shown}"
        return done.stdout

    def configure(self, text: str) -> None:
        """Merge some YAML into conf.yaml, as a reader does in an editor, and reload."""
        path = self.lab.path / "conf.yaml"
        path.write_text(yaml.safe_dump(merged(yaml.safe_load(path.read_text()), yaml.safe_load(text))))
        self.gateway.configure(self._overrides)
        assert self.gateway.reload()["event"] == "reloaded", self.gateway.log_text


@contextlib.contextmanager
def shell(lab: Workspace, overrides: Mapping[str, Any] | None = None) -> Iterator[Shell]:
    """A terminal in the workspace, with its gateway running and our two programs in the PATH."""
    programs = lab.path / "bin"
    programs.mkdir()
    for name, words in (("estgw", forked_estgw()), ("estclient", forked_estclient())):
        program = programs / name
        program.write_text(script(words))
        program.chmod(0o755)
    with running_gateway(lab, overrides, python=True) as gateway:
        yield Shell(lab, gateway, f"{programs}:{os.environ['PATH']}", overrides or {})
