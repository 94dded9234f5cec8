"""PKIData and PKIResponse: they agree with pyasn1, are strict about ids, and nest."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der.encoder import encode as write_asn1
from pyasn1_alt_modules import rfc6402

from estgw.cmc import references
from estgw.cmc.controls import Control
from estgw.cmc.messages import (
    MAXIMUM_DEPTH,
    PKI_DATA,
    PKI_RESPONSE,
    BadMessage,
    OtherMsg,
    PKIData,
    PKIResponse,
    TaggedContentInfo,
    layers,
    pki_data,
    pki_response,
)
from estgw.cmc.requests import OtherRequest, PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus, StatusInfo
from estgw.cmc.values import AddExtensions, ControlsProcessed, DecryptedPOP, LraPopWitness, ModCertTemplate
from estgw.cms import signed
from estgw.cms.fields import content as body_of
from estgw.cms.fields import integer, octets, oid, sequence
from estgw.cms.signed import Signer
from estgw.errors import Malformed
from estgw.est import encoding
from tests.cmc.samples import (
    EXTENSIONS,
    FULL_TEMPLATE,
    HMAC,
    KEY_ID,
    MOMENT,
    VALUES,
    crmf_request,
    pkcs10,
    request_message,
    response_message,
)
from tests.kit.der import VECTORS
from tests.kit.keys import KEY
from tests.kit.reference import reads

EVERY = tuple(
    Control.make(number, kind, value)
    for number, (kind, value) in enumerate(((kind, value) for kind in VALUES for value in VALUES[kind]), 1)
)
OTHERS = (OtherMsg(300, "1.2.3.4", b"\x05\x00"), OtherMsg(301, "1.2.3.5", octets(b"x")))
CMS = (TaggedContentInfo(200, signed.certs_only([])), TaggedContentInfo(201, request_message()))
DATA = PKIData(EVERY, (pkcs10(), crmf_request(), OtherRequest(103, "1.2.3.4", b"\x05\x00")), CMS, OTHERS)
NONCE = Control.make(1, "senderNonce", b"nonce")


def test_a_request_with_every_part_survives_encoding():
    der = DATA.encode()
    assert PKIData.decode(der) == DATA
    assert PKIData.decode(der).encode() == der
    assert DATA.ids == (*range(1, len(EVERY) + 1), 101, 102, 103, 200, 201, 300, 301)
    assert DATA.request(102) == DATA.requests[1]
    assert DATA.request(1) is None
    reads(der, rfc6402.PKIData())


def test_a_response_with_every_part_survives_encoding():
    response = PKIResponse(EVERY, CMS, OTHERS)
    der = response.encode()
    assert PKIResponse.decode(der) == response
    assert len(response.statuses) == len(VALUES["statusInfo"]) + len(VALUES["statusInfoV2"])
    assert response.ids == (*range(1, len(EVERY) + 1), 200, 201, 300, 301)
    reads(der, rfc6402.PKIResponse())


def test_the_identity_proof_covers_the_bytes_as_sent():
    theirs = reads(DATA.encode(), rfc6402.PKIData())
    assert PKIData.decode(DATA.encode()).request_sequence == write_asn1(theirs["reqSequence"])


def test_controls_are_found_by_name_and_two_are_refused():
    data = PKIData((NONCE, Control.make(2, "identification", "me"), Control.make(3, "identification", "you")))
    assert data.value("senderNonce") == b"nonce"
    assert data.one("senderNonce") == NONCE
    assert data.one("regInfo") is None
    assert data.value("regInfo") is None
    assert [each.value for each in data.find("identification")] == ["me", "you"]
    with pytest.raises(BadMessage, match="2 controls identification, not one") as caught:
        data.value("identification")
    assert caught.value.ids == (2, 3)


def test_a_request_of_a_microsoft_client_is_read():
    der = encoding.decode((VECTORS / "altmod-rfc6402-cmc-fullpkirequest.b64").read_bytes(), ())
    message = signed.parse(der)
    data = pki_data(message)
    assert data.encode() == message.content
    assert data.ids == (2, 1)
    assert data.controls[0].name == "1.3.6.1.4.1.311.10.10.1"


def test_a_message_in_ber_is_read_like_der():
    """With indefinite lengths, and with a string in pieces."""
    content = DATA.encode()
    loose = b"\x30\x80" + body_of(content) + b"\0\0"
    assert PKIData.decode(loose) == DATA
    pieces = b"\x24\x80" + octets(content[:100]) + octets(content[100:]) + b"\0\0"
    inner = integer(3) + b"\x31\x00" + b"\x30\x80" + oid(PKI_DATA) + b"\xa0\x80" + pieces + b"\0\0\0\0" + b"\x31\x00"
    outer = b"\x30\x80" + oid(signed.SIGNED_DATA) + b"\xa0\x80\x30\x80" + inner + b"\0\0" * 3
    assert pki_data(signed.parse(outer)) == DATA


# Messages that break a rule.


def test_a_duplicate_body_part_id_is_refused():
    data = PKIData((NONCE, Control.make(2, "transactionId", 5)), (pkcs10(7), crmf_request(2)))
    with pytest.raises(BadMessage, match="body part id 2 is there twice: control 2 and request 2") as caught:
        PKIData.decode(data.encode())
    assert (caught.value.ids, caught.value.seen) == ((2,), (1, 2, 7))
    assert {each.name: each.value for each in caught.value.controls} == {"senderNonce": b"nonce", "transactionId": 5}


@pytest.mark.parametrize(
    "data",
    [
        PKIData((Control.make(0, "senderNonce", b"x"),)),
        PKIData(requests=(pkcs10(0),)),
        PKIData(cms=(TaggedContentInfo(0, sequence()),)),
        PKIData(others=(OtherMsg(0, "1.2.3.4", b"\x05\x00"),)),
    ],
)
def test_body_part_id_zero_is_refused(data):
    with pytest.raises(BadMessage, match="stands for the message itself"):
        PKIData.decode(data.encode())


@pytest.mark.parametrize("number", [-1, 1 << 32])
def test_a_body_part_id_out_of_range_is_refused(number):
    for data in (PKIData((Control.make(number, "senderNonce", b"x"),)), PKIData(requests=(pkcs10(number),))):
        with pytest.raises(BadMessage, match="out of range: not 0 to 4294967295"):
            PKIData.decode(data.encode())


def test_the_largest_body_part_id_is_accepted():
    data = PKIData((Control.make(4294967295, "senderNonce", b"x"),), (crmf_request(4294967294),))
    assert PKIData.decode(data.encode()) == data


def test_a_malformed_request_is_refused_with_its_id():
    broken = b"\xa0" + sequence(integer(9), octets(b"no request"))[1:]
    der = sequence(sequence(NONCE.encode()), sequence(pkcs10(5).encode(), broken), sequence(), sequence())
    with pytest.raises(BadMessage, match=r"request 9: .* in place of CertificationRequest") as caught:
        PKIData.decode(der)
    assert (caught.value.ids, caught.value.seen, caught.value.controls) == ((9,), (1, 5), (NONCE,))


def test_a_malformed_crmf_request_is_refused_with_its_id():
    broken = b"\xa1" + sequence(sequence(integer(9), octets(b"no template")))[1:]
    with pytest.raises(BadMessage, match="request 9: a CertRequest with tag 0x04") as caught:
        PKIData.decode(sequence(sequence(), sequence(broken), sequence(), sequence()))
    assert caught.value.ids == (9,)


def test_a_control_without_a_readable_id_is_refused():
    with pytest.raises(BadMessage, match=r"^control 1: a control with tag 0x05") as caught:
        PKIData.decode(sequence(sequence(b"\x05\x00"), sequence(), sequence(), sequence()))
    assert caught.value.ids == ()


@pytest.mark.parametrize(
    ("der", "words"),
    [
        (b"", "tag 0x"),
        (sequence(), "without controls"),
        (sequence(sequence(), sequence(), sequence()), "without other messages"),
        (sequence(*[sequence()] * 5), "1 fields too many"),
        (sequence(octets(b"")), "tag 0x04 in place of controls"),
        (sequence(*[sequence()] * 4) + b"\0", "bytes too many"),
        (sequence(*[sequence()] * 4)[:-1], "cut off"),
        (sequence(sequence(*[NONCE.encode()] * 101), *[sequence()] * 3), "101 controls; 100 are the most"),
        (sequence(sequence(), sequence(*[sequence()] * 101), *[sequence()] * 2), "101 requests; 100 are the most"),
        (sequence(*[sequence()] * 2, sequence(*[sequence()] * 101), sequence()), "101 messages; 100 are the most"),
        (sequence(*[sequence()] * 3, sequence(*[sequence()] * 101)), "101 other messages; 100 are the most"),
        (sequence(sequence(*[b"\x05\x00"] * 1001), *[sequence()] * 3), "1001 elements; 1000 are the most"),
        (sequence(sequence(), sequence(b"\xa5\x00"), *[sequence()] * 2), "request 1: tag 0xa5"),
    ],
)
def test_a_malformed_pki_data_is_refused_with_the_reason(der, words):
    with pytest.raises(BadMessage, match=words):
        PKIData.decode(der)


def test_a_message_with_another_content_is_refused():
    with pytest.raises(BadMessage, match="nothing in place of a PKIResponse"):
        pki_response(signed.parse(signed.certs_only([])))
    with pytest.raises(BadMessage, match=f"content of type {PKI_RESPONSE} in place of a PKIData"):
        pki_data(signed.parse(response_message(StatusInfo(CMCStatus.SUCCESS, (1,)))))


# Nested messages.


def wrap(*inner, controls=(), requests=(), first=200):
    """The message of an RA around others."""
    parts = tuple(TaggedContentInfo(number, der) for number, der in enumerate(inner, first))
    return signed.sign(PKI_DATA, PKIData(tuple(controls), tuple(requests), parts).encode(), [Signer(KEY, KEY_ID)])


def tree(der):
    return list(layers(signed.parse(der)))


def test_nested_messages_are_found_with_their_paths():
    inner = request_message()
    found = tree(wrap(inner, wrap(inner), signed.certs_only([]), response_message()))
    assert [layer.path for layer in found] == [(), (200,), (201,), (201, 200)]
    assert found[1].data == found[3].data == pki_data(signed.parse(inner))
    signed.verify(found[3].message, found[3].message.signers[0], KEY.public_key())


def test_messages_nested_deeper_than_the_bound_are_refused():
    message = request_message()
    for _ in range(MAXIMUM_DEPTH - 1):
        message = wrap(message)
    assert len(tree(message)) == MAXIMUM_DEPTH
    with pytest.raises(BadMessage, match="message 200: a message inside others, too deep") as caught:
        tree(wrap(message, controls=[NONCE]))
    assert caught.value.ids == ((200,) * MAXIMUM_DEPTH,)
    assert (caught.value.seen, caught.value.controls) == ((1, 200), (NONCE,))


def test_more_nested_messages_than_the_bound_are_refused():
    message = wrap(*[request_message()] * 60)
    with pytest.raises(BadMessage, match="one too many"):
        tree(wrap(message, message))


@pytest.mark.parametrize("inner", [sequence(), signed.sign(PKI_DATA, b"none", [])])
def test_a_malformed_nested_message_is_refused_with_its_id(inner):
    with pytest.raises(BadMessage, match=r"^message 200: ") as caught:
        tree(wrap(inner))
    assert caught.value.ids == (200,)


# References.

HERE = [
    ("lraPOPWitness", LraPopWitness(0, (101, 102))),
    ("lraPOPWitness", LraPopWitness(200, (101, 102))),
    ("addExtensions", AddExtensions(0, (101,), EXTENSIONS)),
    ("addExtensions", AddExtensions(200, (102,), EXTENSIONS)),
    ("modCertTemplate", ModCertTemplate((0,), (101,), FULL_TEMPLATE)),
    ("modCertTemplate", ModCertTemplate((200,), (101, 102), FULL_TEMPLATE)),
    ("decryptedPOP", DecryptedPOP(101, HMAC, b"")),
    ("batchRequests", (200, 201)),
    ("authData", 201),
    ("raIdentityWitness", (200, 4)),
    ("raIdentityWitness", (201,)),
    ("raIdentityWitness", (201, 99)),  # certificates, where no path leads further
    ("controlProcessed", ControlsProcessed((7, (200, 1)))),
]
GONE = [
    ("lraPOPWitness", LraPopWitness(0, (101, 103)), "103"),
    ("lraPOPWitness", LraPopWitness(200, (103,)), "200/103"),
    ("lraPOPWitness", LraPopWitness(300, (101,)), "300/101"),
    ("addExtensions", AddExtensions(300, (101,), EXTENSIONS), "300/101"),
    ("modCertTemplate", ModCertTemplate((200, 5), (101,), FULL_TEMPLATE), "200/5/101"),
    ("modCertTemplate", ModCertTemplate((200,), (103,), FULL_TEMPLATE), "200/103"),
    ("decryptedPOP", DecryptedPOP(103, HMAC, b""), "103"),
    ("batchRequests", (200, 202), "202"),
    ("authData", 202, "202"),
    ("raIdentityWitness", (200, 5), "200/5"),
    ("controlProcessed", ControlsProcessed(((200, 9),)), "200/9"),
]


def referring(kind, value):
    control = Control.make(7, kind, value)
    return wrap(request_message(), signed.certs_only([]), controls=[control], requests=[pkcs10(), crmf_request()])


@pytest.mark.parametrize(("kind", "value"), HERE)
def test_a_reference_to_an_existing_part_is_accepted(kind, value):
    references.check(tree(referring(kind, value)))


@pytest.mark.parametrize(("kind", "value", "way"), GONE)
def test_a_reference_to_a_missing_part_is_refused(kind, value, way):
    with pytest.raises(BadMessage, match=rf"control 7 \({kind}\) refers to {way}, which is not there") as caught:
        references.check(tree(referring(kind, value)))
    assert caught.value.ids == (7,)
    assert caught.value.seen == (7, 101, 102, 200, 201)


def test_a_nested_reference_to_a_missing_part_is_refused():
    control = Control.make(7, "batchRequests", (300,))
    with pytest.raises(BadMessage, match="refers to 300, which is not there") as caught:
        references.check(tree(wrap(wrap(controls=[control]), controls=[NONCE])))
    assert (caught.value.ids, caught.value.seen, caught.value.controls) == (((200, 7),), (1, 200), (NONCE,))


def test_an_unreadable_reference_is_malformed():
    broken = Control(7, Control.make(7, "batchRequests", (1,)).oid, (octets(b""),))
    with pytest.raises(Malformed, match=r"control 7 \(batchRequests\)"):
        references.check(tree(wrap(controls=[broken])))


# Any input, in bounded time.


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    for kind in (PKIData, PKIResponse):
        try:
            kind.decode(data)
        except BadMessage:
            continue
        assert data[:1] == b"\x30"


SAMPLE = PKIData((NONCE, *EVERY[1:]), DATA.requests, (), OTHERS).encode()


@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=3))
def test_changed_bytes_are_read_or_refused(changes):
    data = bytearray(SAMPLE)
    for place, byte in changes:
        data[place] = byte
    try:
        found = PKIData.decode(bytes(data))
    except BadMessage:
        return
    for control in found.controls:
        try:
            _ = control.all_values
        except Malformed as fault:
            assert str(fault).startswith("control ")


def test_large_messages_are_read_or_refused_quickly():
    started = time.process_time()
    requests = tuple(PKCS10Request(number, pkcs10().der) for number in range(1, 101))
    data = PKIData((), requests, (), (OtherMsg(1000, "1.2.3.4", octets(bytes(200_000))),))
    assert PKIData.decode(data.encode()) == data
    for bomb in (b"\x30\x80" * 500_000, sequence(sequence(b"\x30\x00" * 100_000), *[sequence()] * 3)):
        with pytest.raises(BadMessage):
            PKIData.decode(bomb)
    assert time.process_time() - started < 5


def test_a_failed_status_is_put_into_words():
    message = response_message(StatusInfo.failed(CMCFailInfo.BAD_IDENTITY, (3,), "no such secret"))
    (status,) = pki_response(signed.parse(message)).statuses
    assert status.words == "failed (badIdentity): no such secret"
    assert signed.parse(message).signers[0].signing_time == MOMENT
