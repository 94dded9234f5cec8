"""The servers under test as child processes: the gateway, Apache, lighttpd, nginx with fcgiwrap, and webhook.

Each has a copy of the same CA, the same scripts, the same key and certificate, a port of 127.0.0.1, TLS 1.2 and 1.3
without resumption, and asks for a client certificate, except webhook, which can't.  Only the gateway writes an access
log, and none of the others checks a password.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.bench import machine
from tests.kit.connection import EST
from tests.kit.processes import DEADLINE, ROOT
from tests.kit.workspace import Workspace

HANDLERS = Path(__file__).with_name("handlers")
"""The scripts that all servers run, byte for byte."""
RIVALS = ("apache", "lighttpd", "nginx", "webhook")
PROGRAMS = {"apache": ["apache2"], "nginx": ["nginx", "fcgiwrap"], "lighttpd": ["lighttpd"], "webhook": ["webhook"]}
NOBODY = "nobody"
"""The account of the other servers if the benchmark runs as root, because Apache refuses to be root."""


class Spent(NamedTuple):
    """Seconds of CPU by part of a gateway, and page faults."""

    gateway: float
    parent: float
    """The warm parent of Python scripts alone."""
    children: float
    """All scripts and workers, ended or not."""
    faults: float
    """Of the children."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    processes: tuple[subprocess.Popen[bytes], ...]
    base: str
    """The path before a script's name."""
    lab: Workspace

    @property
    def pid(self) -> int:
        return self.processes[0].pid

    def cpu(self) -> float:
        """Seconds of CPU so far, scripts excluded."""
        return sum(machine.cpu_alive(process.pid) for process in self.processes)

    def spent(self) -> Spent:
        """What it has spent so far."""
        gateway, parent = machine.cpu_itself(self.pid), machine.cpu_of_children(self.pid)
        return Spent(gateway, parent, machine.cpu(self.pid) - gateway - parent, machine.faults(self.pid))

    def forget(self) -> None:
        """Empty the CA's index, which `openssl ca` reads as a whole each time, so that all rounds cost the same."""
        os.truncate(self.lab.ca / "index.txt", 0)


def settings(server: Server) -> dict[str, Any]:
    """The configuration of a gateway."""
    found: dict[str, Any] = yaml.safe_load((server.lab.path / "bench.yaml").read_text())
    return found


def missing(names: tuple[str, ...] = RIVALS) -> dict[str, list[str]]:
    """The programs that are not installed, by server."""
    places = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = {name: [one for one in PROGRAMS[name] if not shutil.which(one, path=places)] for name in names}
    return {name: programs for name, programs in absent.items() if programs}


def lay_out(pattern: Workspace, directory: Path) -> Workspace:
    """A copy of the workspace with the benchmark's scripts."""
    lab = pattern.copy(directory)
    shutil.copytree(HANDLERS, lab.path / "bench/cgi", dirs_exist_ok=True)
    (lab.path / "log").touch()
    return lab


@contextlib.contextmanager
def gateway(pattern: Workspace, directory: Path, **changes: Mapping[str, Any]) -> Iterator[Server]:
    """The gateway as it is shipped, without records; `changes` add to sections of conf.yaml, or replace keys of them.

    It has two more operations: the scripts of all servers, raw and without authentication as in the others.
    """
    lab = lay_out(pattern, directory)
    shape = {"method": "POST", "body": "raw", "response_type": "text/plain", "raw_output": True, "runner": "exec"}
    open_to_all = {"requires": "none", "authorize": None}
    config = yaml.safe_load((lab.path / "conf.yaml").read_text())
    config |= {"server": {"listen": ["127.0.0.1:0"]}, "record": {}}
    config |= {section: {**config.get(section, {}), **values} for section, values in changes.items()}
    for name in ("trivial", "enrol"):
        config["callouts"]["operations"][name] = {**shape, **open_to_all, "handler": f"bench/cgi/{name}"}
    file = lab.path / "bench.yaml"
    file.write_text(yaml.safe_dump(config))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", "estgw", "serve", "-c", str(file)], lab.path, environment) as process:
        assert process.stdout is not None
        ready = process.stdout.readline().decode()
        assert ready.startswith("estgw ready "), (lab.path / "log").read_text()
        yield Server("estgw", int(ready.rpartition(":")[2]), (process,), f"{EST}/", lab)


@contextlib.contextmanager
def rival(name: str, pattern: Workspace, directory: Path) -> Iterator[Server]:
    """One of `RIVALS`."""
    lab = lay_out(pattern, directory)
    port = free_port()
    commands = _CONFIGURE[name](lab.path, port)
    account = None
    if os.geteuid() == 0:
        account = pwd.getpwnam(NOBODY)
        _give_away(lab.path, account)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(running(command, lab.path, environment, account)) for command in commands]
        wait_for(port, lab.path, children)
        yield Server(name, port, tuple(children), "/bench/", lab)


@contextlib.contextmanager
def running(
    command: list[str], directory: Path, environment: Mapping[str, str], account: pwd.struct_passwd | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process with a log file, in its own process group, which is killed at the end."""
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=directory,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(DEADLINE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _give_away(directory: Path, account: pwd.struct_passwd) -> None:
    for path in (directory, *directory.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def free_port() -> int:
    """A port of 127.0.0.1 for a program that can't choose one itself."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def wait_for(port: int, directory: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until a server accepts connections; the test fails if it ends instead."""
    end = time.monotonic() + DEADLINE
    while True:
        ended = [process.args for process in processes if process.poll() is not None]
        assert not ended and time.monotonic() < end, (ended, (directory / "log").read_text())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)


def _apache(directory: Path, port: int) -> list[list[str]]:
    modules = ("mpm_worker", "authz_core", "alias", "ssl", "cgid")
    loaded = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
    text = f"""
ServerRoot {directory}
DefaultRuntimeDir {directory}
PidFile {directory}/pid
ErrorLog {directory}/log
ServerName localhost
Listen 127.0.0.1:{port}
{loaded}
ScriptSock {directory}/cgid
StartServers 2
ServerLimit 2
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers 128
KeepAlive On
MaxKeepAliveRequests 0
SSLEngine on
SSLProtocol -all +TLSv1.2 +TLSv1.3
SSLCertificateFile {directory}/openssl-ca/server.pem
SSLCertificateKeyFile {directory}/openssl-ca/private/serverkey.pem
SSLCACertificateFile {directory}/openssl-ca/anchors.pem
SSLVerifyClient optional
SSLSessionCache none
SSLSessionTickets off
ScriptAlias /bench/ {directory}/bench/cgi/
<Directory />
    AllowOverride None
</Directory>
"""
    (directory / "apache.conf").write_text(text)
    return [["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", f"{directory}/apache.conf"]]


def _lighttpd(directory: Path, port: int) -> list[list[str]]:
    text = f"""
server.modules = ("mod_openssl", "mod_alias", "mod_cgi")
server.document-root = "{directory}/bench"
server.errorlog = "{directory}/log"
server.bind = "127.0.0.1"
server.port = {port}
server.max-keep-alive-requests = 65535
ssl.engine = "enable"
ssl.pemfile = "{directory}/openssl-ca/server.pem"
ssl.privkey = "{directory}/openssl-ca/private/serverkey.pem"
ssl.ca-file = "{directory}/openssl-ca/anchors.pem"
ssl.verifyclient.activate = "enable"
ssl.verifyclient.enforce = "disable"
ssl.openssl.ssl-conf-cmd = ("MinProtocol" => "TLSv1.2", "Options" => "-SessionTicket")
alias.url = ("/bench/" => "{directory}/bench/cgi/")
cgi.assign = ("" => "")
"""
    (directory / "lighttpd.conf").write_text(text)
    return [["/usr/sbin/lighttpd", "-D", "-f", f"{directory}/lighttpd.conf"]]


def _nginx(directory: Path, port: int) -> list[list[str]]:
    own = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "\n".join(f"    {name}_temp_path {directory}/{name};" for name in own)
    passed = {
        "SCRIPT_FILENAME": f"{directory}/bench/cgi/$script", "REQUEST_METHOD": "$request_method",
        "CONTENT_TYPE": "$content_type", "CONTENT_LENGTH": "$content_length", "QUERY_STRING": "$query_string",
        "SCRIPT_NAME": "$fastcgi_script_name", "SERVER_PROTOCOL": "$server_protocol", "HTTPS": "on",
        "GATEWAY_INTERFACE": "CGI/1.1", "REMOTE_ADDR": "$remote_addr", "SERVER_NAME": "$server_name",
    }  # fmt: skip
    parameters = "\n".join(f"            fastcgi_param {name} {value};" for name, value in passed.items())
    text = f"""
daemon off;
worker_processes 2;
pid {directory}/pid;
events {{}}
http {{
    access_log off;
    keepalive_requests 1000000;
{places}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/openssl-ca/server.pem;
        ssl_certificate_key {directory}/openssl-ca/private/serverkey.pem;
        ssl_client_certificate {directory}/openssl-ca/anchors.pem;
        ssl_verify_client optional;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets off;
        location ~ ^/bench/(?<script>[a-z]+)$ {{
            fastcgi_pass unix:{directory}/fcgi;
{parameters}
        }}
    }}
}}
"""
    (directory / "nginx.conf").write_text(text)
    return [
        ["/usr/sbin/fcgiwrap", "-c", "16", "-s", f"unix:{directory}/fcgi"],
        ["/usr/sbin/nginx", "-e", f"{directory}/log", "-p", str(directory), "-c", f"{directory}/nginx.conf"],
    ]


def _webhook(directory: Path, port: int) -> list[list[str]]:
    hooks = [
        {
            "id": script,
            "execute-command": f"{directory}/bench/cgi/{script}",
            "command-working-directory": f"{directory}/bench/cgi",
            "include-command-output-in-response": True,
            "pass-environment-to-command": [{"source": "raw-request-body", "envname": "HOOK_BODY"}],
        }
        for script in ("trivial", "enrol")
    ]
    (directory / "hooks.json").write_text(json.dumps(hooks))
    tls = [f"-cert={directory}/openssl-ca/server.pem", f"-key={directory}/openssl-ca/private/serverkey.pem"]
    where = ["-ip=127.0.0.1", f"-port={port}", "-urlprefix=bench", f"-hooks={directory}/hooks.json"]
    return [["/usr/bin/webhook", "-secure", "-tls-min-version=1.2", *tls, *where]]


_CONFIGURE = {"apache": _apache, "lighttpd": _lighttpd, "nginx": _nginx, "webhook": _webhook}
