"""`estclient`: the table of its commands.  A command loads the modules that it needs when it runs, TLS and all."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from estgw import __version__
from estgw.client.commands import option_rows as options
from estgw.commandline.table import Command, Program


def main(argv: Sequence[str] | None = None) -> int:
    """Run `estclient`; returns the exit status."""
    run, arguments = PROGRAM.parse(sys.argv[1:] if argv is None else argv)
    return run(arguments)


def _cacerts(arguments: Namespace) -> int:
    from estgw.client.commands import cacerts, run

    return run.run(cacerts.cacerts, arguments)


def _csrattrs(arguments: Namespace) -> int:
    from estgw.client.commands import csrattrs, run

    return run.run(csrattrs.csrattrs, arguments)


def _enroll(arguments: Namespace) -> int:
    from estgw.client.commands import enrolling, run

    return run.run(enrolling.enroll, arguments)


def _reenroll(arguments: Namespace) -> int:
    from estgw.client.commands import enrolling, run

    return run.run(enrolling.reenroll, arguments)


def _serverkeygen(arguments: Namespace) -> int:
    from estgw.client.commands import run, serverkeygen

    return run.run(serverkeygen.serverkeygen, arguments)


def _cmc(arguments: Namespace) -> int:
    from estgw.client.commands import managing, run

    return run.run(managing.send, arguments)


def _cmc_enroll(arguments: Namespace) -> int:
    from estgw.client.commands import managing, run

    return run.run(managing.enroll, arguments)


def _cmc_renew(arguments: Namespace) -> int:
    from estgw.client.commands import managing, run

    return run.run(managing.renew, arguments)


def _cmc_revoke(arguments: Namespace) -> int:
    from estgw.client.commands import managing, run

    return run.run(managing.revoke, arguments)


def _cmc_get_crl(arguments: Namespace) -> int:
    from estgw.client.commands import managing, run

    return run.run(managing.get_crl, arguments)


COMMANDS = (
    Command(
        name="cacerts",
        summary="Get the CA's certificates.",
        run=_cacerts,
        options=[*options.COMMON, options.FINGERPRINT],
        sets={"operation": "cacerts"},
        example="cacerts -u est.example --fingerprint HEX -o ca.pem",
    ),
    Command(
        name="csrattrs",
        summary="Show the attributes that the server asks for in a CSR, in words or as DER.",
        run=_csrattrs,
        options=options.COMMON,
        sets={"operation": "csrattrs"},
        example="csrattrs -u est.example -c ca.pem",
    ),
    Command(
        name="enroll",
        aliases=("simpleenroll",),
        summary="Get a certificate.",
        run=_enroll,
        options=[
            *options.COMMON,
            options.SOURCES,
            options.NEW_KEY_OUT,
            options.NAMES,
            options.POP,
            options.ANY_CERTIFICATE,
            options.WAIT,
        ],
        sets={"operation": "simpleenroll"},
        example="enroll -u est.example -c ca.pem -p estuser --new-key --subject CN=device-1 -o device.pem",
    ),
    Command(
        name="reenroll",
        aliases=("simplereenroll",),
        summary="Renew --cert in place, with the same names.",
        run=_reenroll,
        options=[*options.COMMON, *options.RENEWAL, options.POP, options.ANY_CERTIFICATE, options.WAIT],
        sets={"operation": "simplereenroll"},
        example="reenroll -u est.example -c ca.pem --cert device.pem --key device.key --if-expires-within 4w",
    ),
    Command(
        name="serverkeygen",
        summary="Get a key that the server makes, and its certificate.",
        run=_serverkeygen,
        options=[
            *options.COMMON,
            options.SERVER_KEY_SOURCES,
            options.SERVER_KEY_OUT,
            options.NAMES,
            options.DECRYPTION,
            options.POP,
            options.WAIT,
        ],
        sets={"operation": "serverkeygen"},
        example="serverkeygen -u est.example -c ca.pem -p estuser --subject CN=device-1 -o device.pem",
    ),
    Command(
        name="fullcmc",
        summary="Send a Full CMC request that was made elsewhere.",
        description="The commands fullcmc enroll, renew, revoke and get-crl make one.",
        run=_cmc,
        options=[*options.COMMON, options.CMC_FILE, options.WAIT],
        sets={"operation": "fullcmc"},
        example="fullcmc -u est.example -c ca.pem --cmc request.p7 -o answer.pem",
    ),
    Command(
        name="fullcmc enroll",
        summary="Get a certificate by CMC; --cert signs the request, or else the new key does.",
        run=_cmc_enroll,
        options=[
            *options.COMMON,
            options.SOURCES,
            options.NEW_KEY_OUT,
            *options.CMC_FORMAT,
            options.NAMES,
            options.SHARED_SECRET,
            options.POP,
            options.WAIT,
        ],
        sets={"operation": "fullcmc"},
        example="fullcmc enroll -u est.example -c ca.pem --identification device-7 --new-key --dns d.example -o d.pem",
    ),
    Command(
        name="fullcmc renew",
        summary="Renew --cert in place by CMC, with the same names.",
        run=_cmc_renew,
        options=[*options.COMMON, *options.RENEWAL, *options.CMC_FORMAT, options.POP, options.WAIT],
        sets={"operation": "fullcmc"},
        example="fullcmc renew -u est.example -c ca.pem --cert device.pem --key device.key",
    ),
    Command(
        name="fullcmc revoke",
        summary="Revoke --cert or, as an RA, another certificate.",
        run=_cmc_revoke,
        options=[*options.COMMON, *options.TARGET, options.WAIT],
        sets={"operation": "fullcmc"},
        example="fullcmc revoke -u est.example -c ca.pem --cert device.pem --key device.key --reason keyCompromise",
    ),
    Command(
        name="fullcmc get-crl",
        summary="Get a CA's CRL by CMC.",
        run=_cmc_get_crl,
        options=[*options.COMMON, options.CRL_ISSUER, options.WAIT],
        sets={"operation": "fullcmc"},
        example="fullcmc get-crl -u est.example -c ca.pem -o ca.crl",
    ),
)

PROGRAM = Program(
    name="estclient",
    aliases=("estgw-client",),
    version=__version__,
    description="Get, renew and look up certificates over EST (RFC 7030).",
    commands=COMMANDS,
    exit_status=(
        (0, "done", "Done."),
        (1, "failed", "Failed, for a reason on this side or in the server (5xx)."),
        (2, "usage", "The options contradict each other, or one is wrong."),
        (3, "try later (202)", "Try later: the server wants to see the same request again (202 with Retry-After)."),
        (4, "refused", "The server understood the request and refused it; its words are on standard error."),
        (5, "TLS or trust", "The TLS handshake failed, or the server's certificate is not to be trusted."),
        (6, "no connection", "There was no connection, or it ended before the answer did."),
        (7, "invalid answer", "The answer breaks the protocol."),
    ),
)
