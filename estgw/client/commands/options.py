"""Turning the options of a command line into the objects that a session needs."""

from __future__ import annotations

import argparse
import getpass
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import NameOID

from estgw.client import files, keys, sealing
from estgw.client.faults import UsageError, clean
from estgw.client.request import Wanted
from estgw.client.sealing import Secret
from estgw.client.transport.challenge import Credentials
from estgw.client.transport.tls import Identity
from estgw.client.transport.trust import Trust
from estgw.errors import Malformed
from estgw.est import certs

_SHORT_NAMES = {
    "serialNumber": NameOID.SERIAL_NUMBER,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "title": NameOID.TITLE,
    "GN": NameOID.GIVEN_NAME,
    "SN": NameOID.SURNAME,
}
"""Short names in a subject besides the ones of RFC 4514."""
_OF_A_REQUEST = {
    "subject",
    "dns",
    "ip",
    "email",
    "uri",
    "no_csrattrs",
    "crmf",
    "encrypted_pop",
    "revocation_secret_file",
}
"""Options for a request that is made here."""
_MAXIMUM_ADDRESS = 254
"""Characters of a mail address (RFC 5321 4.5.3.1.3)."""


def request(path: Path) -> bytes:
    """A request that was made elsewhere, unchanged, from a file or stdin (`-`); raises `UsageError`."""
    data = sys.stdin.buffer.read(files.MAXIMUM_INPUT) if str(path) == "-" else files.read(path)
    if not data.strip():
        raise UsageError(f"{'stdin' if str(path) == '-' else path} is empty: there is no request in it")
    return data


def private_key(path: Path) -> PrivateKeyTypes:
    """A private key; an encrypted one asks for its password at the terminal.  Raises `UsageError`."""

    def ask() -> bytes:
        return _secret(f"Password of {path}: ").encode() if sys.stdin.isatty() else b""

    try:
        return keys.load(files.read(path), ask)
    except UsageError as fault:
        raise UsageError(f"{path}: {fault}") from None


def trust(cacert: Sequence[Path], *, implicit: bool) -> Trust:
    """The anchors of `-c` and `--implicit`; with neither, a `bootstrap` trust."""
    anchors = tuple(dict.fromkeys(one for path in cacert for one in files.certificates(path)))
    return Trust(explicit=anchors, implicit=implicit, bootstrap=not anchors and not implicit)


def identity(certificate: Path | None, key: Path | None) -> Identity | None:
    """`--cert` and `--key`; one file with both in it is given once.  Raises `UsageError`."""
    if certificate is None:
        if key is not None:
            raise UsageError("--key without --cert")
        return None
    leaf, *chain = files.certificates(certificate)
    loaded = private_key(key or certificate)
    try:
        fits = keys.spki(loaded) == certs.spki(leaf)
    except (Malformed, AttributeError):
        fits = False
    if not fits:
        raise UsageError("--cert and --key do not belong together")
    return Identity(leaf, loaded, tuple(chain))


def credentials(userpass: str | None, password_file: Path | None) -> Credentials | None:
    """`-p USER[:PASS]` and `--password-file`; the terminal asks for a missing password."""
    if userpass is None:
        if password_file is not None:
            raise UsageError("--password-file needs -p USER")
        return None
    user, colon, password = userpass.partition(":")
    if password_file is not None:
        if colon:
            raise UsageError("a password in -p and one in --password-file")
        try:
            return Credentials(user, files.read(password_file).decode().split("\n", 1)[0].rstrip("\r"))
        except UnicodeDecodeError:
            raise UsageError(f"{password_file}: not UTF-8") from None
    if not colon:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask for the password: --password-file FILE, or -p USER:PASS")
        password = _secret(f"Password for {clean(user, 100)}: ")
    return Credentials(user, password)


def secret(file: Path | None, prompt: str) -> str:
    """A secret shared with the CA: the first line of a file or of stdin (`-`), or typed at the terminal."""
    if file is None:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask for the secret: --secret-file FILE")
        return _secret(prompt)
    data = sys.stdin.buffer.readline(files.MAXIMUM_INPUT) if str(file) == "-" else files.read(file)
    try:
        found = data.decode().split("\n", 1)[0].rstrip("\r")
    except UnicodeDecodeError:
        raise UsageError(f"{file}: not UTF-8") from None
    if not found:
        raise UsageError(f"{file}: no secret in its first line")
    return found


def wanted(arguments: argparse.Namespace) -> Wanted:
    """`--subject`, `--dns`, `--ip`, `--email` and `--uri`; raises `UsageError`."""
    for kind in ("dns", "email", "uri"):
        if "" in getattr(arguments, kind):
            raise UsageError(f"--{kind} without a name")
    if any(len(address) > _MAXIMUM_ADDRESS for address in arguments.email):
        raise UsageError(f"--email with more than {_MAXIMUM_ADDRESS} characters")
    try:
        subject = x509.Name.from_rfc4514_string(arguments.subject or "", _SHORT_NAMES)
        san: list[x509.GeneralName] = [x509.DNSName(_ascii(name)) for name in arguments.dns]
        san += [x509.IPAddress(ipaddress.ip_address(address)) for address in arguments.ip]
        san += [x509.RFC822Name(address) for address in arguments.email]
        san += [x509.UniformResourceIdentifier(uri) for uri in arguments.uri]
    except ValueError as fault:
        words = str(fault) or f"{arguments.subject!r} is no RFC 4514 name such as CN=device-1,O=Example"
        raise UsageError(clean(words, 300)) from None
    return Wanted(subject, tuple(san))


def sealing_secret(arguments: argparse.Namespace) -> Secret:
    """`--decrypt-key`, `--decrypt-cert` and the options of each; raises `UsageError`."""
    if arguments.decrypt_key is not None and arguments.decrypt_cert is not None:
        raise UsageError("--decrypt-key or --decrypt-cert, not both")
    key_id = _key_id(arguments.decrypt_key_id)
    if arguments.decrypt_key is not None:
        if key_id is None:
            raise UsageError("--decrypt-key needs --decrypt-key-id, the key's name on the server")
        return Secret.shared(sealing.read_key(arguments.decrypt_key), key_id)
    if arguments.decrypt_cert is not None:
        if arguments.decrypt_cert_key is None:
            raise UsageError("--decrypt-cert needs --decrypt-cert-key")
        return Secret.of_recipient(arguments.decrypt_cert, arguments.decrypt_cert_key, key_id)
    if key_id is not None or arguments.decrypt_cert_key is not None:
        raise UsageError("--decrypt-key-id and --decrypt-cert-key need --decrypt-key or --decrypt-cert")
    return Secret()


def _key_id(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        value = bytes.fromhex(text[2:]) if text.lower().startswith("0x") else text.encode()
    except ValueError:
        raise UsageError(f"--decrypt-key-id: {clean(text, 100)!r} is not hex") from None
    if not value:
        raise UsageError("--decrypt-key-id is empty")
    return value


def require_sense(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for options of enrolling and renewing commands that contradict or ignore each other."""
    given = {name for name, value in vars(arguments).items() if value not in (None, False, [])}
    made_elsewhere = given & {"script", "csr"}
    if made_elsewhere and (idle := given & _OF_A_REQUEST):
        raise UsageError(f"{_spelled(idle)} can't change a CSR that is made elsewhere")
    if "encrypted_pop" in given and "crmf" not in given:
        raise UsageError("--encrypted-pop is for --crmf")
    if {"no_pop", "require_pop"} <= given:
        raise UsageError("--no-pop or --require-pop, not both")
    makes_key = "new_key" in given or arguments.operation == "serverkeygen"
    if "key_out" in given and not makes_key:
        raise UsageError("--key-out is for a new key, and none is made here")
    if hasattr(arguments, "if_expires_within") and "out" not in given:
        if "key_out" in given:
            raise UsageError("--key-out needs -o: without it the new pair replaces the old one")
        if arguments.outform != "pem":
            raise UsageError("a certificate that replaces --cert is PEM; --outform needs -o")
    if "key_out" in given and arguments.key_out == arguments.out and arguments.outform != "pem":
        raise UsageError("one file for key and certificate is PEM")


def _spelled(names: set[str]) -> str:
    return " and ".join(sorted(f"--{name.replace('_', '-')}" for name in names))


def _ascii(name: str) -> str:
    """A DNS name in A-labels; a wildcard passes."""
    return name if name.isascii() else name.encode("idna").decode()


def _secret(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except (EOFError, KeyboardInterrupt):
        raise UsageError("no password given") from None
