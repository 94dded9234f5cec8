"""The cost of a callout by each runner: `python -m tests.bench.runners`, from the top of a checkout.

Calls run one after the other, without client and HTTP, in rounds in which the candidates take turns, so that noise
affects all of them.  A figure is the median of the rounds' medians, a ratio the median of the rounds' ratios; the noise
is half the distance between the quartiles.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from estgw.callout.environment import environment_of
from estgw.callout.pool import Pool
from estgw.callout.process import Limits, Outcome
from estgw.callout.runners import Runners
from estgw.callout.warm import Warm
from estgw.cli import trial
from estgw.cli.trial import Trial
from tests.bench.run import pattern
from tests.kit.csr import csr
from tests.kit.workspace import Workspace

LIMITS = Limits(seconds=30, stdout=1024 * 1024, stderr=64 * 1024)
# The cost of signing alone: no register, no policy.
SIGNER = """#!/usr/bin/env python3
import os, sys
from datetime import datetime, timedelta, timezone
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
ca = os.environ["EST_CA_DIR"]
with open(os.environ["EST_CSR_FILE"], "rb") as file:
    request = x509.load_pem_x509_csr(file.read())
with open(f"{ca}/cacert.pem", "rb") as file:
    issuer = x509.load_pem_x509_certificate(file.read())
with open(f"{ca}/private/cakey.pem", "rb") as file:
    key = serialization.load_pem_private_key(file.read(), None)
now = datetime.now(timezone.utc)
builder = x509.CertificateBuilder(issuer.subject, request.subject, request.public_key(), x509.random_serial_number())
builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=90))
builder = builder.add_extension(x509.BasicConstraints(False, None), True)
certificate = builder.sign(key, hashes.SHA256())
print(certificate.public_bytes(serialization.Encoding.PEM).decode(), end="")
"""
Candidate = Callable[[], Awaitable[Outcome]]


async def measure(candidates: Mapping[str, Candidate], rounds: int, calls: Mapping[str, int]) -> list[dict[str, float]]:
    """Milliseconds of wall time of a call, the median of each round."""
    found = []
    for number in range(rounds + 1):
        times = {}
        for name, candidate in candidates.items():
            taken = []
            for _ in range(calls[name]):
                began = time.perf_counter()
                outcome = await candidate()
                taken.append((time.perf_counter() - began) * 1000)
                assert outcome.exit == 0, outcome
            times[name] = statistics.median(taken)
        if number:  # the first one warms up
            found.append(times)
    return found


def row(name: str, figures: Sequence[float]) -> dict[str, object]:
    low, middle, high = statistics.quantiles(figures, n=4)
    return {"what": name, "median": round(middle, 3), "noise": f"±{(high - low) / 2 / middle:.0%}"}


async def bench(lab: Workspace, directory: Path, rounds: int) -> list[dict[str, object]]:
    (directory / "csr.pem").write_bytes(csr("device-1"))
    gateway = trial.load_state(lab.path / "conf.yaml")
    wanted = Trial("simpleenroll", label="python", csr_file=directory / "csr.pem", user="estuser")
    call = await trial.prepare(gateway, wanted, directory)
    env = environment_of(call)
    scripts = {
        "signs": lab.script("bench/signs", SIGNER),
        "shipped": call.script,
        "nothing": lab.script("bench/nothing", "#!/usr/bin/env python3\n"),
    }
    shell = lab.script("bench/true", "#!/bin/sh\nexit 0\n")
    warm = Warm()
    warm.start()
    pool = Pool(warm, 1, 1_000_000)
    runners = Runners.warm(warm, pool)
    table: list[dict[str, object]] = []
    try:
        for label, script in scripts.items():
            candidates = {
                name: (lambda name=name, script=script: runners.run(name, script, env, call.http.body, LIMITS))
                for name in ("exec", "fork", "pool")
            }
            found = await measure(candidates, rounds, {"exec": 4, "fork": 20, "pool": 40})
            table += [row(f"{label}: {name}, ms", [times[name] for times in found]) for name in candidates]
            for slow, quick in (("exec", "fork"), ("fork", "pool")):
                ratios = [times[slow] / times[quick] for times in found]
                table.append(row(f"{label}: {slow} / {quick}", ratios))
        table += await start(rounds, {"ours": lambda: runners.run("exec", shell, env, b"", LIMITS),
                                      "asyncio": lambda: by_asyncio(shell, env)})  # fmt: skip
    finally:
        pool.close()
        warm.close()
    return table


async def start(rounds: int, candidates: Mapping[str, Candidate]) -> list[dict[str, object]]:
    """CPU time of this process for starting `#!/bin/sh, exit 0`. The gateway has only one process for this."""
    found: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            began = time.process_time()
            for _ in range(50):
                await candidate()
            found[name].append((time.process_time() - began) * 1000 / 50)
    table = [row(f"start: {name}, CPU ms of the gateway", figures) for name, figures in found.items()]
    ratios = [theirs / ours for theirs, ours in zip(found["asyncio"], found["ours"], strict=True)]
    return [*table, row("start: asyncio / ours", ratios)]


async def by_asyncio(program: Path, env: Mapping[str, str]) -> Outcome:
    """The same start by the standard library, which does less: pipes, no limits, no group."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program, stdin=pipe, stdout=pipe, stderr=pipe, env=env, cwd=program.parent, start_new_session=True, umask=0o077
    )
    stdout, stderr = await process.communicate(b"")
    return Outcome(process.returncode, None, stdout, stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lab, directory = pattern(Path(folder) / "lab"), Path(folder) / "tmp"
        directory.mkdir(mode=0o700)
        table = asyncio.run(bench(lab, directory, arguments.rounds))
    if arguments.json:
        json.dump(
            {"python": platform.python_version(), "rounds": arguments.rounds, "table": table}, sys.stdout, indent=1
        )
        return
    for line in table:
        print(f"{line['what']:45} {line['median']:10} {line['noise']:>6}")


if __name__ == "__main__":
    main()
