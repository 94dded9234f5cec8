"""The rules that require, allow or waive linking, and their name patterns, which a hostile name cannot imitate."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from estgw.auth import pop
from estgw.auth.identity import Client, Trust
from estgw.auth.pop import POP
from estgw.auth.pop_rules import Rules
from estgw.config.model import POPRule
from estgw.config.route import Linking
from estgw.errors import BadRequest, Malformed
from estgw.est import csr as csrs
from estgw.est.binding import Binding, BindingType
from estgw.tls.info import TLSInfo
from tests.kit.ca import certificate, root
from tests.kit.csr import CHALLENGE_PASSWORD, challenge, csr
from tests.kit.der import BOOLEAN, UTF8, attribute, tlv

CLIENT = Client("192.0.2.7", 4711, TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", None, None))
CA = root("Our CA")
BOUND = Binding(BindingType.TLS_UNIQUE, b"twelve bytes")
LINKING = "1.2.840.113549.1.9.16.2.58"


def client(subject: str | x509.Name = "CN=a,O=Example", trust: Trust = Trust.EXPLICIT, **more: object) -> Client:
    shown = certificate(CA, subject)
    tls = TLSInfo("TLSv1.2", "c", None, shown)
    return Client("192.0.2.7", 4711, tls, shown, trust, **more)  # type: ignore[arg-type]


def linking_under(
    rule: dict[str, object], of: Client, operation: str = "simpleenroll", label: str | None = None
) -> str:
    """`required` when the rule fits, else the default, `optional`."""
    return Rules([POPRule(pop="required", **rule)], "optional").linking(of, operation, label)  # type: ignore[arg-type]


# Conditions.


@pytest.mark.parametrize(
    ("rule", "fits"),
    [
        ({}, True),
        ({"operation": "simpleenroll"}, True),
        ({"operation": "serverkeygen"}, False),
        ({"label": "iot"}, True),
        ({"label": "other"}, False),
        ({"label": ""}, False),
        ({"user": "alice"}, True),
        ({"user": "bob"}, False),
        ({"user": ""}, False),
        ({"trust": "explicit"}, True),
        ({"trust": "implicit"}, False),
        ({"trust": "none"}, False),
        ({"ra": True}, True),
        ({"ra": False}, False),
        ({"address": "192.0.2.0/24"}, True),
        ({"address": "192.0.2.7"}, True),
        ({"address": "192.0.2.8"}, False),
        ({"address": "2001:db8::/32"}, False),
        ({"subject": "CN=a,O=Example"}, True),
        ({"subject": "CN=*,O=Example"}, True),
        ({"subject": "CN=*"}, False),
        ({"subject": "*"}, False),
        ({"subject": "CN=b,*"}, False),
        ({"issuer": "CN=Our CA"}, True),
        ({"issuer": "CN=Their CA"}, False),
        ({"user": "alice", "ra": True, "label": "iot", "subject": "CN=*,O=*"}, True),
        ({"user": "alice", "ra": True, "label": "iot", "subject": "CN=*,O=b"}, False),
    ],
    ids=str,
)
def test_a_rule_fits_only_if_all_its_conditions_hold(rule, fits):
    of = client(user="alice", is_ra=True)
    assert linking_under(rule, of, label="iot") == ("required" if fits else "optional")


def test_the_first_rule_that_fits_decides():
    rules = Rules(
        [
            POPRule(pop="waived", user="alice"),
            POPRule(pop="optional", operation="simpleenroll"),
            POPRule(pop="waived"),
        ],
        "required",
    )
    assert rules.linking(client(user="alice"), "simpleenroll", None) == "waived"
    assert rules.linking(client(user="bob"), "simpleenroll", None) == "optional"
    assert rules.linking(client(user="bob"), "simplereenroll", None) == "waived"
    assert Rules([], "required").linking(CLIENT, "simpleenroll", None) == "required"


def test_a_fingerprint_matches_with_and_without_colons():
    of = client()
    assert of.certificate
    digits = of.certificate.fingerprint(SHA256()).hex()
    assert linking_under({"fingerprint": digits}, of) == "required"
    assert linking_under({"fingerprint": of.certificate.fingerprint(SHA256()).hex(":").upper()}, of) == "required"
    assert linking_under({"fingerprint": "0" * 64}, of) == "optional"


@pytest.mark.parametrize("rule", [{"subject": "CN=a,O=Example"}, {"issuer": "CN=Our CA"}, {"fingerprint": ""}], ids=str)
def test_an_unverified_certificate_fits_no_rule(rule):
    of = client(trust=Trust.NONE)
    assert of.certificate
    if "fingerprint" in rule:
        rule = {"fingerprint": of.certificate.fingerprint(SHA256()).hex()}
    assert linking_under(rule, of) == "optional"
    assert linking_under(rule, CLIENT) == "optional"


def test_the_empty_user_in_a_rule_matches_only_the_empty_user():
    assert linking_under({"user": ""}, client(user="")) == "required"
    assert linking_under({"user": ""}, client()) == "optional"


def test_an_address_with_a_scope_matches_its_network():
    of = Client("fe80::1%eth0", 1, CLIENT.tls)
    assert linking_under({"address": "fe80::/10"}, of) == "required"
    assert ipaddress.ip_address("192.0.2.7") not in ipaddress.ip_network("fe80::/10")


def named(*rdns: tuple[x509.ObjectIdentifier, str] | list[tuple[x509.ObjectIdentifier, str]]) -> x509.Name:
    """A name of these RDNs, in the order of the DER. A list is one RDN with several values."""
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(oid, text, _validate=False) for oid, text in (rdn if isinstance(rdn, list) else [rdn])
        )
        for rdn in rdns
    )


CN, ORG, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME


@pytest.mark.parametrize(
    "hostile",
    [
        named((CN, "a,O=Example")),
        named((CN, "a\\,O=Example")),
        named((CN, 'a",O=Example')),
        named((CN, "a;O=Example")),
        named((CN, "a+O=Example")),
        named((CN, "a\0,O=Example")),
        named((CN, "a\\2CO=Example")),
        named((ORG, "Example"), [(CN, "a"), (OU, "b")]),
        named([(CN, "a"), (ORG, "Example")]),
        named((CN, "a"), (ORG, "Example")),
        named((ORG, "Example"), (OU, "b"), (CN, "a")),
        named((CN, "CN=a,O=Example")),
        named((ORG, "Example "), (CN, "a")),
    ],
    ids=lambda name: name.rfc4514_string(),
)
def test_a_pattern_does_not_fit_a_name_that_imitates_rdns(hostile):
    assert linking_under({"subject": "CN=*,O=Example"}, client(hostile)) == "optional"


@pytest.mark.parametrize("text", ["a", "a,b", "a\\", "a\\,b+c=d", "#a", " a ", "ä", "*"])
def test_a_star_matches_any_value_of_one_rdn(text):
    assert linking_under({"subject": "CN=*,O=Example"}, client(named((ORG, "Example"), (CN, text)))) == "required"


# What csrattrs announces.

RULES = {
    "default": ([], "required", True),
    "nothing": ([], "optional", False),
    "for an operation": ([{"operation": "simpleenroll", "pop": "required"}], "optional", True),
    "for a user": ([{"user": "alice", "pop": "required"}], "optional", True),
    "for this label": ([{"label": "iot", "pop": "required"}], "optional", True),
    "for another label": ([{"label": "lab", "pop": "required"}], "optional", False),
    "from elsewhere": ([{"address": "10.0.0.0/8", "pop": "required"}], "optional", False),
    "not for RAs": ([{"ra": True, "pop": "waived"}], "required", True),
    "not for this label": ([{"label": "iot", "pop": "optional"}], "required", False),
    "the first rule counts": ([{"label": "iot", "pop": "optional"}, {"pop": "required"}], "required", False),
    "a rule for some is not all": ([{"label": "iot", "user": "a", "pop": "optional"}], "required", True),
}


@pytest.mark.parametrize(("rules", "default", "announced"), RULES.values(), ids=RULES)
def test_csrattrs_announces_linking_if_any_such_client_must_link(rules, default, announced):
    assert Rules([POPRule(**rule) for rule in rules], default).announces(CLIENT, "iot") is announced


# The verdict.


def link(*attributes: bytes, binding: Binding | None = BOUND, linking: Linking = "optional") -> POP:
    parsed = csrs.parse(csr("device-1", *attributes))
    return pop.link(parsed, binding, linking, "TLSv1.2", "challengePassword")


def test_a_csr_without_an_attribute_is_absent_or_refused_if_required():
    assert link() is POP.ABSENT
    assert link(linking="waived") is POP.ABSENT
    with pytest.raises(BadRequest, match=r"required here: put base64 of this TLSv1\.2 connection's tls-unique value"):
        link(linking="required")
    with pytest.raises(BadRequest, match=r"connect over TLS 1\.2"):
        link(linking="required", binding=None)


@pytest.mark.parametrize("linking", ["optional", "required", "waived"])
def test_our_binding_links_whatever_the_rule(linking):
    assert link(challenge(BOUND.text), linking=linking) is POP.LINKED
    both = (challenge(BOUND.text), attribute(LINKING, tlv(UTF8, BOUND.text.encode())))
    assert link(*both, linking=linking) is POP.LINKED


@pytest.mark.parametrize("binding", [BOUND, None])
def test_a_foreign_value_is_waived_or_refused(binding):
    foreign = challenge("c29tZWJvZHk=")
    for linking in ("optional", "required"):
        with pytest.raises(BadRequest, match="challengePassword"):
            link(foreign, binding=binding, linking=linking)
    assert link(foreign, binding=binding, linking="waived") is POP.WAIVED


@pytest.mark.parametrize(
    "attribute",
    [
        attribute(CHALLENGE_PASSWORD),
        attribute(CHALLENGE_PASSWORD, tlv(BOOLEAN, b"\xff")),
        attribute(LINKING, tlv(UTF8, b"a"), tlv(UTF8, b"b")),
        challenge("x" * 256),
    ],
)
def test_a_malformed_attribute_is_refused_even_where_waived(attribute):
    """Even an RA's CSR must be readable."""
    with pytest.raises(Malformed):
        link(attribute, linking="waived")
