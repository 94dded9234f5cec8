"""Text of a peer is read in time that grows with its length, not with the square of its length.

Each row has a function that reads text of a peer, and the worst text for it.  Sixteen times the text may take 64 times
as long: linear code takes 16 times, quadratic code 256.
"""

from __future__ import annotations

import contextlib
import gc
import resource
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import pytest
from cryptography import x509

from estgw import logs
from estgw.auth import digest, http, pop_rules
from estgw.callout import cgi
from estgw.client import faults, files
from estgw.client.commands import trace
from estgw.client.transport import answers, challenge, multipart, url
from estgw.client.transport.wire import Answer
from estgw.errors import ConfigError, Malformed, RequestError
from estgw.est import ber, encoding, names, operations
from estgw.record import explain, redact
from estgw.record.gates import Gate
from estgw.register import lookup
from tests.kit.der import UTF8, attribute, oid, tlv
from tests.kit.processes import ROOT

SIZES = (400, 6400, 25_600, 102_400)
"""Bytes.  The second and the last are compared; the others stop a test early that would take hours."""
TOO_LONG = 1.0
"""Seconds of processor time that no size may take."""
NO_TIME = 0.05
"""Seconds too short for a comparison: memory alone makes such times vary."""
REFUSED = (RequestError, Malformed, ConfigError, faults.ClientError)


def multipart_of(header: str = "multipart/mixed; boundary=b", body: bytes = b"") -> Any:
    headers = Message()
    headers["Content-Type"] = header
    return multipart.split(headers, body)


def bag_of(header: str) -> Any:
    headers = Message()
    headers["Content-Type"] = header
    return answers.bag(Answer(200, "OK", headers, b""))


def parse_challenge(text: str) -> Any:
    return challenge.parse([text])


def redirect(location: str) -> Any:
    return url.resolve(location, url.parse("https://est.example"), "/.well-known/est/simpleenroll")


def common_names(n: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"a{number}") for number in range(n // 12)])


def look_up(wanted: tuple[lookup._Subject, str]) -> bool:
    return wanted[0].may_be(wanted[1])


def wanted_and_row(n: int) -> tuple[lookup._Subject, str]:
    name = common_names(n)
    return lookup._Subject(name), "".join(f"/CN={part.value!s}" for part in name)


CHALLENGE = oid("1.2.840.113549.1.9.7")
BOUND = bytes.fromhex("31847fffffff0c10") + b"AAAAAAAAAAAAAAAA"
"""A set that says it is very long, and a right channel binding in it."""
REVOKE = oid("1.3.6.1.5.5.7.7.17")
OTP = attribute("1.2.840.113549.1.9.16.2.56", tlv(UTF8, b"12345678"))
secretive = redact.Redactor(None, redact.Sent("/", [("X-Key", "a" * 8000 + "b")], OTP))


def hint_of_a_handler(reason: str) -> str:
    return explain.hint(Gate.HANDLER, reason)


MULTIPART = b"--b\r\nA: b"
KEY_HEAD = b"Content-Type: application/pkcs8\r\n"

CASES: dict[str, tuple[Callable[[Any], object], Callable[[int], Any]]] = {
    # The gateway, before authentication.
    "Authorization: white space": (digest.parse, lambda n: f"a{' ' * n}b"),
    "Authorization: white space before =": (digest.parse, lambda n: f"a{' ' * n}=b"),
    "Authorization: escapes": (digest.parse, lambda n: 'a="' + "\\x" * (n // 2)),
    "Authorization: many parameters": (digest.parse, lambda n: "a=b," * (n // 4)),
    "Authorization: a whole header": (lambda text: http.parse([text]), lambda n: f"Digest a{' ' * n}b"),
    "Basic": (lambda text: http.parse([text]), lambda n: f"Basic {'A' * n}"),
    "a path of escapes": (lambda path: operations.resolve(path, ()), lambda n: "/.well-known/est/" + "%41" * (n // 3)),
    "a path of slashes": (lambda path: operations.resolve(path, ()), lambda n: "/.well-known/est" + "/a" * (n // 2)),
    "a target and its twin": (lambda path: operations.twins(path, "a"), lambda n: "/a?" * (n // 3)),
    "a media type": (operations.essence, lambda n: " ;" * (n // 2)),
    # A CSR or a certificate.
    "PEM without an end": (encoding.pem_blocks, lambda n: b"-----BEGIN X-----" * (n // 17)),
    "PEM without dashes": (encoding.pem_blocks, lambda n: b"-----BEGIN " * (n // 11)),
    "PEM of short lines": (
        encoding.pem_blocks,
        lambda n: b"-----BEGIN X-----\n" + b"a\n" * (n // 2) + b"-----END X-----",
    ),
    "PEM of many blocks": (encoding.pem_blocks, lambda n: b"-----BEGIN X-----\nAA==\n-----END X-----\n" * (n // 39)),
    "dashes": (encoding.pem_blocks, lambda n: b"-" * n),
    "a body of white space": (lambda body: encoding.decode(body, ()), lambda n: b"0" + b" " * n),
    "BER in pieces": (ber.to_der, lambda n: b"\x24\x80" + b"\x04\x01a" * (n // 3) + b"\0\0"),
    "BER nested": (ber.to_der, lambda n: b"\x30\x80" * (n // 2)),
    "a name of accents": (names.fold, lambda n: "a" + "\u0300\u0327" * (n // 4)),
    "a name of accents in order": (names.fold, lambda n: "a" + "\u0300" * (n // 4) + "\u0327" * (n // 4)),
    "a name of white space": (names.fold, lambda n: " é" * (n // 2)),
    "a name of many parts": (names.name_key, common_names),
    "a name of many parts as text": (names.dn_text, common_names),
    "a name of many parts in the register": (look_up, wanted_and_row),
    "a register's row: signs": (lookup._joined, lambda n: " =" * (n // 2)),
    "a register's row: escapes": (lookup._of_store, lambda n: "\\C3\\" * (n // 4)),
    "an index's row: escapes": (lookup._of_index, lambda n: b"\\xC3\\xA9" * (n // 8)),
    "a rule's pattern, one star": (pop_rules._pattern("CN=*,O=Example").fullmatch, lambda n: "CN=" + "a" * n),
    "a rule's pattern, two stars": (pop_rules._pattern("CN=*a*,O=Example").fullmatch, lambda n: "CN=" + "a" * n),
    "a rule's pattern, four stars": (pop_rules._pattern("CN=*a*a*a*b").fullmatch, lambda n: "CN=" + "a" * n),
    "a rule's pattern, escapes": (pop_rules._pattern("*\\\\*\\\\*x").fullmatch, lambda n: "\\\\" * (n // 2)),
    # A script may print a client's text.
    "a script's header": (cgi.read, lambda n: b"Status: 200\nX-A: x%bz\n\n" % (b" " * (n // 13))),
    "a script's words": (cgi.words, lambda n: b"\r\x1b" * (n // 2)),
    "a script's first line": (cgi.read, lambda n: b"Status" + b" " * n),
    "a script's log: keys": (logs.masked, lambda n: "-----BEGIN PRIVATE KEY-----" * (n // 27)),
    "a script's log: a key's name": (logs.masked, lambda n: "-----BEGIN " + "PRIVATE KEY " * (n // 12)),
    "a script's log: ends": (logs.masked, lambda n: "-----BEGIN PRIVATE KEY-----" + "-----END " * (n // 9)),
    # A record of what a client has sent, and of what a script has printed.
    "a record: a target's parameters": (redact.target, lambda n: "/?" + "password?" * (n // 9)),
    "a record: secret parameters": (redact.target, lambda n: "/?" + "&key=a" * (n // 6)),
    "a record: attributes in a body": (redact.holds_secret, lambda n: (CHALLENGE + BOUND) * (n // 32)),
    "a record: attributes without an end": (redact.holds_secret, lambda n: CHALLENGE * (n // 11)),
    "a record: revocations": (redact.holds_secret, lambda n: REVOKE * (n // 10)),
    "a record: armour": (redact.holds_secret, lambda n: b"-----a" * (n // 6)),
    "a record: dashes": (redact.holds_secret, lambda n: b"-" * n),
    "a record: CSRs in a text": (secretive.text, lambda n: "-----BEGIN CERTIFICATE REQUEST-----" * (n // 35)),
    "a record: a long secret in a text": (secretive.text, lambda n: "a" * n),
    "a record: a key's part": (redact.keygen_body, lambda n: KEY_HEAD * (n // 33)),
    "a record: a reason": (hint_of_a_handler, lambda n: "said 7" * (n // 6)),
    # The client, with a hostile server.
    "WWW-Authenticate: a long name": (parse_challenge, lambda n: f"Digest {'a' * n}"),
    "WWW-Authenticate: no closing quote": (parse_challenge, lambda n: 'Digest a="' + 'x\\"' * (n // 3)),
    "WWW-Authenticate: schemes": (parse_challenge, lambda n: "a " * (n // 2)),
    "WWW-Authenticate: commas": (parse_challenge, lambda n: "a," * (n // 2)),
    "WWW-Authenticate: white space": (parse_challenge, lambda n: f"a b{' ' * n}x"),
    "WWW-Authenticate: token68": (parse_challenge, lambda n: f"a b{'=' * n}x"),
    "WWW-Authenticate: parameters": (parse_challenge, lambda n: 'a b="c\\d", ' * (n // 11)),
    "Content-Type: semicolons": (multipart_of, lambda n: 'multipart/mixed; a="' + ";" * n),
    "Content-Type: parameters": (multipart_of, lambda n: "multipart/mixed" + ";a=b" * (n // 4)),
    "Content-Type of a bag": (bag_of, lambda n: 'application/pkcs7-mime; a="' + ";" * n),
    "multipart: white space": (lambda body: multipart_of(body=body), lambda n: b"\r\n--b" + b" " * n + b"x"),
    "multipart: no delimiters": (lambda body: multipart_of(body=body), lambda n: b"\r\n--b x" * (n // 7)),
    "multipart: folded lines": (lambda body: multipart_of(body=body), lambda n: MULTIPART + b"\r\n " * (n // 3)),
    "trace: types": (trace._answer_text, lambda n: KEY_HEAD * (n // 33)),
    "trace: empty lines": (trace._answer_text, lambda n: KEY_HEAD + b"\r\n\r\n" * (n // 4)),
    "trace: white space": (trace._answer_text, lambda n: b"Content-Type:" + b" " * n),
    "trace: parts": (trace._answer_text, lambda n: (KEY_HEAD + b"\r\nMA==\r\n--b\r\n") * (n // 44)),
    "words": (faults.clean, lambda n: "\x1b" * n),
    "Location: dots": (redirect, lambda n: "/" + "../a/" * (n // 5)),
    "Location: escapes": (redirect, lambda n: "/" + "%C3%A9" * (n // 6)),
    "Location: a host": (redirect, lambda n: f"https://{'a.' * (n // 2)}/"),
    "Location: an odd host": (redirect, lambda n: f"https://{chr(0xB4) * n}/"),
    "Location: an address": (redirect, lambda n: f"https://[{'1:' * (n // 2)}]/"),
    "Retry-After: digits": (lambda text: answers.delay(text, datetime.now(UTC)), lambda n: "1" * n),
    "Retry-After: words": (lambda text: answers.delay(text, datetime.now(UTC)), lambda n: "Mon, " * (n // 5)),
    "Retry-After: a zone": (lambda text: answers.delay(text, datetime.now(UTC)), lambda n: "a-" * (n // 2)),
    "a file with keys": (files.private_key_blocks, lambda n: b"-----BEGIN PRIVATE KEY-----" * (n // 27)),
}


def seconds(read: Callable[[Any], object], text: Any) -> float:
    """Processor time of this thread, the least of five, because it varies."""
    taken = []
    gc.disable()  # its cost grows with the objects of other tests
    try:
        for _ in range(5):
            began = time.thread_time()
            with contextlib.suppress(*REFUSED):
                read(text)
            taken.append(time.thread_time() - began)
            if taken[-1] > TOO_LONG:
                break
    finally:
        gc.enable()
    return min(taken)


@pytest.mark.parametrize("case", CASES)
def test_reading_text_of_a_peer_takes_linear_time(case):
    read, make = CASES[case]
    taken = {}
    for size in SIZES:
        taken[size] = seconds(read, make(size))
        assert taken[size] < TOO_LONG, taken
    assert taken[SIZES[-1]] < max(64 * taken[SIZES[1]], NO_TIME), taken


EXAMPLES: dict[str, tuple[dict[str, str], str]] = {
    "allow-list": ({"EST_OPERATION": "simpleenroll", "REMOTE_USER": "estuser", "EST_CLIENT_TRUST": "none"}, "1"),
    "echo-env": ({"EST_OPERATION": "simpleenroll"}, "1\n"),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_script_handles_a_long_text_in_3_seconds(example):
    """The kernel allows variables of 128 kB. Some patterns would take minutes for them, or all of the stack."""
    environment, filler = EXAMPLES[example]
    environment = environment | {
        "EST_CSR_SUBJECT": f"CN=device-{filler * (100_000 // len(filler))}x",
        "PATH": "/usr/bin:/bin",
        "LC_CTYPE": "C.UTF-8",
    }
    script = ROOT / "handlers/examples" / example
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([script], env=environment, cwd=script.parent, capture_output=True, timeout=90, check=False)
    assert done.returncode == 77, done.stderr[:1000]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3
