"""The diagram of imports between folders in docs/architecture.md: `python -m tests.rooms` rewrites it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
_BLOCK = re.compile(r"(?<=<!-- rooms -->\n)```mermaid\n.*?```\n(?=<!-- end -->)", re.DOTALL)


def imports() -> dict[str, set[str]]:
    """The folders that the modules of each folder import, without the folder itself."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "estgw").glob("*/**/*.py")):
        room = path.relative_to(ROOT / "estgw").parts[0]
        if room == "template":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("estgw."):
                other = str(node.module).split(".")[1]
                found.setdefault(room, set()).update({other} - {room, "errors", "logs"})
    return found


def diagram() -> str:
    """An arrow from each folder to the folders it imports, without those that it reaches through another."""
    direct = imports()

    def reached(room: str) -> set[str]:
        return direct.get(room, set()).union(*(reached(other) for other in direct.get(room, set())))

    arrows = []
    for room, others in sorted(direct.items()):
        longer = set().union(*(reached(other) for other in others))
        arrows += [f"    {room} --> {other}" for other in sorted(others - longer)]
    return "\n".join(["```mermaid", "graph TD", *arrows, "```", ""])


def rewritten(page: str) -> str:
    """The page with today's diagram."""
    return _BLOCK.sub(lambda _: diagram(), page)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
