"""One callout from start to end: a slot, the environment, the process, the verdict."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace

from estgw.callout import cgi, ending, process, scratch, shortage, verdicts
from estgw.callout.cache import Cache
from estgw.callout.call import Call
from estgw.callout.environment import environment_of
from estgw.callout.observer import Watch, note
from estgw.callout.process import CouldNotStart, Limits, Outcome, Script
from estgw.callout.runners import Runners
from estgw.callout.slots import Busy, Slots
from estgw.callout.verdicts import Kind
from estgw.errors import (
    BadRequest,
    Forbidden,
    HandlerFailed,
    HandlerTimedOut,
    Malformed,
    NotSupported,
    Pending,
    RequestError,
    Unauthenticated,
    Unavailable,
    apology,
    spread,
)
from estgw.est import answers
from estgw.est.operations import Body
from estgw.logs import log, stderr_lines


@dataclass(frozen=True)
class CalloutLimits:
    """The limits of all callouts."""

    max_stdout: int
    max_stderr: int
    retry_after: int
    """Seconds until a client comes back, where a script does not say: at least so many (`errors.spread`)."""
    max_file: int = process.FILE_LIMIT


class Caller:
    """Runs callouts: it joins the contract with the runners."""

    def __init__(self, slots: Slots, limits: CalloutLimits, runners: Runners | None = None) -> None:
        self._slots = slots
        self._limits = limits
        self._runners = runners or Runners()
        self._cache = Cache()

    async def handle(self, call: Call) -> cgi.Output:
        """Run a handler, or repeat a kept answer.  Returns its output, or raises the `RequestError` that it means."""
        return await self._handle(call, environment_of(call))

    async def authorize_and_handle(self, call: Call, decided: Callable[[float], None]) -> cgi.Output:
        """Run the route's `authorize`, then the handler: in one process where both scripts are made for that.

        `decided` is called for yes, with the seconds for which the handler has run by then.  Returns or raises as
        `handle`, or raises the `RequestError` that the decision means.
        """
        route, decision = call.route, replace(call, kind=Kind.AUTHORIZE)
        scripts, asked = (decision.script, call.script), (route.decision_runner, route.runner)
        # A handler with `serialize` holds a lock that its decision must not hold, and a kept answer needs no handler.
        together = route.serialize is None and route.operation.takes_body
        by = self._runners.for_both(asked, scripts) if together else None
        if by is None:
            await self.decide(decision)
            decided(0.0)
            return await self.handle(call)
        environment = environment_of(decision)
        first = Script(decision.script, environment, b"", self._limits_of(decision))
        environment = environment_of(call, environment)
        second = Script(call.script, environment, call.http.body, self._limits_of(call))
        scratch.lay_out(call)
        watches = self._watch(decision, first.env, by), self._watch(call, second.env, by)
        async with self._started(call, watch=watches[0]):
            one, two = await self._runners.run_both(by, first, second)
        note(watches, (one, two))
        _log_stderr(decision, one)
        self.judge_decision(decision, one)
        decided(two.seconds if two else 0.0)
        if two is None:  # the decision has said yes, and left something behind in its process
            return await self._handle(call, environment)
        _log_stderr(call, two)
        return self.judge_handler(call, two)

    async def _handle(self, call: Call, environment: Mapping[str, str]) -> cgi.Output:
        takes_body = call.route.operation.takes_body
        if not takes_body and (kept := self._cache.get(call.script, environment)) is not None:
            if (watch := self._watch(call, environment)) is not None:
                watch.cached()
            return kept
        outcome = await self._run(call, environment)
        _log_stderr(call, outcome)
        return self.judge_handler(call, outcome)

    def keep(self, call: Call, output: cgi.Output) -> None:
        """Keep a valid answer, if the handler printed `X-EST-Cache`."""
        if output.keep and not call.route.operation.takes_body:
            self._cache.put(call.script, environment_of(call), output)

    async def decide(self, call: Call) -> None:
        """Run a decision.  Returns if it says yes, else raises the `RequestError`."""
        outcome = await self.run(call)
        _log_stderr(call, outcome)
        self.judge_decision(call, outcome)

    async def run(self, call: Call) -> Outcome:
        """Run the call's script and return how it ended, unjudged.  Raises a `RequestError` if it could not start."""
        return await self._run(call, environment_of(call))

    async def _run(self, call: Call, environment: Mapping[str, str]) -> Outcome:
        scratch.lay_out(call)
        route, is_handler = call.route, call.kind is Kind.HANDLER
        stdin = call.http.body if is_handler and route.operation.takes_body else b""
        runner = route.runner if is_handler else route.decision_runner
        watch = self._watch(call, environment)
        async with self._started(call, route.serialize if is_handler else None, watch):
            outcome = await self._runners.run(runner, call.script, environment, stdin, self._limits_of(call))
        if watch is not None:
            watch.end(outcome)
        return outcome

    def _limits_of(self, call: Call) -> Limits:
        return Limits(call.timeout, self._limits.max_stdout, self._limits.max_stderr, self._limits.max_file)

    def _watch(self, call: Call, environment: Mapping[str, str], by: str | None = None) -> Watch | None:
        """What tells the request's observer of this callout, by the runner `by`; None where nobody observes."""
        observer = call.exchange.observer
        if observer is None:
            return None
        if by is None:
            asked = call.route.runner if call.kind is Kind.HANDLER else call.route.decision_runner
            by = self._runners.choice(asked, call.script)
        script = call.script
        return Watch(observer, (call.kind, script, by, environment, self._runners.version(script)))

    @contextlib.asynccontextmanager
    async def _started(
        self, call: Call, serialize: str | None = None, watch: Watch | None = None
    ) -> AsyncIterator[None]:
        """A slot for the call's script.  A script that can't be started becomes the `RequestError` for that."""
        try:
            async with self._slots.take(serialize, brief=not call.route.operation.takes_body):
                if watch is not None:
                    watch.begin()
                yield
        except Busy:
            raise Unavailable(
                "Too many requests at once; try again soon.",
                retry_after=spread(self._limits.retry_after),
                log="the queue of callouts is full",
            ) from None
        except CouldNotStart as fault:
            if shortage.words(fault):
                raise
            reason = ending.not_started(call.script, str(fault), call.route.search_path)
            if watch is not None:
                watch.could_not_start(reason)
            raise HandlerFailed(apology(call.exchange.request_id), log=reason) from None

    def retire(self) -> None:
        """End the runners of a replaced configuration; running scripts go on."""
        self._runners.close()

    def judge_decision(self, call: Call, outcome: Outcome) -> None:
        """Return if a decision's end means yes, else raise the `RequestError`."""
        self._require_sound_end(call, outcome)
        row = _row(outcome)
        status = row.status(call.kind)
        if status is not None:
            raise self._refusal(_Said(status, row, outcome.stdout), call)
        if text := ending.quoted(ending.without_password(outcome.stdout, call)):
            log.info("stdout of a decision that says yes is not used", handler=call.script.name, printed=text)

    def judge_handler(self, call: Call, outcome: Outcome) -> cgi.Output:
        """Return the output of a handler that ended well, else raise the `RequestError`."""
        self._require_sound_end(call, outcome)
        name = call.script.name
        row = _row(outcome)
        try:
            output = cgi.read(outcome.stdout)
        except Malformed as fault:
            stdout = ending.without_password(outcome.stdout, call)
            reason = ending.not_an_answer(call.script, str(fault), stdout)
            raise HandlerFailed(apology(call.exchange.request_id), log=reason) from None
        if output.dropped:
            log.warning("headers dropped", handler=name, headers=", ".join(output.dropped))
        if row.exit != 0:
            # A Status line may refine the exit status within its class of HTTP status, and never changes the class.
            same = output.status is not None and output.status // 100 == row.handler // 100 and row.shows_words
            status = output.status if same and output.status is not None else row.handler
            said = _Said(status, row, output.body, output.headers)
            raise _with_headers(self._refusal(said, call), output)
        if _is_message(call, output):
            return self._patient(output)
        if output.status is not None and output.status >= 400:
            said = _Said(output.status, _SPOKEN, output.body, output.headers)
            raise _with_headers(self._refusal(said, call), output)
        if output.status == 202:
            raise _with_headers(self._pending(output.headers, f"{name} said Status: 202"), output)
        return output

    def _require_sound_end(self, call: Call, outcome: Outcome) -> None:
        name, request_id = call.script.name, call.exchange.request_id
        if outcome.timed_out:
            text = f"The handler took too long. Request {request_id}."
            raise HandlerTimedOut(text, log=f"{name}: over its {call.timeout:g} s, killed")
        if outcome.flooded:
            stream = "stderr" if len(outcome.stdout) < self._limits.max_stdout else "stdout"
            raise HandlerFailed(apology(request_id), log=f"{name}: flooded its {stream}, killed")
        if outcome.exit is None and outcome.signal is None:
            raise HandlerFailed(apology(request_id), log=f"{name}: how it ended is unknown: the warm parent died")
        if outcome.exit is None:
            assert outcome.signal is not None
            raise HandlerFailed(apology(request_id), log=ending.killed(call.script, outcome.signal))

    def _refusal(self, said: _Said, call: Call) -> RequestError:
        """The error for a status that a script asked for."""
        row = said.row
        words, text = cgi.words(said.text) if row.shows_words else "", ending.without_password(said.text, call)
        reason = f"{call.script.name} said {row.exit} ({row.name})"
        if row.exit not in verdicts.KNOWN:
            reason = ending.exited(call.script, row.exit, text, call.route.search_path)
        elif not row.shows_words:
            reason += "." + ending.printed(text) if text.strip() else ""
        match said.status:
            case 202 if call.route.operation.may_wait:
                return self._pending(said.headers, reason)
            case 202 | 503:
                retry_after = int(said.headers.get("Retry-After") or spread(self._limits.retry_after))
                return Unavailable(words or "Try again later.", retry_after=retry_after, log=reason)
            case 400:
                return BadRequest(words or "The request was refused.", log=f"{reason}: {words}")
            case 401:
                return Unauthenticated(log=f"{reason}: {words}")
            case 403:
                return Forbidden(words or "The request was refused.", log=f"{reason}: {words}")
            case 501:
                return NotSupported("This operation is not offered here.", log=reason)
            case 500 if not row.shows_words:
                return HandlerFailed(apology(call.exchange.request_id), log=reason)
            case _:
                error = RequestError(words, log=f"{reason}: {words}")
                error.status = said.status
                return error

    def _patient(self, output: cgi.Output) -> cgi.Output:
        """A PKI Response that means "later", with Retry-After."""
        if output.status != 202 or "Retry-After" in output.headers:
            return output
        return replace(output, headers={**output.headers, "Retry-After": str(spread(self._limits.retry_after))})

    def _pending(self, headers: Mapping[str, str], reason: str) -> Pending:
        return Pending(int(headers.get("Retry-After") or spread(self._limits.retry_after)), log=f"pending: {reason}")


@dataclass(frozen=True)
class _Said:
    """What a script asked for by its end: an HTTP status, and text and headers to go with it."""

    status: int
    row: verdicts.ExitStatus
    text: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


# A handler that ended well and printed a Status of 400 or more has chosen its words for the client.
_SPOKEN = verdicts.ExitStatus(0, "OK", 200, None, None, True, "")


def _row(outcome: Outcome) -> verdicts.ExitStatus:
    assert outcome.exit is not None
    return verdicts.KNOWN.get(outcome.exit) or replace(verdicts.OTHERWISE, exit=outcome.exit)


def _is_message(call: Call, output: cgi.Output) -> bool:
    """Whether the output is a PKI Response that refuses or defers; it becomes the body (RFC 7030 4.3.2).

    A 401 is excluded, since it needs a challenge.
    """
    if call.route.operation.body is not Body.CMC or output.status in (None, 200, 401):
        return False
    try:
        answers.to_wire(Body.CMC, output.body, columns=None)
    except Malformed:
        return False
    return True


def _with_headers(error: RequestError, output: cgi.Output) -> RequestError:
    """The same error with the headers that the handler printed."""
    given = {name: value for name, value in output.headers.items() if name.startswith("X-") or name == "Retry-After"}
    error.headers = {**given, **error.headers}
    return error


def _log_stderr(call: Call, outcome: Outcome) -> None:
    """Log the script's stderr line by line: as information if it ended well, else as a warning."""
    write = log.info if outcome.exit == 0 else log.warning
    stderr = ending.without_password(outcome.stderr, call)
    for line in stderr_lines(stderr, truncated=outcome.stderr_truncated):
        write("handler stderr", handler=call.script.name, line=line)
