"""All three runners keep the contract's promises to a script. Fork and pool must behave as exec does."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from estgw.callout import process
from estgw.callout.process import CouldNotStart, Limits, Outcome
from tests.callout.alike import ALIKE, NOT_IN_A_WORKER, STDIN
from tests.callout.running import ENV, LIMITS, Running, quick, running, script
from tests.kit.cases import some
from tests.kit.processes import alive, dead, until

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def machine() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture(params=["exec", "fork", "pool"])
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def run(machine: Running, runner: str, tmp_path: Path) -> Run:
    """Run a text as a script. The same text twice is the same script."""

    def go(text: str, stdin: bytes = b"", name: str = "handler", **options: object) -> Outcome:
        path = tmp_path / name
        if not path.exists() or path.read_text() != f"#!{sys.executable}\n{text}\n":
            script(tmp_path, text, name)
        return machine.run(runner, path, stdin, **options)  # type: ignore[arg-type]

    return go


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)


@pytest.mark.parametrize("name", some(ALIKE, 2))
def test_a_script_ends_alike_with_every_runner(machine: Running, tmp_path: Path, name: str) -> None:
    program, left = script(tmp_path, ALIKE[name]), tmp_path / "left"

    def result(runner: str) -> tuple[Outcome, str | None]:
        outcome = machine.run(runner, program, STDIN)
        file = left.read_text() if left.exists() else None
        left.unlink(missing_ok=True)
        # Addresses differ from run to run, and since Python 3.12 the largest exit statuses raise an OverflowError at
        # the end.
        stdout, stderr = (ADDRESS.sub(b"0x", words) for words in (outcome.stdout, outcome.stderr))
        stderr = STUMBLE.sub(b"", stderr)
        return dataclasses.replace(outcome, stdout=stdout, stderr=stderr), file

    wanted = result("exec")
    assert result("fork") == wanted
    if name not in NOT_IN_A_WORKER:
        assert [result("pool"), result("pool")] == [wanted] * 2


ADDRESS = re.compile(rb"0x[0-9a-f]{8,}")
STUMBLE = re.compile(rb"(Exception ignored on threading shutdown:\n)?OverflowError: Python int too large [^\n]*\n")


@pytest.mark.parametrize("status", [0, 1, 2, 64, 65, 75, 77, 126, 127, 128, 143, 255])
def test_the_exit_status_of_a_script_is_returned_unchanged(run: Run, status: int) -> None:
    outcome = run(f"import sys; sys.exit({status})")
    assert (outcome.exit, outcome.signal) == (status, None)


def test_a_script_gets_exactly_the_given_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_GATEWAY", "1")
    wanted = {**ENV, "ONE": "two words", "EMPTY": "", "TEXT": "Zoë\n€"}
    text = "import os, json; print(json.dumps(dict(os.environ)))"
    assert json.loads(run(text, env=wanted).stdout) == wanted
    assert json.loads(run(text, env=ENV).stdout) == ENV  # the next run has no variable of the first


def test_an_environment_of_one_megabyte_reaches_a_script(run: Run) -> None:
    env = {**ENV, **{f"V{number}": "x" * 100_000 for number in range(10)}}
    text = "import os; print(sum(len(v) for k, v in os.environ.items() if k[0] == 'V'))"
    assert run(text, env=env).stdout == b"1000000\n"


def test_a_variable_longer_than_the_kernel_allows_is_refused(run: Run) -> None:
    with pytest.raises(CouldNotStart, match="too long"):
        run("pass", env={**ENV, "BIG": "x" * (128 * 1024)})


def test_a_script_has_three_descriptors_and_a_worker_one_more(run: Run, runner: str) -> None:
    text = (
        "import os\ndef is_open(n):\n    try:\n        os.fstat(n)\n    except OSError:\n        return False\n"
        "    return True\nprint([n for n in range(1024) if is_open(n)])"
    )
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), runner != "exec")  # exec disowns inherited files at start
        found = json.loads(run(text).stdout)
    # A worker also has its socket, which the programs that it starts do not inherit.
    assert found[:3] == [0, 1, 2]
    assert len(found) == (4 if runner == "pool" else 3)


def test_no_shell_reads_the_path_of_a_script(machine: Running, runner: str, tmp_path: Path) -> None:
    odd = tmp_path / "a dir; $(touch evil) 'ü'"
    odd.mkdir()
    program = script(odd, "import sys; print(sys.argv, __file__)", name="a; b")
    assert machine.run(runner, program).stdout.decode() == f"{[str(program)]} {program}\n"


def test_a_linked_script_imports_modules_beside_its_target(machine: Running, runner: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/helper.py").write_text("WORD = 'beside the target'")
    target = script(tmp_path / "real", "import helper, os; print(helper.WORD, os.getcwd(), __file__)")
    link = tmp_path / "link"
    link.symlink_to(target)
    assert machine.run(runner, link).stdout.decode() == f"beside the target {tmp_path} {link}\n"


def test_an_edited_script_is_used_for_the_next_request(run: Run) -> None:
    for word in ("one", "two", "six"):
        assert run(f"print({word!r})").stdout.decode().strip() == word


def test_an_edited_module_is_used_for_the_next_request(run: Run, tmp_path: Path) -> None:
    for length, word in enumerate(("one", "three", "thirteen")):
        (tmp_path / "helper.py").write_text(f"WORD = {word!r}  {'#' * length}")
        for _ in range(2):
            assert run("import helper; print(helper.WORD)").stdout.decode().strip() == word


def test_every_run_has_its_own_random_numbers(run: Run) -> None:
    text = (
        "import os, random, secrets, tempfile, uuid\nfrom cryptography.hazmat.primitives.asymmetric import ec\n"
        "print(random.random(), secrets.token_hex(), uuid.uuid4(), next(tempfile._get_candidate_names()), "
        "ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value)"
    )
    found = [run(text).stdout.split() for _ in range(6)]
    assert all(len(set(column)) == 6 for column in zip(*found, strict=True))


def test_a_script_gets_five_megabytes_of_stdin_whole(run: Run) -> None:
    assert run("import sys; print(len(sys.stdin.buffer.read()))", bytes(5_000_000)).stdout == b"5000000\n"


def test_a_script_may_leave_its_stdin_unread(run: Run) -> None:
    assert run("pass", bytes(5_000_000)).exit == 0


def test_random_bytes_are_output_like_any_other(run: Run) -> None:
    assert len(run("import os, sys; sys.stdout.buffer.write(os.urandom(30000))").stdout) == 30000


def test_a_script_that_floods_stdout_is_stopped(run: Run) -> None:
    outcome = run("import os\nwhile True:\n    os.write(1, bytes(65536))")
    assert outcome.flooded
    assert len(outcome.stdout) == LIMITS.stdout


def test_a_script_that_floods_stderr_is_stopped(run: Run) -> None:
    outcome = run("import os\nwhile True:\n    os.write(2, bytes(65536))")
    assert (outcome.flooded, outcome.stderr_truncated, len(outcome.stderr)) == (True, True, LIMITS.stderr)


def test_a_script_cannot_write_beyond_the_file_limit(run: Run) -> None:
    limits = Limits(LIMITS.seconds, LIMITS.stdout, LIMITS.stderr, file=100_000)
    text = "with open('large', 'wb', buffering=0) as f:\n    for _ in range(3):\n        print(f.write(bytes(60000)))"
    outcome = run(text, limits=limits)
    assert outcome.stdout == b"60000\n40000\n"
    assert b"File too large" in outcome.stderr
    assert run(text).exit == 0  # the next run has its own limit


def test_a_script_that_hangs_gets_sigterm(run: Run) -> None:
    began = time.monotonic()
    outcome = run("import time\nprint('so far', flush=True)\ntime.sleep(60)", limits=quick(0.3))
    assert (outcome.timed_out, outcome.signal, outcome.stdout) == (True, signal.SIGTERM, b"so far\n")
    assert 0.3 <= time.monotonic() - began < 4


def test_a_script_may_clean_up_and_exit_after_sigterm(run: Run) -> None:
    text = (
        "import signal, sys, time\ndef stop(*_):\n    print('cleaned up')\n    sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, stop)\ntime.sleep(60)"
    )
    outcome = run(text, limits=quick(0.5))
    assert (outcome.timed_out, outcome.exit, outcome.stdout) == (True, 5, b"cleaned up\n")


@pytest.mark.usefixtures("short_grace")
def test_a_script_that_ignores_sigterm_is_killed(run: Run) -> None:
    text = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    outcome = run(text, limits=quick(0.5))
    assert (outcome.timed_out, outcome.exit, outcome.signal) == (True, None, signal.SIGKILL)


@pytest.mark.usefixtures("short_grace")
def test_a_script_that_stops_itself_is_killed(run: Run) -> None:
    assert run("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", limits=quick(0.3)).timed_out


@pytest.mark.parametrize(
    "text",
    [
        "import os, subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\nos._exit(0)",
        "import os, sys, time\npid = os.fork()\nif pid == 0:\n    time.sleep(60)\nprint(pid)",
        "import os\nos.system('(trap \"\" HUP TERM INT; exec sleep 60) & echo $!')",
        "import os\nos.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', 'sleep 60 & echo $!'], {'PATH': '/bin'}), 0)",
    ],
    ids=["subprocess", "fork", "system", "posix_spawn"],
)  # fmt: skip
def test_a_child_left_behind_delays_nothing_and_is_killed(run: Run, text: str) -> None:
    began = time.monotonic()
    outcome = run(text)
    assert outcome.exit == 0
    assert time.monotonic() - began < 10
    pid = int(outcome.stdout)
    until(functools.partial(dead, pid))


def test_a_child_of_a_script_that_hangs_is_killed_too(run: Run) -> None:
    text = "import subprocess, time\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\ntime.sleep(60)"
    pid = int(run(text, limits=quick(0.5)).stdout)
    until(functools.partial(dead, pid))


def test_openssl_does_not_wait_for_a_pass_phrase(run: Run, tmp_path: Path) -> None:
    text = (
        "import subprocess, sys\nsubprocess.run('openssl genpkey -algorithm ed25519 -aes256 -pass pass:x -out k.pem', "
        "shell=True, check=True)\nsys.exit(subprocess.run(['openssl', 'pkey', '-in', 'k.pem', '-noout']).returncode)"
    )
    outcome = run(text, limits=quick(10))
    assert not outcome.timed_out
    assert outcome.exit != 0
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600


def test_cancelling_kills_the_whole_process_group(machine: Running, runner: str, tmp_path: Path) -> None:
    text = (
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '60'])\n"
        "open('pids.new', 'w').write(f'{os.getpid()} {child.pid}')\nos.rename('pids.new', 'pids')\ntime.sleep(60)"
    )
    program, pids = script(tmp_path, text), tmp_path / "pids"

    async def scene() -> None:
        task = asyncio.create_task(machine.runners.run(runner, program, ENV, b"", LIMITS))
        await asyncio.to_thread(until, pids.exists)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    machine.do(scene())
    leader, child = map(int, pids.read_text().split())
    assert not alive(leader)
    until(functools.partial(dead, child))


def test_cancelling_at_any_moment_leaves_no_process(machine: Running, runner: str, tmp_path: Path) -> None:
    """However far the start has come, nothing is left, and the next request is served."""
    program = script(tmp_path, "import os, time\nopen(f'pid-{os.getpid()}', 'w').close()\ntime.sleep(60)")

    async def scene() -> None:
        for turns in range(0, 30, 3):
            task = asyncio.create_task(machine.runners.run(runner, program, ENV, b"", LIMITS))
            await asyncio.sleep(turns / 1000)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()

    machine.do(scene())
    for path in tmp_path.glob("pid-*"):
        until(lambda pid=int(path.name[4:]): not alive(pid) or None)  # type: ignore[misc]
    script(tmp_path, "print('next')")
    assert machine.run(runner, program).stdout == b"next\n"


def test_many_scripts_at_once_end_with_their_own_output(machine: Running, runner: str, tmp_path: Path) -> None:
    program = script(tmp_path, "import sys, time\nprint(sys.stdin.read())\ntime.sleep(0.05)\nsys.exit(7)")
    before = len(os.listdir("/proc/self/fd"))
    number = 20 if runner == "exec" else 60

    async def scene() -> list[Outcome]:
        runs = (machine.runners.run(runner, program, ENV, str(n).encode(), LIMITS) for n in range(number))
        return await asyncio.gather(*runs)

    outcomes = machine.do(scene())
    assert [(each.exit, each.stdout) for each in outcomes] == [(7, f"{n}\n".encode()) for n in range(number)]
    # The pool keeps some workers, each with a socket.
    assert len(os.listdir("/proc/self/fd")) <= before + (4 if runner == "pool" else 0)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, None, "No such file or directory"),
        (f"#!{sys.executable}\n", 0o644, "Permission denied"),
        ("#!/no/such/python3\n", 0o755, "No such file or directory"),
        ("", 0o755, "Exec format error"),
    ],
)
def test_a_script_that_cannot_start_is_reported_with_the_reason(
    machine: Running, runner: str, tmp_path: Path, text: str | None, mode: int, words: str
) -> None:
    program = tmp_path / "handler"
    if text is not None:
        program.write_text(text)
        program.chmod(mode)
    if runner != "exec" and text and "/no/such" in text:
        assert machine.run(runner, program).exit == 0  # the gateway's own Python runs it, whatever the first line says
        return
    with pytest.raises(CouldNotStart, match=words):
        machine.run(runner, program)


def test_a_script_starts_again_when_its_execute_bit_is_back(machine: Running, runner: str, tmp_path: Path) -> None:
    program = script(tmp_path, "print('back')")
    assert machine.run(runner, program).exit == 0
    program.chmod(0o644)
    with pytest.raises(CouldNotStart):
        machine.run(runner, program)
    program.chmod(0o755)
    assert machine.run(runner, program).stdout == b"back\n"


@pytest.mark.parametrize("coding", ["latin-1", "utf-8"])
def test_a_script_in_another_source_encoding_runs(machine: Running, runner: str, tmp_path: Path, coding: str) -> None:
    program = tmp_path / "handler"
    program.write_bytes(f"#!{sys.executable}\n# -*- coding: {coding} -*-\nprint('Zoë')\n".encode(coding))
    program.chmod(0o755)
    assert machine.run(runner, program).stdout == "Zoë\n".encode()


# Cases that a forked child cannot serve, so that a new interpreter starts.


@pytest.mark.parametrize("other", ["exec", "fork"])
def test_pythonpath_and_utf8_mode_of_the_environment_are_obeyed(machine: Running, tmp_path: Path, other: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/word.py").write_text("WORD = 'found'")
    program = script(tmp_path, "import sys, word; print(word.WORD, sys.flags.utf8_mode, len(sys.argv))")
    outcome = machine.run(other, program, env={**ENV, "PYTHONPATH": str(tmp_path / "lib"), "PYTHONUTF8": "1"})
    assert outcome.stdout == b"found 1 1\n"


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "POSIX"}, {"LC_CTYPE": "C.UTF-8", "LC_ALL": "POSIX"}, {"LC_CTYPE": "POSIX"}, {}]
)
def test_fork_obeys_the_locale_as_exec_does(machine: Running, tmp_path: Path, locale: dict[str, str]) -> None:
    text = "import os, locale, sys; print(sorted(os.environ), locale.setlocale(locale.LC_CTYPE), sys.stdout.errors)"
    program = script(tmp_path, text)
    env = {"PATH": "/bin", **locale}
    assert machine.run("fork", program, env=env) == machine.run("exec", program, env=env)


@pytest.mark.parametrize("other", ["exec", "fork"])
@pytest.mark.parametrize("form", ["json.py", "json/__init__.py"])
def test_a_module_beside_a_script_shadows_one_of_the_library(
    machine: Running, tmp_path: Path, other: str, form: str
) -> None:
    (tmp_path / form).parent.mkdir(exist_ok=True)
    (tmp_path / form).write_text("WORD = 'mine'")
    outcome = machine.run(other, script(tmp_path, "import json; print(json.WORD)"))
    assert outcome.stdout == b"mine\n"
    assert machine.run(other, script(tmp_path, "import signal; print(signal.getsignal(13))")).exit == 0


# Persistent workers.


def test_a_worker_serves_several_requests(machine: Running, tmp_path: Path) -> None:
    text = "import os, sys\nprint(os.getpid())\nsys.exit(77)"
    program = script(tmp_path, text)
    assert len({machine.run("pool", program).stdout for _ in range(5)}) == 1


SPOILERS = {
    "an exception": "1 / 0",
    "a process": "import os; os.system('true')",
    "a thread": "import threading, time; threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
    "atexit": "import atexit; atexit.register(print)",
    "its own end": "import os; os._exit(0)",
    "a signal": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("name", SPOILERS)
def test_a_worker_that_a_script_spoilt_serves_no_other_request(machine: Running, tmp_path: Path, name: str) -> None:
    program = script(tmp_path, f"import os\nprint(os.getpid(), flush=True)\n{SPOILERS[name]}")
    pids = [int(machine.run("pool", program).stdout.split()[0]) for _ in range(3)]
    assert len(set(pids)) == 3
    for pid in pids:
        until(functools.partial(dead, pid))


def test_a_worker_ends_after_its_number_of_requests(tmp_path: Path) -> None:
    program = script(tmp_path, "import os; print(os.getpid())")
    with running(requests=3) as machine:
        pids = [int(machine.run("pool", program).stdout) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_a_worker_restores_the_state_of_the_process(machine: Running, tmp_path: Path) -> None:
    text = """
import os, signal, sys
print(os.environ.get("MARK"), os.getcwd() == os.path.dirname(__file__), oct(os.umask(0)),
      signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM),
      signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]), signal.alarm(50),
      len(sys.path), sys.argv[1:], "mark" in globals(), sys.stdout.name, sys.excepthook is sys.__excepthook__)
mark = os.environ["MARK"] = "left"
os.chdir("/")
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path.append("/nowhere")
sys.argv.append("more")
sys.stdout = sys.stderr
sys.excepthook = print
sys.exit(77)
"""
    program = script(tmp_path, text)
    outcomes = [machine.run("pool", program) for _ in range(3)]
    assert outcomes[0].exit == 77
    assert outcomes[0].stdout
    assert outcomes == [outcomes[0]] * 3


@pytest.mark.parametrize(
    "left",
    [
        "",
        "os.environ['SAME'] = 'left'",
        "del os.environ['SAME']",
        "os.environ.clear()",
        "os.putenv('SAME', 'left')",
        "os.unsetenv('SAME')",
        "import ctypes; ctypes.CDLL(None).setenv(b'SAME', b'left', 1)",
    ],
)
def test_a_worker_has_the_environment_of_each_request(machine: Running, tmp_path: Path, left: str) -> None:
    """A program that the script starts has it too: it gets what the C library has, which `os.environ` may not show."""
    text = f"""
import os, subprocess, sys
print(os.getpid(), sorted(os.environ.items()), flush=True)
if sys.stdin.read():
    subprocess.run(["/usr/bin/env"])
else:
    {left or "pass"}
"""
    program = script(tmp_path, text)
    first = {**ENV, "SAME": "1", "OTHER": "2", "FIRST": "3"}
    second = {**ENV, "SAME": "1", "OTHER": "4", "SECOND": "5"}
    outcomes = machine.run("pool", program, env=first), machine.run("pool", program, b"show", env=second)
    pids = [outcome.stdout.split()[0] for outcome in outcomes]
    assert pids[0] == pids[1]
    for outcome, environment in zip(outcomes, (first, second), strict=True):
        assert str(sorted(environment.items())).encode() in outcome.stdout
    assert dict(line.split("=", 1) for line in outcomes[1].stdout.decode().splitlines()[1:]) == second


def test_the_state_of_a_module_stays_in_a_worker(machine: Running, tmp_path: Path) -> None:
    """This is the purpose of a worker, and its risk."""
    (tmp_path / "kept.py").write_text("SEEN = []")
    program = script(tmp_path, "import kept; kept.SEEN.append(1); print(len(kept.SEEN))")
    assert [machine.run("pool", program).stdout for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]


def test_no_more_workers_run_than_the_size_of_the_pool(tmp_path: Path) -> None:
    program = script(tmp_path, "import os, time; time.sleep(0.05); print(os.getpid())")
    with running(size=2) as machine:

        async def scene() -> list[Outcome]:
            return await asyncio.gather(*(machine.pool.run(program, ENV, b"", LIMITS) for _ in range(12)))

        assert len({each.stdout for each in machine.do(scene())}) == 2


# auto.


@pytest.mark.parametrize(
    ("line", "warm"),
    [(f"#!{sys.executable}", True), ("#!/usr/bin/env python3", True), (f"#!{sys.executable} -u", False)],
)
def test_auto_forks_for_scripts_of_our_own_python(machine: Running, tmp_path: Path, line: str, warm: bool) -> None:
    program = tmp_path / "handler"
    program.write_text(f"{line}\nimport sys; print('cryptography.x509' in sys.modules)\n")
    program.chmod(0o755)
    env = {**ENV, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    assert machine.run("auto", program, env=env).stdout.decode().strip() == str(warm)


def test_every_runner_starts_a_bash_script_with_exec(machine: Running, tmp_path: Path) -> None:
    program = tmp_path / "handler"
    program.write_text("#!/bin/bash\nexit 9\n")
    program.chmod(0o755)
    assert [machine.run(each, program).exit for each in ("auto", "exec", "fork", "pool")] == [9] * 4
