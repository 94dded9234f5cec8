"""YAML with the positions of its parts, for error texts of the form `file:line:column: fault`.

Theory of operation.  `parse` makes a tree of nodes, with positions, and from it plain data, without positions.
`MarkedYAML.fault` takes the path of a value in the data (keys and list numbers) and follows it in the tree, to find the
line and column.  So the checks in other modules work on plain data and need not know YAML.

YAML 1.1 has surprises: `NO` is false, `2.10` is 2.1, `0123` is 83, and a key may occur twice.  `_bad_keys` refuses the
surprising keys in every file.  `_not_plain` refuses the surprising values in csrattrs.yaml, which scripts print too.
"""

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
"""The longest text of one fault, in characters."""


@dataclass(frozen=True)
class MarkedYAML:
    """A parsed file: its data, and the tree of nodes, which has the positions."""

    path: Path
    data: Any
    root: yaml.Node | None

    def fault(self, loc: Sequence[str | int], what: str) -> str:
        """Return `file:line:column: a.b.c: what`, with the position of the value `loc` or of its nearest parent."""
        node, mark = self.root, self.root.start_mark if self.root else None
        for step in loc:
            found = _child(node, step)
            if found is None:
                break
            node, mark = found
        name = ".".join(str(step) for step in loc)
        return _at(self.path, mark, f"{name + ': ' if name else ''}{what}")

    def plain_scalar(self, loc: Sequence[str | int]) -> str | None:
        """Return the text of an unquoted scalar at `loc`, as in the file, or None."""
        node = self.root
        for step in loc:
            found = _child(node, step)
            if found is None:
                return None
            node = found[0]
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        return str(node.value) if plain and isinstance(node, yaml.ScalarNode) else None

    def odd_numbers(self) -> dict[tuple[str | int, ...], str]:
        """A fault for each unquoted scalar that YAML 1.1 reads as a number and a person might not, by its place.

        `1:30` is 90 (base 60), `1_0` is 10, `010` is 8, `0x10` is 16.
        """
        return {
            loc: self.fault(loc, f'YAML reads {node.value} as {value}; write {value}, or quote it: "{node.value}"')
            for loc, node in sorted(_scalars(self.root), key=lambda found: found[1].start_mark.index)
            if node.tag in _NUMBERS and not _DECIMAL_NUMBER.fullmatch(node.value)
            for value in [yaml.safe_load(node.value)]
        }


def read(path: Path) -> MarkedYAML:
    """Return the one YAML document in a file.

    Raises `ConfigError` when the file can't be read, is not YAML, or has a key twice or one that is not a text.
    """
    return parse(path, text_of(path))


def text_of(path: Path) -> str:
    """Return a file's text, which is UTF-8.  Raises `ConfigError` when it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError([f"{path}: can't be read: {getattr(fault, 'strerror', None) or fault}"]) from None


def parse(path: Path, text: str, *, plain: bool = False) -> MarkedYAML:
    """Return one YAML document from its text.  Raises `ConfigError` with lines that name `path` as the file.

    `plain` is for YAML from other programs: it allows lists, mappings, texts and whole numbers only.  So neither an
    alias nor a surprise of YAML 1.1 (`NO`, `2.10`, `0123`) has an unexpected result.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        faults: dict[int, tuple[yaml.Mark, str]] = {}
        for node, what in (*_bad_keys(root), *(_not_plain(root) if plain else ())):
            faults.setdefault(node.start_mark.index, (node.start_mark, what))
        if faults:
            raise ConfigError([_at(path, mark, what) for _, (mark, what) in sorted(faults.items())])
        data = None if root is None else loader.construct_document(root)
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
    """A fault as one printable line, even if it quotes control characters of the file."""
    return f"{path}:{f'{mark.line + 1}:{mark.column + 1}' if mark else '1:1'}: {printable(what, LONGEST_FAULT)}"


def dump(data: Any) -> str:
    """Return YAML that people can read well: keys in the given order, lists of texts on one line, None as nothing."""
    return yaml.dump(_lay_out(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=115)


def a(kind: str) -> str:
    """Return the name of a type with its article."""
    return f"an {kind}" if kind == "int" else f"a {kind}"


class _Line(list[Any]):
    """A list that is written on one line."""


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
# Without double quotes PyYAML would turn a line break of Unicode (U+0085, U+2028) into a space.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, None if text.isprintable() else '"'),
)
_Dumper.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, Any] | None:
    """The value of a key with the key's position, or an element of a list with its own position."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # what a merge (<<) has brought comes first
            if key.value == str(step):
                return value, key.start_mark
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark
    return None


_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_DECIMAL_NUMBER = re.compile(r"[-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.IGNORECASE)


def _scalars(root: yaml.Node | None) -> Iterator[tuple[tuple[str | int, ...], yaml.ScalarNode]]:
    """Every value that is no list and no mapping, with its place; nodes reached by an alias come once."""
    stack: list[tuple[tuple[str | int, ...], yaml.Node | None]] = [((), root)]
    seen = set[int]()
    while stack:
        loc, node = stack.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield loc, node
        elif isinstance(node, yaml.SequenceNode):
            stack.extend(((*loc, number), child) for number, child in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            stack.extend(((*loc, key.value), child) for key, child in node.value if isinstance(key, yaml.ScalarNode))


_TEXT = {"str", "merge", "value"}
"""The YAML types that a key may have; `merge` is `<<` and `value` is `=`."""


def _bad_keys(root: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Each key that a mapping has twice, or that YAML 1.1 reads as a number or as true or false (`on`, `off`).

    Nodes that are reached by an alias too are visited once.
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
                    continue  # a list or mapping can't be a key; PyYAML's constructor reports that
                kind = key.tag.rpartition(":")[2]
                if key.value in keys:
                    yield key, f"{key.value}: stands here twice"
                elif key.tag.startswith("tag:yaml.org,2002:") and kind not in _TEXT:
                    yield key, f'{key.value}: YAML reads this key as {a(kind)}; quote it: "{key.value}"'
                keys.add(key.value)


_PLAIN = {"tag:yaml.org,2002:" + kind for kind in ("map", "seq", "str", "int", "null")}
_DECIMAL = re.compile("-?(0|[1-9][0-9]*)")


def _not_plain(root: yaml.Node | None) -> Iterator[tuple[yaml.Node, str]]:
    """Each alias, tag, merge and scalar that plain data may not have."""
    stack, seen = [root], set[int]()
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if id(node) in seen:
            yield node, "a part with this anchor (&) is used again as an alias (*); write it out there"
            continue
        seen.add(id(node))
        kind = node.tag.rpartition(":")[2]
        if kind == "merge":
            yield node, "a merge (<<) is not accepted here; write it out"
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
