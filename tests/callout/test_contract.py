"""The contract with scripts: each variable as a script sees it, and each exit status."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from estgw import __version__
from estgw.auth.credentials import Credentials
from estgw.auth.identity import Trust
from estgw.auth.pop import POP
from estgw.callout import contract, environment, spawn
from estgw.callout.call import Call, Enclosure
from estgw.callout.contract import ENV_VARS
from estgw.callout.environment import environment_of
from estgw.callout.process import Limits
from estgw.callout.verdicts import EXIT_STATUS, OTHERWISE, Kind
from estgw.errors import BadRequest
from estgw.est import certs
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import OTP_CHALLENGE, NewNames, parse
from estgw.est.keygen import DECRYPT_KEY_ID, SMIME_CAPABILITIES
from estgw.est.operations import Profile
from tests.callout.calls import CA, CERTIFICATE, CSR, KNOWN, SUB, change, client, full, plain, tls
from tests.kit.ca import broken_certificate, certificate, name
from tests.kit.csr import csr, san
from tests.kit.der import BOOLEAN, CN, OCTETS, UTF8, armoured, attribute, dn, tlv
from tests.kit.keys import OTHER
from tests.kit.scripts import python

ROWS = {row.name: row for row in ENV_VARS}


def pem(made: x509.Certificate) -> str:
    return made.public_bytes(Encoding.PEM).decode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def openssl_time(moment: datetime) -> str:
    return moment.strftime("%b %e %H:%M:%S %Y GMT")


def expected(tmp: Path) -> dict[str, dict[str, str]]:
    """The expected value of each row for `calls.full`, written by hand."""
    now = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": f"estgw/{__version__}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/.well-known/est/simplereenroll",
        "QUERY_STRING": "a=b&c",
        "CONTENT_TYPE": "application/pkcs10; x=y",
        "CONTENT_LENGTH": str(len(CSR)),
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_PORT": "40000",
        "AUTH_TYPE": "Basic",
        "REMOTE_USER": "ann",
        "HTTPS": "on",
        "SSL_PROTOCOL": "TLSv1.2",
        "SSL_CIPHER": "ECDHE-ECDSA-AES128-GCM-SHA256",
        "SSL_TLS_SNI": "est.example",
        "SSL_CLIENT_VERIFY": "SUCCESS",
        "SSL_CLIENT_CERT": pem(CERTIFICATE),
        "SSL_CLIENT_S_DN": "CN=device-1,O=Ours",
        "SSL_CLIENT_I_DN": "CN=Test CA",
        "SSL_CLIENT_S_DN_CN": "device-1",
        "SSL_CLIENT_M_SERIAL": "0ABC",
        "SSL_CLIENT_V_START": openssl_time(CERTIFICATE.not_valid_before_utc),
        "SSL_CLIENT_V_END": openssl_time(CERTIFICATE.not_valid_after_utc),
        "TLS_UNIQUE_SR": "AAECAwQFBgcICQoL",
        "EST_CONTRACT": "1",
        "EST_REQUEST_ID": "0123456789",
        "EST_OPERATION": "simplereenroll",
        "EST_LABEL": "iot",
        "EST_PROFILE": "draft",
        "EST_CA_DIR": "/srv/ca",
        "EST_REGISTER": "postgresql://ca@db.example/certs",
        "EST_TMPDIR": str(tmp),
        "EST_TIMEOUT": "12",
        "EST_REQUEST": base64.b64encode(CSR).decode(),
        "EST_CSR_FILE": str(tmp / "csr.pem"),
        "EST_CSR_SHA256": sha256(CSR),
        "EST_CSR_SUBJECT": "CN=device-1,O=Ours",
        "EST_CSR_EXT_SAN": "301e820b6f6e652e6578616d706c65810f616e6e406578616d706c652e6f7267",
        "EST_CSR_SPKI_SHA256": sha256(certs.spki(CERTIFICATE)),
        "EST_AUTH_METHODS": "tls+http+cmc",
        "EST_CMC_REQUEST": "7",
        "EST_CMC_IDENTIFICATION": "device-7",
        "EST_CLIENT_TRUST": "explicit",
        "EST_CLIENT_IS_RA": "1",
        "EST_CLIENT_CERT_FILE": str(tmp / "client.pem"),
        "EST_CLIENT_CERT_SHA256": CERTIFICATE.fingerprint(hashes.SHA256()).hex(),
        "EST_TLS_BINDING": "tls-unique",
        "EST_POP": "linked",
        "EST_POP_REQUIRED": "1",
        "EST_POP_LINKING": "required",
        "EST_AUTHORIZE": "/srv/authorize",
        "EST_CSR_TEMPLATE": "/srv/template.yaml",
        "EST_MAY_CHANGE_SUBJECT": "1",
        "EST_NAME_BOUNDS": "rfc5280 4096 16384",
        "EST_REENROLL": "renew",
        "EST_RENEW_CERT_FILE": str(tmp / "renew.pem"),
        "EST_OTP": "90503846",
        "EST_REVOCATION_CHALLENGE": "please revoke",
        "EST_AUTH_SCHEME": "Basic",
        "EST_USERNAME": "ann",
        "EST_PASSWORD": "secret",
        "EST_REPLAY": "1",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LC_CTYPE": "C.UTF-8",
        "TZ": "UTC",
        "TMPDIR": str(tmp),
        "HOME": str(tmp),
    }
    rows = {name: {name: text} for name, text in now.items()}
    return rows | {
        "HTTP_<NAME>": {"HTTP_USER_AGENT": "curl/8", "HTTP_X_FORWARDED_FOR": "192.0.2.9"},
        "SSL_CLIENT_CERT_CHAIN_n": {"SSL_CLIENT_CERT_CHAIN_0": pem(SUB.certificate)},
        "SSL_CLIENT_SAN_DNS_n": {"SSL_CLIENT_SAN_DNS_0": "one.example", "SSL_CLIENT_SAN_DNS_1": "two.example"},
        "SSL_CLIENT_SAN_Email_n": {
            "SSL_CLIENT_SAN_Email_0": "ann@example.org",
            "SSL_CLIENT_SAN_Email_1": "bob@example.org",
        },
        "EST_CSR_SAN_n": {"EST_CSR_SAN_0": "DNS:one.example", "EST_CSR_SAN_1": "email:ann@example.org"},
        "<any>": {"POLICY": "strict"},
    }


NOT_IN_ONE_CALL = {
    "EST_PENDING_ID": "a digest; see test_call",
    "EST_CHANGE_SUBJECT": "a new name takes the place of EST_CSR_SUBJECT",
    **dict.fromkeys(
        ("EST_KEYGEN_PROTECT", "EST_KEYGEN_KEY_ID", "EST_KEYGEN_ALGORITHMS"), "serverkeygen alone has them"
    ),
}
ALWAYS_SET = {name for name, row in ROWS.items() if row.when == "always"}


def seen_by_a_script(call: Call) -> dict[str, str]:
    """The environment of a program, and the contents of the files that it names."""
    text = """
import json, os
files = {name: open(os.environ[name]).read() for name in os.environ if name.endswith("_FILE") and "SSL_" not in name}
print(json.dumps([dict(os.environ), files]))
"""
    program = python(call.exchange.tmp_dir, text, name="reflect")
    outcome = asyncio.run(spawn.run(program, environment_of(call), call.http.body, Limits(10, 1 << 20, 1 << 16)))
    assert outcome.exit == 0, outcome.stderr
    found, files = json.loads(outcome.stdout)
    return {**found, **{f"{name} holds": content for name, content in files.items()}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("call")


@pytest.fixture(scope="module")
def reflected(directory: Path) -> dict[str, str]:
    return seen_by_a_script(full(directory, enclosure=Enclosure(7, "tls+http+cmc", "device-7")))


@pytest.mark.parametrize("name", [name for name in ROWS if name not in NOT_IN_ONE_CALL])
def test_every_variable_reaches_a_script_with_its_value(name, directory, reflected):
    wanted = expected(directory)[name]
    assert {each: reflected.get(each) for each in wanted} == wanted


def test_no_other_variable_reaches_a_script(directory, reflected):
    known = {variable for row in expected(directory).values() for variable in row} | NOT_IN_ONE_CALL.keys()
    assert {name for name in reflected if not name.endswith(" holds")} - known == set()


def test_the_files_that_variables_name_hold_csr_and_certificates(reflected):
    assert reflected["EST_CSR_FILE holds"].encode() == parse(CSR).pem
    assert reflected["EST_CLIENT_CERT_FILE holds"] == pem(CERTIFICATE)
    assert reflected["EST_RENEW_CERT_FILE holds"] == pem(CERTIFICATE)


def test_the_simplest_call_sets_exactly_the_variables_marked_always(tmp_path):
    found = seen_by_a_script(plain(tmp_path, client=client(tls=tls(server_name=None))))
    assert found.keys() == ALWAYS_SET
    assert {name: found[name] for name in ("EST_OPERATION", "EST_PROFILE", "EST_AUTH_METHODS", "EST_CLIENT_TRUST")} == {
        "EST_OPERATION": "cacerts",
        "EST_PROFILE": "rfc",
        "EST_AUTH_METHODS": "",
        "EST_CLIENT_TRUST": "none",
    }
    assert (found["EST_CLIENT_IS_RA"], found["EST_POP_REQUIRED"]) == ("0", "0")
    assert (found["SSL_CLIENT_VERIFY"], found["QUERY_STRING"]) == ("NONE", "")


# Single rows with several cases.


def get(call: Call, name: str) -> str | None:
    return environment_of(call).get(name)


def test_unverified_credentials_are_shown_only_where_configured(tmp_path):
    claimed = Credentials("Basic", "eve", "guess")
    call = plain(tmp_path, client=client(claimed=claimed))
    hidden = ("AUTH_TYPE", "REMOTE_USER", "EST_AUTH_SCHEME", "EST_USERNAME", "EST_PASSWORD")
    assert [get(call, name) for name in hidden] == [None] * 5
    shown = change(call, pass_credentials=True)
    assert [get(shown, name) for name in hidden] == [None, None, "Basic", "eve", "guess"]
    draft = replace(call, profile=Profile.DRAFT)
    assert [get(draft, name) for name in hidden] == [None, None, "Basic", "eve", "guess"]


def test_the_empty_user_sets_an_empty_remote_user(tmp_path):
    call = plain(tmp_path, client=client(claimed=Credentials("Basic", "", ""), user=""))
    assert (get(call, "REMOTE_USER"), get(call, "AUTH_TYPE")) == ("", "Basic")
    assert get(call, "EST_AUTH_METHODS") == "http"


def test_an_unverified_certificate_is_marked_failed(tmp_path):
    stranger = client(tls=tls(CERTIFICATE, verify_error="self-signed certificate"), certificate=CERTIFICATE)
    assert get(plain(tmp_path, client=stranger), "SSL_CLIENT_VERIFY") == "FAILED:self-signed certificate"


def test_an_ra_below_an_implicit_anchor_is_not_shown_as_ra(tmp_path):
    call = plain(tmp_path, client=replace(KNOWN, trust=Trust.IMPLICIT, is_ra=False))
    assert (get(call, "EST_CLIENT_TRUST"), get(call, "EST_CLIENT_IS_RA")) == ("implicit", "0")


@pytest.mark.parametrize("kind", BindingType)
def test_the_binding_has_its_type_and_its_value_in_base64(tmp_path, kind):
    call = plain(tmp_path, binding=Binding(kind, b"\xff" * 32))
    assert (get(call, "EST_TLS_BINDING"), get(call, "TLS_UNIQUE_SR")) == (kind.value, "/" * 42 + "8=")


@pytest.mark.parametrize("outcome", POP)
def test_est_pop_tells_the_outcome(tmp_path, outcome):
    assert get(full(tmp_path, pop=outcome), "EST_POP") == outcome.value


def test_est_reenroll_tells_renewal_from_rekey(tmp_path):
    assert get(full(tmp_path), "EST_REENROLL") == "renew"
    assert get(full(tmp_path, renewed=certificate(CA, key=OTHER)), "EST_REENROLL") == "rekey"
    assert get(full(tmp_path, renewed=None), "EST_REENROLL") is None


def test_new_names_replace_the_subject_and_san_of_the_csr(tmp_path):
    new = NewNames(name("CN=new,O=Ours"), None)
    call = full(tmp_path, new_names=new)
    assert get(call, "EST_CHANGE_SUBJECT") == "/2.5.4.10=Ours/2.5.4.3=new"
    assert get(call, "EST_CSR_SUBJECT") == "CN=new,O=Ours"
    assert get(call, "EST_CSR_SAN_0") is None


def keygen(call: Call) -> list[str | None]:
    return [get(call, f"EST_KEYGEN_{name}") for name in ("PROTECT", "KEY_ID", "ALGORITHMS")]


def test_keygen_variables_tell_how_to_protect_the_new_key(tmp_path):
    assert keygen(full(tmp_path)) == [None, None, None]
    assert keygen(plain(tmp_path, "serverkeygen", csr=parse(CSR))) == ["none", None, None]
    wishes = [
        attribute(DECRYPT_KEY_ID, tlv(OCTETS, b"\0key\n")),
        attribute(SMIME_CAPABILITIES, bytes.fromhex("301a300b060960864801650304012d300b060960864801650304012a")),
    ]
    asking = plain(tmp_path, "serverkeygen", csr=parse(csr("x", *wishes)))
    assert keygen(asking) == ["symmetric", "006b65790a", "id-aes256-wrap aes-256-cbc"]
    with pytest.raises(BadRequest, match="no SMIMECapabilities"):
        environment_of(plain(tmp_path, "serverkeygen", csr=parse(csr("x", wishes[0]))))


@pytest.mark.parametrize(("timeout", "text"), [(0.2, "1"), (1, "1"), (2.9, "2"), (30, "30")])
def test_est_timeout_is_in_whole_seconds_and_at_least_1(tmp_path, timeout, text):
    assert get(plain(tmp_path, timeout=timeout), "EST_TIMEOUT") == text


@pytest.mark.parametrize("body", [CSR, base64.encodebytes(CSR), armoured(CSR)])
def test_est_request_is_base64_of_der_however_the_body_came(tmp_path, body):
    call = full(tmp_path, body=body)
    assert get(call, "EST_REQUEST") == base64.b64encode(CSR).decode()
    assert get(call, "CONTENT_LENGTH") == str(len(body))


@pytest.mark.parametrize(
    ("body", "text"),
    [(b"\x30\x00", "MAA="), (b"MAA=\r\n", "MAA="), (b"no DER at all", base64.b64encode(b"no DER at all").decode())],
)
def test_est_request_of_another_body_is_its_base64(tmp_path, body, text):
    assert get(plain(tmp_path, "fullcmc", body=body), "EST_REQUEST") == text


def test_est_request_is_left_out_above_72_kib(tmp_path):
    assert get(plain(tmp_path, "fullcmc", body=bytes(72 * 1024)), "EST_REQUEST") is not None
    assert get(plain(tmp_path, "fullcmc", body=bytes(72 * 1024 + 1)), "EST_REQUEST") is None


@pytest.mark.parametrize("moment", [datetime(2026, month, 3, 8, 0, 5, tzinfo=UTC) for month in range(1, 13)])
def test_times_are_printed_as_openssl_does(moment):
    assert contract.openssl_time(moment) == moment.strftime("%b  3 08:00:05 2026 GMT")


def test_a_day_of_two_digits_is_printed_as_openssl_does():
    assert contract.openssl_time(datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)) == "Nov 23 18:00:00 2026 GMT"


# Harmful values.


def with_common_name(text: bytes, tmp_path: Path) -> Call:
    """A call whose SSL_CLIENT_S_DN_CN is this text."""
    made = certs.load(broken_certificate(CA, dn((CN, UTF8, text))))
    return plain(tmp_path, client=replace(KNOWN, certificate=made, claimed=None, user=None))


@pytest.mark.parametrize("body", [b"() { :; }; echo pwned", b"() {"])
def test_a_value_that_begins_like_a_shell_function_is_refused(tmp_path, body):
    text = body.decode()
    bad = [
        with_common_name(body, tmp_path),
        plain(tmp_path, query=text),
        plain(tmp_path, "fullcmc", headers=[("Content-Type", text)]),
        plain(tmp_path, headers={"User-Agent": text}),
        plain(tmp_path, client=client(user=text)),
        plain(tmp_path, client=client(tls=tls(server_name=text))),
        full(tmp_path, csr=parse(csr("x", attribute(OTP_CHALLENGE, tlv(UTF8, body))))),
    ]
    for call in bad:
        with pytest.raises(BadRequest, match="begins like a shell function"):
            environment_of(call)


def test_a_shell_function_after_other_text_is_passed_on(tmp_path):
    assert get(plain(tmp_path, query=" () { x"), "QUERY_STRING") == " () { x"


@pytest.mark.parametrize(
    "char", ["\0", "\1", "\t", "\r", "\x1b", "\x7f", "\x80", "\x9f", "\ud800", "\udcff", "\udfff", "\n"]
)
@pytest.mark.parametrize("form", ["{}", "a{}b", "-----BEGIN{}"])
def test_control_characters_of_a_request_are_refused(tmp_path, char, form):
    for call in (
        plain(tmp_path, headers={"User-Agent": form.format(char)}),
        plain(tmp_path, client=client(user=form.format(char))),
        plain(tmp_path, query=form.format(char)),
    ):
        with pytest.raises(BadRequest, match=r"HTTP_USER_AGENT|REMOTE_USER|QUERY_STRING"):
            environment_of(call)


@pytest.mark.parametrize("text", [b"a\nb", b"a\0b", b"\x1b[31m"])
def test_control_characters_of_a_certificate_are_escaped(tmp_path, text):
    call = with_common_name(text, tmp_path)
    assert "\\" in str(get(call, "SSL_CLIENT_S_DN_CN"))
    assert str(get(call, "SSL_CLIENT_S_DN")).isprintable()


def test_any_other_text_reaches_a_script_unchanged(tmp_path):
    text = "Zoë € 𝄞 ‮ $(id) `id` \"'\\ ; | & * ?"
    assert seen_by_a_script(plain(tmp_path, headers={"X-Name": text}))["HTTP_X_NAME"] == text


def test_a_value_longer_than_the_kernel_allows_is_refused(tmp_path):
    longest = "x" * (128 * 1024 - 1 - len("QUERY_STRING="))
    assert seen_by_a_script(plain(tmp_path, query=longest))["QUERY_STRING"] == longest
    with pytest.raises(BadRequest, match="QUERY_STRING is too long"):
        environment_of(plain(tmp_path, query=longest + "x"))


def test_the_length_of_a_value_is_counted_in_bytes(tmp_path):
    with pytest.raises(BadRequest, match="too long"):
        environment_of(plain(tmp_path, query="€" * 44_000))


def test_an_environment_that_is_too_large_is_refused(tmp_path):
    values = {f"X-{number}": "x" * 120_000 for number in range(9)}
    with pytest.raises(BadRequest, match="too large for a script"):
        environment_of(plain(tmp_path, headers=values))
    assert environment_of(plain(tmp_path, headers=dict(list(values.items())[:8])))


def test_more_than_128_names_are_refused(tmp_path):
    def asking(count: int) -> Call:
        wanted = san(*(x509.DNSName(f"h{number}") for number in range(count)))
        return full(tmp_path, csr=parse(csr("x", wanted)))

    assert get(asking(128), "EST_CSR_SAN_127") == "DNS:h127"
    with pytest.raises(BadRequest, match="More than 128 values for EST_CSR_SAN_n"):
        environment_of(asking(129))


@pytest.mark.parametrize(
    "value", [tlv(BOOLEAN, b"\xff"), tlv(UTF8, b"\xff"), tlv(UTF8, b"x" * 256)], ids=["BOOLEAN", "not UTF-8", "long"]
)
def test_an_otp_that_is_not_text_is_a_400(tmp_path, value):
    with pytest.raises(BadRequest, match="EST_OTP"):
        environment_of(full(tmp_path, csr=parse(csr("x", attribute(OTP_CHALLENGE, value)))))


def test_a_certificate_with_an_unreadable_name_is_a_400(tmp_path):
    with pytest.raises(BadRequest, match="SSL_CLIENT_S_DN"):
        environment_of(with_common_name(b"\xff", tmp_path))


@given(st.text(st.characters(), max_size=50))
def test_any_text_reaches_a_script_unchanged_or_is_refused(text):
    call = plain(Path("/tmp"), query=text, headers={"X-Y": text})
    try:
        made = environment_of(call)
    except BadRequest:
        return
    assert made["QUERY_STRING"] == text == made["HTTP_X_Y"]
    assert "\0" not in text
    assert not text.startswith("() {")
    assert text.encode().decode() == text


# The tables themselves.


def test_variable_names_are_unique_and_portable():
    assert len(ROWS) == len(ENV_VARS)
    for row in ROWS:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*(_(DNS|Email))?(_n)?|HTTP_<NAME>|<any>", row), row


def test_the_contract_has_version_1():
    assert contract.VERSION == "1"


# For each exit status: status of a handler, of authorize (None: go on), of authenticate, and whether words are shown.
CODES = {
    0: (200, None, None, False),
    65: (400, 400, 500, True),
    69: (503, 503, 503, True),
    75: (202, 202, 503, False),
    77: (403, 403, 401, True),
    64: (501, 500, 500, False),
}


def test_each_exit_status_has_its_http_status_per_kind():
    found = {
        row.exit: (
            row.status(Kind.HANDLER),
            row.status(Kind.AUTHORIZE),
            row.status(Kind.AUTHENTICATE),
            row.shows_words,
        )
        for row in EXIT_STATUS
    }
    assert found == CODES


def test_any_other_exit_status_is_a_500_without_words():
    row = OTHERWISE
    assert {row.status(kind) for kind in Kind} == {500}
    assert not row.shows_words


def test_exit_statuses_have_the_names_of_sysexits():
    assert {row.exit: row.name for row in EXIT_STATUS} == {
        0: "OK",
        64: "USAGE",
        65: "DATAERR",
        69: "UNAVAILABLE",
        75: "TEMPFAIL",
        77: "NOPERM",
    }


def test_no_verdict_uses_an_exit_status_of_set_e_or_a_traceback():
    assert not {row.exit for row in EXIT_STATUS} & {1, 2, 126, 127, *range(128, 256)}


def test_the_table_of_expected_values_covers_every_row(directory):
    """A new row needs its line above."""
    assert expected(directory).keys() | NOT_IN_ONE_CALL.keys() == ROWS.keys()


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (lambda c: c.http.header("x-other"), "not passed on"),
        (lambda c: c.route.runner, "auto"),
        (lambda c: str(c.csr.pkcs10.request.signature_hash_algorithm.name), "sha256"),
        (lambda c: c.client.tls.cipher, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ],
    ids=["HTTP", "route", "CSR", "client"],
)
def test_a_new_variable_needs_one_row_of_env_vars(tmp_path, monkeypatch, value, wanted):
    """A row can use all facts of a request, including those that no other variable tells."""
    row = contract.EnvVar("EST", "EST_NEW", "a new one", "always", value)
    monkeypatch.setattr(environment, "ENV_VARS", (*ENV_VARS, row))
    assert get(full(tmp_path), "EST_NEW") == wanted


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("kinds", [(one, two) for one in Kind for two in Kind])
def test_an_environment_made_from_another_callouts_is_that_made_from_empty(tmp_path, kinds, shown, profile):
    """Each variable that differs between the callouts of a request has `by_kind`."""
    call = full(tmp_path)
    call = replace(
        call, profile=profile, route=replace(call.route, pass_credentials=shown, timeout=31, decision_timeout=7)
    )
    one, two = (replace(call, kind=kind) for kind in kinds)
    assert environment_of(two, environment_of(one)) == environment_of(two)
