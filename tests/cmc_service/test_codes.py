"""fullcmc: every status and every failure code of RFC 5272 6.1.3 and 6.1.4, each with a request that causes it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from pyasn1_alt_modules import rfc6402

from estgw.cmc import crmf
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import CRMFRequest, OtherRequest
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc.values import GetCert
from tests.cmc_service.office import Office, Person, control, fresh, message, new_key, pkcs10, proof
from tests.kit.der import tlv, vector
from tests.kit.keys import KEY, rsa_key

F = CMCFailInfo
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-7")])


@pytest.fixture(scope="module")
def shared(lab, tmp_path_factory):
    office = Office(lab.copy(tmp_path_factory.mktemp("codes")))
    office.secrets()
    return office


def bare(key: Any, pop: Any = None) -> CRMFRequest:
    """A CRMF request without a signature."""
    return CRMFRequest(crmf.CertReqMsg(crmf.request_for(key.public_key(), 1, NAME.public_bytes()), pop))


def late(office: Office) -> Any:
    person = office.person()
    return office.ask(message(PKIData(tuple(fresh())), person, at=datetime.now(UTC) - timedelta(days=1)))


def forged(office: Office) -> Any:
    person = office.person()
    return office.enrol(pkcs10(1, key=person.key), by=Person(new_key(), person.certificate))


def unknown_certificate(office: Office) -> Any:
    wish = control("getCert", GetCert(tlv(0xA4, office.issuer.subject.public_bytes()), 1))
    return office.ask(message(PKIData((*fresh(), wish)), office.person()))


def odd_extension(office: Office) -> Any:
    key = new_key()
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.5"), b"\x05\x00")
    return office.enrol(pkcs10(1, "x", odd, key=key, critical=True), by=Person(key))


def to_be_archived(office: Office) -> Any:
    key = rsa_key(2048)
    usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
    return office.allow(must_archive=True).enrol(pkcs10(1, "x", usage, key=key), by=Person(key))


def wrong_secret(office: Office) -> Any:
    key = new_key()
    asked = pkcs10(1, key=key)
    return office.enrol(asked, by=Person(key), controls=proof([asked], "device-8", secret="guess"))


def used_before(office: Office) -> Any:
    person = office.person()
    return office.allow(no_key_reuse=True).enrol(pkcs10(1, key=person.key), by=person)


def broken_authorize(office: Office) -> Any:
    key = new_key()
    return office.enrol(pkcs10(1, key=key), by=Person(key), EST_AUTHORIZE="/no/such/script")


def busy(office: Office) -> Any:
    key = new_key()
    script = office.lab.script("busy", "exit 69")
    return office.enrol(pkcs10(1, key=key), by=Person(key), EST_AUTHORIZE=str(script))


CODES: dict[F, tuple[int, Callable[[Office], Any]]] = {
    F.BAD_ALG: (400, lambda office: office.ask(vector("altmod-rfc6402-cmc-fullpkirequest.b64"))),
    F.BAD_MESSAGE_CHECK: (400, forged),
    F.BAD_REQUEST: (400, lambda office: office.ask(b"no message")),
    F.BAD_TIME: (400, late),
    F.BAD_CERT_ID: (400, unknown_certificate),
    F.UNSUPPORTED_EXT: (400, odd_extension),
    F.MUST_ARCHIVE_KEYS: (400, to_be_archived),
    F.BAD_IDENTITY: (403, wrong_secret),
    F.POP_REQUIRED: (403, lambda office: office.enrol(bare(new_key()), by=office.person())),
    F.POP_FAILED: (403, lambda office: office.enrol(bare(new_key(), crmf.RA_VERIFIED), by=office.person())),
    F.NO_KEY_REUSE: (400, used_before),
    F.INTERNAL_CA_ERROR: (500, broken_authorize),
    F.TRY_LATER: (503, busy),
    F.AUTH_DATA_FAIL: (
        403,
        lambda office: office.ask(message(PKIData((control("authData", 1),), (pkcs10(1, key=KEY),)), office.person())),
    ),
}


@pytest.mark.parametrize("code", F, ids=lambda code: code.word)
def test_every_failure_code_has_its_http_status_and_issues_nothing(shared, code):
    http, ask = CODES[code]
    before = shared.count()
    reply = ask(shared)
    assert reply.failure is code
    assert reply.http == http
    assert ("Retry-After" in reply.headers) == (http == 503)
    made_by_the_test = 1 if code in (F.BAD_TIME, F.BAD_MESSAGE_CHECK, F.BAD_CERT_ID, F.NO_KEY_REUSE) else 0
    made_by_the_test += code in (F.POP_REQUIRED, F.POP_FAILED, F.AUTH_DATA_FAIL)
    assert shared.count() == before + made_by_the_test, "nothing was issued"


def success(office: Office) -> Any:
    person = office.person()
    return office.enrol(pkcs10(1, key=person.key), by=person)


def later(office: Office) -> Any:
    person = office.person()
    script = office.lab.script("later", "exit 75")
    return office.enrol(pkcs10(1, key=person.key), by=person, EST_AUTHORIZE=str(script))


def to_be_confirmed(office: Office) -> Any:
    person = office.person()
    return office.allow(confirm=timedelta(hours=1)).enrol(pkcs10(1, key=person.key), by=person)


def partly_failed(office: Office) -> Any:
    person = office.person()
    return office.enrol(pkcs10(1, key=person.key), pkcs10(2, "not mine", key=person.key), by=person)


STATUSES: dict[CMCStatus, tuple[int, Callable[[Office], Any]]] = {
    CMCStatus.SUCCESS: (200, success),
    CMCStatus.FAILED: (400, lambda office: office.ask(b"no message")),
    CMCStatus.PENDING: (202, later),
    CMCStatus.NO_SUPPORT: (400, lambda office: office.enrol(OtherRequest(1, "1.2.3", b"\x05\x00"), by=office.person())),
    CMCStatus.CONFIRM_REQUIRED: (200, to_be_confirmed),
    CMCStatus.POP_REQUIRED: (200, lambda office: office.enrol(bare(new_key(), crmf.CHALLENGE), by=office.person())),
    CMCStatus.PARTIAL: (200, partly_failed),
}


@pytest.mark.parametrize("status", CMCStatus, ids=lambda status: status.word)
def test_every_status_has_its_http_status(shared, status):
    http, ask = STATUSES[status]
    reply = ask(shared)
    assert reply.statuses[0].status == status
    assert reply.http == http


def test_statuses_and_failures_have_the_numbers_of_rfc_6402():
    """pyasn1's module is the second opinion."""
    assert {code.word: int(code) for code in F} == dict(rfc6402.CMCFailInfo.namedValues.items())
    theirs = dict(rfc6402.CMCStatus.namedValues.items())
    assert {status.word: int(status) for status in CMCStatus} == theirs
