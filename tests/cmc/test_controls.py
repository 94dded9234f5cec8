"""The table of controls: it is complete, and pyasn1 reads and writes every value alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der.encoder import encode as write_asn1
from pyasn1_alt_modules import rfc6402

from estgw.cmc.controls import BY_NAME, BY_OID, MAXIMUM_VALUES, TABLE, Control, Direction, Taken
from estgw.cmc.status import CMCFailInfo, CMCStatus, ExtendedFailInfo, PendInfo, StatusInfo, failure_word, status_word
from estgw.cmc.values import GetCert, GetCRL, RevokeRequest
from estgw.cms.fields import integer, integers, octets, oid, sequence, set_of, tagged, text
from estgw.errors import Malformed
from tests.cmc.samples import MOMENT, VALUES
from tests.kit.ca import common_name
from tests.kit.reference import reads

SAMPLES = [(kind, value) for kind, values in VALUES.items() for value in values]
# RFC 6402 added raIdentityWitness and responseBody, but its old-style module leaves out their types.
TYPES = {
    **{str(number): kind for number, kind in rfc6402.cmcControlAttributesMap.items()},
    BY_NAME["raIdentityWitness"].oid: rfc6402.BodyPartPath(),
    BY_NAME["responseBody"].oid: rfc6402.BodyPartPath(),
}


def test_the_table_has_exactly_the_controls_of_rfc_6402():
    theirs = {
        common_name.removeprefix("id_cmc_"): str(number)
        for common_name, number in vars(rfc6402).items()
        if common_name.startswith("id_cmc_")
    }
    assert {row.name: row.oid for row in TABLE} == theirs
    assert list(BY_OID) == [row.oid for row in TABLE]
    assert set(VALUES) == set(BY_NAME)


def test_statuses_and_failures_have_the_names_of_rfc_6402():
    assert {each.word: each.value for each in CMCStatus} == dict(rfc6402.CMCStatus.namedValues.items())
    assert {each.word: each.value for each in CMCFailInfo} == dict(rfc6402.CMCFailInfo.namedValues.items())
    assert [status_word(2), status_word(1)] == ["failed", "status 1"]
    assert [failure_word(7), failure_word(1000)] == ["badIdentity", "failInfo 1000"]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_directions_of_a_control_agree_with_how_it_is_handled(row):
    """A control that does not belong in requests is misplaced there. A control that we send belongs in responses."""
    is_attribute = row.name == "changeSubjectName"
    assert (row.taken is Taken.MISPLACED) == (row.direction is Direction.RESPONSE or is_attribute)
    assert not row.sent or row.direction is not Direction.REQUEST


@pytest.mark.parametrize(("kind", "value"), SAMPLES)
def test_every_control_survives_encoding_and_decoding(kind, value):
    control = Control.make(7, kind, value)
    again = Control.decode(control.encode())
    assert again == control
    assert again.value == value
    assert again.all_values == (value,)
    assert (again.name, again.words) == (kind, f"control 7 ({kind})")


@pytest.mark.parametrize(("kind", "value"), SAMPLES)
def test_pyasn1_reads_every_control_of_ours(kind, value):
    control = Control.make(4294967295, kind, value)
    reads(control.encode(), rfc6402.TaggedAttribute())
    if kind != "changeSubjectName":
        reads(control.values[0], TYPES[control.oid])


def test_a_status_written_by_pyasn1_is_read():
    status = rfc6402.CMCStatusInfoV2()
    status["cMCStatus"] = 3
    status["bodyList"][0]["bodyPartID"] = 1
    status["bodyList"][1]["bodyPartPath"].extend([5, 6])
    status["statusString"] = "later"
    status["otherInfo"]["pendInfo"]["pendToken"] = b"token"
    status["otherInfo"]["pendInfo"]["pendTime"] = "20300102030405Z"
    tagged = rfc6402.TaggedAttribute()
    tagged["bodyPartID"] = 9
    tagged["attrType"] = rfc6402.id_cmc_statusInfoV2
    tagged["attrValues"][0] = write_asn1(status)
    control = Control.decode(write_asn1(tagged))
    assert control.value == StatusInfo(CMCStatus.PENDING, (1, (5, 6)), "later", pending=PendInfo(b"token", MOMENT))


def test_a_revocation_written_by_pyasn1_is_read():
    request = rfc6402.RevokeRequest()
    request["issuerName"] = reads(common_name("CA").public_bytes(), rfc6402.rfc5280.Name())
    request["serialNumber"] = 1 << 70
    request["reason"] = 1
    request["passphrase"] = b"secret"
    found = BY_NAME["revokeRequest"].kind.decode(write_asn1(request), "a RevokeRequest")
    assert (found.issuer, found.serial, found.reason) == (common_name("CA").public_bytes(), 1 << 70, 1)
    assert (found.invalidity_date, found.passphrase, found.comment) == (None, b"secret", None)
    assert "secret" not in repr(found)


def test_an_extended_failure_survives_encoding():
    status = StatusInfo(CMCStatus.FAILED, (0,), extended=ExtendedFailInfo("1.2.3.4", b"\x02\x01\x07"))
    assert StatusInfo.decode(status.encode()) == status
    reads(status.encode(), rfc6402.CMCStatusInfoV2())
    assert status.words == "failed (1.2.3.4)"


def test_the_old_status_refuses_paths_and_extended_failures():
    new = StatusInfo(CMCStatus.SUCCESS, ((5, 1),))
    with pytest.raises(Malformed, match="neither paths nor"):
        Control.make(1, "statusInfo", new)
    control = Control(1, BY_NAME["statusInfo"].oid, (new.encode(),))
    with pytest.raises(Malformed, match=r"control 1 \(statusInfo\): its value with a path"):
        _ = control.value


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("senderNonce", integer(5), "its value can't be read: it is of another type"),
        ("transactionId", b"\x02\x02\x00\x01", "can't be read: a bad value"),
        ("transactionId", b"\x02\x82\x02\x00" + b"\x7f" * 512, "more than 256 octets"),
        ("identification", b"\x0c\x01\xff", "can't be read"),
        ("authData", integer(1 << 32), "out of range"),
        ("authData", integer(-1), "out of range"),
        ("batchRequests", sequence(), "without a body part id"),
        ("batchRequests", integers([1] * 1001), "1001 elements; 1000 are the most"),
        ("statusInfoV2", sequence(), "without status"),
        ("statusInfoV2", sequence(integer(0)), "without body list"),
        ("statusInfoV2", sequence(integer(2), sequence(), integer(1), sequence()), "more than one kind"),
        ("statusInfoV2", sequence(integer(2), sequence(), integer(1), text("x")), "1 fields too many"),
        ("statusInfoV2", sequence(integer(-1), sequence()), "out of range"),
        ("statusInfoV2", sequence(integer(2), sequence(sequence())), "without a body part id"),
        ("statusInfoV2", sequence(integer(3), sequence(), sequence(octets(b""))), "a PendInfo without time"),
        ("revokeRequest", sequence(sequence(), integer(1), b"\x0a\x01\x07"), "a reason that is none of RFC 5280's"),
        ("revokeRequest", sequence(sequence(), integer(1), integer(1)), "tag 0x02 in place of reason"),
        ("getCert", sequence(b"\x31\x00", integer(1)), "tag 0x31 in place of issuer"),
        ("getCRL", sequence(b"\x82\x01x"), "tag 0x82 in place of issuer"),
        ("getCRL", sequence(b"\xa4\x03\x02\x01\x05"), "the issuer of its value is not what its tag says"),
        ("revokeRequest", sequence(b"\x82\x01x", integer(1), b"\x0a\x01\x00"), "tag 0x82 in place of issuer"),
        ("modCertTemplate", sequence(integers([0]), integers([]), sequence()), "without a body part id"),
        ("modCertTemplate", sequence(integers([0]), integers([1]), b"\x01\x01\x01", sequence()), "a bad value"),
        ("identityProofV2", sequence(sequence(), sequence(), octets(b"")), "without algorithm"),
        ("encryptedPOP", sequence(sequence()), "no format of a request"),
        ("popLinkWitnessV2", b"\x05\x00", "tag 0x05"),
        ("controlProcessed", sequence(sequence(text("x"))), "tag 0x0c"),
    ],
)
def test_a_malformed_value_is_refused_with_its_control_named(kind, value, words):
    control = Control(3, BY_NAME[kind].oid, (value,))
    with pytest.raises(Malformed, match=words) as caught:
        _ = control.value
    assert str(caught.value).startswith(f"control 3 ({kind}): ")


NAME = common_name("CA").public_bytes()
DIRECTORY = tagged(4, NAME)
"""The same issuer as a GeneralName."""


@pytest.mark.parametrize(
    ("kind", "right", "sent"),
    [
        ("getCert", GetCert(DIRECTORY, 7), sequence(NAME, integer(7))),
        ("getCRL", GetCRL(NAME), sequence(DIRECTORY)),
        ("getCRL", GetCRL(NAME, DIRECTORY), sequence(DIRECTORY, DIRECTORY)),
        ("revokeRequest", RevokeRequest(NAME, 7), sequence(DIRECTORY, integer(7), b"\x0a\x01\x00")),
    ],
)
def test_an_issuer_in_the_other_form_is_read_and_written_in_the_right_one(kind, right, sent):
    read = Control(3, BY_NAME[kind].oid, (sent,)).value
    assert read == right
    assert read.issuer_sent_as
    assert Control.make(3, kind, read) == Control.make(3, kind, right) != Control(3, BY_NAME[kind].oid, (sent,))
    assert not Control.make(3, kind, read).value.issuer_sent_as


@pytest.mark.parametrize("values", [(), (octets(b"a"), octets(b"b"))])
def test_no_value_or_two_values_are_refused_where_one_is_needed(values):
    with pytest.raises(Malformed, match=f"{len(values)} values, not one"):
        _ = Control(3, BY_NAME["senderNonce"].oid, values).value


def test_a_control_may_hold_several_statuses():
    first, second = StatusInfo(CMCStatus.SUCCESS, (1,)), StatusInfo.failed(CMCFailInfo.BAD_ALG)
    control = Control.make(1, "statusInfoV2", first, second)
    assert set(Control.decode(control.encode()).all_values) == {first, second}


def test_an_unknown_control_keeps_its_values():
    control = Control(5, "1.3.6.1.4.1.311.10.10.1", (b"\x05\x00",))
    assert Control.decode(control.encode()) == control
    assert (control.row, control.name, control.value) == (None, control.oid, b"\x05\x00")


def test_more_than_20_values_are_refused():
    values = set_of(octets(bytes([number])) for number in range(MAXIMUM_VALUES + 1))
    with pytest.raises(Malformed, match="21 values; 20 are the most"):
        Control.decode(sequence(integer(1), oid(BY_NAME["senderNonce"].oid), values))


@given(st.sampled_from(TABLE), st.binary(max_size=100))
def test_any_octets_are_a_value_or_malformed(row, data):
    """Half of the octets begin with the right tag, so that the decoder reads beyond it."""
    for value in (data, row.kind.encode(VALUES[row.name][-1])[:2] + data):
        try:
            found = Control(1, row.oid, (value,)).value
        except Malformed:
            continue
        assert row.kind.encode(found) is not None


@given(st.sampled_from(SAMPLES), st.integers(0, 2000), st.integers(0, 255))
def test_a_value_with_one_changed_byte_is_read_or_malformed(sample, place, byte):
    kind, value = sample
    der = bytearray(BY_NAME[kind].kind.encode(value))
    der[place % len(der)] = byte
    try:
        found = Control(1, BY_NAME[kind].oid, (bytes(der),)).value
    except Malformed:
        return
    assert BY_NAME[kind].kind.encode(found) is not None
