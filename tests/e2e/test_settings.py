"""Settings: who may call an operation, labels, profiles, the environment of scripts."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from estgw.callout.contract import ENV_VARS
from estgw.est.certs import CMC_RA
from tests.e2e.conftest import variables
from tests.kit.ca import CLIENT_AUTH, root
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.processes import run
from tests.kit.workspace import Workspace

GOOD = csr()

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """A certificate that no anchor verifies."""
    folder = tmp_path_factory.mktemp("stranger")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out c -subj /CN=device-1"
    run("bash", "-ec", command, cwd=folder)
    return folder / "c", folder / "k"


# Certificate and password against the requirement of the operation (RFC 7030 3.2.3, 3.3.2).

MATRIX = {
    # requires: (nothing, password, certificate, both, stranger's certificate, that and a password)
    "open": (200, 200, 200, 200, 200, 200),
    "simpleenroll": (401, 200, 200, 200, 401, 200),
    "http": (401, 200, 401, 200, 401, 200),
    "tls": (403, 403, 200, 200, 403, 403),
    "both": (403, 403, 401, 200, 403, 403),
}


@pytest.mark.parametrize("requires", MATRIX)
def test_requires_demands_a_certificate_a_password_or_both(bench, device, stranger, requires):
    path = requires if requires == "simpleenroll" else f"{requires}/simpleenroll"
    seen = [
        bench.post(path, GOOD, login=login, certificate=certificate).status
        for certificate, login in (
            (None, None), (None, LOGIN), (device, None), (device, LOGIN), (stranger, None), (stranger, LOGIN),
        )
    ]  # fmt: skip
    assert tuple(seen) == MATRIX[requires]


def test_a_script_gets_verified_facts_about_its_client(bench, device, stranger):
    def told(certificate: Pair | None, login: str | None) -> tuple[str | None, ...]:
        seen = variables(bench.post("reflect/simpleenroll", GOOD, login=login, certificate=certificate).words)
        return tuple(
            seen.get(name)
            for name in ("EST_AUTH_METHODS", "EST_CLIENT_TRUST", "SSL_CLIENT_VERIFY", "AUTH_TYPE", "REMOTE_USER")
        )

    assert told(None, LOGIN) == ("http", "none", "NONE", "Basic", "estuser")
    assert told(device, None) == ("tls", "explicit", "SUCCESS", None, None)
    assert told(device, LOGIN) == ("tls+http", "explicit", "SUCCESS", "Basic", "estuser")
    assert told(stranger, LOGIN) == ("http", "none", "NONE", "Basic", "estuser")


def test_a_third_partys_certificate_is_implicit_and_never_an_ra(own_lab, device):
    """An implicit anchor lets a client enrol, but its certificate does not count as one of our CA."""
    maker = root("Device maker")
    anchor, _ = maker.write(own_lab.path, "maker")
    theirs = maker.issue("device-1", eku=(CLIENT_AUTH, CMC_RA)).write(own_lab.path, "theirs")
    script = own_lab.script("reflect", 'echo "$EST_CLIENT_TRUST $EST_CLIENT_IS_RA"; exit 77')
    overrides = {
        "client_auth": {"implicit": [str(anchor)]},
        "callouts": {"operations": {"simpleenroll": {"handler": str(script)}}},
    }
    with running_gateway(own_lab, overrides) as gateway:
        assert gateway.post("simpleenroll", GOOD, login=None, certificate=theirs).words == "implicit 0"
        assert gateway.post("simpleenroll", GOOD, login=None, certificate=device).words == "explicit 0"
    with running_gateway(own_lab) as gateway:
        assert gateway.post("simpleenroll", GOOD, login=None, certificate=theirs).status == 401


def test_reject_refuses_an_unknown_certificate_in_the_handshake(own_lab, stranger):
    with running_gateway(own_lab, {"client_auth": {"unknown_certificates": "reject"}}) as gateway:
        assert gateway.get("cacerts").status == 200
        with pytest.raises((OSError, AssertionError)):  # in TLS 1.3 the client sees the alert when it reads
            gateway.get("cacerts", certificate=stranger)
        assert "self-signed certificate" in gateway.wait_for("TLS handshake failed")["reason"]


# Labels.


@pytest.fixture(scope="module")
def two_cas(lab: Workspace, tmp_path_factory: pytest.TempPathFactory):
    """A gateway that serves a second CA with its own handlers under the label `iot`."""
    own = lab.copy(tmp_path_factory.mktemp("two"))
    run(own.ca / "create-ca", "--dir", own.path / "iot-ca")
    run("cp", "-R", own.path / "handlers/openssl", own.path / "handlers/iot")
    own.edit("handlers/iot/settings.sh", "lifetime=90d", "lifetime=10m")
    iot = {"handlers": "handlers/iot", "ca_dir": "iot-ca", "operations": {"csrattrs": {"enabled": False}}}
    with running_gateway(own, {"labels": {"iot": iot, "IoT": {}}}) as running:
        yield running


def test_each_label_can_have_its_own_ca(two_cas: Gateway):
    theirs = x509.load_pem_x509_certificate((two_cas.lab.path / "iot-ca/cacert.pem").read_bytes())
    ours = x509.load_pem_x509_certificate(two_cas.lab.anchor.read_bytes())
    assert two_cas.get("iot/cacerts").certificates == [theirs]
    assert two_cas.get("cacerts").certificates == two_cas.get("IoT/cacerts").certificates == [ours]

    books = two_cas.lab.books()
    issued = two_cas.post("iot/simpleenroll", GOOD).certificate
    issued.verify_directly_issued_by(theirs)
    assert (issued.not_valid_after_utc - issued.not_valid_before_utc).total_seconds() <= 660
    assert two_cas.lab.books() == books
    assert two_cas.access[-1]["label"] == "iot"
    two_cas.post("simpleenroll", GOOD).certificate.verify_directly_issued_by(ours)


def test_a_label_has_its_own_operations_and_is_case_sensitive(two_cas: Gateway):
    assert two_cas.get("iot/csrattrs").status == 404
    assert two_cas.get("csrattrs").status == 200
    assert two_cas.get("iot/CACerts").status == 200
    assert two_cas.get("IOT/cacerts").status == 404


# Profiles.


@pytest.mark.parametrize(
    ("label", "operation", "sent", "profile"),
    [
        ("reflect", "simpleenroll", "application/pkcs10", "rfc"),
        ("reflect", "SIMPLEENROLL", "application/pkcs10", "rfc"),
        ("reflect", "simpleEnroll", "application/pkcs10", "draft"),
        ("reflect", "simpleEnroll", None, "draft"),
        ("reflect", "simpleEnroll", "application/x-www-form-urlencoded", "draft"),
        ("reflect", "simpleenroll", "application/x-est-pkcs10", "draft"),
        ("reflect-draft", "simpleenroll", "application/pkcs10", "draft"),
        ("reflect-draft", "simpleenroll", None, "draft"),
        ("reflect-rfc", "simpleEnroll", "application/x-est-pkcs10", "rfc"),
    ],
)
def test_label_path_or_content_type_decide_the_profile(bench, label, operation, sent, profile):
    """In the draft profile every callout gets the credentials, in the rfc profile only one that asks for them."""
    seen = variables(bench.post(f"{label}/{operation}", GOOD, headers={"Content-Type": sent}).words)
    assert (seen["EST_PROFILE"], seen["EST_OPERATION"]) == (profile, "simpleenroll")
    claimed = tuple(seen.get(f"EST_{name}") for name in ("AUTH_SCHEME", "USERNAME", "PASSWORD"))
    assert claimed == (("Basic", "estuser", "estpwd") if profile == "draft" else (None, None, None))


def test_the_rfc_profile_refuses_a_request_without_a_content_type(bench):
    assert bench.post("rfc/simpleEnroll", GOOD, headers={"Content-Type": None}).status == 415


# The environment of scripts.


def test_pass_credentials_gives_a_script_the_credentials(bench):
    seen = variables(bench.post("credentials/simpleenroll", GOOD).words)
    assert seen == {"EST_AUTH_SCHEME": "Basic", "EST_USERNAME": "estuser", "EST_PASSWORD": "estpwd"}


def test_handler_env_adds_variables(bench):
    assert variables(bench.post("own-words/simpleenroll", GOOD).words) == {
        "LESSON": "three",
        "WANTED": "WANTED|LESSON",
    }


def test_a_script_gets_only_the_variables_of_the_contract(bench):
    """Bash adds three names. None comes from the gateway's own environment."""
    seen = set(bench.post("names/simpleenroll", GOOD, headers={"Proxy": "evil", "X-Thing": "x"}).words.split())
    promised = {row.name for row in ENV_VARS if row.when == "always"}
    possible = {row.name for row in ENV_VARS}
    assert promised - {"<any>"} <= seen
    assert seen - possible == {"_", "PWD", "SHLVL"}


def test_a_script_gets_a_decoded_path_and_the_raw_query(bench):
    seen = variables(bench.post("/.well-known/est/reflect/simple%65nroll?a=%41&b", GOOD).words)
    assert seen["SCRIPT_NAME"] == "/.well-known/est/reflect/simpleenroll"
    assert seen["QUERY_STRING"] == "a=%41&b"
    assert seen["EST_LABEL"] == "reflect"
