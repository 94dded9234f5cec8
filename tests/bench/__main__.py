"""All benchmarks in one run: `make bench`, or `python -m tests.bench` from the top of a checkout."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench import bare, beside, growth, handshakes, memory, opening, recording, registers, rivals, steps, versus
from tests.bench.load import Load, can_build
from tests.bench.rounds import Row
from tests.bench.run import Run, pattern
from tests.bench.table import render
from tests.bench.targets import Target

Part = Callable[[Run], tuple[Mapping[str, list[Row]], list[Target]]]


def _one(title: str, part: Callable[[Run], tuple[list[Row], list[Target]]]) -> Part:
    def run_part(run: Run) -> tuple[Mapping[str, list[Row]], list[Target]]:
        rows, targets = part(run)
        return {title: rows}, targets

    return run_part


PARTS: Mapping[str, Part] = {
    "ab": bare.both,
    "c": _one("(c) enrolments by each runner, as shipped", versus.by_runner),
    "d": _one("(d) the same scripts under other servers", versus.among_others),
    "e": _one("(e) handshakes, 8 clients", handshakes.per_second),
    "f": _one("(f) memory", memory.measure),
    "g": _one("(g) openssl ca as its register grows", lambda run: growth.rows(3 if run.quick else 15)),
    "h": _one("(h) enrolments beside other EST servers", rivals.measure),
    "i": _one("(i) enrolments by the label python, by where its register is", registers.measure),
    "k": _one("(k) requests without a body beside 32 clients that enrol by the Bash set", beside.measure),
    "p": _one("(p) opening the live page in Chromium", opening.measure),
    "r": _one("(r) enrolments by the label python, recorded or not", recording.measure),
    "s": _one("(s) where the time of an enrolment goes, gate by gate, one client", steps.measure),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks of estgw.")
    parser.add_argument("--quick", action="store_true", help="short rounds: figures to develop by, not to publish")
    parser.add_argument("--only", metavar="c,d", help=f"these parts of {', '.join(PARTS)}; quick has all but g")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="where bench.json and bench.txt go: %(default)s")
    arguments = parser.parse_args()
    usual = [name for name in PARTS if not (arguments.quick and name == "g")]
    wanted = arguments.only.split(",") if arguments.only else usual
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if not can_build():
        parser.exit(2, "There is no C compiler with OpenSSL's headers: tests/bench/install\n")
    began = time.monotonic()
    parts: dict[str, list[Row]] = {}
    targets: list[Target] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        directory = Path(folder)
        directory.chmod(0o755)  # as root, the other servers run under another account
        run = Run(directory, pattern(directory / "lab"), Load(directory), arguments.quick)
        for letter in wanted:
            run.noise.listen()
            tables, found = PARTS[letter](run)
            parts |= tables
            targets += found
            run.say("")
    result = {
        "machine": {
            "CPUs": os.cpu_count(),
            "system": platform.platform(),
            "Python": platform.python_version(),
            "rounds": run.rounds,
            "minutes": round((time.monotonic() - began) / 60, 1),
            **run.noise.row(),
        },
        "parts": parts,
        "targets": [target.row() for target in targets],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    text = render(result)
    (arguments.out / "bench.txt").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
