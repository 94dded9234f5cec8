"""Read conf.yaml: the models of `model`, or every fault in it, with its line and in words.

pydantic finds the faults, and `marked_yaml` the places where they stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from estgw.config import marked_yaml
from estgw.config.model import GONE, Config
from estgw.errors import ConfigError


def load(path: Path, text: str | None = None) -> Config:
    """Read conf.yaml, or take `text` for what stands in it; raises `ConfigError` with every fault in it."""
    marked = marked_yaml.read(path) if text is None else marked_yaml.parse(path, text)
    if not isinstance(marked.data, dict):
        raise ConfigError([marked.fault((), "a mapping with the group names is expected")])
    odd = marked.odd_numbers()
    try:
        made = Config.model_validate(marked.data, context={"base": path.absolute().parent})
    except ValidationError as refusal:
        found = [fault for error in refusal.errors() if error["loc"] not in odd for fault in _faults(marked, error)]
        raise ConfigError([*odd.values(), *found]) from None
    if odd:
        raise ConfigError(list(odd.values()))
    return made


def _faults(marked: marked_yaml.MarkedYAML, error: Any) -> list[str]:
    if error["type"] == "operations":
        return [marked.fault((*error["loc"], name), text) for name, text in error["ctx"]["faults"].items()]
    return [_fault(marked, error)]


def _fault(marked: marked_yaml.MarkedYAML, error: Any) -> str:
    loc: tuple[str | int, ...] = tuple(step for step in error["loc"] if step != "[key]")
    match error["type"]:
        case "missing":
            return marked.fault(loc, "is missing")
        case "extra_forbidden":
            return marked.fault(loc, GONE.get(loc, "no such key here"))
        case "value_error":
            text = str(error["ctx"]["error"])
        case _:
            text = error["msg"][:1].lower() + error["msg"][1:]
    scalar = marked.plain_scalar(loc)
    wants_text = "string" in text or error["type"] in ("literal_error", "enum")
    if scalar and wants_text and not isinstance(error["input"], str):
        text = f'YAML reads {scalar} as {marked_yaml.a(type(error["input"]).__name__)}; quote it: "{scalar}"'
    return marked.fault(loc, text)
