"""Where the pages of docs/ are followed: a directory for the machine, and systemd-socket-activate for systemd."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.kit import documents
from tests.kit.preloaded import forked_estgw, script
from tests.kit.processes import DEADLINE, ROOT, until

DEPLOY = ROOT / "docs/deploy"
SYSTEM_ONLY = ("apt-get ", "python3 -m venv ", "/opt/estgw/bin/pip ", "useradd ", "userdel ", "chown ")
"""Commands that change the machine itself, which a test must not."""
ACTIVATE = "systemd-socket-activate"


class Server(NamedTuple):
    """What `Connection` needs to know of a server."""

    port: int
    anchor: Path


def page(name: str, how: str) -> str:
    """The commands of a page under docs/ that are marked so."""
    (found,) = [block.text for block in documents.blocks(ROOT / "docs" / name) if block.how == f"run: {how}"]
    return found


def settings(unit: Path, key: str) -> list[str]:
    """The values of a setting in a unit, in their order."""
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Machine:
    """A directory with the places that the pages name."""

    def __init__(self, directory: Path) -> None:
        self.home, self.units = directory / "home", directory / "units"
        self.archive, self.said = directory / "estgw.tar.gz", directory / "systemctl"
        self._programs = directory / "bin"
        for folder in (self.home, self.units, self._programs):
            folder.mkdir()
        program = self._programs / "estgw"
        # A service gets its sockets from systemd, so it has to be an interpreter of its own.
        serving = f'[ "$1" != serve ] || PYTHONPATH={ROOT} exec {sys.executable} -m estgw "$@"\n'
        program.write_text(script(forked_estgw()).replace("exec", f"{serving}exec", 1))
        program.chmod(0o755)

    def here(self, text: str) -> str:
        """A text with the places of this machine."""
        places = {
            "/opt/estgw/bin/": f"{self._programs}/",
            "/opt/estgw": str(self._programs),
            "/var/lib/estgw": str(self.home),
            "/etc/systemd/system": str(self.units),
            "/root/estgw.tar.gz": str(self.archive),
            "runuser -u estgw -- ": "",
        }
        for before, after in places.items():
            text = text.replace(before, after)
        return text

    def paste(self, text: str) -> str:
        """What the commands print, which must all succeed."""
        lines = [line for line in text.splitlines() if not line.startswith(SYSTEM_ONLY)]
        script = self.here("\n".join(lines))
        stub = f'systemctl() {{ echo "$*" >>{self.said}; }}\n'
        command = ["bash", "-euo", "pipefail", "-c", stub + script]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server]:
        """The service as its installed unit starts it, with a socket at another port."""
        for name in ("estgw.service", "estgw-crl.service"):
            unit = self.units / name
            unit.write_text(self.here(unit.read_text()))
        (start,) = settings(self.units / "estgw.service", "ExecStart")
        assert settings(self.units / "estgw.service", "WorkingDirectory") == [str(self.home)]
        with activated(start.split(), self.home) as server:
            yield server


@contextlib.contextmanager
def activated(
    command: Sequence[str], directory: Path, *, cwd: Path | None = None, log: Path | None = None
) -> Iterator[Server]:
    """A gateway that is started by the first connection to its socket, as by estgw.socket.

    `directory` is the workspace; the gateway starts in `cwd`, or there.
    """
    program = shutil.which(ACTIVATE)
    assert program, f"the test lacks pytest.mark.client({ACTIVATE!r})"
    (ipv4,) = [each for each in settings(DEPLOY / "estgw.socket", "ListenStream") if not each.startswith("[")]
    port = free_port()
    address = ipv4.replace("0.0.0.0:443", f"127.0.0.1:{port}")
    assert address != ipv4
    log = log or directory / "activated.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as file:
        process = subprocess.Popen(
            [program, "-l", address, "--", *command], cwd=cwd or directory, env=environment, stdout=file, stderr=file
        )
    try:
        until(lambda: "Listening on" in log.read_text())
        yield Server(port, directory / "openssl-ca/cacert.pem")
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
        text = log.read_text()
        assert "Traceback" not in text, text
    finally:
        process.kill()
        process.wait()
