"""The load: a client in C (client.c), built on demand, and the CSRs that it sends."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.kit.csr import csr
from tests.kit.gateway import LOGIN

SOURCE = Path(__file__).with_name("client.c")


@dataclass(frozen=True)
class Result:
    """The results of the clients; times in seconds."""

    done: int
    errors: int
    reopened: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    fault: str

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return self.done / self.seconds


class Load:
    """A built client and its CSRs."""

    def __init__(self, directory: Path, csrs: int = 2000) -> None:
        """Build the client and the CSRs, each with its own key; raises `CalledProcessError`."""
        self.program, self.csrs = directory / "client", directory / "csrs"
        build(self.program)
        make_csrs(self.csrs, csrs)

    def run(
        self,
        port: int,
        path: str,
        *,
        clients: int,
        seconds: float,
        keep: bool,
        expect: str = "pkcs7",
        count: int = 0,
        method: str = "POST",
        login: str | None = LOGIN,
        certificate: tuple[Path, Path] | None = None,
        greet: bool = False,
        ack: bool = False,
        csrs: Path | None = None,
    ) -> Result:
        """Ask for `seconds`, or `count` times if that is over first.

        `expect` is `pkcs7` for a certificate with the CSR's key, else a text that a good answer has.  `greet` makes
        handshakes and asks nothing; `ack` acknowledges what comes at once; `csrs` is another file of CSRs.
        """
        command: list[str | Path] = [
            self.program,
            f"--port={port}",
            f"--path={path}",
            f"--clients={clients}",
            f"--seconds={seconds}",
        ]
        command += [f"--csrs={csrs or self.csrs}", f"--expect={expect}", f"--count={count}", f"--method={method}"]
        command += [f"--login={login}"] if login else []
        command += [f"--cert={certificate[0]}", f"--key={certificate[1]}"] if certificate else []
        command += ["--keep"] if keep else []
        command += ["--greet"] if greet else []
        command += ["--ack"] if ack else []
        done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
        return Result(**json.loads(done.stdout))


def can_build() -> bool:
    """Whether there is a compiler with OpenSSL's headers."""
    if shutil.which("cc") is None:
        return False
    return subprocess.run(["cc", "-E", "-"], input=b"#include <openssl/ssl.h>", capture_output=True).returncode == 0


def build(program: Path) -> None:
    """Compile the client; raises `CalledProcessError`."""
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, SOURCE, "-lssl", "-lcrypto", "-lpthread"], check=True)


def make_csrs(file: Path, number: int) -> None:
    """Write one CSR per line, in base64, no two with the same key."""
    with file.open("wb") as out:
        for count in range(number):
            der = csr(f"bench-{count}", key=ec.generate_private_key(ec.SECP256R1()))
            out.write(base64.b64encode(der) + b"\n")
