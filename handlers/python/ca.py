"""What the handlers beside this file share: reading a request, and issuing with the CA in EST_CA_DIR.

Not a program.  A handler decides; whatever it decides, nothing of a CSR but subject, alternative names and key gets
into a certificate, and no certificate is handed out before its row is in the register (store.py).
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import store as store  # policies use it as ca.store
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, PublicKeyAlgorithmOID
from policy import refuse

from estgw.callout.sources import Stamp, version_of
from estgw.register.crls import issuer_key_id
from estgw.register.crls import signing_hash as signing_hash

KEYS: dict[str, Callable[[], CertificateIssuerPrivateKeyTypes]] = {
    "p-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}
"""The kinds of key that serverkeygen and create-ca make."""

CMC_RA = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.28")  # id-kp-cmcRA (RFC 6402 2.10)
NO_REV_AVAIL = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")  # RFC 9608

PROFILES: dict[str, Sequence[x509.ExtensionType]] = {
    "client": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])],
    "server": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])],
    "both": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])],
    "ra": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA])],
    "short-lived": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), NO_REV_AVAIL],
}
"""What a certificate is good for; `issue` adds what every certificate has."""

# A name is the client's, as long or odd as it likes; the gateway has refused those that can't be read.
warnings.filterwarnings("ignore", "Attribute's length", UserWarning)


def fail(words: str) -> NoReturn:
    """End with words for the log; the client learns only that the server could not do it."""
    print(words, file=sys.stderr)
    sys.exit(os.EX_CONFIG)


class Request:
    """The CSR, whose signature the gateway has checked, and the names that it asks for."""

    def __init__(self) -> None:
        self.csr = asked = x509.load_pem_x509_csr(Path(os.environ["EST_CSR_FILE"]).read_bytes())
        if "EST_CHANGE_SUBJECT" in os.environ:
            import csr  # rarely needed, and a few milliseconds to load

            asked = csr.with_changed_names(self.csr)
        self.subject = asked.subject
        try:
            self.names = list(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        except x509.ExtensionNotFound:
            self.names = []

    @property
    def has_common_name(self) -> bool:
        return bool(self.subject.get_attributes_for_oid(NameOID.COMMON_NAME))

    @property
    def public_key(self) -> CertificatePublicKeyTypes:
        """The key to be certified; serverkeygen never looks at it."""
        # It would come out as a key for anything: the library keeps no restriction to one padding (RFC 4055 1.2).
        if self.csr.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:  # type: ignore[attr-defined]
            refuse("keys for RSASSA-PSS alone are not certified here", os.EX_DATAERR)
        return self.csr.public_key()


def text(name: x509.GeneralName) -> str:
    """One alternative name as EST_CSR_SAN_n has it, such as `DNS:host.example`."""
    match name:
        case x509.DNSName() | x509.RFC822Name() | x509.UniformResourceIdentifier() | x509.IPAddress():
            return f"{_KINDS[type(name)]}:{name.value}"
        case x509.DirectoryName():
            return f"dirName:{name.value.rfc4514_string()}"
        case x509.RegisteredID():
            return f"RID:{name.value.dotted_string}"
        case x509.OtherName():
            return f"otherName:{name.type_id.dotted_string};{name.value.hex()}"
        case _:
            return repr(name)


_KINDS: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "DNS", x509.RFC822Name: "email", x509.UniformResourceIdentifier: "URI", x509.IPAddress: "IP"
}  # fmt: skip


def issue(
    subject: x509.Name,
    key: CertificatePublicKeyTypes,
    names: Sequence[x509.GeneralName],
    profile: str,
    lifetime: str | timedelta,
    *,
    signs: bool = True,
) -> x509.Certificate:
    """Make a certificate and enter it in the register; what fails ends the handler, and nothing was issued.

    A key that has not shown that it `signs` is certified for encryption alone.
    """
    if not subject.rdns and not names:
        refuse("the request names nobody: subject and alternative names are both empty", os.EX_DATAERR)
    if profile not in PROFILES:
        fail(f"no profile {profile} in ca.py; there are: {' '.join(sorted(PROFILES))}")
    lives = duration(lifetime)
    issuer, ca_key = _load()
    now = datetime.now(UTC).replace(microsecond=0)
    left = issuer.not_valid_after_utc - now
    if left <= timedelta(0):
        fail(f"the CA's certificate ended at {issuer.not_valid_after_utc:{MOMENT}}: nothing can be issued")
    if lives > left:
        end = f"{issuer.not_valid_after_utc:{MOMENT}}"
        print(f"lifetime {lifetime} is cut: the certificate ends with the CA's own, at {end}", file=sys.stderr)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer.subject).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now)
    builder = builder.not_valid_after(now + min(lives, left))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(key, signs), critical=True)
    for extension in PROFILES[profile]:
        builder = builder.add_extension(extension, critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = builder.add_extension(issuer_key_id(issuer), critical=False)
    if names:  # critical where they are all there is (RFC 5280 4.2.1.6)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not subject.rdns)
    with store.ending():  # an HSM may be away
        certificate = builder.sign(ca_key, signing_hash(ca_key))
    store.add(certificate, ", ".join(text(name) for name in names), profile)
    return certificate


MOMENT = "%Y-%m-%d %H:%M:%S UTC"


def duration(text: str | timedelta) -> timedelta:
    """A length of time such as 90d, 12h, 10m, 30s or 30; anything else ends the handler."""
    if isinstance(text, timedelta):
        seconds = text.total_seconds()
    else:
        number, unit = (text[:-1], text[-1]) if text[-1:] in tuple("smhd") else (text, "")
        is_number = number.isascii() and number.isdecimal() and len(number) <= 10
        seconds = int(number) * _UNITS[unit] if is_number else 0
    if not 1 <= seconds <= 36525 * 86400:
        fail(f"'{text}' is no length of time: write a number with s, m, h or d behind it, 1s to 36525d")
    return timedelta(seconds=seconds)


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def new_key(kind: str) -> CertificateIssuerPrivateKeyTypes:
    """Make a key of a kind such as p-256; an unknown one ends the handler."""
    if kind not in KEYS:
        fail(f"no kind of key: {kind}; there are: {' '.join(KEYS)}")
    return KEYS[kind]()


def _usage(key: CertificatePublicKeyTypes, signs: bool) -> x509.KeyUsage:
    """Signing, which every key here can do; encrypting to it, which only RSA can (and ML-DSA must not: RFC 9881 5).

    An EC key agrees on keys where it does not sign.
    """
    never = ("content_commitment", "data_encipherment", "key_cert_sign", "crl_sign")
    return x509.KeyUsage(
        digital_signature=signs,
        key_agreement=not signs and isinstance(key, ec.EllipticCurvePublicKey),
        key_encipherment=isinstance(key, rsa.RSAPublicKey),
        encipher_only=False,
        decipher_only=False,
        **dict.fromkeys(never, False),
    )


def _load() -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The CA's key and its certificate."""
    folder = Path(os.environ["EST_CA_DIR"])
    if (folder / "private/cakey.uri").exists():
        return in_hsm(folder)
    return _in_files(folder, tuple(map(version_of, _files(folder))))


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in ("private/cakey.pem", "issuer.pem", "cacert.pem", "chain.pem")]


@functools.lru_cache(maxsize=1)
def _in_files(
    folder: Path, _versions: tuple[Stamp | None, ...]
) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The key, and the first certificate that has it.

    A worker that serves many requests reads them once, and again when one of these files is another.
    """
    key_file, *files = _files(folder)
    for _ in range(2):  # twice, because a roll-over may come between the reading of key and certificate
        try:
            key = load_pem_private_key(key_file.read_bytes(), None)
            pem = b"".join(file.read_bytes() for file in files if file.exists())
            for certificate in x509.load_pem_x509_certificates(pem) if pem else ():
                if certificate.public_key() == key.public_key():
                    return certificate, key  # type: ignore[return-value]
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
            fail(f"the CA in {folder} can't be used: {fault}")
    fail(f"the CA in {folder} can't be used: it has no certificate for the key in private/cakey.pem")


def in_hsm(folder: Path) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The same for a key in an HSM, which private/cakey.uri names.  In a dry run another key takes its place."""
    from estgw.register import hsm

    with store.ending():
        return hsm.load(folder, is_dry="EST_REPLAY" in os.environ)


def pem(what: x509.Certificate | CertificateIssuerPrivateKeyTypes) -> str:
    """A certificate or a private key (PKCS#8, in the clear) as PEM."""
    if isinstance(what, x509.Certificate):
        return what.public_bytes(Encoding.PEM).decode()
    return what.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def sealed(secret: str) -> str:
    """A private key as it may travel: if the client wants it encrypted (RFC 7030 4.4.1), so, or this ends the handler.

    ../seal says who can have keys encrypted, to what is in the CA's keygen-keys and keygen-certificates.
    """
    if os.environ["EST_KEYGEN_PROTECT"] == "none":
        return secret
    folder = Path(os.environ["EST_CA_DIR"])
    command: list[str | Path] = ["../seal", "--keys", folder / "keygen-keys"]
    command += ["--certificates", folder / "keygen-certificates"]
    if (folder / "server.pem").exists():  # who signs: the gateway's own certificate, else the CA's
        command += ["--signer", folder / "server.pem", "--signer-key", folder / "private/serverkey.pem"]
    else:
        command += ["--signer", folder / "cacert.pem", "--signer-key", folder / "private/cakey.pem"]
    done = subprocess.run(command, input=secret, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        print(done.stdout, end="")
        sys.exit(done.returncode)
    return done.stdout


def read_certificate(file: str | Path) -> x509.Certificate:
    """The certificate in a file; without one the handler ends."""
    try:
        return x509.load_pem_x509_certificate(Path(file).read_bytes())
    except (OSError, ValueError) as fault:
        fail(f"{file}: {fault}")


def renewed() -> x509.Certificate:
    """The certificate that a simplereenroll renews."""
    return read_certificate(os.environ["EST_RENEW_CERT_FILE"])


def is_revoked(certificate: x509.Certificate) -> bool:
    """Whether the register says so, or that of `openssl ca`, which may issue from the same directory."""
    if store.status(certificate) == "revoked":
        return True
    for file in ("index.txt", "index.txt.old"):  # the old one too: for a moment it is the only one
        index = Path(os.environ["EST_CA_DIR"], file)
        for line in index.read_text(errors="replace").splitlines() if index.exists() else ():
            fields = line.split("\t")
            if fields[0] == "R" and int(fields[3], 16) == certificate.serial_number:
                return True
    return False
