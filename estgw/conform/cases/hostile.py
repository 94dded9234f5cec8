"""What strangers may send: after each of these, /cacerts has to answer as before."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from cryptography import x509

from estgw.client.faults import ClientError, InvalidAnswer, NoConnection, Untrusted
from estgw.conform import facts, http
from estgw.conform.case import Case
from estgw.conform.http import Reply
from estgw.conform.line import Line
from estgw.conform.model import Level, Need, failed, warned
from estgw.conform.probe import Form, Probe
from estgw.est.der import SEQUENCE, wrap
from estgw.est.operations import PKCS10

_LONG = 4 * 1024 * 1024
_DEPTH = 5_000
_NAMES = 10_000
_DRIPS, _PAUSE = 6, 0.5
_TYPE = {"Content-Type": PKCS10}


def too_long(probe: Probe) -> str:
    """A body of 4 MiB."""
    return _survives(probe, lambda line: line.ask("POST", _enroll(probe), _TYPE, b"A" * _LONG), "a body of 4 MiB")


def too_slow(probe: Probe) -> str:
    """A head that comes a few bytes at a time and never ends, and another client meanwhile."""

    def drip(line: Line) -> Reply:
        line.restart_clock(probe.setup.timeout)
        line.send(f"POST {_enroll(probe)} HTTP/1.1\r\n".encode())
        for number in range(_DRIPS):
            time.sleep(_PAUSE)
            line.send(f"X-Slow-{number}: x\r\n".encode())
        _require_alive(probe, "while a client sends its head slowly")
        raise NoConnection("the client gave up")

    return _survives(probe, drip, "a head that does not end")


def half_body(probe: Probe) -> str:
    """A tenth of the body, then the end."""

    def begin(line: Line) -> Reply:
        line.restart_clock(probe.setup.timeout)
        headers = {"Host": probe.setup.place.authority, **_TYPE, "Content-Length": "1000"}
        line.send(http.request("POST", _enroll(probe), headers, b"A" * 100))
        raise NoConnection("the client went away")

    return _survives(probe, begin, "half a body")


def two_lengths(probe: Probe) -> str:
    """RFC 9112 6.3."""
    head = f"POST {_enroll(probe)} HTTP/1.1\r\nHost: {probe.setup.place.authority}\r\nContent-Type: {PKCS10}\r\n"
    data = (head + "Content-Length: 4\r\nContent-Length: 40\r\n\r\n").encode() + b"MAA="
    replies: list[Reply] = []

    def ask(line: Line) -> Reply:
        replies.append(line.ask_raw(data, f"POST {_enroll(probe)} with Content-Length: 4 and Content-Length: 40"))
        return replies[0]

    seen = _survives(probe, ask, "two lengths")
    if replies and replies[0].is_success:
        raise failed(f"two lengths that differ are taken: {replies[0]}")
    if replies and replies[0].status != 400:
        raise warned(f"two lengths that differ: {replies[0].status}; RFC 9112 6.3 wants 400 and the end")
    return seen


def nul(probe: Probe) -> str:
    """A NUL in a header (RFC 9110 5.5)."""
    target = probe.target("cacerts")
    data = f"GET {target} HTTP/1.1\r\nHost: {probe.setup.place.authority}\r\nX-Odd: a\0b\r\n\r\n".encode()
    return _survives(probe, lambda line: line.ask_raw(data, f"GET {target} with a NUL in a header", "GET"), "a NUL")


def deep_der(probe: Probe) -> str:
    """A SEQUENCE in a SEQUENCE, 5,000 times."""
    data = b""
    for _ in range(_DEPTH):
        data = wrap(SEQUENCE, data)
    return _parsed(probe, lambda _: data, "5,000 SEQUENCEs in one another")


def tail(probe: Probe) -> str:
    """A good CSR with bytes behind it."""
    made = Form(change=lambda der: der + b"\x00" * 16)
    wish = facts.wish(probe)
    replies: list[Reply] = []

    def ask(_: Line) -> Reply:
        replies.append(facts.enrol(probe, wish, made).reply)
        return replies[0]

    seen = _survives(probe, ask, "a CSR with a tail")
    if replies and replies[0].is_success:
        raise warned("a CSR with 16 bytes behind its end is taken")
    return seen


def many_sans(probe: Probe) -> str:
    """10,000 names."""
    san = tuple(x509.DNSName(f"{number}.example") for number in range(_NAMES))
    make = facts.maker(probe, replace(facts.wish(probe), san=san))
    return _parsed(probe, make, "a CSR with 10,000 names")


def _parsed(probe: Probe, make: Callable[..., bytes], what: str) -> str:
    """A body that has to be read to be refused, so it comes with a login."""
    replies: list[Reply] = []

    def ask(_: Line) -> Reply:
        replies.append(probe.post(make))
        return replies[0]

    seen = _survives(probe, ask, what)
    if replies and replies[0].status >= 500 and replies[0].status != 503:
        raise warned(f"{what}: {replies[0]}; a 4xx would say whose fault it is")
    return seen


def _survives(probe: Probe, ask: Callable[[Line], Reply], what: str) -> str:
    """Do it; whatever the server answers or does to that connection, /cacerts has to answer afterwards."""
    seen = "the connection ends"
    with probe.line() as line:
        try:
            seen = str(ask(line))
        except (NoConnection, Untrusted, InvalidAnswer) as fault:
            seen = str(fault)
        except OSError as fault:
            seen = fault.strerror or seen
    _require_alive(probe, f"after {what}")
    return f"{seen}; /cacerts answers"


def _require_alive(probe: Probe, when: str) -> None:
    """Two tries, as the first may meet a server that is just starting again."""
    last, before = "", facts.cacerts(probe).status
    for pause in (0.0, 1.0):
        time.sleep(pause)
        try:
            reply = probe.get("cacerts")
            if reply.status in (before, 401, 403):
                return
            last = str(reply)
        except ClientError as fault:
            last = str(fault)
    raise failed(f"{when}, /cacerts no longer answers: {last}")


def _enroll(probe: Probe) -> str:
    return probe.target("simpleenroll")


_CLAUSE = "RFC 7030 3.2.2, 4.1"
CASES = (
    Case("too-long", "hostile", Level.MUST, _CLAUSE, ("U1",),
         "After a body of 4 MiB, /cacerts answers.", too_long),
    Case("too-slow", "hostile", Level.MUST, _CLAUSE, ("U1",),
         "While a client sends its head slowly, /cacerts answers others.", too_slow),
    Case("half-body", "hostile", Level.MUST, _CLAUSE, ("U1",),
         "After half a body and the end of the connection, /cacerts answers.", half_body),
    Case("two-lengths", "hostile", Level.MUST, "RFC 9112 6.3", ("U1",),
         "Two lengths that differ are refused with 400, and /cacerts answers.", two_lengths),
    Case("nul", "hostile", Level.MUST, "RFC 9110 5.5", ("U1",),
         "After a NUL in a header, /cacerts answers.", nul),
    Case("deep-der", "hostile", Level.MUST, _CLAUSE, ("U1", "E2"),
         "After 5,000 SEQUENCEs in one another, /cacerts answers.", deep_der, (Need.LOGIN,)),
    Case("tail", "hostile", Level.MUST, _CLAUSE, ("U1", "E2"),
         "A CSR with bytes behind its end is refused, and /cacerts answers.", tail, (Need.ISSUE, Need.LOGIN)),
    Case("many-sans", "hostile", Level.MUST, _CLAUSE, ("U1", "E2"),
         "After a CSR with 10,000 names, /cacerts answers.", many_sans, (Need.ISSUE, Need.LOGIN)),
)  # fmt: skip
