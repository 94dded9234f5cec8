"""What is kept of a request until somebody looks: no secret, no more than it says, and the same record later."""

from __future__ import annotations

import base64
import gc
import tracemalloc
import types
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estgw.auth.credentials import Credentials
from estgw.callout.call import Call
from estgw.est.csr import parse
from estgw.page import rows
from estgw.record import build, kinds
from estgw.record.build import Kept
from estgw.record.digests import Digests
from estgw.record.draft import Draft, draft
from estgw.record.tape import Tape, Verdict
from estgw.tls.info import TLSInfo
from tests.callout import calls
from tests.kit.cases import some
from tests.kit.clients import OTP, linking
from tests.kit.connection import basic
from tests.kit.csr import challenge, csr, san
from tests.kit.der import armoured
from tests.kit.keys import KEY_PEM
from tests.record.kit import readings
from tests.record.tapes import HERE, taped, verdict

DIGESTS = Digests(HERE.parent)
SECRETS = {
    "the password": "Correct-Horse-1",
    "a header": "Api-Canary-2",
    "the query": "Query-Canary-3",
    "handler_env": "Database-Canary-4",
    "a one-time password": "Otp-Canary-5",
    "a password in challengePassword": "Challenge Canary 6",
}


def drafted(call: Call, made: Verdict | None = None, **outputs: bytes) -> Draft:
    return draft(taped(call, **outputs), made or verdict(), DIGESTS, 100.01)


def secretive(directory: Path, body: bytes) -> Call:
    """A request with every kind of secret, whose scripts see them."""
    login = f"ann:{SECRETS['the password']}"
    return calls.full(
        directory,
        target=f"/.well-known/est/simplereenroll?token={SECRETS['the query']}",
        query=f"token={SECRETS['the query']}",
        headers=(("Authorization", basic(login)), ("X-Api-Key", SECRETS["a header"])),
        pass_headers=("X-Api-Key",),
        handler_env={"DB_PASSWORD": SECRETS["handler_env"]},
        pass_credentials=True,
        client=calls.client(
            claimed=Credentials("Basic", "ann", SECRETS["the password"]), user="ann", tls=calls.KNOWN.tls
        ),
        body=body,
        csr=parse(body),
    )


def reached(root: object) -> list[Any]:
    """Every object that can be reached from another, classes and modules aside."""
    found: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) not in found and not isinstance(each, type | types.ModuleType | types.FunctionType):
            found[id(each)] = each
            waiting += gc.get_referents(each)
    return list(found.values())


def secrets_in(root: object) -> set[str]:
    """The secrets in any text or bytes that an object leads to, as they are or in base64."""
    texts = [each for each in reached(root) if isinstance(each, str | bytes)]
    plain = [each if isinstance(each, str) else each.decode("latin-1") for each in texts]
    everything = [content for text in plain for content in readings(text)]
    return {name for name, secret in SECRETS.items() if any(secret.encode() in content for content in everything)}


SECRET_CSR = csr(
    "device-1",
    linking(SECRETS["a one-time password"], kind=OTP),
    challenge(SECRETS["a password in challengePassword"]),
)


def test_the_search_finds_a_secret_in_a_tape_and_in_a_call(tmp_path):
    call = secretive(tmp_path, SECRET_CSR)
    assert secrets_in(call) == set(SECRETS)
    assert secrets_in(taped(call)) == set(SECRETS)


@pytest.mark.parametrize("for_thread", [False, True])
def test_nothing_that_a_draft_refers_to_has_a_secret(tmp_path, for_thread):
    call = secretive(tmp_path, base64.b64encode(SECRET_CSR))
    loud = "\n".join([*SECRETS.values(), base64.b64encode(SECRET_CSR).decode()]).encode()
    made = draft(
        taped(call, stdout=loud, stderr=loud + KEY_PEM), verdict(loud + KEY_PEM), DIGESTS, for_thread=for_thread
    )
    kept = Kept(made.pack())
    kept.outline()
    kept.record()
    assert secrets_in((kept, made)) == set()
    assert not any(isinstance(each, Call | Tape) for each in reached((kept, made)))
    assert KEY_PEM.decode().splitlines()[1] not in str(
        [each for each in reached((kept, made)) if isinstance(each, str)]
    )


def test_a_password_in_the_words_around_a_pem_stays_out(tmp_path):
    """`openssl req -text` prints what the request holds, and its output may be sent as it is."""
    secret = SECRETS["a password in challengePassword"]
    der = csr("device-1", challenge(secret))
    body = f"    challengePassword        :{secret}\n".encode() + armoured(der)
    assert secrets_in(drafted(secretive(tmp_path, body))) == set()


def test_a_private_key_beside_a_csr_stays_out(tmp_path):
    made = drafted(secretive(tmp_path, KEY_PEM + armoured(csr())))
    assert made.body == "[removed]"
    assert not any(KEY_PEM in each for each in reached(made) if isinstance(each, bytes))


def test_a_draft_becomes_the_record_of_the_table(tmp_path):
    made = build.record(drafted(calls.full(tmp_path), stdout=b"a certificate"))
    assert kinds.fault(dict(made)) is None
    assert made["request"]["csr"]["subject"] == "CN=device-1,O=Ours"
    assert made["issued"]["subject"] == "CN=device-1,O=Ours"
    assert [gate["ms"] for gate in made["gates"]] == [1.0] * 7 + [3.0]


def test_what_a_thread_describes_is_what_the_event_loop_describes(tmp_path):
    body = csr("device-1", san(x509.DNSName("one.example")))
    tape = taped(calls.full(tmp_path, body=body, csr=parse(body)))
    later, now = (draft(tape, verdict(), DIGESTS, 100.01, for_thread=each) for each in (False, True))
    assert (later.csr is None, now.csr is None) == (False, True)
    assert build.record(later) == build.record(now)


def test_a_packed_draft_makes_the_same_record(tmp_path):
    made = drafted(calls.full(tmp_path), stdout=b"a certificate")
    assert Kept(made.pack()).record() == build.record(made)
    assert Kept(made.pack()).outline() == build.outline(made)


@pytest.mark.parametrize("issued", [True, False])
@pytest.mark.parametrize("for_thread", [True, False])
def test_an_outline_makes_the_same_row_as_the_record(tmp_path, issued, for_thread):
    answer = verdict() if issued else Verdict(403, reason="no", hint="ask")
    made = draft(taped(calls.full(tmp_path)), answer, DIGESTS, 100.01, for_thread=for_thread)
    assert rows.row(7, build.outline(made)) == rows.row(7, build.record(made))


def test_a_certificate_with_names_that_cannot_be_read_costs_no_record(tmp_path, monkeypatch):
    class Odd:
        @property
        def subject(self) -> x509.Name:
            raise ValueError("no UTF-8")

    made = drafted(calls.full(tmp_path))
    made.issued = Odd()  # type: ignore[assignment]
    assert rows.row(1, build.outline(made))["subject"] == "unreadable"


@pytest.mark.parametrize("length", some([10, 60_000, 3_000], 2))
@pytest.mark.parametrize("for_thread", [False, True])
def test_a_draft_takes_no_more_memory_than_it_says_and_not_much_less(tmp_path, length, for_thread):
    kept, count = [], 60
    base = calls.full(tmp_path)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(count):
            body = csr(f"device-{number}", challenge(calls.BINDING.text))
            connection: TLSInfo = calls.tls(calls.CERTIFICATE, chain=(calls.SUB.certificate,))
            call = calls.change(base, body=body, csr=parse(body), client=calls.client(tls=connection))
            outputs = {name: f"{number:{length}}".encode() for name in ("stdout", "stderr")}
            answer = verdict(f"{number:{length}}".encode())
            made = draft(taped(call, **outputs), answer, DIGESTS, 100.01, for_thread=for_thread)
            kept.append(Kept(made.pack()))
            kept[-1].outline()
            del body, connection, call, outputs, answer, made
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    said = sum(each.size for each in kept)
    print(length, for_thread, used // count, said // count)
    assert used <= said <= 3 * used
