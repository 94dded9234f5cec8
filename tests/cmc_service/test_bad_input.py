"""fullcmc with faulty input: a signed refusal with the right code, quickly, and no certificate."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from estgw.cmc.controls import Control
from estgw.cmc.messages import PKI_DATA, PKI_RESPONSE, PKIData, TaggedContentInfo
from estgw.cmc.requests import PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc.values import LraPopWitness
from estgw.cms import signed
from estgw.cms.fields import integer, oid, sequence
from tests.client.transport.test_rogue import ber
from tests.cmc_service import office as cmc
from tests.cmc_service.office import Person, control, fresh, message, new_key, pkcs10, proof
from tests.kit.ca import certificate, root
from tests.kit.der import tlv, vector
from tests.kit.keys import key_pem
from tests.kit.processes import run

PATIENCE = 10.0
"""No message may take longer than these seconds, even on a busy machine."""


@pytest.fixture(scope="module")
def office(lab, tmp_path_factory):
    office = cmc.Office(lab.copy(tmp_path_factory.mktemp("bad")))
    office.secrets()
    return office


@pytest.fixture(scope="module")
def member(office):
    return office.person("device-7")


def good(member, *controls) -> bytes:
    return message(PKIData((*fresh(), *controls), (pkcs10(1, key=member.key),)), member)


def raw(member, content: bytes, kind: str = PKI_DATA) -> bytes:
    """Any content, properly signed."""
    bag, at = [member.certificate], datetime.now(UTC)
    return signed.sign(kind, content, [member.signer], certificates=bag, signing_time=at)


def refused(office, body, *, failure=CMCFailInfo.BAD_REQUEST, parts=(0,), **env):
    """Expect a refusal of the whole message, quickly, with nothing issued."""
    before, started = office.count(), time.monotonic()
    reply = office.ask(body, **env)
    assert time.monotonic() - started < PATIENCE
    assert reply.failure is failure, reply.statuses
    assert reply.status.body_list == parts
    assert office.count() == before
    return reply


def test_the_sample_that_the_other_tests_break_is_accepted(office, member):
    assert office.ask(good(member)).status.status == CMCStatus.SUCCESS


@pytest.mark.parametrize("coat", ["PEM", "base64", "DER"])
def test_pem_base64_and_der_are_accepted(office, member, coat):
    der = good(member)
    text = base64.encodebytes(der)
    body = {"PEM": b"-----BEGIN CMS-----\n" + text + b"-----END CMS-----\n", "base64": text, "DER": der}[coat]
    assert office.ask(body).status.status == CMCStatus.SUCCESS


def test_ber_with_indefinite_lengths_is_accepted(office, member):
    body = ber(good(member))
    assert body[1] == 0x80
    reply = office.ask(body)
    assert reply.status.status == CMCStatus.SUCCESS, reply.status


def test_ber_as_openssl_streams_it_is_accepted(office, member, tmp_path):
    """`openssl cms -stream` writes BER."""
    certificate, key = tmp_path / "m.pem", tmp_path / "m.key"
    certificate.write_bytes(member.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(key_pem(member.key))
    data = PKIData(tuple(fresh()), (pkcs10(1, key=member.key),)).encode()
    command = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-stream", "-outform", "DER"]
    command += ["-econtent_type", PKI_DATA, "-signer", str(certificate), "-inkey", str(key)]
    body = run(*command, stdin=data).stdout
    assert body[1] == 0x80
    assert office.ask(body).status.status == CMCStatus.SUCCESS


def test_a_message_cut_off_anywhere_is_refused(office, member):
    body = good(member)
    for end in (*range(40), *range(40, len(body) - 1, 97), len(body) - 1):
        refused(office, body[:end])


@pytest.mark.parametrize("tail", [b"\0", b"more", b"\x30\x00"])
def test_trailing_bytes_are_refused(office, member, tail):
    refused(office, good(member) + tail)


@pytest.mark.parametrize(
    "body",
    [
        b"\x30\x80" * 1_000_000,
        b"\x30\x83\x0f\xff\xff" * 50_000,
        b"\x24\x80" * 1_000_000,
        b"\x30" * 250_000,
        b"\xa0\x84\xff\xff\xff\xff" * 10_000,
    ],
    ids=["indefinite", "definite", "constructed octets", "tags alone", "huge lengths"],
)
def test_deeply_nested_bytes_are_refused_quickly(office, body):
    refused(office, body)
    refused(office, base64.encodebytes(body))


def test_deep_nesting_inside_signed_content_is_refused(office, member):
    refused(office, raw(member, b"\x30\x80" * 100_000))
    deep = b"\x05\x00"
    for _ in range(2000):
        deep = tlv(0x30, deep)
    refused(office, raw(member, deep))


def test_a_bag_of_200_kb_is_accepted_quickly(office, member):
    """Certificates that are not needed are read within bounds and do no harm."""
    heavy = [
        office.person(f"ballast-{number}", sans=[f"{'x' * 60}.{n}.example" for n in range(60)]) for number in range(44)
    ]
    bag = [member.certificate, *(each.certificate for each in heavy)]
    body = message(PKIData(tuple(fresh()), (pkcs10(1, key=member.key),)), member, certificates=bag)
    assert len(body) > 200_000
    started = time.monotonic()
    assert office.ask(body).status.status == CMCStatus.SUCCESS
    assert time.monotonic() - started < PATIENCE
    many = [member.certificate, *(heavy[number].certificate for number in range(10))]
    unsorted = signed.sign(PKI_DATA, b"", [member.signer], certificates=many, signing_time=datetime.now(UTC))
    refused(office, unsorted)


def test_more_than_100_requests_or_controls_are_refused(office, member):
    requests = tuple(pkcs10(number, key=member.key) for number in range(1, 102))
    refused(office, message(PKIData((), requests), member))
    controls = tuple(control("dataReturn", b"x", number) for number in range(1, 102))
    refused(office, message(PKIData(controls), member))
    bloat = control("dataReturn", b"x" * 150_000, 5)
    assert office.ask(message(PKIData((bloat,), (pkcs10(1, key=member.key),)), member)).http == 200


def test_messages_nested_too_deep_or_too_many_are_refused(office):
    ra = office.person("ra", ra=True)
    inner = message(PKIData(tuple(fresh()), (pkcs10(1, key=ra.key),)), ra)
    for _ in range(4):
        inner = message(PKIData(tuple(fresh()), (), (TaggedContentInfo(7, inner),)), ra)
    reply = office.ask(inner)
    assert reply.failure is CMCFailInfo.BAD_REQUEST
    key = new_key()
    one = message(PKIData((), tuple(pkcs10(number, key=key) for number in range(1, 40))), Person(key))
    wide = tuple(TaggedContentInfo(number, one) for number in range(1, 4))
    refused(office, message(PKIData(tuple(fresh()), (), wide), ra))


@pytest.mark.parametrize("kind", ["1.2.840.113549.1.7.1", PKI_RESPONSE, "1.2.3.4"])
def test_a_message_with_another_content_type_is_refused(office, member, kind):
    refused(office, raw(member, PKIData(tuple(fresh())).encode(), kind))


def test_a_message_without_content_or_not_signed_is_refused(office, member):
    refused(office, signed.certs_only([member.certificate]))
    refused(office, sequence(oid("1.2.840.113549.1.7.3"), tlv(0xA0, b"\x30\x00")))


def test_authenticated_data_is_refused_with_auth_data_fail(office):
    body = sequence(oid("1.2.840.113549.1.9.16.1.2"), tlv(0xA0, b"\x30\x00"))
    refused(office, body, failure=CMCFailInfo.AUTH_DATA_FAIL)


def test_a_duplicate_body_part_id_is_refused(office, member):
    twice = (control("dataReturn", b"one", 7), control("dataReturn", b"two", 7))
    refused(office, message(PKIData(twice, (pkcs10(1, key=member.key),)), member), parts=(7,))
    request = pkcs10(7, key=member.key)
    refused(office, message(PKIData((control("dataReturn", b"one", 7),), (request,)), member), parts=(7,))
    refused(office, message(PKIData((), (request, request)), member), parts=(7,))


def test_a_body_part_id_out_of_range_is_refused(office, member):
    for number in (0, -1, 2**32, 2**64):
        control_ = sequence(integer(number), oid("1.3.6.1.5.5.7.7.4"), tlv(0x31, b"\x04\x00"))
        data = sequence(sequence(control_), sequence(), sequence(), sequence())
        reply = office.ask(raw(member, data))
        assert reply.failure is CMCFailInfo.BAD_REQUEST


def test_a_reference_to_a_missing_part_is_refused(office, member):
    ra = office.person("ra", ra=True)
    vouch = control("lraPOPWitness", LraPopWitness(0, (1, 99)), 5)
    refused(office, message(PKIData((*fresh(), vouch), (pkcs10(1, key=ra.key),)), ra), parts=(5,))
    vouch = control("lraPOPWitness", LraPopWitness(98, (1,)), 5)
    refused(office, message(PKIData((*fresh(), vouch), (pkcs10(1, key=ra.key),)), ra), parts=(5,))


def test_a_control_that_must_be_unique_is_refused_twice(office, member):
    for name, value in (("senderNonce", b"x"), ("transactionId", 5), ("identification", "device-7")):
        data = PKIData((control(name, value, 2), control(name, value, 3)), (pkcs10(1, key=member.key),))
        refused(office, message(data, member), parts=(2, 3))


def test_a_control_with_no_value_or_two_is_refused(office, member):
    for values in ((), (b"\x04\x01x", b"\x04\x01y")):
        odd = Control(2, "1.3.6.1.5.5.7.7.6", values)
        refused(office, message(PKIData((odd,), (pkcs10(1, key=member.key),)), member), parts=(2,))


def test_a_changed_message_fails_the_message_check(office, member):
    body = good(member)
    at = body.index(b"device-7")
    changed = body[:at] + b"device-8" + body[at + 8 :]
    refused(office, changed, failure=CMCFailInfo.BAD_MESSAGE_CHECK)


def test_a_signature_with_sha_1_is_refused_with_bad_alg(office):
    """The published message of a Windows client of 2013. SHA-1 must be the reason, although it has other faults."""
    body = vector("altmod-rfc6402-cmc-fullpkirequest.b64")
    reply = refused(office, body, failure=CMCFailInfo.BAD_ALG)
    assert reply.http == 400
    assert "SHA-1" in reply.status.text


def test_an_other_message_gets_no_support_and_the_rest_is_served(office, member):
    other = sequence(integer(8), oid("1.2.3.4"), b"\x05\x00")
    request = pkcs10(1, key=member.key)
    data = sequence(sequence(), sequence(request.encode()), sequence(), sequence(other))
    reply = office.ask(raw(member, data))
    assert [(each.status, each.body_list) for each in reply.statuses] == [
        (CMCStatus.PARTIAL, (0,)),
        (CMCStatus.SUCCESS, (1,)),
        (CMCStatus.NO_SUPPORT, (8,)),
    ]


def test_a_subject_with_line_breaks_adds_no_line_to_the_log(office, member):
    forged = 'CN=x\n{"event": "forged"}\x1b[31m'
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, forged)])
    der = x509.CertificateSigningRequestBuilder(name).sign(member.key, hashes.SHA256()).public_bytes(Encoding.DER)
    reply = office.enrol(PKCS10Request(1, der), by=member)
    assert reply.failure is CMCFailInfo.BAD_IDENTITY
    assert len(reply.log.splitlines()) == 1
    assert "\x1b" not in reply.log


def test_a_hanging_authorize_costs_no_more_than_the_timeout(office, tmp_path):
    """The request whose authorize hangs fails, and the other requests get tryLater."""
    script = tmp_path / "authorize"
    script.write_text("#!/bin/bash\nexec sleep 30\n")
    script.chmod(0o755)
    ra = office.person("ra", ra=True)
    requests = tuple(pkcs10(number, key=ra.key) for number in (1, 2, 3))
    started = time.monotonic()
    reply = office.ask(message(PKIData((), requests), ra), EST_AUTHORIZE=str(script), EST_TIMEOUT="4")
    assert time.monotonic() - started < PATIENCE
    assert {each.failure for each in reply.statuses} == {CMCFailInfo.INTERNAL_CA_ERROR, CMCFailInfo.TRY_LATER}


# Properties.


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_request_changes_no_certificate(office, member, at, bit):
    """A certificate is issued only if the bit is in a part that the signature does not cover."""
    sent = good(member)
    body = bytearray(sent)
    body[at % len(body)] ^= 1 << bit
    before = office.count()
    reply = office.ask(bytes(body))
    if office.count() > before:
        read, original = signed.parse(bytes(body)), signed.parse(sent)
        assert read.content == original.content
        assert read.signers[0].signed_attributes == original.signers[0].signed_attributes
        assert reply.certificate.public_key() == member.key.public_key()
        assert reply.certificate.subject == member.certificate.subject
    else:
        assert {each.status for each in reply.statuses} == {CMCStatus.FAILED}


def fields(der: bytes, depth: int = 0) -> list[tuple[int, int, int]]:
    """For every element: where it begins, where its content begins, and where it ends."""
    found, at = [], 0
    while at < len(der):
        length, start = der[at + 1], at + 2
        if length & 0x80:
            start = at + 2 + (length & 0x7F)
            length = int.from_bytes(der[at + 2 : start], "big")
        found.append((at, start, start + length))
        if der[at] & 0x20 and depth < 20:
            inside = fields(der[start : start + length], depth + 1)
            found += [(start + a, start + b, start + c) for a, b, c in inside]
        at = start + length
    return found


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_field_gets_an_answer_and_no_foreign_certificate(office, member, data):
    """Replace one field of a PKIData and sign the result. The signer gets at most a certificate of its own."""
    number = control("transactionId", secrets.randbits(60), 2)
    nonce = control("senderNonce", secrets.token_bytes(16), 3)
    content = PKIData((number, nonce), (pkcs10(1, key=member.key),)).encode()
    at, _, end = data.draw(st.sampled_from(fields(content)))
    how = data.draw(st.sampled_from(["content", "tag", "gone", "twice", "length"]))
    match how:
        case "content":
            new = data.draw(st.binary(max_size=40))
            changed = content[:at] + tlv(content[at], new) + content[end:]
        case "tag":
            changed = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
        case "gone":
            changed = content[:at] + content[end:]
        case "twice":
            changed = content[:end] + content[at:end] + content[end:]
        case _:
            changed = content[: at + 1] + bytes([data.draw(st.integers(0, 255))]) + content[at + 2 :]
    before = office.count()
    reply = office.ask(raw(member, changed))
    assert "Traceback" not in reply.log
    assert office.count() <= before + 1
    for issued in reply.issued:
        assert (issued.subject, issued.public_key()) == (member.certificate.subject, member.key.public_key())
    assert reply.http in (200, 400, 403)
    assert (office.count() > before) == (reply.http == 200 and bool(reply.issued))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300))
def test_any_bytes_get_a_400(office, body):
    reply = office.ask(body)
    assert reply.http == 400
    assert "Traceback" not in reply.log


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_identity_proof_covers_every_bit_of_the_requests(office, data):
    """Anybody can sign with a new key, so only what the holder of the secret asked for may be issued."""
    key = new_key()
    asked = pkcs10(1, key=key)
    office.policy = replace(office.policy, tries=10_000)
    whole = PKIData((*fresh(), *proof([asked])), (asked,))
    content = whole.encode()
    at, _, end = data.draw(st.sampled_from(fields(content)))
    changed = content[:at] + tlv(content[at], data.draw(st.binary(max_size=40))) + content[end:]
    signer = Person(key).signer
    before = office.count()
    reply = office.ask(
        signed.sign(PKI_DATA, changed, [signer], signing_time=datetime.now(UTC)), EST_AUTH_METHODS=""
    )  # fmt: skip
    assert "Traceback" not in reply.log
    if office.count() > before:
        assert whole.request_sequence in changed
    else:
        assert CMCStatus.SUCCESS not in {each.status for each in reply.statuses}


# This runs between the test and the script, because a child's peak memory starts at its parent's, and pytest is large.
MEASURE = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, usage.ru_utime, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "body", [b"\x30\x80" * 125_000, b"0" * 250_000, b"MIAA" * 62_500], ids=["nested", "digits", "base64"]
)
def test_memory_is_bounded_for_the_largest_bodies(office, tmp_path, body):
    """Start the script as the gateway does, with the largest body that the gateway lets through."""
    script = cmc.HANDLERS / "fullcmc"
    env = office.environment(EST_TMPDIR=str(tmp_path), TMPDIR=str(tmp_path), HOME=str(tmp_path))
    measured = subprocess.run(
        [sys.executable, "-S", "-c", MEASURE, script], cwd=script.parent, env=env, input=body, capture_output=True
    )  # fmt: skip
    exit_status, kilobytes, seconds = measured.stderr.splitlines()[-1].split()
    assert int(exit_status) == 0
    assert cmc.read(measured.stdout, "", office.lab.anchor).http == 400
    assert int(kilobytes) < 80_000
    assert float(seconds) < PATIENCE


@pytest.mark.parametrize("own", [True, False])
def test_a_signer_with_a_key_of_an_unknown_kind_is_refused(office, member, own):
    """Any client can put such a certificate into the bag, so it must not cause an internal error."""
    maker = root("CN=odd") if own else root("CN=elsewhere")
    der = maker.certificate.public_bytes(Encoding.DER) if own else certificate(maker).public_bytes(Encoding.DER)
    known, odd = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    assert der.count(known) == 1
    stranger = Person(member.key, x509.load_der_x509_certificate(der.replace(known, odd)))
    answer = refused(office, message(PKIData(tuple(fresh()), (pkcs10(1, key=member.key),)), stranger))
    assert "Traceback" not in answer.log
