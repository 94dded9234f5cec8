"""Names that are too long: every operation refuses them in the same words, before a script runs."""

from __future__ import annotations

import asyncio
import re

import pytest
from cryptography import x509

from estgw.cli import trial
from estgw.cli.trial import Trial
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from tests.cmc_service import office as cmc
from tests.e2e.identity.test_renewals import change
from tests.e2e.test_fullcmc import post, statuses
from tests.kit.ca import name, pem
from tests.kit.clients import CHANGE
from tests.kit.csr import csr
from tests.kit.der import CN, SEQUENCE, UTF8, attribute, dn, tlv
from tests.kit.gateway import enrol, running_gateway
from tests.kit.keys import KEY
from tests.kit.workspace import Workspace

BLOAT = dn((CN, UTF8, b"device-1"), ("2.5.4.11", UTF8, b"x" * 60000))
LONG = dn((CN, UTF8, b"device-1"), ("2.5.4.11", UTF8, b"x" * 65))
SENTENCE = (
    "The organizationalUnitName in the subject has 65 characters, and RFC 5280 allows 64; "
    "the server's setting name_bounds can lift that."
)
KEYGEN = {"callouts": {"operations": {"serverkeygen": {"enabled": True}}}}
OLD_DEVICES = {"labels": {"old": {"name_bounds": "none"}, "python": {"handlers": "handlers/python"}}}


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return lab.copy(tmp_path_factory.mktemp("bounds") / "lab")


@pytest.fixture(scope="module")
def bounded(own: Workspace):
    change_names = {"labels": {**OLD_DEVICES["labels"], "change": {"change_subject_name": True}}}
    with running_gateway(own, {**KEYGEN, **change_names}) as gateway:
        yield gateway


@pytest.mark.parametrize("path", ["simpleenroll", "serverkeygen", "python/simpleenroll"])
def test_a_subject_of_60000_letters_is_refused_before_anything_is_written(bounded, path):
    before = bounded.lab.books()
    answer = bounded.post(path, csr(BLOAT))
    assert answer.status == 400
    assert "and 4096 are allowed here; the server's setting is max_subject" in answer.words
    assert bounded.lab.books() == before


@pytest.mark.parametrize("path", ["simpleenroll", "serverkeygen", "python/simpleenroll"])
def test_an_attribute_past_its_bound_is_named_with_both_numbers(bounded, path):
    before = bounded.lab.books()
    answer = bounded.post(path, csr(LONG))
    assert (answer.status, answer.words) == (400, SENTENCE)
    assert bounded.access[-1]["reason"] == SENTENCE
    assert bounded.lab.books() == before


def test_name_bounds_none_lifts_attribute_bounds_but_not_max_subject(bounded):
    certificate = bounded.post("old/simpleenroll", csr(LONG)).certificate
    assert certificate.subject.public_bytes() == LONG
    assert "max_subject" in bounded.post("old/simpleenroll", csr(BLOAT)).words


def test_a_renewal_of_a_name_that_is_too_long_is_refused(bounded, tmp_path):
    """The certificate is older than the bounds. Where names may be changed, it can move to a shorter name."""
    pair = enrol(bounded, tmp_path)
    body = csr(LONG, key=KEY)
    pair[0].write_bytes(pem(bounded.post("old/simpleenroll", body).certificate))
    refused = bounded.post("simplereenroll", body, login=None, certificate=pair)
    assert (refused.status, refused.words) == (400, SENTENCE)
    assert bounded.post("old/simplereenroll", body, login=None, certificate=pair).status == 200
    shorter = csr(LONG, change(dn((CN, UTF8, b"device-1"))), key=KEY)
    moved = bounded.post("change/simplereenroll", shorter, login=None, certificate=pair)
    assert moved.certificate.subject == name("CN=device-1")


def test_a_change_to_a_name_that_is_too_long_is_refused(bounded, tmp_path):
    pair = enrol(bounded, tmp_path)
    for wanted in (LONG, dn((CN, UTF8, b"a"), ("2.5.4.9", UTF8, b"x" * 5000))):
        body = csr("device-1", change(wanted), key=KEY)
        answer = bounded.post("change/simplereenroll", body, login=None, certificate=pair)
        assert answer.status == 400, answer
    big = x509.UniformResourceIdentifier("https://" + "x" * 20000)
    san = tlv(0xA1, x509.SubjectAlternativeName([big]).public_bytes()[4:])
    both = attribute(CHANGE, tlv(SEQUENCE, dn((CN, UTF8, b"a")), san))
    body = csr("device-1", both, key=KEY)
    assert "max_san" in bounded.post("change/simplereenroll", body, login=None, certificate=pair).words


def test_an_alternative_name_past_its_bound_is_refused(bounded):
    inside = x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.TITLE, "x" * 65)]))
    assert "The title in the subject alternative name has 65" in bounded.post("simpleenroll", csr("a", inside)).words
    hosts = [x509.DNSName(f"{number}.{'x' * 60}.{'y' * 60}.example") for number in range(127)]
    assert "max_san" in bounded.post("simpleenroll", csr("a", *hosts)).words


@pytest.mark.parametrize("path", ["fullcmc", "python/fullcmc"])
def test_a_long_name_inside_a_full_cmc_message_is_refused(bounded, path):
    for long in (LONG, BLOAT):
        before = bounded.lab.books()
        key = cmc.new_key()
        asked = PKCS10Request(1, csr(long, key=key))
        answer = post(bounded, path, cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key)))
        (status,) = statuses(answer)
        assert answer.status == 400
        assert re.search("65 characters, and RFC 5280 allows 64|60[0-9]+ bytes.*max_subject", str(status))
        changed = set(bounded.lab.books().items()) ^ set(before.items())
        assert {name for name, _ in changed} <= {"certs.sqlite", "certs.sqlite-wal", "certs.sqlite-shm"}


def test_estgw_run_refuses_long_names_in_the_same_words(bounded, own, tmp_path):
    gateway = trial.load_state(bounded.config)
    for body, words in ((csr(LONG), SENTENCE), (csr("a", x509.DNSName("a\0b")), "holds a control character")):
        file = tmp_path / "req.der"
        file.write_bytes(body)
        report = asyncio.run(trial.run(gateway, Trial("simpleenroll", csr_file=file, user="estuser"), tmp_path))
        assert report.response.status == 400
        assert words in str(report.reason)
