"""Linking identity and POP: which binding counts, and how attributes are judged. `test_pop_rules` has the rules."""

from __future__ import annotations

import base64

import pytest

from estgw.auth.pop import POP, binding_in_force, link
from estgw.config.route import Linking
from estgw.errors import BadRequest, Malformed
from estgw.est.binding import Binding, BindingType
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, parse
from tests.callout.calls import tls
from tests.kit.csr import challenge, csr
from tests.kit.der import BMP, PRINTABLE, UTF8, attribute, tlv, vector

UNIQUE = Binding(BindingType.TLS_UNIQUE, bytes(range(12)))
EXPORTER = Binding(BindingType.TLS_EXPORTER, bytes(32))
FINISHED = Binding(BindingType.TLS13_FINISHED, bytes(48))
ALL = {binding.type: binding for binding in (UNIQUE, EXPORTER, FINISHED)}


@pytest.mark.parametrize(
    ("version", "tls13", "binding"),
    [
        ("TLSv1.2", "exporter", UNIQUE),
        ("TLSv1.2", "finished", UNIQUE),
        ("TLSv1.2", "off", UNIQUE),
        ("TLSv1.3", "exporter", EXPORTER),
        ("TLSv1.3", "finished", FINISHED),
        ("TLSv1.3", "off", None),
    ],
)
def test_the_binding_in_force_follows_the_version_and_the_setting(version, tls13, binding):
    assert binding_in_force(tls(version=version, bindings=ALL), tls13) == binding


def test_a_connection_without_the_wanted_binding_has_no_binding():
    assert binding_in_force(tls(version="TLSv1.2", bindings={}), "exporter") is None
    assert binding_in_force(tls(version="TLSv1.3", bindings={UNIQUE.type: UNIQUE}), "exporter") is None


def linked(*attributes: bytes, binding: Binding | None = UNIQUE, linking: Linking = "optional") -> POP:
    return link(parse(csr("x", *attributes)), binding, linking, "TLSv1.2", "challengePassword")


def identity_linking(text: str) -> bytes:
    return attribute(EST_IDENTITY_LINKING, tlv(UTF8, text.encode()))


EVERY: tuple[Linking, ...] = ("required", "optional", "waived")
RIGHT, FOREIGN = UNIQUE.text, EXPORTER.text


@pytest.mark.parametrize("linking", EVERY)
@pytest.mark.parametrize(
    "attributes",
    [
        [challenge(RIGHT)],
        [challenge(RIGHT, PRINTABLE, "ascii")],
        [challenge(RIGHT, BMP, "utf-16-be")],
        [challenge(RIGHT + "\n")],
        [identity_linking(RIGHT)],
        [challenge(RIGHT), identity_linking(RIGHT)],
    ],
)
def test_the_right_value_links_under_every_rule(linking, attributes):
    assert linked(*attributes, linking=linking) is POP.LINKED


@pytest.mark.parametrize(
    "attributes",
    [
        [challenge(FOREIGN)],
        [challenge("")],
        [challenge(RIGHT + "x")],
        [challenge(RIGHT[:-1])],
        [challenge("not base64 at all")],
        [identity_linking(FOREIGN)],
        # RFC 7894 4: each attribute is judged separately, and all must pass.
        [challenge(RIGHT), identity_linking(FOREIGN)],
        [challenge(FOREIGN), identity_linking(RIGHT)],
    ],
)
def test_a_foreign_value_is_refused_unless_waived(attributes):
    for linking in ("required", "optional"):
        with pytest.raises(BadRequest, match=r"is not base64 of this TLS connection's tls-unique value \(TLSv1\.2\)"):
            linked(*attributes, linking=linking)
    assert linked(*attributes, linking="waived") is POP.WAIVED


def test_the_refusal_names_the_attribute_at_fault():
    with pytest.raises(BadRequest, match="The CSR's estIdentityLinking is not"):
        linked(challenge(RIGHT), identity_linking(FOREIGN))


@pytest.mark.parametrize("linking", EVERY)
def test_a_csr_without_an_attribute_is_refused_only_if_required(linking):
    if linking == "required":
        with pytest.raises(BadRequest, match=r"required here: put base64 of this TLSv1\.2 connection's tls-unique"):
            linked(linking=linking)
    else:
        assert linked(linking=linking) is POP.ABSENT


@pytest.mark.parametrize("value", [RIGHT, FOREIGN])
@pytest.mark.parametrize("linking", ["required", "optional"])
def test_a_value_without_a_binding_is_refused_unless_waived(value, linking):
    with pytest.raises(BadRequest, match="no channel binding to compare it with"):
        linked(challenge(value), binding=None, linking=linking)
    assert linked(challenge(value), binding=None, linking="waived") is POP.WAIVED


def test_a_required_link_without_a_binding_is_refused_with_the_reason():
    with pytest.raises(BadRequest, match=r"there is no channel binding over TLSv1\.2"):
        linked(binding=None, linking="required")


@pytest.mark.parametrize("oid", [CHALLENGE_PASSWORD, EST_IDENTITY_LINKING])
@pytest.mark.parametrize("values", [[], [tlv(1, b"\xff")], [tlv(UTF8, b"a"), tlv(UTF8, b"b")]])
def test_an_attribute_that_is_not_one_text_is_malformed(oid, values):
    with pytest.raises(Malformed):
        linked(attribute(oid, *values), linking="waived")


def test_published_requests_of_other_connections_are_refused():
    bound = Binding(BindingType.TLS_UNIQUE, base64.b64decode("+rrCir/7+EYu50T5"))
    with pytest.raises(BadRequest):
        link(parse(vector("rfc7030-a3-simpleenroll-request.b64")), bound, "optional", "TLSv1.2", "challengePassword")
    with pytest.raises(BadRequest):  # the attribute holds arbitrary text
        link(parse(vector("rfc9148-a2-enroll-request.der")), EXPORTER, "optional", "TLSv1.3", "challengePassword")


def test_the_published_binding_links_its_request():
    bound = Binding(BindingType.TLS_UNIQUE, base64.b64decode("+rrCir/7+EYu50T4"))
    published = parse(vector("rfc7030-a3-simpleenroll-request.b64"))
    assert link(published, bound, "required", "TLSv1.2", "challengePassword") is POP.LINKED
