"""The CA as fullcmc sees it: its own certificates, what it has issued, what it has revoked, and who signs for it.

The registers are those of both handler sets, certs.sqlite and the index of `openssl ca`.
"""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import ca
import store
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from estgw.cmc.values import REASONS
from estgw.cms import signed
from estgw.errors import Malformed
from estgw.est import certs, names
from estgw.est.certs import CMC_RA

REFUSED = ("certificateHold", "removeFromCRL", "privilegeWithdrawn", "aACompromise")
"""Reasons that the registers of this CA can't keep, or that are not a client's to give."""
WORKSPACE = Path(__file__).resolve().parents[2] / "openssl-ca"
CRL_LASTS = timedelta(days=7)


class Books:
    """The CA in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def issuers(self) -> list[x509.Certificate]:
        """Certificates of the keys that sign or have signed for this CA, the present one first."""
        first = self.folder / "issuer.pem"  # of a sub-CA the root in cacert.pem is somebody else
        files = [first if first.exists() else self.folder / "cacert.pem"]
        files += sorted(self.folder.glob("generations/*/issuer.pem"))
        found = [each for file in files for each in _load(file) if _is_ca(each)]
        return list(dict.fromkeys(found))

    @cached_property
    def anchors(self) -> list[x509.Certificate]:
        """What a client needs to trust this CA: its root, its chain and what links an old key to a new one."""
        folder = self.folder / "current" if (self.folder / "current").exists() else self.folder
        return list(dict.fromkeys(each for name in ("cacert.pem", "chain.pem") for each in _load(folder / name)))

    @cached_property
    def signer(self) -> tuple[signed.Signer, list[x509.Certificate]]:
        """Who signs responses, and its chain: the holder of server.pem if that is an RA's, else the CA."""
        key_file = self.folder / "private/serverkey.pem"
        chain = _load(self.folder / "server.pem")
        if chain and key_file.exists() and certs.has_eku(chain[0], CMC_RA):
            key: Any = _key(key_file)
            if key.public_key() == chain[0].public_key() and datetime.now(UTC) < chain[0].not_valid_after_utc:
                return signed.Signer.of(key, chain[0]), list(dict.fromkeys([chain[0], *chain[1:], *self.anchors]))
        key, issuer = self._ca
        return signed.Signer.of(key, issuer), list(dict.fromkeys([issuer, *self.anchors]))

    @cached_property
    def _ca(self) -> tuple[Any, x509.Certificate]:
        """The CA's key and its certificate."""
        key = _key(self.folder / "private/cakey.pem")
        issuer = next((each for each in self.issuers if each.public_key() == key.public_key()), None)
        if issuer is None:
            ca.fail(f"the CA in {self.folder} can't be used: no certificate fits its key")
        return key, issuer

    def is_ours(self, name: bytes) -> bool:
        """Whether this CA goes by this name, the DER of a Name; compared as names."""
        from estgw.cmc import parts

        wanted = names.name_key(parts.read_name(name))
        return any(names.name_key(issuer.subject) == wanted for issuer in self.issuers)

    def vouches_for(self, certificate: x509.Certificate) -> bool:
        """Whether a key of this CA has signed this certificate, and it is a CA's own nowhere.

        The issuer counts as it does in a chain (RFC 5280 6.1.3, 6.1.4): valid now, and allowed to sign certificates.
        """
        if _is_ca(certificate):
            return False
        for issuer in self.issuers:
            if not (valid_now(issuer) and _may_certify(issuer)):
                continue
            try:
                certificate.verify_directly_issued_by(issuer)
            except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
                continue
            return True
        return False

    def find(self, serial: int) -> x509.Certificate | None:
        """What was issued under this serial number, by either handler set."""
        if (known := store.by_serial(serial)) is not None:
            return known
        digits = f"{serial:X}" if serial > 0 else "none"
        file = self.folder / "newcerts" / f"{digits.zfill(len(digits) + len(digits) % 2)}.pem"
        return next(iter(_load(file)), None)

    def revoke(self, certificate: x509.Certificate, reason: int) -> None:
        """Note it in the registers, and by openssl-ca/revoke, where that is, on the list.

        What fails ends the handler as ca.py does, and the log has the reason.
        """
        file = Path(os.environ["EST_TMPDIR"], "revoke.pem")
        file.write_bytes(certificate.public_bytes(Encoding.PEM))
        listed = self._script("revoke", file, "--reason", REASONS[reason])
        if not store.revoke(certificate, REASONS[reason]) and not listed:
            ca.fail(f"could not revoke {certs.serial_hex(certificate)}: it is in no register that can be written here")

    def crls(self, moment: datetime | None) -> list[bytes]:
        """The lists in force, as DER; raises `Malformed` where one of the past is asked for.

        They are those of openssl-ca, made anew when their time is over; a CA that has only our register has one made
        of that.
        """
        found = self._listed() or (self._listed() if self._script("crl") else [])
        if not found and (self.folder / "index.txt").exists():
            ca.fail(f"no CRL in {self.folder} is in force, and there is no script to make one")
        if moment is not None and any(moment < crl.last_update_utc for crl in found):
            raise Malformed("lists of the past are not kept here")
        return [crl.public_bytes(Encoding.DER) for crl in found] or [self._new_crl()]

    def _listed(self) -> list[x509.CertificateRevocationList]:
        """The files of openssl-ca, one for each key that signs or has signed, as far as they are in force."""
        now, found = datetime.now(UTC), []
        for file in sorted(self.folder.glob("crl-*.der")):
            try:
                found.append(x509.load_der_x509_crl(file.read_bytes()))
            except (OSError, ValueError) as fault:
                ca.fail(f"{file}: {fault}")
        return [crl for crl in found if crl.next_update_utc is None or crl.next_update_utc > now]

    def _script(self, name: str, *arguments: str | Path) -> bool:
        """Run a script of openssl-ca, which takes the CA's lock itself; False where it has no business.

        It lies in the CA's own directory or, for a CA that was made elsewhere, in the workspace's.
        """
        script = next((each for each in (self.folder / name, WORKSPACE / name) if each.exists()), None)
        if script is None or not (self.folder / "current").is_symlink():
            return False
        command, patience = [script, *arguments, "--dir", self.folder], int(os.environ["EST_TIMEOUT"]) / 2
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, timeout=patience, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            print(f"{script}: over its time; the CA's lock is taken", file=sys.stderr)
            sys.exit(os.EX_UNAVAILABLE)
        if done.returncode:
            ca.fail(f"{script}: {done.stdout.strip()}")
        return True

    def _new_crl(self) -> bytes:
        """A list of everything that our register calls revoked."""
        key, issuer = self._ca
        now = datetime.now(UTC).replace(microsecond=0)
        builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
        builder = builder.last_update(now).next_update(now + CRL_LASTS)
        builder = builder.add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        builder = builder.add_extension(ca.issuer_key_id(issuer), critical=False)
        for serial, at, reason in store.revoked():
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at or now)
            if reason in _FLAGS and reason != "unspecified":
                entry = entry.add_extension(x509.CRLReason(_FLAGS[reason]), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key, ca.signing_hash(key)).public_bytes(Encoding.DER)


_FLAGS = {each.value: each for each in x509.ReasonFlags} | {"cACompromise": x509.ReasonFlags.ca_compromise}


def _key(file: Path) -> Any:
    try:
        return load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
        ca.fail(f"{file} can't be used: {fault}")


def _load(file: Path) -> list[x509.Certificate]:
    """The certificates in a file; none where there is none."""
    try:
        return certs.load_pem(file.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, Malformed) as fault:
        ca.fail(f"{file} can't be read: {fault}")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *certs.UNREADABLE):
        return False


def _may_certify(issuer: x509.Certificate) -> bool:
    """Whether its key usage has keyCertSign (RFC 5280 4.2.1.3); one without that extension may."""
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True
    except certs.UNREADABLE:
        return False


def valid_now(certificate: x509.Certificate) -> bool:
    """Whether its time has come and is not over."""
    return certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc


def may_sign(certificate: x509.Certificate) -> bool:
    """Whether its key usage allows signatures (RFC 5272 3.2); one without that extension may."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except x509.ExtensionNotFound:
        return True
    except certs.UNREADABLE:
        return False
