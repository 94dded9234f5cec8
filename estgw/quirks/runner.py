"""Drive a client's command through the quirks, one after the other, and judge each."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import keys, request
from estgw.est import encoding
from estgw.quirks import command
from estgw.quirks.clients import Client
from estgw.quirks.faults import CannotRunError, UsageError
from estgw.quirks.material import AES_KEY_ID, USER, common_name
from estgw.quirks.seen import Event, Result, Step, Verdict, untried
from estgw.quirks.server import QuirkServer, Settings
from estgw.quirks.table import CONTROL, QUIRKS, Quirk

SECONDS = 30.0
"""For one command.  The longest wait that a quirk asks for is twice two seconds."""
_DRAIN = 2.0
"""Seconds for connections to end after a command."""
HOST = "localhost"


@dataclass(frozen=True)
class Trial:
    """A quirk, and how the client has done."""

    quirk: Quirk
    verdict: Verdict
    seconds: float


def chosen(only: Sequence[str], skip: Sequence[str]) -> list[Quirk]:
    """The quirks that `--only` and `--skip` leave, in the order of the table; raises `UsageError`."""
    wanted, unwanted = ({name.removeprefix("quirk-") for name in names} for names in (only, skip))
    unknown = sorted((wanted | unwanted) - QUIRKS.keys())
    if unknown:
        raise UsageError(f"no quirk {unknown[0]!r}; there are {', '.join(QUIRKS)}")
    left = [quirk for quirk in QUIRKS.values() if (not wanted or quirk.name in wanted) and quirk.name not in unwanted]
    if not left:
        raise UsageError("--only and --skip leave no quirk")
    return left


def run(
    client: Client, quirks: Sequence[Quirk], tell: Callable[[Trial], None], seconds: float = SECONDS
) -> list[Trial]:
    """Run the control and then the quirks; `tell` gets each trial when it is done.

    Raises `CannotRunError` if the program is missing or the control does not pass: then nothing can be judged.
    """
    events: list[Event] = []
    done = []
    with (
        tempfile.TemporaryDirectory(prefix="estgw-quirks-") as folder,
        QuirkServer(Settings(), events.append) as server,
    ):
        trials = _Trials(client, server, events, Path(folder), seconds)
        for quirk in [QUIRKS[CONTROL], *(quirk for quirk in quirks if quirk.name != CONTROL)]:
            trial = trials.run(quirk)
            if quirk.name == CONTROL and trial.verdict.result is not Result.PASS:
                words = "; ".join(trial.verdict.evidence)
                raise CannotRunError(f"{client.name} does not enrol at a server without faults (quirk-none): {words}")
            if quirk in quirks:
                tell(trial)
                done.append(trial)
    return done


class _Trials:
    """The trials of one client at one server."""

    def __init__(self, client: Client, server: QuirkServer, events: list[Event], folder: Path, seconds: float) -> None:
        self._client = client
        self._server = server
        self._events = events
        self._folder = folder
        self._seconds = seconds
        self._ca = folder / "ca.pem"
        self._ca.write_bytes(server.material.old.certificate.public_bytes(Encoding.PEM))
        self._aes = folder / "aes.key"
        self._aes.touch(mode=0o600)
        self._aes.write_bytes(server.material.aes_key)

    def run(self, quirk: Quirk) -> Trial:
        """Take the client through the steps of one quirk."""
        began = time.monotonic()
        if quirk.steps[0] not in self._client.commands:
            return Trial(quirk, untried(f"{self._client.name} has no command for {quirk.steps[0]}"), 0.0)
        steps = [self._step(quirk, step) for step in quirk.steps if step in self._client.commands]
        return Trial(quirk, quirk.judge(steps), time.monotonic() - began)

    def _step(self, quirk: Quirk, step: str) -> Step:
        directory = self._folder / f"{quirk.name}-{step}"
        directory.mkdir(mode=0o700)
        self._server.default = quirk.name if quirk.face is None else None  # for clients without labels
        self._events.clear()
        words = self._client.command(step, self._values(quirk, directory))
        kept = command.run(words, directory, self._seconds, self._server.material.own)
        self._server.drain(_DRAIN)
        return Step(step, tuple(self._events), kept)

    def _values(self, quirk: Quirk, directory: Path) -> Mapping[str, str]:
        """What takes the place of the placeholders (`clients.PLACEHOLDERS`)."""
        name = f"quirk-{quirk.name}"
        port = self._server.port_of(quirk)
        base = f"https://{HOST}:{port}"
        der = request.build(request.plan(request.Wanted(common_name(name)), None), _new_key(), None)
        for path, data in (
            ("csr.pem", encoding.encode_pem(der, "CERTIFICATE REQUEST")),
            ("csr.der", der),
            ("csr.b64", encoding.encode_base64(der)),
        ):
            (directory / path).write_bytes(data)
        return {
            "base": base,
            "host": HOST,
            "port": str(port),
            "label": name,
            "url": f"{base}/{name}",
            "ca": str(self._ca),
            "user": USER,
            "password": self._server.material.password,
            "cn": name,
            **{path: str(directory / path) for path in ("csr.pem", "csr.der", "csr.b64")},
            "out": str(directory / "out.pem"),
            "key": str(directory / "key.pem"),
            "dir": str(directory),
            "aes": str(self._aes),
            "aes-id": AES_KEY_ID.decode(),
            "python": sys.executable,
        }


def _new_key() -> PrivateKeyTypes:
    return keys.generate(keys.parse_spec(keys.DEFAULT))
