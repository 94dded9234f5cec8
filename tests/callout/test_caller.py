"""One callout from beginning to end: what the client is told and what the log has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from estgw.auth.credentials import Credentials
from estgw.callout import process
from estgw.callout.call import Call
from estgw.callout.caller import Caller, CalloutLimits
from estgw.callout.cgi import Output
from estgw.callout.slots import Slots
from estgw.callout.verdicts import Kind
from estgw.errors import HandlerFailed, HandlerTimedOut, RequestError, Unavailable
from tests.callout.calls import change, plain
from tests.kit.scripts import script

LIMITS = CalloutLimits(max_stdout=64 * 1024, max_stderr=4096, retry_after=60)


@pytest.fixture(autouse=True)
def exact_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """`retry_after` as it stands; tests/e2e/test_load_balancer.py looks at the spread."""
    monkeypatch.setattr("estgw.callout.caller.spread", lambda seconds: seconds)


def caller(limits: CalloutLimits = LIMITS, running: int = 8, waiting: int = 100) -> Caller:
    return Caller(Slots(running, waiting), limits)


def call_of(program: Path, call: Call, kind: Kind = Kind.HANDLER) -> Call:
    """The call of this script, as a handler or as a decision."""
    return change(call, handler=program, authorize=program, authenticate=program, kind=kind)


def handle(directory: Path, text: str, call: Call | None = None) -> Output:
    call = call or plain(directory, "simpleenroll")
    return asyncio.run(caller().handle(call_of(script(directory, text), call)))


def decide(directory: Path, text: str, kind: Kind, call: Call | None = None) -> None:
    call = call or plain(directory, "simpleenroll")
    asyncio.run(caller().decide(call_of(script(directory, text), call, kind)))


def refusal(directory: Path, text: str, call: Call | None = None) -> RequestError:
    """The refusal that the client gets for this handler."""
    with pytest.raises(RequestError) as raised:
        handle(directory, text, call)
    return raised.value


def answer(error: RequestError) -> tuple[int, str, Mapping[str, str]]:
    return error.status, error.public, error.headers


APOLOGY = "The server could not do this. Its log says why, under request 0123456789."
WAIT = {"Retry-After": "60"}


# Handlers.


def test_a_handler_that_succeeds_is_answered_with_its_stdout(tmp_path):
    assert handle(tmp_path, "echo body") == Output(b"body\n")


def test_a_handler_gets_the_body_on_stdin(tmp_path):
    assert handle(tmp_path, "cat", plain(tmp_path, "simpleenroll", body=b"request")).body == b"request"


def test_a_handler_of_a_get_gets_no_body(tmp_path):
    assert handle(tmp_path, "cat", plain(tmp_path, "cacerts", body=b"smuggled")).body == b""


def test_a_handler_may_set_its_own_status_and_location(tmp_path):
    text = r"printf 'Status: 307\nLocation: https://x.example/\n\n'"
    assert handle(tmp_path, text) == Output(b"", 307, {"Location": "https://x.example/"})


# exit status -> status, text for the client, headers.
HANDLER = {
    65: (400, "Bad words.", {}),
    69: (503, "Bad words.", WAIT),
    75: (202, "", WAIT),
    77: (403, "Bad words.", {}),
    64: (501, "This operation is not offered here.", {}),
    1: (500, APOLOGY, {}),
    2: (500, APOLOGY, {}),
    127: (500, APOLOGY, {}),
    255: (500, APOLOGY, {}),
}


@pytest.mark.parametrize("exit_status", HANDLER)
def test_an_exit_status_of_a_handler_gives_its_http_status(tmp_path, exit_status):
    assert answer(refusal(tmp_path, f"echo 'Bad words.'; exit {exit_status}")) == HANDLER[exit_status]


@pytest.mark.parametrize(
    ("exit_status", "text"),
    [(65, "The request was refused."), (69, "Try again later."), (77, "The request was refused.")],
)
def test_a_refusal_without_words_gets_a_default_text(tmp_path, exit_status, text):
    assert refusal(tmp_path, f"exit {exit_status}").public == text


def test_exit_75_is_503_where_an_operation_cannot_be_pending(tmp_path):
    assert answer(refusal(tmp_path, "exit 75", plain(tmp_path, "cacerts"))) == (503, "Try again later.", WAIT)


def test_the_log_names_the_exit_status(tmp_path):
    assert str(refusal(tmp_path, "exit 77")).startswith("program said 77 (NOPERM)")
    assert str(refusal(tmp_path, "exit 3")) == (
        "program exited with 3, which is a fault of the script; to refuse, exit 77."
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "echo; echo 'no such user'; echo more; exit 1",
            'program exited with 1, which is a fault of the script; to refuse, exit 77. It printed "no such user".',
        ),
        ("exit 137", "program exited with 137 (128 + SIGKILL), which is a fault of the script; to refuse, exit 77."),
        (
            "no-such-program",
            "program exited with 127: a command in it was not found or can't be executed.",
        ),
        ("echo later; exit 75", 'pending: program said 75 (TEMPFAIL). It printed "later".'),
        ("echo which; exit 64", 'program said 64 (USAGE). It printed "which".'),
        (r"printf '\033[2Jno\n'; exit 1", r'to refuse, exit 77. It printed "\x1b[2Jno".'),
        (f"echo {'A' * 64}; exit 1", "to refuse, exit 77. It printed base64."),
        (r"printf '\060\202\0\0\0\0\001\002\003'; exit 1", "to refuse, exit 77. It printed binary data."),
        ("echo '-----BEGIN PRIVATE KEY-----'; exit 1", 'It printed "[private key removed]".'),
        (f"echo '{'ab ' * 100}'; exit 1", f'It printed "{("ab " * 100)[:200]}...".'),
    ],
)
def test_the_log_has_what_a_failed_script_printed(tmp_path, text, reason):
    assert str(refusal(tmp_path, text)).endswith(reason)


def test_the_log_never_has_a_password_that_a_script_printed(tmp_path):
    client = replace(plain(tmp_path).client, claimed=Credentials("Basic", "ann", "geheim"))
    call = replace(plain(tmp_path, "simpleenroll"), client=client)
    with capture_logs() as lines:
        error = refusal(tmp_path, "echo geheim; echo it is geheim >&2; exit 1", call)
    assert str(error).endswith('It printed "[password removed]".')
    assert [line["line"] for line in lines] == ["it is [password removed]"]


def test_the_log_has_the_stdout_of_a_decision_that_says_yes(tmp_path):
    with capture_logs() as lines:
        decide(tmp_path, "echo fine by me", Kind.AUTHORIZE)
    assert [(line["event"], line["printed"]) for line in lines] == [
        ("stdout of a decision that says yes is not used", '"fine by me"')
    ]


@pytest.mark.parametrize(
    ("content", "diagnosis"),
    [
        ("#!/usr/bin/env bash\r\nexit 0\r\n", "its #! line ends in a carriage return: save it with Unix line ends"),
        ("#!/bin/bash\r\n", "its #! line ends in a carriage return: save it with Unix line ends"),
        ("\ufeff#!/bin/bash\n", "a byte order mark stands before its #! line: save it as UTF-8 without BOM"),
        ("#!/usr/bin/env no-such-shell\n", "its interpreter no-such-shell is not in "),
        ("#!/no/such\n", "its interpreter /no/such does not exist"),
        ("text\n", "neither a #! line nor a program"),
    ],
)
def test_the_log_says_why_a_script_could_not_start(tmp_path, content, diagnosis):
    program = tmp_path / "program"
    program.write_text(content, newline="")
    program.chmod(0o755)
    with pytest.raises(HandlerFailed, match=re.escape(diagnosis)):
        asyncio.run(caller().handle(call_of(program, plain(tmp_path))))


@pytest.mark.parametrize(
    ("printed", "exit_status", "status"),
    [
        (r"Status: 404\n\nno", 77, 404),  # a status of the same kind refines the exit status
        (r"Status: 422\n\nno", 65, 422),
        (r"Status: 500\n\nno", 69, 500),
        (r"Status: 503\n\nno", 77, 403),  # a status of another kind does not
        (r"Status: 200\n\nno", 77, 403),
        (r"Status: 202\n\nno", 65, 400),
        (r"Status: 302\nLocation: https://x/\n\nno", 77, 403),
        (r"Status: 200\n\nno", 75, 202),
        (r"Status: 502\n\nno", 1, 500),
        (r"Status: 404\n\nno", 64, 501),
    ],
)
def test_a_status_line_counts_only_if_it_agrees_with_the_exit_status(tmp_path, printed, exit_status, status):
    assert refusal(tmp_path, f"printf '{printed}'; exit {exit_status}").status == status


@pytest.mark.parametrize(
    ("printed", "answered"),
    [
        (r"Status: 404\n\nno such thing", (404, "no such thing", {})),
        (r"Status: 400\n\nbad", (400, "bad", {})),
        (r"Status: 401\n\n", (401, "", {})),
        (r"Status: 403\n\n", (403, "The request was refused.", {})),
        (r"Status: 500\n\nsorry", (500, "sorry", {})),
        (r"Status: 503\nRetry-After: 7\n\nbusy", (503, "busy", {"Retry-After": "7"})),
        (r"Status: 503\n\nbusy", (503, "busy", WAIT)),
        (r"Status: 599\n\nodd", (599, "odd", {})),
        (r"Status: 202\n\n", (202, "", WAIT)),
        (r"Status: 202\nRetry-After: 7\n\nignored", (202, "", {"Retry-After": "7"})),
    ],
)
def test_a_status_line_of_a_successful_handler_sets_the_answer(tmp_path, printed, answered):
    assert answer(refusal(tmp_path, f"printf '{printed}'")) == answered


def test_retry_after_of_a_pending_handler_reaches_the_client(tmp_path):
    error = refusal(tmp_path, r"printf 'Status: 202\nRetry-After: 5\n\n'; exit 75")
    assert error.headers == {"Retry-After": "5"}


def test_control_characters_and_length_of_words_are_cut(tmp_path):
    assert refusal(tmp_path, r"printf 'a\033[31mb\0c'; exit 77").public == "a?[31mb?c"
    assert len(refusal(tmp_path, "head -c 9000 /dev/zero | tr '\\0' x; exit 77").public) == 2048


def test_an_unfinished_header_block_is_a_500_with_the_reason_logged(tmp_path):
    error = refusal(tmp_path, "echo Status: fine; exit 0")
    assert (error.status, error.public) == (500, APOLOGY)
    assert str(error) == (
        'program: no empty line ends the header block within 8192 bytes. It printed "Status: fine". '
        "stdout is the answer; messages go to stderr."
    )


def test_the_log_names_headers_that_were_dropped(tmp_path):
    with capture_logs() as lines:
        handle(tmp_path, r"printf 'Status: 200\nSet-Cookie: a\n\nbody'")
    assert [line for line in lines if line["event"] == "headers dropped"] == [
        {"event": "headers dropped", "handler": "program", "headers": "set-cookie", "log_level": "warning"}
    ]


# Handlers that misbehave: the client gets a sentence, the log has the reason.


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kill -SEGV $$", f"program: ended by signal {int(signal.SIGSEGV)} (SIGSEGV)"),
        ("kill -KILL $$", "program: ended by signal 9 (SIGKILL)"),
        ("yes", "program: flooded its stdout, killed"),
        ("yes >&2", "program: flooded its stderr, killed"),
        ("echo Status: 403; echo; yes", "program: flooded its stdout, killed"),
    ],
)
def test_a_signal_or_a_flood_is_a_500_with_the_reason_logged(tmp_path, text, reason):
    error = refusal(tmp_path, f"ulimit -c 0; {text}")
    assert isinstance(error, HandlerFailed)
    assert (error.public, str(error)) == (APOLOGY, reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exec head -c 3000000 /dev/zero >big", "program: ended by signal 25 (SIGXFSZ: it wrote a file larger than "),
        ("set -e; head -c 3000000 /dev/zero >big", "program exited with 153 (SIGXFSZ: it wrote a file larger than "),
        ("head -c 3000000 /dev/zero >big || exit", "program exited with 153 (SIGXFSZ: it wrote a file larger than "),
    ],
)
@pytest.mark.parametrize("kind", [None, Kind.AUTHORIZE, Kind.AUTHENTICATE])
def test_a_file_beyond_max_file_is_a_500_that_names_the_setting(tmp_path, kind, text, reason):
    """The kernel sends a signal, and a shell exits with 128 plus its number. The log names the key in conf.yaml."""
    program = script(tmp_path, f"ulimit -c 0; {text}")
    ours = caller(replace(LIMITS, max_file=1 << 20))
    call = plain(tmp_path, "simpleenroll")
    with pytest.raises(HandlerFailed) as raised:
        asyncio.run(ours.handle(call_of(program, call)) if kind is None else ours.decide(call_of(program, call, kind)))
    assert (raised.value.status, raised.value.public) == (500, APOLOGY)
    assert str(raised.value) == f"{reason}callouts.max_file)"
    assert (tmp_path / "big").stat().st_size == 1 << 20


def test_a_handler_that_hangs_is_a_504_and_is_killed(tmp_path):
    began = time.monotonic()
    error = refusal(tmp_path, "sleep 60", plain(tmp_path, timeout=0.2))
    assert isinstance(error, HandlerTimedOut)
    assert answer(error) == (504, "The handler took too long. Request 0123456789.", {})
    assert str(error) == "program: over its 0.2 s, killed"
    assert time.monotonic() - began < 5


def test_a_handler_that_answers_only_after_sigterm_is_still_a_504(tmp_path, monkeypatch):
    monkeypatch.setattr(process, "TERM_GRACE", 2)
    text = "trap 'echo body; exit 0' TERM; sleep 60 & wait"
    assert refusal(tmp_path, text, plain(tmp_path, timeout=0.2)).status == 504


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (0o644, "#!/bin/bash\n", "not executable; chmod +x {} (Permission denied)"),
        (0o755, "#!/no/such\n", "its interpreter /no/such does not exist (No such file or directory)"),
        (0o755, "text\n", "neither a #! line nor a program (Exec format error)"),
        (None, "", "No such file or directory"),
    ],
)
def test_a_handler_that_cannot_start_is_a_500_with_the_reason_logged(tmp_path, mode, text, words):
    program = tmp_path / "program"
    if mode is not None:
        program.write_text(text)
        program.chmod(mode)
    with pytest.raises(HandlerFailed) as raised:
        asyncio.run(caller().handle(call_of(program, plain(tmp_path))))
    assert raised.value.public == APOLOGY
    assert str(raised.value) == f"could not start {program}: {words.format(program)}"


def test_a_refused_environment_starts_no_script(tmp_path):
    mark = tmp_path / "mark"
    assert refusal(tmp_path, f"touch {mark}", plain(tmp_path, query="() { :; }")).status == 400
    assert not mark.exists()


def test_a_handler_whose_directory_is_gone_is_a_fault(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    program = script(folder, "exit 0")
    program.unlink()
    folder.rmdir()
    with pytest.raises(HandlerFailed):
        asyncio.run(caller().handle(call_of(program, plain(tmp_path))))


# Messages on stderr go to the log.


def stderr_of(directory: Path, text: str, limits: CalloutLimits = LIMITS) -> list[tuple[str, str]]:
    with capture_logs() as lines, contextlib.suppress(RequestError):
        asyncio.run(caller(limits).handle(call_of(script(directory, text), plain(directory))))
    return [(line["log_level"], line["line"]) for line in lines if line["event"] == "handler stderr"]


def test_stderr_is_logged_as_info_after_success_and_else_as_warning(tmp_path):
    assert stderr_of(tmp_path, "echo fine >&2; echo body") == [("info", "fine")]
    assert stderr_of(tmp_path, "echo one >&2; echo two >&2; exit 77") == [("warning", "one"), ("warning", "two")]
    assert stderr_of(tmp_path, "echo last words >&2; kill -9 $$") == [("warning", "last words")]


def test_stderr_never_reaches_the_client(tmp_path):
    assert refusal(tmp_path, "echo secret >&2; exit 77").public == "The request was refused."


def test_a_private_key_on_stderr_is_not_logged(tmp_path):
    text = "echo '-----BEGIN EC PRIVATE KEY-----' >&2; echo MHcCAQEE >&2; echo '-----END EC PRIVATE KEY-----' >&2"
    assert stderr_of(tmp_path, text) == [("info", "[private key removed]")]


def test_long_stderr_is_cut_off_in_the_log(tmp_path):
    lines = stderr_of(tmp_path, "head -c 5000 /dev/zero | tr '\\0' x >&2")
    assert lines == [("info", "x" * 4096), ("info", "[stderr cut off here]")]


# Decisions.

YES = None
DECISIONS = {
    (Kind.AUTHORIZE, 0): YES,
    (Kind.AUTHORIZE, 65): (400, "words", {}),
    (Kind.AUTHORIZE, 69): (503, "words", WAIT),
    (Kind.AUTHORIZE, 75): (202, "", WAIT),
    (Kind.AUTHORIZE, 77): (403, "words", {}),
    (Kind.AUTHORIZE, 64): (500, APOLOGY, {}),
    (Kind.AUTHORIZE, 1): (500, APOLOGY, {}),
    (Kind.AUTHENTICATE, 0): YES,
    (Kind.AUTHENTICATE, 65): (500, "words", {}),
    (Kind.AUTHENTICATE, 69): (503, "words", WAIT),
    (Kind.AUTHENTICATE, 75): (503, "Try again later.", WAIT),
    (Kind.AUTHENTICATE, 77): (401, "", {}),
    (Kind.AUTHENTICATE, 64): (500, APOLOGY, {}),
    (Kind.AUTHENTICATE, 1): (500, APOLOGY, {}),
}


@pytest.mark.parametrize(("kind", "exit_status"), DECISIONS)
def test_the_exit_status_of_a_decision_lets_in_or_refuses(tmp_path, kind, exit_status):
    wanted = DECISIONS[kind, exit_status]
    text = f"echo words; exit {exit_status}"
    if wanted is YES:
        decide(tmp_path, text, kind)
        return
    with pytest.raises(RequestError) as raised:
        decide(tmp_path, text, kind)
    assert answer(raised.value) == wanted


def test_a_decision_that_exits_77_refuses_despite_a_status_of_200(tmp_path):
    with pytest.raises(RequestError) as raised:
        decide(tmp_path, r"printf 'Status: 200\n\nyes'; exit 77", Kind.AUTHORIZE)
    assert raised.value.status == 403


def test_exit_75_of_authorize_is_503_for_cacerts(tmp_path):
    with pytest.raises(Unavailable):
        decide(tmp_path, "exit 75", Kind.AUTHORIZE, plain(tmp_path, "cacerts"))


@pytest.mark.parametrize("kind", [Kind.AUTHORIZE, Kind.AUTHENTICATE])
@pytest.mark.parametrize(
    ("text", "status"), [("kill -9 $$", 500), ("yes", 500), ("sleep 60", 504), ("exec /no/such/program", 500)]
)
def test_a_decision_that_crashes_hangs_or_floods_refuses(tmp_path, kind, text, status):
    with pytest.raises(RequestError) as raised:
        decide(tmp_path, text, kind, plain(tmp_path, decision_timeout=0.3))
    assert raised.value.status == status


# Several callouts.


def test_a_callout_beyond_the_queue_is_a_503(tmp_path):
    program = script(tmp_path, "sleep 0.2; echo body")

    async def scene() -> list[Output | BaseException]:
        busy = caller(running=1, waiting=1)
        runs = (busy.handle(call_of(program, plain(tmp_path))) for _ in range(3))
        return await asyncio.gather(*runs, return_exceptions=True)

    first, second, third = asyncio.run(scene())
    assert first == second == Output(b"body\n")
    assert isinstance(third, Unavailable)
    assert answer(third) == (503, "Too many requests at once; try again soon.", WAIT)
    assert str(third) == "the queue of callouts is full"


def test_callouts_of_one_serialize_name_run_one_at_a_time(tmp_path):
    # A handler that finds another one running exits with 77.
    program = script(tmp_path, "mkdir lock || exit 77; sleep 0.05; rmdir lock; echo body")

    async def scene(serialize: str | None) -> list[Output | BaseException]:
        shared = caller()
        runs = (shared.handle(call_of(program, plain(tmp_path, serialize=serialize))) for _ in range(4))
        return await asyncio.gather(*runs, return_exceptions=True)

    assert asyncio.run(scene("ca")) == [Output(b"body\n")] * 4
    assert any(isinstance(end, RequestError) for end in asyncio.run(scene(None)))


def test_callouts_leave_no_descriptor_open(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    call = plain(tmp_path)
    for text in ("echo body", "exit 77", "kill -9 $$", "yes"):
        with pytest.raises(RequestError) if text != "echo body" else capture_logs():
            handle(tmp_path, text, call)
    with pytest.raises(HandlerFailed):
        asyncio.run(caller().handle(call_of(tmp_path / "missing", call)))
    assert set(os.listdir("/proc/self/fd")) == before
