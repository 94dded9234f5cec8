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

from estgw.callout import process
from estgw.callout.process import CouldNotStart, Limits, Outcome
from tests.kit.processes import ROOT, until
from tests.kit.scripts import python, script

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
OURS_TO_SET = ~(1 << 31 | 1 << 32)
"""The C library keeps signals 32 and 33 to itself; whoever started us may have them blocked for good."""
LIMITS = Limits(seconds=10, stdout=64 * 1024, stderr=4096)


HEIR = f"""
import asyncio, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from estgw.callout import process
process.disown_inheritance()
for program in sys.argv[1:]:
    outcome = asyncio.run(process.run(Path(program), {{}}, b"", process.Limits(10, 65536, 4096)))
    print(outcome.exit, outcome.stdout.decode())
"""
"""A gateway that was started under odd circumstances: it runs the programs that it is given."""


def run(program: Path, stdin: bytes = b"", limits: Limits = LIMITS, env: dict[str, str] | None = None) -> Outcome:
    return asyncio.run(process.run(program, ENV if env is None else env, stdin, limits))


def quick(seconds: float) -> Limits:
    return Limits(seconds=seconds, stdout=64 * 1024, stderr=4096)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After every test: the same descriptors, and no child, not even a dead one."""
    before = set(os.listdir("/proc/self/fd"))
    others = set(children())  # a gateway that other tests share
    yield
    assert set(os.listdir("/proc/self/fd")) == before
    assert set(children()) == others


def children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [pid for task in tasks for pid in task.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; the dead that nobody has collected do not count."""
    try:
        return " Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    except FileNotFoundError:
        return False


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "TERM_GRACE", 0.2)


# What it is given.


def test_a_good_one(tmp_path):
    outcome = run(script(tmp_path, "cat; echo words >&2"), b"the request")
    assert outcome == Outcome(exit=0, signal=None, stdout=b"the request", stderr=b"words\n")


@pytest.mark.parametrize("status", [0, 1, 2, 64, 65, 75, 77, 126, 127, 128, 143, 255])
def test_its_exit_status(tmp_path, status):
    outcome = run(script(tmp_path, f"exit {status}"))
    assert (outcome.exit, outcome.signal) == (status, None)


def test_the_environment_is_what_it_is_given_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_GATEWAY", "1")
    program = python(tmp_path, "import os, json; print(json.dumps(dict(os.environ)))")
    wanted = {"ONE": "two words", "EMPTY": "", "TEXT": "Zoë\n€", "PATH": "/bin"}
    found = json.loads(run(program, env={**wanted, "LC_ALL": "C.UTF-8"}).stdout)
    assert found == {**wanted, "LC_ALL": "C.UTF-8"}


def test_argv_is_its_own_path_alone(tmp_path):
    program = python(tmp_path, "import sys; print(sys.argv)")
    assert run(program).stdout.decode().strip() == str([str(program)])


def test_no_shell_reads_its_path(tmp_path):
    odd = tmp_path / "a dir; $(touch evil) 'x'"
    odd.mkdir()
    assert run(script(odd, "echo ran", name="a; b")).stdout == b"ran\n"


def test_it_runs_in_its_own_directory(tmp_path):
    assert run(script(tmp_path, "pwd -P")).stdout.decode().strip() == str(tmp_path.resolve())


def test_what_it_writes_is_private(tmp_path):
    assert run(script(tmp_path, "umask")).stdout == b"0077\n"


def test_three_descriptors_and_no_more(tmp_path):
    with open(os.devnull):
        assert run(python(tmp_path, _DESCRIPTORS)).stdout == b"[0, 1, 2]\n"


def test_nothing_that_we_were_born_with(tmp_path):
    """Whoever started the gateway may have left files open for it; they are none of a script's business."""
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


def test_they_are_files_and_no_pipes(tmp_path):
    program = python(tmp_path, "import os, stat; print([stat.S_ISREG(os.fstat(fd).st_mode) for fd in (0, 1, 2)])")
    assert run(program).stdout == b"[True, True, True]\n"


def test_a_session_and_a_group_of_its_own(tmp_path):
    program = python(tmp_path, "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid())")
    assert run(program).stdout == b"True\n"


def signals(text: str) -> dict[str, int]:
    """The signal masks of a /proc/PID/status."""
    lines = (line.split(":\t") for line in text.splitlines() if line.startswith("Sig"))
    return {name: int(mask, 16) for name, mask in lines if name != "SigQ"}


def test_default_signals(tmp_path):
    # `cat` itself, not a script around it: Python and Bash change some for themselves.
    found = signals(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
    program = tmp_path / "program"
    program.write_text("#!/bin/cat /proc/self/status\n")
    program.chmod(0o755)
    mine = signals(run(program).stdout.decode())
    assert mine["SigCgt"] == 0
    assert not mine["SigIgn"] & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))
    assert mine["SigIgn"] & OURS_TO_SET == found["SigIgn"] & OURS_TO_SET
    assert mine["SigBlk"] & OURS_TO_SET == 0


def test_signals_that_we_were_born_without(tmp_path):
    """Started with signals ignored and blocked, as `nohup` and some supervisors do."""
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
    # With SIGCHLD ignored there is no exit status, and a refusal would pass for a yes.
    assert done.stdout.rstrip().endswith("77")


def test_a_python_that_can_t_spawn_sessions(tmp_path, monkeypatch):
    """One that was built for an old C library: `subprocess` does the same, slower."""

    def refuse(*_: object, **__: object) -> int:
        raise NotImplementedError

    monkeypatch.setattr(os, "posix_spawn", refuse)
    text = "import os, sys; print(os.getcwd(), oct(os.umask(0)), os.getsid(0) == os.getpid()); sys.exit(77)"
    done = run(python(tmp_path, text))
    assert (done.exit, done.stdout.decode()) == (77, f"{tmp_path} 0o77 True\n")
    with pytest.raises(process.CouldNotStart, match="nowhere: No such file or directory"):
        run(tmp_path / "nowhere")


# stdin.


def test_it_may_leave_its_input_unread(tmp_path):
    assert run(script(tmp_path, "exit 0"), bytes(5_000_000)).exit == 0


def test_it_may_read_its_input_twice(tmp_path):
    program = python(tmp_path, "import os; print(os.read(0, 9), os.lseek(0, 0, 0), os.read(0, 9))")
    assert run(program, b"abc").stdout == b"b'abc' 0 b'abc'\n"


def test_a_huge_input_arrives_whole(tmp_path):
    assert run(script(tmp_path, "wc -c"), bytes(5_000_000)).stdout.strip() == b"5000000"


def test_its_input_begins_at_the_beginning_for_every_run(tmp_path):
    program = script(tmp_path, "cat")
    assert [run(program, b"once").stdout for _ in range(2)] == [b"once", b"once"]


# stdout and stderr.


def test_it_may_close_its_output(tmp_path):
    assert run(script(tmp_path, "exec 1>&- 2>&- 0<&-; exit 3")) == Outcome(3, None, b"", b"")


def test_binary_output(tmp_path):
    assert run(script(tmp_path, r"printf '\0\377\r\n'")).stdout == b"\0\xff\r\n"


def test_two_writers_do_not_overwrite_each_other(tmp_path):
    # /dev/stdout opens the file once more, which without O_APPEND would mean at its beginning.
    outcome = run(
        script(tmp_path, "echo one; echo two >>/dev/stdout; (echo three); echo four >>/dev/stdout; echo five")
    )
    assert outcome.stdout.split() == [b"one", b"two", b"three", b"four", b"five"]


def test_opening_dev_stdout_to_write_begins_anew(tmp_path):
    """As with every file: `>` empties it.  A script says `>>/dev/stdout`, or just prints."""
    assert run(script(tmp_path, "echo one; echo two >/dev/stdout; echo three")).stdout == b"two\nthree\n"


def test_a_flood_on_stdout_is_stopped(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "yes"))
    assert outcome.flooded
    assert not outcome.timed_out
    assert len(outcome.stdout) == LIMITS.stdout
    assert time.monotonic() - began < 5


def test_a_flood_on_stderr_is_stopped(tmp_path):
    outcome = run(script(tmp_path, "yes >&2"))
    assert outcome.flooded
    assert outcome.stderr_truncated
    assert (outcome.stdout, len(outcome.stderr)) == (b"", LIMITS.stderr)


def test_a_flood_that_is_over_before_we_look_is_one_all_the_same(tmp_path):
    outcome = run(script(tmp_path, "head -c 70000 /dev/zero"))
    assert outcome.flooded
    # On a busy machine we do look in time, and it is killed for it.
    assert outcome.exit in (0, None)
    assert len(outcome.stdout) == LIMITS.stdout


def test_the_limit_itself_is_no_flood(tmp_path):
    outcome = run(script(tmp_path, f"head -c {LIMITS.stdout} /dev/zero"))
    assert (outcome.flooded, len(outcome.stdout)) == (False, LIMITS.stdout)


def test_much_stderr_is_cut_and_no_flood(tmp_path):
    outcome = run(script(tmp_path, "head -c 20000 /dev/zero >&2; echo done"))
    assert (outcome.flooded, outcome.exit, outcome.stdout) == (False, 0, b"done\n")
    assert (outcome.stderr_truncated, len(outcome.stderr)) == (True, LIMITS.stderr)


# The kernel's limit, which holds even when nobody looks.

SMALL = 1 << 20
FSIZE = resource.RLIMIT_FSIZE


def with_small_files(stdout: int = LIMITS.stdout) -> Limits:
    return Limits(seconds=10, stdout=stdout, stderr=4096, file=SMALL)


def test_a_file_can_only_grow_so_large(tmp_path):
    outcome = run(script(tmp_path, "ulimit -c 0; exec head -c 3000000 /dev/zero >big"), limits=with_small_files())
    assert (outcome.exit, outcome.signal, outcome.flooded) == (None, signal.SIGXFSZ, False)
    assert (tmp_path / "big").stat().st_size == SMALL


def test_what_a_script_runs_has_the_limit_too(tmp_path):
    text = "ulimit -c 0; head -c 3000000 /dev/zero >big; echo $?; head -c 3000 /dev/zero >small; echo $?"
    assert run(script(tmp_path, text), limits=with_small_files()).stdout == b"153\n0\n"


def test_a_file_of_the_limit_itself(tmp_path):
    outcome = run(script(tmp_path, f"head -c {SMALL} /dev/zero >big"), limits=with_small_files())
    assert (outcome.exit, (tmp_path / "big").stat().st_size) == (0, SMALL)


def test_python_gets_an_error_it_can_tell(tmp_path):
    program = python(tmp_path, "open('big', 'wb').write(bytes(3000000))")
    outcome = run(program, limits=with_small_files())
    assert outcome.exit == 1
    assert b"File too large" in outcome.stderr


def test_the_outputs_are_files_as_well(tmp_path):
    outcome = run(script(tmp_path, "ulimit -c 0; exec yes"), limits=with_small_files(stdout=1 << 30))
    assert (outcome.signal, len(outcome.stdout), outcome.flooded) == (signal.SIGXFSZ, SMALL, False)


def test_a_script_sees_it(tmp_path):
    assert run(script(tmp_path, "ulimit -Sf"), limits=with_small_files()).stdout == b"1024\n"  # KiB


def test_our_own_limit_is_what_it_was(tmp_path):
    before = resource.getrlimit(FSIZE)
    run(script(tmp_path, "exit 0"), limits=with_small_files())
    with pytest.raises(CouldNotStart):
        run(tmp_path / "missing", limits=with_small_files())
    assert resource.getrlimit(FSIZE) == before


def test_the_limit_is_inherited_for_a_moment_only():
    before = soft, hard = resource.getrlimit(FSIZE)
    with process.inherited_file_limit(SMALL):
        assert resource.getrlimit(FSIZE) == (SMALL, hard)
        with process.inherited_file_limit(SMALL * 2):
            assert resource.getrlimit(FSIZE) == (SMALL, hard), "it only ever gets smaller"
        assert resource.getrlimit(FSIZE) == (SMALL, hard)
    assert resource.getrlimit(FSIZE) == before
    with pytest.raises(RuntimeError), process.inherited_file_limit(SMALL):
        raise RuntimeError
    assert resource.getrlimit(FSIZE) == (soft, hard)


def test_where_nothing_is_limited_everything_is_restored():
    """In a process of its own: what the tests run under is theirs."""
    code = (
        "import resource as r\n"
        "from estgw.callout.process import inherited_file_limit\n"
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


def test_a_flood_ends_when_nobody_is_left_to_stop_it(tmp_path):
    """The gateway was killed; without the limit an orphaned `yes` would fill the machine's memory."""
    mark, go = tmp_path / "pid", tmp_path / "go"
    program = script(tmp_path, f"ulimit -c 0; echo $$ >{mark}; until [[ -e {go} ]]; do sleep 0.02; done; exec yes")
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from estgw.callout.process import Limits, run\n"
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


def test_junk_is_output_like_any_other(tmp_path):
    assert len(run(script(tmp_path, "head -c 30000 /dev/urandom")).stdout) == 30000


# Bad ends.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE, signal.SIGINT])
def test_ended_by_a_signal(tmp_path, number):
    process.disown_inheritance()  # who runs the tests in the background ignores SIGINT, and the script would, too
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    outcome = run(script(tmp_path, f"echo so far; kill -{int(number)} $$; sleep 60"))
    assert (outcome.exit, outcome.signal, outcome.stdout) == (None, number, b"so far\n")


def test_a_traceback(tmp_path):
    outcome = run(python(tmp_path, "1 / 0"))
    assert outcome.exit == 1
    assert b"ZeroDivisionError" in outcome.stderr


def test_one_that_hangs_gets_term(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "echo so far; sleep 60 & wait"), limits=quick(0.2))
    assert outcome.timed_out
    assert outcome.stdout == b"so far\n"
    assert 0.2 <= time.monotonic() - began < 3


def test_term_lets_it_clean_up(tmp_path):
    program = script(tmp_path, "trap 'echo cleaned up; exit 5' TERM; sleep 60 & wait")
    outcome = run(program, limits=quick(0.3))
    assert (outcome.timed_out, outcome.exit, outcome.stdout) == (True, 5, b"cleaned up\n")


@pytest.mark.usefixtures("short_grace")
def test_one_that_ignores_term_is_killed(tmp_path):
    outcome = run(script(tmp_path, "trap '' TERM; sleep 60"), limits=quick(0.2))
    assert (outcome.timed_out, outcome.exit, outcome.signal) == (True, None, signal.SIGKILL)


@pytest.mark.usefixtures("short_grace")
def test_one_that_stops_itself_is_killed(tmp_path):
    assert run(script(tmp_path, "kill -STOP $$"), limits=quick(0.2)).timed_out


def test_a_child_that_stays_delays_nothing_and_dies(tmp_path):
    began = time.monotonic()
    outcome = run(script(tmp_path, "sleep 60 & echo $!"))
    assert outcome.exit == 0
    assert time.monotonic() - began < 5
    pid = int(outcome.stdout)
    until(lambda: not alive(pid) or None)


def test_a_child_that_ignores_everything_dies_too(tmp_path):
    outcome = run(script(tmp_path, "(trap '' HUP TERM INT; sleep 60) & echo $!"))
    pid = int(outcome.stdout)
    until(lambda: not alive(pid) or None)


def test_a_child_in_a_session_of_its_own_is_left_alone(tmp_path):
    """Who takes the trouble to leave the group has left it: only a container would catch that one.

    It delays nothing, and what it still prints goes nowhere.
    """
    began = time.monotonic()
    outcome = run(script(tmp_path, "setsid sleep 60 & echo $!"))
    assert (outcome.exit, time.monotonic() - began < 5) == (0, True)
    pid = int(outcome.stdout)
    # It may have been caught before it got away; if not, it is ours to end.
    if alive(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid) or None)


def test_the_time_of_a_child_is_not_the_programs(tmp_path):
    outcome = run(script(tmp_path, "sleep 60 & exit 0"), limits=quick(30))
    assert (outcome.exit, outcome.timed_out) == (0, False)


def test_nothing_can_ask_on_a_terminal(tmp_path):
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


def test_files_that_it_leaves_are_its_own_affair(tmp_path):
    run(script(tmp_path, "echo x >left; mkdir dir"))
    assert (tmp_path / "left").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o700


# Not starting.


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
def test_what_cannot_start(tmp_path, text, mode, words):
    program = tmp_path / "program"
    if text is not None:
        program.write_text(text)
        program.chmod(mode)
    with pytest.raises(CouldNotStart, match=words) as refusal:
        run(program)
    assert str(program) in str(refusal.value)


def test_a_directory_cannot_start(tmp_path):
    (tmp_path / "program").mkdir()
    with pytest.raises(CouldNotStart, match="Permission denied"):
        run(tmp_path / "program")


def test_it_starts_again_when_its_execute_bit_is_back(tmp_path):
    program = script(tmp_path, "echo back")
    program.chmod(0o644)
    with pytest.raises(CouldNotStart):
        run(program)
    program.chmod(0o755)
    assert run(program).stdout == b"back\n"


def test_an_environment_that_the_kernel_refuses(tmp_path):
    with pytest.raises(CouldNotStart, match="too long"):
        run(script(tmp_path, "true"), env={"BIG": "x" * (128 * 1024)})


# Who waits for it goes away.


def test_cancelling_kills_the_whole_group(tmp_path):
    pids = tmp_path / "pids"
    program = script(tmp_path, f"sleep 60 & echo $$ $! >{pids}.new; mv {pids}.new {pids}; wait")

    async def scene() -> None:
        task = asyncio.create_task(process.run(program, ENV, b"", LIMITS))
        await asyncio.to_thread(until, pids.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    leader, child = map(int, pids.read_text().split())
    assert not alive(leader)
    until(lambda: not alive(child) or None)


def test_cancelling_during_the_grace_kills_too(tmp_path):
    mark = tmp_path / "mark"
    program = script(tmp_path, f"trap 'echo $$ >{mark}.new; mv {mark}.new {mark}' TERM; sleep 60; sleep 60")

    async def scene() -> None:
        task = asyncio.create_task(process.run(program, ENV, b"", quick(0.2)))
        await asyncio.to_thread(until, mark.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert not alive(int(mark.read_text()))


def test_many_at_once_leave_nothing_behind(tmp_path):
    program = script(tmp_path, "cat; sleep 0.05; exit 7")

    async def scene() -> list[Outcome]:
        runs = (process.run(program, ENV, str(number).encode(), LIMITS) for number in range(30))
        return await asyncio.gather(*runs)

    outcomes = asyncio.run(scene())
    assert [(outcome.exit, outcome.stdout) for outcome in outcomes] == [(7, str(n).encode()) for n in range(30)]


def test_the_loop_goes_on_while_a_program_runs(tmp_path):
    async def scene() -> int:
        task = asyncio.create_task(process.run(script(tmp_path, "sleep 0.3"), ENV, b"", LIMITS))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(scene()) > 5
