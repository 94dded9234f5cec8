"""What each command of `estgw` does; `cli` has the grammar."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import shlex
import shutil
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from estgw import logs
from estgw.auth import digest, users
from estgw.callout import contract, process, scratch
from estgw.callout.home import Home
from estgw.cli import pending, trial, workspace
from estgw.config import csrattrs_yaml, model, routes
from estgw.config.model import split_address
from estgw.errors import ConfigError, RequestError
from estgw.est import encoding
from estgw.est.csrattrs import CsrAttrs, decode_csrattrs
from estgw.gateway import advice, server, state
from estgw.supervision import supervisor


def demo(arguments: Namespace) -> int:
    """Make what is missing, serve, and say on stderr what can be pasted."""
    process.disown_inheritance()
    directory: Path = arguments.dir or (Path() if Path("conf.yaml").exists() else Path("estgw-demo"))
    made = workspace.prepare_demo(directory)

    def ready(url: str) -> None:
        print(_welcome(directory, url, made=made), file=sys.stderr, flush=True)
        print(f"estgw ready {url}", flush=True)

    return _serve(directory / "conf.yaml", arguments.listen, ready)


def init(arguments: Namespace) -> int:
    """Lay out a workspace and say what to do with it."""
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
    return _serve(arguments.config, None, lambda url: print(f"estgw ready {url}", flush=True))


def check(arguments: Namespace) -> int:
    """Read everything that a gateway would read, and say what is wrong."""
    found = advice.advice(state.load(arguments.config).config)
    for sentence in found:
        print(f"{arguments.config}: {sentence}")
    print(f"{arguments.config}: {'it can be served as it is' if found else 'all well'}")
    return 0


def env(arguments: Namespace) -> int:
    """Print a handler's environment; the files it names lie in a new directory that stays."""
    logs.configure("auto", "warning")
    gateway = trial.load_state(arguments.config)
    directory = Path(tempfile.mkdtemp(prefix="estgw-env-"))
    try:
        call = asyncio.run(trial.prepare(gateway, _trial(arguments), directory))
        environment = contract.environment(call)
    except BaseException as fault:
        shutil.rmtree(directory)
        if isinstance(fault, RequestError):
            raise ConfigError([f"the gateway would answer {fault.status}: {fault.public or fault}"]) from None
        raise
    for name, value in environment.items():
        print(f"{name}={shlex.quote(value)}")
    return 0


def run(arguments: Namespace) -> int:
    """Run a handler and print what would have gone to the client and to the log."""
    process.disown_inheritance()
    logs.configure("auto", "warning")
    gateway = trial.load_state(arguments.config)
    with contextlib.closing(Home(scratch.place())) as home:
        directory = home.directory()
        directory.mkdir(mode=0o700)
        report = asyncio.run(trial.run(gateway, _trial(arguments), directory))
    for line in report.stderr:
        print(f"stderr: {logs.escape(line)}", file=sys.stderr)
    if report.reason:
        print(f"log: {logs.escape(report.reason)}", file=sys.stderr)
    response = report.response
    print(f"HTTP/1.1 {response.status} {response.reason}")
    for name, value in response.headers.items():
        print(f"{name}: {value}")
    print()
    body = response.body if isinstance(response.body, bytes) else b""
    sys.stdout.flush()
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
    return 0 if response.status < 400 else 1


def csrattrs_explain(arguments: Namespace) -> int:
    """Print CSR attributes as YAML."""
    attrs = decode_csrattrs(encoding.decode(_content(arguments.file), ()))
    sys.stdout.write(csrattrs_yaml.write(attrs))
    return 0


def csrattrs_encode(arguments: Namespace) -> int:
    """Print the base64 of CSR attributes in YAML, as the gateway would send it."""
    attrs = csrattrs_yaml.read(_content(arguments.file), Path(arguments.file)) or CsrAttrs()
    sys.stdout.write(encoding.encode_base64(attrs.encode()).decode())
    return 0


def cmc_explain(arguments: Namespace) -> int:
    """Print a CMC message in words; what that takes is loaded only now."""
    from estgw.cmc.explain import explain

    sys.stdout.write(explain(_content(arguments.file)))
    return 0


def _content(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as fault:
        raise ConfigError([f"{name}: {fault.strerror}"]) from None


def pending_list(arguments: Namespace) -> int:
    """One line a request, the oldest first."""
    found = pending.requests(_pending_folders(arguments.config))
    found = [request for request in found if arguments.all or request.state in ("waiting", "approved")]
    if arguments.json:
        print(json.dumps([request.describe() for request in found], indent=2))
        return 0
    for request in found:
        what = f"{request.facts.get('EST_OPERATION')} of {request.facts.get('EST_CSR_SUBJECT')}"
        line = f"{request.id[:12]}  {request.state:8}  {request.since:%Y-%m-%d %H:%M}  {what}, by {request.client}"
        print(logs.escape(line))
    return 0


def pending_show(arguments: Namespace) -> int:
    """All about one request."""
    facts = pending.find(_pending_folders(arguments.config), arguments.id).describe()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        for text in value if isinstance(value, list) else [value]:
            if text:
                print(logs.escape(f"{name}: {text}"))
    return 0


def pending_approve(arguments: Namespace) -> int:
    """Let a request be issued."""
    request = pending.approve(_pending_folders(arguments.config), arguments.id)
    print(f"{request.id[:12]}: approved; the certificate is issued when the client comes back")
    return 0


def pending_refuse(arguments: Namespace) -> int:
    """Let a client be told no."""
    request = pending.refuse(_pending_folders(arguments.config), arguments.id, arguments.reason)
    print(f"{request.id[:12]}: refused; the client is told so when it comes back")
    return 0


def _pending_folders(config_file: Path) -> list[Path]:
    """Where the handlers of a configuration keep what waits: in the directory of each CA."""
    served = routes.routes(routes.build(model.load(config_file)))
    return sorted({route.ca_dir / "pending" for route in served})


def passwd(arguments: Namespace) -> int:
    """Set a user's password, for Basic or for Digest."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password for {arguments.user}: ")
        if getpass.getpass("Once more: ") != password:
            raise ConfigError(["the two differ; nothing was changed"])
    else:
        password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise ConfigError(["an empty password; nothing was changed"])
    try:
        if arguments.digest:
            digest.set_password(arguments.file, arguments.realm, arguments.user, password)
        else:
            users.set_password(arguments.file, arguments.user, password)
    except ValueError as fault:
        raise ConfigError([str(fault)]) from None
    return 0


def _serve(config_file: Path, listen: str | None, ready: server.Ready) -> int:
    process.disown_inheritance()
    settings = model.load(config_file)
    logs.configure(settings.log.format, settings.log.level)
    if listen is not None:
        try:
            split_address(listen)
        except ValueError as fault:
            raise ConfigError([f"--listen {listen}: {fault}"]) from None
    for sentence in advice.advice(settings):
        logs.log.warning("advice", text=sentence)
    if settings.server.workers > 1:
        supervisor.serve(config_file, listen=listen, ready=ready)
    else:
        server.serve(config_file, settings, listen=listen, ready=ready)
    return 0


def _trial(arguments: Namespace) -> trial.Trial:
    return trial.Trial(
        operation=arguments.operation,
        label=arguments.label,
        csr_file=arguments.csr,
        client_certificate=arguments.client_cert,
        user=arguments.user,
    )


def _program(name: str) -> str:
    """How to call one of our own programs from here: by name if the PATH has it, else where this one lies."""
    beside = Path(sys.executable).parent / name
    if not beside.exists() or shutil.which(name) == str(beside):
        return name
    inside = beside.is_relative_to(Path.cwd())
    return shlex.quote(str(beside.relative_to(Path.cwd()) if inside else beside))


def _welcome(directory: Path, url: str, *, made: bool) -> str:
    """The first page that a newcomer sees: everything on it can be pasted."""
    anchor = shlex.quote(str(directory / workspace.ANCHOR))
    handler = shlex.quote(str(directory / "handlers/openssl/simpleenroll"))
    login = f"{workspace.DEMO_USER}:{workspace.DEMO_PASSWORD}"
    return f"""
A demo CA {"was made" if made else "is"} in {directory / "openssl-ca"}; its fingerprint (SHA-256) is
  {workspace.fingerprint(directory)}

Paste this into another terminal for a first certificate, with openssl and curl:
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -subj /CN=device-1 -out req.pem
  curl {url}/.well-known/est/simpleEnroll --anyauth -u {login} \\
    --cacert {anchor} --data-binary @req.pem -H "Content-Type: application/x-est-pkcs10" \\
    | openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out cert.pem
  openssl verify -CAfile {anchor} cert.pem

or with estclient, which links the request to its TLS connection:
  {_program("estclient")} enroll -u {url} -p {login} -c {anchor} \\
    --new-key ec:P-256 --subject CN=device-2 -o device-2.pem

Then edit the policy block of {handler} and enrol again. Ctrl-C stops the gateway.
"""
