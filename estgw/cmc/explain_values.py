"""Describe the values of controls in words, field by field, for `estgw.cmc.explain`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from estgw.cmc.crmf import CertTemplate
from estgw.cmc.outline import (
    Outline,
    der_words,
    extensions_lines,
    general_name_words,
    name_words,
    number_words,
    octets_words,
    spki_words,
)
from estgw.cmc.values import REASONS, GetCert, ModCertTemplate, RevokeRequest
from estgw.cms.algorithms import Algorithm

_DER: Mapping[str, Callable[[bytes], str]] = {
    "issuer": name_words,
    "subject": name_words,
    "name": general_name_words,
    "public_key": spki_words,
    "info": der_words,
    "reasons": der_words,
    "passphrase": lambda secret: f"{len(secret)} octets, not shown",
}
"""By name of a field that is DER: the function that shows it.  Other fields are shown as octets."""


def value_lines(out: Outline, value: Any) -> None:
    """Add the lines for a control's value, as `estgw.cmc.controls` decodes it."""
    match value:
        case GetCert():
            out.add(f"issuer: {general_name_words(value.issuer)}{_sent_as(value)}")
            out.add(f"serial: {number_words(value.serial)}")
        case RevokeRequest():
            _fields(out, value)
            out.add(f"reason: {REASONS[value.reason]}")
        case CertTemplate():
            template_lines(out, value)
        case _ if dataclasses.is_dataclass(value):
            _fields(out, value)
        case _:
            out.add(_words(value))


def template_lines(out: Outline, template: CertTemplate) -> None:
    """Add a line for each part of a CertTemplate that is present."""
    _fields(out, template)


def _fields(out: Outline, value: Any) -> None:
    for field in dataclasses.fields(value):
        found = getattr(value, field.name)
        label = field.name.replace("_", " ")
        match found:
            case None:
                continue
            case _ if isinstance(value, RevokeRequest) and field.name == "reason":
                continue
            case _ if field.name == "issuer_sent_as":
                continue
            case tuple() if (type(value), field.name) == (ModCertTemplate, "data"):
                out.add(f"{label}: {path_words(found)}")
            case bytes() if field.name == "extensions":
                with out.deeper(label):
                    extensions_lines(out, found)
            case bytes():
                note = _sent_as(value) if field.name == "issuer" else ""
                out.add(f"{label}: {_DER.get(field.name, octets_words)(found)}{note}")
            case CertTemplate():
                with out.deeper(label):
                    _fields(out, found)
            case _:
                out.add(f"{label}: {_words(found)}")


def _sent_as(value: Any) -> str:
    """A note on an issuer that was sent in a wrong form and was read all the same."""
    found: str = getattr(value, "issuer_sent_as", "")
    return f" (sent as {found})" if found else ""


def _words(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return number_words(value)
        case bytes():
            return octets_words(value)
        case datetime():
            return value.isoformat()
        case Algorithm():
            return value.name
        case tuple():
            return ", ".join(path_words(each) if isinstance(each, tuple) else _words(each) for each in value)
    return str(value)


def path_words(path: tuple[int, ...]) -> str:
    """Return a BodyPartPath as ids with slashes between them."""
    return "/".join(map(str, path))
