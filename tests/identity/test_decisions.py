"""Scripts that decide: is this password right, may this client do this; and what a renewal may be about."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from tests import pki
from tests.identity.kit import CHANGE, REFLECT, REFLECTING, People, answered, digest_file, seen, sha_user
from tests.support import KEY, LOGIN, V12, V13, Gateway, Lab, Response, basic, csr, enrol, pem, run, running_gateway

BODY = pki.csr("device-1")
ISSUING = ("simpleenroll", "simplereenroll", "serverkeygen")
AUTHORIZE = "handlers/openssl/authorize"

# How a decision can end, and what the client then sees (contract, "Exit status").
ENDS = {
    "77": ("echo 'not today'; exit 77", 401, 403),
    "65": ("echo 'no serial number'; exit 65", 500, 400),
    "69": ("echo 'the directory sleeps'; exit 69", 503, 503),
    "75": ("echo 'wait'; exit 75", 503, 202),
    "64": ("exit 64", 500, 500),
    "1": ("exit 1", 500, 500),
    "2": ("exit 2", 500, 500),
    "127": ("no-such-program", 500, 500),
    "signal": ("kill -SEGV $$", 500, 500),
    "hang": ("sleep 60", 504, 504),
    "flood": ("head -c 9000000 /dev/zero", 500, 500),
    "lie": ("printf 'Status: 200\\n\\n'; exit 1", 500, 500),
}
WORDS = {"65": "no serial number", "69": "the directory sleeps", "77": "not today"}


@pytest.fixture(scope="module")
def own(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    made = lab.copy(tmp_path_factory.mktemp("decisions"))
    made.script("reflect", REFLECT)
    (made.path / "users.htpasswd").write_text(sha_user("estuser", "estpwd") + sha_user("alice", "secret"))
    return made


@pytest.fixture(scope="module")
def people(own: Lab) -> People:
    return People(own)


@pytest.fixture(scope="module")
def gateway(own: Lab, people: People) -> Iterator[Gateway]:
    """Labels named after what decides there."""
    reflect = {"handler": str(own.path / "reflect"), **REFLECTING}
    shipped = str(own.path / "handlers/examples/one-time-password")
    labels: dict[str, Any] = {"open": {"authorize": None, "operations": {"simpleenroll": reflect}}}
    for name, (script, _, _) in ENDS.items():
        path = str(own.script(f"ends/{name}", script))
        marker = str(own.script(f"ends/handler-{name}", f"touch {own.path}/ran-{name}"))
        handlers = {operation: {"handler": marker, **REFLECTING} for operation in ISSUING}
        labels[f"may-{name}"] = {"authorize": path, "operations": handlers}
        labels[f"is-{name}"] = {"authenticate": path, "operations": handlers}
    environment = own.script("ends/environment", 'env -0 >"$EST_TMPDIR/seen"')
    shown = own.script("ends/shown", 'tr "\\0\\n" "\\n~" <"$EST_TMPDIR/seen"')
    enrolling = {"simpleenroll": {"handler": str(shown), **REFLECTING}}
    labels["environment"] = {"authorize": str(environment), "operations": enrolling}
    labels["claims"] = {"authorize": None, "authenticate": str(environment), "operations": enrolling}
    labels["once"] = {"authenticate": shipped, "operations": {"simpleenroll": {**reflect, "requires": "http"}}}
    labels["file-again"] = {"authenticate": shipped, "operations": {"simpleenroll": {"authenticate": None, **reflect}}}
    labels["seen"] = {"operations": {operation: dict(reflect) for operation in ISSUING}}
    labels["change"] = {"change_subject_name": True, "operations": {"serverkeygen": {"enabled": True}}}
    labels["seen-change"] = {**labels["seen"], "change_subject_name": True}
    labels["look-up"] = {"renew_without_certificate": True, "operations": {"simplereenroll": {"requires": "any"}}}
    config = {
        "client_auth": {
            **people.config,
            "digest": ["MD5"],
            "digest_users": str(digest_file(own, "estuser:estpwd")),
        },
        "callouts": {"decision_timeout": 1.0, "max_stdout": 100_000},
        "labels": labels,
    }
    with running_gateway(own, config) as running:
        yield running


def shown(answer: Response) -> dict[str, str]:
    """What a script wrote down, a variable a line."""
    return dict(line.split("=", 1) for line in answer.body.decode().splitlines())


# authenticate: is this password right?


def one_time(own: Lab, login: str) -> None:
    user, _, password = login.partition(":")
    line = f"{user} {hashlib.sha256(password.encode()).hexdigest()}\n"
    with (own.path / "handlers/examples/one-time-passwords").open("a") as file:
        file.write(line)


def challenges(answer: Response) -> list[str]:
    return [value for name, value in answer.headers if name.lower() == "www-authenticate"]


@pytest.mark.parametrize("login", ["ann:first", "ann:with space", "bob:$(id) `id` \\ ' \"", "gerät:straße", "eve:"])
def test_a_one_time_password_works_once(gateway, own, login):
    """RFC 7030 6: a password for the first certificate, and the certificate from then on."""
    one_time(own, login)
    one_time(own, "other:" + login)
    with gateway.connect() as connection:
        assert challenges(connection.ask("POST", "once/simpleenroll", BODY)) == ['Basic realm="estrealm"']
        facts = seen(connection.ask("POST", "once/simpleenroll", BODY, login=login))
        assert (facts["REMOTE_USER"], facts["AUTH_TYPE"]) == (login.partition(":")[0], "Basic")
        assert not {"EST_USERNAME", "EST_PASSWORD"} & facts.keys()
        again = connection.ask("POST", "once/simpleenroll", BODY, login=login)
        assert (again.status, challenges(again)) == (401, ['Basic realm="estrealm"'])
        assert connection.ask("POST", "once/simpleenroll", BODY, login="other:" + login).status == 200
    secret = login.partition(":")[2]
    assert len(secret) < 5 or secret not in gateway.log_text


@pytest.mark.parametrize(
    "login", ["ann:wrong", "nobody:first", ":", ":first", "ann:", "estuser:estpwd", "ann first:x", ".*:.*", "-e:x"]
)
def test_a_wrong_one_time_password(gateway, own, login):
    one_time(own, "ann:right")
    answer = gateway.post("once/simpleenroll", BODY, login=login)
    assert (answer.status, answer.body, challenges(answer)) == (401, b"", ['Basic realm="estrealm"'])
    assert gateway.post("once/simpleenroll", BODY, login="ann:right").status == 200


def test_of_many_at_once_one_wins(gateway, own):
    one_time(own, "crowd:secret")
    with ThreadPoolExecutor(8) as crowd:
        ask: Callable[[int], int] = lambda _: gateway.post("once/simpleenroll", BODY, login="crowd:secret").status  # noqa: E731
        found = sorted(crowd.map(ask, range(8)))
    assert found == [200] + [401] * 7


def test_digest_shows_no_password_and_so_is_none(gateway, own):
    one_time(own, "estuser:estpwd")
    header = answered({"realm": "estrealm", "nonce": "x"}, "estuser:estpwd")
    answer = gateway.ask("POST", "once/simpleenroll", BODY, headers={"Authorization": header})
    assert (answer.status, challenges(answer)) == (401, ['Basic realm="estrealm"'])
    assert gateway.post("once/simpleenroll", BODY).status == 200


@pytest.mark.parametrize("end", ENDS)
def test_however_authenticate_ends_only_0_is_yes(gateway, own, people, end):
    status = ENDS[end][1]
    for certificate in (None, people.pairs["ours"]):
        answer = gateway.post(f"is-{end}/simpleenroll", BODY, certificate=certificate)
        assert answer.status == status
        assert bool(challenges(answer)) is (status == 401)
        assert (answer.header("Retry-After") is not None) is (status == 503)
        if status in (500, 504) and end not in WORDS:
            assert gateway.access[-1]["request_id"] in answer.words
    assert not (own.path / f"ran-{end}").exists()
    # Nobody is asked where there is nothing to ask about.
    assert gateway.post(f"is-{end}/simpleenroll", BODY, login=None).status == 401
    certified = gateway.post(f"is-{end}/simpleenroll", BODY, login=None, certificate=people.pairs["ours"])
    assert certified.status == 200
    (own.path / f"ran-{end}").unlink()


def test_what_authenticate_is_told(gateway):
    """The credentials as claimed, and nothing that looks verified."""
    answer = gateway.post("claims/simpleenroll", BODY, login="al ice:s e:c'r\"et $(id)")
    facts = shown(answer)
    assert (facts["EST_USERNAME"], facts["EST_PASSWORD"]) == ("al ice", "s e:c'r\"et $(id)")
    assert (facts["EST_AUTH_SCHEME"], facts["EST_LABEL"]) == ("Basic", "claims")
    assert facts["EST_OPERATION"] == "simpleenroll"
    assert not {"REMOTE_USER", "AUTH_TYPE", "EST_CSR_SUBJECT", "EST_POP"} & facts.keys()
    assert facts["EST_AUTH_METHODS"] == ""
    assert "s e:c" not in gateway.log_text


@pytest.mark.parametrize(
    ("login", "status"), [("() { :;}; id:x", 400), ("x:() { :;}; id", 400), ("a\nb:c", 401), ("a:\0", 401)]
)
def test_credentials_that_would_harm_a_script(gateway, login, status):
    assert gateway.post("claims/simpleenroll", BODY, login=login).status == status


def test_an_operation_may_take_the_file_again(gateway):
    assert seen(gateway.post("file-again/simpleenroll", BODY))["REMOTE_USER"] == "estuser"
    assert gateway.post("file-again/simpleenroll", BODY, login="estuser:wrong").status == 401


# authorize: may this client do this?


@pytest.mark.parametrize("end", ENDS)
def test_however_authorize_ends_only_0_is_yes(gateway, own, end):
    status = ENDS[end][2]
    before = gateway.lab.books()
    for operation in ("simpleenroll", "serverkeygen"):
        answer = gateway.post(f"may-{end}/{operation}", BODY)
        assert answer.status == status
        assert (answer.header("Retry-After") is not None) is (status in (202, 503))
        if status == 202:
            assert answer.body == b""
        elif end in WORDS:
            assert answer.words == WORDS[end]
        else:
            assert gateway.access[-1]["request_id"] in answer.words
    assert not (own.path / f"ran-{end}").exists()
    assert gateway.lab.books() == before


def test_null_asks_nobody(gateway):
    assert seen(gateway.post("open/simpleenroll", BODY))["EST_LABEL"] == "open"


def test_authorize_is_told_everything(gateway, people):
    """What the handler is told, but for the seconds it may take."""
    body = pki.csr("device-1", pki.san(x509.DNSName("a.example")))
    with gateway.connect(certificate=people.pairs["our RA"], version=V12) as connection:
        told = shown(connection.ask("POST", "environment/simpleenroll", body, login=LOGIN))
        handled = seen(connection.ask("POST", "seen/simpleenroll", body, login=LOGIN))
    bash = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert told.keys() - bash == handled.keys() - bash
    expected = {
        "REMOTE_USER": "estuser",
        "AUTH_TYPE": "Basic",
        "EST_AUTH_METHODS": "tls+http",
        "EST_CLIENT_TRUST": "explicit",
        "EST_CLIENT_IS_RA": "1",
        "EST_CSR_SUBJECT": "CN=device-1",
        "EST_CSR_SAN_0": "DNS:a.example",
        "EST_POP": "absent",
        "EST_TLS_BINDING": "tls-unique",
        "SSL_CLIENT_S_DN": "CN=device-1",
        "EST_TIMEOUT": "1",
    }
    assert {name: told[name] for name in expected} == expected


# The shipped policy, and what stands in it to be switched on.


@contextlib.contextmanager
def policy(own: Lab, heading: str) -> Iterator[None]:
    """Uncomment the lines below a heading, as somebody with an editor would; nothing is restarted."""
    path = own.path / AUTHORIZE
    before = path.read_text()
    above, found, below = before.partition(f"# {heading}")
    assert found, heading
    rest, *lines = below.splitlines(keepends=True)
    count = next((at for at, line in enumerate(lines) if not line.startswith("# ")), len(lines))
    assert count
    changed = [line.removeprefix("# ") for line in lines[:count]]
    path.write_text(above + found + rest + "".join(changed + lines[count:]))
    try:
        yield
    finally:
        path.write_text(before)


def verdict(gateway: Gateway, body: bytes, **options: Any) -> tuple[int, str]:
    answer = gateway.post("seen/simpleenroll", body, **options)
    return answer.status, answer.words if answer.status == 403 else ""


def named(cn: str, *san: x509.GeneralName) -> bytes:
    return pki.csr(cn, *([pki.san(*san)] if san else []))


def test_the_shipped_policy(gateway, people):
    for options in ({}, {"login": None, "certificate": people.pairs["ours"]}):
        assert verdict(gateway, BODY, **options)[0] == 200
    otp = pki.csr("device-1", pki.attribute("1.2.840.113549.1.9.16.2.56", pki.tlv(pki.UTF8, b"1234")))
    assert verdict(gateway, otp) == (403, "one-time passwords are not taken here")


def test_policy_user_names(gateway, own, people):
    with policy(own, "The subject is the user's name"):
        assert verdict(gateway, named("estuser")) == (200, "")
        assert verdict(gateway, named("alice"), login="alice:secret") == (200, "")
        for cn in ("alice", "estuser ", "ESTUSER", "estuser,O=x"):
            assert verdict(gateway, named(cn)) == (403, "you may only be CN=estuser")
        assert verdict(gateway, pki.csr(pki.name("O=x,CN=estuser")))[0] == 403
        # A certificate speaks for itself: renewals go on.
        assert verdict(gateway, BODY, login=None, certificate=people.pairs["ours"])[0] == 200
    assert verdict(gateway, named("alice"))[0] == 200


def test_policy_host_names(gateway, own):
    ours = x509.DNSName("a.example.org")
    with policy(own, "Host names end in one of ours"):
        assert verdict(gateway, named("a")) == (200, "")
        assert verdict(gateway, named("a", ours, x509.DNSName("b.c.example.org"))) == (200, "")
        for other in ("example.org", "a.example.com", "aexample.org", "a.example.org.evil.example"):
            wanted = named("a", ours, x509.DNSName(other))
            assert verdict(gateway, wanted) == (403, f"DNS:{other} is not ours to certify")
        mail = x509.RFC822Name("x@a.example.org")
        assert verdict(gateway, named("a", mail)) == (403, "email:x@a.example.org is not ours to certify")


def test_policy_allow_list(gateway, own, people):
    ours = people.certificates["ours"].certificate.fingerprint(hashes.SHA256()).hex()
    listed = own.path / "handlers/openssl/allowed-fingerprints"
    with policy(own, "Only certificates on a list"):
        pair = {"certificate": people.pairs["ours"], "login": None}
        assert verdict(gateway, BODY, **pair) == (403, "your certificate is not listed")
        for text in (ours, ours.upper(), f"{'0' * 64}\n{ours}\n"):
            listed.write_text(text)
            assert verdict(gateway, BODY, **pair) == (200, "")
        for text in ("", ours[:-1], f"x{ours}", "." * 64):
            listed.write_text(text)
            assert verdict(gateway, BODY, **pair)[0] == 403
        listed.write_text(ours)
        assert verdict(gateway, BODY)[0] == 403  # a password has no fingerprint
        listed.unlink()


def test_policy_office_hours(gateway, own):
    with policy(own, "Office hours, UTC"):
        while True:
            before = datetime.now(UTC)
            status, words = verdict(gateway, BODY)
            if datetime.now(UTC).hour == before.hour:
                break
    is_open = before.isoweekday() < 6 and 8 <= before.hour < 18
    assert (status, words) == ((200, "") if is_open else (403, "come back in office hours"))


def test_policy_only_ras_name_others(gateway, own, people):
    with policy(own, "Only RAs may name others"):
        for kind, status in (("our RA", 200), ("ours", 403), ("theirs", 403), ("their RA", 403), ("none", 403)):
            login = LOGIN if kind == "none" else None
            assert verdict(gateway, named("other"), certificate=people.pairs[kind], login=login)[0] == status, kind
        for kind in ("ours", "our RA", "theirs"):
            assert verdict(gateway, BODY, certificate=people.pairs[kind], login=None)[0] == 200
        assert verdict(gateway, BODY)[0] == 403


# simplereenroll: what it renews (RFC 7030 4.2.2).


def renewal(gateway: Gateway, pair: tuple[Path, Path], body: bytes, label: str = "") -> Response:
    path = f"{label}/simplereenroll" if label else "simplereenroll"
    return gateway.post(path, body, certificate=pair, login=None)


def printable(text: str) -> bytes:
    return pki.dn((pki.CN, pki.PRINTABLE, text.encode()))


SAN = [x509.DNSName("a.example"), x509.DNSName("b.example"), x509.RFC822Name("d@a.example")]


def test_names_are_compared_as_names(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "Device One", *SAN)
    for subject, names in (
        ("Device One", SAN),
        (printable("Device One"), SAN),
        ("dEVICE oNE", SAN),
        (" Device   One ", SAN),
        (pki.dn((pki.CN, pki.BMP, "device one".encode("utf-16-be"))), SAN),
        ("Device One", list(reversed(SAN))),
        ("Device One", [x509.DNSName("A.EXAMPLE"), *SAN[1:]]),
    ):
        body = pki.csr(subject, pki.san(*names), key=KEY)
        assert renewal(gateway, pair, body).status == 200, (subject, names)
    for subject, names, words in (
        ("Device Two", SAN, "the CSR's subject is CN=Device Two, the certificate's is CN=Device One"),
        ("DeviceOne", SAN, "the CSR's subject"),
        (pki.name("CN=Device One,O=x").public_bytes(), SAN, "the CSR's subject"),
        ("Device One", SAN[1:], "the CSR lacks DNS:a.example"),
        ("Device One", [*SAN, x509.DNSName("c.example")], "the CSR adds DNS:c.example"),
        ("Device One", [*SAN[:2], x509.RFC822Name("D@a.example")], "email:D@a.example"),
        ("Device One", [], "the CSR lacks"),
    ):
        attributes = [pki.san(*names)] if names else []
        answer = renewal(gateway, pair, pki.csr(subject, *attributes, key=KEY))
        assert answer.status == 403
        assert words in answer.words


def test_a_third_partys_certificate_is_not_renewed(gateway, people):
    for kind in ("theirs", "their RA"):
        answer = gateway.post("simplereenroll", BODY, certificate=people.pairs[kind])
        assert (answer.status, "yours is another's" in answer.words) == (403, True)


def test_renew_or_rekey(gateway, tmp_path):
    pair = enrol(gateway, tmp_path)
    for key, word in ((KEY, "renew"), (ec.generate_private_key(ec.SECP256R1()), "rekey")):
        facts = seen(renewal(gateway, pair, pki.csr("device-1", key=key), "seen"))
        assert facts["EST_REENROLL"] == word
        assert facts["EST_RENEW_CERT_FILE"].endswith("/renew.pem")
        issued = renewal(gateway, pair, pki.csr("device-1", key=key)).certificate
        assert issued.public_key() == key.public_key()
    enrolled = seen(gateway.post("seen/simpleenroll", BODY))
    assert not {"EST_REENROLL", "EST_RENEW_CERT_FILE"} & enrolled.keys()


# Without a TLS certificate.


def test_renewal_by_password_where_it_is_allowed(gateway, own, tmp_path):
    name = "looked-up"
    pair = enrol(gateway, tmp_path, name, *SAN)
    body = pki.csr(printable("LOOKED-UP"), pki.san(*reversed(SAN)), key=KEY)
    answer = gateway.post("simplereenroll", body)
    assert (answer.status, "needs a TLS client certificate" in answer.words) == (403, True)
    issued = gateway.post("look-up/simplereenroll", body).certificate
    assert issued.public_key() == KEY.public_key()
    for other in (pki.csr("looked", key=KEY), pki.csr(name, key=KEY), pki.csr(name, pki.san(SAN[0]), key=KEY)):
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


def change(subject: bytes | None = None, *san: x509.GeneralName) -> bytes:
    names = x509.SubjectAlternativeName(san).public_bytes()[2:] if san else b""
    return pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, subject or b"", pki.tlv(0xA1, names) if san else b""))


def cn(text: str) -> bytes:
    return pki.dn((pki.CN, pki.UTF8, text.encode()))


def names_of(certificate: x509.Certificate) -> tuple[str, list[x509.GeneralName]]:
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        found = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        found = []
    return str(common.value), found


def test_a_change_of_names(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "old", SAN[0])

    def asked(*attributes: bytes, label: str = "change") -> Response:
        return renewal(gateway, pair, pki.csr("old", pki.san(SAN[0]), *attributes, key=KEY), label)

    assert names_of(asked(change(cn("new"), SAN[1], SAN[2])).certificate) == ("new", SAN[1:])
    assert names_of(asked(change(cn("new"))).certificate) == ("new", [])  # absent means empty
    assert names_of(asked().certificate) == ("old", SAN[:1])
    without = asked(change(None, SAN[1]))  # an empty subject, which this CA's policy does not like
    assert (without.status, "commonName" in without.words) == (403, True)
    assert asked(change(cn("new")), label="").status == 400  # not allowed here
    assert "leave ChangeSubjectName out" in asked(change(cn("new")), label="").words
    for attribute in (change(cn("")), change(cn("x" * 65)), pki.attribute(CHANGE), change(cn("a"), *SAN)[:-1] + b"\0"):
        assert asked(attribute).status == 400
    other = renewal(gateway, pair, pki.csr("new", change(cn("newer")), key=KEY), "change")
    assert (other.status, "subject" in other.words) == (403, True)


def test_policies_and_scripts_see_the_new_names(gateway, tmp_path, own):
    """Else a policy on names could be passed by asking to change them."""
    pair = enrol(gateway, tmp_path, "old", SAN[0])
    body = pki.csr("old", pki.san(SAN[0]), change(cn("new"), SAN[1]), key=KEY)
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


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("operation", ISSUING)
def test_hostile_new_names_arrive_as_they_are(gateway, tmp_path, text, operation):
    pair = enrol(gateway, tmp_path, "old")
    body = pki.csr("old", change(cn(text)), key=KEY)
    answer = gateway.post(f"change/{operation}", body, certificate=pair, login=None)
    assert answer.status == 200, answer.body
    if operation == "serverkeygen":
        part = answer.body.split(b"certs-only")[1].split(b"\r\n\r\n")[1].split(b"\r\n--")[0]
        (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(part))
    else:
        certificate = answer.certificate
    assert names_of(certificate) == (text, [])
    assert len(certificate.subject.rdns) == 1


def test_multi_valued_and_many_rdns(gateway, tmp_path):
    pair = enrol(gateway, tmp_path, "old")
    wanted = x509.Name.from_rfc4514_string("CN=a\\+b+OU=c\\,d,O=e/f,C=DE")
    body = pki.csr("old", change(wanted.public_bytes()), key=KEY)
    assert renewal(gateway, pair, body, "change").certificate.subject == wanted


def test_a_devices_own_certificate_may_ask_for_other_names(gateway, people):
    """RFC 7030 4.2.1: a third party's certificate on an enrol."""
    body = pki.csr("device-1", change(cn("new"), SAN[0]))
    with gateway.connect(certificate=people.pairs["theirs"], version=V13) as connection:
        issued = connection.ask("POST", "change/simpleenroll", body).certificate
        assert names_of(issued) == ("new", SAN[:1])
        # The names in the CSR are still those of the certificate.
        other = connection.ask("POST", "change/simpleenroll", pki.csr("device-2", change(cn("new"))))
        assert (other.status, "keeps the certificate's own names" in other.words) == (403, True)
    answer = gateway.post("change/simpleenroll", body)
    assert (answer.status, "needs a TLS client certificate" in answer.words) == (403, True)


def test_a_name_with_a_control_character(gateway, tmp_path):
    """A policy sees the end of it, and some relying parties the beginning."""
    pair = enrol(gateway, tmp_path, "old")
    for bad in (x509.DNSName("evil.example\0.example.org"), x509.RFC822Name("a\n@b"), x509.DNSName("a\x7f.example")):
        for attribute in (pki.san(bad), change(cn("new"), bad)):
            answer = renewal(gateway, pair, pki.csr("old", attribute, key=KEY), "change")
            assert (answer.status, "control character" in answer.words) == (400, True)
            assert gateway.post("simpleenroll", pki.csr("old", attribute)).status == 400


# Guessing is slowed.


def test_guessing_costs_the_guesser_and_nobody_else(own):
    """The delay grows for one address; another's password is taken at once meanwhile."""
    with running_gateway(own, {"client_auth": {"guess_delay": 1}}) as gateway:
        times = []
        with gateway.connect(source="127.0.0.2") as connection:
            for _ in range(6):
                started = time.monotonic()
                refused = connection.ask("POST", "simpleenroll", b"", headers={"Authorization": basic("estuser:no")})
                times.append(time.monotonic() - started)
                assert refused.status == 401
            # 0, then 50 ms doubled each time.
            assert times[5] > 0.75 > times[0]
            assert times[5] > times[3] > times[1]
            answers: list[Any] = []
            guess = threading.Thread(
                target=lambda: answers.append(connection.ask("POST", "simpleenroll", b"", login="estuser:no"))
            )
            guess.start()
            started = time.monotonic()
            assert gateway.post("cacerts", b"").status == 405
            assert gateway.post("simpleenroll", b"").status == 400  # the password was right, the empty CSR is not
            other = time.monotonic() - started
            guess.join()
            assert other < 0.9
            # And the right password ends it.
            assert connection.ask("POST", "simpleenroll", b"", login=LOGIN).status == 400
            started = time.monotonic()
            assert connection.ask("POST", "simpleenroll", b"", login=LOGIN).status == 400
            assert time.monotonic() - started < 0.9
    print("delays of one guesser:", [round(seconds, 2) for seconds in times], "another client:", round(other, 2))
