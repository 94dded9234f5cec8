"""For a request inside a message, authorize gets the same variables as for a request that comes alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from estgw.auth.identity import Trust
from estgw.auth.pop import POP
from estgw.callout.call import CSRFacts
from estgw.callout.environment import environment_of
from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service import authorize, inner_call
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.policy import Signer
from estgw.est import certs
from estgw.est.csr import NewNames, parse
from estgw.gateway import enclosed
from tests.callout.calls import CERTIFICATE, CSR, SUB, client, full, tls
from tests.kit.ca import certificate, name
from tests.kit.csr import csr, san
from tests.kit.der import UTF8, attribute, tlv

HTTP = {"SCRIPT_NAME", "CONTENT_LENGTH"}
"""Variables of the HTTP request, which differ from those of the request inside."""
OTHERS = NewNames(name("CN=new,O=Ours"), x509.SubjectAlternativeName([x509.DNSName("new.example")]))
SIGNER = certificate(
    SUB,
    "CN=signer\\, with a comma,O=Ours",
    x509.ExtendedKeyUsage([certs.CMC_RA]),
    x509.SubjectAlternativeName([x509.DNSName("a.example"), x509.RFC822Name("b@example.org")]),
)
HOLDER = Signer("holder", CERTIFICATE, is_ra=True)


def ask(outer, facts, signer):
    """The variables that authorize gets for a request in a message."""
    call = inner_call.describe(enclosed.read(environment_of(outer)), signer, 7, facts)
    for path, content in call.files():
        path.write_bytes(content)
    return authorize.environment(call)


def different_from(made, wanted):
    """The names of the variables that differ."""
    return {name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name)} - HTTP


@pytest.mark.parametrize("renewed", [None, CERTIFICATE], ids=["enrol", "renew"])
@pytest.mark.parametrize("new_names", [None, OTHERS], ids=["own names", "new names"])
@pytest.mark.parametrize("pop", POP, ids=lambda pop: pop.value)
@pytest.mark.parametrize("body", [CSR, csr("plain")], ids=["everything", "little"])
def test_authorize_sees_a_request_of_the_tls_client_as_if_it_came_alone(tmp_path, renewed, new_names, pop, body):
    csr_ = parse(body)
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None, body=b"a message")
    operation = "simpleenroll" if renewed is None else "simplereenroll"
    facts = CSRFacts(csr_, renewed, new_names, pop)
    made = ask(outer, facts, HOLDER)
    alone = full(
        tmp_path, operation, csr=csr_, body=body, renewed=renewed, new_names=new_names, pop=pop, inner=None
    )  # fmt: skip
    wanted = environment_of(alone)
    different = different_from(made, wanted)
    assert different == {"EST_CMC_REQUEST", "EST_AUTH_METHODS"}
    assert made["EST_CMC_REQUEST"] == "7"
    assert made["EST_AUTH_METHODS"] == "tls+http+cmc"


@pytest.mark.parametrize("shown", ["nobody", "an RA"])
def test_authorize_sees_the_signer_in_place_of_the_tls_client(tmp_path, shown):
    """This includes messages over an RA's connection: the RA has not vouched for what its client signed."""
    outer_client = full(tmp_path).client if shown == "an RA" else client()
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None, client=outer_client)
    facts = CSRFacts(parse(CSR), pop=POP.LINKED)
    made = ask(outer, facts, Signer("signer", SIGNER, is_ra=False))
    as_client = replace(
        outer_client, tls=tls(SIGNER), certificate=SIGNER, trust=Trust.EXPLICIT, is_ra=False,
    )  # fmt: skip
    wanted = environment_of(full(tmp_path, "simpleenroll", client=as_client, renewed=None, inner=None))
    different = different_from(made, wanted)
    assert different == {"EST_CMC_REQUEST", "EST_AUTH_METHODS", "EST_CLIENT_CERT_FILE"}
    assert certs.load_pem(Path(made["EST_CLIENT_CERT_FILE"]).read_bytes()) == [SIGNER]
    assert made["EST_CLIENT_IS_RA"] == "0"


def test_without_a_cmc_signer_authorize_sees_the_tls_client(tmp_path):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    facts = CSRFacts(parse(CSR), pop=POP.LINKED)
    made = ask(outer, facts, Signer("client"))
    assert made["EST_AUTH_METHODS"] == "tls+http"
    wanted = environment_of(full(tmp_path, "simpleenroll", renewed=None, inner=None))
    different = different_from(made, wanted)
    assert different == {"EST_CMC_REQUEST"}
    secret = ask(outer, facts, Signer("secret", identification="device-7"))
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
def test_harmful_values_of_an_inner_request_are_refused(tmp_path, attribute):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    facts = CSRFacts(parse(csr("x", attribute)), pop=POP.ABSENT)
    with pytest.raises(Refused) as refused:
        ask(outer, facts, HOLDER)
    assert refused.value.failure is CMCFailInfo.BAD_REQUEST


def test_authorize_sees_the_cmc_identification(tmp_path):
    outer = full(tmp_path, "fullcmc", csr=None, renewed=None, pop=None)
    facts = CSRFacts(parse(CSR), pop=POP.LINKED)
    secret = ask(outer, facts, Signer("secret", identification="device-7"))
    assert secret["EST_CMC_IDENTIFICATION"] == "device-7"
    with pytest.raises(Refused):
        ask(outer, facts, Signer("secret", identification="() { :; }"))
