"""`estclient`: the command line.  Everything that costs time is imported after the arguments have been read."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from estgw import __version__

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_REASONS = (
    "unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation",
    "certificateHold", "removeFromCRL", "privilegeWithdrawn", "aACompromise",
)  # fmt: skip
"""CRLReason (RFC 5280 5.3.1)."""
_EXITS = """exit status:
  0 done  1 failed  2 usage  3 try later (202)  4 refused  5 TLS or trust  6 no connection  7 invalid answer"""


def parser() -> argparse.ArgumentParser:
    """The whole command line; the man page and the shells' completion are made from it."""
    top = argparse.ArgumentParser(
        prog="estclient",
        description="Get, renew and look up certificates over EST (RFC 7030).",
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"estclient {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _cacerts(commands)
    _csrattrs(commands)
    _enroll(commands)
    _reenroll(commands)
    _serverkeygen(commands)
    _fullcmc(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run `estclient`; returns the exit status."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    from estgw.client import run

    return run.run(arguments)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line.  The commands of fullcmc are two words, which argparse sees as one."""
    top = parser()
    two = " ".join(argv[:2])
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return top.parse_args([two, *argv[2:]] if len(argv) > 1 and two in commands.choices else argv)


def duration(text: str) -> timedelta:
    """Read `30d`, `12h`, `90m`, `45s`, `2w` or plain seconds."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not (number.isascii() and number.isdigit() and len(number) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 30d, 12h or 45s")
    return timedelta(seconds=int(number) * _UNITS[unit])


def _seconds(text: str) -> float:
    return duration(text).total_seconds()


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _fingerprint(text: str) -> str:
    digits = text.lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if len(digits) != 64 or any(digit not in "0123456789abcdef" for digit in digits):
        raise argparse.ArgumentTypeError(f"{text!r} is no SHA-256 fingerprint of 64 hex digits")
    return digits


_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _command(
    commands: _Subparsers, name: str, summary: str, operation: str, aliases: Sequence[str] = ()
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, aliases=list(aliases), help=summary, description=summary, epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(operation=operation)
    server = command.add_argument_group("server")
    server.add_argument("-u", "--url", required=True, metavar="URL",
                        help="HOST[:PORT], https://HOST/PATH, or the full URL of any operation")  # fmt: skip
    server.add_argument("--label", metavar="LABEL", help="CA label, when the URL has none")
    server.add_argument("-c", "--cacert", type=Path, action="append", default=[], metavar="FILE",
                        help="explicit trust anchors, PEM or DER; may be repeated")  # fmt: skip
    server.add_argument("--implicit", action="store_true",
                        help="trust the system's anchors too; then the server's name must match")  # fmt: skip
    server.add_argument("--tls", choices=("1.2", "1.3"), help="this TLS version only")
    server.add_argument("--timeout", type=_timeout, default=30.0, metavar="SECONDS",
                        help="for TCP, for TLS and for each answer (default: 30)")  # fmt: skip
    server.add_argument("--allow-redirect", action="store_true",
                        help="follow redirects to another origin, with all checks anew")  # fmt: skip
    who = command.add_argument_group("who you are")
    who.add_argument("-p", "--userpass", metavar="USER[:PASS]",
                     help="for HTTP Basic or Digest; asks for a missing PASS, which ps(1) would show")  # fmt: skip
    who.add_argument("--password-file", type=Path, metavar="FILE", help="the first line is the password")
    who.add_argument("--cert", type=Path, metavar="FILE", help="certificate for TLS client authentication, PEM")
    who.add_argument("--key", type=Path, metavar="FILE", help="its private key, when not in the same file")
    output = command.add_argument_group("output")
    output.add_argument("-o", "--out", type=Path, metavar="FILE", help="write the result there, not to stdout")
    output.add_argument("--outform", choices=("pem", "der", "p7"), default="pem",
                        help="PEM, DER, or a PKCS#7 in PEM (default: pem)")  # fmt: skip
    output.add_argument("--json", action="store_true", help="one JSON object on stdout")
    output.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    output.add_argument("--trace", action="store_true", help="show the exchange on stderr, secrets masked")
    return command


def _wait(command: argparse.ArgumentParser) -> None:
    command.add_argument("--wait", type=_seconds, default=0.0, metavar="SECONDS",
                         help="repeat a request that gets 202 for that long (also 10m, 2h; default: 0)")  # fmt: skip


def _pop(command: argparse.ArgumentParser) -> None:
    pop = command.add_argument_group("proof of possession, linked to the TLS connection (RFC 7030 3.5)")
    pop.add_argument("--no-pop", action="store_true", help="leave the channel binding out of the CSR")
    pop.add_argument("--require-pop", action="store_true", help="stop when the CSR can't be linked")
    pop.add_argument("--pop-finished", action="store_true",
                     help="at TLS 1.3 link by the Finished message, as libest's servers want it")  # fmt: skip


def _new_key(group: argparse._MutuallyExclusiveGroup | argparse.ArgumentParser) -> None:
    group.add_argument("--new-key", nargs="?", const="auto", metavar="KIND",
                       help="make a key: ec:P-256, rsa:3072, ed25519, ml-dsa-65, ...; "
                            "without KIND what the server asks for")  # fmt: skip


def _names(command: argparse.ArgumentParser) -> None:
    names = command.add_argument_group("names in a CSR that is made here")
    names.add_argument("--subject", metavar="DN", help="RFC 4514, such as CN=device-1,O=Example")
    names.add_argument("--dns", action="append", default=[], metavar="NAME", help="may be repeated, as the next three")
    names.add_argument("--ip", action="append", default=[], metavar="ADDRESS", help="IP address")
    names.add_argument("--email", action="append", default=[], metavar="ADDRESS", help="mail address")
    names.add_argument("--uri", action="append", default=[], metavar="URI", help="URI")
    names.add_argument("--no-csrattrs", action="store_true", help="do not ask the server what it wants in a CSR")


def _cacerts(commands: _Subparsers) -> None:
    command = _command(commands, "cacerts", "Get the CA's certificates.", "cacerts")
    command.add_argument("--fingerprint", type=_fingerprint, action="append", default=[], metavar="SHA256",
                         help="believe the root with this fingerprint; may be repeated")  # fmt: skip


def _csrattrs(commands: _Subparsers) -> None:
    _command(commands, "csrattrs", "Show what the server wants to see in a CSR, in words or as DER.", "csrattrs")


def _sources(command: argparse.ArgumentParser) -> None:
    source = command.add_argument_group("the request").add_mutually_exclusive_group(required=True)
    source.add_argument("-R", "--request-script", dest="script", type=Path, metavar="SCRIPT",
                        help="run after the handshake with the binding in TLS_UNIQUE_SR; prints the CSR")  # fmt: skip
    source.add_argument("--csr", type=Path, metavar="FILE", help="a finished CSR as PEM, DER or base64; - is stdin")
    _new_key(source)
    source.add_argument("--reuse-key", type=Path, metavar="FILE",
                        help="make the CSR with this key, as after a 202")  # fmt: skip


def _enroll(commands: _Subparsers) -> None:
    command = _command(commands, "enroll", "Get a certificate.", "simpleenroll", aliases=["simpleenroll"])
    _sources(command)
    command.add_argument("--key-out", type=Path, metavar="FILE",
                         help="where a new key goes (default: OUT with .key); OUT itself for one file")  # fmt: skip
    _names(command)
    _pop(command)
    _wait(command)


def _reenroll(commands: _Subparsers) -> None:
    command = _command(commands, "reenroll", "Renew --cert in place, with the same names.", "simplereenroll",
                       aliases=["simplereenroll"])  # fmt: skip
    _renewal(command)
    _pop(command)
    _wait(command)


def _renewal(command: argparse.ArgumentParser) -> None:
    _new_key(command)
    command.add_argument("--key-out", type=Path, metavar="FILE", help="with -o: where the new key goes")
    command.add_argument("--if-expires-within", type=duration, metavar="TIME",
                         help="do nothing as long as more than TIME (30d, 12h) is left")  # fmt: skip
    command.add_argument("--no-csrattrs", action="store_true", help="do not ask what the server wants in a CSR")


def _serverkeygen(commands: _Subparsers) -> None:
    command = _command(commands, "serverkeygen", "Let the server make the key.", "serverkeygen")
    source = command.add_argument_group("the request (default: made here)").add_mutually_exclusive_group()
    source.add_argument("-R", "--request-script", dest="script", type=Path, metavar="SCRIPT",
                        help="run after the handshake with the binding in TLS_UNIQUE_SR; prints the CSR")  # fmt: skip
    source.add_argument("--csr", type=Path, metavar="FILE", help="a finished CSR as PEM, DER or base64; - is stdin")
    command.add_argument("--key-out", type=Path, metavar="FILE",
                         help="where the key goes (default: OUT with .key); OUT itself for one file")  # fmt: skip
    _names(command)
    secret = command.add_argument_group("encryption of the key besides TLS (RFC 7030 4.4.1)")
    secret.add_argument("--decrypt-key", type=Path, metavar="FILE", help="a shared AES key, in hex or 16 to 32 bytes")
    secret.add_argument("--decrypt-key-id", metavar="ID", help="its name on the server; hex after 0x")
    secret.add_argument("--decrypt-cert", type=Path, metavar="FILE", help="a certificate to encrypt to, RSA or EC")
    secret.add_argument("--decrypt-cert-key", type=Path, metavar="FILE", help="its private key")
    _pop(command)
    _wait(command)


def _serial(text: str) -> int:
    digits = text.lower().removeprefix("0x").replace(":", "").replace(" ", "")
    if not digits or len(digits) > 40 or any(digit not in "0123456789abcdef" for digit in digits):
        raise argparse.ArgumentTypeError(f"{text!r} is no serial number in hex")
    return int(digits, 16)


def _fullcmc(commands: _Subparsers) -> None:
    command = _command(
        commands, "fullcmc",
        "Send a Full CMC request that was made elsewhere; fullcmc enroll, renew, revoke and get-crl make one.",
        "fullcmc",
    )  # fmt: skip
    command.add_argument("--cmc", type=Path, required=True, metavar="FILE",
                         help="the PKIData in its SignedData, as PEM, DER or base64; - is stdin")  # fmt: skip
    _wait(command)
    _cmc_enroll(commands)
    _cmc_renew(commands)
    _cmc_revoke(commands)
    _cmc_get_crl(commands)


def _cmc_format(command: argparse.ArgumentParser) -> None:
    command.add_argument("--crmf", action="store_true", help="a CRMF request (RFC 4211) in place of a PKCS#10")
    command.add_argument("--encrypted-pop", action="store_true",
                         help="with --crmf: for keys that only decrypt; prove possession by a challenge")  # fmt: skip
    command.add_argument("--revocation-secret-file", type=Path, metavar="FILE",
                         help="a passphrase to revoke it by one day, with fullcmc revoke --secret-file")  # fmt: skip


def _secret_file(command: argparse._ActionsContainer, what: str) -> None:
    command.add_argument("--secret-file", type=Path, metavar="FILE", help=f"{what}: the first line; - is stdin")


def _cmc_enroll(commands: _Subparsers) -> None:
    command = _command(commands, "fullcmc enroll", "Get a certificate by CMC, signed by --cert or else by the new key.",
                       "fullcmc")  # fmt: skip
    _sources(command)
    command.add_argument("--key-out", type=Path, metavar="FILE",
                         help="where a new key goes (default: OUT with .key); OUT itself for one file")  # fmt: skip
    _cmc_format(command)
    _names(command)
    secret = command.add_argument_group("a secret that the CA knows too; then the new key signs (RFC 5272 6.2)")
    _secret_file(secret, "the secret")
    secret.add_argument("--identification", metavar="NAME",
                        help="the name that the CA knows it by; alone, it asks for the secret")  # fmt: skip
    _pop(command)
    _wait(command)


def _cmc_renew(commands: _Subparsers) -> None:
    command = _command(commands, "fullcmc renew", "Renew --cert in place by CMC, with the same names.", "fullcmc")
    _renewal(command)
    _cmc_format(command)
    _pop(command)
    _wait(command)


def _cmc_revoke(commands: _Subparsers) -> None:
    command = _command(commands, "fullcmc revoke", "Have --cert revoked or, as an RA, another certificate.", "fullcmc")
    which = command.add_argument_group("which certificate (default: --cert)")
    which.add_argument("--target", type=Path, metavar="FILE", help="the certificate itself")
    which.add_argument("--serial", type=_serial, metavar="HEX", help="its serial number")
    which.add_argument("--issuer", type=Path, metavar="FILE",
                       help="with --serial: its CA's certificate (default: --cert's CA)")  # fmt: skip
    command.add_argument("--reason", choices=_REASONS, default="unspecified", help="why (default: unspecified)")
    _secret_file(command, "a passphrase to revoke by, agreed on when it was issued")
    _wait(command)


def _cmc_get_crl(commands: _Subparsers) -> None:
    command = _command(commands, "fullcmc get-crl", "Get a CA's CRL by CMC.", "fullcmc")
    command.add_argument("--issuer", type=Path, metavar="FILE",
                         help="the CA's certificate (default: --cert's CA, or the only one in -c)")  # fmt: skip
    _wait(command)


if __name__ == "__main__":
    sys.exit(main())
