"""The environment of one callout, made of the rows of the contract and checked.

A value that a client influences may harm exec or a script, so each one is looked at before it gets there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from estgw.callout.call import Call
from estgw.callout.contract import ENV_VARS
from estgw.errors import BadRequest, Malformed
from estgw.est import certs

MAXIMUM_VARIABLE = 128 * 1024 - 1
"""Linux's MAX_ARG_STRLEN less the final NUL: the longest NAME=value that exec accepts."""
MAXIMUM_ENVIRONMENT = 1024 * 1024
"""Half of what Linux gives arguments and environment together under the usual 8 MiB stack."""
MAXIMUM_NUMBERED = 128
"""How many variables a family such as EST_CSR_SAN_n may have."""
SHELLSHOCK = "() {"
"""A Bash function in a variable begins like this; no value that a client influences may begin so."""


def environment_of(call: Call, other: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of one callout, built from empty, or from that of another callout of the same request.

    Raises `BadRequest` when a value that the client has a hand in is too long, begins like a Bash function or
    holds a control character: exec or a script would come to harm by it.
    """
    made: dict[str, str] = {}
    for row in ENV_VARS if other is None else _ROWS_BY_KIND:
        try:
            value = row.value(call)
        except Malformed as fault:
            raise BadRequest(f"The value for {row.name} can't be made: {fault}.") from None
        except certs.UNREADABLE as fault:  # a certificate's name in bytes that are no UTF-8, say
            raise BadRequest(f"The value for {row.name} can't be read.", log=f"{row.name}: {fault}") from None
        match value:
            case None:
                continue
            case str() as text:
                made[row.name] = text
            case list() as texts:
                if len(texts) > MAXIMUM_NUMBERED:
                    raise BadRequest(f"More than {MAXIMUM_NUMBERED} values for {row.name}.")
                made.update({f"{row.name.removesuffix('n')}{at}": text for at, text in enumerate(texts)})
            case mapping:
                made.update(mapping)
    if sum(_checked(name, text) for name, text in made.items()) > MAXIMUM_ENVIRONMENT:
        raise BadRequest("The request makes an environment that is too large for a script.")
    if other is None:
        return made
    # The other one is within the bound, and these few are shorter than what exec allows beyond it.
    return {**{name: text for name, text in other.items() if name not in _BY_KIND}, **made}


_ROWS_BY_KIND = tuple(row for row in ENV_VARS if row.by_kind)
_BY_KIND = frozenset(row.name for row in _ROWS_BY_KIND)


def _checked(name: str, text: str) -> int:
    """The bytes of exec's room that a variable takes.  Raises `BadRequest` for a harmful value."""
    is_plain = text.isascii() and text.isprintable()  # nearly every value is, and these two looks cost next to nothing
    size = len(name) + 1 + (len(text) if is_plain else len(text.encode("utf-8", "surrogatepass")))
    if size > MAXIMUM_VARIABLE:
        raise BadRequest(f"The value for {name} is too long for a script's environment.")
    if text.startswith(SHELLSHOCK):
        raise BadRequest(f"The value for {name} begins like a shell function.")
    if not is_plain:
        _require_text(name, text)
    return size + 9  # the final NUL and a pointer


def _require_text(name: str, text: str) -> None:
    if odd := _ODD.search(text):
        what = "holds a control character" if odd[0] < "\ud800" else "is not Unicode text"
        raise BadRequest(f"The value for {name} {what}.")
    if "\n" in text and not text.startswith("-----BEGIN "):
        raise BadRequest(f"The value for {name} holds a line break.")


_ODD = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
