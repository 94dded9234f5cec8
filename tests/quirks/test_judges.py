"""The judges, on evidence made by hand: each can say PASS and FAIL, and says UNCLEAR where files would decide."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client import keys, request
from estgw.client.sealing import Secret
from estgw.est import certs, csrattrs_data
from estgw.est.binding import BindingType
from estgw.quirks import judges
from estgw.quirks.kept import Kept
from estgw.quirks.material import Material, common_name
from estgw.quirks.seen import Exchange, Handshake, Place, Result, Step
from tests.kit.keys import KEY, KEY_PEM, key_pem

MATERIAL = Material(["localhost"])
ISSUED = MATERIAL.issue(common_name("device"), KEY.public_key())
OTHER = MATERIAL.issue(common_name("device"), MATERIAL.other_key.public_key())
SPKI = certs.spki(ISSUED)
PASS, FAIL, UNCLEAR, UNTRIED = Result.PASS, Result.FAIL, Result.UNCLEAR, Result.UNTRIED


def pem(*certificates):
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def bag(*certificates):
    return base64.encodebytes(certs.pack(certificates))


def exchange(status=200, **facts):
    plain = Exchange(
        quirk="x",
        place=Place.MAIN,
        client="",
        address="127.0.0.1",
        agent="",
        connection=1,
        came=0.0,
        left=0.0,
        method="POST",
        operation="simpleenroll",
        status=status,
        key=SPKI,
    )
    return replace(plain, **facts)


SERVED = exchange(certificate=ISSUED, body=bag(ISSUED))


def handshake(place=Place.OWN, fault=""):
    return Handshake("x", place, "127.0.0.1", 1, fault, "TLSv1.3")


def kept(status=0, stderr=b"", **files):
    return Kept(status, dict(files), stderr, MATERIAL.own)


def verdict(judge, *events, kept=None, operation="enroll"):
    return judge([Step(operation, events, kept)]).result


NOTHING = kept(1, b"estclient: no\n")
GOOD = kept(out=pem(ISSUED))


# Reading a right answer.


@pytest.mark.parametrize(
    ("left", "result"),
    [
        (GOOD, PASS),
        (kept(out=pem(ISSUED), key=KEY_PEM), PASS),
        (kept(out=ISSUED.public_bytes(Encoding.DER)), PASS),
        (kept(out=bag(ISSUED)), PASS),
        (kept(1, out=pem(ISSUED)), PASS),
        (kept(out=pem(ISSUED), key=key_pem(MATERIAL.other_key)), FAIL),
        (kept(out=pem(OTHER)), FAIL),
        (kept(), FAIL),
        (NOTHING, FAIL),
        (None, UNCLEAR),
    ],
)
def test_a_right_answer_must_be_kept_with_a_key_that_fits(left, result):
    assert verdict(judges.takes, SERVED, kept=left) is result


def test_a_client_that_is_not_served_is_untried_and_one_that_fails_the_handshake_has_failed():
    assert verdict(judges.takes, kept=NOTHING) is UNTRIED
    assert verdict(judges.takes, exchange(401), kept=NOTHING) is UNTRIED
    assert verdict(judges.takes, handshake(fault="unsupported protocol"), kept=NOTHING) is FAIL


# Refusing a wrong one.


@pytest.mark.parametrize(
    ("left", "result"),
    [
        (NOTHING, PASS),
        (kept(1, log=b"no certificate here"), PASS),
        (kept(1, ca=pem(MATERIAL.old.certificate)), PASS),
        (kept(-9), PASS),
        (kept(), UNCLEAR),
        (Kept(None), UNCLEAR),
        (None, UNCLEAR),
        (kept(out=pem(OTHER)), FAIL),
        (kept(1, out=pem(OTHER)), FAIL),
        (kept(1, out=bag(OTHER)), FAIL),
    ],
)
def test_no_part_of_a_wrong_answer_may_be_kept(left, result):
    wrong = exchange(certificate=OTHER, body=bag(OTHER))
    assert verdict(judges.refuses, wrong, kept=left) is result


@pytest.mark.parametrize("body", [b"<title>Sign in</title>\n", base64.encodebytes(b"nonsense " * 30)])
def test_the_body_of_a_wrong_answer_is_found_as_it_was_and_decoded(body):
    wrong = exchange(body=body)
    assert verdict(judges.refuses, wrong, kept=kept(out=b"HTTP/1.1 200\n\n" + body)) is FAIL
    if body.startswith(b"bm9"):
        assert verdict(judges.refuses, wrong, kept=kept(out=base64.b64decode(body))) is FAIL
        assert verdict(judges.refuses, wrong, kept=kept(1, out=body.replace(b"\n", b"\r\n"))) is FAIL
    assert verdict(judges.refuses, exchange(401), kept=NOTHING) is UNTRIED


def test_a_private_key_that_is_not_the_clients_own_is_part_of_a_wrong_answer():
    wrong = exchange(operation="serverkeygen", certificate=OTHER, body=b"multipart")
    step = {"operation": "serverkeygen"}
    assert verdict(judges.refuses, wrong, kept=kept(1, key=key_pem(MATERIAL.other_key)), **step) is FAIL
    assert verdict(judges.refuses, wrong, kept=kept(1, key=KEY_PEM), **step) is PASS


def test_a_clear_key_is_wrong_only_for_a_client_that_asked_for_a_sealed_one():
    plan = request.plan(request.Wanted(common_name("x")), None)
    wish = Secret.shared(bytes(32), b"id").attributes
    sealed, clear = (request.build(plan, KEY, None, extra) for extra in (wish, ()))
    step = {"operation": "serverkeygen-sealed", "kept": NOTHING}
    asked = exchange(operation="serverkeygen", body=b"multipart", csr=sealed)
    assert verdict(judges.refuses_a_clear_key, asked, **step) is PASS
    assert verdict(judges.refuses_a_clear_key, replace(asked, csr=clear), **step) is UNTRIED
    assert verdict(judges.refuses_a_clear_key, **step) is UNTRIED


@pytest.mark.parametrize(
    ("left", "result"),
    [
        (GOOD, PASS),
        (kept(out=pem(ISSUED, MATERIAL.old.certificate)), PASS),
        (kept(out=pem(MATERIAL.old.certificate, ISSUED)), FAIL),
        (kept(out=pem(MATERIAL.old.certificate)), FAIL),
        (NOTHING, PASS),
        (kept(), UNCLEAR),
        (None, UNCLEAR),
    ],
)
def test_of_two_certificates_the_clients_own_comes_first(left, result):
    assert verdict(judges.finds_the_leaf, SERVED, kept=left) is result


def test_a_bag_as_it_came_is_for_its_reader():
    first, second = sorted((ISSUED, MATERIAL.old.certificate), key=lambda one: one.public_bytes(Encoding.DER))
    raw = kept(out=base64.b64encode(certs.pack([first, second])))
    expected = PASS if first == ISSUED else UNCLEAR
    assert verdict(judges.finds_the_leaf, SERVED, kept=raw) is expected


# Coming back.


def tries(*times, link=None, statuses=(202, 202, 200)):
    """Enrolments at these seconds, each on a connection of its own."""
    return [
        exchange(status, came=at, left=at, connection=number, link=link, claims_link=bool(link), certificate=ISSUED)
        for number, (at, status) in enumerate(zip(times, statuses, strict=False))
    ]


RETURNS = judges.returns(2, must=True)
MAY_STOP = judges.returns(1, must=False)


def test_coming_back_in_time_passes_and_sooner_fails():
    assert verdict(RETURNS, *tries(0, 2, 4), kept=GOOD) is PASS
    assert verdict(RETURNS, *tries(0, 1.95, 4), kept=GOOD) is PASS
    assert verdict(RETURNS, *tries(0, 1.5, 4), kept=GOOD) is FAIL
    assert verdict(RETURNS, *tries(0, 2, 2.1), kept=GOOD) is FAIL
    assert verdict(RETURNS, *tries(0, 2, 4)) is PASS
    assert verdict(RETURNS, *tries(0, 2, 4), kept=NOTHING) is FAIL


def test_a_challenge_between_two_tries_is_no_try():
    first, second, third = tries(0, 2, 4)
    assert verdict(RETURNS, exchange(401), first, exchange(401, came=1.99), second, third, kept=GOOD) is PASS


@pytest.mark.parametrize(
    ("left", "must", "may"),
    [
        (NOTHING, UNCLEAR, PASS),
        (kept(), FAIL, FAIL),
        (Kept(None), UNCLEAR, UNCLEAR),
        (None, UNCLEAR, UNCLEAR),
    ],
)
def test_not_coming_back_is_judged_by_what_the_client_says(left, must, may):
    assert verdict(RETURNS, *tries(0), kept=left) is must
    assert verdict(MAY_STOP, *tries(0, statuses=(503,)), kept=left) is may


def test_a_linked_csr_must_be_linked_anew_on_a_new_connection():
    first, second, third = tries(0, 2, 4, link=BindingType.TLS_EXPORTER)
    assert verdict(RETURNS, first, second, third, kept=GOOD) is PASS
    stale = replace(second, link=None)
    assert verdict(RETURNS, first, stale, third, kept=GOOD) is FAIL
    assert verdict(RETURNS, first, replace(stale, connection=first.connection), third, kept=GOOD) is PASS


def test_a_client_that_was_never_told_later_is_untried():
    assert verdict(RETURNS, SERVED, kept=GOOD) is UNTRIED


# Logging in, and following.


def test_a_refused_password_may_be_sent_a_few_times():
    def sent(count):
        return [exchange(401)] + [exchange(401, scheme="basic", is_right=True)] * count

    assert verdict(judges.gives_up, *sent(2), kept=NOTHING) is PASS
    assert verdict(judges.gives_up, *sent(2)) is PASS
    assert verdict(judges.gives_up, *sent(judges.MOST_PASSWORDS + 1), kept=NOTHING) is FAIL
    assert verdict(judges.gives_up, *sent(2), kept=Kept(None)) is FAIL
    assert verdict(judges.gives_up, *sent(2), kept=kept()) is UNCLEAR
    assert verdict(judges.gives_up, *sent(0), kept=NOTHING) is UNTRIED


def test_logging_in_takes_a_right_digest():
    digest = replace(SERVED, scheme="digest", is_right=True)
    assert verdict(judges.logs_in, exchange(401), digest, kept=GOOD) is PASS
    assert verdict(judges.logs_in, exchange(401), digest) is PASS
    assert verdict(judges.logs_in, exchange(401, scheme="basic"), kept=NOTHING) is FAIL
    assert verdict(judges.logs_in, exchange(401, scheme="digest"), kept=NOTHING) is FAIL
    assert verdict(judges.logs_in, kept=NOTHING) is UNTRIED


def test_a_redirect_on_the_same_server_is_followed():
    assert verdict(judges.follows, exchange(307), SERVED, kept=GOOD) is PASS
    assert verdict(judges.follows, exchange(307), SERVED) is PASS
    assert verdict(judges.follows, exchange(307), kept=NOTHING) is FAIL
    assert verdict(judges.follows, exchange(401), kept=NOTHING) is UNTRIED


def test_a_redirect_to_the_wrong_server_gets_nothing():
    away = exchange(307)
    there = exchange(401, place=Place.ASIDE)
    assert verdict(judges.stays_away, away) is PASS
    assert verdict(judges.stays_away, away, handshake(Place.ASIDE, "unknown ca")) is PASS
    assert verdict(judges.stays_away, away, handshake(Place.ASIDE)) is PASS
    assert verdict(judges.stays_away, away, handshake(Place.ASIDE), there) is FAIL
    assert verdict(judges.stays_away, exchange(401)) is UNTRIED


def test_a_server_that_must_not_be_trusted_gets_nothing():
    sent = exchange(401, place=Place.OWN)
    assert verdict(judges.sends_nothing, handshake(fault="unknown ca")) is PASS
    assert verdict(judges.sends_nothing, handshake()) is PASS
    assert verdict(judges.sends_nothing, handshake(), sent) is FAIL
    password = judges.sends_nothing([Step("enroll", [handshake(), sent, replace(sent, scheme="basic")])])
    assert password.evidence == ("it sent its password there (basic)",)
    assert verdict(judges.sends_nothing, kept=NOTHING) is UNTRIED


def test_an_ra_is_trusted_under_explicit_anchors_only():
    def trial(first, *more):
        steps = [Step("enroll", first[0], first[1]), *(Step("enroll-implicit", *one) for one in more)]
        return judges.trusts_an_ra(steps).result

    went = ([handshake(), replace(SERVED, place=Place.OWN)], GOOD)
    refused = ([handshake(fault="unknown ca")], NOTHING)
    assert trial(went) is PASS
    assert trial(went, refused) is PASS
    assert trial(went, went) is FAIL
    assert trial(refused) is FAIL
    assert trial(([], NOTHING)) is UNTRIED
    assert trial((went[0], None)) is UNCLEAR
    assert trial((refused[0], None)) is UNCLEAR


# /cacerts and /csrattrs.


def test_the_newest_root_must_be_kept():
    served = exchange(operation="cacerts", body=bag(*MATERIAL.rollover), key=b"")
    step = {"operation": "cacerts"}
    new, old = MATERIAL.new.certificate, MATERIAL.old.certificate
    assert verdict(judges.takes_the_newest_root, served, kept=kept(out=pem(new)), **step) is PASS
    assert verdict(judges.takes_the_newest_root, served, kept=kept(one=pem(old), two=pem(new)), **step) is PASS
    assert verdict(judges.takes_the_newest_root, served, kept=kept(out=new.public_bytes(Encoding.DER)), **step) is PASS
    assert verdict(judges.takes_the_newest_root, served, kept=kept(out=pem(old)), **step) is FAIL
    assert verdict(judges.takes_the_newest_root, served, kept=NOTHING, **step) is FAIL
    assert verdict(judges.takes_the_newest_root, served, kept=kept(out=served.body), **step) is UNCLEAR
    assert verdict(judges.takes_the_newest_root, served, **step) is UNCLEAR
    assert verdict(judges.takes_the_newest_root, kept=NOTHING, **step) is UNTRIED


def attributes(wishes):
    body = base64.encodebytes(csrattrs_data.read(wishes).encode())
    return exchange(operation="csrattrs", method="GET", body=body, key=b"")


def test_a_template_must_be_obeyed_and_nothing_beside_it():
    wishes = [{"key": "rsa:3072"}, {"template": {"subject": [{"organizationName": "x"}], "key": "ec:P-384"}}]
    asked = attributes(wishes)

    def made(subject, curve):
        plan = request.plan(request.Wanted(x509.Name.from_rfc4514_string(subject)), None)
        return exchange(csr=request.build(plan, keys.generate(keys.parse_spec(curve)), None))

    assert verdict(judges.obeys_the_template, asked, made("O=x", "ec:P-384"), kept=GOOD) is PASS
    assert verdict(judges.obeys_the_template, asked, made("O=x", "rsa:3072"), kept=GOOD) is FAIL
    assert verdict(judges.obeys_the_template, asked, made("CN=x", "ec:P-384"), kept=GOOD) is FAIL
    assert verdict(judges.obeys_the_template, asked, kept=NOTHING) is FAIL
    assert verdict(judges.obeys_the_template, made("O=x", "ec:P-384"), kept=GOOD) is UNTRIED


def test_unknown_attributes_must_not_stop_a_client():
    asked = attributes(["1.2.3.4"])
    request_ = replace(SERVED, csr=b"0")
    assert verdict(judges.ignores_the_unknown, asked, request_, kept=GOOD) is PASS
    assert verdict(judges.ignores_the_unknown, asked, request_) is PASS
    assert verdict(judges.ignores_the_unknown, asked, kept=NOTHING) is FAIL
    assert verdict(judges.ignores_the_unknown, request_, kept=GOOD) is UNTRIED


def test_a_csr_must_be_linked_to_its_own_connection():
    made = exchange(csr=b"0")
    for kind in BindingType:
        assert verdict(judges.links, replace(made, link=kind, claims_link=True)) is PASS
    assert verdict(judges.links, replace(made, claims_link=True)) is FAIL
    assert verdict(judges.links, made) is FAIL
    assert verdict(judges.links, exchange(401)) is UNTRIED


# What was kept.


def test_a_kept_certificate_must_be_for_the_key_of_the_csr():
    served = replace(SERVED, key=certs.spki(OTHER))
    assert verdict(judges.takes, served, kept=GOOD) is FAIL


def test_keys_of_all_kinds_are_found():
    for key in (KEY, ec.generate_private_key(ec.SECP384R1())):
        assert len(kept(out=b"words\n" + key_pem(key)).keys) == 1
    assert kept(out=b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n").keys == []


def test_the_ending_is_one_clean_line():
    assert kept(7, b"a\nno \x1b[31m\n").ending == "exit status 7: no \\x1b[31m"
    assert kept(-9).ending == "signal 9"
    assert Kept(None).ending == "it did not end and was stopped"
