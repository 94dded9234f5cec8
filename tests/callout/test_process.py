"""Running a program, whatever the program does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estgw.callout import process, spawn
from estgw.callout.process import CouldNotStart, Limits, Outcome
from tests.kit.processes import ROOT, until
from tests.kit.scripts import python, script

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
OURS_TO_SET = ~(1 << 31 | 1 << 32)
"""The C library reserves signals 32 and 33, and our parent may have blocked them."""
LIMITS = Limits(seconds=10, stdout=64 * 1024, stderr=4096)


HEIR = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from estgw.callout import process, spawn
spawn.disown_inheritance()
for program in sys.argv[1:]:
    outcome = asyncio.run(spawn.run(Path(program), {{}}, b"", process.Limits(10, 65536, 4096)))
    print(outcome.exit, outcome.stdout.decode())
"""
"""A gateway that was started with unusual signals and descriptors. It runs the programs that it is given."""


def run(program: Path, stdin: bytes = b"", limits: Limits = LIMITS, env: dict[str, str] | None = None) -> Outcome:
    return asyncio.run(spawn.run(program, ENV if env is None else env, stdin, limits))


def quick(seconds: float) -> Limits:
    return Limits(seconds=seconds, stdout=64 * 1024, stderr=4096)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After every test: the same descriptors, and no child, not even a zombie."""
    before = set(os.listdir("/proc/self/fd"))
    others = set(children())  # a gateway that other tests share
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    assert set(children()) == others


def children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [pid for task in tasks for pid in task.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs. Zombies do not count."""
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)


# Environment, arguments, directory.


def test_a_program_gets_its_stdin_and_returns_its_output(tmp_path):
    outcome = run(script(tmp_path, "cat; echo words >&2"), b"the request")
    assert outcome == Outcome(exit=0, signal=None, stdout=b"the request", stderr=b"words\n")


@pytest.mark.parametrize("status", [0, 1, 2, 64, 65, 75, 77, 126, 127, 128, 143, 255])
def test_an_exit_status_is_returned_unchanged(tmp_path, status):
    outcome = run(script(tmp_path, f"exit {status}"))
    assert (outcome.exit, outcome.signal) == (status, None)


def test_a_program_gets_exactly_the_given_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_GATEWAY", "1")
    program = python(tmp_path, "import os, json; print(json.dumps(dict(os.environ)))")
    wanted = {"ONE": "two words", "EMPTY": "", "TEXT": "Zoë\n€", "PATH": "/bin"}
    found = json.loads(run(program, env={**wanted, "LC_ALL": "C.UTF-8"}).stdout)
    assert found == {**wanted, "LC_ALL": "C.UTF-8"}


def test_argv_is_the_path_of_the_program_alone(tmp_path):
    program = python(tmp_path, "import sys; print(sys.argv)")
    assert run(program).stdout.decode().strip() == str([str(program)])


def test_no_shell_reads_the_path_of_a_program(tmp_path):
    odd = tmp_path / "a dir; $(touch evil) 'x'"
    odd.mkdir()
    assert run(script(odd, "echo ran", name="a; b")).stdout == b"ran\n"


def test_a_program_runs_in_its_own_directory(tmp_path):
    assert run(script(tmp_path, "pwd -P")).stdout.decode().strip() == str(tmp_path.resolve())


def test_a_program_has_umask_077(tmp_path):
    assert run(script(tmp_path, "umask")).stdout == b"0077\n"


def test_a_program_has_three_descriptors_and_no_more(tmp_path):
    with open(os.devnull):
        assert run(python(tmp_path, _DESCRIPTORS)).stdout == b"[0, 1, 2]\n"


def test_a_program_gets_no_descriptor_that_the_gateway_inherited(tmp_path):
    """The parent of the gateway may have left files open for it."""
    main = tmp_path / "main.py"
    main.write_text(HEIR)
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        command = [sys.executable, main, python(tmp_path, _DESCRIPTORS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, pass_fds=[file.fileno()])
    assert done.stdout == "0 [0, 1, 2]\n\n"


_DESCRIPTORS = """
import os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
print([number for number in range(1024) if is_open(number)])
"""


def test_stdin_stdout_and_stderr_are_files_not_pipes(tmp_path):
    program = python(tmp_path, "import os, stat; print([stat.S_ISREG(os.fstat(fd).st_mode) for fd in (0, 1, 2)])")
    assert run(program).stdout == b"[True, True, True]\n"


def test_a_program_has_its_own_session_and_group(tmp_path):
    program = python(tmp_path, "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())")
    assert run(program).stdout == b"True\n"


def signals(text: str) -> dict[str, int]:
    """The signal masks in a /proc/PID/status."""
    lines = (line.split(":\t") for line in text.splitlines() if line.startswith("Sig"))
    return {name: int(mask, 16) for name, mask in lines if name != "SigQ"}


def test_a_program_starts_with_default_signals(tmp_path):
    # Use `cat` itself, not a script around it, because Python and Bash change some signals.
    found = signals(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
    program = tmp_path / "program"
    program.write_text("#!/bin/cat /proc/self/status\n")
    program.chmod(0o755)
    mine = signals(run(program).stdout.decode())
    assert mine["SigCgt"] == 0
    assert not mine["SigIgn"] & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))
    assert mine["SigIgn"] & OURS_TO_SET == found["SigIgn"] & OURS_TO_SET
    assert mine["SigBlk"] & OURS_TO_SET == 0


def test_a_program_gets_default_signals_though_the_gateway_has_not(tmp_path):
    """The gateway starts with signals ignored and blocked, as under `nohup` and some supervisors."""
    program = tmp_path / "program"
    program.write_text("#!/bin/cat /proc/self/status\n")
    program.chmod(0o755)
    refusing = script(tmp_path, "exit 77", name="refusing")
    main = tmp_path / "main.py"
    main.write_text(HEIR)

    def unlucky() -> None:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGTERM])

    done = subprocess.run(
        [sys.executable, main, program, refusing], capture_output=True, text=True, check=True, preexec_fn=unlucky
    )
    masks = signals(done.stdout)
    assert [masks[name] & OURS_TO_SET for name in ("SigIgn", "SigBlk", "SigCgt")] == [0, 0, 0]
    # With SIGCHLD ignored there is no exit status, and a refusal would count as a yes.
    assert done.stdout.rstrip().endswith("77")


def test_a_python_without_posix_spawn_of_sessions_runs_programs_alike(tmp_path, monkeypatch):
    """A Python built for an old C library: `subprocess` does the same, but slower."""

    def refuse(*_: object, **__: object) -> int:
        raise NotImplementedError

    monkeypatch.setattr(os, "posix_spawn", refuse)
    text = "import os, sys; print(os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpid()); sys.exit(77)"
    done = run(python(tmp_path, text))
    assert (done.exit, done.stdout.decode()) == (77, f"{tmp_path} 0o77 True\n")
    with pytest.raises(process.CouldNotStart, match="nowhere: No such file or directory"):
        run(tmp_path / "nowhere")


# stdin.


def test_a_program_may_leave_its_stdin_unread(tmp_path):
    assert run(script(tmp_path, "exit 0"), bytes(5_000_000)).exit == 0


def test_a_program_may_read_its_stdin_twice(tmp_path):
    program = python(tmp_path, "import os; print(os.read(0, 9), os.lseek(0, 0, 0), os.read(0, 9))")
    assert run(program, b"abc").stdout == b"b'abc' 0 b'abc'\n"


def test_a_program_gets_five_megabytes_of_stdin_whole(tmp_path):
    assert run(script(tmp_path, "wc -c"), bytes(5_000_000)).stdout.strip() == b"5000000"


def test_every_run_reads_its_stdin_from_the_beginning(tmp_path):
    program = script(tmp_path, "cat")
    assert [run(program, b"once").stdout for _ in range(2)] == [b"once", b"once"]


# stdout and stderr.


def test_a_program_may_close_its_streams(tmp_path):
    assert run(script(tmp_path, "exec 1>&- 2>&- 0<&-; exit 3")) == Outcome(3, None, b"", b"")


def test_binary_output_is_returned_unchanged(tmp_path):
    assert run(script(tmp_path, r"printf '\0\377\r\n'")).stdout == b"\0\xff\r\n"


def test_two_writers_to_stdout_append(tmp_path):
    # /dev/stdout opens the file again. Without O_APPEND that writer would begin at offset 0.
    outcome = run(
        script(tmp_path, "echo one; echo two >>/dev/stdout; (echo three); echo four >>/dev/stdout; echo five")
    )
    assert outcome.stdout.split() == [b"one", b"two", b"three", b"four", b"five"]


def test_opening_dev_stdout_to_write_empties_it(tmp_path):
    """As with every file, `>` empties it. A script should use `>>/dev/stdout`, or just print."""
    assert run(script(tmp_path, "echo one; echo two >/dev/stdout; echo three")).stdout == b"two\nthree\n"


def test_a_program_that_floods_stdout_is_stopped(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "yes"))
    assert outcome.flooded
    assert not outcome.timed_out
    assert len(outcome.stdout) == LIMITS.stdout
    assert time.monotonic() - began < 5


def test_a_program_that_floods_stderr_is_stopped(tmp_path):
    outcome = run(script(tmp_path, "yes >&2"))
    assert outcome.flooded
    assert outcome.stderr_truncated
    assert (outcome.stdout, len(outcome.stderr)) == (b"", LIMITS.stderr)


def test_a_flood_by_a_program_that_has_already_ended_is_reported(tmp_path):
    outcome = run(script(tmp_path, "head -c 70000 /dev/zero"))
    assert outcome.flooded
    # On a busy machine the check may come in time and kill the program.
    assert outcome.exit in (0, None)
    assert len(outcome.stdout) == LIMITS.stdout


def test_output_of_exactly_the_limit_is_no_flood(tmp_path):
    outcome = run(script(tmp_path, f"head -c {LIMITS.stdout} /dev/zero"))
    assert (outcome.flooded, len(outcome.stdout)) == (False, LIMITS.stdout)


def test_stderr_of_a_program_that_ended_is_cut_and_is_no_flood(tmp_path):
    outcome = run(script(tmp_path, "head -c 20000 /dev/zero >&2; echo done"))
    assert (outcome.flooded, outcome.exit, outcome.stdout) == (False, 0, b"done\n")
    assert (outcome.stderr_truncated, len(outcome.stderr)) == (True, LIMITS.stderr)


# The kernel's limit on file sizes, which holds even without the gateway.

SMALL = 1 << 20
FSIZE = resource.RLIMIT_FSIZE


def with_small_files(stdout: int = LIMITS.stdout) -> Limits:
    return Limits(seconds=10, stdout=stdout, stderr=4096, file=SMALL)


def test_a_program_that_writes_beyond_the_file_limit_gets_sigxfsz(tmp_path):
    outcome = run(script(tmp_path, "ulimit -c 0; exec head -c 3000000 /dev/zero >big"), limits=with_small_files())
    assert (outcome.exit, outcome.signal, outcome.flooded) == (None, signal.SIGXFSZ, False)
    assert (tmp_path / "big").stat().st_size == SMALL


def test_children_of_a_script_have_the_file_limit_too(tmp_path):
    text = "ulimit -c 0; head -c 3000000 /dev/zero >big; echo $?; head -c 3000 /dev/zero >small; echo $?"
    assert run(script(tmp_path, text), limits=with_small_files()).stdout == b"153\n0\n"


def test_a_file_of_exactly_the_limit_can_be_written(tmp_path):
    outcome = run(script(tmp_path, f"head -c {SMALL} /dev/zero >big"), limits=with_small_files())
    assert (outcome.exit, (tmp_path / "big").stat().st_size) == (0, SMALL)


def test_python_gets_file_too_large_at_the_file_limit(tmp_path):
    program = python(tmp_path, "open('big', 'wb').write(bytes(3000000))")
    outcome = run(program, limits=with_small_files())
    assert outcome.exit == 1
    assert b"File too large" in outcome.stderr


def test_the_file_limit_applies_to_stdout(tmp_path):
    outcome = run(script(tmp_path, "ulimit -c 0; exec yes"), limits=with_small_files(stdout=1 << 30))
    assert (outcome.signal, len(outcome.stdout), outcome.flooded) == (signal.SIGXFSZ, SMALL, False)


def test_a_script_sees_the_file_limit(tmp_path):
    assert run(script(tmp_path, "ulimit -Sf"), limits=with_small_files()).stdout == b"1024\n"  # KiB


def test_running_a_program_leaves_our_own_file_limit_unchanged(tmp_path):
    before = resource.getrlimit(FSIZE)
    run(script(tmp_path, "exit 0"), limits=with_small_files())
    with pytest.raises(CouldNotStart):
        run(tmp_path / "missing", limits=with_small_files())
    assert resource.getrlimit(FSIZE) == before


def test_nested_file_limits_never_grow_and_are_restored():
    before = soft, hard = resource.getrlimit(FSIZE)
    with spawn.inherited_file_limit(SMALL):
        assert resource.getrlimit(FSIZE) == (SMALL, hard)
        with spawn.inherited_file_limit(SMALL * 2):
            assert resource.getrlimit(FSIZE) == (SMALL, hard), "it only ever gets smaller"
        assert resource.getrlimit(FSIZE) == (SMALL, hard)
    assert resource.getrlimit(FSIZE) == before
    with pytest.raises(RuntimeError), spawn.inherited_file_limit(SMALL):
        raise RuntimeError
    assert resource.getrlimit(FSIZE) == (soft, hard)


def test_file_limits_are_restored_whatever_they_were():
    """In another process, so that the limits of the test process stay as they are."""
    code = (
        "import resource as r\n"
        "from estgw.callout.spawn import inherited_file_limit\n"
        "_, hard = r.getrlimit(r.RLIMIT_FSIZE)\n"
        "r.setrlimit(r.RLIMIT_FSIZE, (hard, hard))\n"
        "with inherited_file_limit(5000):\n"
        "    assert r.getrlimit(r.RLIMIT_FSIZE) == (5000, hard)\n"
        "assert r.getrlimit(r.RLIMIT_FSIZE) == (hard, hard)\n"
        "r.setrlimit(r.RLIMIT_FSIZE, (4000, 4000))\n"
        "with inherited_file_limit(5000):\n"
        "    assert r.getrlimit(r.RLIMIT_FSIZE) == (4000, 4000)\n"
        "assert r.getrlimit(r.RLIMIT_FSIZE) == (4000, 4000)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)


def test_the_file_limit_ends_a_flood_after_the_gateway_was_killed(tmp_path):
    """Without the limit an orphaned `yes` would fill the memory of the machine."""
    mark, go = tmp_path / "pid", tmp_path / "go"
    program = script(tmp_path, f"ulimit -c 0; echo $$ >{mark}; until [[ -e {go} ]]; do sleep 0.02; done; exec yes")
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from estgw.callout.process import Limits\n"
        "from estgw.callout.spawn import run\n"
        f"limits = Limits(seconds=60, stdout=1 << 40, stderr=4096, file={SMALL})\n"
        "asyncio.run(run(Path(sys.argv[1]), {'PATH': '/usr/bin:/bin'}, b'', limits))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(program)], cwd=ROOT) as gateway:
        orphan = int(until(lambda: mark.exists() and mark.read_text().strip()) or 0)
        gateway.kill()
    try:
        assert alive(orphan)
        go.touch()
        until(lambda: not alive(orphan))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)


def test_random_bytes_are_output_like_any_other(tmp_path):
    assert len(run(script(tmp_path, "head -c 30000 /dev/urandom")).stdout) == 30000


# Abnormal ends.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE, signal.SIGINT])
def test_the_signal_that_ended_a_program_is_reported(tmp_path, number):
    spawn.disown_inheritance()  # a background job ignores SIGINT, and so would the script
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    outcome = run(script(tmp_path, f"echo so far; kill -{int(number)} $$; sleep 60"))
    assert (outcome.exit, outcome.signal, outcome.stdout) == (None, number, b"so far\n")


def test_a_python_traceback_is_exit_1_with_stderr(tmp_path):
    outcome = run(python(tmp_path, "1 / 0"))
    assert outcome.exit == 1
    assert b"ZeroDivisionError" in outcome.stderr


def test_a_program_that_hangs_gets_sigterm(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "echo so far; sleep 60 & wait"), limits=quick(0.2))
    assert outcome.timed_out
    assert outcome.stdout == b"so far\n"
    assert 0.2 <= time.monotonic() - began < 3


def test_a_program_may_clean_up_and_exit_after_sigterm(tmp_path):
    program = script(tmp_path, "trap 'echo cleaned up; exit 5' TERM; sleep 60 & wait")
    outcome = run(program, limits=quick(0.3))
    assert (outcome.timed_out, outcome.exit, outcome.stdout) == (True, 5, b"cleaned up\n")


@pytest.mark.usefixtures("short_grace")
def test_a_program_that_ignores_sigterm_is_killed(tmp_path):
    outcome = run(script(tmp_path, "trap '' TERM; sleep 60"), limits=quick(0.2))
    assert (outcome.timed_out, outcome.exit, outcome.signal) == (True, None, signal.SIGKILL)


@pytest.mark.usefixtures("short_grace")
def test_a_program_that_stops_itself_is_killed(tmp_path):
    assert run(script(tmp_path, "kill -STOP $$"), limits=quick(0.2)).timed_out


def test_a_child_left_behind_delays_nothing_and_is_killed(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "sleep 60 & echo $!"))
    assert outcome.exit == 0
    assert time.monotonic() - began < 5
    pid = int(outcome.stdout)
    until(lambda: not alive(pid) or None)


def test_a_child_that_ignores_signals_is_killed_too(tmp_path):
    outcome = run(script(tmp_path, "(trap '' HUP TERM INT; sleep 60) & echo $!"))
    pid = int(outcome.stdout)
    until(lambda: not alive(pid) or None)


def test_a_child_in_another_session_does_not_delay_the_outcome(tmp_path):
    """A process that leaves the group with setsid is not killed; only a container could do that.

    It delays nothing, and its output goes nowhere.
    """
    began = time.monotonic()
    outcome = run(script(tmp_path, "setsid sleep 60 & echo $!"))
    assert (outcome.exit, time.monotonic() - began < 5) == (0, True)
    pid = int(outcome.stdout)
    # The group may have been killed before the child left it. If not, the test ends the child.
    if alive(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid) or None)


def test_a_child_left_behind_does_not_count_as_a_timeout(tmp_path):
    outcome = run(script(tmp_path, "sleep 60 & exit 0"), limits=quick(30))
    assert (outcome.exit, outcome.timed_out) == (0, False)


def test_a_program_has_no_terminal(tmp_path):
    program = script(tmp_path, "exec 3</dev/tty && read -r answer <&3")
    outcome = run(program, limits=quick(5))
    assert outcome.exit == 1
    assert b"/dev/tty" in outcome.stderr


def test_openssl_does_not_wait_for_a_pass_phrase(tmp_path):
    key = tmp_path / "key.pem"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret", "-out", key]
    subprocess.run(command, check=True)
    outcome = run(script(tmp_path, "openssl pkey -in key.pem -noout"), limits=quick(5))
    assert not outcome.timed_out
    assert outcome.exit != 0


def test_files_that_a_program_leaves_are_private(tmp_path):
    run(script(tmp_path, "echo x >left; mkdir dir"))
    assert (tmp_path / "left").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o700


# Programs that do not start.


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (None, None, "No such file or directory"),
        ("#!/bin/bash\n", 0o644, "Permission denied"),
        ("#!/no/such/interpreter\n", 0o755, "No such file or directory"),
        ("just text\n", 0o755, "Exec format error"),
        ("", 0o755, "Exec format error"),
    ],
)
def test_a_program_that_cannot_start_is_reported_with_the_reason(tmp_path, text, mode, words):
    program = tmp_path / "program"
    if text is not None:
        program.write_text(text)
        program.chmod(mode)
    with pytest.raises(CouldNotStart, match=words) as refusal:
        run(program)
    assert str(program) in str(refusal.value)


def test_a_directory_cannot_be_started(tmp_path):
    (tmp_path / "program").mkdir()
    with pytest.raises(CouldNotStart, match="Permission denied"):
        run(tmp_path / "program")


def test_a_program_starts_again_when_its_execute_bit_is_back(tmp_path):
    program = script(tmp_path, "echo back")
    program.chmod(0o644)
    with pytest.raises(CouldNotStart):
        run(program)
    program.chmod(0o755)
    assert run(program).stdout == b"back\n"


def test_an_environment_that_the_kernel_refuses_is_reported(tmp_path):
    with pytest.raises(CouldNotStart, match="too long"):
        run(script(tmp_path, "true"), env={"BIG": "x" * (128 * 1024)})


# Cancelling, and many at once.


def test_cancelling_kills_the_whole_process_group(tmp_path):
    pids = tmp_path / "pids"
    program = script(tmp_path, f"sleep 60 & echo $$ $! >{pids}.new; mv {pids}.new {pids}; wait")

    async def scene() -> None:
        task = asyncio.create_task(spawn.run(program, ENV, b"", LIMITS))
        await asyncio.to_thread(until, pids.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    leader, child = map(int, pids.read_text().split())
    assert not alive(leader)
    until(lambda: not alive(child) or None)


def test_cancelling_during_the_grace_period_kills_too(tmp_path):
    mark = tmp_path / "mark"
    program = script(tmp_path, f"trap 'echo $$ >{mark}.new; mv {mark}.new {mark}' TERM; sleep 60; sleep 60")

    async def scene() -> None:
        task = asyncio.create_task(spawn.run(program, ENV, b"", quick(0.2)))
        await asyncio.to_thread(until, mark.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert not alive(int(mark.read_text()))


def test_thirty_programs_at_once_end_with_their_own_output(tmp_path):
    program = script(tmp_path, "cat; sleep 0.05; exit 7")

    async def scene() -> list[Outcome]:
        runs = (spawn.run(program, ENV, str(number).encode(), LIMITS) for number in range(30))
        return await asyncio.gather(*runs)

    outcomes = asyncio.run(scene())
    assert [(outcome.exit, outcome.stdout) for outcome in outcomes] == [(7, str(n).encode()) for n in range(30)]


def test_the_event_loop_goes_on_while_a_program_runs(tmp_path):
    async def scene() -> int:
        task = asyncio.create_task(spawn.run(script(tmp_path, "sleep 0.3"), ENV, b"", LIMITS))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(scene()) > 5
