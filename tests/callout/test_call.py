"""The files of a callout, and the id of a pending request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.callout.call import Call
from estgw.est.csr import NewNames, parse
from estgw.est.operations import OPERATIONS, Profile
from tests.callout.calls import CERTIFICATE, CSR, KNOWN, change, client, full, plain
from tests.kit.ca import name
from tests.kit.csr import challenge, csr, san
from tests.kit.keys import OTHER


def test_a_call_writes_the_csr_and_both_certificates(tmp_path):
    call = full(tmp_path)
    assert dict(call.files()) == {
        tmp_path / "csr.pem": parse(CSR).pem,
        tmp_path / "client.pem": CERTIFICATE.public_bytes(Encoding.PEM),
        tmp_path / "renew.pem": CERTIFICATE.public_bytes(Encoding.PEM),
    }


def test_a_call_without_csr_and_certificate_writes_no_files(tmp_path):
    assert list(plain(tmp_path).files()) == []


@pytest.mark.parametrize(
    ("asked", "profile", "shown"),
    [(False, Profile.RFC, False), (True, Profile.RFC, True), (False, Profile.DRAFT, True)],
)
def test_credentials_are_shown_if_configured_or_for_the_draft_profile(tmp_path, asked, profile, shown):
    assert plain(tmp_path, pass_credentials=asked, profile=profile).shows_credentials is shown


def test_requested_new_names_replace_those_of_the_csr(tmp_path):
    call = full(tmp_path)
    assert call.csr is not None
    assert (call.csr.subject, call.csr.san) == (call.csr.pkcs10.subject, call.csr.pkcs10.san)
    renamed = replace(call.csr, new_names=NewNames(name("CN=new"), None))
    assert (renamed.subject, renamed.san) == (name("CN=new"), None)


# EST_PENDING_ID: the client repeats its request (RFC 7030 4.2.3), but the channel binding changes its bytes (3.5).


@pytest.fixture
def call(tmp_path) -> Call:
    return full(tmp_path, csr=parse(csr("device-1", challenge("one"))), client=replace(KNOWN, certificate=None))


def test_a_repeated_request_has_the_same_pending_id(call):
    again = csr("device-1", challenge("another connection"))
    assert call.csr is not None
    assert call.csr.pkcs10.der != again
    assert change(call, csr=parse(again)).pending_id == call.pending_id


def test_a_repeat_from_another_address_has_the_same_pending_id(call):
    elsewhere = change(
        call,
        client=replace(call.client, address="198.51.100.1", port=1),
        request_id="9876543210",
        binding=None,
        body=b"",
        query="x",
        timeout=1,
    )
    assert elsewhere.pending_id == call.pending_id


@pytest.mark.parametrize(
    "changes",
    [
        {"csr": parse(csr("device-2"))},
        {"csr": parse(csr("device-1", key=OTHER))},
        {"csr": parse(csr("device-1", san(x509.DNSName("a"))))},
        {"client": client(user="bob")},
        {"client": client(user=None)},
        {"client": KNOWN},
        {"label": "other"},
        {"label": None},
        {"operation": OPERATIONS["simpleenroll"]},
        {"new_names": NewNames(name("CN=new"), None)},
    ],
)
def test_another_request_has_another_pending_id(call, changes):
    assert change(call, **changes).pending_id != call.pending_id


def test_the_pending_id_is_a_hex_digest(call):
    assert call.pending_id is not None
    assert len(call.pending_id) == 64
    assert set(call.pending_id) <= set("0123456789abcdef")


def test_a_call_without_a_csr_has_no_pending_id(tmp_path):
    assert plain(tmp_path).pending_id is None
