"""Answers with a few changed bytes end in one of our exceptions or in a sound result."""

from __future__ import annotations

import base64
import contextlib
from email.message import Message
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings, strategies

from estgw.client import Trust, cmc, crls, keygen, request
from estgw.client.faults import ClientError
from estgw.client.sealing import Secret
from estgw.client.transport import answers, pki_response
from estgw.client.transport.wire import Answer
from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_RESPONSE, PKIResponse
from estgw.cmc.status import StatusInfo
from estgw.cms import signed
from estgw.errors import Malformed
from estgw.est import ber, certs, csrattrs
from tests.client import cmcca
from tests.client.transport.test_rogue import ber as indefinite
from tests.fuzz.targets_client import TARGETS
from tests.kit.ca import root
from tests.kit.cases import some

VECTORS = Path(__file__).parents[1] / "vectors"
BAG = base64.b64decode((VECTORS / "rfc7030-a1-cacerts-response.b64").read_bytes())
CMC = base64.b64decode((VECTORS / "altmod-rfc6402-cmc-fullpkirequest.b64").read_bytes())
TEMPLATE = base64.b64decode((VECTORS / "derived-rfc9908-template.b64").read_bytes())
MULTIPART = (VECTORS / "rfc7030-a4-serverkeygen-response.multipart").read_bytes()
CA = root()
TRUSTED = Trust(explicit=(CA.certificate,))
MARKS = (("statusInfoV2", StatusInfo(0, (1,))), ("transactionId", 7), ("recipientNonce", b"nonce"))
CONTENT = PKIResponse(tuple(Control.make(at, *pair) for at, pair in enumerate(MARKS, 1))).encode()
RESPONSE = signed.sign(PKI_RESPONSE, CONTENT, [signed.Signer.of(CA.key, CA.certificate)], certificates=[CA.certificate])
CRL = cmcca.Desk(CA).crl()
SECRET = Secret(b"id", key=bytes(16))
WANTED = request.Wanted(x509.Name.from_rfc4514_string("CN=x"))
FEW = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def changed(data):
    """`data` with up to four bytes replaced, cut off, or doubled somewhere."""
    spots = strategies.lists(
        strategies.tuples(strategies.integers(0, len(data) - 1), strategies.binary(max_size=3)), max_size=4
    )

    def apply(changes):
        made = bytearray(data)
        for at, other in changes:
            made[at : at + 1] = other
        return bytes(made)

    return spots.map(apply)


@FEW
@given(changed(BAG) | changed(indefinite(BAG)))
def test_a_changed_bag_is_read_or_an_invalid_answer(data):
    try:
        found = answers.bag_of(data)
    except ClientError:
        return
    assert found


@FEW
@given(changed(CMC) | changed(indefinite(CMC)))
def test_a_changed_cmc_request_ends_in_no_traceback(data):
    cmc.marks_of(data)
    cmc.has_secret(data)
    with contextlib.suppress(Malformed):
        cmc.request(data)


@FEW
@given(changed(RESPONSE) | changed(indefinite(RESPONSE)))
def test_a_changed_cmc_response_is_refused_unless_its_content_is_kept(data):
    """Only a change to an unsigned part, such as the bag, leaves a valid answer."""
    try:
        found = pki_response.response(data)
        cmc.authenticate(found, TRUSTED, "localhost")
        cmc.check_echo(found, 7, b"nonce")
        certificate = cmc.certificate_for(found, certs.spki(CA.certificate))
    except (Malformed, ClientError):
        return
    assert certs.spki(certificate) == certs.spki(CA.certificate)
    assert found.is_simple or found.message.content == CONTENT


@FEW
@given(changed(CRL))
def test_a_changed_crl_is_read_or_refused(data):
    message = signed.SignedData(signed.DATA, None, crls=(data,))
    with contextlib.suppress(ClientError):
        assert crls.newest(message, CA.certificate.subject, TRUSTED).issuer == CA.certificate.subject


@FEW
@given(changed(TEMPLATE))
def test_changed_csr_attributes_are_followed_or_refused(data):
    try:
        plan = request.plan(WANTED, csrattrs.decode_csrattrs(data))
    except (ClientError, Malformed):
        return
    assert plan.subject


@FEW
@given(changed(MULTIPART), strategies.sampled_from([Secret(), SECRET]))
def test_a_changed_keygen_answer_is_read_or_an_invalid_answer(body, secret):
    headers = Message()
    headers["Content-Type"] = "multipart/mixed; boundary=estServerExampleBoundary"
    try:
        key, certificate = keygen.read(Answer(200, "OK", headers, body), secret)
    except ClientError:
        return
    assert key
    assert certificate


@pytest.mark.parametrize("name", some(TARGETS, 2))
def test_a_few_changed_bytes_end_in_no_traceback(name):
    function, seeds = TARGETS[name]

    @settings(FEW, max_examples=40)
    @given(strategies.one_of([changed(seed) for seed in seeds]))
    def run(data):
        function(data)

    run()


def test_the_unchanged_bag_is_read():
    assert len(answers.bag_of(BAG)) == len(answers.bag_of(indefinite(BAG))) == 4


@pytest.mark.parametrize("data", [BAG, CMC, TEMPLATE])
def test_to_der_keeps_der_unchanged(data):
    assert ber.to_der(data) == data
    assert ber.to_der(indefinite(data)) == data


@pytest.mark.parametrize(
    ("given_", "der"),
    [
        ("2480 0401aa 0402bbcc 0000", "0403aabbcc"),
        ("2405 0401aa 0400", "0401aa"),
        ("3081 00", "3000"),
        ("1f8101 8100", "1f810100"),
    ],
)
def test_to_der_converts_every_form_of_ber(given_, der):
    assert ber.to_der(bytes.fromhex(given_)) == bytes.fromhex(der)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3080",
        "3001",
        "0480",
        "30800401aa",
        "2480020100 0000",
        "3000 00",
        "1f81",
        "3082ff",
        "30030402aa",
        "30" * 40,
    ],
)
def test_to_der_refuses_other_bytes(data):
    with pytest.raises(Malformed):
        ber.to_der(bytes.fromhex(data))
