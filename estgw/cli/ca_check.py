"""What can be wrong with a CA directory that scripts issue from: for `estgw check`."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from estgw.register import hsm
from estgw.register.ca_copy import SECRETS
from estgw.register.engine import RegisterError
from estgw.register.lookup import INDEX, ISSUED, STORE

PROFILES = "profiles"
"""Files of certificate extensions; a policy names one."""
_ROW = re.compile(rb"[VRE]\t[0-9]+Z\t[^\t]*\t[0-9A-F]+\t[^\t]*\t[^\t\n]+\n")
"""A row of index.txt, as openssl-ca/register.sh has it."""
_OPENSSL_ERROR = re.compile(r"^[0-9A-F]+:error:[^:]*:[^:]*:[^:]*:([^:]*):[^:]*:\d+:(.*)$", re.MULTILINE)
SECONDS = 10.0
"""For one run of openssl."""


def faults(folder: Path, search_path: str) -> list[str]:
    """What is wrong with a CA directory, a sentence each; none for one without a register, as a remote CA has."""
    if not any((folder / name).exists() for name in (INDEX, STORE, "openssl.cnf", "private")):
        return _readable_secrets(folder)
    return [
        *_readable_secrets(folder),
        *_hsm_faults(folder),
        *_unwritable(folder),
        *_index_faults(folder),
        *_profile_faults(folder, search_path),
    ]


def _readable_secrets(folder: Path) -> list[str]:
    """Tokens, PINs and keys that others can read: scripts do not use these."""
    try:
        found = sorted(path for path in (folder / SECRETS).iterdir() if path.is_file())
    except OSError:
        return []
    return [f"{path}: others can read it; chmod 600 {path}" for path in found if path.stat().st_mode & 0o077]


def _hsm_faults(folder: Path) -> list[str]:
    """Whether a key in an HSM can be used now: it is asked for a signature."""
    if not hsm.is_used(folder):
        return []
    try:
        hsm.load(folder)
    except RegisterError as fault:
        return [str(fault)]
    return []


def _unwritable(folder: Path) -> list[str]:
    user = f"user id {os.geteuid()}"
    with contextlib.suppress(KeyError):  # in a container it may have no account
        user = pwd.getpwuid(os.geteuid()).pw_name
    return [
        f"{path}: can't be written by {user}, who runs this, so nothing can be issued; "
        f"change its owner or its mode, or run this as the gateway's user"
        for path in (folder, *(folder / name for name in (ISSUED, INDEX, STORE)))
        if path.exists() and not os.access(path, os.W_OK)
    ]


def _index_faults(folder: Path) -> list[str]:
    """The first row that `openssl ca` can't read.  A row without its end is none: the next script mends it."""
    index = folder / INDEX
    remedy = "bring it back from a backup"
    if not index.exists():
        missing = (folder / "openssl.cnf").exists() and not index.with_suffix(".txt.old").exists()
        return [f"{index}: is missing; {remedy}"] if missing else []
    try:
        with index.open("rb") as file:
            spoiled = (n for n, row in enumerate(file, 1) if row.endswith(b"\n") and not _ROW.fullmatch(row))
            line = next(spoiled, None)
    except OSError as fault:
        return [f"{index}: {fault.strerror}"]
    if line is None:
        return []
    words = "not a row of the register, which has six fields with tabs in between; correct it by hand, or"
    return [f"{index}:{line}: {words} {remedy}"]


def _profile_faults(folder: Path, search_path: str) -> list[str]:
    """Each profile is tried with `openssl x509` on a certificate that is thrown away."""
    try:
        profiles = sorted(
            path for path in (folder / PROFILES).iterdir() if path.is_file() and not path.name.startswith(".")
        )
    except OSError:
        return []
    with tempfile.TemporaryDirectory(prefix="estgw-check-") as made:
        issuer = _issuer(Path(made))
        found = [(path, _profile_words(path, issuer, folder, search_path)) for path in profiles]
    return [f"{path}: openssl can't use this profile: {words}" for path, words in found if words]


def _issuer(folder: Path) -> Path:
    """A file with a CA certificate, its key and a CSR, for one run of `estgw check`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "estgw check")]), datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    csr = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    file = folder / "issuer.pem"
    file.write_bytes(
        certificate.public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + csr.public_bytes(Encoding.PEM)
    )
    return file


def _profile_words(profile: Path, issuer: Path, ca_dir: Path, search_path: str) -> str | None:
    """Why openssl refuses a profile, or None."""
    pair = ["-in", str(issuer), "-CA", str(issuer), "-CAkey", str(issuer)]
    environment = {"PATH": search_path, "EST_CA_DIR": str(ca_dir), "REGISTER_DIR": str(ca_dir), "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            ["openssl", "x509", "-req", "-set_serial", "1", *pair, "-extfile", str(profile)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as fault:
        return str(fault)
    # A profile may name variables of the request, which there is none of here.
    if done.returncode == 0 or "variable has no value" in done.stderr:
        return None
    reasons = ["; ".join(part for part in found if part) for found in _OPENSSL_ERROR.findall(done.stderr)]
    return " / ".join(dict.fromkeys(reasons)) or done.stderr.strip().replace("\n", "; ")[:500]
