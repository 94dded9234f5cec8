"""`estgw demo`, `init`, `serve` and `check`: a workspace, and a gateway in it.

The gateway is loaded by the commands that need it, so that the others start in a third of the time.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from estgw import __version__, logs
from estgw.callout import spawn
from estgw.cli import upgrade, workspace
from estgw.cli.arguments import CONFIG, config_file
from estgw.commandline.table import Command, Option
from estgw.errors import ConfigError
from estgw.tls import sockets

if TYPE_CHECKING:
    from estgw.gateway import server


def demo(arguments: Namespace) -> int:
    """Make the missing parts of a demo, serve it, and print commands to paste on stderr."""
    spawn.disown_inheritance()
    directory: Path = arguments.dir or (Path() if Path("conf.yaml").exists() else Path("estgw-demo"))
    names: list[str] = arguments.name
    made = workspace.prepare_demo(directory, names)

    def ready(url: str, page: str | None) -> None:
        print(
            _welcome(directory, url, page, made=made, beyond=not all(map(_is_local, names))),
            file=sys.stderr,
            flush=True,
        )
        _say_where(url, page)

    again = ["estgw", "demo", *(["--dir", str(arguments.dir)] if arguments.dir else [])]
    again += [part for name in names for part in ("--name", name)]
    listen = arguments.listen or _everywhere(directory / "conf.yaml", names)
    return _serve(directory / "conf.yaml", listen, ready, again, demo=names[0] if names else "")


def _everywhere(config: Path, names: Sequence[str]) -> str | None:
    """Where a demo with these names listens, for them to be of use: on all IPv4 addresses, at the configured port.

    IPv6 if all names are such addresses.  None for the configured addresses, if these are no loopback ones, or if the
    names lead to this machine alone.
    """
    from estgw.config import fields, loading

    hosts, ports = zip(*map(fields.split_address, loading.load(config).server.listen), strict=True)
    if all(map(_is_local, names)) or not all(map(_is_local, hosts)):
        return None
    return sockets.endpoint(("::" if all(":" in name for name in names) else "0.0.0.0", ports[0]))  # noqa: S104


def _is_local(name: str) -> bool:
    """Whether a host name or an IP address leads to this machine alone."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def init(arguments: Namespace) -> int:
    """Lay out a workspace and print the next commands, or compare one with what was and is shipped."""
    directory: Path = arguments.dir or Path()
    if arguments.diff:
        for line in upgrade.report(directory):
            print(line)
        return 0
    if arguments.merged:
        workspace.require(directory)
        workspace.keep_originals(directory)
        originals = directory / workspace.SHIPPED
        print(f"{originals} has the files of estgw {__version__} now; estgw init --diff starts from them")
        return 0
    workspace.init(arguments.dir)
    folder = shlex.quote(str(arguments.dir))
    print(
        f"{folder} is ready to edit. Next, a demo in one step:\n"
        f"    estgw demo --dir {folder}\n"
        "or a CA and users of your own:\n"
        f"    {folder}/openssl-ca/create-ca --name est.example\n"
        f"    estgw passwd {folder}/users.htpasswd alice\n"
        f"    estgw check -c {folder}/conf.yaml\n"
        f"    estgw serve -c {folder}/conf.yaml"
    )
    return 0


def serve(arguments: Namespace) -> int:
    """Run the gateway."""
    path = config_file(arguments.config)
    again = ["estgw", "serve", "-c", str(path)]
    return _serve(path, arguments.listen, _say_where, again)


def _say_where(url: str, page: str | None) -> None:
    """Print the lines that a program waits for, in one write: after the first it may close the pipe."""
    # print() writes the end of the line by itself where PYTHONUNBUFFERED is set.
    sys.stdout.write(f"estgw ready {url}\n" + (f"page {page}\n" if page is not None else ""))
    sys.stdout.flush()


def check(arguments: Namespace) -> int:
    """Read everything that a gateway would read and more, and print every fault."""
    from estgw.cli import checks

    return checks.check(config_file(arguments.config))


def _serve(path: Path, listen: str | None, ready: server.Ready, again: list[str], *, demo: str | None = None) -> int:
    """Serve until a signal; `again` is the command line to suggest when an address is in use."""
    from estgw.config import fields, loading

    spawn.disown_inheritance()
    settings = loading.load(path)
    logs.configure(settings.log.format, settings.log.level)
    if listen is not None:
        try:
            fields.split_address(listen)
        except ValueError as fault:
            raise ConfigError([f"--listen {listen}: {fault}"]) from None
    try:
        if settings.server.workers > 1:
            from estgw.supervision import supervisor

            supervisor.serve(path, listen=listen, ready=lambda url: ready(url, None), demo=demo)
        else:
            from estgw.gateway import server

            server.serve(path, listen=listen, ready=ready, demo=demo)
    except OSError as fault:
        taken = _taken(fault, (listen,) if listen else settings.server.listen)
        if taken is None:
            raise
        host, port = taken
        command = shlex.join([*again, "--listen", sockets.endpoint((host, _free_port(host, port)))])
        raise ConfigError([f"{sockets.endpoint(taken)} is in use by another program; try: {command}"]) from None
    return 0


def _taken(fault: OSError, addresses: Sequence[str]) -> tuple[str, int] | None:
    """The configured address that a fault is about, if another program has its port."""
    from estgw.config.fields import split_address

    if fault.errno != errno.EADDRINUSE:
        return None
    named = (split_address(address) for address in addresses)
    return next((each for each in named if f"{sockets.endpoint(each)}: " in str(fault)), None)


def _free_port(host: str, port: int) -> int:
    """The next port that nothing listens on, or simply the next one."""
    for candidate in range(port + 1, min(port + 100, 65536)):
        with contextlib.suppress(OSError):
            sockets.bind(host, candidate).close()
            return candidate
    return port - 1


def _program(name: str) -> str:
    """How to call one of our own programs from here: by name if it is in PATH, else by its path."""
    beside = Path(sys.executable).parent / name
    if not beside.exists() or shutil.which(name) == str(beside):
        return name
    inside = beside.is_relative_to(Path.cwd())
    return shlex.quote(str(beside.relative_to(Path.cwd()) if inside else beside))


def _welcome(directory: Path, url: str, page: str | None, *, made: bool, beyond: bool) -> str:
    """The first page for a newcomer, with commands to paste."""
    anchor = shlex.quote(str(directory / workspace.ANCHOR))
    handler = shlex.quote(str(directory / "handlers/openssl/simpleenroll"))
    login = f"{workspace.DEMO_USER}:{workspace.DEMO_PASSWORD}"
    open_door = (
        f"\nOther machines reach this gateway, and the password {workspace.DEMO_PASSWORD} is public.\n"
        if beyond
        else ""
    )
    seen = f"\nSee what happens, request by request, in a browser on this machine:\n  {page}\n" if page else ""
    return f"""
A demo CA {"was made" if made else "is"} in {directory / "openssl-ca"}; its fingerprint (SHA-256) is
  {workspace.fingerprint(directory)}
{open_door}
Paste this into another terminal for a first certificate, with openssl and curl:
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=device-1 -out req.pem
  curl -sS --fail-with-body {url}/.well-known/est/simpleEnroll --anyauth -u {login} \\
    --cacert {anchor} --data-binary @req.pem -H "Content-Type: application/x-est-pkcs10" >answer.b64 \\
    && openssl base64 -d -in answer.b64 | openssl pkcs7 -inform DER -print_certs -out cert.pem || cat answer.b64
  openssl verify -CAfile {anchor} cert.pem

or with estclient, which links the request to its TLS connection:
  {_program("estclient")} enroll -u {url} -p {login} -c {anchor} \\
    --new-key ec:P-256 --subject CN=device-2 -o device-2.pem
{seen}
Then edit the policy block of {handler} and enrol again, or let this
repeat the last request on each save, on a copy of the CA:
  {_program("estgw")} watch -c {shlex.quote(str(directory / "conf.yaml"))} simpleenroll

Ten lessons that check themselves begin with
  {_program("estgw")} lab show 1 -c {shlex.quote(str(directory / "conf.yaml"))}

What happened to each request is in {shlex.quote(str(directory / "records"))}. Ctrl-C stops the gateway.
"""


def _init_fault(arguments: Namespace) -> str:
    if arguments.diff and arguments.merged:
        return "--diff and --merged are two commands; give one of them"
    return "" if arguments.dir or arguments.diff or arguments.merged else "the directory of the workspace is missing"


_LISTEN = Option("--listen", "listen here, in place of the configured addresses; port 0 is any", "ADDR:PORT")
_DEMO_NAME = Option(
    "--name",
    "a host name or IP address of this machine, for the server's certificate and the printed lines; may be given more "
    "than once, the first is printed. With one that other machines reach, the gateway listens on all addresses. "
    "(default: localhost, for this machine alone)",
    "HOST_OR_IP",
    repeatable=True,
)
_DEMO_DIR = Option("--dir", "the workspace (default: here if conf.yaml is here, else estgw-demo)", "DIR", type=Path)

COMMANDS = (
    Command(
        name="demo",
        summary="Make a workspace and its CA if they are missing, then serve.",
        run=demo,
        options=[_DEMO_DIR, _LISTEN, _DEMO_NAME],
        description="A CA that is there stays; names that are not in the server's certificate yet get a new one by it.",
        example="demo --dir lab --name est.lab.example --name 192.0.2.10",
    ),
    Command(
        name="init",
        summary="Lay out conf.yaml, handlers/ and openssl-ca/ for you to edit.",
        description="The originals are kept in .estgw/shipped. After an upgrade of estgw, --diff compares them with "
        "your files and with those that estgw ships now; take over what you want, and say so with --merged.",
        run=init,
        options=[
            Option("dir", "the directory of the workspace", "DIR", type=Path, optional=True),
            Option(
                "--diff", "show what you have changed, what newer versions have, and where the two meet (default: here)"
            ),
            Option(
                "--merged", "keep the files that estgw ships now as the originals for the next --diff (default: here)"
            ),
        ],
        fault=_init_fault,
        example="init lab",
    ),
    Command(
        name="serve",
        summary="Run the gateway.",
        description="SIGHUP reloads the configuration and all files that it names; SIGTERM and Ctrl-C stop it.",
        run=serve,
        options=[CONFIG, _LISTEN],
        example="serve -c conf.yaml",
    ),
    Command(
        name="check",
        summary="Print every fault of a configuration.",
        run=check,
        options=[CONFIG],
        example="check -c conf.yaml",
    ),
)
