"""A real Pebble with its DNS server, and a web server for the proofs, all on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.kit.ca import root
from tests.kit.processes import DEADLINE, free_port, until


class Pebble:
    """A running server.  `anchor` is of its TLS certificate, `webroot` is what every host shows at its port 80."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], port: int, management: int) -> None:
        self.process, self.url = process, f"https://localhost:{port}/dir"
        self.anchor, self.webroot = directory / "anchor.pem", directory / "webroot"
        self._management = f"https://localhost:{management}/"

    def root(self) -> bytes:
        """The certificate of its CA, which is a new one at each start."""
        return self._fetched("roots/0")

    def issuer(self) -> bytes:
        return self._fetched("intermediates/0")

    def _fetched(self, path: str) -> bytes:
        context = ssl.create_default_context(cafile=self.anchor)
        with urllib.request.urlopen(self._management + path, timeout=DEADLINE, context=context) as answer:
            found: bytes = answer.read()
        return found

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections and does not answer."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_pebble(directory: Path) -> Iterator[Pebble]:
    """It calls every fifth nonce bad, and waits before it looks for a proof, as it is shipped."""
    trusted = root()
    certificate, key = trusted.server().write(directory, "tls")
    (directory / "anchor.pem").write_bytes(trusted.pem)
    (directory / "webroot/.well-known/acme-challenge").mkdir(parents=True)
    port, management, web, dns = (free_port() for _ in range(4))
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": web,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        "domainBlocklist": ["blocked.example"],
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": settings}))
    names = [f"-dns01=127.0.0.1:{dns}", "-defaultIPv6=", "-http01=", "-https01=", "-tlsalpn01="]
    names += [f"-management=127.0.0.1:{free_port()}"]
    commands: list[list[str]] = [
        ["pebble-challtestsrv", *names],
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", str(directory / "webroot"), str(web)],
        ["pebble", "-config", str(directory / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"],
    ]
    environment = {"PATH": os.environ["PATH"], "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
    processes = []
    try:
        for command in commands:
            with (directory / "log").open("ab") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        made = Pebble(directory, processes[-1], port, management)

        def is_up() -> bool:
            assert all(process.poll() is None for process in processes), (directory / "log").read_text()
            with contextlib.suppress(OSError):
                return bool(made.root())
            return False

        until(is_up)
        yield made
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(DEADLINE)
