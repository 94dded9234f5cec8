"""The shipped scripts' policies, each switched on as a user would: by removing the comment signs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.kit.ca import CLIENT_AUTH, CMC_RA, SERVER_AUTH, name
from tests.kit.clients import People
from tests.kit.csr import csr
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.gateway import LOGIN, Gateway, enrol, running_gateway
from tests.kit.keys import OTHER
from tests.kit.scripts import REFLECTING, edited, policy, uncommented
from tests.kit.workspace import Workspace

BODY = csr("device-1")
HELPERS = "handlers/openssl/policy.sh"
SETTINGS = "handlers/openssl/settings.sh"
ENROL = "handlers/openssl/simpleenroll"
REENROLL = "handlers/openssl/simplereenroll"


@pytest.fixture(scope="module")
def gateway(own: Workspace, people: People) -> Iterator[Gateway]:
    """The shipped scripts as they are, and under `seen` with a handler that issues nothing."""
    reflect = {"handler": str(own.path / "reflect"), **REFLECTING}
    config = {"client_auth": people.config, "labels": {"seen": {"operations": {"simpleenroll": reflect}}}}
    with running_gateway(own, config) as running:
        yield running


# The shipped policy, and the rules in it that can be switched on.


def verdict(gateway: Gateway, body: bytes, **options: Any) -> tuple[int, str]:
    answer = gateway.post("seen/simpleenroll", body, **options)
    return answer.status, answer.words if answer.status == 403 else ""


def named(cn: str, *names: x509.GeneralName) -> bytes:
    return csr(cn, *names)


def test_the_shipped_policy_refuses_only_one_time_passwords(gateway, people):
    for options in ({}, {"login": None, "certificate": people.pairs["ours"]}):
        assert verdict(gateway, BODY, **options)[0] == 200
    otp = csr("device-1", attribute("1.2.840.113549.1.9.16.2.56", tlv(UTF8, b"1234")))
    assert verdict(gateway, otp) == (403, "one-time passwords are not taken here")


def test_policy_permits_password_clients_only_their_own_name(gateway, own, people):
    refusal = (403, "you may only be CN=estuser and nothing else")
    with policy(own, "A client that logs in with a password"):
        assert verdict(gateway, named("estuser")) == (200, "")
        assert verdict(gateway, named("alice"), login="alice:secret") == (200, "")
        for cn in ("alice", "estuser ", "ESTUSER", "estuser,O=x"):
            assert verdict(gateway, named(cn)) == refusal
        assert verdict(gateway, csr(name("O=x,CN=estuser"))) == refusal
        assert verdict(gateway, named("estuser", x509.DNSName("evil.example"))) == refusal
        # A client with a certificate is not affected.
        assert verdict(gateway, BODY, login=None, certificate=people.pairs["ours"])[0] == 200
    assert verdict(gateway, named("alice"))[0] == 200


def require_refusal_of_foreign_hosts(ask: Callable[[bytes], tuple[int, str]]) -> None:
    """CN and SAN must be hosts in example.org. The words name the one that is not."""
    ours = x509.DNSName("a.example.org")
    assert ask(named("a.example.org")) == (200, "")
    assert ask(named("a.example.org", ours, x509.DNSName("b.c.example.org"))) == (200, "")
    for other in ("a.example.net", "aexample.org", "a.example.org.evil.example", "*.example.org"):
        assert ask(named("a.example.org", ours, x509.DNSName(other))) == (403, f"not ours to certify: DNS:{other}")
        assert ask(named(other, ours)) == ask(named(other)) == (403, f"not ours to certify: CN={other}")
    mail = x509.RFC822Name("x@a.example.org")
    assert ask(named("a.example.org", mail)) == (403, "not ours to certify: email:x@a.example.org")
    assert ask(csr(name("O=example.org"))) == (403, "not ours to certify: it names no host")


def test_policy_permits_only_hosts_in_our_domains(gateway, own):
    with policy(own, "Only hosts in our domains"):
        require_refusal_of_foreign_hosts(lambda body: verdict(gateway, body))


def test_policy_permits_only_listed_certificates(gateway, own, people):
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


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-23 08:00", True),  # a Monday
        ("2026-11-23 07:59", False),
        ("2026-11-27 17:59", True),  # a Friday
        ("2026-11-27 18:00", False),
        ("2026-11-25 00:30", False),
        ("2026-11-28 12:00", False),
        ("2026-11-29 09:00", False),  # a Sunday
    ],
)
def test_policy_permits_requests_only_in_office_hours(gateway, own, moment, is_open):
    seconds = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    with policy(own, "Office hours, UTC"):
        clock = f"unset EPOCHSECONDS\nEPOCHSECONDS={seconds}\n"  # the present moment, which a test can't choose
        with edited(own, HELPERS, clock + (own.path / HELPERS).read_text()):
            assert verdict(gateway, BODY) == ((200, "") if is_open else (403, "come back in office hours"))


def test_policy_office_hours_follow_the_real_clock(gateway, own):
    with policy(own, "Office hours, UTC"):
        while True:
            before = datetime.now(UTC)
            status, _ = verdict(gateway, BODY)
            if datetime.now(UTC).hour == before.hour:
                break
    assert status == (200 if before.isoweekday() < 6 and 8 <= before.hour < 18 else 403)


def test_policy_lets_only_ras_name_others(gateway, own, people):
    with policy(own, "Only RAs may name others"):
        for kind, status in (("our RA", 200), ("ours", 403), ("theirs", 403), ("their RA", 403), ("none", 403)):
            login = LOGIN if kind == "none" else None
            assert verdict(gateway, named("other"), certificate=people.pairs[kind], login=login)[0] == status, kind
        for kind in ("ours", "our RA", "theirs"):
            assert verdict(gateway, BODY, certificate=people.pairs[kind], login=None)[0] == 200
        assert verdict(gateway, BODY)[0] == 403


def test_policy_lets_only_ras_ask_for_others_alternative_names(gateway, own, people, tmp_path):
    """The subject is not the only name: a server's host names are alternative names."""
    host, mail = x509.DNSName("a.example"), x509.RFC822Name("d@a.example")
    pair = enrol(gateway, tmp_path, "device-1", host, mail)
    with policy(own, "Only RAs may name others"):
        for wanted in ([], [host], [mail, host], [x509.DNSName("A.Example")]):
            assert verdict(gateway, named("device-1", *wanted), certificate=pair, login=None) == (200, "")
        for other in (
            x509.DNSName("b.example"),
            x509.DNSName("d@a.example"),
            x509.DNSName("a.exampl"),
            x509.DNSName(".*"),
            x509.RFC822Name("a.example"),
            x509.UniformResourceIdentifier("a.example"),
            x509.IPAddress(ip_address("192.0.2.1")),
            x509.DirectoryName(name("CN=device-1")),
        ):
            status, words = verdict(gateway, named("device-1", host, other), certificate=pair, login=None)
            assert (status, words.startswith("only an RA may name others: ")) == (403, True), other
            assert verdict(gateway, named("other", other), certificate=people.pairs["our RA"], login=None)[0] == 200
        # A client whose certificate has no alternative names may not ask for any.
        ours = {"certificate": people.pairs["ours"], "login": None}
        assert verdict(gateway, named("device-1", host), **ours) == (403, "only an RA may name others: DNS:a.example")


def test_policy_ignores_the_name_in_an_unverified_certificate(own, people):
    """`pass` shows scripts unverified certificates, in which a client can write any name."""
    config = {"client_auth": {**people.config, "unknown_certificates": "pass"}}
    with running_gateway(own, config) as gateway, policy(own, "Only RAs may name others"):
        for kind, status in (("unknown", 403), ("expired", 403), ("revoked", 403), ("ours", 200)):
            assert gateway.post("simpleenroll", BODY, certificate=people.pairs[kind]).status == status


# Rules in the handlers that can be switched on.


def enrolled(gateway: Gateway, body: bytes, **options: Any) -> tuple[int, str]:
    answer = gateway.post("simpleenroll", body, **options)
    return answer.status, answer.words if answer.status == 403 else ""


def usages(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_profile_and_lifetime_hold_for_a_renewal(gateway, own, people):
    with uncommented(own, SETTINGS, "profile=server lifetime=10m"):
        issued = gateway.post("simpleenroll", BODY).certificate
        renewed = gateway.post("simplereenroll", BODY, login=None, certificate=people.pairs["ours"]).certificate
    for certificate in (issued, renewed):
        assert usages(certificate) == [SERVER_AUTH]
        assert timedelta(0) < certificate.not_valid_after_utc - datetime.now(UTC) <= timedelta(minutes=10)
    assert usages(gateway.post("simpleenroll", BODY).certificate) == [CLIENT_AUTH]


def test_simpleenroll_can_be_limited_to_the_users_own_name(gateway, own, people):
    with uncommented(own, ENROL, "only_user_name"):
        assert enrolled(gateway, named("estuser")) == (200, "")
        assert enrolled(gateway, named("alice"), login="alice:secret") == (200, "")
        for cn in ("alice", "estuser,O=x", "*", ""):
            assert enrolled(gateway, named(cn))[0] in (400, 403)
        assert enrolled(gateway, BODY) == (403, "you may only be CN=estuser and nothing else")
        # A client with a certificate alone has no user name.
        ours = {"login": None, "certificate": people.pairs["ours"]}
        assert enrolled(gateway, BODY, **ours) == (403, "you may only be CN= and nothing else")


def test_simpleenroll_can_be_limited_to_clients_of_our_ca(gateway, own, people):
    with uncommented(own, ENROL, "[[ $EST_CLIENT_TRUST == explicit ]]"):
        for kind, status in (("ours", 200), ("our RA", 200), ("theirs", 403), ("their RA", 403), ("none", 403)):
            for login in (LOGIN, None) if kind != "none" else (LOGIN,):
                found = enrolled(gateway, BODY, certificate=people.pairs[kind], login=login)
                words = "" if status == 200 else "come back with a certificate of ours"
                assert found == (status, words), kind


def test_simpleenroll_can_be_limited_to_our_hosts(gateway, own):
    with uncommented(own, ENROL, "allowed_suffix"):
        require_refusal_of_foreign_hosts(lambda body: enrolled(gateway, body))


def test_simpleenroll_can_drop_alternative_names(gateway, own):
    text = (own.path / ENROL).read_text()
    wanted = named("a", x509.DNSName("a.example"))
    assert "DNSName(value='a.example')" in str(gateway.post("simpleenroll", wanted).certificate.extensions)
    with edited(own, ENROL, text.replace("names=${EST_CSR_EXT_SAN-}", "names=")):
        issued = gateway.post("simpleenroll", wanted).certificate
    assert "a.example" not in str(issued.extensions)


def test_simplereenroll_rules_for_keys_dates_and_ras_work(gateway, own, people, tmp_path):
    """All three of its rules, two of them together."""
    pair = enrol(gateway, tmp_path)
    other = csr("device-1", key=OTHER)

    def renewed(body: bytes, certificate: tuple[Path, Path] = pair) -> tuple[int, str]:
        answer = gateway.post("simplereenroll", body, login=None, certificate=certificate)
        return answer.status, answer.words if answer.status == 403 else ""

    same = csr("device-1")  # with the key of the certificate
    assert renewed(same) == renewed(other) == (200, "")
    with uncommented(own, REENROLL, "[[ $EST_REENROLL == rekey ]]"):
        assert renewed(same) == (403, "make a new key first")
        assert renewed(other) == (200, "")
        with uncommented(own, REENROLL, "ends_within"):
            assert renewed(other) == (403, "too early: come back in the last 30 days")
            # This certificate ends in a little less than 30 days.
            assert renewed(other, people.pairs["ours"]) == (200, "")
    with uncommented(own, REENROLL, "[[ $EST_CLIENT_IS_RA == 0 ]]"):
        for kind, found in (("our RA", [CLIENT_AUTH, CMC_RA]), ("ours", [CLIENT_AUTH])):
            answer = gateway.post("simplereenroll", BODY, login=None, certificate=people.pairs[kind])
            assert sorted(usages(answer.certificate), key=str) == sorted(found, key=str)
