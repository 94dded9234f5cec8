"""The names in a renewal: the names of the certificate, or new ones where the configuration allows it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from tests.kit.ca import name, pem
from tests.kit.cases import some
from tests.kit.clients import CHANGE, People
from tests.kit.connection import V13, Response
from tests.kit.csr import csr, san
from tests.kit.der import BMP, CN, PRINTABLE, SEQUENCE, UTF8, attribute, dn, tlv
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.keys import KEY
from tests.kit.processes import run
from tests.kit.scripts import REFLECT, REFLECTING, policy, seen
from tests.kit.workspace import Workspace

BODY = csr("device-1")
ISSUING = ("simpleenroll", "simplereenroll", "serverkeygen")
PYTHON = {"handlers": "handlers/python", "authorize": "handlers/python/authorize"}


@pytest.fixture(scope="module")
def own(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = lab.copy(tmp_path_factory.mktemp("renewals"))
    made.script("reflect", REFLECT)
    return made


def nameless(own: Workspace) -> Path:
    """The same CA with an openssl.cnf that permits subjects without a common name."""
    path = own.path / "nameless-ca"
    shutil.copytree(own.ca, path)
    rules = (path / "openssl.cnf").read_text()
    changed = rules.replace("commonName       = supplied\nserialNumber", "commonName       = optional\nserialNumber")
    assert changed != rules
    (path / "openssl.cnf").write_text(changed)
    return path


@pytest.fixture(scope="module")
def gateway(own: Workspace, people: People) -> Iterator[Gateway]:
    reflect = {"handler": str(own.path / "reflect"), **REFLECTING}
    labels: dict[str, Any] = {"seen": {"operations": {operation: dict(reflect) for operation in ISSUING}}}
    labels["change"] = {"change_subject_name": True, "operations": {"serverkeygen": {"enabled": True}}}
    labels["seen-change"] = {**labels["seen"], "change_subject_name": True}
    both = {"handler": str(own.path / "handlers/examples/short-lived")}
    labels["change-short"] = {"change_subject_name": True, "operations": dict.fromkeys(ISSUING[:2], both)}
    python = {name: str(own.path / path) for name, path in PYTHON.items()}
    labels["change-python"] = {**labels["change"], **python}
    labels["change-nameless"] = {**labels["change"], "ca_dir": str(nameless(own))}
    labels["look-up"] = {"renew_without_certificate": True, "operations": {"simplereenroll": {"requires": "any"}}}
    with running_gateway(own, {"client_auth": people.config, "labels": labels}) as running:
        yield running


# simplereenroll: what it renews (RFC 7030 4.2.2).


def renewal(gateway: Gateway, pair: tuple[Path, Path], body: bytes, label: str = "") -> Response:
    path = f"{label}/simplereenroll" if label else "simplereenroll"
    return gateway.post(path, body, certificate=pair, login=None)


def printable(text: str) -> bytes:
    return dn((CN, PRINTABLE, text.encode()))


SAN = [x509.DNSName("a.example"), x509.DNSName("b.example"), x509.RFC822Name("d@a.example")]


def test_reenroll_compares_names_as_names_not_as_bytes(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "Device One", *SAN)
    for subject, names in (
        ("Device One", SAN),
        (printable("Device One"), SAN),
        ("dEVICE oNE", SAN),
        (" Device   One ", SAN),
        (dn((CN, BMP, "device one".encode("utf-16-be"))), SAN),
        ("Device One", list(reversed(SAN))),
        ("Device One", [x509.DNSName("A.EXAMPLE"), *SAN[1:]]),
    ):
        body = csr(subject, san(*names), key=KEY)
        assert renewal(gateway, pair, body).status == 200, (subject, names)
    for subject, names, words in (
        ("Device Two", SAN, "the CSR's subject is CN=Device Two, the certificate's is CN=Device One"),
        ("DeviceOne", SAN, "the CSR's subject"),
        (name("CN=Device One,O=x").public_bytes(), SAN, "the CSR's subject"),
        ("Device One", SAN[1:], "the CSR lacks DNS:a.example"),
        ("Device One", [*SAN, x509.DNSName("c.example")], "the CSR adds DNS:c.example"),
        ("Device One", [*SAN[:2], x509.RFC822Name("D@a.example")], "email:D@a.example"),
        ("Device One", [], "the CSR lacks"),
    ):
        attributes = [san(*names)] if names else []
        answer = renewal(gateway, pair, csr(subject, *attributes, key=KEY))
        assert answer.status == 403
        assert words in answer.words


def test_a_third_partys_certificate_is_not_renewed(gateway, people):
    for kind in ("theirs", "their RA"):
        answer = gateway.post("simplereenroll", BODY, certificate=people.pairs[kind])
        assert (answer.status, "yours is another's" in answer.words) == (403, True)


def test_scripts_are_told_whether_a_reenroll_renews_or_rekeys(gateway, tmp_path):
    pair = enrol(gateway, tmp_path)
    for key, word in ((KEY, "renew"), (ec.generate_private_key(ec.SECP256R1()), "rekey")):
        facts = seen(renewal(gateway, pair, csr("device-1", key=key), "seen"))
        assert facts["EST_REENROLL"] == word
        assert facts["EST_RENEW_CERT_FILE"].endswith("/renew.pem")
        issued = renewal(gateway, pair, csr("device-1", key=key)).certificate
        assert issued.public_key() == key.public_key()
    enrolled = seen(gateway.post("seen/simpleenroll", BODY))
    assert not {"EST_REENROLL", "EST_RENEW_CERT_FILE"} & enrolled.keys()


# Without a TLS certificate.


def test_renewal_by_password_needs_the_setting_and_a_known_certificate(gateway, own, tmp_path):
    pair = enrol(gateway, tmp_path, "looked-up", *SAN)
    body = csr(printable("LOOKED-UP"), san(*reversed(SAN)), key=KEY)
    answer = gateway.post("simplereenroll", body)
    assert (answer.status, "needs a TLS client certificate" in answer.words) == (403, True)
    issued = gateway.post("look-up/simplereenroll", body).certificate
    assert issued.public_key() == KEY.public_key()
    for other in (csr("looked", key=KEY), csr("looked-up", key=KEY), csr("looked-up", san(SAN[0]), key=KEY)):
        answer = gateway.post("look-up/simplereenroll", other)
        assert (answer.status, "is known here" in answer.words) == (403, True)
    assert gateway.post("look-up/simplereenroll", body, login=None).status == 401
    assert gateway.post("look-up/simplereenroll", body, login="estuser:wrong").status == 401
    # Revoked ones are not renewed.
    environment = {"EST_CA_DIR": str(own.ca), "PATH": "/usr/bin:/bin"}
    (tmp_path / "issued.pem").write_bytes(pem(issued))
    for certificate in (pair[0], tmp_path / "issued.pem"):
        command = ["openssl", "ca", "-config", own.ca / "openssl.cnf", "-revoke", certificate]
        run(*command, cwd=own.ca, env=environment)
    assert gateway.post("look-up/simplereenroll", body).status == 403


# ChangeSubjectName (RFC 6402 2.8).


def change(subject: bytes | None = None, *names: x509.GeneralName) -> bytes:
    san_der = x509.SubjectAlternativeName(names).public_bytes()[2:] if names else b""
    return attribute(CHANGE, tlv(SEQUENCE, subject or b"", tlv(0xA1, san_der) if names else b""))


def cn(text: str) -> bytes:
    return dn((CN, UTF8, text.encode()))


def names_of(certificate: x509.Certificate) -> tuple[str, list[x509.GeneralName]]:
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        found = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        found = []
    return str(common.value), found


def test_change_subject_name_replaces_the_names_where_allowed(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "old", SAN[0])

    def asked(*attributes: bytes, label: str = "change") -> Response:
        return renewal(gateway, pair, csr("old", san(SAN[0]), *attributes, key=KEY), label)

    assert names_of(asked(change(cn("new"), SAN[1], SAN[2])).certificate) == ("new", SAN[1:])
    assert names_of(asked(change(cn("new"))).certificate) == ("new", [])  # absent means empty
    assert names_of(asked().certificate) == ("old", SAN[:1])
    without = asked(change(None, SAN[1]))  # an empty subject, which this CA's policy refuses
    assert (without.status, "commonName" in without.words) == (403, True)
    assert asked(change(cn("new")), label="").status == 400  # not allowed here
    assert "leave ChangeSubjectName out" in asked(change(cn("new")), label="").words
    for odd in (change(cn("")), change(cn("x" * 65)), attribute(CHANGE), change(cn("a"), *SAN)[:-1] + b"\0"):
        assert asked(odd).status == 400
    other = renewal(gateway, pair, csr("new", change(cn("newer")), key=KEY), "change")
    assert (other.status, "subject" in other.words) == (403, True)


def test_policies_and_scripts_see_the_new_names(gateway, tmp_path, own):
    """Otherwise a request to change names would bypass a policy on names."""
    pair = enrol(gateway, tmp_path, "old", SAN[0])
    body = csr("old", san(SAN[0]), change(cn("new"), SAN[1]), key=KEY)
    facts = seen(renewal(gateway, pair, body, "seen-change"))
    assert facts["EST_CSR_SUBJECT"] == "CN=new"
    assert (facts["EST_CSR_SAN_0"], "EST_CSR_SAN_1" in facts) == ("DNS:b.example", False)
    assert facts["EST_CHANGE_SUBJECT"] == "/2.5.4.3=new"
    with policy(own, "Only RAs may name others"):
        assert renewal(gateway, pair, body, "seen-change").status == 403
    assert "EST_CHANGE_SUBJECT" not in seen(renewal(gateway, pair, csr("old", SAN[0]), "seen-change"))


HOSTILE = [
    "a/b",
    "a/CN=root",
    "a+O=b",
    "a,O=b",
    "a=b",
    "back\\slash",
    "trailing\\",
    "#hash",
    "double\"and'single",
    "$(id) `id` ${HOME} ; & | > <",
    "üñí 漢字 🗝",
    "-subj",
    " lead and trail ",
    "%n%s",
    "//",
]


def issued_by(answer: Response, operation: str) -> x509.Certificate:
    assert answer.status == 200, answer.body
    if operation != "serverkeygen":
        return answer.certificate
    part = answer.body.split(b"certs-only")[1].split(b"\r\n\r\n")[1].split(b"\r\n--")[0]
    (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(part))
    return certificate


@pytest.mark.parametrize(
    ("label", "operation"),
    some(
        [(label, operation) for label in ("change", "change-python") for operation in ISSUING]
        + [("change-short", operation) for operation in ISSUING[:2]],
        2,
    ),
)
def test_hostile_new_names_are_issued_unchanged(gateway, tmp_path, label, operation):
    """By every shipped handler that issues."""
    pair = enrol(gateway, tmp_path, "old")
    with gateway.connect(certificate=pair) as connection:
        for text in HOSTILE:
            body = csr("old", change(cn(text), SAN[0]), key=KEY)
            certificate = issued_by(connection.ask("POST", f"{label}/{operation}", body), operation)
            assert names_of(certificate) == (text, SAN[:1])
            assert len(certificate.subject.rdns) == 1


@pytest.mark.parametrize("label", ["change-nameless", "change-python"])
def test_a_change_without_a_subject_asks_for_an_empty_one(gateway, tmp_path, label):
    """RFC 6402 2.8. Each CA decides whether it accepts an empty subject; the Python set refuses it."""
    pair = enrol(gateway, tmp_path, "old", SAN[0])
    body = csr("old", san(SAN[0]), change(None, SAN[1]), key=KEY)
    answer = renewal(gateway, pair, body, label)
    if label == "change-python":
        assert (answer.status, "commonName" in answer.words) == (403, True)
        return
    found = answer.certificate
    assert found.subject == x509.Name([])
    assert list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [SAN[1]]


def test_a_change_without_alternative_names_removes_them(gateway, tmp_path):
    """The alternative names in the CSR itself are the old ones."""
    pair = enrol(gateway, tmp_path, "old", *SAN)
    body = csr("old", san(*SAN), change(cn("new")), key=KEY)
    for label in ("change", "change-short", "change-python", "change-nameless"):
        assert names_of(renewal(gateway, pair, body, label).certificate) == ("new", []), label


def test_a_new_subject_may_have_many_and_multi_valued_rdns(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "old")
    wanted = x509.Name.from_rfc4514_string("CN=a\\+b+OU=c\\,d,O=e/f,C=DE")
    body = csr("old", change(wanted.public_bytes()), key=KEY)
    assert renewal(gateway, pair, body, "change").certificate.subject == wanted


def test_a_third_partys_certificate_may_enrol_for_new_names(gateway, people):
    """RFC 7030 4.2.1: a third party's certificate on an enrol."""
    body = csr("device-1", change(cn("new"), SAN[0]))
    with gateway.connect(certificate=people.pairs["theirs"], version=V13) as connection:
        issued = connection.ask("POST", "change/simpleenroll", body).certificate
        assert names_of(issued) == ("new", SAN[:1])
        # The CSR itself must still have the names of the certificate.
        other = connection.ask("POST", "change/simpleenroll", csr("device-2", change(cn("new"))))
        assert (other.status, "keeps the certificate's own names" in other.words) == (403, True)
    answer = gateway.post("change/simpleenroll", body)
    assert (answer.status, "needs a TLS client certificate" in answer.words) == (403, True)


def test_a_name_with_a_control_character_is_a_bad_request(gateway, tmp_path):
    """A policy checks the end of such a name, but some relying parties read only its beginning."""
    pair = enrol(gateway, tmp_path, "old")
    for bad in (x509.DNSName("evil.example\0.example.org"), x509.RFC822Name("a\n@b"), x509.DNSName("a\x7f.example")):
        for wish in (san(bad), change(cn("new"), bad)):
            answer = renewal(gateway, pair, csr("old", wish, key=KEY), "change")
            assert (answer.status, "control character" in answer.words) == (400, True)
            assert gateway.post("simpleenroll", csr("old", wish)).status == 400
