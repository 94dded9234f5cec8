"""What the CA in EST_CA_DIR does for fullcmc: issue, look up, revoke, list.

Not a program.  The registers are those of both handler sets, certs.sqlite and the index of `openssl ca`.
`CA` in estgw/cmc_service/ca.py says what each method promises.
"""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import ca
import store
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from estgw.cmc_service import issuers
from estgw.cmc_service.ca import CABusy, CADeclined, CAFailed, Certification
from estgw.cms import signed
from estgw.errors import Malformed
from estgw.est import certs

WORKSPACE = Path(__file__).resolve().parents[2] / "openssl-ca"


@contextlib.contextmanager
def _exit_is_an_error() -> Iterator[None]:
    """ca.py and store.py end a handler by sys.exit; fullcmc goes on with the rest of the message."""
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stdout(spoken):
            yield
    except SystemExit as end:
        if end.code == os.EX_UNAVAILABLE:
            raise CABusy from None
        if end.code in (os.EX_NOPERM, os.EX_DATAERR):
            raise CADeclined(spoken.getvalue().strip()) from None
        raise CAFailed(f"the CA ended with {end.code}") from None  # standard error has the reason


class DirectoryCA:
    """The CA in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    # Certificates and keys.

    @cached_property
    def issuers(self) -> list[x509.Certificate]:
        first = self.directory / "issuer.pem"  # a sub-CA has it; its root in cacert.pem is another CA's
        files = [first if first.exists() else self.directory / "cacert.pem"]
        files += sorted(self.directory.glob("generations/*/issuer.pem"))
        found = [each for file in files for each in _load(file) if issuers.is_ca(each)]
        return list(dict.fromkeys(found))

    @cached_property
    def anchors(self) -> list[x509.Certificate]:
        folder = self.directory / "current" if (self.directory / "current").exists() else self.directory
        return list(dict.fromkeys(each for name in ("cacert.pem", "chain.pem") for each in _load(folder / name)))

    @cached_property
    def responder(self) -> tuple[signed.Signer, list[x509.Certificate]]:
        """The holder of server.pem signs if that certificate is an RA's, else the CA."""
        key_file = self.directory / "private/serverkey.pem"
        chain = _load(self.directory / "server.pem")
        if chain and key_file.exists() and certs.has_eku(chain[0], certs.CMC_RA):
            key: Any = _key(key_file)
            if key.public_key() == chain[0].public_key() and datetime.now(UTC) < chain[0].not_valid_after_utc:
                return signed.Signer.of(key, chain[0]), list(dict.fromkeys([chain[0], *chain[1:], *self.anchors]))
        key, issuer = self._signing
        return signed.Signer.of(key, issuer), list(dict.fromkeys([issuer, *self.anchors]))

    @cached_property
    def _signing(self) -> tuple[Any, x509.Certificate]:
        """The CA's key and its certificate."""
        if (self.directory / "private/cakey.uri").exists():
            with _exit_is_an_error():
                certificate, held = ca.in_hsm(self.directory)
            return held, certificate
        key = _key(self.directory / "private/cakey.pem")
        issuer = next((each for each in self.issuers if each.public_key() == key.public_key()), None)
        if issuer is None:
            raise CAFailed(f"the CA in {self.directory} can't be used: no certificate fits its key")
        return key, issuer

    # The registers.

    @_exit_is_an_error()
    def issue(self, wanted: Certification) -> x509.Certificate:
        os.environ["EST_PENDING_ID"] = wanted.pending_id  # store.py writes it beside the certificate
        return ca.issue(
            wanted.subject, wanted.public_key, wanted.san, wanted.profile, wanted.lifetime, signs=wanted.signs
        )

    @_exit_is_an_error()
    def find(self, serial: int) -> x509.Certificate | None:
        """In certs.sqlite, else among the files of `openssl ca`."""
        if (known := store.by_serial(serial)) is not None:
            return known
        digits = f"{serial:X}" if serial > 0 else "none"
        file = self.directory / "newcerts" / f"{digits.zfill(len(digits) + len(digits) % 2)}.pem"
        return next(iter(_load(file)), None)

    @_exit_is_an_error()
    def has_key(self, spki: bytes) -> bool:
        return store.has_key(spki)

    @_exit_is_an_error()
    def is_revoked(self, certificate: x509.Certificate) -> bool:
        return ca.is_revoked(certificate)

    @_exit_is_an_error()
    def revoke(self, certificate: x509.Certificate, reason: str) -> None:
        """In certs.sqlite, and by openssl-ca/revoke, where that is, on the CRL."""
        file = Path(os.environ["EST_TMPDIR"], "revoke.pem")
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        listed = self._script("revoke", file, "--reason", reason)
        if not store.revoke(certificate, reason) and not listed:
            serial = certs.serial_hex(certificate)
            raise CAFailed(f"could not revoke {serial}: it is in no register that can be written here")

    @_exit_is_an_error()
    def crls(self, moment: datetime | None) -> list[bytes]:
        """Those of openssl-ca, made anew when they have ended, or one made of the register where that is all."""
        found = self._listed() or (self._listed() if self._script("crl") else [])
        if not found and (self.directory / "index.txt").exists():
            raise CAFailed(f"no CRL in {self.directory} is in force, and there is no script to make one")
        if moment is not None and any(moment < crl.last_update_utc for crl in found):
            raise CADeclined("lists of the past are not kept here")
        return [crl.public_bytes(Encoding.DER) for crl in found] or [self._of_the_register()]

    def _listed(self) -> list[x509.CertificateRevocationList]:
        """The CRLs of openssl-ca that are in force, one for each key that signs or has signed."""
        now, found = datetime.now(UTC), []
        for file in sorted(self.directory.glob("crl-*.der")):
            try:
                found.append(x509.load_der_x509_crl(file.read_bytes()))
            except (OSError, ValueError) as fault:
                raise CAFailed(f"{file}: {fault}") from None
        return [crl for crl in found if crl.next_update_utc is None or crl.next_update_utc > now]

    def _script(self, name: str, *arguments: str | Path) -> bool:
        """Run a script of openssl-ca, which takes the CA's lock itself; False where there is none for this CA.

        It lies in the CA's own directory or, for a CA that was made elsewhere, in the workspace's.
        """
        script = next((each for each in (self.directory / name, WORKSPACE / name) if each.exists()), None)
        if script is None or not (self.directory / "current").is_symlink():
            return False
        command, patience = [script, *arguments, "--dir", self.directory], int(os.environ["EST_TIMEOUT"]) / 2
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=patience, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{script}: not done in {patience:g} s; the CA's lock is taken", file=sys.stderr)
            raise CABusy from None
        if done.returncode:
            raise CAFailed(f"{script}: {done.stdout.strip()}")
        return True

    def _of_the_register(self) -> bytes:
        """A CRL of everything that the register calls revoked."""
        key, issuer = self._signing
        return store.crl(issuer, key)


def _key(file: Path) -> Any:
    try:
        return load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise CAFailed(f"{file} can't be used: {fault}") from None


def _load(file: Path) -> list[x509.Certificate]:
    """The certificates in a file; none where there is no such file."""
    try:
        return certs.load_pem(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, Malformed) as fault:
        raise CAFailed(f"{file} can't be read: {fault}") from None
