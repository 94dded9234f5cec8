"""A Dockerfile and `docker run`, carried out in a chroot, with a small Debian as the base.

Each program has a mount namespace of its own, so that no mount outlives it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

KNOWN = {"CMD", "COPY", "ENV", "EXPOSE", "FROM", "RUN", "USER", "VOLUME", "WORKDIR"}
PACKAGES = "/mnt"
"""Where the directory with the packages of Python is in the chroot."""
_ENTER = """
root=$1; shift
mount --bind "$root" "$root"
for each in dev proc sys; do mount --rbind "/$each" "$root/$each"; done
"""


class Instruction(NamedTuple):
    """A line of a Dockerfile."""

    name: str
    argument: str


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile.  Raises ValueError for one that `Image` can't carry out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = [
        Instruction(*line.split(maxsplit=1)) for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    ]  # fmt: skip
    for name, argument in found:
        if name not in KNOWN or (argument.startswith("--") and name != "CMD"):
            raise ValueError(f"not known here: {name} {argument}")
    return found


def docker(line: str) -> argparse.Namespace:
    """The words of `docker run` or `docker exec`.  Raises SystemExit for an option that is not known here."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    commands = parser.add_subparsers(dest="verb", required=True)
    run = commands.add_parser("run", allow_abbrev=False)
    for flag in ("--detach", "--init", "--read-only", "--rm"):
        run.add_argument(flag, action="store_true")
    for option in ("--cap-drop", "--name", "--restart", "--security-opt", "--stop-timeout", "--tmpfs", "--user"):
        run.add_argument(option)
    for option in ("--publish", "--volume"):
        run.add_argument(option[1:3], option, required=option == "--volume")
    for each in (run, commands.add_parser("exec", allow_abbrev=False)):
        each.add_argument("image")
        each.add_argument("command", nargs=argparse.REMAINDER)
    program, *words = shlex.split(line)
    assert program == "docker"
    return parser.parse_args(words)


class Image:
    """What a Dockerfile makes of a directory that has the files of its base."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user, self.directory, self.volume = "root", "/", ""
        self.command: list[str] = []
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

    def build(self, text: str, context: Path, packages: Path, settings: Mapping[str, str]) -> None:
        """Carry out a Dockerfile.

        `context` has the sources of COPY, `packages` is mounted for RUN, and `settings` are variables of RUN alone.
        """
        mounts = [f"mount --bind {shlex.quote(str(packages))} {shlex.quote(str(self.root) + PACKAGES)}"]
        for name, argument in instructions(text):
            match name:
                case "RUN":
                    command = self._enter(mounts, self.user, [], {**self.environment, **settings})
                    done = subprocess.run(
                        [*command, "/bin/sh", "-c", argument], capture_output=True, text=True, timeout=600, check=False
                    )
                    assert done.returncode == 0, f"RUN {argument}\n{done.stdout}\n{done.stderr}"
                case "COPY":
                    *sources, target = argument.split()
                    folder = self.root / target.lstrip("/")
                    folder.mkdir(parents=True)
                    for source in sources:
                        (found,) = context.glob(source)
                        shutil.copy(found, folder)
                case "ENV":
                    variable, _, value = argument.partition("=")
                    self.environment[variable] = value
                case "USER":
                    self.user = argument
                case "WORKDIR":
                    self.directory = argument
                case "VOLUME":
                    self.volume = argument
                case "CMD":
                    self.command = json.loads(argument)

    def container(self, line: str, volume: Path, user: str = "", command: Sequence[str] = ()) -> list[str]:
        """The command line that does what a line with `docker run` does.

        `volume` takes the place of the volume that the line names, `user` that of the image's, and `command` that of
        the line's.
        """
        asked = docker(line)
        assert asked.volume.split(":")[1:] == [self.volume]
        mounts = [f"mount --bind {shlex.quote(str(volume))} {self.root}{self.volume}"]
        if asked.tmpfs:
            mounts.append(f"mount -t tmpfs -o noexec,nosuid,nodev tmpfs {self.root}{asked.tmpfs}")
        if asked.read_only:
            mounts.append(f"mount -o remount,bind,ro {self.root}")
        confined = {"ALL": ["--bounding-set=-all"], None: []}[asked.cap_drop]
        confined += {"no-new-privileges": ["--no-new-privs"], None: []}[asked.security_opt]
        words = command or asked.command or self.command
        return [*self._enter(mounts, user or self.user, confined, self.environment), *words]

    def _enter(
        self, mounts: Sequence[str], user: str, confined: Sequence[str], environment: Mapping[str, str]
    ) -> list[str]:
        """A command line whose next words run in the chroot."""
        uid, _, gid = user.partition(":")
        script = "\n".join([_ENTER, *mounts, 'exec chroot "$root" "$@"'])
        identity = [f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", *confined]
        variables = [f"{name}={value}" for name, value in environment.items()]
        return [
            *("unshare", "--mount", "sh", "-euc", script, "sh", str(self.root)),
            *("setpriv", *identity, "--", "env", "-i", "-C", self.directory, *variables),
        ]
