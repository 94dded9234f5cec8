"""Files: private keys with mode 0600, certificates, and pairs of both that fit each other at every instant.

A key and its certificate in two files can't be replaced in one step.  So a pair that is renewed with a new key
becomes two symbolic links into one directory, which is itself reached by a symbolic link, and *that* link is replaced
in one step.  After a power cut at any moment, both names lead to a key and its certificate.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path

from cryptography import x509

from estgw.client.faults import ClientError, UsageError
from estgw.errors import Malformed
from estgw.est import certs, encoding
from estgw.est.encoding import PEMBlock

MAXIMUM_INPUT = 8 * 1024 * 1024
"""Bytes read from a file: a system's bundle of anchors is the largest that makes sense."""
_CERTIFICATE, _KEY = "cert.pem", "key.pem"
_KEY_MODE = 0o600
_KEY_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(?:(?!-----).)*-----END \1-----", re.DOTALL)


def read(path: Path) -> bytes:
    """A file that the user named; raises `UsageError`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAXIMUM_INPUT + 1)
    except OSError as fault:
        raise UsageError(f"{path}: {fault.strerror}") from None
    if len(data) > MAXIMUM_INPUT:
        raise UsageError(f"{path}: larger than {MAXIMUM_INPUT} bytes")
    return data


def certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, or the one of a DER file; raises `UsageError`."""
    data = read(path)
    try:
        blocks = encoding.pem_blocks(data) if b"-----BEGIN" in data else [PEMBlock(certs.CERTIFICATE_LABELS[0], data)]
        found = [certs.load_named(block.der) for block in blocks if block.label in certs.CERTIFICATE_LABELS]
    except Malformed as fault:
        raise UsageError(f"{path}: {fault}") from None
    if not found:
        raise UsageError(f"{path}: no certificate in it")
    return found


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a file in place in one step, through a symbolic link if it is one; raises `ClientError`.

    Devices and pipes, such as /dev/null, are written to: as root, a replacement would turn them into files.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(Path(os.path.realpath(path)), data, mode)
    except OSError as fault:
        raise ClientError(f"{path}: {fault.strerror}") from None


def renew(path: Path, data: bytes, *, holds_key: bool = False) -> None:
    """Put a file in the place of an old one, whose owner and mode it takes; raises `ClientError`.

    The readers of the old certificate can read the new one.  A file with a key in it is never readable by others.
    """
    try:
        if not path.is_file():
            raise OSError(errno.EINVAL, "not a file")
        real = Path(os.path.realpath(path))
        _replace(real, data, _mode_of(real) if holds_key else stat.S_IMODE(real.stat().st_mode), real.stat())
    except OSError as fault:
        raise ClientError(f"{path}: {fault.strerror}") from None


def create_key(path: Path, pem: bytes) -> None:
    """Write a private key to a file that must not exist yet, mode 0600; raises `ClientError`."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _KEY_MODE)
    except FileExistsError:
        raise ClientError(f"{path} exists already; a key is never overwritten") from None
    except OSError as fault:
        raise ClientError(f"{path}: {fault.strerror}") from None
    with os.fdopen(handle, "wb") as file:
        _write_out(file.fileno(), pem)
    _sync_directory(path.parent)


def replace_pair(certificate_path: Path, key_path: Path, certificate: bytes, key: bytes) -> None:
    """Put a new certificate and its new key (both PEM) in the place of an old pair; raises `ClientError`.

    Both files exist and fit each other; at every instant they still do.  The old pair stays in the directory
    before the last one.  One file for both is simply replaced.
    """
    try:
        if not (certificate_path.is_file() and key_path.is_file()):
            raise OSError(errno.EINVAL, "not two files")
        if certificate_path.resolve() == key_path.resolve():
            renew(certificate_path, key + certificate, holds_key=True)
            return
        link = certificate_path.parent / f".{certificate_path.name}.pair"
        if not (_leads_to(certificate_path, link / _CERTIFICATE) and _leads_to(key_path, link / _KEY)):
            _take_over(certificate_path, key_path, link)
        _switch(link, _generation(link, certificate, key, key_path))
    except OSError as fault:
        raise ClientError(f"{certificate_path}: {fault.strerror}; the old pair is still in place") from None


def _take_over(certificate_path: Path, key_path: Path, link: Path) -> None:
    """Turn two plain files into two links; a reader finds the same content at every instant."""
    old = _generation(link, certificate_path.read_bytes(), key_path.read_bytes(), key_path)
    _switch(link, old)
    for path, name in ((key_path, _KEY), (certificate_path, _CERTIFICATE)):
        beside = path.parent.resolve() == link.parent.resolve()
        _link_over(path, Path(link.name, name) if beside else link.absolute() / name)


def _generation(link: Path, certificate: bytes, key: bytes, model: Path) -> Path:
    """Make a directory with a pair in it, synced to disk; owner and mode are as in `model`."""
    directory = Path(tempfile.mkdtemp(prefix=link.name + "-", dir=link.parent))
    directory.chmod(0o755)  # everybody may read the certificate; the key has a mode of its own
    status = model.stat()
    for name, data, mode in ((_KEY, key, _mode_of(model)), (_CERTIFICATE, certificate, 0o644)):
        handle = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _KEY_MODE)
        with os.fdopen(handle, "wb") as file:
            _give(handle, status)
            os.fchmod(handle, mode)
            _write_out(file.fileno(), data)
    _sync_directory(directory)
    return directory


def _switch(link: Path, directory: Path) -> None:
    """Point `link` to `directory`, in one step; the directory before it stays, older ones are removed."""
    before = link.readlink().name if link.is_symlink() else ""
    _link_over(link, Path(directory.name))
    _sync_directory(link.parent)
    for other in link.parent.glob(f"{link.name}-*"):
        if other.is_dir() and not other.is_symlink() and other.name not in (directory.name, before):
            shutil.rmtree(other, ignore_errors=True)


def _link_over(path: Path, target: Path) -> None:
    """Put a symbolic link in the place of a file, in one step."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as room:
        fresh = Path(room, "link")
        fresh.symlink_to(target)
        fresh.replace(path)


def _leads_to(path: Path, target: Path) -> bool:
    return path.is_symlink() and path.parent.joinpath(path.readlink()).absolute() == target.absolute()


def _mode_of(key_path: Path) -> int:
    """The mode of a key file, for the key that replaces it: without the bits for others."""
    return (key_path.stat().st_mode & 0o770) or _KEY_MODE


def _give(handle: int, model: os.stat_result) -> None:
    """Give a file the owner of another one, if permissions allow it."""
    with contextlib.suppress(PermissionError):
        os.fchown(handle, model.st_uid, model.st_gid)


def _replace(path: Path, data: bytes, mode: int, model: os.stat_result | None = None) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            if model is not None:
                _give(handle, model)
            os.fchmod(handle, mode)
            _write_out(file.fileno(), data)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _write_out(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def private_key_blocks(text: bytes) -> list[bytes]:
    """The private keys of a PEM text as they stand there, EC parameters apart."""
    return [match[0] + b"\n" for match in _KEY_BLOCK.finditer(text)]
