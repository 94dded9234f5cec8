"""A real token of SoftHSM2 in a temporary directory, with an EC or an RSA key, and the same behind a socket.

`p11-kit server` makes it an HSM on another machine: one that can be absent or slow.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit.processes import DEADLINE, run, until

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
CLIENT = Path("/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so")
ENGINE = Path("/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so")
PIN = "5678"


@dataclass(frozen=True)
class Token:
    """A token `est` with the keys `ec`, `rsa` and `next`, which is EC."""

    directory: Path
    module: Path = MODULE

    @property
    def environment(self) -> dict[str, str]:
        """What SoftHSM, or the client of the socket, wants to know; also `handler_env` in conf.yaml."""
        if self.module == CLIENT:
            return {"P11_KIT_SERVER_ADDRESS": f"unix:path={self.directory}/socket"}
        return {"SOFTHSM2_CONF": str(self.directory / "softhsm2.conf")}

    def uri(self, key: str = "ec", pin_file: str = "pin") -> str:
        place = f"?module-path={self.module}&pin-source={self.directory / pin_file}"
        return f"pkcs11:token=est;object={key};type=private{place}"

    @contextlib.contextmanager
    def served(self) -> Iterator[Server]:
        """The token behind a socket."""
        command: list[str | Path] = [
            "p11-kit",
            "server",
            "-f",
            "-n",
            self.directory / "socket",
            "--provider",
            MODULE,
            "pkcs11:token=est",
        ]
        environment = os.environ | self.environment
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, start_new_session=True)
        try:
            until((self.directory / "socket").exists)
            yield Server(process, Token(self.directory, CLIENT))
        finally:
            Server(process, self).kill()


@dataclass(frozen=True)
class Server:
    """A running server; each client has a process of its own there, all in one group."""

    process: subprocess.Popen[bytes]
    token: Token

    def kill(self) -> None:
        """End it, and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)
        (self.token.directory / "socket").unlink(missing_ok=True)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes requests and does not answer."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)


def create_token(directory: Path) -> Token:
    """Initialize a token and make its keys."""
    (directory / "tokens").mkdir(parents=True)
    (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
    for name, text in (("pin", PIN), ("wrong-pin", "9999")):
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    made = Token(directory)
    environment = os.environ | made.environment
    init = ["--init-token", "--free", "--label", "est", "--so-pin", "1234", "--pin", PIN]
    run("softhsm2-util", *init, env=environment)
    kinds = {"ec": "EC:prime256v1", "rsa": "rsa:2048", "next": "EC:prime256v1"}
    for number, (name, kind) in enumerate(kinds.items(), 1):
        make = ["--keypairgen", "--key-type", kind, "--label", name, "--id", f"0{number}"]
        run("pkcs11-tool", "--module", MODULE, "--token-label", "est", "--pin", PIN, *make, env=environment)
    return made


def missing() -> str | None:
    """Why there can be no token here, or None."""
    for program in ("softhsm2-util", "pkcs11-tool", "p11-kit"):
        if not shutil.which(program):
            return f"{program} is not installed"
    return next((f"{file} is not installed" for file in (MODULE, CLIENT, ENGINE) if not file.exists()), None)
