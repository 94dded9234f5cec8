"""The warm parent: it has imported the modules that Python handlers use, and forks a child for each request.

The gateway starts it by exec, so no key, socket or thread of the gateway is in it.  It has one thread, and one socket,
to the gateway.  When that socket closes, it ends its children and itself.  It touches little memory, because each page
that it has written to must be copied for a child.  `warm` has the theory of operation.

Packets are lists in JSON; the first element names the packet:

    gateway   run ID SCRIPTS      one script, or a decision and a handler, each as PROGRAM FILE_LIMIT STDOUT_LIMIT, with
                                  four descriptors for each: environment, stdin, stdout, stderr
    gateway   work ID PROGRAMS REQUESTS     with one end of a socket pair: a persistent worker
    gateway   signal ID NUMBER    to the child's process group
    parent    ready               imports and warm-up are done
    child     began ID PID        about to run the script
    parent    ended ID CODE       as in `subprocess`; its group is gone
    parent    failed ID ERRNO     there is no child

Its stdout is a file that begins with the ID of its current request, from reading the packet until the fork is done.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from estgw.callout import interpreter, worker
from estgw.callout.header import Page
from estgw.callout.interpreter import Fresh
from estgw.callout.sources import Source, Sources, directory
from estgw.callout.traces import Traces

PACKET = 64 * 1024
"""Bytes of the longest packet: a path of 4 KiB fits, even if JSON escapes each character."""
LATER = 32
"""The lowest descriptor of what a second script gets: the first one finds 3 and the next ones free."""
PRELOADED = (
    "base64",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.hazmat.primitives.asymmetric.rsa",
    "cryptography.hazmat.primitives.hashes",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.hazmat.primitives.serialization.pkcs7",
    "cryptography.x509",
    "datetime",
    "estgw.register.crls",
    "estgw.register.engines",
    "estgw.register.requests",
    "json",
    "logging",
    "pathlib",
    "secrets",
    "sqlite3",
    "subprocess",
)


def main(descriptor: int, modules: Collection[str], home: str = "", preload: Sequence[str] = ()) -> NoReturn:
    """Be the warm parent; `modules` are those that Python had imported at its start.

    `home` is the gateway's private directory, which is removed when the gateway has died; `preload` are modules that
    its scripts import besides those of `PRELOADED`.
    """
    control = socket.socket(fileno=descriptor)
    os.umask(0o077)
    for name in (*PRELOADED, *preload):
        with contextlib.suppress(ImportError):  # the script that imports it gets a better message
            importlib.import_module(name)
    _warm_up()
    fresh = Fresh(modules)
    os.environ.clear()
    # A garbage collection in a child would touch, and so copy, every page.  All that exists now is never collected.
    gc.collect()
    gc.disable()
    gc.freeze()
    parent = _Parent(control, fresh)
    try:
        parent.send("ready")
        parent.serve()
    except ConnectionError:  # the gateway is gone
        parent.end_all()
        control.close()
        if home:
            _clear_up(home)
        os._exit(0)


def _clear_up(path: str) -> None:
    """Remove the gateway's directory.  The imports are here, because the contract says which modules a script finds."""
    from pathlib import Path

    from estgw.callout import home

    home.outlive(Path(path))


def _warm_up() -> None:
    """Issue a certificate and drop it: OpenSSL fills its tables on first use, here once instead of in each child."""
    from datetime import UTC, datetime, timedelta

    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, rsa
        from cryptography.hazmat.primitives.serialization import pkcs7
    except ImportError:
        return
    name = x509.Name.from_rfc4514_string("CN=nobody")
    now = datetime.now(UTC)
    keys = (ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 1024))  # noqa: S505 - for nobody
    for key in keys:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        loaded: Any = serialization.load_pem_private_key(pem, None)
        san = x509.SubjectAlternativeName([x509.DNSName("nobody.example")])
        made = x509.CertificateSigningRequestBuilder(name).add_extension(san, critical=False)
        request = x509.load_pem_x509_csr(made.sign(loaded, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        assert request.is_signature_valid
        builder = x509.CertificateBuilder(name, request.subject, request.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
        for extension in (
            x509.BasicConstraints(ca=False, path_length=None),
            x509.SubjectKeyIdentifier.from_public_key(request.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(loaded.public_key()),
            request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value,
        ):
            builder = builder.add_extension(extension, critical=False)
        issued = builder.sign(loaded, hashes.SHA256())
        x509.load_pem_x509_certificate(issued.public_bytes(serialization.Encoding.PEM))
        pkcs7.serialize_certificates([issued], serialization.Encoding.DER)


@dataclass(frozen=True)
class _Order:
    """A script to be run, as it stands in a packet, with its descriptors."""

    program: str
    file_limit: int
    stdout_limit: int
    files: Sequence[int]


@dataclass(frozen=True)
class _Child:
    """A child under way."""

    number: int
    pid: int


class _Parent:
    """The loop: packets in, children out."""

    def __init__(self, control: socket.socket, fresh: Fresh) -> None:
        self._control = control
        self._fresh = fresh
        self._sources = Sources()
        self._sources.install()
        self._children: dict[int, _Child] = {}  # by pidfd
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def send(self, *packet: object) -> None:
        """Send a packet to the gateway."""
        self._control.send(json.dumps(packet).encode())

    def serve(self) -> NoReturn:
        """Fork and reap.  Raises ConnectionError when the gateway has gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._children:
                    self._reap(key.fd)
                else:
                    self._obey()

    def _obey(self) -> None:
        packet, files, flags, _ = socket.recv_fds(self._control, PACKET, 8, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            raise ConnectionResetError
        match json.loads(packet):
            case [_, int(number), *_] if flags & socket.MSG_CTRUNC:  # there was no room for all descriptors
                self.send("failed", number, errno.EMFILE)
            case ["run", int(number), [[str(program), int(limit), _]]]:
                self._fork(number, [program], lambda source: self._run(program, source, files, limit))
            case ["run", int(number), [[str(one), int(limit), int(most)], [str(two), int(other), _]]]:
                first, second = _Order(one, limit, most, files[:4]), _Order(two, other, 0, files[4:])
                self._fork(number, [one, two], lambda source: self._run_both(first, second, source))
            case ["work", int(number), [*programs], int(requests)]:
                serve = functools.partial(worker.serve, programs, self._sources, files[0], requests, self._fresh)
                self._fork(number, programs, lambda _: serve())
            case ["signal", int(number), int(what)]:
                for child in self._children.values():
                    if child.number == number:
                        _signal(child.pid, what)
        for descriptor in files:
            os.close(descriptor)

    def _fork(self, number: int, programs: Sequence[str], child: Callable[[Source | None], NoReturn]) -> None:
        """Fork a child that runs these scripts; `child` gets the first one's code, and takes that of others itself."""
        _note(number)
        source, *_ = [self._sources.get(program) for program in programs]
        self._sources.look_beside(programs[0])
        try:
            spare = os.dup(self._control.fileno())  # so that there is a descriptor left to watch the child with
            try:
                pid = os.fork()
            finally:
                os.close(spare)
        except OSError as fault:
            _note(0)
            self.send("failed", number, fault.errno)
            return
        if pid == 0:
            # The child must never return into the loop.
            try:
                os.setsid()
                # The child reports this itself: when the gateway reads the end of the socket, it knows of every script
                # that has begun.
                self.send("began", number, os.getpid())
                child(source)
            except BaseException:  # noqa: BLE001 - a fault of ours or of the machine; the script's stderr has it
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(1)
        _note(0)
        descriptor = os.pidfd_open(pid)
        self._children[descriptor] = _Child(number, pid)
        self._selector.register(descriptor, selectors.EVENT_READ)

    def _run(self, program: str, source: Source | None, files: Sequence[int], limit: int) -> NoReturn:
        page = Page(files[0])
        environment = page.environment()
        interpreter.take_files(files[1:])
        interpreter.limit_files(limit)
        if not self._fresh.can_be_had_by_fork(program, environment):
            interpreter.start_anew(program, environment)
        interpreter.enter(program, environment, directory(program), self._fresh)
        record = _recorder(page)
        interpreter.leave(interpreter.execute(program, source), self._fresh, record)

    def _run_both(self, first: _Order, second: _Order, source: Source | None) -> NoReturn:
        """Run a decision, then the handler if the decision says yes and leaves nothing behind that it could see."""
        pages = [Page(order.files[0]) for order in (first, second)]
        one, two = (page.environment() for page in pages)
        if not all(map(self._fresh.can_be_had_by_fork, (first.program, second.program), (one, two))):
            self._run(first.program, source, first.files, first.file_limit)
        later = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, LATER) for file in second.files[1:]]
        interpreter.take_files(first.files[1:], keep=later)
        interpreter.limit_files(first.file_limit)
        interpreter.enter(first.program, one, directory(first.program), self._fresh)
        traces, record = Traces(one), _recorder(pages[0])
        code = interpreter.execute(first.program, source)
        if code != 0 or not traces.is_clean(first.program):
            interpreter.leave(code, self._fresh, record)
        code = 0 if traces.clear(self._fresh) else interpreter.BROKEN_OUTPUT
        too_much = interpreter.printed() > first.stdout_limit
        pages[0].report(code)
        if code != 0 or too_much or pages[0].is_stopped:
            os._exit(code)
        interpreter.take_files(later)
        interpreter.limit_files(second.file_limit)
        pages[1].begin()
        interpreter.enter(second.program, two, directory(second.program), self._fresh, before=traces.environment)
        record = _recorder(pages[1])
        code = interpreter.execute(second.program, self._sources.get(second.program))
        interpreter.leave(code, self._fresh, record)

    def _reap(self, descriptor: int) -> None:
        """Kill what is left of the group, report, then reap: until it is reaped, no other process can get its pid."""
        child = self._children.pop(descriptor)
        info = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert info is not None
        _signal(child.pid, signal.SIGKILL)
        try:
            self.send("ended", child.number, info.si_status if info.si_code == os.CLD_EXITED else -info.si_status)
        finally:
            os.waitpid(child.pid, 0)
            self._selector.unregister(descriptor)
            os.close(descriptor)

    def end_all(self) -> None:
        """Kill and reap all children, groups included."""
        for child in self._children.values():
            _signal(child.pid, signal.SIGKILL)
        for child in self._children.values():
            os.waitpid(child.pid, 0)


def _recorder(page: Page) -> Callable[[int], None]:
    """A function that reports an exit status in the head of an environment file, from this process alone.

    It must be made before the script runs: a process that the script forks reaches the script's end as well.
    """
    me = os.getpid()

    def record(code: int) -> None:
        if os.getpid() == me:  # not a process that the script forked
            page.report(code)

    return record


def _note(number: int) -> None:
    os.pwrite(1, interpreter.NOTE.pack(number), 0)


def _signal(pid: int, number: int) -> None:
    """Send a signal to a child's group, or to the child itself if it has not made a group yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)
    except PermissionError:  # all processes left in it have changed their user, by sudo for instance
        pass
