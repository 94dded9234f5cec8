"""The check at the end of each campaign: each issued certificate is in the register once, and each revoked one, too."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from estgw.est.certs import serial_hex
from tests.kit.processes import PATH


@dataclass
class Ledger:
    """The certificates that clients of one CA got, and the revoked ones, by serial number in hex.

    `held` has a serial number for each answer, so a certificate that was handed out again is there again.
    """

    ca: Path
    held: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    _requests: dict[str, list[object]] = field(default_factory=lambda: defaultdict(list))

    def hold(self, certificate: x509.Certificate, request: object = None) -> x509.Certificate:
        """Record a certificate that a client got; requests that are equal may get it again, and None equals nothing."""
        serial = serial_hex(certificate)
        self.held.append(serial)
        self._requests[serial].append(object() if request is None else request)
        return certificate

    def revoke(self, serial: str) -> None:
        """Revoke a certificate; the script must succeed."""
        done = self.tool("revoke", serial)
        assert done.returncode == 0, done
        self.revoked.append(serial)

    def tool(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the CA."""
        return subprocess.run(
            [self.ca / script, *options], capture_output=True, text=True, env={"PATH": PATH}, check=False
        )

    @property
    def index(self) -> dict[str, str]:
        """The status of each serial number in the register of `openssl ca`; a duplicate fails the test."""
        rows: dict[str, str] = {}
        text = (self.ca / "index.txt").read_text()
        assert text.endswith("\n") or not text
        for line in text.splitlines():
            status, _, _, serial, _, _ = line.split("\t")
            assert serial not in rows, f"{serial} is there twice"
            rows[serial] = status
        for archive in sorted((self.ca / "index-archive").glob("[0-9]*.txt")):
            for line in archive.read_text().splitlines():
                status, _, _, serial, _, _ = line.split("\t")
                rows.setdefault(serial, status)  # index.txt takes precedence
        return rows

    @property
    def store(self) -> Counter[str]:
        """How often each serial number is in the register of the Python set."""
        file = self.ca / "certs.sqlite"
        if not file.exists():
            return Counter()
        with contextlib.closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return Counter(serial for (serial,) in db.execute("SELECT serial FROM certificates"))

    def check(self) -> None:
        """Each certificate that a client holds is in one register, once, and a revoked one is revoked there."""
        index, store = self.index, self.store
        assert [serial for serial, requests in self._requests.items() if len(set(requests)) > 1] == [], (
            "a certificate was handed out for two requests"
        )
        for serial in self.held:
            # A revoked certificate of the Python register has a row in the index as well.
            assert (index.get(serial) is not None) + store[serial] == 1 + (serial in self.revoked and store[serial])
            if serial not in store:
                assert (self.ca / f"newcerts/{serial}.pem").read_text().endswith("-----END CERTIFICATE-----\n")
        assert [serial for serial in self.revoked if index.get(serial) != "R"] == []

    def check_list(self) -> None:
        """Check the register, and that a new revocation list has all revoked certificates."""
        self.check()
        done = self.tool("crl")
        assert done.returncode == 0, done
        lists = [x509.load_der_x509_crl(file.read_bytes()) for file in self.ca.glob("crl-*.der")]
        assert lists
        for one in lists:
            assert {int(serial, 16) for serial in self.revoked} <= {entry.serial_number for entry in one}
