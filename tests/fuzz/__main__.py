"""`python -m tests.fuzz`: mutations for some time, or one file again."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import structlog

from tests.fuzz import runner, wire
from tests.fuzz.runner import CORPUS, Campaign


def main() -> int:
    """The command line. Returns 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (default: 60)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="of the mutations (default: another each time)")
    parser.add_argument("--keep", action="store_true", help="add what reached new lines to the corpus")
    parser.add_argument("--list", action="store_true", help="name the targets and stop")
    parser.add_argument("target", nargs="?", help="this one alone")
    parser.add_argument("file", nargs="?", type=Path, help="run this input and nothing else")
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())  # nobody reads what is logged about an input
    names = [*runner.targets(), *wire.NAMES]
    if asked.list:
        print("\n".join(names))
        return 0
    if asked.target not in (None, *names):
        parser.error(f"no target is called {asked.target}; --list names them")
    wanted = [asked.target] if asked.target else names
    with _opened(wanted) as found:
        if asked.file:
            return _once(asked.target, found[asked.target][0], asked.file)
        print(f"{asked.seconds:g} s over {len(found)} targets, --seed {asked.seed}")
        running = runner.campaigns(found, asked.seed)
        findings = [_campaign(each, asked.seconds / len(found), asked.keep) for each in running]
        return int(any(findings))


@contextlib.contextmanager
def _opened(wanted: list[str]) -> Iterator[dict[str, tuple[runner.Function, list[bytes]]]]:
    """The targets of these names. A gateway runs meanwhile if one of them needs it."""
    found = {name: target for name, target in runner.targets().items() if name in wanted}
    if not set(wanted) & set(wire.NAMES):
        yield found
        return
    with wire.gateway() as served:
        yield found | {name: target for name, target in wire.targets(served).items() if name in wanted}


def _once(name: str, function: runner.Function, file: Path) -> int:
    finding = runner.check(name, function, file.read_bytes())
    print(finding.what if finding else "no finding")
    return int(finding is not None)


def _campaign(campaign: Campaign, seconds: float, keep: bool) -> int:
    campaign.run(seconds)
    print(f"{campaign.name:26} {campaign.executions:9,} executions {len(campaign.findings):3} findings", flush=True)
    for finding in campaign.findings.values():
        path = finding.save()
        print(f"\n{finding.what.rstrip()}\n    python -m tests.fuzz {campaign.name} {path}\n", flush=True)
    for data in campaign.kept if keep else ():
        path = CORPUS / campaign.name / hashlib.sha256(data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return len(campaign.findings)


if __name__ == "__main__":
    sys.exit(main())
