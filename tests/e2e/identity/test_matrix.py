"""Access: every kind of certificate with every kind of credentials, against every requirement.

The tables were written by hand from RFC 7030 (3.2.3, 3.3.2, 3.7, 4.1.2, 4.2.2, 4.5) and RFC 9110 (15.5.2), not from
the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.kit.ca import CLIENT_AUTH, CMC_RA, DAY, NOW, SERVER_AUTH, root
from tests.kit.clients import People, sha_user
from tests.kit.connection import V12, V13, Connection, Response, basic
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.scripts import REFLECT, REFLECTING, seen
from tests.kit.workspace import Workspace

BASIC = 'Basic realm="estrealm"'

CREDENTIALS = {
    "none": None,
    "good": basic("estuser:estpwd"),
    "bad": basic("estuser:wrong"),
    "malformed": "Basic !estuser:estpwd!",
}

# The status by the operation's requirement and by whether the client has a certificate that verifies.
# 200: the request goes on.  401: try a password.  403: a password would not help.  Credentials that are sent are
# always checked.  Malformed ones neither satisfy a requirement nor skip one.
TABLE = """
requires  certificate   none  good  bad   malformed
none      no            200   200   200   200
none      yes           200   200   200   200
any       no            401   200   401   401
any       yes           200   200   401   401
tls       no            403   403   401   401
tls       yes           200   200   401   401
http      no            401   200   401   401
http      yes           401   200   401   401
both      no            403   403   401   401
both      yes           401   200   401   401
"""

# For each certificate: whether it verifies, the kind of anchor, and whether it makes an RA (3.7: only ours).
WORTH = """
certificate  verified  trust     ra
none         no        none      0
ours         yes       explicit  0
theirs       yes       implicit  0
unknown      no        none      0
expired      no        none      0
revoked      no        none      0
our RA       yes       explicit  1
their RA     yes       implicit  0
"""

FAULTS = {"unknown": "unable to get local issuer certificate", "expired": "expired", "revoked": "revoked"}

OPERATIONS = ("cacerts", "csrattrs", "simpleenroll", "simplereenroll", "serverkeygen", "fullcmc")
REQUIREMENTS = ("none", "any", "tls", "http", "both")


def rows(table: str) -> list[dict[str, str]]:
    head, *lines = [re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


WORTHS = {row["certificate"]: row for row in rows(WORTH)}
ANSWERS = {(row["requires"], row["certificate"], sent): int(row[sent]) for row in rows(TABLE) for sent in CREDENTIALS}


def expected(operation: str, requires: str, kind: str, sent: str) -> int:
    worth = WORTHS[kind]
    status = ANSWERS[requires, worth["verified"], sent]
    if status == 200 and operation == "simplereenroll" and worth["trust"] != "explicit":
        return 403  # 4.2.2: what is renewed is a certificate of this CA
    return status


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = lab.copy(tmp_path_factory.mktemp("matrix"))
    made.script("reflect", REFLECT)
    (made.path / "users.htpasswd").write_text(sha_user("estuser", "estpwd"))
    return made


def settings(own: Workspace, people: People, **client_auth: Any) -> dict[str, Any]:
    """A label for each requirement, under which all operations have it."""
    operation = {"handler": str(own.path / "reflect"), **REFLECTING}
    return {
        "client_auth": {**people.config, "guess_delay": 0, **client_auth},
        "callouts": {"authorize": None, "operations": {name: dict(operation) for name in OPERATIONS}},
        "labels": {
            word: {"operations": {name: {"requires": word} for name in OPERATIONS}} for word in REQUIREMENTS
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def gateway(own: Workspace, people: People) -> Iterator[Gateway]:
    with running_gateway(own, settings(own, people)) as running:
        yield running


def ask(connection: Connection, operation: str, label: str | None, sent: str) -> Response:
    path = f"{label}/{operation}" if label else operation
    headers = {"Authorization": CREDENTIALS[sent]}
    if operation in ("cacerts", "csrattrs"):
        return connection.ask("GET", path, headers=headers)
    if operation == "fullcmc":
        headers["Content-Type"] = "application/pkcs7-mime"
    return connection.ask("POST", path, csr("device-1"), headers=headers)


def check_refusal(answer: Response) -> None:
    """Every 401 has one challenge and nothing to read, every 403 says why and has no challenge."""
    challenges = [value for name, value in answer.headers if name.lower() == "www-authenticate"]
    if answer.status == 401:
        assert challenges == [BASIC]
        assert answer.body == b""
    else:
        assert challenges == []
        assert len(answer.words) > 20


def check_facts(answer: Response, kind: str, sent: str, requires: str) -> None:
    """The script gets only verified facts about the client."""
    facts, worth = seen(answer), WORTHS[kind]
    user = sent == "good" and requires != "none"
    methods = [name for name, has in (("tls", worth["verified"] == "yes"), ("http", user)) if has]
    assert facts["EST_AUTH_METHODS"] == "+".join(methods)
    assert facts["EST_CLIENT_TRUST"] == worth["trust"]
    assert facts["EST_CLIENT_IS_RA"] == worth["ra"]
    assert facts["SSL_CLIENT_VERIFY"] == ("SUCCESS" if worth["verified"] == "yes" else "NONE")
    assert facts.get("REMOTE_USER") == ("estuser" if user else None)
    assert ("SSL_CLIENT_CERT" in facts) == (worth["verified"] == "yes")
    assert not {"EST_USERNAME", "EST_PASSWORD"} & facts.keys()


def test_the_tables_have_every_combination():
    assert set(ANSWERS) == {(r, c, s) for r in REQUIREMENTS for c in ("no", "yes") for s in CREDENTIALS}
    assert len(WORTHS) == 8


@pytest.mark.parametrize("requires", REQUIREMENTS)
@pytest.mark.parametrize("kind", WORTHS)
def test_every_certificate_and_credential_gets_the_tables_status(gateway, people, kind, requires):
    """Unverified certificates count as none; all cells of one certificate share its connection."""
    version = V12 if kind in ("their RA", "revoked", "expired") else V13
    wrong = []
    with gateway.connect(certificate=people.pairs[kind], version=version) as connection:
        for operation in OPERATIONS:
            for sent in CREDENTIALS:
                answer = ask(connection, operation, requires, sent)
                if answer.status != expected(operation, requires, kind, sent):
                    wrong.append((operation, sent, answer.status))
                elif answer.status == 200:
                    check_facts(answer, kind, sent, requires)
                else:
                    check_refusal(answer)
    assert not wrong


# The RFC's requirements for a server without settings: /cacerts and /csrattrs need no login, a certificate
# or a password is enough to enrol, a certificate is needed to renew.
BY_DEFAULT = {
    "cacerts": "none",
    "csrattrs": "none",
    "simpleenroll": "any",
    "simplereenroll": "tls",
    "serverkeygen": "any",
    "fullcmc": "any",
}


@pytest.mark.parametrize("kind", WORTHS)
def test_default_requirements_are_the_rfcs(gateway, people, kind):
    with gateway.connect(certificate=people.pairs[kind]) as connection:
        for operation, requires in BY_DEFAULT.items():
            for sent in CREDENTIALS:
                answer = ask(connection, operation, None, sent)
                assert answer.status == expected(operation, requires, kind, sent), (operation, sent)


@pytest.mark.parametrize("kind", ["ours", "unknown", "expired", "revoked"])
@pytest.mark.parametrize("version", [V12, V13], ids=["1.2", "1.3"])
def test_an_unverified_certificate_cannot_renew_in_either_tls_version(gateway, people, kind, version):
    with gateway.connect(certificate=people.pairs[kind], version=version) as connection:
        assert ask(connection, "cacerts", None, "none").status == 200
        answer = ask(connection, "simplereenroll", None, "none")
        assert answer.status == (200 if kind == "ours" else 403)
        if kind in FAULTS:
            assert FAULTS[kind] in answer.words  # the words say why


def test_wrong_credentials_are_refused_despite_a_good_certificate(gateway, people):
    """Credentials that are sent are checked. The access line names verified users only."""
    with gateway.connect(certificate=people.pairs["ours"]) as connection:
        assert ask(connection, "simpleenroll", None, "bad").status == 401
    assert "user" not in gateway.access[-1]


# unknown_certificates: pass.


@pytest.mark.parametrize("kind", FAULTS)
def test_pass_shows_unverified_certificates_to_scripts_as_failed(own, people, kind):
    with running_gateway(own, settings(own, people, unknown_certificates="pass")) as gateway:
        with gateway.connect(certificate=people.pairs[kind]) as connection:
            for requires in REQUIREMENTS:
                for sent in CREDENTIALS:
                    answer = ask(connection, "simpleenroll", requires, sent)
                    assert answer.status == ANSWERS[requires, "no", sent], (requires, sent)
                    if answer.status == 200:
                        facts = seen(answer)
                        assert facts["SSL_CLIENT_VERIFY"].startswith("FAILED:")
                        assert FAULTS[kind] in facts["SSL_CLIENT_VERIFY"]
                        assert (facts["EST_CLIENT_TRUST"], facts["EST_CLIENT_IS_RA"]) == ("none", "0")
                        assert "tls" not in facts["EST_AUTH_METHODS"]
                        assert facts["SSL_CLIENT_S_DN"] == "CN=device-1"
                        assert facts["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
            assert ask(connection, "simplereenroll", "none", "none").status == 403
        with gateway.connect(certificate=people.pairs["ours"]) as connection:
            assert seen(ask(connection, "simplereenroll", None, "none"))["SSL_CLIENT_VERIFY"] == "SUCCESS"


# unknown_certificates: reject.


def test_reject_refuses_unverified_certificates_in_the_handshake(own, people):
    with running_gateway(own, settings(own, people, unknown_certificates="reject")) as gateway:
        for kind, pair in people.pairs.items():
            for version in (V12, V13):
                if kind in FAULTS:
                    before = len(gateway.log)
                    # In TLS 1.3 the client sees the alert at its first read.
                    with (
                        pytest.raises((OSError, AssertionError)),
                        gateway.connect(certificate=pair, version=version) as connection,
                    ):
                        ask(connection, "cacerts", None, "none")
                    line = gateway.wait_for("TLS handshake failed", after=before)
                    assert FAULTS[kind] in line["reason"]
                else:
                    with gateway.connect(certificate=pair, version=version) as connection:
                        assert ask(connection, "cacerts", None, "none").status == 200
                        answer = ask(connection, "simpleenroll", "tls", "none")
                        assert answer.status == ANSWERS["tls", WORTHS[kind]["verified"], "none"]
        assert not [line for line in gateway.access if line["status"] >= 500]


# Anchors and lists.


def test_third_parties_are_off_by_default(own, people):
    with running_gateway(own, settings(own, people, implicit=[], crls=[])) as gateway:
        for kind in ("theirs", "their RA"):
            with gateway.connect(certificate=people.pairs[kind]) as connection:
                assert ask(connection, "simpleenroll", "any", "none").status == 401
                facts = seen(ask(connection, "simpleenroll", "any", "good"))
                assert (facts["EST_CLIENT_TRUST"], facts["EST_CLIENT_IS_RA"]) == ("none", "0")


@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_changed_crl_applies_after_a_reload(own, people, whose):
    ca = people.ours if whose == "ours" else people.theirs
    path = own.path / "later.crl"
    path.write_bytes(ca.crl().public_bytes(Encoding.PEM))
    config = settings(own, people, crls=[str(path)])
    with running_gateway(own, config) as gateway:

        def status() -> int:
            with gateway.connect(certificate=people.pairs[whose]) as connection:
                return ask(connection, "simpleenroll", "tls", "none").status

        assert status() == 200
        path.write_bytes(ca.crl(people.certificates[whose]).public_bytes(Encoding.PEM))
        assert status() == 200
        with gateway.connect(certificate=people.pairs[whose]) as before:
            assert gateway.reload()["event"] == "reloaded"
            assert status() == 403
            # An open connection keeps the verdict of its handshake.
            assert ask(before, "cacerts", None, "none").status == 200
        path.write_bytes(ca.crl(starts=NOW - 9 * DAY, ends=NOW - DAY).public_bytes(Encoding.PEM))
        assert gateway.reload()["event"] == "reloaded"
        assert status() == 403  # no certificate verifies under an expired CRL


def test_all_anchors_of_one_name_are_explicit(own, people, tmp_path):
    """RFC 7030 4.1.3: one name, several keys, all of them explicit anchors."""
    older, newer = root("Our CA"), root("Our CA")
    bag = tmp_path / "generations.pem"
    bag.write_bytes(b"".join(ca.certificate.public_bytes(Encoding.PEM) for ca in (older, newer)))
    with running_gateway(own, settings(own, people, explicit=[str(bag)], crls=[])) as gateway:
        for number, ca in enumerate((older, newer)):
            pair = ca.issue("device-1").write(tmp_path, f"g{number}")
            with gateway.connect(certificate=pair) as connection:
                assert seen(ask(connection, "simplereenroll", None, "none"))["EST_CLIENT_TRUST"] == "explicit"


@pytest.mark.parametrize(("eku", "status"), [("none", 200), ("client", 200), ("server", 403), ("ra", 403)])
def test_a_client_certificate_needs_client_auth_or_no_usage_at_all(gateway, people, tmp_path, eku, status):
    """An RA needs clientAuth, too."""
    usages = {"none": None, "client": (CLIENT_AUTH,), "server": (SERVER_AUTH,), "ra": (CMC_RA,)}
    pair = people.ours.issue("device-1", eku=usages[eku]).write(tmp_path, "some")
    with gateway.connect(certificate=pair) as connection:
        assert ask(connection, "simplereenroll", None, "none").status == status


def test_where_no_passwords_are_taken_the_answer_is_403_not_401(own, people):
    """RFC 9110 15.5.2: a 401 must have a challenge, so the answer is a 403 that says why."""
    with running_gateway(own, settings(own, people, users=None)) as gateway:
        with gateway.connect() as connection:
            for requires in ("any", "http"):
                answer = ask(connection, "simpleenroll", requires, "none")
                assert (answer.status, "Passwords are not taken here" in answer.words) == (403, True)
        with gateway.connect(certificate=people.pairs["ours"]) as connection:
            assert ask(connection, "simpleenroll", "any", "none").status == 200
            assert ask(connection, "simpleenroll", "any", "good").status == 403
