"""The command line: `estgw COMMAND`.

Exit status: 0 done, 1 something is wrong and was said on stderr, 2 the command line itself is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from estgw import __version__
from estgw.auth.users import BCRYPT_BYTES
from estgw.cli import commands
from estgw.cli.pending import PendingError
from estgw.cli.workspace import WorkspaceError
from estgw.errors import ConfigError, Malformed

_EPILOG = """\
exit status: 0 done, 1 something is wrong and was said on stderr, 2 the command line itself is wrong

example: estgw demo"""


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = argparse.ArgumentParser(
        prog="estgw",
        description="A CGI-style callout server for EST (RFC 7030): one script per operation.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"estgw {__version__}")
    made = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        sub = made.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            epilog=f"example: {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=getattr(commands, name))
        return sub

    demo = command("demo", "make a workspace and its CA if missing, then serve", "estgw demo --dir lab")
    demo.add_argument("--dir", type=Path, help="the workspace (default: here if conf.yaml is here, else estgw-demo)")
    demo.add_argument("--listen", metavar="ADDR:PORT", help="in place of the configured addresses; port 0 is any")

    init = command("init", "lay out conf.yaml, handlers/ and openssl-ca/ to edit", "estgw init lab")
    init.add_argument("dir", type=Path, metavar="DIR")

    serve = command("serve", "run the gateway", "estgw serve -c conf.yaml")
    check = command("check", "say everything that is wrong with a configuration", "estgw check -c conf.yaml")
    env = command(
        "env",
        "print the environment that a handler gets, as shell assignments",
        "estgw env simpleenroll --csr r.pem",
    )
    run = command("run", "run one handler alone, as the gateway would", "estgw run simpleenroll --csr req.pem")
    for sub in (serve, check, env, run):
        sub.add_argument("-c", "--config", type=Path, default=Path("conf.yaml"), help="default: conf.yaml")
    for sub in (env, run):
        sub.add_argument("operation", metavar="OPERATION", help="such as cacerts or simpleenroll")
        sub.add_argument("--csr", type=Path, metavar="FILE", help="the request: PEM, DER or base64")
        sub.add_argument("--client-cert", type=Path, metavar="FILE", help="the client's TLS certificate, PEM")
        sub.add_argument("--user", metavar="NAME", help="the verified user name")
        sub.add_argument("--label", metavar="L", help="the CA label")

    csrattrs = made.add_parser(
        "csrattrs",
        help="csrattrs.yaml to what travels, and back",
        description="CSR attributes: from YAML to base64, and from base64 or DER to YAML.",
        epilog="example: estgw csrattrs explain answer.b64",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(required=True, metavar="COMMAND")
    for name, summary, example, what in (
        ("explain", "print CSR attributes as YAML", "explain answer.b64", "base64, DER or PEM"),
        ("encode", "print the base64 of csrattrs.yaml", "encode handlers/openssl/csrattrs.yaml", "YAML"),
    ):
        sub = csrattrs.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            epilog=f"example: estgw csrattrs {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("file", metavar="FILE", help=f"{what}; - is standard input")
        sub.set_defaults(run=getattr(commands, f"csrattrs_{name}"))

    cmc = made.add_parser(
        "cmc",
        help="Full CMC messages in words",
        description="Full CMC messages (RFC 5272), requests and answers.",
        epilog="example: estgw cmc explain request.p7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(required=True, metavar="COMMAND")
    sub = cmc.add_parser(
        "explain",
        help="print a message as a tree, with names for everything",
        description="Print a PKIData or PKIResponse as a tree, with names for everything in it.",
        epilog="example: estgw cmc explain request.p7",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("file", metavar="FILE", help="DER, BER, base64 or PEM; - is standard input")
    sub.set_defaults(run=commands.cmc_explain)

    pending = made.add_parser(
        "pending",
        help="what waits for a human: list, show, approve, refuse",
        description="Requests that wait for approval: handlers/examples/manual-approval lets them.",
        epilog="example: estgw pending list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_subparsers(required=True, metavar="COMMAND")
    for name, summary, example in (
        ("list", "print the requests that wait, one a line", "list --all"),
        ("show", "print all about one request", "show 1a2b"),
        ("approve", "let a request be issued when the client comes back", "approve 1a2b"),
        ("refuse", "let the client be told no", 'refuse 1a2b --reason "ask your teacher"'),
    ):
        sub = pending.add_parser(
            name,
            help=summary,
            description=f"{summary[:1].upper()}{summary[1:]}.",
            epilog=f"example: estgw pending {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("-c", "--config", type=Path, default=Path("conf.yaml"), help="default: conf.yaml")
        if name != "list":
            sub.add_argument("id", metavar="ID", help="its EST_PENDING_ID, or enough of the beginning")
        if name in ("list", "show"):
            sub.add_argument("--json", action="store_true", help="for a program to read")
        sub.set_defaults(run=getattr(commands, f"pending_{name}"))
        if name == "list":
            sub.add_argument("--all", action="store_true", help="those issued or refused as well")
        if name == "refuse":
            sub.add_argument("--reason", required=True, metavar="TEXT", help="the words for the client, one line")

    passwd = command(
        "passwd", "add a user to a password file, or change the password", "estgw passwd users.htpasswd alice"
    )
    passwd.add_argument("file", type=Path, metavar="FILE")
    passwd.add_argument("user", metavar="USER")
    passwd.add_argument("--digest", action="store_true", help="write a digest file: MD5 and SHA-256 lines, no bcrypt")
    passwd.add_argument("--realm", default="estrealm", help="with --digest: the realm (default: estrealm)")
    passwd.description = (
        "Add a user to an htpasswd or digest file, or change the password, which is asked for at a terminal and else "
        f"read from standard input: one line, {BCRYPT_BYTES} bytes at most."
    )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except ConfigError as refusal:
        for fault in refusal.faults:
            print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except (WorkspaceError, PendingError, Malformed, OSError) as fault:
        print(f"estgw: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status
