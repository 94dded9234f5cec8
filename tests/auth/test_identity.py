"""The client's identity as far as TLS tells."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509

from estgw.auth.credentials import Credentials
from estgw.auth.identity import Anchors, Client, Trust, identify
from estgw.est import certs
from estgw.tls.info import TLSInfo
from tests.callout.calls import client, tls
from tests.kit.ca import CLIENT_AUTH, certificate, root

OURS, THIRD = root("Our CA"), root("Third party")
SUB = THIRD.sub("Our subordinate CA")
DEVICE = certificate(OURS, "CN=device-1,O=Ours")
RA = x509.ExtendedKeyUsage([CLIENT_AUTH, certs.CMC_RA])
ANCHORS = Anchors([OURS.certificate], [THIRD.certificate])
ADDRESS = ("192.0.2.7", 4711)


def client_with_chain(
    chain: list[x509.Certificate], anchors: Anchors = ANCHORS, unknown: str = "anonymous", **more: Any
) -> Client:
    """A client whose handshake verified this chain."""
    info = TLSInfo("TLSv1.3", "c", None, chain[0], verified_chain=tuple(chain), **more)
    return identify(ADDRESS, info, anchors, unknown)


# Trust classes (RFC 7030 1.1).


@pytest.mark.parametrize(
    ("chain", "trust"),
    [
        ([DEVICE, OURS.certificate], Trust.EXPLICIT),
        ([DEVICE, SUB.certificate, OURS.certificate], Trust.EXPLICIT),
        ([DEVICE, THIRD.certificate], Trust.IMPLICIT),
        ([DEVICE, SUB.certificate, THIRD.certificate], Trust.IMPLICIT),
        ([DEVICE, root("Our CA").certificate], Trust.NONE),
        ([], Trust.NONE),
        ([OURS.certificate], Trust.NONE),
        ([DEVICE], Trust.NONE),
    ],
)
def test_trust_follows_the_anchor_at_the_end_of_the_chain(chain, trust):
    assert ANCHORS.trust_of(chain) is trust


def test_our_ca_below_a_third_partys_gives_explicit_trust():
    anchors = Anchors([SUB.certificate], [THIRD.certificate])
    assert anchors.trust_of([DEVICE, SUB.certificate, THIRD.certificate]) is Trust.EXPLICIT


def test_a_leaf_that_is_an_anchor_gives_no_trust():
    anchors = Anchors([DEVICE], [])
    assert anchors.trust_of([DEVICE]) is Trust.NONE
    assert anchors.trust_of([DEVICE, OURS.certificate]) is Trust.NONE


def test_no_chain_is_trusted_without_anchors():
    assert Anchors([], []).trust_of([DEVICE, OURS.certificate]) is Trust.NONE


# Clients.


def test_a_certificate_of_our_ca_gives_explicit_trust_and_a_name():
    found = client_with_chain([DEVICE, OURS.certificate])
    assert (found.address, found.port) == ADDRESS
    assert (found.certificate, found.trust, found.is_ra) == (DEVICE, Trust.EXPLICIT, False)
    assert (found.verify, found.methods, found.name) == ("SUCCESS", "tls", "CN=device-1,O=Ours")
    assert found.why_not == ""


def test_a_client_without_a_certificate_has_no_trust_and_no_name():
    found = identify(ADDRESS, tls(), ANCHORS, "pass")
    assert (found.certificate, found.trust, found.verify, found.methods) == (None, Trust.NONE, "NONE", "")
    assert (found.name, found.why_not) == (None, "")


@pytest.mark.parametrize(("unknown", "shown"), [("anonymous", False), ("reject", False), ("pass", True)])
def test_an_unverified_certificate_is_shown_only_with_pass(unknown, shown):
    info = TLSInfo("TLSv1.3", "c", None, DEVICE, verify_error="certificate has expired")
    found = identify(ADDRESS, info, ANCHORS, unknown)
    assert found.certificate == (DEVICE if shown else None)
    assert found.verify == ("FAILED:certificate has expired" if shown else "NONE")
    assert (found.trust, found.methods, found.name) == (Trust.NONE, "", None)
    assert found.why_not == "; the one offered was not accepted: certificate has expired"


def test_a_verified_chain_without_an_anchor_counts_as_failed():
    stranger = root("Stranger")
    found = client_with_chain([DEVICE, stranger.certificate], unknown="pass")
    assert (found.verify, found.is_ra) == ("FAILED:not verified", False)
    assert found.why_not.endswith("no anchor for it here")


@pytest.mark.parametrize(
    ("ca", "usage", "is_ra"),
    [
        (OURS, RA, True),
        (OURS, x509.ExtendedKeyUsage([CLIENT_AUTH]), False),
        (THIRD, RA, False),
    ],
)
def test_cmc_ra_makes_an_ra_only_below_an_explicit_anchor(ca, usage, is_ra):
    """RFC 7030 3.7: id-kp-cmcRA from a third party confers nothing."""
    assert client_with_chain([certificate(ca, "CN=ra", usage), ca.certificate]).is_ra is is_ra


def test_an_ra_certificate_that_does_not_verify_makes_no_ra():
    info = TLSInfo("TLSv1.3", "c", None, certificate(OURS, "CN=ra", RA), verify_error="revoked")
    assert not identify(ADDRESS, info, ANCHORS, "pass").is_ra


@pytest.mark.parametrize(
    ("changes", "methods", "name"),
    [
        ({}, "", None),
        ({"user": "ann"}, "http", "ann"),
        ({"user": ""}, "http", ""),
        ({"certificate": DEVICE, "trust": Trust.IMPLICIT}, "tls", "CN=device-1,O=Ours"),
        ({"certificate": DEVICE, "trust": Trust.EXPLICIT, "user": "ann"}, "tls+http", "CN=device-1,O=Ours"),
        ({"claimed": Credentials("Basic", "eve", "x")}, "", None),
    ],
)
def test_methods_and_name_follow_what_is_verified(changes, methods, name):
    found = client(**changes)
    assert (found.methods, found.name) == (methods, name)


def test_with_user_returns_a_copy():
    before = client()
    assert before.with_user("ann").user == "ann"
    assert before.user is None
