"""YAML that remembers where everything stood, so that a fault can be told as `file:line:column`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from estgw.errors import ConfigError
from estgw.est.printable import printable

LONGEST_FAULT = 1000
"""Characters of what is said of one fault."""


@dataclass(frozen=True)
class MarkedYAML:
    """A parsed file: its data, and the node tree to look positions up in."""

    path: Path
    data: Any
    root: yaml.Node | None

    def fault(self, loc: Sequence[str | int], what: str) -> str:
        """`file:line:column: a.b.c: what`, at the key or value that `loc` names or at its nearest parent."""
        node, mark = self.root, self.root.start_mark if self.root else None
        for step in loc:
            found = _child(node, step)
            if found is None:
                break
            node, mark = found
        name = ".".join(str(step) for step in loc)
        return _at(self.path, mark, f"{name + ': ' if name else ''}{what}")

    def plain_scalar(self, loc: Sequence[str | int]) -> str | None:
        """The text of an unquoted scalar at `loc` as it stands in the file, or None."""
        node = self.root
        for step in loc:
            found = _child(node, step)
            if found is None:
                return None
            node = found[0]
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        return str(node.value) if plain and isinstance(node, yaml.ScalarNode) else None


def read(path: Path) -> MarkedYAML:
    """Read one YAML document.

    Raises `ConfigError` when the file can't be read, is not YAML, or has a key twice or one that is no text.
    """
    return parse(path, text_of(path))


def text_of(path: Path) -> str:
    """A file's text; raises `ConfigError` when it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError([f"{path}: can't be read: {getattr(fault, 'strerror', None) or fault}"]) from None


def parse(path: Path, text: str, *, plain: bool = False) -> MarkedYAML:
    """Parse one YAML document, as if it stood in `path`; raises `ConfigError`.

    `plain` is for what may come from anywhere: lists, mappings, texts, whole numbers and nothing else, so that
    neither an alias nor YAML 1.1's idea of a text (`NO`, `2.10`, `0123`) makes something unexpected of it.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        faults: dict[int, tuple[yaml.Mark, str]] = {}
        for node, what in (*_bad_keys(root), *(_not_plain(root) if plain else ())):
            faults.setdefault(node.start_mark.index, (node.start_mark, what))
        if faults:
            raise ConfigError([_at(path, mark, what) for _, (mark, what) in sorted(faults.items())])
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as fault:
        what = fault.problem or fault.context or "not YAML"
        raise ConfigError([_at(path, fault.problem_mark or fault.context_mark, what)]) from None
    except yaml.reader.ReaderError as fault:
        before = text[: fault.position].split("\n")
        what = f"not YAML: unacceptable character #x{fault.character:04x}"
        raise ConfigError([f"{path}:{len(before)}:{len(before[-1]) + 1}: {what}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as fault:
        raise ConfigError([_at(path, None, f"not YAML: {fault}")]) from None
    return MarkedYAML(path, data, root)


def _at(path: Path, mark: yaml.Mark | None, what: str) -> str:
    """A fault as one line, whatever it quotes of the file."""
    return f"{path}:{f'{mark.line + 1}:{mark.column + 1}' if mark else '1:1'}: {printable(what, LONGEST_FAULT)}"


def dump(data: Any) -> str:
    """YAML for a person: in the given order, a key's list of texts on its line, nothing where there is nothing."""
    return yaml.dump(_lay_out(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=115)


def a(kind: str) -> str:
    """The name of a type with its article."""
    return f"an {kind}" if kind == "int" else f"a {kind}"


class _Line(list[Any]):
    """A list that goes on one line."""


def _lay_out(data: Any) -> Any:
    if isinstance(data, dict):
        lines = {
            key for key, value in data.items() if isinstance(value, list) and all(isinstance(x, str) for x in value)
        }
        return {key: _Line(value) if key in lines else _lay_out(value) for key, value in data.items()}
    return [_lay_out(element) for element in data] if isinstance(data, list) else data


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    _Line, lambda dumper, line: dumper.represent_sequence("tag:yaml.org,2002:seq", line, flow_style=True)
)
# In other quotes PyYAML folds a line break of Unicode's (U+0085, U+2028) into a space.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)
_Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, Any] | None:
    """The value under a key, with the key's mark; or the list item, with its own."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark
    return None


_TEXT = {"str", "merge", "value"}
"""What a key may be to YAML; `<<` and `=` are words of its own."""


def _bad_keys(root: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Every key that a mapping has more than once, or that YAML 1.1 takes for a number, `on` and `off` for truth.

    Nodes reached by an alias are looked at once.
    """
    stack, seen = [root], set[int]()
    while stack:
        node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys = set[str]()
            for key, value in node.value:
                stack.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue  # a list or mapping as a key: the constructor says that it can't be one
                kind = key.tag.rpartition(":")[2]
                if key.value in keys:
                    yield key, f"{key.value}: stands here twice"
                elif key.tag.startswith("tag:yaml.org,2002:") and kind not in _TEXT:
                    yield key, f'{key.value}: YAML reads this key as {a(kind)}; quote it: "{key.value}"'
                keys.add(key.value)


_PLAIN = {"tag:yaml.org,2002:" + kind for kind in ("map", "seq", "str", "int", "null")}
_DECIMAL = re.compile("-?(0|[1-9][0-9]*)")


def _not_plain(root: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Every alias, tag, merge and scalar that plain data has no use for."""
    stack, seen = [root], set[int]()
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if id(node) in seen:
            yield node, "what has this anchor (&) is used again (*); write it out there"
            continue
        seen.add(id(node))
        kind = node.tag.rpartition(":")[2]
        if kind == "merge":
            yield node, "<< merges nothing here; write it out"
        elif isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            yield node, f'YAML reads {node.value} as {a(kind)}; quote it: "{node.value}"'
        elif isinstance(node, yaml.ScalarNode) and kind == "int" and not _DECIMAL.fullmatch(node.value):
            yield node, f'YAML reads {node.value} as a number that is written otherwise; quote it: "{node.value}"'
        elif node.tag not in _PLAIN:
            yield node, f"a tag ({node.tag[:80]}) that has no meaning here"
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            stack.extend(part for pair in node.value for part in pair)
