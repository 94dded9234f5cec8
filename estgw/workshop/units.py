"""Units for systemd, which then does what `serve` does in the foreground: one for each gateway, one for the page."""

from __future__ import annotations

import shlex
from pathlib import Path

from estgw.workshop import identity, plan
from estgw.workshop.plan import Seat, Workshop

FOLDER = "systemd"
TARGET = "estgw-workshop.target"


def write(workshop: Workshop) -> list[Path]:
    """Write the units, and return their paths."""
    folder = workshop.folder / FOLDER
    folder.mkdir(mode=0o755, exist_ok=True)
    seats = plan.seats(workshop) if workshop.isolated else plan.seats(workshop)[:1]
    made = {
        f"estgw-workshop-{seat.folder.name}.service": service(workshop, seat)
        for seat in (*seats, plan.trainer(workshop))
    }
    wants = " ".join(made)
    made[TARGET] = (
        f"[Unit]\nDescription=A workshop with estgw\nWants={wants}\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    for name, text in made.items():
        plan.write(folder / name, text, 0o644)
    return [folder / name for name in made]


def service(workshop: Workshop, seat: Seat) -> str:
    """The unit of one gateway, or of the trainer's page."""
    if seat.id == plan.TRAINER:
        command: tuple[str, ...] = (*identity.module("trainer"), str(workshop.folder / "trainer.json"))
    else:
        command = (*identity.ESTGW, "serve", "-c", "conf.yaml")
    # % and $ have meanings of systemd's own.
    line = shlex.join(command).replace("%", "%%").replace("$", "$$")
    environment = " ".join(f"{key}={value}" for key, value in identity.ENVIRONMENT.items())
    user = f"User={seat.uid}\nGroup={seat.uid}\n" if seat.uid is not None else f"User={seat.folder.stat().st_uid}\n"
    place = _quoted(seat.folder)
    return f"""[Unit]
Description=estgw workshop: {seat.folder.name}
PartOf={TARGET}
After=network.target

[Service]
{user}WorkingDirectory={place}
Environment={environment}
ExecStart={line}
ExecReload=kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=15
Restart=always
RestartSec=1
UMask=0077
MemoryMax={workshop.memory}M
TasksMax={workshop.tasks}
LimitFSIZE={identity.FILE_SIZE}
LimitCORE=0
OOMScoreAdjust=500
ProtectSystem=strict
ReadWritePaths={place}
PrivateTmp=yes
PrivateDevices=yes
ProtectHome=read-only
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
KeyringMode=private

[Install]
WantedBy={TARGET}
"""


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%%").replace(" ", "\\x20")
