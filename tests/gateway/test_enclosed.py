"""Requests inside a Full PKI Request: the environment of their decisions follows from the handler's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from estgw.auth.identity import Trust
from estgw.auth.pop import POP
from estgw.callout.call import CSRFacts, Enclosure
from estgw.callout.environment import environment_of
from estgw.est import certs
from estgw.est.csr import CSR, NewNames, parse
from estgw.gateway import enclosed
from tests.callout import calls
from tests.callout.calls import CERTIFICATE, KNOWN, client, full, plain, tls
from tests.kit.ca import certificate, name
from tests.kit.csr import csr

SIGNER = certificate(calls.SUB, "CN=signer", x509.SubjectAlternativeName([x509.DNSName("a.example")]))
OTHERS = NewNames(name("CN=new,O=Ours"), None)
ITS_OWN = {"CONTENT_TYPE", "CONTENT_LENGTH", "SCRIPT_NAME", "EST_CMC_REQUEST", "EST_AUTH_METHODS"}
"""Variables that may differ, because they describe the message around the request."""


def outer(directory: Path, **changes: Any) -> dict[str, str]:
    """The environment of the handler of a Full PKI Request."""
    return environment_of(full(directory, "fullcmc", csr=None, body=b"a message", **changes))


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda d: full(d, "fullcmc", csr=None, body=b"0"), id="everything"),
        pytest.param(lambda d: full(d, "fullcmc", csr=None, label=None, query=""), id="no label"),
        pytest.param(lambda d: full(d, "fullcmc", csr=None, raw_path="/.well-known/est/x%25y/fullcmc"), id="a percent"),
        pytest.param(lambda d: full(d, "fullcmc", csr=None, client=client()), id="an unknown client"),
        pytest.param(lambda d: full(d, "fullcmc", csr=None, client=client(user="ann")), id="a user"),
        pytest.param(lambda d: full(d, "fullcmc", csr=None, binding=None, headers=()), id="no binding"),
        pytest.param(
            lambda d: full(
                d,
                "fullcmc",
                csr=None,
                client=client(tls=tls(CERTIFICATE, verify_error="expired"), certificate=CERTIFICATE),
            ),
            id="a certificate that does not verify",
        ),
    ],
)
def test_an_environment_read_back_makes_the_same_environment(tmp_path, made):
    told = environment_of(made(tmp_path))
    assert environment_of(enclosed.read(told, b"0" if told["CONTENT_LENGTH"] == "1" else calls.CSR)) == told


def test_variables_that_a_shell_adds_reach_the_next_script(tmp_path):
    told = {**outer(tmp_path), "SHLVL": "1", "PWD": "/srv"}
    assert environment_of(enclosed.read(told, b"a message")) == told


def inside(told: dict[str, str], asked: CSR, renewed: bool = False, **facts: Any) -> dict[str, str]:
    """The environment of authorize for a request inside the message."""
    call = enclosed.read(told, b"a message")
    operation = "simplereenroll" if renewed else "simpleenroll"
    given = CSRFacts(asked, CERTIFICATE if renewed else None, **facts)
    around = Enclosure(7, enclosed.methods(call, is_proved=True))
    return environment_of(enclosed.call(call, enclosed.route(call, operation), call.client, given, around))


@pytest.mark.parametrize("renewed", [False, True], ids=["enrol", "renew"])
@pytest.mark.parametrize("new_names", [None, OTHERS], ids=["own names", "others"])
@pytest.mark.parametrize("body", [calls.CSR, csr("plain")], ids=["a full CSR", "a minimal CSR"])
def test_enclosed_request_has_the_environment_of_a_request_alone(tmp_path, renewed, new_names, body):
    made = inside(outer(tmp_path), parse(body), renewed, new_names=new_names, pop=POP.ABSENT)
    operation = "simplereenroll" if renewed else "simpleenroll"
    alone = full(
        tmp_path, operation, csr=parse(body), body=body, renewed=CERTIFICATE if renewed else None,
        new_names=new_names, pop=POP.ABSENT, inner=None,
    )  # fmt: skip
    wanted = environment_of(alone)
    assert {name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name)} <= ITS_OWN
    assert (made["EST_CMC_REQUEST"], made["EST_AUTH_METHODS"]) == ("7", "tls+http+cmc")
    assert made["EST_PENDING_ID"] == wanted["EST_PENDING_ID"]


def test_a_signer_takes_the_place_of_the_tls_client(tmp_path):
    outer_call = enclosed.read(outer(tmp_path))
    signer = enclosed.signed_by(outer_call.client, SIGNER, is_ra=False)
    assert (signer.trust, signer.is_ra, signer.tls.chain) == (Trust.EXPLICIT, False, ())
    around = Enclosure(7, "tls+cmc", has_signer=True)
    asked = CSRFacts(parse(calls.CSR), pop=POP.LINKED)
    call = enclosed.call(outer_call, enclosed.route(outer_call, "simpleenroll"), signer, asked, around)
    made = environment_of(call)
    alone = full(tmp_path, "simpleenroll", client=replace(KNOWN, tls=tls(SIGNER), certificate=SIGNER, is_ra=False),
                 renewed=None, inner=None)  # fmt: skip
    wanted = environment_of(alone)
    different = {name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name)}
    assert different <= ITS_OWN | {"EST_CLIENT_CERT_FILE"}
    files = dict(call.files())
    assert certs.load_pem(files[Path(made["EST_CLIENT_CERT_FILE"])]) == [SIGNER]
    assert tmp_path / "client.pem" not in files, "the TLS client's own file is left alone"


def test_signer_with_the_tls_certificate_keeps_the_client_as_it_is(tmp_path):
    there = enclosed.read(outer(tmp_path)).client
    assert enclosed.signed_by(there, CERTIFICATE, is_ra=True) is there


def test_identification_is_passed_on_and_changes_the_pending_id(tmp_path):
    call = enclosed.read(outer(tmp_path))
    asked, route = CSRFacts(parse(calls.CSR)), enclosed.route(call, "simpleenroll")
    made = environment_of(enclosed.call(call, route, call.client, asked, Enclosure(1, "cmc", "device-7")))
    assert made["EST_CMC_IDENTIFICATION"] == "device-7"
    plainly = environment_of(enclosed.call(call, route, call.client, asked, Enclosure(1, "cmc")))
    assert made["EST_PENDING_ID"] != plainly["EST_PENDING_ID"]


def test_enclosed_request_does_not_see_the_rules_for_enclosed_requests(tmp_path):
    told = outer(tmp_path)
    rules = {"EST_POP_LINKING", "EST_AUTHORIZE", "EST_CSR_TEMPLATE", "EST_MAY_CHANGE_SUBJECT", "EST_NAME_BOUNDS"}
    assert rules <= told.keys()
    assert rules.isdisjoint(inside(told, parse(csr("plain"))))


def test_enclosed_route_takes_its_rules_from_the_environment(tmp_path):
    call = enclosed.read(outer(tmp_path, change_subject_name=False))
    route = enclosed.route(call, "simpleenroll")
    assert (route.authorize, route.csr_template) == (Path("/srv/authorize"), Path("/srv/template.yaml"))
    assert route.change_subject_name
    assert (route.operation.name, plain(tmp_path).inner) == ("simpleenroll", None)


HEAVY = ("aiohttp", "asyncio", "OpenSSL", "passlib", "pydantic", "sqlite3", "structlog", "yaml")


def test_enclosed_imports_none_of_the_gateways_libraries():
    loaded = f"import sys, estgw.gateway.enclosed; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == "[]\n"
