"""A workshop of two, made and served as a trainer does it; as root with a user id for each participant."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from estgw.workshop import plan
from estgw.workshop.plan import Seat, Workshop
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import DEADLINE, ROOT, until

_ports = itertools.count(20_000 + os.getpid() % 400 * 100, 20)
SYSTEM = Path(f"/usr/bin/python3.{sys.version_info.minor}")


def reachable_python(folder: Path) -> Path | None:
    """An interpreter with our libraries that any user may start; None if this machine has none.

    The one of a developer often lies below a home directory, or /root.
    """
    if not SYSTEM.exists() or not os.access(ROOT, os.R_OK):
        return None
    own = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / SYSTEM.name).mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "bin/python").symlink_to(SYSTEM)
    (folder / "lib" / SYSTEM.name / "site-packages").symlink_to(own)
    probe = [
        "setpriv",
        "--reuid=58001",
        "--regid=58001",
        "--clear-groups",
        "--",
        "/usr/bin/env",
        str(folder / "bin/python"),
    ]
    done = subprocess.run(
        [*probe, "-I", "-c", "import aiohttp, cryptography"], cwd="/", check=False, capture_output=True
    )
    return folder / "bin/python" if done.returncode == 0 else None


class Course:
    """A workshop on the loopback, and the commands on it."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.folder, self.python = folder, python
        self.process: subprocess.Popen[str] | None = None
        self.base = next(_ports)

    def run(self, *words: str, status: int = 0, checkout: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run `estgw workshop WORDS`, which must end with that status."""
        program = [str(self.python), "-W", "error", "-m", "estgw"]
        if self.python == Path(sys.executable) and checkout == ROOT:
            program = forked_estgw()
        command = [*program, "workshop", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=checkout, timeout=4 * DEADLINE, check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done

    def init(self, participants: int, *options: str) -> subprocess.CompletedProcess[str]:
        """Make it on ports and user ids of its own."""
        ports = ["--port", str(self.base), "--page-port", str(self.base + 6), "--trainer-port", str(self.base + 12)]
        where = ["--name", "localhost", "--name", "127.0.0.1", "--listen", "127.0.0.1"]
        # The ids as well, as a participant's processes are all that have its id.
        ports += ["--uid-base", str(self.base)]
        return self.run("init", str(self.folder), "--participants", str(participants), *where, *ports, *options)

    @property
    def workshop(self) -> Workshop:
        return plan.load(self.folder)

    def seat(self, name: str) -> Seat:
        return plan.trainer(self.workshop) if name == plan.TRAINER else plan.seat(self.workshop, name)

    @property
    def own(self) -> str:
        return str(self.folder)

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        """Serve it in the foreground; SIGTERM at the end must be a clean end, with no process left."""
        with (self.folder / "log").open("w") as log:
            command = [str(self.python), "-W", "error", "-m", "estgw", "workshop", "serve", self.own]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
            try:
                assert self.process.stdout is not None
                assert self.process.stdout.readline().startswith("starting"), (self.folder / "log").read_text()
                assert self.process.stdout.readline().startswith("workshop ready"), (self.folder / "log").read_text()
                until(self.all_up)
                yield
            finally:
                self.process.send_signal(signal.SIGTERM)
                ended = self.process.wait(DEADLINE)
                assert self.process.stdout is not None
                self.process.stdout.close()
                assert ended == 0, (self.folder / "log").read_text()

    def all_up(self) -> bool:
        try:
            return all(self.page(name, "GET", "/api/standing")[0] == 200 for name in self.workshop.ids())
        except OSError:
            return False

    def child(self, name: str) -> dict[str, Any]:
        """What the supervisor says of a process."""
        from estgw.workshop import control

        answer = control.ask(self.folder / ".run/control", do="status")
        assert answer is not None
        return next(child for child in answer["children"] if child["id"] == name)

    def page(
        self, name: str, method: str, path: str, body: bytes | None = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """A request to a page: status, and the JSON of the answer or its bytes."""
        seat = self.seat(name)
        context = ssl.create_default_context(cafile=str(seat.anchor))
        origin = f"https://127.0.0.1:{seat.page_port}"
        headers = {"Authorization": f"Bearer {token or seat.token}", "Origin": origin}
        request = urllib.request.Request(f"{origin}{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=context, timeout=DEADLINE) as response:
                content = response.read()
                return response.status, json.loads(content) if content[:1] in (b"{", b"[") else content
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read()

    def edit(self, name: str, script: str, text: str) -> Any:
        """Save a script in the editor of a participant's page."""
        from urllib.parse import urlencode

        status, found = self.page(name, "GET", f"/api/file?{urlencode({'name': script})}")
        assert (status, found["error"]) == (200, None)
        query = urlencode({"name": script, "instead": found["digest"]})
        status, saved = self.page(name, "PUT", f"/api/file?{query}", text.encode())
        assert (status, saved["error"]) == (200, None), saved
        return found

    def enrol(self, name: str, *, seconds: float = DEADLINE) -> tuple[int, bytes]:
        """Enrol with the participant's password: the status, and the body."""
        from tests.kit.csr import csr
        from tests.kit.der import armoured

        seat = self.seat(name)
        context = ssl.create_default_context(cafile=str(seat.anchor))
        label = "" if self.workshop.isolated else f"/{name}"
        url = f"https://127.0.0.1:{seat.port}/.well-known/est{label}/simpleenroll"
        import base64

        basic = base64.b64encode(f"{seat.id}:{seat.password}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/pkcs10"}
        request = urllib.request.Request(url, armoured(csr(f"{name}-device")), headers)
        try:
            with urllib.request.urlopen(request, context=context, timeout=seconds) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read()


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """An interpreter that participants reach; skips by name where user ids can't be changed."""
    if os.geteuid() != 0:
        pytest.skip("user ids of participants need root")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("unshare --mount does not work here")
    if any(ROOT.is_relative_to(private) for private in ("/tmp", "/var/tmp", "/dev/shm")):
        pytest.skip(f"participants have a directory of their own in place of that of {ROOT}")
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/opt"))
    folder.chmod(0o755)
    try:
        found = reachable_python(folder / "venv")
        if found is None:
            pytest.skip(f"{SYSTEM} with our libraries can't be reached by other users")
        yield found
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def course(python: Path) -> Iterator[Course]:
    """Two participants with a user id each, served."""
    with laid_out(python, 2) as made, made.served():
        yield made


@contextlib.contextmanager
def laid_out(python: Path, participants: int) -> Iterator[Course]:
    """A workshop where all users may come, which is removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv" if Path("/srv").is_dir() else "/opt"))
    folder.chmod(0o711)
    try:
        made = Course(folder / "course", python)
        made.init(participants, *OPTIONS)
        yield made
    finally:
        shutil.rmtree(folder)


OPTIONS = ("--memory", "400", "--tasks", "80")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    """The same with a label each, as any user may have it."""
    made = Course(tmp_path_factory.mktemp("shared") / "course", Path(sys.executable))
    made.init(2, "--isolation", "labels")
    with made.served():
        yield made
