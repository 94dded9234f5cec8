"""A small disk for a test: a tmpfs, which only root can mount."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = 4096


@dataclass(frozen=True)
class Disk:
    """A mounted disk."""

    path: Path

    @property
    def free_pages(self) -> int:
        return os.statvfs(self.path).f_bavail

    @contextlib.contextmanager
    def with_free_pages(self, pages: int) -> Iterator[None]:
        """Fill the disk except for this number of pages."""
        filler = self.path / ".filler"
        with filler.open("wb") as file:
            # Other processes may take pages meanwhile, so fewer may be left than counted.
            while (missing := self.free_pages - pages) > 0:
                with contextlib.suppress(OSError):
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, missing * PAGE)
        try:
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def with_free_inodes(self, inodes: int) -> Iterator[None]:
        """Use up the inodes except for this number."""
        fillers = [self.path / f".filler-{number}" for number in range(os.statvfs(self.path).f_favail - inodes)]
        for filler in fillers:
            filler.touch()
        try:
            yield
        finally:
            for filler in fillers:
                filler.unlink()


@contextlib.contextmanager
def small_disk(where: Path, *, size: int = 4 << 20, inodes: int = 2000) -> Iterator[Disk]:
    """Mount a tmpfs of `size` bytes over an empty directory."""
    where.mkdir(parents=True, exist_ok=True)
    options = f"size={size},nr_inodes={inodes},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
    try:
        yield Disk(where)
    finally:
        # Lazily: a process of a failed test may still run.
        subprocess.run(["umount", "--lazy", where], check=True)


@functools.cache
def missing() -> str | None:
    """Why no small disk can be mounted; None if one can."""
    if os.geteuid() != 0:
        return "only root can mount a small disk"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return None
        except (OSError, subprocess.CalledProcessError) as fault:
            return f"no small disk can be mounted: {fault}"


needs_disk = pytest.mark.skipif(missing() is not None, reason=str(missing()))
