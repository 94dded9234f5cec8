"""What a client's command has left behind: its exit status, its output, and the files that it made."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_private_key

from estgw.client import keys
from estgw.client.faults import ClientError, clean
from estgw.client.transport import answers
from estgw.errors import Malformed
from estgw.est import certs, encoding

MAXIMUM_FILE = 1 << 20
"""Bytes of one file or stream that are read."""
MAXIMUM_FILES = 100
STDOUT = "standard output"


@dataclass(frozen=True)
class Kept:
    """What one run of a command has left behind."""

    status: int | None
    """The exit status, below zero for a signal; None if the command had to be stopped."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """New files by name, with standard output among them."""
    stderr: bytes = field(default=b"", repr=False)
    own: Collection[bytes] = frozenset()
    """SHA-256 of the CA certificates, which are not what a client has been issued."""

    @property
    def has_failed(self) -> bool:
        """Whether the command says that it failed."""
        return self.status != 0

    @property
    def ending(self) -> str:
        """How the command ended, in words."""
        if self.status is None:
            return "it did not end and was stopped"
        words = f"exit status {self.status}" if self.status >= 0 else f"signal {-self.status}"
        last = self.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"{words}: {clean(last[0].strip(), 200)}" if last and self.status else words

    @cached_property
    def bags(self) -> Mapping[str, list[x509.Certificate]]:
        """All certificates, by the file that holds them, in the file's order."""
        found = {name: list(_certificates(data)) for name, data in self.files.items()}
        return {name: listed for name, listed in found.items() if listed}

    @cached_property
    def issued(self) -> list[x509.Certificate]:
        """The certificates that are no CA's of ours."""
        return [one for listed in self.bags.values() for one in listed if not self._is_own(one)]

    @cached_property
    def keys(self) -> list[PrivateKeyTypes]:
        """The private keys in PEM."""
        return [key for data in self.files.values() for key in _private_keys(data)]

    def is_raw(self, name: str) -> bool:
        """Whether a file with certificates is the PKCS#7 of an answer as it came, and not PEM that the client made."""
        blocks = encoding.pem_blocks(self.files[name])
        return not any(block.label in certs.CERTIFICATE_LABELS for block in blocks)

    def _is_own(self, certificate: x509.Certificate) -> bool:
        return certificate.fingerprint(hashes.SHA256()) in self.own

    def holding(self, body: bytes) -> str:
        """The name of the file that holds the body of an answer, as it was or decoded; empty if there is none."""
        forms = [body.strip()] if body.strip() else []
        with contextlib.suppress(binascii.Error, ValueError):
            forms.append(base64.b64decode(body))
        for name, data in self.files.items():
            flat = b"".join(data.split())
            for form in forms:
                if form and (form in data or b"".join(form.split()) in flat):
                    return name
        return ""


def new_files(directory: Path, before: Collection[str]) -> dict[str, bytes]:
    """The files below a directory that were not there before, by relative name, within the bounds.

    Symbolic links, pipes and devices are left out.
    """
    found: dict[str, bytes] = {}
    for folder, _, names in os.walk(directory):
        for name in sorted(names):
            path = Path(folder, name)
            relative = str(path.relative_to(directory))
            if relative in before or len(found) >= MAXIMUM_FILES:
                continue
            with contextlib.suppress(OSError):
                if stat.S_ISREG(path.lstat().st_mode):
                    with path.open("rb") as file:
                        found[relative] = file.read(MAXIMUM_FILE)
    return found


def _certificates(data: bytes) -> Iterator[x509.Certificate]:
    """Certificates in PEM, in DER, or in a PKCS#7 in any form."""
    blocks = [block for block in encoding.pem_blocks(data) if block.label in certs.CERTIFICATE_LABELS]
    if blocks:
        for block in blocks:
            with contextlib.suppress(Malformed):
                yield certs.load(block.der)
        return
    # The clients' own words stand before and behind a block in a log.
    pkcs7 = [block.der for block in encoding.pem_blocks(data) if block.label in certs.PKCS7_LABELS]
    for candidate in pkcs7 or [data]:
        with contextlib.suppress(ClientError):
            yield from answers.bag_of(candidate)


def _private_keys(data: bytes) -> Iterator[PrivateKeyTypes]:
    for block in encoding.pem_blocks(data):
        if block.label.endswith("PRIVATE KEY"):
            with contextlib.suppress(ClientError, *certs.UNREADABLE):
                yield keys.load(encoding.encode_pem(block.der, block.label))
    if data[:1] == b"\x30":
        with contextlib.suppress(*certs.UNREADABLE):
            yield load_der_private_key(data, password=None)
