"""A real HAProxy in front of gateways, on a port of the kernel's choice."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.kit.processes import DEADLINE, ROOT, free_port, until

SHIPPED = ROOT / "docs/deploy/haproxy.cfg"


def _config(directory: Path, port: int, header: str, balance: str) -> str:
    """The shipped file with other addresses, and checked more often; a test fails if a line is not there any more."""
    text = SHIPPED.read_text()
    for before, after in {
        "/run/haproxy/admin.sock mode 660": f"{directory}/stats mode 600",
        "bind :443": f"bind 127.0.0.1:{port}",
        "balance source ": f"balance {balance} ",
        "send-proxy-v2 check inter 1s": f"{header} check inter 100ms",
    }.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return re.sub(r"^    server .*\n", "", text, flags=re.MULTILINE)


class HAProxy:
    """It counts as a server for `Connection`."""

    def __init__(self, port: int, anchor: Path, control: Path, process: subprocess.Popen[bytes]) -> None:
        self.port, self.anchor, self._control, self.process = port, anchor, control, process

    def states(self) -> dict[str, str]:
        """UP or DOWN of each gateway."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(b"show stat\n")
            parts = []
            while part := control.recv(65536):
                parts.append(part)
        rows = [line.split(",") for line in b"".join(parts).decode().splitlines() if line.startswith("gateways,")]
        return {row[1]: row[17] for row in rows if row[1] != "BACKEND"}


@contextlib.contextmanager
def running_haproxy(
    directory: Path, gateways: Sequence[tuple[int, int]], anchor: Path, *, header: str = "send-proxy-v2",
    balance: str = "roundrobin",
) -> Iterator[HAProxy]:  # fmt: skip
    """`gateways` are pairs of ports: of TLS, and of /readyz.  It is up when all of them are."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "the test lacks pytest.mark.client('haproxy')"
    port = free_port()
    servers = [f"    server gateway-{n} 127.0.0.1:{tls} port {health}" for n, (tls, health) in enumerate(gateways, 1)]
    file = directory / "haproxy.cfg"
    file.write_text("\n".join([_config(directory, port, header, balance).rstrip(), *servers, ""]))
    with (directory / "haproxy.log").open("w") as log:
        process = subprocess.Popen([program, "-db", "-f", file], stdout=log, stderr=log)
    try:
        made = HAProxy(port, anchor, directory / "stats", process)

        def is_up() -> bool:
            assert process.poll() is None, (directory / "haproxy.log").read_text()
            try:
                return set(made.states().values()) == {"UP"}
            except (FileNotFoundError, ConnectionRefusedError):  # its socket is there a moment before it listens
                return False

        until(is_up)
        yield made
    finally:
        process.terminate()
        process.wait(DEADLINE)
