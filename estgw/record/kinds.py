"""The kinds of values in a record, and whether a record that somebody may have edited has them."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from estgw.record.redact import REMOVED
from estgw.record.table import KEYS, words


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_text(value: Any) -> bool:
    # JSON can have half of a surrogate pair, which can't be written anywhere else.
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def _is_base64(value: Any) -> bool:
    if not _is_text(value):
        return False
    try:
        return value == REMOVED or bool(base64.b64decode(value, validate=True)) or not value
    except (ValueError, binascii.Error):
        return False


def _is_time(value: Any) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _list(each: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(each, value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


_IS: dict[str, Callable[[Any], bool]] = {
    "text": _is_text,
    "whole": _is_whole,
    "number": _is_number,
    "flag": lambda value: isinstance(value, bool),
    "time": _is_time,
    "base64": _is_base64,
    "texts": _list(_is_text),
    "pairs": _list(_is_pair),
    "texts by name": _is_mapping,
    "object": _is_object,
    "objects": _list(_is_object),
}


def fault(record: dict[str, Any]) -> str | None:
    """Say which key of the table is missing or has a value of another kind; None if all are sound."""
    for key, kind, _ in KEYS:
        *way, name = key.split(".")
        is_optional = kind.endswith("?")
        for holder in _holders(record, way):
            value = holder.get(name)
            if not (value is None and is_optional) and not _IS[kind.removesuffix("?")](value):
                return f'"{key}" is missing or not of the kind: {words(kind)}'
    return None


def _holders(record: dict[str, Any], way: list[str]) -> Iterator[dict[str, Any]]:
    """The objects that should have a key, which lie on the way to it; null and empty ones have none."""
    if not way:
        yield record
        return
    found = record.get(way[0].removesuffix("[]"))
    for each in found if isinstance(found, list) else [found]:
        if each:
            yield from _holders(each, way[1:])
