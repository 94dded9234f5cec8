"""The warm parent and its workers: how they run, and what happens when one of them dies."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from estgw.callout import job, process, runners, warm
from estgw.callout.language import Language, language
from estgw.callout.process import CouldNotStart, Limits, Outcome
from estgw.callout.runners import Runners
from tests.callout.running import ENV, LIMITS, Running, quick, running, script
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.processes import ROOT, alive, dead, until
from tests.kit.workspace import Workspace


@pytest.fixture
def machine(forked: None) -> Iterator[Running]:
    """With a forked warm parent; a test that needs one as a user has it takes `running`."""
    with running() as made:
        until(lambda: made.warm.is_ready)
        yield made


def pid_of(machine: Running) -> int:
    assert machine.warm.pid is not None
    return machine.warm.pid


def begin(
    machine: Running, program: Path, limits: Limits = LIMITS, runner: str = "fork"
) -> concurrent.futures.Future[Outcome]:
    future: concurrent.futures.Future[Outcome] = machine.submit(machine.runners.run(runner, program, ENV, b"", limits))
    return future


def begun(directory: Path) -> int:
    """Wait for a script that has written its process id."""
    text: str = until(lambda: (directory / "pid").exists() and (directory / "pid").read_text())  # type: ignore[assignment]
    (directory / "pid").unlink()
    return int(text)


TELL = "import os\nwith open('pid.new', 'w') as f:\n    f.write(str(os.getpid()))\nos.rename('pid.new', 'pid')\n"
"""The first lines of a script. They tell the test that it has begun."""


def replaced(machine: Running, before: int) -> int:
    return until(lambda: machine.warm.pid if machine.warm.pid not in (None, before) else None)


NEIGHBOURS: set[int] = set()


def children(pid: int | str = "self") -> list[int]:
    """The children of a process. For this process, without those that ran before the test, such as a shared gateway."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, task.read_text().split())
    return [child for child in found if pid != "self" or child not in NEIGHBOURS]


@pytest.fixture(autouse=True)
def neighbours() -> Iterator[None]:
    """Note the children that this process had before the test began."""
    NEIGHBOURS.clear()
    NEIGHBOURS.update(children())
    yield
    NEIGHBOURS.clear()


# How it runs.


def test_the_parent_is_small_and_inherits_nothing_of_the_gateway(monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_OF_THE_GATEWAY", "1")
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        with running() as machine:
            machine.run("fork", script(tmp_path, "pass"))
            place = Path(f"/proc/{pid_of(machine)}")
            status = (place / "status").read_text()
            assert "Threads:\t1\n" in status
            memory = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
            assert memory < 60_000
            assert b"SECRET" not in (place / "environ").read_bytes()
            until(lambda: len(list((place / "fd").iterdir())) == 5)  # the pidfd of the script may still be open
            links = {number.name: os.readlink(number) for number in (place / "fd").iterdir()}
            assert links.pop("0") == os.devnull
            assert ["estgw-warm-std" in links.pop(number) for number in "12"] == [True, True]
            assert sorted(link.partition(":")[0] for link in links.values()) == ["anon_inode", "socket"]
            assert os.getsid(pid_of(machine)) == pid_of(machine)
            assert os.readlink(place / "cwd") == "/"


def test_the_parent_is_a_new_interpreter_and_no_fork_of_the_gateway(tmp_path):
    with running() as machine:
        machine.run("fork", script(tmp_path, "pass"))
        assert os.readlink(f"/proc/{pid_of(machine)}/exe") == os.path.realpath(sys.executable)
        assert Path(f"/proc/{pid_of(machine)}/cmdline").read_bytes().startswith(sys.executable.encode() + b"\0-c\0")


def test_common_imports_of_scripts_are_loaded_before_the_fork(machine, tmp_path):
    text = """
import sys
wanted = "base64 cryptography.x509 cryptography.hazmat.primitives.serialization.pkcs7 sqlite3 json subprocess"
print([name for name in wanted.split() if name not in sys.modules], "asyncio" in sys.modules, "pydantic" in sys.modules)
"""
    assert machine.run("fork", script(tmp_path, text)).stdout == b"[] False False\n"


def test_a_module_that_the_gateway_names_is_imported_before_the_fork(tmp_path):
    async def run() -> bytes:
        parent = warm.Warm()
        parent.start(("colorsys",))
        try:
            ended = await parent.run(script(tmp_path, "import sys; print('colorsys' in sys.modules)"), ENV, b"", LIMITS)
        finally:
            parent.close()
        return ended.stdout

    assert asyncio.run(run()) == b"True\n"


def test_a_module_named_later_is_loaded_by_the_next_parent(machine, tmp_path):
    async def name() -> None:
        machine.warm.start(("colorsys",))

    program = script(tmp_path, "import sys; print('colorsys' in sys.modules)")
    machine.do(name())
    assert machine.run("fork", program).stdout == b"False\n"
    former = pid_of(machine)
    os.kill(former, signal.SIGKILL)
    until(lambda: machine.warm.pid != former)
    assert machine.run("fork", program).stdout == b"True\n"


@pytest.mark.parametrize("enabled", [True, False])
def test_the_cmc_service_is_loaded_only_where_fullcmc_is_enabled(own_lab, enabled):
    own_lab.script("handlers/python/csrattrs", "#!/usr/bin/env python3\nimport sys\n"
                   "print('estgw.cmc_service.service' in sys.modules, file=sys.stderr)\n")  # fmt: skip
    settings = {"callouts": {"operations": {"fullcmc": {"enabled": enabled}}}}
    with running_gateway(own_lab, settings, fresh=True) as gateway:
        gateway.get("python/csrattrs")
        assert gateway.wait_for("handler stderr", line=str(enabled))


def test_scripts_are_children_of_the_parent_which_collects_them(tmp_path):
    program = script(tmp_path, "import os; print(os.getppid())")
    with running() as machine:
        for _ in range(3):
            assert int(machine.run("fork", program).stdout) == pid_of(machine)
        assert children() == [pid_of(machine)]
        until(lambda: children(pid_of(machine)) == [])


# Which scripts it runs.

OURS, PYTHON, OTHER = Language.OURS, Language.PYTHON, Language.OTHER
MINOR = f"python3.{sys.version_info.minor}"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (f"#!{sys.executable}", OURS),
        (f"#! {sys.executable} ", OURS),
        ("#!/usr/bin/env python3", OURS),
        ("#!/usr/bin/env python", OURS),
        (f"#!/usr/bin/env {MINOR}", OURS),
        ("#!/usr/bin/env python3.2", PYTHON),
        ("#!/usr/bin/env -S python3 -u", OTHER),
        ("#!/usr/bin/env python3 -u", PYTHON),
        (f"#!{sys.executable} -I", PYTHON),
        ("#!/opt/other/bin/python3", PYTHON),
        ("#!/opt/other/bin/python3.2", PYTHON),
        ("#!/usr/bin/python2", OTHER),
        ("#!/bin/bash", OTHER),
        ("#!/usr/bin/env bash", OTHER),
        ("#!/usr/bin/env", OTHER),
        ("#!/usr/bin/env pypy3", OTHER),
        ("#!", OTHER),
        ("#!/usr/bin/pythonista", OTHER),
        ("print()", OTHER),
        ("", OTHER),
    ],
)
def test_the_language_of_a_script_follows_its_first_line(tmp_path, line, wanted):
    program = tmp_path / "handler"
    program.write_text(f"{line}\npass\n")
    program.chmod(0o755)
    assert language(program) is wanted
    program.chmod(0o644)
    assert language(program) is OTHER


def test_a_python_of_another_environment_is_not_ours(tmp_path):
    """It has other libraries, although it may be the same program."""
    other = tmp_path / "venv/bin/python3"
    other.parent.mkdir(parents=True)
    other.symlink_to(os.path.realpath(sys.executable))
    (tmp_path / "venv/pyvenv.cfg").touch()
    program = tmp_path / "handler"
    program.write_text(f"#!{other}\n")
    program.chmod(0o755)
    assert language(program) is PYTHON


def test_a_missing_file_or_a_directory_has_another_language(tmp_path):
    assert language(tmp_path / "nothing") is OTHER
    assert language(tmp_path) is OTHER


@pytest.mark.parametrize(
    ("runner", "forks"),
    [("auto", {OURS}), ("exec", set()), ("fork", {OURS, PYTHON}), ("pool", {OURS, PYTHON})],
)
def test_a_script_in_another_language_is_started_by_exec(runner, forks):
    assert {each for each in Language if runners.KINDS[runners.choose(runner, each)].needs_warm} == forks


def test_without_a_warm_parent_every_runner_uses_exec(tmp_path):
    program = script(tmp_path, "import os; print(os.getppid())")
    for runner in ("auto", "exec", "fork", "pool"):
        outcome = asyncio.run(Runners().run(runner, program, ENV, b"", LIMITS))
        assert int(outcome.stdout) == os.getpid()


def test_a_script_rewritten_in_another_language_uses_exec_at_once(machine, tmp_path):
    program = script(tmp_path, "import os; print(os.getppid())")
    assert int(machine.run("auto", program).stdout) == pid_of(machine)
    program.write_text("#!/bin/bash\necho $PPID\n")
    assert int(machine.run("auto", program).stdout) == os.getpid()


# Death of the parent.


def test_a_parent_that_dies_is_replaced_at_once(tmp_path):
    program = script(tmp_path, "print('served')")
    with running() as machine:
        until(lambda: machine.warm.is_ready)
        first = pid_of(machine)
        with capture_logs() as lines:
            os.kill(first, signal.SIGKILL)
            second = replaced(machine, first)
            assert machine.run("fork", program).stdout == b"served\n"
        assert [(line["event"], line["code"]) for line in lines] == [("the warm parent died", -9)]
        assert children() == [second]


def test_a_running_script_goes_on_after_the_parent_died(machine, tmp_path):
    text = TELL + "import subprocess, sys, time\nchild = subprocess.Popen(['sleep', '60'])\ntime.sleep(0.5)\n"
    future = begin(machine, script(tmp_path, text + "print(child.pid)\nsys.exit(77)"))
    begun(tmp_path)
    first = pid_of(machine)
    os.kill(first, signal.SIGKILL)
    outcome = future.result(20)
    assert outcome.exit == 77
    until(functools.partial(dead, int(outcome.stdout)))  # a process that it leaves behind is killed


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_an_orphan_that_dies_without_a_report_has_an_unknown_status(machine, tmp_path, end):
    future = begin(machine, script(tmp_path, TELL + f"import time\ntime.sleep(0.5)\n{end}"))
    begun(tmp_path)
    os.kill(pid_of(machine), signal.SIGKILL)
    outcome = future.result(20)
    assert (outcome.exit, outcome.signal) == (None, None)


def test_an_orphan_is_killed_at_its_timeout(machine, tmp_path):
    future = begin(machine, script(tmp_path, TELL + "import time\ntime.sleep(60)"), quick(1))
    pid = begun(tmp_path)
    os.kill(pid_of(machine), signal.SIGKILL)
    assert future.result(20).timed_out
    assert not alive(pid)


def test_an_orphan_is_killed_when_it_is_cancelled(machine, tmp_path):
    future = begin(machine, script(tmp_path, TELL + "import time\ntime.sleep(60)"))
    pid = begun(tmp_path)
    first = pid_of(machine)
    os.kill(first, signal.SIGKILL)
    replaced(machine, first)
    future.cancel()
    until(functools.partial(dead, pid))


def test_a_cancellation_while_the_parent_dies_kills_the_script(machine, tmp_path):
    """The order to kill is lost with the parent, and its successor does not know of it."""
    future = begin(machine, script(tmp_path, TELL + "import time\ntime.sleep(60)"))
    pid = begun(tmp_path)
    os.kill(pid_of(machine), signal.SIGSTOP)
    future.cancel()
    machine.do(asyncio.sleep(0.1))
    os.kill(pid_of(machine), signal.SIGKILL)
    until(functools.partial(dead, pid))


def test_requests_that_a_dead_parent_had_not_begun_are_served(machine, tmp_path):
    first = pid_of(machine)
    os.kill(first, signal.SIGSTOP)
    futures = [begin(machine, script(tmp_path, f"print({n})", name=f"h{n}")) for n in range(30)]
    machine.do(asyncio.sleep(0.1))
    os.kill(first, signal.SIGKILL)
    assert [future.result(20).stdout for future in futures] == [f"{n}\n".encode() for n in range(30)]


def test_only_the_request_that_the_parent_died_at_is_lost(machine, tmp_path):
    pipe = tmp_path / "pipe"  # opening it blocks forever
    os.mkfifo(pipe)
    stuck = machine.submit(machine.warm.run(pipe, ENV, b"", LIMITS))
    futures = [begin(machine, script(tmp_path, f"print({n})", name=f"h{n}")) for n in range(30)]
    machine.do(asyncio.sleep(0.2))
    os.kill(pid_of(machine), signal.SIGKILL)
    with pytest.raises(CouldNotStart, match=r"pipe: the warm parent died at it"):
        stuck.result(20)
    assert [future.result(20).stdout for future in futures] == [f"{n}\n".encode() for n in range(30)]


def test_a_script_that_has_begun_is_not_run_again(machine, tmp_path):
    """The parent reports that the script began and dies with an unread packet; the kernel reports that error first."""
    program = script(tmp_path, TELL + "with open('times', 'a') as f:\n    f.write('.')\nprint('served')")
    other = script(tmp_path, "print('other')", name="other")

    async def both() -> list[Outcome]:
        parent = pid_of(machine)
        one = asyncio.ensure_future(machine.runners.run("fork", program, ENV, b"", LIMITS))
        await asyncio.sleep(0)
        begun(tmp_path)  # until this function ends, the event loop reads nothing
        os.kill(parent, signal.SIGSTOP)
        two = asyncio.ensure_future(machine.runners.run("fork", other, ENV, b"", LIMITS))
        asyncio.get_running_loop().call_soon(os.kill, parent, signal.SIGKILL)
        asyncio.get_running_loop().call_soon(until, lambda: not alive(parent))
        return [await one, await two]

    with capture_logs():
        outcomes = machine.do(both())
    assert [outcome.stdout for outcome in outcomes] == [b"served\n", b"other\n"]
    assert (tmp_path / "times").read_text() == "."


def test_each_death_of_the_parent_costs_at_most_one_request(machine, tmp_path):
    program = script(tmp_path, "import time; time.sleep(0.02); print('served')")
    results: list[Any] = []

    async def client() -> None:
        for _ in range(15):
            try:
                results.append((await machine.runners.run("fork", program, ENV, b"", LIMITS)).stdout)
            except CouldNotStart as fault:
                results.append(fault)

    async def fire() -> None:
        for _ in range(3):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(until, lambda: machine.warm.is_ready)
            os.kill(pid_of(machine), signal.SIGKILL)

    async def scene() -> None:
        await asyncio.gather(fire(), *(client() for _ in range(8)))

    with capture_logs():
        machine.do(scene())
    assert len(results) == 120
    assert results.count(b"served\n") >= 117, results


def test_a_parent_that_hangs_is_replaced(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PATIENCE", 0.3)
    monkeypatch.setattr(process, "TERM_GRACE", 0.1)
    future = begin(machine, script(tmp_path, TELL + "import time\ntime.sleep(60)"), quick(0.5))
    pid, first = begun(tmp_path), pid_of(machine)
    os.kill(first, signal.SIGSTOP)
    assert future.result(20).timed_out
    assert not alive(pid)
    assert replaced(machine, first)
    assert machine.run("fork", script(tmp_path, "print('served')")).stdout == b"served\n"


def test_a_parent_that_never_gets_ready_is_given_up_after_some_tries(tmp_path, monkeypatch):
    program = script(tmp_path, "print('served')")
    good = warm._BEGIN
    monkeypatch.setattr(warm, "_BEGIN", "raise SystemExit('a bad installation')")
    with capture_logs() as lines, running() as machine:
        with pytest.raises(CouldNotStart, match="the warm parent died"):
            machine.run("fork", program)
        assert len(lines) >= warm.STILLBORN
        assert lines[0]["stderr"] == "a bad installation\n"
        monkeypatch.setattr(warm, "_BEGIN", good)
        assert machine.run("fork", program).stdout == b"served\n"


def test_a_parent_without_an_interpreter_is_reported_and_recovers(machine, tmp_path, monkeypatch):
    """An upgrade of Python during operation can remove the interpreter."""
    program = script(tmp_path, "print('served')")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    first = pid_of(machine)
    with capture_logs():
        os.kill(first, signal.SIGKILL)
        until(lambda: machine.warm.pid is None or None)
        with pytest.raises(CouldNotStart, match="no warm parent: No such file"):
            machine.do(machine.warm.run(program, ENV, b"", LIMITS))
        monkeypatch.undo()
        assert machine.run("fork", program).stdout == b"served\n"


def test_closing_the_parent_ends_running_scripts_and_their_children(machine, tmp_path):
    text = TELL + "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    future = begin(machine, script(tmp_path, text))
    pid, first = begun(tmp_path), pid_of(machine)

    async def close() -> None:
        machine.warm.close()
        assert not alive(pid)
        assert not alive(first)
        assert children() == []

    machine.do(close())
    outcome = future.result(20)
    assert (outcome.exit, outcome.signal) == (None, None)


def test_the_parent_and_its_scripts_die_with_the_gateway(tmp_path):
    text = TELL + "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    program = script(tmp_path, text)
    gateway = f"""
import asyncio, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from estgw.callout.process import Limits
from estgw.callout.warm import Warm
warm = Warm()
asyncio.run(warm.run(Path({str(program)!r}), {ENV!r}, b"", Limits(60, 65536, 65536)))
"""
    with subprocess.Popen([sys.executable, "-c", gateway]) as running_one:
        pid = begun(tmp_path)
        (parent,) = children(running_one.pid)
        offspring = until(lambda: children(pid))
        running_one.kill()
    for each in (parent, pid, *offspring):
        until(functools.partial(dead, each))


# Death of a worker.


def test_a_dead_idle_worker_is_replaced(machine, tmp_path):
    program = script(tmp_path, "import os; print(os.getpid())")
    first = int(machine.run("pool", program).stdout)
    os.kill(first, signal.SIGKILL)
    until(functools.partial(dead, first))
    assert int(machine.run("pool", program).stdout) != first
    until(lambda: first not in children(pid_of(machine)))


def test_a_worker_that_dies_costs_only_its_request(machine, tmp_path):
    program = script(tmp_path, TELL + "import time\ntime.sleep(1)\nprint('served')")
    future = begin(machine, program, runner="pool")
    os.kill(begun(tmp_path), signal.SIGSEGV)
    assert future.result(20).signal == signal.SIGSEGV
    assert machine.run("pool", program).stdout == b"served\n"


def test_a_worker_goes_on_serving_after_the_parent_died(machine, tmp_path):
    program = script(tmp_path, TELL + "import os, time\ntime.sleep(0.3)\nprint(os.getpid())")
    future = begin(machine, program, runner="pool")
    worker = begun(tmp_path)
    first = pid_of(machine)
    os.kill(first, signal.SIGKILL)
    assert int(future.result(20).stdout) == worker
    replaced(machine, first)
    assert int(machine.run("pool", program).stdout) == worker
    machine.loop.call_soon_threadsafe(machine.pool.close)
    until(functools.partial(dead, worker))


def test_an_orphaned_worker_is_killed_at_its_timeout(machine, tmp_path):
    future = begin(machine, script(tmp_path, TELL + "import time\ntime.sleep(60)"), quick(1), runner="pool")
    worker = begun(tmp_path)
    os.kill(pid_of(machine), signal.SIGKILL)
    assert future.result(20).timed_out
    until(functools.partial(dead, worker))


def test_a_worker_that_the_parent_died_at_costs_only_its_request(machine, tmp_path):
    pipe, program = tmp_path / "pipe", script(tmp_path, "print('served')")
    os.mkfifo(pipe)
    stuck = machine.submit(machine.pool.run(pipe, ENV, b"", LIMITS))
    future = begin(machine, program, runner="pool")
    machine.do(asyncio.sleep(0.2))
    with capture_logs():
        os.kill(pid_of(machine), signal.SIGKILL)
        with pytest.raises(CouldNotStart, match="the warm parent died at it"):
            stuck.result(20)
        assert future.result(20).stdout == b"served\n"


# In a gateway.

CACERTS = """#!/usr/bin/env python3
import os, sys, time
with open(os.path.join(os.environ["EST_CA_DIR"], "cacert.pem")) as file:
    print(file.read())
print(os.getppid(), os.getpid(), file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def handlers_lab(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    own = lab.copy(tmp_path_factory.mktemp("warm"))
    own.script("warm/cacerts", CACERTS)
    own.script("warm/slow", CACERTS + "time.sleep(4)\nsys.stdout.flush()\nos._exit(0)")
    return own


def labels(handlers_lab: Workspace, **settings: Any) -> dict[str, Any]:
    def label(name: str, **own: Any) -> dict[str, Any]:
        return {"operations": {"cacerts": {"handler": str(handlers_lab.path / "warm" / name), **own}}}

    return {
        "labels": {
            "auto": label("cacerts"),
            "exec": label("cacerts", runner="exec"),
            "pool": label("cacerts", runner="pool"),
            "slow": label("slow"),
        },
        "callouts": settings,
    }


def ask(gateway: Gateway, label: str) -> list[int]:
    """The process ids of a script's parent and of the script."""
    before = len(gateway.log)
    assert gateway.get(f"/.well-known/est/{label}/cacerts").status == 200
    return [int(word) for word in gateway.wait_for("handler stderr", after=before)["line"].split()]


def test_a_gateway_runs_python_handlers_by_the_configured_runner(handlers_lab):
    with running_gateway(handlers_lab, labels(handlers_lab), fresh=True) as gateway:
        (parent,) = children(gateway.process.pid)
        assert ask(gateway, "auto")[0] == parent
        assert ask(gateway, "exec")[0] == gateway.process.pid
        worker = ask(gateway, "pool")
        assert worker[0] == parent
        assert ask(gateway, "pool") == worker
        # A reload keeps the parent and ends the workers.
        assert gateway.reload()["event"] == "reloaded"
        assert ask(gateway, "auto")[0] == parent
        assert ask(gateway, "pool")[0] == parent
        until(functools.partial(dead, worker[1]))
        until(lambda: children(gateway.process.pid) == [parent] or None)
        # The new configuration makes exec the default, and this label sets no runner of its own.
        gateway.configure(labels(handlers_lab, runner="exec"))
        gateway.reload()
        assert ask(gateway, "auto")[0] == gateway.process.pid
    assert not alive(parent)


def test_a_gateway_whose_warm_parent_dies_starts_another(handlers_lab):
    with running_gateway(handlers_lab, labels(handlers_lab), fresh=True) as gateway:
        (first,) = children(gateway.process.pid)
        ask(gateway, "auto")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(gateway.get, "/.well-known/est/slow/cacerts")
            until(lambda: children(first))
            os.kill(first, signal.SIGKILL)
            second = ask(gateway, "auto")[0]
            assert second != first
            assert slow.result().status == 500
        assert gateway.wait_for("the warm parent died")["code"] == -9
        assert any("how it ended is unknown" in line.get("reason", "") for line in gateway.access)
        assert children(gateway.process.pid) == [second]


def test_a_gateway_that_is_killed_leaves_no_process(handlers_lab):
    gone = False
    with (
        contextlib.suppress(AssertionError),
        running_gateway(handlers_lab, labels(handlers_lab), fresh=True) as gateway,
    ):
        (parent,) = children(gateway.process.pid)
        worker = ask(gateway, "pool")[1]
        gateway.process.kill()
        gateway.process.wait()
        for each in (parent, worker):
            until(functools.partial(dead, each))
        gone = True  # the context manager then complains that the gateway did not end well
    assert gone


def test_a_gateway_without_python_handlers_starts_no_parent(handlers_lab):
    with running_gateway(handlers_lab, {"labels": None}, fresh=True) as gateway:
        assert children(gateway.process.pid) == []


def test_the_parent_starts_before_a_key_is_read(own_lab, monkeypatch):
    from estgw.gateway import state

    class Early(Exception):
        pass

    def context(*_: object) -> None:
        assert made.warm.pid is not None
        raise Early

    own_lab.script("handlers/openssl/cacerts", CACERTS)
    monkeypatch.setattr(state, "_context", context)
    with running() as made:

        async def load() -> None:
            made.warm.close()
            with pytest.raises(Early):
                state.load(own_lab.path / "conf.yaml", state.ProcessResources(made.warm))

        made.do(load())


def test_pool_is_refused_for_a_script_that_is_not_python(own_lab):
    import yaml

    from estgw.gateway import state

    path = own_lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    data["callouts"]["operations"]["simpleenroll"] = {"runner": "pool"}
    path.write_text(yaml.safe_dump(data))
    (fault,) = state.load(path).label_faults[None]
    assert fault.endswith("simpleenroll: the runner pool is for Python scripts; auto and exec are for all")


def test_the_parent_starts_within_seconds():
    """Not a benchmark: a parent that takes many seconds would be a blunder."""
    began = time.monotonic()
    with running() as machine:
        until(lambda: machine.warm.is_ready or None)
    assert time.monotonic() - began < 15


def test_a_shipped_script_imports_nothing_but_its_own_modules_in_a_child():
    """Each import in a child is paid for by each request: those of the register have taken 20 ms."""
    folder = ROOT / "handlers/python"
    load = "for name in forkserver.PRELOADED: importlib.import_module(name)"
    own = "import ca, csr, policy, settings"
    code = f"import importlib, sys\nfrom estgw.callout import forkserver\n{load}\nbefore = set(sys.modules)\n{own}\n"
    code += "print(*sorted(set(sys.modules) - before))"
    told = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert {name for name in told.split() if not (folder / f"{name}.py").exists()} == set()
