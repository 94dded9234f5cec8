"""What the handlers beside this file share: a request for a CA that others run, its secrets, and how a handler ends.

Not a program.  What a CA says ends a handler in one of these ways:

    401, 403, 404, 405, 408, 429, 5xx, silence     69: for the operator to mend; the client gets a 503 and comes back
    another 4xx                                    77: the client's fault; it reads the CA's words
    a dry run or a replay (EST_REPLAY)             69: nothing is sent
"""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from estgw.client import faults
from estgw.client.faults import clean
from estgw.errors import Malformed
from estgw.est import certs, csr, oids

OURS = {401, 403, 404, 405, 408, 429}
MOST = 1 << 16  # bytes of a secret
MS_EXTENSION_REQUEST = (
    "1.3.6.1.4.1.311.2.1.14"  # another place for extensions, which one reader uses and another does not
)


def refuse(words: str, status: int = os.EX_NOPERM) -> NoReturn:
    """End the script with a no (403); the client reads these words."""
    print(words)
    sys.exit(status)


def fail(words: str) -> NoReturn:
    """End with words for the log: this gateway must be set up otherwise, and the client gets a 500."""
    print(words, file=sys.stderr)
    sys.exit(os.EX_CONFIG)


def unavailable(words: str) -> NoReturn:
    """End with words for the log: the CA is not there, or does not want us.  The client gets a 503 and comes back."""
    print(clean(words), file=sys.stderr)
    print("The CA can't be asked now; come back later.")
    sys.exit(os.EX_UNAVAILABLE)


def answered(status: int, words: str, where: str, ours: str | None = None) -> None:
    """Return if an HTTP status says yes; else end as the table above has it.  `where` is for the log.

    `ours` are words in which a CA blames this gateway by another status.
    """
    if 200 <= status < 300:
        return
    if status in OURS or not 400 <= status < 500 or (ours is not None and ours in words):
        unavailable(f"{where}: HTTP {status}: {words}")
    print(clean(f"{where}: HTTP {status}: {words}"), file=sys.stderr)
    refuse(f"the CA refused: {clean(words) or f'HTTP {status}'}")


def est_fault(fault: faults.ClientError) -> NoReturn:
    """End as an EST server, or its absence, has it; its 202 is ours, too."""
    if isinstance(fault, faults.TryLater) and fault.answer is not None and fault.answer.status == 202:
        print(f"Status: 202\nRetry-After: {fault.seconds}\n")
        sys.exit(os.EX_TEMPFAIL)
    if isinstance(fault, faults.Refused) and not isinstance(fault, faults.NotOffered):
        answered(fault.http_status, fault.words, fault.url)
    unavailable(f"{fault.url}: {fault}")


def require_for_real() -> None:
    """Call this before anything that can make a CA issue: a dry run or a replay ends here."""
    if "EST_REPLAY" in os.environ:
        refuse("This is a dry run: nothing was sent, and the CA alone knows what it would answer.", os.EX_UNAVAILABLE)


def seconds() -> float:
    """How long a CA may take: two thirds of what this script may take, so that a slow one becomes a 503."""
    return int(os.environ["EST_TIMEOUT"]) * 2 / 3


def secret_file(name: str) -> Path:
    """A file in `secrets` of the CA's directory, which no copy of that directory has; others must not read it."""
    file = Path(os.environ["EST_CA_DIR"], "secrets", name)
    try:
        mode = file.stat().st_mode
    except OSError as fault:
        fail(f"{file}: {fault.strerror}")
    if mode & 0o077:
        fail(f"{file}: others can read it; chmod 600 {file}")
    return file


def secret(name: str) -> str:
    """The one line in such a file."""
    file = secret_file(name)
    try:
        with file.open(encoding="ascii") as opened:
            text = opened.read(MOST).strip()
    except (OSError, ValueError):
        text = ""
    if not text.isprintable() or not text:
        fail(f"{file}: it must have one line of plain text")
    return text


def secret_bytes(name: str) -> bytes:
    """The bytes that are in such a file, as hex."""
    try:
        return bytes.fromhex(secret(name))
    except ValueError:
        fail(f"{secret_file(name)}: it must have hex digits")


def key(name: str) -> Any:
    """The private key in such a file."""
    file = secret_file(name)
    try:
        return load_pem_private_key(file.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        fail(f"{file}: it must have a private key in PEM")


def key_and_certificates(name: str) -> tuple[Any, ...]:
    """The key in such a file, its certificate, and the others above that."""
    own, file = key(name), secret_file(name)
    try:
        chain = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        chain = []
    if not chain or chain[0].public_key() != own.public_key():
        fail(f"{file}: it must have the key's certificate, too, in PEM")
    return own, *chain


def request(*usages: str) -> csr.CSR:
    """The CSR of an enrolment or a renewal, which goes to the CA as an enrolment, for the client's key isn't ours.

    Many CAs copy what a CSR asks for.  So one that asks for more than names and these extended key usages is refused: a
    CA's certificate, an RA's, or an extension that means something to somebody else.
    """
    if os.environ["EST_OPERATION"] not in ("simpleenroll", "simplereenroll"):
        sys.exit(os.EX_USAGE)
    require_for_real()
    if "EST_CHANGE_SUBJECT" in os.environ:
        refuse("The CA takes names from the CSR alone: enrol anew for other names.")
    try:
        asked = csr.parse(Path(os.environ["EST_CSR_FILE"]).read_bytes())
    except Malformed as fault:
        refuse(str(fault), os.EX_DATAERR)
    if MS_EXTENSION_REQUEST in asked.attributes:
        refuse("Ask for extensions by extensionRequest alone (RFC 2985 5.4.2).")
    for extension in asked.extensions:
        if not _is_harmless(extension.value, usages):
            name = oids.name_of(extension.oid.dotted_string)
            refuse(f"Leave {name} out of the CSR, or ask for less in it: the CA would copy it.")
    return asked


def hosts(asked: csr.CSR) -> list[str]:
    """The hosts that a CSR names, for a CA that certifies nothing else."""
    names = list(asked.san or ())
    found = {each.value.lower() for each in names if isinstance(each, x509.DNSName)}
    common = {str(each.value).lower() for each in asked.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    if not found or len(found) != len(names) or not common <= found:
        refuse("The CA certifies hosts alone: name them as DNS names in the SAN, one of them as CN or no CN.")
    return sorted(found)


def renewed_serial() -> str:
    """The serial number of the certificate that is being renewed, in pairs: 0a:1b:2c."""
    try:
        renewed = x509.load_pem_x509_certificate(Path(os.environ["EST_RENEW_CERT_FILE"]).read_bytes())
    except (OSError, ValueError) as fault:
        fail(f"{os.environ['EST_RENEW_CERT_FILE']}: {fault}")
    return bytes.fromhex(certs.serial_hex(renewed)).hex(":")


def _is_harmless(asked: x509.ExtensionType, usages: tuple[str, ...]) -> bool:
    match asked:
        case x509.SubjectAlternativeName() | x509.SubjectKeyIdentifier() | x509.BasicConstraints(ca=False):
            return True
        case x509.KeyUsage(key_cert_sign=False, crl_sign=False):
            return True
        case x509.ExtendedKeyUsage():
            return {oids.name_of(each.dotted_string) for each in asked} <= set(usages)
        case _:
            return False
