"""What authorize is told about a request inside a message is what the gateway would tell it of one that comes alone."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from estgw.auth.identity import Trust
from estgw.auth.pop import POP
from estgw.callout.contract import environment
from estgw.cmc.status import CMCFailInfo
from estgw.est import certs
from estgw.est.csr import NewNames, parse
from tests.callout.calls import CERTIFICATE, CSR, SUB, client, full, tls
from tests.cmc_service import office as cmc
from tests.kit.ca import certificate, name
from tests.kit.csr import csr, san
from tests.kit.der import UTF8, attribute, tlv

cmc_ask, cmc_policy, cmc_answer = (
    cmc.module("estgw.cmc_service.authorize"),
    cmc.module("estgw.cmc_service.policy"),
    cmc.module("estgw.cmc_service.answer"),
)

HTTP = {"CONTENT_LENGTH", "SCRIPT_NAME"}
"""What the HTTP request is, and not the request inside it."""
OTHERS = NewNames(name("CN=new,O=Ours"), x509.SubjectAlternativeName([x509.DNSName("new.example")]))
SIGNER = certificate(
    SUB,
    "CN=signer\\, with a comma,O=Ours",
    x509.ExtendedKeyUsage([certs.CMC_RA]),
    x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.RFC822Name("b@example.org")]),
)
HOLDER = cmc_policy.Who("holder", CERTIFICATE, is_ra=True)


def ask(monkeypatch, outer, wish, who):
    """The environment that the handler makes within the one that it was given."""
    for variable in list(os.environ):
        monkeypatch.delenv(variable)
    for variable, value in environment(outer).items():
        monkeypatch.setenv(variable, value)
    made = cmc_ask.environment(wish, who)
    os.environ["PATH"] = "/usr/bin:/bin"
    return made


@pytest.mark.parametrize("renewed", [None, CERTIFICATE], ids=["enrol", "renew"])
@pytest.mark.parametrize("new_names", [None, OTHERS], ids=["own names", "others"])
@pytest.mark.parametrize("pop", POP, ids=lambda pop: pop.value)
@pytest.mark.parametrize("body", [CSR, csr("plain")], ids=["everything", "little"])
def test_the_holder_of_the_tls_certificate(tmp_path, monkeypatch, renewed, new_names, pop, body):
    csr_ = parse(body)
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None, body=b"a message")
    operation = "simpleenroll" if renewed is None else "simplereenroll"
    wish = cmc_ask.Wish(7, csr_, new_names, pop.value, renewed)
    made = ask(monkeypatch, outer, wish, HOLDER)
    alone = full(
        tmp_path, operation, csr=csr_, body=body, renewed=renewed, new_names=new_names, pop=pop, inner=None
    )  # fmt: skip
    wanted = environment(alone)
    different = {each for each in made.keys() | wanted.keys() if made.get(each) != wanted.get(each)} - HTTP
    assert different == {"EST_CMC_REQUEST", "EST_AUTH_METHODS"}
    assert made["EST_CMC_REQUEST"] == "7"
    assert made["EST_AUTH_METHODS"] == "tls+http+cmc"


@pytest.mark.parametrize("shown", ["nobody", "an RA"])
def test_a_signer_who_is_not_the_tls_client_takes_its_place(tmp_path, monkeypatch, shown):
    """Also where an RA's connection brings it: the RA's word in TLS is no word for what its client has signed."""
    outer_client = full(tmp_path).client if shown == "an RA" else client()
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None, client=outer_client)
    wish = cmc_ask.Wish(7, parse(CSR), None, "linked", None)
    made = ask(monkeypatch, outer, wish, cmc_policy.Who("signer", SIGNER, is_ra=False))
    as_client = replace(
        outer_client, tls=tls(SIGNER), certificate=SIGNER, trust=Trust.EXPLICIT, is_ra=False,
    )  # fmt: skip
    wanted = environment(full(tmp_path, "simpleenroll", client=as_client, renewed=None, inner=None))
    different = {each for each in made.keys() | wanted.keys() if made.get(each) != wanted.get(each)} - HTTP
    assert different == {"EST_CMC_REQUEST", "EST_AUTH_METHODS", "EST_CLIENT_CERT_FILE"}
    assert certs.load_pem(Path(made["EST_CLIENT_CERT_FILE"]).read_bytes()) == [SIGNER]
    assert made["EST_CLIENT_IS_RA"] == "0"


def test_somebody_whom_the_connection_alone_knows(tmp_path, monkeypatch):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    wish = cmc_ask.Wish(7, parse(CSR), None, "linked", None)
    made = ask(monkeypatch, outer, wish, cmc_policy.Who("client"))
    assert made["EST_AUTH_METHODS"] == "tls+http"
    wanted = environment(full(tmp_path, "simpleenroll", renewed=None, inner=None))
    different = {each for each in made.keys() | wanted.keys() if made.get(each) != wanted.get(each)} - HTTP
    assert different == {"EST_CMC_REQUEST"}
    secret = ask(monkeypatch, outer, wish, cmc_policy.Who("secret", identification="device-7"))
    assert secret["EST_AUTH_METHODS"] == "tls+http+cmc"
    assert secret["EST_PENDING_ID"] != made["EST_PENDING_ID"], "another identity's request"


@pytest.mark.parametrize(
    "attribute",
    [
        attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, b"() { :; }")),
        attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, b"two\nlines")),
        attribute("1.2.840.113549.1.9.16.2.57", tlv(UTF8, b"a\x00b")),
        san(*(x509.DNSName(f"h{number}.example") for number in range(129))),
    ],
    ids=["a shell function", "a line break", "NUL", "129 names"],
)
def test_what_would_do_harm_is_refused_before_a_script_runs(tmp_path, monkeypatch, attribute):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    wish = cmc_ask.Wish(7, parse(csr("x", attribute)), None, "absent", None)
    with pytest.raises(cmc_answer.Refused) as refused:
        ask(monkeypatch, outer, wish, HOLDER)
    assert refused.value.failure is CMCFailInfo.BAD_REQUEST


def test_the_identification_is_there_for_a_policy(tmp_path, monkeypatch):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    wish = cmc_ask.Wish(7, parse(CSR), None, "linked", None)
    secret = ask(monkeypatch, outer, wish, cmc_policy.Who("secret", identification="device-7"))
    assert secret["EST_CMC_IDENTIFICATION"] == "device-7"
    with pytest.raises(cmc_answer.Refused):
        ask(monkeypatch, outer, wish, cmc_policy.Who("secret", identification="() { :; }"))
