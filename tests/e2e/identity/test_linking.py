"""Linking identity and POP over real connections (RFC 7030 3.5, RFC 7894, RFC 9266)."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from tests.kit.ca import Credential, certificate
from tests.kit.clients import (
    LINKING,
    OTP,
    REVOCATION,
    People,
    bound,
    digest_answer,
    digest_challenge,
    digest_file,
    linking,
    sha_user,
    text,
)
from tests.kit.connection import EST, V12, V13, Connection, Response, request
from tests.kit.csr import CHALLENGE_PASSWORD, challenge, csr
from tests.kit.der import (
    BMP,
    BOOLEAN,
    IA5,
    INTEGER,
    OCTETS,
    PRINTABLE,
    SEQUENCE,
    T61,
    UNIVERSAL,
    UTF8,
    VECTORS,
    attribute,
    oid,
    tlv,
)
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.keys import KEY
from tests.kit.scripts import REFLECT, REFLECTING, seen
from tests.kit.workspace import Workspace

VERSIONS = {"TLSv1.2": V12, "TLSv1.3": V13}
KINDS = {"TLSv1.2": "tls-unique", "TLSv1.3": "tls-exporter"}
both_versions = pytest.mark.parametrize("version", VERSIONS)
ALICE, BOB = "alice:secret", "bob:secret"
FOREIGN = "c29tZWJvZHkgZWxzZSdz"
CHALLENGE_OID, LINKING_OID = oid(CHALLENGE_PASSWORD), oid(LINKING)


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = lab.copy(tmp_path_factory.mktemp("linking"))
    made.script("reflect", REFLECT)
    made.script("one-time", '[[ ${EST_OTP-} == 90503846 ]] || { echo "wrong one-time password"; exit 77; }')
    logins = (ALICE, BOB, "estuser:estpwd")
    (made.path / "users.htpasswd").write_text("".join(sha_user(*login.split(":")) for login in logins))
    digest_file(made, *logins)
    return made


@pytest.fixture(scope="module")
def subjects(own: Workspace, people: People) -> dict[str, tuple[Path, Path]]:
    """Certificates of our CA with special subjects."""
    example = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")
    names = {
        "example": x509.Name([example, x509.NameAttribute(NameOID.COMMON_NAME, "a")]),
        "hostile": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a,O=Example")]),
        "escaping": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\\,O=Example")]),
    }
    made = {}
    for kind, name in names.items():
        made[kind] = Credential(certificate(people.ours, name), KEY).write(own.path, f"subject-{kind}")
    return made


def settings(own: Workspace, people: People, **pop: Any) -> dict[str, Any]:
    operation = {"handler": str(own.path / "reflect"), **REFLECTING}
    ours = people.certificates["ours"].certificate.fingerprint(hashes.SHA256()).hex()
    rules: list[dict[str, Any]] = [
        {"label": "must", "pop": "required"},
        {"label": "waive", "pop": "waived"},
        {"label": "ra", "ra": True, "pop": "waived"},
        {"label": "user", "user": "alice", "pop": "required"},
        {"label": "user", "user": "bob", "pop": "waived"},
        {"label": "operation", "operation": "simpleenroll", "pop": "required"},
        {"label": "subject", "subject": "CN=*,O=Example", "pop": "required"},
        {"label": "issuer", "issuer": "CN=Our CA", "pop": "required"},
        {"label": "fingerprint", "fingerprint": ours, "pop": "required"},
        {"label": "trust", "trust": "implicit", "pop": "required"},
        {"label": "address", "address": "127.0.0.2/32", "pop": "required"},
    ]
    labels: dict[str, Any] = {rule["label"]: {} for rule in rules}
    labels["otp"] = {"authorize": str(own.path / "one-time")}
    return {
        "client_auth": {
            **people.config,
            "digest": ["SHA-256", "MD5"],
            "digest_users": str(own.path / "users.htdigest"),
        },
        "callouts": {
            "authorize": None,
            "operations": {name: dict(operation) for name in ("simpleenroll", "simplereenroll", "serverkeygen")},
        },
        "labels": labels,
        "pop": {"rules": rules, **pop},
    }


@pytest.fixture(scope="module")
def gateway(own: Workspace, people: People) -> Iterator[Gateway]:
    with running_gateway(own, settings(own, people)) as running:
        yield running


def connect(gateway: Gateway, version: str, **options: Any) -> Connection:
    """With a client whose library knows the binding of this version."""
    return gateway.connect(version=VERSIONS[version], pyopenssl=version == "TLSv1.3", **options)


def enrol(
    connection: Connection, *attributes: bytes, path: str = "simpleenroll", login: str | None = ALICE
) -> Response:
    return connection.ask("POST", path, csr("device-1", *attributes), login=login)


# Right and wrong.


@both_versions
def test_the_connections_own_binding_links_the_csr(gateway, version):
    with connect(gateway, version) as connection:
        facts = seen(enrol(connection, challenge(bound(connection))))
        assert (facts["EST_POP"], facts["EST_TLS_BINDING"]) == ("linked", KINDS[version])
        assert facts["TLS_UNIQUE_SR"] == bound(connection)
    assert gateway.access[-1]["pop"] == "linked"


def one_off(value: str) -> list[str]:
    """All values that differ from this one in one character."""
    return [value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :] for at in range(len(value))]


@both_versions
def test_any_value_but_the_connections_binding_is_a_bad_request(gateway, version):
    with connect(gateway, version) as other:
        elsewhere = bound(other)
    with connect(gateway, version) as connection:
        right = bound(connection)
        raw = base64.b64decode(right)
        wrong = [
            elsewhere,
            *one_off(right),
            right + "A",
            right + "=",
            right + " ",
            " " + right,
            right + "\0",
            right + right,
            right[:-1],
            right[:4],
            right.rstrip("=") + "==",
            right.swapcase(),
            raw.hex(),
            "",
            "=",
            "!" * len(right),
            base64.urlsafe_b64encode(raw + b"\xfb\xff").decode(),
        ]
        for value in wrong:
            answer = enrol(connection, challenge(value))
            assert answer.status == 400, (right, value)
            # The words name the expected binding and the TLS version.
            assert f"challengePassword is not base64 of this TLS connection's {KINDS[version]} value" in answer.words
            assert version in answer.words
        assert seen(enrol(connection, challenge(right)))["EST_POP"] == "linked"  # and the connection survived


def test_a_binding_of_the_other_tls_version_is_a_bad_request(gateway):
    with connect(gateway, "TLSv1.2") as connection:
        assert enrol(connection, challenge(text(bytes(32)))).status == 400
    with gateway.connect(version=V13) as connection:
        # The standard library's "tls-unique" over 1.3 is the client's Finished message; no RFC defines it as a binding.
        assert enrol(connection, challenge(text(connection.tls_unique))).status == 400


@both_versions
def test_a_csr_without_a_binding_is_refused_only_where_required(gateway, version):
    with connect(gateway, version) as connection:
        assert seen(enrol(connection))["EST_POP"] == "absent"
        answer = enrol(connection, path="must/simpleenroll")
        assert answer.status == 400
        assert f"put base64 of this {version} connection's {KINDS[version]} value" in answer.words
        assert "challengePassword" in answer.words
        linked = enrol(connection, challenge(bound(connection)), path="must/simpleenroll")
        assert seen(linked)["EST_POP"] == "linked"


def test_tls_unique_of_the_standard_library_links_the_csr(gateway):
    with gateway.connect(version=V12) as connection:
        assert len(connection.tls_unique) == 12
        assert seen(enrol(connection, challenge(text(connection.tls_unique))))["EST_POP"] == "linked"


@pytest.mark.client("openssl")
def test_the_exporter_that_openssl_prints_links_the_csr(gateway):
    """RFC 9266: the gateway accepts the 32 bytes that `s_client` prints for the label."""
    command = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{gateway.port}", "-servername", "localhost"]
    command += [
        "-CAfile",
        str(gateway.lab.anchor),
        "-keymatexport",
        "EXPORTER-Channel-Binding",
        "-keymatexportlen",
        "32",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdin
        assert client.stdout
        try:
            for line in client.stdout:
                if found := re.match(rb"\s+Keying material: ([0-9A-F]{64})\s", line):
                    break
            else:
                raise AssertionError("no keying material")
            value = text(bytes.fromhex(found[1].decode()))
            body = csr("device-1", challenge(value))
            headers = {"Connection": "close"}
            client.stdin.write(request("POST", "simpleenroll", body, headers=headers, login=ALICE))
            client.stdin.flush()
            said = client.stdout.read()
        finally:
            client.kill()
    assert b"HTTP/1.1 200 " in said
    assert f"TLS_UNIQUE_SR={value}\n".encode() in said
    assert b"EST_POP=linked\n" in said


@both_versions
@pytest.mark.parametrize("scheme", ["Basic", "SHA-256", "MD5"])
def test_a_401_keeps_the_connection_and_its_binding(gateway, version, scheme):
    with connect(gateway, version) as connection:
        body = csr("device-1", challenge(bound(connection)))
        refused = connection.ask("POST", "simpleenroll", body)
        assert refused.status == 401
        assert refused.header("Connection") is None
        if scheme == "Basic":
            answer = connection.ask("POST", "simpleenroll", body, login=ALICE)
        else:
            header = digest_answer(digest_challenge(refused, scheme), ALICE)
            answer = connection.ask("POST", "simpleenroll", body, headers={"Authorization": header})
        facts = seen(answer)
    assert (facts["EST_POP"], facts["REMOTE_USER"]) == ("linked", "alice")
    assert facts["AUTH_TYPE"] == ("Basic" if scheme == "Basic" else "Digest")


# The attribute of the value, and its string type.

STRINGS = {
    "UTF8String": (UTF8, "utf-8"),
    "PrintableString": (PRINTABLE, "ascii"),
    "TeletexString": (T61, "latin-1"),
    "IA5String": (IA5, "ascii"),
    "UniversalString": (UNIVERSAL, "utf-32-be"),
    "BMPString": (BMP, "utf-16-be"),
}


@both_versions
def test_the_binding_may_have_any_asn1_string_type(gateway, version):
    with connect(gateway, version) as connection:
        for kind in (CHALLENGE_PASSWORD, LINKING):
            for tag, codec in STRINGS.values():
                linked = linking(bound(connection).encode(codec), tag, kind)
                assert seen(enrol(connection, linked))["EST_POP"] == "linked"
                linked = linking(FOREIGN.encode(codec), tag, kind)
                assert enrol(connection, linked).status == 400


@both_versions
def test_every_linking_attribute_that_is_present_must_match(gateway, version):
    """RFC 7894 4: either attribute is enough, but all that are present must match."""
    with connect(gateway, version) as connection:
        right = bound(connection)
        for path in ("simpleenroll", "must/simpleenroll"):
            assert seen(enrol(connection, linking(right), path=path))["EST_POP"] == "linked"
            assert seen(enrol(connection, linking(right), challenge(right), path=path))["EST_POP"] == "linked"
            for one, other in ((right, FOREIGN), (FOREIGN, right), (right, ""), ("", right)):
                assert enrol(connection, linking(one), challenge(other), path=path).status == 400
        answer = enrol(connection, linking(FOREIGN))
        assert "The CSR's estIdentityLinking is not base64" in answer.words


ODD = {
    "a BOOLEAN": lambda kind: [attribute(kind, tlv(BOOLEAN, b"\xff"))],
    "an INTEGER": lambda kind: [attribute(kind, tlv(INTEGER, b"\x01"))],
    "a NULL": lambda kind: [attribute(kind, tlv(5))],
    "OCTETS": lambda kind: [attribute(kind, tlv(OCTETS, b"abc"))],
    "a SEQUENCE": lambda kind: [attribute(kind, tlv(SEQUENCE, tlv(UTF8, b"abc")))],
    "a context tag": lambda kind: [attribute(kind, tlv(0x80, b"abc"))],
    "a long tag": lambda kind: [attribute(kind, b"\x1f\x81\x01\x03abc")],
    "an empty set": lambda kind: [attribute(kind)],
    "two values": lambda kind: [attribute(kind, tlv(UTF8, b"a"), tlv(UTF8, b"b"))],
    "one value twice": lambda kind: [attribute(kind, tlv(UTF8, b"a"), tlv(UTF8, b"a"))],
    "two attributes": lambda kind: [linking("a", kind=kind), linking("b", kind=kind)],
    "256 characters": lambda kind: [linking("A" * 256, kind=kind)],
    "100 kB": lambda kind: [linking("A" * 100_000, kind=kind)],
    "no set": lambda kind: [tlv(SEQUENCE, oid(kind), tlv(UTF8, b"a"))],
    "nothing after the type": lambda kind: [tlv(SEQUENCE, oid(kind))],
    "bad UTF-8": lambda kind: [linking(b"\xff\xfe", kind=kind)],
    "bad BMP": lambda kind: [linking(b"abc", BMP, kind=kind)],
    "a lone surrogate": lambda kind: [linking(b"\xd8\x00", BMP, kind=kind)],
    "bad Universal": lambda kind: [linking(b"\x00\x11\x00\x00", UNIVERSAL, kind=kind)],
    "Printable that is not ASCII": lambda kind: [linking(b"\xe9", PRINTABLE, kind=kind)],
}


@pytest.mark.parametrize("odd", ODD)
def test_malformed_attributes_are_a_bad_request(gateway, odd):
    """Also where foreign values are waived, and for the attributes that only scripts can check."""
    with gateway.connect(version=V12) as connection:
        for kind in (CHALLENGE_PASSWORD, LINKING, OTP, REVOCATION):
            for path in ("simpleenroll", "must/simpleenroll", "waive/simpleenroll", "otp/simpleenroll", "serverkeygen"):
                if path == "must/simpleenroll" and kind in (OTP, REVOCATION):
                    continue  # the missing link is found first
                answer = enrol(connection, *ODD[odd](kind), path=path)
                assert answer.status == 400, (path, kind)
                assert answer.words
    assert gateway.process.poll() is None


def test_a_right_binding_does_not_excuse_a_malformed_attribute(gateway):
    with gateway.connect(version=V12) as connection:
        right = challenge(bound(connection))
        assert enrol(connection, right, attribute(LINKING)).status == 400
        assert enrol(connection, right, right).status == 400
        assert seen(enrol(connection, right, attribute("1.2.3.4", tlv(5))))["EST_POP"] == "linked"


# Per client.


def test_an_ra_may_carry_a_foreign_value_only_where_a_rule_waives_it(gateway, people):
    """RFC 7030 3.7."""
    for kind, path, allowed in (
        ("our RA", "ra/simpleenroll", True),
        ("our RA", "simpleenroll", False),
        ("our RA", "must/simpleenroll", False),
        ("ours", "ra/simpleenroll", False),
        ("their RA", "ra/simpleenroll", False),
        ("theirs", "ra/simpleenroll", False),
    ):
        with gateway.connect(certificate=people.pairs[kind], version=V12) as connection:
            answer = enrol(connection, challenge(FOREIGN), path=path, login=None)
            if allowed:
                assert seen(answer)["EST_POP"] == "waived"
                assert seen(enrol(connection, path=path, login=None))["EST_POP"] == "absent"
                assert seen(enrol(connection, challenge(bound(connection)), path=path))["EST_POP"] == "linked"
            else:
                assert answer.status == 400, (kind, path)


def test_pop_rules_apply_by_user(gateway):
    with gateway.connect(version=V12) as connection:
        for login, absent, foreign in ((ALICE, 400, 400), (BOB, 200, 200), ("estuser:estpwd", 200, 400)):
            assert enrol(connection, path="user/simpleenroll", login=login).status == absent
            assert enrol(connection, challenge(FOREIGN), path="user/simpleenroll", login=login).status == foreign
        # A Digest user counts as well; a user with a wrong password does not.
        refused = enrol(connection, path="user/simpleenroll", login=None)
        header = digest_answer(digest_challenge(refused), ALICE, f"{EST}/user/simpleenroll")
        body = csr("device-1")
        assert connection.ask("POST", "user/simpleenroll", body, headers={"Authorization": header}).status == 400
        assert enrol(connection, path="user/simpleenroll", login="bob:wrong").status == 401


@pytest.mark.parametrize(
    ("path", "kind", "required"),
    [
        ("operation/simpleenroll", "ours", True),
        ("operation/simplereenroll", "ours", False),
        ("operation/serverkeygen", "ours", False),
        ("fingerprint/simpleenroll", "ours", True),
        ("fingerprint/simpleenroll", "our RA", False),
        ("issuer/simpleenroll", "ours", True),
        ("issuer/simpleenroll", "theirs", False),
        ("issuer/simpleenroll", "expired", False),
        ("trust/simpleenroll", "theirs", True),
        ("trust/simpleenroll", "ours", False),
        ("trust/simpleenroll", "none", False),
        ("subject/simpleenroll", "example", True),
        ("subject/simpleenroll", "ours", False),
        ("subject/simpleenroll", "hostile", False),
        ("subject/simpleenroll", "escaping", False),
    ],
)
def test_pop_rules_apply_by_operation_certificate_and_trust(gateway, people, subjects, path, kind, required):
    pair = subjects.get(kind) or people.pairs[kind]
    with gateway.connect(certificate=pair, version=V12) as connection:
        login = None if path.endswith("simplereenroll") else ALICE
        answer = enrol(connection, path=path, login=login)
        assert answer.status == (400 if required else 200), answer.body
        answer = enrol(connection, challenge(bound(connection)), path=path, login=login)
        assert seen(answer)["EST_POP"] == "linked"
        assert enrol(connection, challenge(FOREIGN), path=path, login=login).status == 400


@pytest.mark.parametrize(("source", "status"), [("127.0.0.1", 200), ("127.0.0.2", 400)])
def test_pop_rules_apply_by_address(gateway, source, status):
    with gateway.connect(source=source) as connection:
        assert enrol(connection, path="address/simpleenroll").status == status
        announced = CHALLENGE_OID in connection.ask("GET", "address/csrattrs").der
        assert announced is (status == 400)


# Attributes that only scripts can check (RFC 7894 3.1, 3.2).


def test_an_otp_in_the_csr_needs_a_script_that_verifies_it(gateway):
    """Without a script the CSR is refused. With one its verdict counts. The binding is checked in any case."""
    with gateway.connect(version=V12) as connection:
        otp = linking("90503846", kind=OTP)
        answer = enrol(connection, otp)
        assert (answer.status, "otpChallenge" in answer.words) == (400, True)
        assert seen(enrol(connection, otp, path="otp/simpleenroll"))["EST_OTP"] == "90503846"
        answer = enrol(connection, linking("90503847", kind=OTP), path="otp/simpleenroll")
        assert (answer.status, answer.words) == (403, "wrong one-time password")
        right, wrong = challenge(bound(connection)), challenge(FOREIGN)
        assert seen(enrol(connection, otp, right, path="otp/simpleenroll"))["EST_POP"] == "linked"
        assert enrol(connection, otp, wrong, path="otp/simpleenroll").status == 400
        assert enrol(connection, linking("0", kind=OTP), right, path="otp/simpleenroll").status == 403


def test_the_published_csr_with_an_otp_is_refused_without_a_script(gateway):
    """The vector of RFC 7894's test suite, over the wire."""
    body = (VECTORS / "altmod-rfc7894-csr-otpchallenge.b64").read_bytes()
    answer = gateway.post("simpleenroll", body, login=ALICE)
    assert (answer.status, "otpChallenge" in answer.words) == (400, True)


def test_a_revocation_challenge_is_passed_on(gateway):
    with gateway.connect(version=V12) as connection:
        facts = seen(enrol(connection, linking("pet's name: gerät", kind=REVOCATION)))
        assert facts["EST_REVOCATION_CHALLENGE"] == "pet's name: gerät"
        assert facts["EST_POP"] == "absent"
        assert "EST_OTP" not in facts


# serverkeygen.


def test_serverkeygen_verifies_a_binding_that_is_present(gateway):
    """RFC 7030 4.4.1: the CSR's signature does not count there; its binding does."""
    with gateway.connect(version=V12) as connection:
        for path in ("serverkeygen", "must/serverkeygen"):
            right = csr("device-1", challenge(bound(connection)))
            wrong = csr("device-1", challenge(FOREIGN))
            spoilt = right[:-1] + bytes([right[-1] ^ 1])
            for body, status in ((right, 200), (spoilt, 200), (wrong, 400)):
                assert connection.ask("POST", path, body, login=ALICE).status == status
        assert enrol(connection, path="serverkeygen").status == 200
        assert enrol(connection, path="must/serverkeygen").status == 400


def test_reenroll_verifies_and_requires_the_binding(gateway, people):
    with gateway.connect(version=V12, certificate=people.pairs["ours"]) as connection:
        right = challenge(bound(connection))
        for path in ("simplereenroll", "must/simplereenroll"):
            assert seen(enrol(connection, right, path=path, login=None))["EST_POP"] == "linked"
            assert enrol(connection, challenge(FOREIGN), path=path, login=None).status == 400
        assert enrol(connection, path="must/simplereenroll", login=None).status == 400


# csrattrs.


@pytest.mark.parametrize(
    ("label", "announced"),
    [
        ("", False),
        ("must", True),
        ("waive", False),
        ("user", True),
        ("operation", True),
        ("trust", True),
        ("ra", False),
    ],
)
def test_csrattrs_announces_linking_where_a_rule_requires_it(gateway, label, announced):
    answer = gateway.get(f"{label}/csrattrs" if label else "csrattrs")
    assert (CHALLENGE_OID in answer.der) is announced
    assert LINKING_OID not in answer.der


# The settings for TLS 1.3.


def test_tls13_finished_accepts_only_the_finished_message(own, people):
    with running_gateway(own, settings(own, people, tls13="finished")) as gateway:
        with gateway.connect(version=V13) as connection:
            # On 1.3 this is the client's Finished message, the same that libest sends.
            facts = seen(enrol(connection, challenge(text(connection.tls_unique)), path="must/simpleenroll"))
            assert (facts["EST_POP"], facts["EST_TLS_BINDING"]) == ("linked", "tls13-finished")
        with connect(gateway, "TLSv1.3") as connection:
            answer = enrol(connection, challenge(bound(connection)))
            assert (answer.status, "tls13-finished" in answer.words) == (400, True)
        with connect(gateway, "TLSv1.2") as connection:
            assert seen(enrol(connection, challenge(bound(connection))))["EST_TLS_BINDING"] == "tls-unique"


def test_tls13_off_refuses_every_binding_over_tls_1_3(own, people):
    with running_gateway(own, settings(own, people, tls13="off")) as gateway:
        with connect(gateway, "TLSv1.3") as connection:
            facts = seen(enrol(connection))
            assert facts["EST_POP"] == "absent"
            assert not {"TLS_UNIQUE_SR", "EST_TLS_BINDING"} & facts.keys()
            for attributes, path in (
                ([], "must/simpleenroll"),
                ([challenge(bound(connection))], "simpleenroll"),
                ([challenge(bound(connection))], "must/simpleenroll"),
                ([challenge("")], "simpleenroll"),
            ):
                answer = enrol(connection, *attributes, path=path)
                assert answer.status == 400
                assert "connect over TLS 1.2" in answer.words
                assert "over TLSv1.3" in answer.words
            assert seen(enrol(connection, challenge(FOREIGN), path="waive/simpleenroll"))["EST_POP"] == "waived"
        with connect(gateway, "TLSv1.2") as connection:
            linked = enrol(connection, challenge(bound(connection)), path="must/simpleenroll")
            assert seen(linked)["EST_TLS_BINDING"] == "tls-unique"


def test_est_identity_linking_can_be_required_by_default(own, people):
    config = settings(own, people, default="required", attribute="estIdentityLinking")
    with running_gateway(own, config) as gateway:
        for label in ("csrattrs", "must/csrattrs"):
            assert LINKING_OID in gateway.get(label).der
        for label in ("waive/csrattrs",):
            assert LINKING_OID not in gateway.get(label).der
        with connect(gateway, "TLSv1.3") as connection:
            answer = enrol(connection)
            assert (answer.status, "into the CSR's estIdentityLinking" in answer.words) == (400, True)
            for linked in (linking(bound(connection)), challenge(bound(connection))):
                assert seen(enrol(connection, linked))["EST_POP"] == "linked"


def test_csrattrs_announces_linking_even_if_the_handler_does_not(own, people):
    """RFC 7030 4.5.2: the gateway adds it to the script's output."""
    silent, wishes = own.script("silent", "exit 0"), own.script("wishes", "echo MAA=")
    config = settings(own, people)
    for name, script in (("must", silent), ("user", wishes), ("waive", silent), ("ra", wishes)):
        config["labels"][name] = {"operations": {"csrattrs": {"handler": str(script)}}}
    with running_gateway(own, config) as gateway:
        assert gateway.get("must/csrattrs").der == tlv(SEQUENCE, CHALLENGE_OID)
        assert gateway.get("user/csrattrs").der == tlv(SEQUENCE, CHALLENGE_OID)
        assert gateway.get("waive/csrattrs").status == 204
        assert gateway.get("ra/csrattrs").der == b"\x30\x00"
