"""workshop.yaml, and what follows from it: the participants with their ids, ports and secrets."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from estgw.config import marked_yaml
from estgw.config.shipped import template
from estgw.errors import ConfigError
from estgw.workshop.fault import WorkshopError

FILE = "workshop.yaml"
SECRETS = "secrets.json"
MOST = 99
PROCESSES, LABELS = "processes", "labels"
TRAINER = "trainer"
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that nobody takes for one another on paper."""


@dataclass(frozen=True)
class Workshop:
    """What workshop.yaml says."""

    folder: Path
    participants: int
    names: tuple[str, ...]
    """Host names and IP addresses of this machine; the first stands in URLs."""
    isolation: str = PROCESSES
    listen: str = "0.0.0.0"  # noqa: S104 - a workshop is for other machines
    port: int = 8501
    """Of p01; the next ones follow."""
    page_port: int = 8601
    """Of p01's page; the next ones follow."""
    trainer_port: int = 8500
    uid_base: int = 58000
    """The trainer's page has this user id, p01 the next one."""
    memory: int = 768
    """MiB of all processes of a participant together."""
    tasks: int = 150
    """Processes and threads of a participant."""
    disk: int = 0
    """MiB of a file system of each participant's own; 0: they share that of the workshop."""

    @property
    def isolated(self) -> bool:
        """Whether each participant has a user id."""
        return self.isolation == PROCESSES

    def ids(self) -> list[str]:
        """`p01` and so on."""
        return [f"p{number:02}" for number in range(1, self.participants + 1)]


@dataclass(frozen=True)
class Seat:
    """A participant, or the trainer, as this machine has to know them."""

    id: str
    uid: int | None
    """None: the user of the workshop itself."""
    port: int
    page_port: int
    password: str
    token: str
    folder: Path

    @property
    def anchor(self) -> Path:
        """The CA's certificate of its gateway."""
        return self.folder / "openssl-ca/cacert.pem"


_KEYS = {field.name: field for field in fields(Workshop) if field.name != "folder"}
_BOUNDS = {
    "participants": (1, MOST),
    "port": (1024, 65000),
    "page_port": (1024, 65000),
    "trainer_port": (1024, 65535),
    "uid_base": (1000, 2**31),
    "memory": (256, 1 << 20),
    "tasks": (50, 100_000),
    "disk": (0, 1 << 20),
}


def load(folder: Path) -> Workshop:
    """Read workshop.yaml.  Raises `ConfigError` with all faults, and `WorkshopError` if there is none."""
    path = folder / FILE
    if not path.exists():
        raise WorkshopError(
            f"{folder} is no workshop: there is no {FILE} in it; make one with: estgw workshop init DIR"
        )
    marked = marked_yaml.read(path)
    if not isinstance(marked.data, dict):
        raise ConfigError([marked.fault((), "a mapping is expected")])
    found = [marked.fault((key,), "no such key here") for key in marked.data if key not in _KEYS]
    found += [marked.fault((), f"{key} is missing") for key in ("participants", "names") if key not in marked.data]
    if found:
        raise ConfigError(found)
    values = dict(marked.data)
    if isinstance(values["names"], list):
        values["names"] = tuple(values["names"])
    made = Workshop(folder=folder.resolve(), **values)
    faults = [marked.fault((key,) if key in values else (), words) for key, words in _faults(made)]
    if faults:
        raise ConfigError(faults)
    return made


def require_sound(workshop: Workshop) -> None:
    """Raise `ConfigError` for values that can't be."""
    if found := [f"{key}: {words}" for key, words in _faults(workshop)]:
        raise ConfigError(found)


def _faults(made: Workshop) -> Iterator[tuple[str, str]]:
    for key, (low, high) in _BOUNDS.items():
        value = getattr(made, key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            yield key, f"a number from {low} to {high} is expected"
            return
    if made.isolation not in (PROCESSES, LABELS):
        yield "isolation", f"{PROCESSES} or {LABELS} is expected"
    if made.disk and made.disk < 64:
        yield "disk", "64 MiB at least, or 0 for no file system of one's own"
    ranges = {"port": made.port, "page_port": made.page_port}
    last = {key: start + made.participants - 1 for key, start in ranges.items()}
    if max(ranges.values()) <= min(last.values()) or any(
        ranges[key] <= made.trainer_port <= last[key] for key in ranges
    ):
        yield "port", "the ports of gateways, pages and trainer overlap"
    try:
        ipaddress.ip_address(made.listen)
    except ValueError:
        yield "listen", "an IP address is expected, such as 0.0.0.0 for all IPv4 addresses"
    if not isinstance(made.names, tuple) or not made.names or not all(isinstance(name, str) for name in made.names):
        yield "names", "a list of host names and IP addresses is expected, one at least"
    elif fault := name_fault(made.names):
        yield "names", fault


def name_fault(names: tuple[str, ...]) -> str:
    """Why a certificate can't hold these names, in the words of create-ca; empty if it can."""
    library = template() / "openssl-ca/lib.sh"
    script = 'source "$1"; names=; for name in "${@:2}"; do add_name "$name"; done'
    done = subprocess.run(
        ["bash", "-c", script, "name", str(library), *names], capture_output=True, text=True, check=False
    )
    if any(not name for name in names):
        return "a name is empty"
    return "" if done.returncode == 0 else done.stderr.strip().removeprefix("name: ")


def save(workshop: Workshop) -> None:
    """Write workshop.yaml.  Raises OSError."""
    values = {key: getattr(workshop, key) for key in _KEYS}
    values["names"] = list(workshop.names)
    head = (
        "# A workshop; `estgw workshop init` and `addresses` write this file.  docs/workshops.md explains the keys.\n"
    )
    # JSON of numbers, words and lists is YAML.
    write(workshop.folder / FILE, head + "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))


def with_names(workshop: Workshop, names: tuple[str, ...]) -> Workshop:
    """The same under other names; raises `ConfigError`."""
    made = replace(workshop, names=names)
    require_sound(made)
    return made


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file as a whole, or leave the old one.  Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# Secrets.


def keep_secrets(workshop: Workshop) -> None:
    """Make the password and the token of each participant and of the trainer; those that are there stay."""
    known = _secrets(workshop)
    wanted = [TRAINER, *workshop.ids()]
    if all(name in known for name in wanted):
        return
    made = {name: known.get(name) or {"password": new_password(), "token": secrets.token_hex(16)} for name in wanted}
    write(workshop.folder / SECRETS, json.dumps({**known, **made}, indent=1) + "\n")


def new_password() -> str:
    """Three groups of four: 59 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(3))


def _secrets(workshop: Workshop) -> Mapping[str, Any]:
    path = workshop.folder / SECRETS
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise WorkshopError(f"{path}: {fault}") from None
    return data if isinstance(data, dict) else {}


def seats(workshop: Workshop) -> list[Seat]:
    """All participants.  Raises `WorkshopError` if the secrets are not there."""
    return [_seat(workshop, number) for number in range(1, workshop.participants + 1)]


def seat(workshop: Workshop, name: str) -> Seat:
    """One participant.  Raises `WorkshopError` for a name that there is not."""
    if name not in workshop.ids():
        raise WorkshopError(f"there is no participant {name[:40]!r}; they are p01 to {workshop.ids()[-1]}")
    return _seat(workshop, int(name[1:]))


def trainer(workshop: Workshop) -> Seat:
    """The trainer; the port is that of the page."""
    return _seat(workshop, 0)


def _seat(workshop: Workshop, number: int) -> Seat:
    name = f"p{number:02}" if number else TRAINER
    try:
        secret = _secrets(workshop)[name]
        password, token = str(secret["password"]), str(secret["token"])
    except (KeyError, TypeError):
        raise WorkshopError(
            f"{workshop.folder / SECRETS} has nothing of {name}; run estgw workshop init again"
        ) from None
    shared = not workshop.isolated
    # With labels there is one gateway, whose files lie in the folder `gateway`.
    return Seat(
        id=name,
        uid=workshop.uid_base + number if workshop.isolated else None,
        port=workshop.port if shared else workshop.port + number - 1,
        page_port=workshop.trainer_port if not number else workshop.page_port + (0 if shared else number - 1),
        password=password,
        token=token,
        folder=workshop.folder / ("gateway" if shared and number else name),
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the workshop for a change; raises `WorkshopError` if another command does."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkshopError(f"another command is changing {folder}; try again when it is done") from None
        yield
