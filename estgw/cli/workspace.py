"""The workspace that people edit: conf.yaml, handlers/ and openssl-ca/ in one directory, and the demo's CA."""

from __future__ import annotations

import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from estgw import __version__
from estgw.auth import users
from estgw.callout.program import WRITABLE_BY_OTHERS
from estgw.config.shipped import template as template
from estgw.errors import Malformed, Unusable
from estgw.est import certs, hostnames

PARTS = ("conf.yaml", "handlers", "openssl-ca")
CA_FILES = (
    "README.md", "create-ca", "crl", "find", "issue", "lib.sh", "openssl.cnf", "register.sh", "revoke", "rollover",
    "rotate",
)  # fmt: skip
"""The shipped files of openssl-ca/, besides profiles/."""
SHIPPED = Path(".estgw/shipped")
"""The files of a workspace as they were shipped, for `estgw init --diff`; nothing else reads them."""
VERSION = "VERSION"
"""In `SHIPPED`: the version of estgw that shipped them."""
DEMO_USER, DEMO_PASSWORD = "estuser", "estpwd"
ANCHOR = Path("openssl-ca/cacert.pem")
SERVER = Path("openssl-ca/server.pem")
USERS = Path("users.htpasswd")


class WorkspaceError(Unusable):
    """A workspace can't be made or used; the text says why."""


def init(directory: Path) -> None:
    """Lay out a workspace; an existing one is never overwritten.  Raises `WorkspaceError`."""
    if taken := [part for part in PARTS if (directory / part).exists()]:
        raise WorkspaceError(f"{directory / taken[0]} exists; a workspace is never overwritten")
    source = template()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        keep_originals(directory)
        for part in shipped(source):
            _copy(part, directory / part.relative_to(source))
    except OSError as fault:
        raise WorkspaceError(f"{fault.filename or directory}: {fault.strerror}") from None
    tighten(directory)


def require(directory: Path) -> None:
    """Raise `WorkspaceError` for what is no workspace, or is the checkout that the originals are taken from."""
    if not (directory / "conf.yaml").exists():
        raise WorkspaceError(f"{directory} is no workspace: there is no conf.yaml in it; make one with: estgw init DIR")
    if directory.resolve() == template().resolve():
        raise WorkspaceError(f"{directory} is the checkout that estgw runs from; git diff shows what has changed in it")


def keep_originals(directory: Path) -> None:
    """Keep the files as this version ships them in `SHIPPED`, in place of those of an older version.

    Raises OSError.  The old ones stay until the new ones are complete.
    """
    source, target = template(), directory / SHIPPED
    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="shipped.") as made:
        new = Path(made) / "new"
        for part in shipped(source):
            _copy(part, new / part.relative_to(source))
        (new / VERSION).write_text(f"{__version__}\n")
        for path in (new, *new.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        if target.exists():
            target.rename(Path(made) / "old")
        new.rename(target)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def tighten(directory: Path) -> None:
    """Give scripts their execute bit, and remove the write bits of group and others: the gateway demands both.

    A umask of 002, a wheel or an archive may have changed them.
    """
    for part in PARTS:
        for path in (directory / part, *sorted((directory / part).rglob("*"))):
            if path.is_symlink() or not path.exists():
                continue
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode & ~WRITABLE_BY_OTHERS
            if path.is_file() and _is_script(path):
                wanted |= 0o111 & (mode >> 2)
            if wanted != mode:
                path.chmod(wanted)


def prepare_demo(directory: Path, names: Sequence[str] = ()) -> bool:
    """Make the missing parts of a demo: workspace, CA and demo user; returns whether a CA was made.

    `names` are host names and IP addresses for the server's certificate, besides localhost.  An existing CA makes a new
    one for the gateway, if its certificate lacks one of them.  Raises `WorkspaceError`.
    """
    if not (directory / "conf.yaml").exists():
        init(directory)
    tighten(directory)
    made = not (directory / ANCHOR).exists()
    options = [part for name in names for part in ("--name", name)]
    if made:
        _create_ca(directory, *options)
    elif names and not _has_names(directory / SERVER, names):
        _create_ca(directory, "--server-only", *options)
    if not (directory / USERS).exists():
        users.set_password(directory / USERS, DEMO_USER, DEMO_PASSWORD)
    return made


def _create_ca(directory: Path, *options: str) -> None:
    command = [str((directory / "openssl-ca/create-ca").absolute()), *options]
    run = subprocess.run(command, capture_output=True, check=False)
    if run.returncode:
        raise WorkspaceError(f"create-ca failed: {run.stderr.decode(errors='replace').strip()}")


def _has_names(file: Path, names: Sequence[str]) -> bool:
    """Whether the first certificate of a PEM file is for all of these names; False if it can't be read."""
    try:
        certificate = certs.load_pem(file.read_bytes())[0]
    except (OSError, Malformed, IndexError):
        return False
    return all(hostnames.matches(certificate, name) for name in names)


def fingerprint(directory: Path) -> str:
    """SHA-256 of the trust anchor, as `openssl x509 -fingerprint -sha256` prints it."""
    from cryptography.hazmat.primitives.hashes import SHA256

    anchor = certs.load_pem((directory / ANCHOR).read_bytes())[0]
    return anchor.fingerprint(SHA256()).hex(":").upper()


def shipped(source: Path) -> Iterator[Path]:
    """The files of the template, without files that a run has made in a checkout, such as keys."""
    yield source / "conf.yaml"
    yield from (path for path in sorted((source / "handlers").rglob("*")) if path.is_file() and _is_ours(path))
    for name in CA_FILES:
        yield source / "openssl-ca" / name
    yield from (path for path in sorted((source / "openssl-ca/profiles").rglob("*")) if path.is_file())


def _is_ours(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith(".")


def _is_script(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"#!"
