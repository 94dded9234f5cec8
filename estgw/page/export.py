"""Records as a file to save: JSON as they are kept, or HAR 1.2, written record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from estgw.page import har
from estgw.page.viewers import View
from estgw.record.ring import Entry

FORMATS = ("json", "har")
IDS = 500
"""The most ids of one export; without ids it is all that is kept."""


def chosen(ring: View, identifiers: Sequence[str]) -> list[Entry]:
    """Return the records with these ids, those that are gone left out; all of them without ids.  Oldest first."""
    if not identifiers:
        return [entry for _, entry in ring.since(0)]
    found = [ring.get(each) for each in dict.fromkeys(identifiers)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: str(entry.outline().get("at")))


def pieces(entries: Sequence[Entry], form: str, base_url: str) -> Iterator[str]:
    """Yield the text of a file, a record at a time, so that the gateway can serve others in between.

    One record as JSON is the record itself, which `estgw replay` reads; several are an array.
    """
    if form == "har":
        yield from _har(entries, base_url)
    elif len(entries) == 1:
        yield json.dumps(entries[0].record(), indent=1) + "\n"
    else:
        yield "["
        for number, entry in enumerate(entries):
            yield ("," if number else "") + "\n" + json.dumps(entry.record())
        yield "\n]\n"


def _har(entries: Sequence[Entry], base_url: str) -> Iterator[str]:
    yield f'{{"log": {json.dumps(har.head())[:-1]}, "entries": ['
    written = left_out = 0
    for entry in entries:
        exchange = har.entry(entry.record(), base_url)
        if exchange is None:
            left_out += 1
            continue
        yield ("," if written else "") + "\n" + json.dumps(exchange)
        written += 1
    comment = f"{left_out} failed handshakes have no request and are not in this file" if left_out else ""
    yield f'\n], "comment": {json.dumps(comment)}}}}}\n'


def file_name(entries: Sequence[Entry], form: str) -> str:
    """Return a name for the file, made of our own ids alone."""
    return f"estgw-{entries[0].id}.{form}" if len(entries) == 1 else f"estgw-records.{form}"
