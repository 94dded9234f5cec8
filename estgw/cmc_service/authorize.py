"""Asking `authorize` about a request inside a message, in the words that it knows: as if the request had come alone.

estgw/callout/contract.py says what each variable means; a test compares the two.
"""

import base64
import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.policy import Who
from estgw.est import certs, names
from estgw.est.csr import CSR, OTP_CHALLENGE, REVOCATION_CHALLENGE, NewNames

WORDS = 2048  # bytes of what authorize may say
LONGEST = 128 * 1024 - 1  # what exec takes in one variable
LONGEST_REQUEST = 96 * 1024
MANY = 128  # names in one family
_OUTER = ("EST_POP_LINKING", "EST_AUTHORIZE", "EST_CSR_TEMPLATE", "EST_MAY_CHANGE_SUBJECT", "EST_NAME_BOUNDS")
_TLS = re.compile(r"SSL_CLIENT_|EST_CLIENT_")
_ODD = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Wish:
    """A request for a certificate, and all that has been found out about it."""

    part: int
    csr: CSR
    new_names: NewNames | None
    pop: str
    renewed: x509.Certificate | None

    @property
    def operation(self) -> str:
        return "simpleenroll" if self.renewed is None else "simplereenroll"

    @property
    def subject(self) -> x509.Name:
        """What will be certified."""
        return self.csr.subject if self.new_names is None else self.new_names.subject

    @property
    def san(self) -> x509.SubjectAlternativeName | None:
        return self.csr.san if self.new_names is None else self.new_names.san


def environment(wish: Wish, who: Who) -> dict[str, str]:
    """What authorize is told; raises `Refused` for what no environment can hold."""
    # What does not begin with one of these is from the connection, and is so for each request.
    env = {name: value for name, value in os.environ.items() if name not in _OUTER}
    folder = Path(env["EST_TMPDIR"])
    if who.certificate is not None and who.certificate.fingerprint(SHA256()).hex() != env.get("EST_CLIENT_CERT_SHA256"):
        env = {name: value for name, value in env.items() if not _TLS.match(name)} | _signer(who, folder)
    if who.is_proved:
        env["EST_AUTH_METHODS"] = "+".join(filter(None, (env["EST_AUTH_METHODS"], "cmc")))
    if who.identification is not None:
        env["EST_CMC_IDENTIFICATION"] = who.identification
    csr_file, renew_file = folder / "csr.pem", folder / "renew.pem"
    csr_file.write_bytes(wish.csr.pem)
    env |= {
        "EST_OPERATION": wish.operation,
        "EST_CMC_REQUEST": str(wish.part),
        "EST_REQUEST": base64.b64encode(wish.csr.der).decode(),
        "EST_CSR_FILE": str(csr_file),
        "EST_CSR_SHA256": wish.csr.sha256,
        "EST_CSR_SUBJECT": names.dn_text(wish.subject),
        "EST_CSR_SPKI_SHA256": wish.csr.spki_sha256,
        "EST_POP": wish.pop,
        "EST_PENDING_ID": pending_id(wish, who),
    }
    if wish.san:
        env |= {f"EST_CSR_SAN_{at}": names.san_text(entry) for at, entry in enumerate(wish.san)}
        env["EST_CSR_EXT_SAN"] = wish.san.public_bytes().hex()
    if wish.new_names is not None:
        env["EST_CHANGE_SUBJECT"] = names.openssl_subject(wish.new_names.subject)
    for name, oid in (("EST_OTP", OTP_CHALLENGE), ("EST_REVOCATION_CHALLENGE", REVOCATION_CHALLENGE)):
        if (text := wish.csr.text_attribute(oid)) is not None:
            env[name] = text
    if wish.renewed is not None:
        renew_file.write_bytes(wish.renewed.public_bytes(Encoding.PEM))
        same = hashlib.sha256(certs.spki(wish.renewed)).hexdigest() == wish.csr.spki_sha256
        env |= {"EST_RENEW_CERT_FILE": str(renew_file), "EST_REENROLL": "renew" if same else "rekey"}
    if len(env["EST_REQUEST"]) > LONGEST_REQUEST:
        del env["EST_REQUEST"]
    _require_harmless(env)
    return env


def _signer(who: Who, folder: Path) -> dict[str, str]:
    """The certificate that signed the message, in place of the one in TLS: it is the client of this request."""
    certificate = who.certificate
    assert certificate is not None
    text = certificate.public_bytes(Encoding.PEM).decode()
    (folder / "signer.pem").write_text(text)
    env = {
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_CERT": text,
        "SSL_CLIENT_S_DN": names.dn_text(certificate.subject),
        "SSL_CLIENT_I_DN": names.dn_text(certificate.issuer),
        "SSL_CLIENT_M_SERIAL": certs.serial_hex(certificate),
        "SSL_CLIENT_V_START": _openssl_time(certificate.not_valid_before_utc),
        "SSL_CLIENT_V_END": _openssl_time(certificate.not_valid_after_utc),
        "EST_CLIENT_TRUST": "explicit",
        "EST_CLIENT_IS_RA": str(int(who.is_ra)),
        "EST_CLIENT_CERT_FILE": str(folder / "signer.pem"),
        "EST_CLIENT_CERT_SHA256": certificate.fingerprint(SHA256()).hex(),
    }
    if (common_name := names.common_name(certificate.subject)) is not None:
        env["SSL_CLIENT_S_DN_CN"] = common_name
    for family, kind in (("DNS", x509.DNSName), ("Email", x509.RFC822Name)):
        found = [entry.value for entry in certs.san(certificate) or () if isinstance(entry, kind)]
        env |= {f"SSL_CLIENT_SAN_{family}_{at}": names.escape_controls(value) for at, value in enumerate(found)}
    return env


def pending_id(wish: Wish, who: Who) -> str:
    """The same for every repeat of a request by the same signer, as for one that comes alone."""
    env = os.environ
    shown = who.certificate.fingerprint(SHA256()).hex() if who.certificate else env.get("EST_CLIENT_CERT_SHA256", "")
    facts = (
        wish.operation,
        env.get("EST_LABEL", ""),
        shown,
        who.identification or env.get("REMOTE_USER", ""),
        wish.csr.spki_sha256,
        repr([sorted(rdn) for rdn in names.name_key(wish.csr.subject)]),
        repr([sorted(rdn) for rdn in names.name_key(wish.new_names.subject)]) if wish.new_names else "",
        repr(sorted(names.san_key(wish.san))),
    )
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def authorize(env: dict[str, str], seconds: float) -> bool:
    """Ask; False means "not yet".  Raises `Refused` for a no, and for a script that does not end well."""
    program = env_program()
    if program is None:
        return True
    # A file, as everywhere: what is left behind could hold a pipe open.
    with Path(env["EST_TMPDIR"], "authorize.out").open("w+b") as out:
        try:
            done = subprocess.run([program], env=env | {"EST_TIMEOUT": str(max(1, int(seconds)))}, timeout=seconds,
                                  cwd=program.parent, stdin=subprocess.DEVNULL, stdout=out, check=False)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as fault:
            raise Refused(
                CMCFailInfo.INTERNAL_CA_ERROR, f"could not ask {program.name}: {type(fault).__name__}"
            ) from None
        out.seek(0)
        words = " ".join(out.read(WORDS).decode("utf-8", "replace").split())
    match done.returncode:
        case os.EX_OK:
            return True
        case os.EX_TEMPFAIL:
            return False
        case os.EX_NOPERM:
            raise Refused(CMCFailInfo.BAD_IDENTITY, words or "not allowed")
        case os.EX_DATAERR:
            raise Refused(CMCFailInfo.BAD_REQUEST, words or "not as it should be")
        case os.EX_UNAVAILABLE:
            raise Refused(CMCFailInfo.TRY_LATER, words or "busy")
    raise Refused(CMCFailInfo.INTERNAL_CA_ERROR, f"{program.name} ended with {done.returncode}")


def env_program() -> Path | None:
    """The script to ask, if there is one."""
    return Path(os.environ["EST_AUTHORIZE"]) if "EST_AUTHORIZE" in os.environ else None


def _openssl_time(moment: datetime) -> str:
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{months[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S} {moment.year} GMT"


def _require_harmless(env: dict[str, str]) -> None:
    """What the gateway refuses in a variable: it would do harm to exec, to Bash or to whoever reads lines."""
    if sum(name.startswith("EST_CSR_SAN_") for name in env) > MANY:
        raise Refused(CMCFailInfo.BAD_REQUEST, f"more than {MANY} alternative names")
    for name, value in env.items():
        odd = _ODD.search(value) or ("\n" in value and not value.startswith("-----BEGIN "))
        if odd or value.startswith("() {") or len(name) + len(value.encode("utf-8", "surrogatepass")) >= LONGEST:
            raise Refused(CMCFailInfo.BAD_REQUEST, f"the value for {name} can't be handed to a script")
