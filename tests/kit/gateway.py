"""A real gateway process, with the configuration that a test wants."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import yaml
from cryptography import x509

from estgw.cli.workspace import DEMO_PASSWORD, DEMO_USER
from tests.kit.ca import pem
from tests.kit.connection import Connection, Response
from tests.kit.csr import csr
from tests.kit.keys import KEY_PEM
from tests.kit.preloaded import Program
from tests.kit.processes import DEADLINE, ROOT, until
from tests.kit.workspace import Workspace

LOGIN = f"{DEMO_USER}:{DEMO_PASSWORD}"

Process: TypeAlias = Program | subprocess.Popen[str]

_numbers = itertools.count(1)
# Each gateway of a test has a configuration of its own, and libyaml is ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Gateway:
    """A running `estgw serve`: its address, its log and its process."""

    def __init__(
        self, lab: Workspace, config: Path, log_file: Path, process: Program | subprocess.Popen[str], url: str
    ) -> None:
        self.lab, self.config, self.process, self.url = lab, config, process, url
        self.port = int(url.rpartition(":")[2])
        self._log_file = log_file

    @property
    def anchor(self) -> Path:
        """The trust anchor of its server certificate."""
        return self.lab.anchor

    @property
    def log_text(self) -> str:
        """The whole of standard error."""
        return self._log_file.read_text(encoding="utf-8")

    @property
    def log(self) -> list[dict[str, Any]]:
        """The log, a dict a line; a line that is no JSON object fails the test, unless it is being written."""
        return [json.loads(line) for line in self.log_text.rpartition("\n")[0].splitlines()]

    @property
    def access(self) -> list[dict[str, Any]]:
        """The access lines; a request's is there before its answer is."""
        return [line for line in self.log if line["event"] == "request"]

    def lines_of(self, request_id: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line.get("request_id") == request_id]

    def wait_for(self, event: str, *, after: int = 0, **fields: Any) -> dict[str, Any]:
        """The first log line past the `after` first ones with that event and those fields, waiting for it."""

        def found() -> dict[str, Any] | None:
            wanted = {"event": event, **fields}
            return next((line for line in self.log[after:] if wanted.items() <= line.items()), None)

        return until(found)

    def configure(self, overrides: Mapping[str, Any]) -> None:
        """Write another configuration for the next reload."""
        _write_config(self.lab, self.config, overrides)

    def reload(self) -> dict[str, Any]:
        """SIGHUP; the log line that says what came of it."""
        before = len(self.log)
        self.process.send_signal(signal.SIGHUP)
        return until(
            lambda: next((line for line in self.log[before:] if str(line["event"]).startswith("reload")), None)
        )

    def connect(self, **options: Any) -> Connection:
        """A TLS connection; the options are those of `Connection`."""
        return Connection(self, **options)

    def get(self, path: str, **options: Any) -> Response:
        """GET on a connection of its own; `path` is absolute or an operation."""
        return self.ask("GET", path, **options)

    def post(self, path: str, body: bytes, *, login: str | None = LOGIN, **options: Any) -> Response:
        """POST a CSR on a connection of its own, with the demo user's password."""
        return self.ask("POST", path, body, login=login, **options)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        login: str | None = None,
        **options: Any,
    ) -> Response:
        with self.connect(**options) as connection:
            return connection.ask(method, path, body, headers=headers, login=login)


@contextlib.contextmanager
def running_gateway(
    lab: Workspace,
    overrides: Mapping[str, Any] | None = None,
    *,
    clean: bool = True,
    options: Iterable[str] = (),
    status: int = 0,
    temporary: Path | None = None,
    fresh: bool = False,
    python: bool = False,
) -> Iterator[Gateway]:
    """Serve a workspace on a port of the kernel's choice; SIGTERM at the end must be a clean end, or else `status`.

    `overrides` are merged into the shipped conf.yaml; None as a value takes a key away.  `clean` is whether a
    traceback in the log fails the test; what is left in its temporary directory always does, unless that is given.
    A `fresh` gateway is an interpreter of its own, as a user starts it; others are forked (`tests.kit.preloaded`).
    The shipped label `python` is there for a fresh one, with `python`, and where `overrides` name it: its warm parent
    costs as much as seven starts of a gateway.
    """
    overrides = overrides or {}
    labels = overrides.get("labels", {})
    if labels is not None and "python" not in labels and not (python or fresh):
        overrides = {**overrides, "labels": {**labels, "python": None}}
    number = next(_numbers)
    config, log_file = lab.path / f"conf-{number}.yaml", lab.path / f"log-{number}"
    _write_config(lab, config, overrides)
    command = ["serve", "-c", str(config), *options]
    own = temporary is None
    temporary = temporary or lab.path / f"tmp-{number}"
    temporary.mkdir(exist_ok=not own)
    # Workers, if there are any, know no -W of ours.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONWARNINGS": "error"}
    with log_file.open("w") as log, _started(command, environment, log, fresh=fresh) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline()
            assert ready.startswith("estgw ready https://localhost:"), log_file.read_text()
            gateway = Gateway(lab, config, log_file, process, ready.split()[-1])
            yield gateway
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == status, log_file.read_text()
        finally:
            process.kill()
    if clean:
        text = log_file.read_text()
        assert "Traceback" not in text, text
        assert "unexpected error" not in text, text
    assert not own or not list(temporary.iterdir()), "a request's private directory was left behind"


def _started(command: list[str], environment: Mapping[str, str], log: IO[str], *, fresh: bool) -> Process:
    if not fresh:
        return Program(command, environment, log)
    program = [sys.executable, "-W", "error", "-m", "estgw"]
    return subprocess.Popen([*program, *command], stdout=subprocess.PIPE, stderr=log, text=True, env=environment)


def _write_config(lab: Workspace, path: Path, overrides: Mapping[str, Any]) -> None:
    shipped = yaml.load((lab.path / "conf.yaml").read_text(), _LOADER)
    # Tests guess passwords all the time from one address, and one that fails should not wait for what hangs.
    ours = {
        "server": {"listen": ["127.0.0.1:0"], "drain_timeout": 10},
        "client_auth": {"guess_delay": 0},
        "callouts": {"operations": {"fullcmc": {"enabled": True}}},
    }
    base = merged(shipped, ours)
    temporary = path.with_suffix(".new")
    temporary.write_text(yaml.dump(merged(base, overrides), Dumper=_DUMPER))
    temporary.replace(path)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = merged(found[key], value)
        else:
            found[key] = value
    return found


def enrol(gateway: Gateway, directory: Path, name: str = "device-1", *san: x509.GeneralName) -> tuple[Path, Path]:
    """Get a certificate with the demo user's password; the two PEM files to log in with."""
    certificate, key = directory / "client.pem", directory / "client.key"
    certificate.write_bytes(pem(gateway.post("simpleenroll", csr(name, *san)).certificate))
    key.write_bytes(KEY_PEM)
    return certificate, key
