"""`authorize` is asked about a request inside a message as if the request had come alone (RFC 7030 3.7)."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

from estgw.callout.call import Call
from estgw.callout.environment import environment_of
from estgw.callout.verdicts import EXIT_STATUS, OTHERWISE, Kind
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.errors import BadRequest

MAXIMUM_WORDS = 2048
"""Bytes of what authorize may say."""
_REFUSALS = {
    400: (CMCFailInfo.BAD_REQUEST, "not as it should be"),
    403: (CMCFailInfo.BAD_IDENTITY, "not allowed"),
    503: (CMCFailInfo.TRY_LATER, "busy"),
}
"""What a refusal is in CMC, and the words for the client if the script has none."""


def environment(call: Call) -> dict[str, str]:
    """The environment for a decision; raises `Refused` for a value that would do harm in it."""
    try:
        return environment_of(replace(call, kind=Kind.AUTHORIZE))
    except BadRequest as refusal:
        raise Refused.of(refusal) from None


def authorize(call: Call, seconds: float) -> bool:
    """Ask the script of the call's route, whose files are there.

    True is yes, also without a script; False is "not yet".
    Raises `Refused` for a no, and for a script that does not end well.
    """
    script = call.route.authorize
    if script is None:
        return True
    env = environment(replace(call, route=replace(call.route, decision_timeout=seconds)))
    status, words = _run(script, env, call.exchange.tmp_dir / "authorize.out", seconds)
    meaning = next((each for each in EXIT_STATUS if each.exit == status), OTHERWISE).status(Kind.AUTHORIZE)
    if meaning in _REFUSALS:
        failure, otherwise = _REFUSALS[meaning]
        raise Refused(failure, words or otherwise)
    if meaning not in (None, 202):
        raise Refused(CMCFailInfo.INTERNAL_CA_ERROR, f"{script.name} ended with {status}")
    return meaning is None


def _run(script: Path, env: dict[str, str], output: Path, seconds: float) -> tuple[int, str]:
    """The exit status and the words; raises `Refused`."""
    # A file and no pipe, which a process that the script leaves behind could hold open.
    with output.open("w+b") as out:
        try:
            done = subprocess.run([script], env=env, timeout=seconds, cwd=script.parent,
                                  stdin=subprocess.DEVNULL, stdout=out, check=False)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as fault:
            words = f"could not ask {script.name}: {type(fault).__name__}"
            raise Refused(CMCFailInfo.INTERNAL_CA_ERROR, words) from None
        out.seek(0)
        return done.returncode, " ".join(out.read(MAXIMUM_WORDS).decode("utf-8", "replace").split())
