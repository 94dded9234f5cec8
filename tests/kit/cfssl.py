"""A real `cfssl serve` on 127.0.0.1, over TLS, with the configuration in handlers/upstream/README.md."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.kit.ca import root
from tests.kit.processes import DEADLINE, free_port, run, until

KEY = "00112233445566778899aabbccddeeff"


class CFSSL:
    """A running server.  `anchor` is of its TLS certificate, `ca` its own."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"https://localhost:{port}/api/v1/cfssl/"
        self.anchor, self.ca = directory / "anchor.pem", directory / "ca.pem"
        self._log = directory / "log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_cfssl(directory: Path, config: str) -> Iterator[CFSSL]:
    """`config` is the configuration of its signer."""
    trusted = root()
    certificate, key = trusted.server().write(directory, "tls")
    (directory / "anchor.pem").write_bytes(trusted.pem)
    (directory / "config.json").write_text(config)
    (directory / "csr.json").write_text('{"CN": "CFSSL CA", "key": {"algo": "ecdsa", "size": 256}}')
    run("bash", "-c", "cfssl genkey -initca csr.json | cfssljson -bare ca", cwd=directory)
    port = free_port()
    command: list[str | Path] = ["cfssl", "serve", "-address=127.0.0.1", f"-port={port}", "-config=config.json"]
    command += ["-ca=ca.pem", "-ca-key=ca-key.pem", f"-tls-cert={certificate}", f"-tls-key={key}"]
    with (directory / "log").open("wb") as log:
        environment = {"PATH": os.environ["PATH"]}
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, env=environment)
    try:

        def is_up() -> bool:
            assert process.poll() is None, (directory / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return True
            return False

        until(is_up)
        yield CFSSL(directory, process, port)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(DEADLINE)
