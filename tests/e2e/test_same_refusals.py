"""Each 4xx that comes before the handler is the same, word for word, from `estgw run` and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa

from estgw.cli import trial
from estgw.cli.trial import Trial
from estgw.est.csr import CHANGE_SUBJECT_NAME, EST_IDENTITY_LINKING, OTP_CHALLENGE
from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID
from estgw.gateway.state import State
from tests.kit.ca import pem, root
from tests.kit.csr import CHALLENGE_PASSWORD, csr, san
from tests.kit.der import BOOLEAN, CN, SEQUENCE, UTF8, armoured, attribute, dn, tlv
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.keys import KEY, rsa_key
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

USER = LOGIN.partition(":")[0]
LONG = dn((CN, UTF8, b"x" * 65))
MAX_BODY = 16 * 1024


def changing(subject: bytes, *more: bytes) -> bytes:
    """ChangeSubjectName (RFC 6402 2.8)."""
    return attribute(CHANGE_SUBJECT_NAME, tlv(SEQUENCE, subject, *more))


def text(kind: str, value: str) -> bytes:
    return attribute(kind, tlv(UTF8, value.encode()))


@dataclass(frozen=True)
class Case:
    """A request that is refused."""

    body: bytes
    status: int
    words: str
    path: str = "simpleenroll"
    who: str | None = USER
    """The user; `device`, `other` or `stranger` for a client certificate; None without credentials."""


WEAK = dsa.generate_private_key(2048)
NUL = x509.DNSName("a\0b.example")
CASES = {
    "an empty body": Case(b"", 400, "The body is empty"),
    "no base64": Case(b"junk!", 400, "Not base64"),
    "PEM of something else": Case(armoured(csr(), "CERTIFICATE"), 400, "CERTIFICATE"),
    "PEM without an end": Case(armoured(csr())[:-40], 400, "does not end"),
    "a CSR that is cut off": Case(csr()[:-5], 400, "cut off"),
    "a byte too many": Case(csr() + b"x", 400, "too many after the end"),
    "a SEQUENCE that is no CSR": Case(b"\x30\x03\x02\x01\x05", 400, "PKCS#10"),
    "another signature": Case(csr("device-1").replace(b"device-1", b"device-0"), 400, "signature does not fit"),
    "a weak RSA key": Case(csr(key=rsa_key(1024)), 400, "RSA key of 1024 bits"),
    "a DSA key": Case(csr(key=WEAK), 400, "DSA key"),
    "an empty subject": Case(csr(tlv(SEQUENCE)), 400, "subject is empty"),
    "an unsound SAN": Case(csr("device-1", san(NUL)), 400, "ame"),
    "an attribute twice": Case(csr("x", text(OTP_CHALLENGE, "1"), text(OTP_CHALLENGE, "2")), 400, "twice"),
    "a binding that is no text": Case(
        csr("x", attribute(CHALLENGE_PASSWORD, tlv(BOOLEAN, b"\xff"))), 400, "is no text"
    ),
    "a linking attribute that is too long": Case(csr("x", text(EST_IDENTITY_LINKING, "x" * 256)), 400, "longer than"),
    "an otpChallenge that nothing verifies": Case(
        csr("x", text(OTP_CHALLENGE, "123")), 400, "nothing here can verify it", "open/simpleenroll"
    ),
    "no link where one is required": Case(csr(), 400, "is required here", "linked/simpleenroll"),
    "a template's key": Case(csr(), 400, "a key ec:P-384", "template/simpleenroll"),
    "a template's attribute": Case(csr(), 400, "serialNumber", "template/simpleenroll"),
    "a name past its bound": Case(csr(LONG), 400, "RFC 5280 allows 64"),
    "a subject past its bound": Case(csr("x" * 60), 400, "max_subject", "short/simpleenroll"),
    "a SAN past its bound": Case(
        csr("x", san(*(x509.DNSName(f"{'x' * 60}{n}.example") for n in range(9)))), 400, "max_san",
        "short/simpleenroll",
    ),
    "new names where none are taken": Case(csr("x", changing(dn((CN, UTF8, b"new")))), 400, "Names are not changed"),
    "new names without a certificate": Case(
        csr("x", changing(dn((CN, UTF8, b"new")))), 403, "needs a TLS client certificate", "change/simpleenroll"
    ),
    "new names of another's": Case(
        csr("another", changing(dn((CN, UTF8, b"new")))), 403, "keeps the certificate's own names",
        "change/simpleenroll", "device",
    ),
    "new names that can't be read": Case(csr("x", changing(b"\x02\x01\x05")), 400, "changeSubjectName"),
    "new names past their bound": Case(
        csr("device-1", changing(LONG), key=KEY), 400, "65 characters", "change/simplereenroll", "device"
    ),
    "a body that is too large": Case(b"x" * (MAX_BODY + 1), 413, f"larger than {MAX_BODY} bytes"),
    "a body that is too large without credentials": Case(b"x" * (MAX_BODY + 1), 413, "larger", who=None),
    "no credentials": Case(csr(), 401, "", who=None),
    "a password where a certificate is needed": Case(csr(), 403, "needs a TLS client certificate.", "tls/simpleenroll"),
    "no credentials where a certificate is needed": Case(
        csr(), 403, "needs a TLS client certificate.", "tls/simpleenroll", None
    ),
    "a stranger's certificate where one is needed": Case(
        csr(), 403, "the one offered was not accepted", "tls/simpleenroll", "stranger"
    ),
    "a certificate where a password is needed": Case(csr(), 401, "", "http/simpleenroll", "device"),
    "a password where both are needed": Case(csr(), 403, "needs a TLS client certificate.", "both/simpleenroll"),
    "a certificate where both are needed": Case(csr(), 401, "", "both/simpleenroll", "device"),
    "a renewal by a password": Case(csr(), 403, "needs a TLS client certificate", "simplereenroll"),
    "a renewal of another name": Case(
        csr("device-2"), 403, "the CSR's subject is CN=device-2, the certificate's is CN=device-1", "simplereenroll",
        "device",
    ),
    "a renewal with another SAN": Case(
        csr("device-1", san(x509.DNSName("b.example"))), 403, "the CSR adds DNS:b.example", "simplereenroll",
        "device",
    ),
    "a renewal of a certificate of others": Case(csr("other"), 403, "yours is another's", "simplereenroll", "other"),
    "a renewal without a certificate that is known": Case(
        csr("unheard-of"), 403, "No valid certificate", "without/simplereenroll"
    ),
    "a key to be encrypted in two ways": Case(
        csr("x", attribute(DECRYPT_KEY_ID, tlv(4, b"a")), attribute(ASYMMETRIC_DECRYPT_KEY_ID, tlv(4, b"a"))),
        400, "both to a symmetric and to an asymmetric key", "keygen/serverkeygen",
    ),
    "a key to be encrypted without SMIMECapabilities": Case(
        csr("x", attribute(DECRYPT_KEY_ID, tlv(4, b"a"))), 400, "SMIMECapabilities", "keygen/serverkeygen"
    ),
    "a refusal by authorize": Case(csr(), 403, "not on a Sunday", "refused/simpleenroll"),
    "a bad request by authorize": Case(csr(), 400, "the wrong colour", "wrong/simpleenroll"),
    "a value that no script may see": Case(
        csr("x", text("1.2.840.113549.1.9.16.2.57", "() { :; }")), 400, "begins like a shell function"
    ),
    "too many names": Case(
        csr("x", san(*(x509.DNSName(f"h{n}") for n in range(129)))), 400, "More than 128 values"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Both:
    """The same configuration, served and read by `estgw run`, with client certificates."""

    gateway: Gateway
    state: State
    pairs: dict[str, tuple[Path, Path]]
    books: dict[str, str]


@pytest.fixture(scope="module")
def both(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    own = lab.copy(tmp_path_factory.mktemp("both") / "lab")
    (own.path / "template.yaml").write_text("- key: ec:P-384\n- serialNumber\n")
    others = root("Others")
    (own.path / "others.pem").write_bytes(pem(others.certificate))
    labels: dict[str, Any] = {
        "open": {},
        "linked": {},
        "template": {"csr_template": str(own.path / "template.yaml")},
        "short": {"max_subject": 64, "max_san": 512},
        "change": {"change_subject_name": True},
        "without": {"renew_without_certificate": True, "operations": {"simplereenroll": {"requires": "any"}}},
        "keygen": {"operations": {"serverkeygen": {"enabled": True}}},
        "refused": {"authorize": str(own.script("refused", "echo 'not on a Sunday'; exit 77"))},
        "wrong": {"authorize": str(own.script("wrong", "echo 'the wrong colour'; exit 65"))},
        **{name: {"operations": {"simpleenroll": {"requires": name}}} for name in ("tls", "http", "both")},
    }
    labels["open"]["authorize"] = None
    overrides = {
        "server": {"max_body": MAX_BODY},
        "client_auth": {"implicit": [str(own.path / "others.pem")]},
        "pop": {"rules": [{"label": "linked", "pop": "required"}]},
        "labels": labels,
    }
    with running_gateway(own, overrides) as gateway:
        folder = tmp_path_factory.mktemp("pairs")
        pairs = {"device": enrol(gateway, folder)}
        pairs["other"] = others.issue("other", key=KEY).write(folder, "other")
        pairs["stranger"] = root("A stranger").issue("device-1", key=KEY).write(folder, "stranger")
        yield Both(gateway, trial.load_state(gateway.config), pairs, own.books())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_refusal_is_the_same_from_estgw_run_and_over_tls(both, tmp_path, case):
    pair = both.pairs.get(case.who)
    login = LOGIN if case.who == USER else None
    over_tls = both.gateway.post(case.path, case.body, login=login, certificate=pair)
    assert over_tls.status == case.status, over_tls
    assert case.words in over_tls.body.decode()

    label, _, operation = case.path.rpartition("/")
    (tmp_path / "request").write_bytes(case.body)
    (tmp_path / "private").mkdir(mode=0o700)
    wanted = Trial(
        operation,
        label=label or None,
        csr_file=tmp_path / "request",
        client_certificate=pair[0] if pair else None,
        user=USER if case.who == USER else None,
    )
    response = asyncio.run(trial.run(both.state, wanted, tmp_path / "private")).response
    assert (response.status, response.body or b"") == (over_tls.status, over_tls.body)
    for name in ("Content-Type", "WWW-Authenticate", "Retry-After"):
        assert response.headers.get(name) == over_tls.header(name)


def test_refused_requests_change_nothing_in_the_register(both):
    assert both.gateway.lab.books() == both.books


def test_estgw_run_with_anonymous_ok_needs_no_authentication(both, tmp_path):
    (tmp_path / "request").write_bytes(csr())
    (tmp_path / "private").mkdir(mode=0o700)
    wanted = Trial("simpleenroll", label="refused", csr_file=tmp_path / "request", anonymous_ok=True)
    response = asyncio.run(trial.run(both.state, wanted, tmp_path / "private")).response
    assert (response.status, response.body) == (403, b"not on a Sunday\n")


def test_estgw_run_with_handler_only_skips_authorize(both, tmp_path):
    (tmp_path / "request").write_bytes(csr())
    (tmp_path / "private").mkdir(mode=0o700)
    wanted = Trial("simpleenroll", label="refused", csr_file=tmp_path / "request", user=USER, handler_only=True)
    assert asyncio.run(trial.run(both.state, wanted, tmp_path / "private")).response.status == 200
