"""A decision and the handler that follows it in one process: each finds what it would find in a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estgw.callout import process
from estgw.callout.process import Limits, Outcome, Script
from tests.callout.alike import ALIKE, NOT_IN_A_WORKER, STDIN
from tests.callout.running import ENV, LIMITS, Running, quick, running, script
from tests.callout.test_runners import ADDRESS, STUMBLE
from tests.kit.cases import some
from tests.kit.processes import dead, until

YES = "import os, policy\nprint('yes', os.getcwd(), flush=True)"


@pytest.fixture(scope="module")
def machine() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture(params=["fork", "pool"])
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.py").write_text("fault = ''\n")
    return tmp_path


def plain(outcome: Outcome) -> Outcome:
    """An outcome without what differs from one process to the next."""
    stdout, stderr = (ADDRESS.sub(b"0x", words) for words in (outcome.stdout, outcome.stderr))
    return dataclasses.replace(outcome, stdout=stdout, stderr=STUMBLE.sub(b"", stderr))


# The contract's promises to a handler that follows a decision.


@pytest.mark.parametrize("name", some(ALIKE, 2))
def test_a_handler_after_a_decision_ends_as_one_that_is_run_alone(machine: Running, folder: Path, name: str) -> None:
    first, second, left = script(folder, YES, "authorize"), script(folder, ALIKE[name]), folder / "left"

    def result(outcome: Outcome | None) -> tuple[Outcome, str | None]:
        assert outcome is not None, "it has not begun"
        file = left.read_text() if left.exists() else None
        left.unlink(missing_ok=True)
        return plain(outcome), file

    wanted = result(machine.run("exec", second, STDIN))
    for runner in ("fork", "pool"):
        if runner == "pool" and name in NOT_IN_A_WORKER:
            continue
        one, two = machine.run_both(runner, first, second, stdin=STDIN)
        assert (one.exit, one.stdout, one.stderr) == (0, f"yes {folder}\n".encode(), b"")
        assert result(two) == wanted, runner


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ALIKE)
def test_a_decision_before_a_handler_ends_as_one_that_is_run_alone(machine: Running, folder: Path, name: str) -> None:
    first, second, left = script(folder, ALIKE[name], "authorize"), script(folder, "print('handled')"), folder / "left"

    def result(outcome: Outcome) -> tuple[Outcome, str | None]:
        file = left.read_text() if left.exists() else None
        left.unlink(missing_ok=True)
        return plain(outcome), file

    wanted = result(machine.run("exec", first))
    for runner in ("fork", "pool"):
        if runner == "pool" and name in NOT_IN_A_WORKER:
            continue
        one, two = machine.run_both(runner, first, second)
        assert result(one) == wanted, runner
        if wanted[0].exit != 0:
            assert two is None
        elif two is not None:
            assert (two.exit, two.stdout) == (0, b"handled\n")


FINGERPRINT = """
import atexit, builtins, gc, json, locale, logging, os, random, resource, signal, socket, sys, threading, time, warnings
import subprocess
umask = os.umask(0)
facts = {
    "cwd": os.getcwd(), "umask": umask, "nice": os.nice(0), "ids": [os.getresuid(), os.getresgid()],
    "environ": dict(os.environ), "argv": sys.argv, "path": sys.path[0], "zone": time.tzname,
    "signals": [str(signal.getsignal(n)) for n in sorted(signal.valid_signals())],
    "mask": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
    "timers": [signal.getitimer(n)[0] > 0 for n in range(3)], "alarm": signal.alarm(0),
    "limits": [resource.getrlimit(n) for n in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE)],
    "threads": threading.active_count(), "exits": atexit._ncallbacks(), "recursion": sys.getrecursionlimit(),
    "hooks": [h.__module__ for h in (sys.excepthook, sys.displayhook, sys.unraisablehook, threading.excepthook)],
    "finders": len(sys.meta_path), "tracing": [sys.gettrace() is None, sys.getprofile() is None],
    "logging": [logging.root.level, len(logging.root.handlers), logging.root.manager.disable],
    "loggers": sorted(name for name in logging.root.manager.loggerDict if name.startswith("mine")),
    "warnings": len(warnings.filters), "locale": locale.setlocale(locale.LC_ALL), "timeout": socket.getdefaulttimeout(),
    "builtins": hasattr(builtins, "mine"), "gc": [gc.isenabled(), gc.get_threshold()],
    "modules": [name for name in ("policy", "csv", "mine") if name in sys.modules],
    "main": [name for name in globals() if name.startswith("mine")], "children": os.path.exists("child"),
    "parser": hasattr(sys.modules.get("xml"), "dom"),
    "inherited": sorted(subprocess.run(["/usr/bin/env"], stdout=-1).stdout.decode().splitlines()),
}
import policy
facts["fault"] = policy.fault
facts["streams"] = [s.closed for s in (sys.stdin, sys.stdout, sys.stderr)], sys.stdout is sys.__stdout__
print(json.dumps(facts))
"""
UNTIDY = {
    "nothing": "",
    "working directory": "import os; os.chdir('/')",
    "umask": "import os; os.umask(0)",
    "environment": "import os; os.environ['MINE'] = '1'; del os.environ['PATH']",
    "environment of children": "import os; os.putenv('PATH', '/mine'); os.unsetenv('TZ')",
    "time zone": "import os, time; os.environ['TZ'] = 'Asia/Tokyo'; time.tzset()",
    "niceness": "import os; os.nice(3)",
    "a signal handler": "import signal; signal.signal(signal.SIGUSR1, lambda *_: None)",
    "an ignored signal": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "a blocked signal": "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])",
    "an alarm": "import signal; signal.alarm(3600)",
    "a limit": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
    "a thread": "import threading, time; threading.Thread(target=time.sleep, args=(0.1,)).start()",
    "a daemon thread": "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
    "a pool of threads": "from concurrent.futures import ThreadPoolExecutor as E; list(E(1).map(print, [1]))",
    "atexit": "import atexit; atexit.register(print, 'bye')",
    "recursion limit": "import sys; sys.setrecursionlimit(5000)",
    "excepthook": "import sys; sys.excepthook = print",
    "a finder": "import sys; sys.meta_path.insert(0, sys.meta_path[0])",
    "the search path": "import sys; sys.path.insert(0, '/mine')",
    "arguments": "import sys; sys.argv.append('mine')",
    "tracing": "import sys; sys.settrace(lambda *_: None)",
    "logging": "import logging; logging.basicConfig(level=10)",
    "a logger": "import logging; logging.getLogger('mine').setLevel(10)",
    "warnings": "import warnings; warnings.simplefilter('error')",
    "locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
    "socket timeout": "import socket; socket.setdefaulttimeout(3)",
    "builtins": "import builtins; builtins.mine = 1",
    "collector": "import gc; gc.disable(); gc.set_threshold(1)",
    "a module of its own": "import policy; policy.fault = 'mine'",
    "a module of Python": "import csv",
    "a submodule": "import xml.dom.minidom",
    "an entry of sys.modules that is no module of that name": "import sys; sys.modules['mine'] = sys",
    "a module replaced": "import sys, types; sys.modules['json'] = types.ModuleType('json')",
    "a module removed": "import sys; del sys.modules['json']",
    "globals": "mine = 1",
    "a process": "import subprocess; subprocess.run(['true'])",
    "a process left behind": "import subprocess; subprocess.Popen(['sleep', '60'])",
    "a forked process": "import os\nif os.fork() == 0: os._exit(0)",
    "closed streams": "import sys; sys.stdin.close(); sys.stdout.close()",
    "closed descriptors": "import os; os.close(0); os.close(1)",
    "replaced streams": "import io, sys; sys.stdout = sys.stderr = io.StringIO()",
    "an open file": "mine = open('/etc/hostname')",
    "a chosen user": "import os; os.getuid() or os.seteuid(65534)",
}


@pytest.mark.parametrize("habit", UNTIDY)
def test_a_handler_finds_nothing_that_its_decision_has_changed(machine: Running, folder: Path, habit: str) -> None:
    alone, second = script(folder, FINGERPRINT, "alone"), script(folder, FINGERPRINT)
    wanted = machine.run("fork", alone)
    assert wanted.exit == 0, wanted.stderr
    first = script(folder, UNTIDY[habit], "authorize")
    one, two = machine.run_both("fork", first, second)
    assert (one.exit, one.signal) == (0, None), one.stderr
    if two is None:
        two = machine.run("fork", second)
    assert two.stdout.replace(b"/handler", b"/alone") == wanted.stdout


def test_a_tidy_decision_and_its_handler_share_a_process(machine: Running, runner: str, folder: Path) -> None:
    text = "import os, policy, ipaddress; print(os.getpid())"
    one, two = machine.run_both(runner, script(folder, text, "authorize"), script(folder, text))
    assert two is not None
    assert one.stdout == two.stdout


def test_a_process_that_a_decision_leaves_behind_is_killed_before_the_handler(machine: Running, folder: Path) -> None:
    text = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
    one, two = machine.run_both("fork", script(folder, text, "authorize"), script(folder, "pass"))
    assert two is None
    until(functools.partial(dead, int(one.stdout)))


def test_random_numbers_of_a_handler_do_not_follow_the_seed_of_its_decision(machine: Running, folder: Path) -> None:
    first, second = (
        script(folder, "import random; random.seed(1)", "authorize"),
        script(folder, "import random; print(random.random())"),
    )
    found = {two.stdout for _, two in (machine.run_both("fork", first, second) for _ in range(3)) if two}
    assert len(found) == 3


def test_an_edited_decision_module_and_handler_count_at_once(machine: Running, runner: str, folder: Path) -> None:
    for length, word in enumerate(("one", "three", "thirteen")):
        (folder / "policy.py").write_text(f"WORD = {word!r}  {'#' * length}")
        text = f"import policy; print(policy.WORD, {word!r})"
        one, two = machine.run_both(runner, script(folder, text, "authorize"), script(folder, text))
        assert two is not None
        assert one.stdout == two.stdout == f"{word} {word}\n".encode()


# After a refused decision, no handler runs.


@pytest.mark.parametrize(
    "text",
    ["import sys; sys.exit(77)", "1 / 0", "import os; os.kill(os.getpid(), 9)", "import os; os._exit(0)", "if:"],
    ids=["refusal", "traceback", "killed", "an exit past the runner", "syntax error"],
)
def test_no_handler_follows_a_decision_that_does_not_end_well(
    machine: Running, runner: str, folder: Path, text: str
) -> None:
    first, second = script(folder, text, "authorize"), script(folder, "open('ran', 'w')")
    _, two = machine.run_both(runner, first, second)
    assert two is None
    assert not (folder / "ran").exists()


def test_no_handler_follows_a_decision_that_is_over_its_time(
    machine: Running, runner: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it ends well, later than it should."""
    text = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(0))\ntime.sleep(60)"
    first, second = script(folder, text, "authorize"), script(folder, "open('ran', 'w')")
    one, two = machine.run_both(runner, first, second, (quick(0.5), LIMITS))
    assert (one.timed_out, two) == (True, None)
    assert not (folder / "ran").exists()
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)
    script(folder, "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)", "authorize")
    one, two = machine.run_both(runner, first, second, (quick(0.5), LIMITS))
    assert (one.timed_out, one.signal, two) == (True, signal.SIGKILL, None)


@pytest.mark.parametrize("end", ["os._exit(77)", "sys.exit(77)"])
def test_a_process_that_a_decision_forks_does_not_decide(machine: Running, runner: str, folder: Path, end: str) -> None:
    """It reaches the end of the script with 0, before the decision itself says no."""
    text = f"import os, sys, time\nif os.fork() == 0:\n    sys.exit(0)\nos.wait()\n{end}"
    one, two = machine.run_both(runner, script(folder, text, "authorize"), script(folder, "open('ran', 'w')"))
    assert (one.exit, two) == (77, None)
    assert not (folder / "ran").exists()


def test_no_handler_follows_a_decision_that_prints_too_much(machine: Running, runner: str, folder: Path) -> None:
    few = Limits(LIMITS.seconds, 1000, LIMITS.stderr)
    first, second = script(folder, "print('x' * 2000)", "authorize"), script(folder, "open('ran', 'w')")
    one, two = machine.run_both(runner, first, second, (few, LIMITS))
    assert (one.flooded, two) == (True, None)
    assert not (folder / "ran").exists()


# Limits of their own.


def test_a_handler_has_its_own_time_after_that_of_its_decision(machine: Running, runner: str, folder: Path) -> None:
    first, second = script(folder, YES, "authorize"), script(folder, "import time; time.sleep(1.5); print('done')")
    one, two = machine.run_both(runner, first, second, (quick(1), LIMITS))
    assert not one.timed_out
    assert two is not None
    assert (two.exit, two.stdout, two.timed_out) == (0, b"done\n", False)
    assert two.seconds > 1.4 > one.seconds


def test_a_handler_over_its_time_is_ended_and_its_decision_is_not_blamed(
    machine: Running, runner: str, folder: Path
) -> None:
    first, second = script(folder, YES, "authorize"), script(folder, "import time; time.sleep(60)")
    began = time.monotonic()
    one, two = machine.run_both(runner, first, second, (quick(0.3), quick(0.8)))
    assert time.monotonic() - began < 8
    assert (one.exit, one.timed_out) == (0, False)
    assert two is not None
    assert (two.signal, two.timed_out) == (signal.SIGTERM, True)


def test_a_handler_that_floods_is_stopped_and_its_decision_is_not_blamed(
    machine: Running, runner: str, folder: Path
) -> None:
    flood = "import os\nwhile True:\n    os.write(1, bytes(65536))"
    one, two = machine.run_both(runner, script(folder, YES, "authorize"), script(folder, flood))
    assert (one.exit, one.flooded) == (0, False)
    assert two is not None
    assert two.flooded


# Deaths.


def test_cancelling_ends_the_handler_that_follows_a_decision(machine: Running, runner: str, folder: Path) -> None:
    first = script(folder, YES, "authorize")
    second = script(folder, "import os, time\nopen('new', 'w').write(str(os.getpid()))\nos.rename('new', 'pid')\n"
                            "time.sleep(60)")  # fmt: skip

    async def scene() -> None:
        scripts = Script(first, ENV, b"", LIMITS), Script(second, ENV, b"", LIMITS)
        task = asyncio.create_task(machine.runners.run_both(runner, *scripts))
        await asyncio.to_thread(until, (folder / "pid").exists)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    machine.do(scene())
    until(functools.partial(dead, int((folder / "pid").read_text())))


@pytest.mark.parametrize("status", [0, 75])
def test_the_end_of_a_handler_is_known_after_its_warm_parent_has_died(folder: Path, status: int) -> None:
    with running() as machine:
        first = script(folder, YES, "authorize")
        text = f"import os, sys, time\nos.kill(os.getppid(), 9)\ntime.sleep(0.5)\nprint('done')\nsys.exit({status})"
        one, two = machine.run_both("fork", first, script(folder, text))
        assert (one.exit, two and (two.exit, two.stdout)) == (0, (status, b"done\n"))


def test_a_decision_that_kills_the_warm_parent_still_decides(folder: Path) -> None:
    with running() as machine:
        text = "import os, sys, time\nos.kill(os.getppid(), 9)\ntime.sleep(0.3)\nsys.exit(77)"
        one, two = machine.run_both("fork", script(folder, text, "authorize"), script(folder, "open('ran', 'w')"))
        assert (one.exit, two) == (77, None)
        assert not (folder / "ran").exists()


# Where one process can't run both.


def test_scripts_of_two_directories_or_languages_are_not_run_in_one_process(machine: Running, folder: Path) -> None:
    (folder / "other").mkdir()
    here, there = script(folder, "pass"), script(folder / "other", "pass")
    bash = folder / "bash"
    bash.write_text("#!/bin/bash\n")
    bash.chmod(0o755)
    by = machine.runners.for_both
    assert by(("auto", "fork"), (here, here)) == "fork"
    assert by(("pool", "fork"), (here, here)) is None
    assert by(("fork", "fork"), (there, here)) is None
    assert by(("auto", "auto"), (bash, here)) is None
    assert by(("auto", "auto"), (bash, bash)) is None
    assert by(("exec", "exec"), (here, here)) is None


def test_a_worker_serves_pairs_until_it_has_served_its_share(folder: Path) -> None:
    with running(size=1, requests=3) as machine:
        first, second = script(folder, "pass", "authorize"), script(folder, "import os; print(os.getpid())")
        pids = [two.stdout for _, two in (machine.run_both("pool", first, second) for _ in range(7)) if two]
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_pairs_leave_no_descriptor_behind(machine: Running, runner: str, folder: Path) -> None:
    first, second = (
        script(folder, YES, "authorize"),
        script(folder, "import os; print(len(os.listdir('/proc/self/fd')))"),
    )
    first_count = machine.run_both(runner, first, second)[1]
    ours = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        machine.run_both(runner, first, second)
    last = machine.run_both(runner, first, second)[1]
    assert first_count is not None
    assert last is not None
    assert last.stdout == first_count.stdout
    assert len(os.listdir("/proc/self/fd")) == ours
