"""Where secrets are in a request, and what is left of a text without them."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from estgw.est.answers import BOUNDARY
from estgw.record import redact
from estgw.record.redact import Redactor, Sent
from tests.callout import calls
from tests.kit.clients import LINKING, OTP, REVOCATION, linking
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.keys import KEY, KEY_PEM

BINDING = base64.b64encode(bytes(12)).decode()


def encodings(der: bytes) -> list[bytes]:
    """A request as clients send it, and as broken ones do."""
    text = base64.b64encode(der)
    return [der, text, base64.encodebytes(der), armoured(der), der[:-9], text[:-9], text + b"A", armoured(der)[:-40]]


@pytest.mark.parametrize(
    "wishes",
    [
        [linking("1234", kind=OTP)],
        [linking("revoke me", kind=REVOCATION)],
        [linking("a password", kind=LINKING)],
    ],
    ids=["otpChallenge", "revocationChallenge", "estIdentityLinking that is no binding"],
)
def test_a_secret_attribute_is_found_in_every_encoding(wishes):
    assert [redact.holds_secret(body) for body in encodings(csr("a", *wishes))] == [True] * 8


@pytest.mark.parametrize("text", ["password", "", "QUJD", base64.b64encode(bytes(33)).decode(), f"{BINDING}="])
def test_a_challenge_that_is_no_binding_is_a_secret(text):
    assert redact.holds_secret(csr(challenge=text))


@pytest.mark.parametrize("size", redact.BINDINGS)
def test_a_challenge_as_long_as_a_binding_is_none(size):
    body = csr(challenge=base64.b64encode(bytes(size)).decode())
    assert not any(map(redact.holds_secret, (body, base64.b64encode(body), armoured(body))))


def test_a_plain_request_holds_no_secret():
    assert not any(map(redact.holds_secret, (csr(), base64.b64encode(csr()), armoured(csr()), b"", b"junk")))


@pytest.mark.parametrize(
    "body",
    [
        KEY_PEM,
        KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
        KEY.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        base64.b64encode(KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())),
    ],
    ids=["PEM", "encrypted", "SEC 1", "base64"],
)
def test_a_private_key_in_place_of_a_request_is_a_secret(body):
    assert redact.holds_secret(body)


@pytest.mark.parametrize(
    "name", ["Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "x-auth-token", "DB_PASSWORD", "MY_SECRETS"]
)
def test_a_name_like_a_secrets_is_one(name):
    assert redact.headers([(name, "value")]) == [[name, "[removed]"]]


@pytest.mark.parametrize("name", ["Host", "Content-Type", "POLICY", "User-Agent", "Accept"])
def test_an_ordinary_name_is_none(name):
    assert redact.headers([(name, "value")]) == [[name, "value"]]


def test_a_target_keeps_its_other_parameters():
    assert redact.target("/a?x=1&access_token=abc&y=2") == "/a?x=1&access_token=[removed]&y=2"
    assert redact.target("/a?token") == "/a?token"
    assert redact.target("/token=a") == "/token=a"


def test_the_variables_of_key_generation_are_no_secrets(tmp_path):
    call = calls.plain(tmp_path, handler_env={"API_KEY": "a", "POLICY": "b"})
    given = {"EST_KEYGEN_PROTECT": "none", "API_KEY": "a", "POLICY": "b", "EST_PASSWORD": "c", "HTTP_X_TOKEN": "d"}
    assert redact.environment(call, given) == {
        "EST_KEYGEN_PROTECT": "none",
        "API_KEY": "[removed]",
        "POLICY": "b",
        "EST_PASSWORD": "[removed]",
        "HTTP_X_TOKEN": "[removed]",
    }


def test_a_short_password_is_removed_where_it_stands_alone():
    redactor = Redactor(None, Sent(headers=[("Authorization", f"Basic {base64.b64encode(b'u:pw').decode()}")]))
    assert redactor.text("EST_PASSWORD=pw, 'pw' and MIIpwAB") == "EST_PASSWORD=[removed], '[removed]' and MIIpwAB"


def test_values_of_scripts_variables_are_removed_from_what_they_print():
    redactor = Redactor(None, Sent(), [{"EST_OTP": "90503846", "EST_LABEL": "iot"}])
    assert redactor.text("90503846 for iot") == "[removed] for iot"


def test_a_body_of_other_bytes_stays_as_it_is():
    content = bytes(range(256))
    assert Redactor(None, Sent(headers=[("X-Key", "secret-value")])).bytes(content) == content


def test_an_answer_with_a_key_in_another_form_is_removed_whole():
    assert redact.keygen_body(b"a key in a form of its own") == b"[removed]"
    part = f"--{BOUNDARY}\r\nContent-Type: application/pkcs8\r\n\r\nMIIB\r\n--{BOUNDARY}--\r\n".encode()
    assert b"MIIB" not in redact.keygen_body(part)
