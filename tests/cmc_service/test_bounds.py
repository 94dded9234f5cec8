"""fullcmc: what it remembers and for how long, and that one client cannot use up the room of others."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from estgw.cmc import crmf
from estgw.cmc.messages import PKI_DATA, PKIData, TaggedContentInfo
from estgw.cmc.requests import CRMFRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc.values import GetCRL, RevokeRequest
from estgw.cmc_service import identity_proof, passphrase, signer, state
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.state import mark
from estgw.cms import signed
from estgw.cms.identifiers import key_id_of
from estgw.register import engines
from estgw.register.requests import Requests
from tests.cmc_service import office as cmc
from tests.cmc_service.office import Person, control, fresh, message, new_key, pkcs10, proof
from tests.kit.ca import common_name
from tests.kit.csr import csr
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.keys import rsa_key

DONE, PENDING, PARTIAL = CMCStatus.SUCCESS, CMCStatus.PENDING, CMCStatus.PARTIAL
LATER, REQUEST, IDENTITY = CMCFailInfo.TRY_LATER, CMCFailInfo.BAD_REQUEST, CMCFailInfo.BAD_IDENTITY
CLOCK = timedelta(minutes=15)

VERSION_1 = """
PRAGMA journal_mode = WAL;
PRAGMA user_version = 1;
CREATE TABLE kept (
    kind  TEXT NOT NULL,     -- message, pending, waiting, challenge, unconfirmed, wrong, passphrase, sent
    key   TEXT NOT NULL,
    value BLOB NOT NULL,
    until INTEGER NOT NULL,  -- seconds since the epoch
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX by_end ON kept (until);
"""
"""The table in version 1, before it had owners."""


@pytest.fixture
def office(lab, tmp_path):
    office = cmc.Office(lab.copy(tmp_path))
    office.secrets()
    return office


@contextlib.contextmanager
def table(office):
    with contextlib.closing(sqlite3.connect(office.ca / "certs.sqlite")) as db, db:
        yield db


def rows(office, kind):
    """Key, end and owner of each row of a kind."""
    with table(office) as db:
        return db.execute("SELECT key, until, owner FROM kept WHERE kind = ?", [kind]).fetchall()


def owner_of(person):
    return mark(signer.name_of(person.certificate))


def fill(office, kind, number, owner="", *, lasts=timedelta(days=30)):
    """Add this many rows of a kind, as if they had come in messages."""
    made = int(time.time() + lasts.total_seconds())
    keys = (hashlib.sha256(f"{owner} {number}".encode()).hexdigest() for number in range(number))
    with table(office) as db:
        db.executemany("INSERT INTO kept VALUES (?, ?, x'', ?, ?)", ((kind, key, made, owner) for key in keys))


def revocation(office, person, reason=4):
    wish = RevokeRequest(office.issuer.subject.public_bytes(), person.certificate.serial_number, reason)
    return control("revokeRequest", wish, 1)


def enrols(office, person, name="device-7"):
    return office.enrol(pkcs10(2, name, key=person.key), by=person)


# Messages.


def test_a_client_with_25000_messages_blocks_no_other_and_can_revoke(office):
    loud, quiet = office.person("device-9"), office.person("device-7")
    assert enrols(office, loud, "device-9").status.status == DONE
    fill(office, "message", 25_000, owner_of(loud))
    fill(office, "message", 25_000)
    for kind in ("untimed", "wrong", "pending", "challenge", "sent", "passphrase", "waiting", "unconfirmed", "unknown"):
        fill(office, kind, 500, owner_of(loud))
    assert enrols(office, quiet).status.status == DONE
    assert office.ask(message(PKIData((*fresh(), revocation(office, quiet))), quiet)).status.status == DONE
    refused = enrols(office, loud, "device-9")
    assert (refused.failure, refused.http) == (LATER, 503)
    assert "your messages" in refused.status.text
    assert "no room" in refused.log
    assert office.ask(message(PKIData((*fresh(), revocation(office, loud))), loud)).status.status == DONE


def test_a_message_is_remembered_until_its_signing_time_is_too_old(office):
    person, at = office.person(), datetime.now(UTC) - timedelta(minutes=10)
    body = message(PKIData(tuple(fresh()), (pkcs10(1, key=person.key),)), person, at=at)
    assert office.ask(body).status.status == DONE
    again = office.ask(body)
    assert again.failure is REQUEST
    assert "before" in again.status.text
    ((_, end, owner),) = rows(office, "message")
    assert owner == owner_of(person)
    assert 0 <= end - (at + CLOCK).timestamp() <= 2
    before = office.count()
    with table(office) as db:
        db.execute("UPDATE kept SET until = 1 WHERE kind = 'message'")
    later = office.allow(clock=timedelta(minutes=9))  # the clock of the policy is shorter, as if that time were over
    assert later.ask(body).failure is CMCFailInfo.BAD_TIME
    assert office.count() == before


def test_a_message_with_another_bag_counts_as_a_repeat(office):
    """The bag of certificates is not signed."""
    person, other = office.person(), office.person("device-9")
    for timed in (True, False):
        data = PKIData((), (pkcs10(1, key=person.key),))
        at = datetime.now(UTC)
        assert office.ask(message(data, person, at=at, timed=timed)).status.status == DONE
        bag = [person.certificate, other.certificate]
        assert office.ask(message(data, person, at=at, timed=timed, certificates=bag)).failure is REQUEST


def test_a_message_without_a_signing_time_is_remembered_until_expiry(office):
    """JSS and Dogtag's CMCRequest send no signing time. They are served, but each message only once."""
    person = office.person()
    for controls in (fresh(), []):
        body = message(PKIData(tuple(controls), (pkcs10(1, key=person.key),)), person, timed=False)
        assert office.ask(body).status.status == DONE
        assert office.ask(body).failure is REQUEST
    found = rows(office, "untimed")
    assert [owner for _, _, owner in found] == [owner_of(person)] * 2
    for _, end, _ in found:
        assert 0 <= end - person.certificate.not_valid_after_utc.timestamp() <= 2
    assert rows(office, "message") == []


def test_too_many_untimed_messages_block_only_those_of_that_client(office):
    loud, quiet = office.person("device-9"), office.person()
    bounds = state.BOUNDS
    assert enrols(office, quiet).status.status == DONE
    fill(office, "untimed", bounds["untimed"].each, owner_of(loud))
    body = message(PKIData(tuple(fresh()), (pkcs10(1, "device-9", key=loud.key),)), loud, timed=False)
    refused = office.ask(body)
    assert refused.failure is LATER
    assert "signingTime" in refused.status.text
    assert enrols(office, loud, "device-9").status.status == DONE, "with a signing time"
    body = message(PKIData(tuple(fresh()), (pkcs10(1, key=quiet.key),)), quiet, timed=False)
    assert office.ask(body).status.status == DONE


def test_the_bound_on_all_untimed_messages_blocks_no_timed_message(office, monkeypatch):
    person = office.person()
    assert enrols(office, person).status.status == DONE
    fill(office, "untimed", 30)
    monkeypatch.setitem(state.BOUNDS, "untimed", replace(state.BOUNDS["untimed"], total=30))
    body = message(PKIData(tuple(fresh()), (pkcs10(1, key=person.key),)), person, timed=False)
    assert "all clients'" in office.ask(body).status.text
    assert enrols(office, person).status.status == DONE
    body = message(PKIData((*fresh(), revocation(office, person))), person, timed=False)
    assert office.ask(body).status.status == DONE


def test_a_copied_identity_proof_gets_no_second_certificate(office):
    """identityProof covers only the requests, so it fits any message: unsigned, with another nonce, at any time."""
    key = new_key()
    asked = pkcs10(1, key=key)
    controls = proof([asked])

    def data():
        return PKIData((*fresh(), *controls), (asked,))

    assert office.ask(message(data(), Person(key)), EST_AUTH_METHODS="").status.status == DONE
    before = office.count()
    nobody = signed.Signer(None, key_id_of(key.public_key()))
    copy = signed.sign(PKI_DATA, data().encode(), [nobody], signing_time=datetime.now(UTC))
    for body in (copy, message(data(), Person(key), timed=False)):
        refused = office.ask(body, EST_AUTH_METHODS="")
        assert (refused.failure, refused.status.body_list) == (CMCFailInfo.BAD_TIME, (1,))
        assert "make a new key" in refused.status.text
    assert office.count() == before
    assert office.ask(message(data(), Person(key)), EST_AUTH_METHODS="").status.status == DONE, "by the key itself"


def test_a_first_certificate_by_a_secret_needs_no_signing_time(office):
    """Dogtag's CMCRequest sends such a message, signed by the new key."""
    key = new_key()
    asked = pkcs10(1, key=key)
    data = PKIData((*fresh(), *proof([asked])), (asked,))
    assert office.ask(message(data, Person(key), timed=False), EST_AUTH_METHODS="").status.status == DONE


# Revocation.


def test_a_client_without_room_can_revoke_in_a_message_with_refusals(office):
    person = office.person()
    assert enrols(office, person).status.status == DONE
    fill(office, "message", 20_000, owner_of(person))
    before = office.count()
    crl = control("getCRL", GetCRL(office.issuer.subject.public_bytes()), 5)
    data = PKIData((*fresh(), revocation(office, person), crl), (pkcs10(2, key=person.key),))
    reply = office.ask(message(data, person))
    found = [(each.status, each.body_list, each.failure) for each in reply.statuses]
    failed = CMCStatus.FAILED
    assert found == [(PARTIAL, (0,), None), (DONE, (1,), None), (failed, (5,), LATER), (failed, (2,), LATER)]
    assert office.count() == before
    assert enrols(office, person).failure is IDENTITY, "it is revoked"


def test_an_ra_without_room_can_revoke_for_its_clients(office):
    ra, person = office.person("ra", ra=True), office.person()
    assert enrols(office, person).status.status == DONE
    fill(office, "message", 20_000, owner_of(ra))
    inner = TaggedContentInfo(7, message(PKIData((*fresh(), revocation(office, person))), person))
    assert office.ask(message(PKIData(tuple(fresh()), (), (inner,)), ra)).status.status == DONE
    asked = PKIData((*fresh(), revocation(office, person)), (pkcs10(2, key=person.key),))
    inner = TaggedContentInfo(7, message(asked, Person(person.key)))
    reply = office.ask(message(PKIData(tuple(fresh()), (), (inner,)), ra))
    assert [each.status for each in reply.statuses] == [PARTIAL, DONE, CMCStatus.FAILED]


def test_a_repeated_revocation_succeeds_again(office):
    person = office.person()
    ra = office.person("ra", ra=True)
    body = message(PKIData((*fresh(), revocation(office, person))), ra)
    for _ in range(2):
        assert office.ask(body).status.status == DONE
    assert rows(office, "message") == []


# Pending requests, challenges, transactions.


def test_pending_requests_are_bounded_for_each_client(office, monkeypatch):
    monkeypatch.setitem(state.BOUNDS, "pending", replace(state.BOUNDS["pending"], each=2))
    loud, quiet = office.person("device-9"), office.person()
    script = office.lab.script("later", "exit 75")
    later = {"EST_AUTHORIZE": str(script)}
    asked = [pkcs10(1, "device-9", key=new_key()) for _ in range(3)]
    assert [office.enrol(each, by=loud, **later).status.status for each in asked[:2]] == [PENDING] * 2
    refused = office.enrol(asked[2], by=loud, **later)
    assert (refused.failure, refused.status.body_list) == (LATER, (1,))
    assert "your requests that wait" in refused.status.text
    assert office.enrol(asked[0], by=loud, **later).status.status == PENDING, "it has its place"
    assert office.enrol(pkcs10(1, key=new_key()), by=quiet, **later).status.status == PENDING
    assert enrols(office, loud, "device-9").status.status == DONE, "what need not wait"
    done = office.enrol(asked[0], by=loud)
    assert done.status.status == DONE
    assert office.enrol(asked[2], by=loud, **later).status.status == PENDING, "there is room again"


def test_one_client_does_not_fill_the_requests_that_wait_for_a_human(office, monkeypatch):
    monkeypatch.setitem(state.BOUNDS, "pending", replace(state.BOUNDS["pending"], each=2))
    human = office.allow(human=True)
    loud, quiet = human.person("device-9"), human.person()
    for _ in range(2):
        assert human.enrol(pkcs10(1, "device-9", key=new_key()), by=loud).status.status == PENDING
    assert human.enrol(pkcs10(1, "device-9", key=new_key()), by=loud).failure is LATER
    assert len(Requests(engines.open_register(None, human.ca, 10)).all()) == 2
    assert human.enrol(pkcs10(1, key=new_key()), by=quiet).status.status == PENDING


@pytest.mark.parametrize("bound", ["each", "total"])
def test_the_oldest_challenge_of_the_busiest_client_makes_room(office, monkeypatch, bound):
    limit = {"each": 2} if bound == "each" else {"total": 3}
    for kind in ("challenge", "sent"):
        monkeypatch.setitem(state.BOUNDS, kind, replace(state.BOUNDS[kind], **limit))  # type: ignore[arg-type]
    loud, quiet = office.person("device-9"), office.person()

    def challenged(person, name):
        request = crmf.request_for(
            rsa_key(2048).public_key() if person is quiet else new_key().public_key(),
            1,
            common_name(name).public_bytes(),
        )
        asked = CRMFRequest(crmf.CertReqMsg(request, crmf.CHALLENGE))
        assert office.enrol(asked, by=person).status.status == CMCStatus.POP_REQUIRED

    challenged(quiet, "device-7")
    for _ in range(4):
        challenged(loud, "device-9")
    for kind in ("challenge", "sent"):
        assert Counter(owner for _, _, owner in rows(office, kind)) == {owner_of(loud): 2, owner_of(quiet): 1}


def test_passphrases_and_unconfirmed_certificates_have_no_bound(office):
    """A bound on these rows would refuse enrolments after the certificates were issued."""
    person = office.person()
    assert enrols(office, person).status.status == DONE
    fill(office, "passphrase", 25_000)
    fill(office, "unconfirmed", 25_000)
    challenge = attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, b"open sesame"))
    asked = PKCS10Request(1, csr("device-7", challenge, key=person.key))
    reply = office.allow(confirm=timedelta(hours=1)).enrol(asked, by=person)
    assert reply.status.status == CMCStatus.CONFIRM_REQUIRED


# Guesses.


def guess(identification="device-7", secret="guess"):
    key = new_key()
    asked = pkcs10(1, key=key)
    data = PKIData((*fresh(), *proof([asked], identification, secret=secret)), (asked,))
    return message(data, Person(key))


def test_wrong_secrets_are_counted_however_full_the_table_is(office):
    person = office.person()
    assert enrols(office, person).status.status == DONE
    fill(office, "wrong", 25_000)
    fill(office, "unknown", 25_000)
    for _ in range(office.policy.tries):
        assert office.ask(guess(), EST_AUTH_METHODS="").failure is IDENTITY
    assert office.ask(guess(), EST_AUTH_METHODS="").failure is LATER
    right = guess(secret=cmc.SECRETS["device-7"])
    assert office.ask(right, EST_AUTH_METHODS="").failure is LATER
    right = guess("device-8", cmc.SECRETS["device-8"])
    assert office.ask(right, EST_AUTH_METHODS="").status.status == DONE, "the others go on"


def test_guesses_at_unknown_names_are_bounded(office, monkeypatch):
    monkeypatch.setitem(state.BOUNDS, "unknown", replace(state.BOUNDS["unknown"], each=3))
    for number in range(6):
        assert office.ask(guess(f"made-up-{number}"), EST_AUTH_METHODS="").failure is IDENTITY
    assert len(rows(office, "unknown")) == 3
    assert rows(office, "wrong") == []
    assert office.ask(guess(), EST_AUTH_METHODS="").failure is IDENTITY
    assert len(rows(office, "wrong")) == 1


def test_a_guess_that_cannot_be_counted_gets_no_verdict(office):
    """The answer must be the same for a right and a wrong secret."""
    assert office.ask(guess(), EST_AUTH_METHODS="").failure is IDENTITY
    with table(office) as db:
        db.execute("CREATE TRIGGER full BEFORE INSERT ON kept BEGIN SELECT RAISE(FAIL, 'disk full'); END")
    replies = [office.ask(guess(secret=each), EST_AUTH_METHODS="") for each in ("guess", cmc.SECRETS["device-7"])]
    assert [each.failure for each in replies] == [CMCFailInfo.INTERNAL_CA_ERROR] * 2
    assert [each.status.body_list for each in replies] == [(0,)] * 2


def at_once(office, ask):
    """Count the outcomes of twelve guesses, each with its own connection, which all wait for the same lock."""

    def one(_):
        try:
            ask(state.State(office.ca, 50))
        except Refused as why:
            return why.failure
        finally:
            engines.close_all()

    with (
        cmc._environ(office.environment(EST_TIMEOUT="200")),
        contextlib.closing(sqlite3.connect(office.ca / "certs.sqlite", isolation_level=None)) as db,
        ThreadPoolExecutor(12) as pool,
    ):
        db.execute("BEGIN IMMEDIATE")
        outcomes = [pool.submit(one, number) for number in range(12)]
        time.sleep(1)  # long enough for most threads to reach the lock
        db.execute("ROLLBACK")
        return Counter(each.result() for each in outcomes)


def test_secrets_guessed_at_once_are_limited_as_one_by_one(office):
    asked = pkcs10(1, key=new_key())
    assert office.ask(guess("nobody-here"), EST_AUTH_METHODS="").failure is IDENTITY  # makes the table
    for identification in ("device-7", "nobody-else"):
        data = PKIData(tuple(proof([asked], identification, secret="guess")), (asked,))
        found = at_once(office, lambda table, data=data: identity_proof.verify(office.policy, office.ca, table, data))
        assert found == {IDENTITY: office.policy.tries, LATER: 12 - office.policy.tries}
        data = PKIData(tuple(proof([asked], identification, secret=cmc.SECRETS["device-7"])), (asked,))
        found = at_once(office, lambda table, data=data: identity_proof.verify(office.policy, office.ca, table, data))
        assert found == {LATER: 12}


def test_passphrases_guessed_at_once_are_limited_as_one_by_one(office):
    key = new_key()
    challenge = attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, b"open sesame"))
    asked = PKCS10Request(1, csr("device-7", challenge, key=key))
    issued = office.enrol(asked, by=Person(key)).certificate

    def ask(given):
        return lambda table: passphrase.require(table, office.policy, issued, given)

    assert at_once(office, ask(b"guess")) == {IDENTITY: office.policy.tries, LATER: 12 - office.policy.tries}
    assert at_once(office, ask(b"open sesame")) == {LATER: 12}


def test_right_secrets_at_once_do_not_count_as_guesses(office):
    """At some sites, many devices share one secret."""
    asked = pkcs10(1, key=new_key())
    assert office.ask(guess("nobody-here"), EST_AUTH_METHODS="").failure is IDENTITY  # makes the table
    data = PKIData(tuple(proof([asked])), (asked,))
    assert at_once(office, lambda table: identity_proof.verify(office.policy, office.ca, table, data)) == {None: 12}


# The table.


@pytest.mark.parametrize("version", [1, 2])
def test_what_cmc_sqlite_remembers_is_taken_over(office, version):
    person = office.person()
    nonce = control("senderNonce", b"used before")
    name = signer.name_of(person.certificate)
    without = message(PKIData((), (pkcs10(1, key=person.key),)), person, timed=False)
    end = int(time.time()) + 1000
    with contextlib.closing(sqlite3.connect(office.ca / "cmc.sqlite")) as db:
        db.executescript(VERSION_1)
        if version == 2:
            db.execute("ALTER TABLE kept ADD COLUMN owner TEXT NOT NULL DEFAULT ''")
            db.execute("PRAGMA user_version = 2")
        old = [("message", mark(name, "nonce", b"used before"), b"", end), ("message", mark(name, without), b"", end)]
        old += [("wrong", mark("device-7"), b"5", end)]
        old += [("message", hashlib.sha256(b"%d" % number).hexdigest(), b"", end) for number in range(25_000)]
        db.executemany("INSERT INTO kept (kind, key, value, until) VALUES (?, ?, ?, ?)", old)
        db.commit()
    reused = office.ask(message(PKIData((nonce,), (pkcs10(1, key=person.key),)), person))
    assert reused.failure is REQUEST
    assert "before" in reused.status.text
    assert office.ask(without).failure is REQUEST
    assert enrols(office, person).status.status == DONE
    assert office.ask(guess(secret=cmc.SECRETS["device-7"]), EST_AUTH_METHODS="").failure is LATER
    assert not (office.ca / "cmc.sqlite").exists()
    assert (office.ca / "cmc.sqlite.taken-over").exists()
    with table(office) as db:
        assert db.execute("SELECT count(*) FROM kept WHERE kind = 'message'").fetchone()[0] > 25_000


def test_failing_revocations_cost_another_client_one_attempt(office):
    """Each attempt may take half of the time left."""
    ra, person = office.person("ra", ra=True), office.person()
    strict = office.allow(confirm=timedelta(seconds=-5))
    wishes = [pkcs10(number, f"device-{number}", key=new_key()) for number in range(1, 5)]
    assert {each.status for each in strict.enrol(*wishes, by=ra).statuses} == {CMCStatus.CONFIRM_REQUIRED}
    (office.ca / "revoke").write_text("#!/bin/bash\necho no; exit 1\n")
    reply = enrols(office, person)
    assert reply.status.status == DONE
    assert reply.log.count("could not be revoked") == 1
