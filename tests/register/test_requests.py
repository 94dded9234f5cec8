"""Requests that wait for a person, in both engines: decided once, issued once, whoever is killed."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from estgw.register import copying, requests, sqlite, takeover
from estgw.register.requests import RequestError, Requests, Room
from estgw.register.sqlite import SQLite
from tests.kit.ca import pem
from tests.register.test_engines import ca, enter, place

__all__ = ["ca", "place"]

ROOM = Room(2, 3, timedelta(days=30))
ENVIRONMENT = {"EST_OPERATION": "simpleenroll", "EST_CSR_SUBJECT": "CN=device-1", "REMOTE_USER": "ann"}


def put(known: Requests, request_id: str, owner: str = "ann", room: Room = ROOM) -> bool:
    return known.put(requests.new(ENVIRONMENT | {"EST_PENDING_ID": request_id}, "the CSR"), owner, room)


def state(known: Requests, request_id: str) -> str | None:
    found = known.find(request_id)
    return found.state if found else None


def test_a_request_goes_from_state_to_state_and_no_other_way(place, ca):
    known, engine = Requests(place.open()), place.open()
    certificate = ca.issue("device-1").certificate
    serial = f"{certificate.serial_number:X}".zfill(40).removeprefix("00")
    assert known.find("a") is None
    assert put(known, "a")
    assert not put(known, "a"), "it waits already"
    assert not known.close("a", serial), "nobody has approved it"
    with pytest.raises(RequestError, match="b: it is gone already"):
        known.decide("b", "approved")
    assert known.decide("a", "refused", "not on a Monday").reason == "not on a Monday"
    approved = known.decide("a", "approved")
    assert (approved.state, approved.reason, approved.csr) == ("approved", None, "the CSR")
    enter(engine, certificate, serial=serial)
    assert known.close("a", serial)
    assert not known.close("a", serial), "once"
    found = known.find("a")
    assert found is not None
    assert (found.state, found.certificate, found.can_be_given) == ("issued", certificate, True)
    for decision in requests.MAY_BECOME:
        with pytest.raises(RequestError, match="it is issued already"):
            known.decide("a", decision, "too late")
    engine.rows("UPDATE certificates SET status = 'revoked'")
    assert (found := known.find("a")) is not None and not found.can_be_given
    known.wait_again("a")
    assert (found := known.find("a")) is not None and (found.state, found.certificate) == ("waiting", None)


def test_a_certificate_and_the_end_of_its_request_are_committed_together_or_not_at_all(place, ca):
    engine = place.open()
    known, certificate = Requests(engine), ca.issue("device-1").certificate
    put(known, "a")
    known.decide("a", "approved")
    with pytest.raises(ZeroDivisionError), engine.transaction():
        enter(engine, certificate, serial="01")
        with engine.exclusive("inside"):  # a part of that one
            assert known.close("a", "01")
        raise ZeroDivisionError
    assert state(Requests(place.open()), "a") == "approved"
    assert engine.rows("SELECT 1 FROM certificates") == []


def test_the_bounds_of_requests_hold_for_clients_that_come_at_once(place):
    known = Requests(place.open())
    known.all()

    def come(number: int) -> str | bool:
        with closing(place.open(is_kept=False)) as engine:
            try:
                return put(Requests(engine), f"{number}", f"client {number % 3}")
            except RequestError as full:
                return str(full)

    with ThreadPoolExecutor(6) as pool:
        assert Counter(pool.map(come, range(9)))[True] == 3
    with pytest.raises(RequestError, match="too many requests wait for approval"):
        put(known, "late", "somebody else")
    for request in known.all():
        known.decide(request.id, "refused", "no")
    assert put(known, "a", "loud") and put(known, "b", "loud")
    with pytest.raises(RequestError, match="too many of your requests"):
        put(known, "c", "loud")
    old = replace(ROOM, lasts=timedelta(seconds=-1))
    assert put(known, "d", "loud", old)
    assert {request.id for request in known.all()} == {"d"}, "those to which nothing happens are forgotten"


def test_requests_come_with_a_copy_of_a_register(place, ca, tmp_path):
    (tmp_path / "old").mkdir()
    with closing(SQLite(tmp_path / "old" / sqlite.NAME)) as source:
        known = Requests(source)
        for name in "ab":
            put(known, name)
        known.decide("b", "approved")
        enter(source, ca.issue("device-1").certificate, serial="01")
        assert known.close("b", "01")
        target = place.open()
        assert copying.copy(source, target)["requests"] == 2
        assert Requests(target).all() == known.all()
    if place.kind == "PostgreSQL":  # a dry run's
        (tmp_path / "copy").mkdir()
        copying.into_copy(place.url, tmp_path / "copy")
        with closing(SQLite(tmp_path / "copy" / sqlite.NAME)) as copied:
            assert len(Requests(copied).all()) == 2


def folder_request(pending: Path, where: str, **facts: str) -> Path:
    """A request as fullcmc of estgw 0.1.0 kept it."""
    path = pending / where
    path.mkdir(parents=True)
    lines = ENVIRONMENT | {"EST_CMC_REQUEST": "1"} | facts
    (path / "request").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
    (path / "csr.pem").write_text("the CSR")
    return path


def test_folders_of_fullcmc_are_taken_over_and_those_of_bash_stay(place, ca, tmp_path):
    engine, pending = place.open(), tmp_path / "pending"
    certificate, interrupted = (ca.issue(name).certificate for name in ("device-1", "device-2"))
    for each, pending_id in ((certificate, None), (interrupted, "e")):
        serial = f"{each.serial_number:X}"
        enter(engine, each, serial=serial.zfill(len(serial) + len(serial) % 2), pending_id=pending_id)
    folder_request(pending, "waiting/a")
    (folder_request(pending, "refused/b") / "reason").write_text("ask your teacher\n")
    folder_request(pending, "approved/c")
    (folder_request(pending, "issued/d") / "certificate.pem").write_bytes(pem(certificate))
    (folder_request(pending, "approved/e") / "started").touch()
    (folder_request(pending, "approved/f") / "started").touch()
    stays = folder_request(pending, "waiting/bash")
    (stays / "request").write_text("EST_OPERATION=simpleenroll\n")
    known = Requests(engine)
    assert takeover.take_over_request(pending, "a", engine)
    assert takeover.take_over_requests(pending, engine) == 5
    assert takeover.take_over_requests(pending, engine) == 0
    assert [path.name for path in pending.glob("*/*")] == ["bash"]
    states = {request.id: request.state for request in known.all()}
    assert states == {"a": "waiting", "b": "refused", "c": "approved", "d": "issued", "e": "issued", "f": "approved"}
    found = {request.id: request for request in known.all()}
    assert found["b"].reason == "ask your teacher"
    assert [found[name].certificate for name in "de"] == [certificate, interrupted]
    assert found["a"].facts["EST_CSR_SUBJECT"] == "CN=device-1"
