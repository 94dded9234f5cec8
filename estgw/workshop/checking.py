"""`estgw workshop check`: every port at every address, an enrolment each, all at once, and the clock."""

from __future__ import annotations

import re
import shlex
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from estgw.est import certs
from estgw.workshop import handouts, identity, layout, plan
from estgw.workshop.plan import Seat, Workshop

SECONDS = 10.0
ENROL_SECONDS = 120.0


def faults(workshop: Workshop, say: Callable[[str], None]) -> list[str]:
    """Check a running workshop, and return a sentence for each fault."""
    seats = plan.seats(workshop)
    anchors = {seat.id: layout.anchor_of(workshop, seat) for seat in seats}
    ports = [(seat.id, port) for seat in seats for port in (seat.port, seat.page_port)]
    own = layout.own_address(workshop).strip("[]")
    if not any(listens(own, port) for _, port in ports):
        folder = shlex.quote(str(workshop.folder))
        return [f"nothing answers; run estgw workshop serve {folder} in another terminal first"]
    found, names = [], []
    for name in dict.fromkeys((*(name for name in workshop.names if "*" not in name), "localhost")):
        if not _resolves(name):
            found.append(f"{name} leads to no address here: laptops need it in DNS or in their hosts file")
        elif _is_address(name) and not _is_here(name) and not listens(name, ports[0][1]):
            found.append(_gone(name))
        else:
            names.append(name)
    with ThreadPoolExecutor(16) as threads:
        for name in names:
            jobs = [threads.submit(_port_fault, name, port, anchors[who]) for who, port in ports]
            found += told(name, ports, [job.result() for job in jobs])
    say(f"{len(names) * len(ports)} connections to {len(ports)} ports by {', '.join(names)}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(seats)) as threads:
        found += [
            fault for fault in threads.map(lambda seat: _enrol_fault(workshop, seat, Path(scratch)), seats) if fault
        ]
    say(f"{len(seats)} enrolments at once in {time.monotonic() - began:.1f} s")
    found += _clock_faults(workshop, seats[0])
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    say(f"the clock says {now}; to a laptop whose clock is behind, new certificates are not valid yet")
    return list(dict.fromkeys(found))


def told(name: str, ports: Sequence[tuple[str, int]], reasons: Sequence[str]) -> list[str]:
    """Sentences for the ports of a host that have a fault; one alone if all have the same.

    `ports` are participants and their ports, and `reasons` say of each what is wrong; empty: nothing.
    """
    if len(ports) > 1 and len(set(reasons)) == 1 and reasons[0]:
        return [f"{name}: {reasons[0]}, at each of {len(ports)} ports"]
    pairs = zip(ports, reasons, strict=True)
    return [f"{who}: {layout.endpoint(name, port)}: {reason}" for (who, port), reason in pairs if reason]


def addresses() -> list[str]:
    """The addresses of this machine that other machines may reach, IPv4 first; of one that has no `ip`, one at most."""
    try:
        done = subprocess.run(
            ["ip", "-o", "address", "show", "scope", "global"], capture_output=True, text=True, check=False
        )
        found = re.findall(r" inet6? ([0-9a-fA-F.:]+)/", done.stdout)
    except OSError:
        found = _by_route()
    return sorted(found, key=lambda address: ":" in address)


def _by_route() -> list[str]:
    """The address of the interface to elsewhere; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
            return [str(sock.getsockname()[0])]
        except OSError:
            return []


def _gone(name: str) -> str:
    present = ", ".join(addresses()) or "none"
    return f"{name} is no address of this machine now; they are {present}: estgw workshop addresses"


def _is_address(name: str) -> bool:
    return bool(re.fullmatch(r"[0-9.]+|.*:.*", name))


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, 1, type=socket.SOCK_STREAM))
    except OSError:
        return False


def _is_here(address: str) -> bool:
    return address in addresses() or address.startswith("127.")


def listens(host: str, port: int) -> bool:
    """Whether a complete handshake can be made there.  One that is broken off would be in the participant's records."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the anchors of the system, which take time to load
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), SECONDS) as sock, context.wrap_socket(sock):
            return True
    except OSError:
        return False


def _port_fault(name: str, port: int, anchor: str) -> str:
    """Connect, and verify the certificate for that name with the participant's CA: what is wrong, or empty."""
    context = ssl.create_default_context(cadata=anchor)
    try:
        with socket.create_connection((name, port), SECONDS) as sock, context.wrap_socket(sock, server_hostname=name):
            return ""
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    except OSError as fault:
        return fault.strerror or str(fault)


def _enrol_fault(workshop: Workshop, seat: Seat, scratch: Path) -> str:
    """Enrol as the participant would, with estclient."""
    anchor = scratch / f"{seat.id}-ca.pem"
    anchor.write_text(layout.anchor_of(workshop, seat))
    url = f"https://{layout.endpoint(layout.own_address(workshop).strip('[]'), seat.port)}"
    label = [] if workshop.isolated else ["--label", seat.id]
    what = ["--new-key", "ec:P-256", "--subject", "CN=workshop-check", "-o", str(scratch / f"{seat.id}.pem")]
    secret = scratch / f"{seat.id}.password"
    plan.write(secret, f"{seat.password}\n")
    command: Sequence[str] = [*identity.ESTCLIENT, "enroll", "-u", url, *label, "-c", str(anchor), *what]
    done = subprocess.run(
        [*command, "-p", seat.id, "--password-file", str(secret)],
        capture_output=True,
        text=True,
        cwd=scratch,
        env=identity.ENVIRONMENT,
        timeout=ENROL_SECONDS,
        check=False,
    )
    words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return f"{seat.id}: the enrolment failed: {words[-1]}" if done.returncode else ""


def _clock_faults(workshop: Workshop, seat: Seat) -> list[str]:
    root = certs.load_pem(layout.anchor_of(workshop, seat).encode())[0]
    if root.not_valid_before_utc <= datetime.now(UTC) <= root.not_valid_after_utc:
        return []
    return [
        f"the clock of this machine is wrong: its CA is valid from {root.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
    ]


def links(workshop: Workshop) -> list[str]:
    """The pages of the workshop, for its trainer."""
    host = layout.url_name(workshop)
    trainer = plan.trainer(workshop)
    return [
        f"trainer's page  https://{layout.endpoint(host, trainer.page_port)}/#{trainer.token}",
        *(f"{seat.id}  {handouts.page_link(workshop, seat)}" for seat in plan.seats(workshop)),
    ]
