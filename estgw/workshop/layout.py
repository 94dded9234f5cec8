"""The directories of a workshop: made, reset, moved to other names, exported and wiped."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from estgw.config.shipped import template
from estgw.errors import ConfigError
from estgw.workshop import identity, inside, plan
from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import Seat, Workshop

PRISTINE, OLD, IMAGES, EXPORT, RUN = ".pristine", "old", ".images", "export", ".run"
KEEP_FOR_LABELS = 2000
"""Records in memory of the one gateway of a workshop with labels."""
NOT_UNDER = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - participants have these for themselves
SECRET = ("*/private", "private", "*.key", "users.htpasswd", "users.htdigest", "page.tokens", "tmp", "lost+found")
"""What an export leaves out."""


def require_possible(workshop: Workshop) -> None:
    """Raise `ConfigError` with each reason why this machine can't hold the workshop."""
    if not workshop.isolated:
        return
    if os.geteuid() != 0:
        raise ConfigError(["a user id for each participant needs root; as another user: --isolation labels"])
    found = [
        f"{name} is missing (Debian: apt-get install util-linux)"
        for name in ("setpriv", "unshare", "prlimit")
        if not shutil.which(name)
    ]
    for number in range(workshop.participants + 1):
        uid = workshop.uid_base + number
        with contextlib.suppress(KeyError):
            account = pwd.getpwuid(uid).pw_name
            found.append(f"user id {uid} belongs to the account {account}; give --uid-base another number")
    if not (workshop.folder / plan.FILE).exists():
        ids = range(workshop.uid_base, workshop.uid_base + workshop.participants + 1)
        if used := sorted({uid for _, uid, _ in identity.processes() if uid in ids}):
            which = f"user id {used[0]}" if len(used) == 1 else f"{len(used)} user ids from {used[0]} to {used[-1]}"
            way_out = f"--uid-base {workshop.uid_base + 1000} takes others"
            found.append(f"processes run under {which}, perhaps another workshop's; {way_out}")
    place = workshop.folder.resolve()
    found += [
        f"{place} lies in {each}, and each participant has a {each} of its own"
        for each in NOT_UNDER
        if place.is_relative_to(each)
    ]
    if found:
        raise ConfigError(found)
    shipped = template()
    wanted = [Path(sys.executable), Path(sysconfig.get_paths()["purelib"]), Path(identity.ROOT) / "estgw/__init__.py"]
    wanted += [shipped / "conf.yaml", shipped / "openssl-ca/create-ca", _there(workshop.folder)]
    nobody = Seat("p01", workshop.uid_base + 1, 0, 0, "", "", workshop.folder)
    if closed := identity.unreachable(nobody, wanted):
        raise ConfigError([*closed, _way_out(nobody)])


def _way_out(nobody: Seat) -> str:
    """What to do about paths that participants can't reach."""
    python = Path(sys.executable).resolve()
    if not identity.unreachable(nobody, [python]):
        return "open it with chmod o+x, or install estgw elsewhere, such as in a virtual environment below /opt"
    # A virtual environment only leads to the interpreter that has made it.
    return (
        f"estgw runs by {python}: make a virtual environment below /opt with an interpreter that everybody reaches, "
        "such as /usr/bin/python3, and install estgw there"
    )


def _there(folder: Path) -> Path:
    """The folder, or the one above it that exists, which `init` will make it in."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def make(workshop: Workshop, say: Callable[[str], None]) -> list[str]:
    """Make what is missing of all directories, and return the names of those that were made."""
    plan.keep_secrets(workshop)
    for name in (PRISTINE, OLD, IMAGES, RUN):
        (workshop.folder / name).mkdir(mode=0o700, exist_ok=True)
    if workshop.isolated:
        workshop.folder.chmod(0o711)  # participants go through, and see nothing
        (workshop.folder / RUN).chmod(0o710)
        os.chown(workshop.folder / RUN, 0, workshop.uid_base)
    wanted = [plan.trainer(workshop), *plan.seats(workshop)]
    if not workshop.isolated:
        wanted = wanted[:2]  # the trainer's, and the one gateway's
    missing = [seat for seat in wanted if not is_whole(seat)]

    def one(seat: Seat) -> str:
        make_place(workshop, seat)
        fill(workshop, seat)
        return seat.folder.name

    made = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        for name in threads.map(one, missing):
            say(f"made {workshop.folder / name}")
            made.append(name)
    if not workshop.isolated:
        made += make_labels(workshop)
    tell_trainer(workshop)
    return made


def is_whole(seat: Seat) -> bool:
    """Whether `init` has finished its directory."""
    return (seat.folder / inside.DONE).exists()


def make_place(workshop: Workshop, seat: Seat) -> None:
    """Make an empty directory of the participant's own, on a file system of its own if the workshop says so."""
    if seat.folder.is_symlink():
        raise WorkshopError(f"{seat.folder} is a link; remove it")
    seat.folder.mkdir(mode=0o700, exist_ok=True)
    if workshop.disk and seat.id != plan.TRAINER:
        _mount_new(workshop, seat)
    if seat.uid is not None:
        os.chown(seat.folder, seat.uid, seat.uid)
    for left in seat.folder.iterdir():  # what an interrupted `init` has made
        if left.name != "lost+found":
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def fill(workshop: Workshop, seat: Seat) -> None:
    """Lay out the workspace in its directory, and keep a copy for `reset`."""
    identity.run_as(seat, [*identity.ESTGW, "init", "."])
    identity.run_as(seat, identity.module("inside"), json.dumps({"do": "lay_out", **_order(workshop, seat)}).encode())
    if workshop.isolated:
        tar = identity.run_as(seat, ["tar", "-cf", "-", "--exclude=./lost+found", "."])
        kept = workshop.folder / PRISTINE / f"{seat.id}.tar"
        with kept.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(tar)


def _order(workshop: Workshop, seat: Seat) -> dict[str, Any]:
    labels = [] if workshop.isolated or seat.id == plan.TRAINER else workshop.ids()
    people = plan.seats(workshop) if labels else [seat]
    return {
        "names": list(workshop.names),
        "name": url_name(workshop),
        "listen": endpoint(workshop.listen, seat.port),
        "page": endpoint(workshop.listen, seat.page_port),
        "users": {each.id: each.password for each in people},
        "tokens": {each.token: each.id if labels else "" for each in people},
        "labels": labels,
        "keep": KEEP_FOR_LABELS if labels else 200,
    }


def url_name(workshop: Workshop) -> str:
    """The first name, which stands in URLs; a wildcard stands for no host."""
    return next((name for name in workshop.names if "*" not in name), "localhost")


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def endpoint(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"{bracketed(host)}:{port}"


def own_address(workshop: Workshop) -> str:
    """An address at which this machine reaches its own gateways, as it stands in a URL."""
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the addresses of `listen`
    return bracketed(anywhere.get(workshop.listen, workshop.listen))


def make_labels(workshop: Workshop) -> list[str]:
    """Lay out the handlers of each label that has none, in the directory of the one gateway."""
    made = []
    for seat in plan.seats(workshop):
        target = seat.folder / seat.id / "handlers"
        if not target.exists():
            new = target.with_name("handlers.new")
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(mode=0o755, exist_ok=True)
            shutil.copytree(seat.folder / "handlers", new)
            # Scripts find the CA's own ones from where they lie.
            if not target.with_name("openssl-ca").is_symlink():
                target.with_name("openssl-ca").symlink_to("../openssl-ca")
            new.rename(target)
            made.append(seat.id)
    return made


def tell_trainer(workshop: Workshop) -> None:
    """Write what the trainer's page has to know: the places, tokens and CAs of all participants."""
    seats = plan.seats(workshop)
    told = {
        "listen": endpoint(workshop.listen, workshop.trainer_port),
        "hosts": inside.hosts(workshop.names),
        "token": plan.trainer(workshop).token,
        "name": bracketed(url_name(workshop)),
        "control": str(workshop.folder / RUN / "control"),
        "shared": not workshop.isolated,
        "seats": [
            {
                "id": seat.id,
                "host": own_address(workshop),
                "port": seat.port,
                "page_port": seat.page_port,
                "token": seat.token,
                "anchor": anchor_of(workshop, seat),
            }
            for seat in seats
        ],
    }
    trainer = plan.trainer(workshop)
    plan.write(workshop.folder / "trainer.json", json.dumps(told), 0o600)
    if trainer.uid is not None:
        os.chown(workshop.folder / "trainer.json", trainer.uid, trainer.uid)


def anchor_of(workshop: Workshop, seat: Seat) -> str:
    """The CA's certificate of a participant's gateway, as it was laid out; what lies there now is the participant's."""
    if not workshop.isolated:
        return seat.anchor.read_text(encoding="ascii")
    tar = workshop.folder / PRISTINE / f"{seat.id}.tar"
    found = subprocess.run(
        ["tar", "-xOf", tar, "./openssl-ca/generations/1/cacert.pem"], capture_output=True, check=True
    )
    return found.stdout.decode("ascii")


# Changes.


def reset(workshop: Workshop, seat: Seat) -> Path:
    """Give a participant the directory that `init` has made, and return where the old one is kept.

    The gateway must have ended.  CA, password and token stay as on the handout.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S")
    if not workshop.isolated:
        return _reset_label(workshop, seat, stamp)
    old = _spare(workshop.folder / OLD / f"{seat.id}-{stamp}")
    if workshop.disk:
        unmount(workshop, seat)
        image = workshop.folder / IMAGES / f"{seat.id}.img"
        old = old.with_suffix(".img")
        image.rename(old)
    else:
        seat.folder.rename(old)
    make_place(workshop, seat)
    identity.run_as(seat, ["tar", "-xpf", "-"], (workshop.folder / PRISTINE / f"{seat.id}.tar").read_bytes())
    name_anew(workshop, seat, anew=False)
    tell_trainer(workshop)
    return old


def _reset_label(workshop: Workshop, seat: Seat, stamp: str) -> Path:
    """File by file, each by a rename, as the gateway goes on meanwhile."""
    own, old = seat.folder / seat.id / "handlers", _spare(workshop.folder / OLD / f"{seat.id}-{stamp}")
    shutil.copytree(own, old, symlinks=True)
    shipped = template() / "handlers"
    wanted = {
        path.relative_to(seat.folder / "handlers") for path in (seat.folder / "handlers").rglob("*") if path.is_file()
    }
    for path in sorted(wanted):
        source = shipped / path if (shipped / path).exists() else seat.folder / "handlers" / path
        target = own / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        shutil.copyfile(source, new)
        new.chmod((seat.folder / "handlers" / path).stat().st_mode)
        new.replace(target)
    for path in sorted(own.rglob("*"), reverse=True):
        if path.relative_to(own) not in wanted and not path.is_dir():
            path.unlink()
    return old


def _spare(path: Path) -> Path:
    """A name that nothing has yet."""
    number, found = 1, path
    while found.exists() or found.with_suffix(".img").exists():
        number += 1
        found = path.with_name(f"{path.name}-{number}")
    return found


def name_anew(workshop: Workshop, seat: Seat, *, anew: bool) -> None:
    """Make a server certificate for the workshop's names, if the present one is not for them or if `anew`."""
    order = {"do": "rename", "names": list(workshop.names), "name": url_name(workshop), "anew": anew}
    identity.run_as(seat, identity.module("inside"), json.dumps(order).encode())


def export(workshop: Workshop) -> list[Path]:
    """Write an archive for each participant, to be given away: no private keys and no passwords are in it."""
    target = workshop.folder / EXPORT
    target.mkdir(mode=0o700, exist_ok=True)
    made = []
    for seat in plan.seats(workshop):
        without = [f"--exclude={pattern}" for pattern in SECRET]
        what = "." if workshop.isolated else f"./{seat.id}"
        path = target / f"{seat.id}.tar.gz"
        with path.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            identity.run_as(seat, ["tar", "-czf", "-", "--sparse", *without, what], output=file)
        made.append(path)
    return made


def wipe(workshop: Workshop) -> None:
    """Remove everything that `init` and `serve` have made; what else lies in the directory stays."""
    known = [plan.trainer(workshop), *plan.seats(workshop)]
    for seat in known:
        identity.end_all(seat)
        if workshop.disk:
            unmount(workshop, seat)
    names = {seat.folder.name for seat in known} | {PRISTINE, OLD, IMAGES, EXPORT, RUN, "handouts", "systemd"}
    for name in sorted(names):
        if (workshop.folder / name).exists():
            shutil.rmtree(workshop.folder / name)
    for name in ("trainer.json", plan.SECRETS, plan.FILE, ".lock"):
        (workshop.folder / name).unlink(missing_ok=True)


# File systems.


def _mount_new(workshop: Workshop, seat: Seat) -> None:
    image = workshop.folder / IMAGES / f"{seat.id}.img"
    if not image.exists():
        with image.open("xb") as file:
            os.fchmod(file.fileno(), 0o600)
            os.posix_fallocate(file.fileno(), 0, workshop.disk << 20)
        _run(["mkfs.ext4", "-q", "-m", "0", "-E", f"root_owner={seat.uid}:{seat.uid}", str(image)])
    mount(workshop, seat)
    seat.folder.chmod(0o700)


def mount(workshop: Workshop, seat: Seat) -> None:
    """Mount the file system of a participant, if it is not."""
    if workshop.disk and not seat.folder.is_mount():
        options = "loop,nosuid,nodev"
        _run(["mount", "-t", "ext4", "-o", options, str(workshop.folder / IMAGES / f"{seat.id}.img"), str(seat.folder)])


def unmount(workshop: Workshop, seat: Seat) -> None:
    """Unmount it, if it is mounted."""
    if workshop.disk and seat.folder.is_mount():
        _run(["umount", str(seat.folder)])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(list(command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkshopError(f"{command[0]}: {done.stderr.strip()}")
