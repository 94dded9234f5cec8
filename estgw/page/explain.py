"""Messages of a record in words: CMC (RFC 5272) and CSR attributes (RFC 7030 4.5.2, RFC 9908)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from estgw.cmc.explain import explain as explain_cmc
from estgw.config import csrattrs_yaml
from estgw.errors import Malformed
from estgw.est import encoding
from estgw.est.csrattrs import decode_csrattrs
from estgw.record.ring import Record

REMOVED = "[removed]"
"""What stands in a record for a secret."""
LONGEST = 200_000
"""Characters of one explanation; a message of 256 KiB may amount to more."""


def explained(record: Record) -> dict[str, str | None]:
    """Return the request and the answer of a record in words, as `request` and `response`; null where there are none.

    A message that can't be read is explained by the fault in it.
    """
    operation = record.get("operation")
    request, response = record.get("request") or {}, record.get("response") or {}
    if operation == "fullcmc":
        return {"request": _words(request, explain_cmc), "response": _words(response, explain_cmc)}
    if operation == "csrattrs" and response.get("status") == 200:
        return {"request": None, "response": _words(response, _csrattrs)}
    return {"request": None, "response": None}


def _words(message: Mapping[str, Any], explain: Callable[[bytes], str]) -> str | None:
    if not message.get("body"):
        return None
    if message["body"] == REMOVED:
        return "the message holds a secret, so it was not kept\n"
    if message.get("cut"):
        return "the message was too long to be kept whole, so it can't be read\n"
    try:
        text = explain(base64.b64decode(message["body"], validate=True))
    except (Malformed, binascii.Error) as fault:
        return f"this can't be read: {fault}\n"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n... {len(text) - LONGEST} more characters\n"


def _csrattrs(body: bytes) -> str:
    return csrattrs_yaml.write(decode_csrattrs(encoding.decode(body, ())))
