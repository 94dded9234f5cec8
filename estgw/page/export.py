"""Records as a file to save: JSON as they are kept, or HAR 1.2, written record by record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from estgw.page import har
from estgw.page.viewers import View
from estgw.record.ring import Record

FORMATS = ("json", "har")
IDS = 500
"""The most ids of one export; without ids it is all that is kept."""


def chosen(ring: View, identifiers: Sequence[str]) -> list[Record]:
    """Return the records with these ids, those that are gone left out; all of them without ids.  Oldest first."""
    if not identifiers:
        return [record for _, record in ring.since(0)]
    found = [ring.get(each) for each in dict.fromkeys(identifiers)]
    return sorted((record for record in found if record is not None), key=lambda record: str(record.get("at")))


def pieces(records: Sequence[Record], form: str, base_url: str) -> Iterator[str]:
    """Yield the text of a file, a record at a time, so that the gateway can serve others in between.

    One record as JSON is the record itself, which `estgw replay` reads; several are an array.
    """
    if form == "har":
        yield from _har(records, base_url)
    elif len(records) == 1:
        yield json.dumps(records[0], indent=1) + "\n"
    else:
        yield "["
        for number, record in enumerate(records):
            yield ("," if number else "") + "\n" + json.dumps(record)
        yield "\n]\n"


def _har(records: Sequence[Record], base_url: str) -> Iterator[str]:
    yield f'{{"log": {json.dumps(har.head())[:-1]}, "entries": ['
    written = left_out = 0
    for record in records:
        entry = har.entry(record, base_url)
        if entry is None:
            left_out += 1
            continue
        yield ("," if written else "") + "\n" + json.dumps(entry)
        written += 1
    comment = f"{left_out} failed handshakes have no request and are not in this file" if left_out else ""
    yield f'\n], "comment": {json.dumps(comment)}}}}}\n'


def file_name(records: Sequence[Record], form: str) -> str:
    """Return a name for the file, made of our own ids alone."""
    return f"estgw-{records[0]['id']}.{form}" if len(records) == 1 else f"estgw-records.{form}"
