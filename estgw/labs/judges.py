"""Lab 10: a client and a server that fail, and the reports that say so."""

from __future__ import annotations

import json
from pathlib import Path

from estgw.labs.evidence import Evidence
from estgw.labs.step import Finding, Lab, Step, done, not_yet, wrong

CLIENT, SERVER = Path("lab10-client.json"), Path("lab10-server.json")
MOST = 16 << 20
"""Bytes of a report that is read."""


def _client(evidence: Evidence) -> Finding:
    return _finding(evidence.place.workspace / CLIENT, ("quirks", "quirk", "verdict"), "estgw quirks run")


def _server(evidence: Evidence) -> Finding:
    return _finding(evidence.place.workspace / SERVER, ("cases", "case", "status"), "estgw conform")


def _finding(path: Path, keys: tuple[str, str, str], command: str) -> Finding:
    """Whether a report has a FAIL; the keys are those of its rows, of a row's name and of its verdict."""
    rows, name, verdict = keys
    try:
        with path.open("rb") as file:
            report = json.loads(file.read(MOST))
        failed = [str(row[name]) for row in report[rows] if str(row[verdict]).upper() == "FAIL"]
    except FileNotFoundError:
        return not_yet(f"There is no {path.name} beside conf.yaml yet.")
    except OSError as fault:
        return wrong(f"{path.name} can't be read: {fault.strerror}.")
    except (ValueError, KeyError, TypeError, RecursionError):
        return wrong(f"{path.name} is no report of {command}; write it with --json {path.name}.")
    if not failed:
        return wrong(f"{path.name} has no FAIL: nothing broke.")
    return done(f"{path.name} has a FAIL: {', '.join(failed)[:200]}.")


LAB = Lab(10, (Step("client", _client), Step("server", _server)))
