"""Dates: warnings about a certificate or CRL that is expired, not yet valid or near its end, and the gauges."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from estgw import logs
from estgw.config import loading, model
from estgw.gateway import validity
from estgw.gateway.validity import Kind, Period, Watch
from estgw.metrics import table
from estgw.metrics.meter import Meter
from tests.kit.ca import root
from tests.kit.processes import until
from tests.kit.restore import logging_as_before
from tests.kit.workspace import Workspace

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def period(kind: Kind, begins: timedelta, ends: timedelta | None) -> Period:
    return Period(kind, "CN=x", Path("/x.pem"), NOW + begins, None if ends is None else NOW + ends)


@pytest.mark.parametrize(
    ("kind", "begins", "ends", "words"),
    [
        (Kind.SERVER, -100 * DAY, 31 * DAY, None),
        (
            Kind.SERVER,
            -100 * DAY,
            30 * DAY,
            "the server certificate CN=x (/x.pem) ends at 2026-07-15 12:00 UTC, in 30 days: then clients refuse the g",
        ),
        (Kind.SERVER, -100 * DAY, DAY, "ends at 2026-06-16 12:00 UTC, in 24 hours: then clients refuse the gateway"),
        (Kind.SERVER, -9 * DAY, -DAY, "is over since 2026-06-14 12:00 UTC: clients refuse the gateway; replace it"),
        (Kind.SERVER, DAY, 99 * DAY, "is not valid before 2026-06-16 12:00 UTC: until then clients refuse the gateway"),
        (Kind.EXPLICIT, -9 * DAY, -DAY, "the explicit anchor CN=x (/x.pem) is over since"),
        (Kind.IMPLICIT, -9 * DAY, 9 * DAY, "then client certificates below it are refused; replace it, or take it out"),
        (Kind.ISSUER, -9 * DAY, 9 * DAY, "the issuing CA CN=x (/x.pem) ends at 2026-06-24 12:00 UTC, in 9 days: then"),
        (Kind.CRL, -5 * DAY, 2 * DAY, None),
        (Kind.CRL, -6 * DAY, DAY, "the CRL of CN=x (/x.pem) ends at 2026-06-16 12:00 UTC, in 24 hours: then every cl"),
        (Kind.CRL, -80 * DAY, 20 * DAY, "in 20 days: then every client certificate of this CA is refused"),
        (Kind.CRL, -80 * DAY, 30 * DAY, None),
        (Kind.CRL, -8 * DAY, -DAY, "refused; make a new one (openssl-ca/crl), and reload"),
        (Kind.CRL, -8 * DAY, None, None),
    ],
)
def test_warning_about_a_date_says_its_effect_and_what_to_do(kind, begins, ends, words):
    said = period(kind, begins, ends).sentence(NOW)
    assert (said is None) == (words is None)
    assert words is None or words in str(said)


def certificate(name: str, begins: timedelta, ends: timedelta) -> bytes:
    now = datetime.now(UTC)
    return root(name, starts=now + begins, ends=now + ends).pem


def crl(name: str, begins: timedelta, ends: timedelta) -> bytes:
    now = datetime.now(UTC)
    return root(name).crl(starts=now + begins, ends=now + ends).public_bytes(Encoding.PEM)


def change(lab: Workspace, **groups: dict[str, Any]) -> model.Config:
    path = lab.path / "conf.yaml"
    data = yaml.safe_load(path.read_text())
    for group, changes in groups.items():
        data[group] = {**(data.get(group) or {}), **changes}
    path.write_text(yaml.safe_dump(data))
    return loading.load(path)


@pytest.fixture
def old(own_lab: Workspace) -> model.Config:
    """A configuration in which every certificate and CRL needs a warning."""
    (own_lab.path / "server.pem").write_bytes(
        certificate("server", -2 * DAY, -DAY) + certificate("above it", -9 * DAY, 9 * DAY)
    )
    (own_lab.path / "ours.pem").write_bytes(certificate("ours", DAY, 99 * DAY))
    (own_lab.path / "theirs.pem").write_bytes(certificate("theirs", -9 * DAY, -DAY))
    (own_lab.path / "crl.pem").write_bytes(crl("theirs", -9 * DAY, DAY))
    ca = own_lab.path / "old-ca"
    ca.mkdir()
    for name in ("issuer.pem", "cacert.pem"):
        (ca / name).write_bytes(certificate("issuing", -9 * DAY, 20 * DAY))
    (ca / "cacert.pem").write_bytes((ca / "issuer.pem").read_bytes())
    return change(
        own_lab,
        tls={"certificate": "server.pem"},
        client_auth={"explicit": ["ours.pem"], "implicit": ["theirs.pem"], "crls": ["crl.pem"]},
        callouts={"ca_dir": "old-ca"},
    )


def test_each_certificate_and_crl_is_warned_of_once(old):
    starts = [sentence.split(" (")[0] for sentence in validity.sentences(old)]
    assert starts == [
        "the server certificate CN=server",
        "the chain certificate CN=above it",
        "the explicit anchor CN=ours",
        "the implicit anchor CN=theirs",
        "the CRL of CN=theirs",
        "the issuing CA CN=issuing",
    ]


def test_the_demo_ca_needs_no_warning(lab):
    assert validity.sentences(loading.load(lab.path / "conf.yaml")) == []


def test_periods_skip_files_that_cannot_be_read(old, own_lab):
    for name in ("server.pem", "ours.pem", "crl.pem"):
        (own_lab.path / name).write_text("nothing")
    (own_lab.path / "theirs.pem").unlink()
    assert [period.name for period in validity.periods(old)] == ["CN=issuing"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Meter:
    made = Meter()
    made.switch_on(table.OF_ALL)
    monkeypatch.setattr(validity, "meter", made)
    return made


def test_gauges_have_the_dates_of_each_kind_and_name(old, own_lab, counted):
    validity.expose(validity.periods(old))
    text = counted.text().decode()
    for kind, name in (("server", "server"), ("crl", "theirs"), ("issuing-ca", "issuing"), ("explicit-anchor", "ours")):
        assert f'estgw_valid_until_timestamp_seconds{{kind="{kind}",name="CN={name}"}}' in text
        assert f'estgw_valid_from_timestamp_seconds{{kind="{kind}",name="CN={name}"}}' in text
    validity.expose([])
    assert 'kind="server"' not in counted.text().decode()


def test_gauge_has_the_earliest_end_of_several_under_one_name(counted):
    validity.expose([period(Kind.EXPLICIT, -DAY, 9 * DAY), period(Kind.EXPLICIT, -2 * DAY, 3 * DAY)])
    sample = 'estgw_valid_until_timestamp_seconds{kind="explicit-anchor",name="CN=x"}'
    (line,) = [line for line in counted.text().decode().splitlines() if line.startswith(sample)]
    assert float(line.split()[-1]) == (NOW + 3 * DAY).timestamp()


def test_the_log_warns_again_each_day_and_sees_a_new_issuer(old, own_lab, monkeypatch):
    monkeypatch.setattr(validity, "DAY", 0.1)
    stream = io.StringIO()

    def issuers() -> list[str]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert {(line["event"], line["level"]) for line in lines} <= {("date", "warning")}
        return [line["name"] for line in lines if line["kind"] == "issuing-ca"]

    async def main() -> None:
        watch = Watch()
        watch.adopt(old)
        await asyncio.to_thread(until, lambda: len(issuers()) >= 3)
        (own_lab.path / "old-ca/issuer.pem").write_bytes(certificate("next", -DAY, 9 * DAY))
        await asyncio.to_thread(until, lambda: "CN=next" in issuers())
        watch.close()
        assert watch._timer is not None
        assert watch._timer.cancelled()

    with logging_as_before():
        logs.configure("json", "info", stream)
        asyncio.run(main())


def test_the_next_check_is_when_the_next_date_is_reached(monkeypatch):
    moment = datetime.now(UTC)
    soon = Period(Kind.SERVER, "CN=x", Path("/x"), moment - 99 * DAY, moment + timedelta(seconds=5))
    assert 4 < validity._pause([soon]) < 7
    assert validity._pause([period(Kind.CRL, -900 * DAY, -800 * DAY)]) == validity.DAY
