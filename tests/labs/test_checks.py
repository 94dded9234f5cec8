"""Checks of labs against records that are made by hand: faults that no sheet leads to."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.est import certs
from estgw.labs.evidence import Evidence, Place
from estgw.labs.step import Finding, Outcome
from estgw.labs.table import LABS
from estgw.record import folder
from estgw.record.folder import RecordError
from estgw.record.ring import Record
from tests.kit.ca import CA, pem, root
from tests.kit.csr import csr, san
from tests.kit.der import armoured
from tests.kit.keys import KEY, KEYS, OTHER
from tests.page import samples


def record(operation: str, wanted: bytes | None = None, **facts: Any) -> dict[str, Any]:
    """A record with as much in it as checks look at; dotted facts are set over that."""
    made: dict[str, Any] = {
        "id": "0123456789",
        "kind": "request",
        "at": "2026-11-30T05:00:00.000Z",
        "label": None,
        "operation": operation,
        "connection": {"number": 1, "at": "2026-11-30T05:00:00.000Z"},
        "tls": {"subject": None, "verify": "NONE", "certificate": None, "is_ra": False},
        "binding": {"result": "absent", "required": False},
        "auth": {"user": "estuser"},
        "request": {"body": None, "csr": {"pem": armoured(wanted).decode()} if wanted else None},
        "response": {"body": None},
        "callouts": [],
        "outcome": {"status": 200, "gate": None, "reason": "", "hint": None},
        "issued": None,
    }
    for key, value in facts.items():
        place, *rest = key.split("__")
        if rest:
            made[place] = {**made[place], rest[0]: value}
        else:
            made[place] = value
    return made


def refused(operation: str, wanted: bytes | None, gate: str, status: int, **facts: Any) -> dict[str, Any]:
    outcome = {"status": status, "gate": gate, "reason": "no", "hint": "Do something else."}
    return record(operation, wanted, outcome=outcome, **facts)


def issued(certificate: x509.Certificate) -> dict[str, str]:
    return {"pem": pem(certificate).decode()}


def words(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Made(Evidence):
    """Records from a test, and replays that it has thought up."""

    def __init__(self, place: Path, records: list[Any], replays: dict[str, Any] | None = None) -> None:
        def replay(each: Record) -> Record:
            found = (replays or {}).get(each["id"])
            if found is None:
                raise RecordError(f"{each['id']}: its body was not recorded")
            made: Record = found
            return made

        super().__init__(Place(place, place / "records", place, replay))
        self.records = records


@pytest.fixture(scope="module")
def ca() -> CA:
    return root("Lab CA")


def finding(number: int, step: str, evidence: Evidence) -> Finding:
    return LABS[number].check(evidence)[step]


def assert_wrong(found: Finding, part: str) -> None:
    assert found.outcome is Outcome.WRONG, found
    assert part in found.sentence


def test_a_try_that_succeeds_counts_whatever_comes_before_and_after(tmp_path, ca):
    (tmp_path / "cacert.pem").write_bytes(ca.pem)
    bad = refused("cacerts", None, "handler", 500)
    assert_wrong(finding(1, "CA certificates", Made(tmp_path, [bad])), "refused it (500): Do something else.")
    assert finding(1, "CA certificates", Made(tmp_path, [bad, record("cacerts"), bad])).outcome is Outcome.DONE


def test_a_certificate_of_a_former_ca_is_not_that_of_lab_1(tmp_path, ca):
    (tmp_path / "cacert.pem").write_bytes(root("Lab CA").pem)
    digits = certs.load_pem((tmp_path / "cacert.pem").read_bytes())[0].fingerprint(SHA256()).hex()[:8]
    wanted = csr(f"lab1-{digits.upper()}")
    sent = record("simpleenroll", wanted, issued=issued(ca.certify(wanted)))
    assert_wrong(finding(1, "certificate", Made(tmp_path, [sent])), "not signed by the CA of today")
    assert_wrong(
        finding(1, "fingerprint", Made(tmp_path, [record("simpleenroll", csr("lab1-00000000"))])),
        "00000000 is not how the CA's fingerprint begins",
    )


def policy_lab(tmp_path: Path, outcomes: list[tuple[int, str]]) -> dict[str, Finding]:
    """Lab 3 after its three requests, whose replays end like this, with these words."""
    outside = san(x509.DNSName("lab3.example.net"))
    asked = [csr("lab3.example.org"), csr("lab3.example.net"), csr("lab3.example.org", outside)]
    records = [record("simpleenroll", each, id=f"000000000{number}") for number, each in enumerate(asked)]
    replays = {
        f"000000000{number}": refused("simpleenroll", None, "handler", status, response__body=words(said))
        for number, (status, said) in enumerate(outcomes)
    }
    return LABS[3].check(Made(tmp_path, records, replays))


def test_a_policy_that_fails_is_not_taken_for_one_that_refuses(tmp_path):
    found = policy_lab(tmp_path, [(500, ""), (500, ""), (500, "")])
    assert_wrong(found["inside"], "The script fails: no")
    assert_wrong(found["outside"], "The script fails")
    assert_wrong(found["own words"], "The script fails")


@pytest.mark.parametrize(
    ("said", "part"),
    [("", "reads nothing"), ("not ours to certify: CN=lab3.example.net", "the words of the shipped line")],
)
def test_a_policy_without_words_of_its_own_is_wrong(tmp_path, said, part):
    assert_wrong(policy_lab(tmp_path, [(200, ""), (403, said), (403, said)])["own words"], part)


def test_a_policy_is_not_yet_there_while_everything_passes_or_nothing_can_be_replayed(tmp_path):
    for outcomes in ([(200, ""), (200, ""), (200, "")], []):
        found = policy_lab(tmp_path, outcomes)
        assert found.pop("requests").outcome is Outcome.DONE
        assert {each.outcome for each in found.values()} == {Outcome.NOT_YET}


def test_a_renewal_that_was_refused_says_by_which_gate(tmp_path):
    sent = refused("simplereenroll", csr("lab4-device"), "requires", 403)
    for step in ("renew", "rekey"):
        assert_wrong(finding(4, step, Made(tmp_path, [sent])), "the gate requires refused it (403)")
    assert_wrong(
        finding(4, "password", Made(tmp_path, [refused("simpleenroll", csr("lab4-device"), "password", 401)])),
        "The password got no certificate",
    )


def test_a_theft_over_the_connection_of_the_victim_is_none(tmp_path, ca):
    wanted = csr("lab5-victim")
    sent = record("simpleenroll", wanted, issued=issued(ca.certify(wanted)))
    assert_wrong(finding(5, "theft", Made(tmp_path, [sent, sent])), "one connection")


DEVICES = [csr("lab6-a"), csr("lab6-b", key=OTHER)]


def by_ra(wanted: bytes, status: int, **facts: Any) -> dict[str, Any]:
    return record("simpleenroll", wanted, tls__is_ra=True, outcome__status=status, **facts)


def test_two_devices_that_waited_and_have_certificates_are_done(tmp_path):
    waiting = [by_ra(each, 202) for each in DEVICES]
    found = LABS[6].check(Made(tmp_path, waiting))
    assert [each.outcome.value for each in found.values()] == ["done", "done", "not yet"]
    found = LABS[6].check(Made(tmp_path, [*waiting, *(by_ra(each, 200) for each in DEVICES)]))
    assert {each.outcome for each in found.values()} == {Outcome.DONE}


def test_devices_that_never_waited_were_refused_or_changed_their_key_are_wrong(tmp_path):
    at_once = Made(tmp_path, [by_ra(DEVICES[0], 200)])
    assert_wrong(finding(6, "waiting", at_once), "no handler that waits")
    no = by_ra(DEVICES[0], 403, response__body=words("ask your teacher"))
    assert_wrong(finding(6, "issued", Made(tmp_path, [by_ra(DEVICES[0], 202), no])), "refused: ask your teacher")
    other = by_ra(csr("lab6-a", key=OTHER), 202)
    assert_wrong(finding(6, "issued", Made(tmp_path, [by_ra(DEVICES[0], 202), other])), "another key")
    without = refused("simpleenroll", DEVICES[0], "requires", 401)
    assert_wrong(finding(6, "RA", Made(tmp_path, [without])), "without a certificate in TLS")


def bag(*certificates: x509.Certificate) -> dict[str, Any]:
    """A record of cacerts."""
    wire = base64.b64encode(certs.pack(certificates))
    return record("cacerts", response__body=base64.b64encode(wire).decode())


def test_another_ca_is_no_rollover(tmp_path, ca):
    new = root("Lab CA")
    (tmp_path / "cacert.pem").write_bytes(new.pem)
    fetched = Made(tmp_path, [bag(ca.certificate)])
    assert_wrong(finding(7, "rollover", fetched), "all old clients are lost")
    (tmp_path / "chain.pem").write_bytes(pem(ca.vouch(new)))
    assert finding(7, "rollover", fetched).outcome is Outcome.DONE
    assert finding(7, "bag", fetched).outcome is Outcome.NOT_YET
    wanted = csr("lab7-device")
    sent = record("simpleenroll", wanted, issued=issued(new.certify(wanted)))
    first = bag(ca.certificate)
    assert_wrong(finding(7, "certificate", Made(tmp_path, [first, sent])), "No bag that was fetched leads")
    whole = Made(tmp_path, [first, bag(ca.certificate, new.certificate, ca.vouch(new)), sent])
    assert finding(7, "certificate", whole).outcome is Outcome.DONE
    assert_wrong(
        finding(7, "certificate", Made(tmp_path, [first, refused("simpleenroll", wanted, "password", 401)])),
        "No certificate was issued",
    )


def by_cmc(certificate: x509.Certificate) -> dict[str, Any]:
    wire = base64.b64encode(certs.pack([certificate]))
    return record("fullcmc", response__body=base64.b64encode(wire).decode())


def test_a_certificate_by_full_cmc_counts_as_revoked_when_the_list_has_it(tmp_path, ca):
    device = ca.issue("lab8-device")
    sent = by_cmc(device.certificate)
    found = LABS[8].check(Made(tmp_path, [sent]))
    assert [each.outcome.value for each in found.values()] == ["done", "not yet", "not yet", "not yet"]
    failed = refused("fullcmc", None, "handler", 403)
    assert_wrong(finding(8, "revoked", Made(tmp_path, [sent, failed])), "revoked nothing")
    (tmp_path / "crl.pem").write_bytes(ca.crl(device).public_bytes(Encoding.PEM))
    assert finding(8, "revoked", Made(tmp_path, [sent])).outcome is Outcome.DONE
    assert_wrong(finding(8, "CMC", Made(tmp_path, [failed])), "got no certificate for CN=lab8-")


def keygen(protection: str) -> dict[str, Any]:
    callouts = [{"kind": "handler", "environment": {"EST_KEYGEN_PROTECT": protection}}]
    return record("serverkeygen", csr("lab8-sealed"), callouts=callouts)


def test_a_key_counts_as_sealed_when_it_came_encrypted_and_as_opened_after_a_login(tmp_path):
    assert finding(8, "sealed", Made(tmp_path, [keygen("none"), keygen("symmetric")])).outcome is Outcome.DONE
    assert_wrong(finding(8, "sealed", Made(tmp_path, [keygen("none")])), "in the clear")
    unknown = refused("serverkeygen", csr("lab8-sealed"), "handler", 400)
    assert_wrong(finding(8, "sealed", Made(tmp_path, [unknown])), "No key came")
    shown = record("csrattrs", tls__subject="CN=lab8-sealed", tls__verify="FAILED:certificate revoked")
    assert_wrong(finding(8, "opened", Made(tmp_path, [shown])), "FAILED:certificate revoked")
    good = record("csrattrs", tls__subject="CN=lab8-sealed", tls__verify="SUCCESS")
    assert finding(8, "opened", Made(tmp_path, [good])).outcome is Outcome.DONE


def test_the_check_of_lab_9_says_what_both_certificates_weigh(tmp_path, ca):
    small, large = csr("lab9-ec"), csr("lab9-pq", key=KEYS["ml-dsa-65"]())
    records = [record("simpleenroll", each, issued=issued(ca.certify(each))) for each in (small, large)]
    found = LABS[9].check(Made(tmp_path, records))
    assert {each.outcome for each in found.values()} == {Outcome.DONE}
    sizes = [len(ca.certify(each).public_bytes(Encoding.DER)) for each in (small, large)]
    printed = [int(word) for word in found["sizes"].sentence.replace(".", "").split() if word.isdecimal()]
    assert all(abs(one - other) < 4 for one, other in zip(sizes, printed, strict=True))
    assert finding(9, "sizes", Made(tmp_path, records[:1])).outcome is Outcome.NOT_YET
    failed = refused("simpleenroll", large, "handler", 500)
    assert_wrong(finding(9, "certificate", Made(tmp_path, [failed])), "got no certificate")
    other = csr("lab9-pq", key=KEY)
    sent = record("simpleenroll", other, issued=issued(ca.certify(other)))
    assert_wrong(finding(9, "certificate", Made(tmp_path, [sent])), "The key is not ML-DSA")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is no report of estgw quirks run"),
        ("[]", "is no report"),
        ('{"quirks": [{"quirk": "html"}]}', "is no report"),
        ('{"quirks": [{"quirk": "html", "verdict": "pass"}]}', "has no FAIL"),
    ],
)
def test_a_report_without_a_failure_or_of_another_kind_is_wrong(tmp_path, text, part):
    (tmp_path / "lab10-client.json").write_text(text)
    assert_wrong(finding(10, "client", Made(tmp_path, [])), part)


def test_a_report_with_a_failure_is_done_and_one_that_can_t_be_read_is_wrong(tmp_path):
    (tmp_path / "lab10-client.json").write_text('{"quirks": [{"quirk": "html", "verdict": "fail"}]}')
    (tmp_path / "lab10-server.json").write_text('{"cases": [{"case": "pop.empty", "status": "FAIL"}]}')
    found = LABS[10].check(Made(tmp_path, []))
    assert [each.sentence for each in found.values()] == [
        "lab10-client.json has a FAIL: html.",
        "lab10-server.json has a FAIL: pop.empty.",
    ]
    (tmp_path / "lab10-client.json").unlink()
    (tmp_path / "lab10-client.json").mkdir()
    assert_wrong(finding(10, "client", Made(tmp_path, [])), "can't be read")


# Records.


def write(directory: Path, made: dict[str, Any]) -> None:
    if made["tls"]:
        made["tls"].setdefault("bindings", {})
    made["gates"] = [{**gate, "ms": gate["ms"] or 0.0} for gate in made["gates"]]
    (directory / folder.file_name(made)).write_text(json.dumps(made))


def place(tmp_path: Path, label: str | None = None, since: str = "") -> Place:
    return Place(tmp_path, tmp_path, tmp_path, lambda each: each, label, since)


def test_only_records_since_the_start_and_of_the_label_count(tmp_path):
    made = samples.lesson()[0]
    for minute, label in ((1, None), (2, "p07"), (3, None)):
        write(tmp_path, {**made, "at": f"2026-11-30T05:0{minute}:00.000Z", "label": label})
    write(tmp_path, {**made, "at": "2026-11-30T05:04:00.000Z", "kind": "replay"})
    (tmp_path / "20261130T050500.000-0123456789.json").write_text("cut off")
    assert len(Evidence(place(tmp_path)).records) == 3
    assert len(Evidence(place(tmp_path, label="p07")).records) == 1
    assert len(Evidence(place(tmp_path, since="2026-11-30T05:02:00.000Z")).records) == 2


def test_a_directory_of_records_that_is_not_there_has_none(tmp_path):
    assert Evidence(place(tmp_path / "missing")).records == []


def test_no_record_of_a_peer_with_bad_intentions_stops_a_check(tmp_path):
    records = [*samples.lesson(), samples.hostile(90, 90), samples.unreadable(92, 92)]
    for made in records:
        write(tmp_path, made)
    evidence = Evidence(place(tmp_path))
    read = {made["id"] for made in evidence.records}
    assert len(read) > 15
    assert records[-2]["id"] in read
    for lab in LABS.values():
        assert all(found.sentence for found in lab.check(evidence).values())
