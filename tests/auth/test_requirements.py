"""Every requirement of an operation, with every kind of client."""

from __future__ import annotations

import asyncio

import pytest

from estgw.auth.identity import Client, Trust
from estgw.auth.requirements import authenticate, require
from estgw.errors import BadRequest, Forbidden, Unauthenticated
from estgw.est.operations import Requires
from tests.callout.calls import CERTIFICATE, client, tls
from tests.kit.connection import basic

GOOD, BAD = [basic("ann:secret")], [basic("ann:wrong")]


async def verify(claiming: Client) -> bool:
    assert claiming.claimed is not None
    return claiming.claimed.password == "secret"


async def admitted(known: Client, headers: list[str], requires: Requires) -> Client:
    """Step 5 as the gateway has it."""
    found = await authenticate(known, headers, requires, verify)
    require(found, requires)
    return found


def authenticated(requires: Requires, headers: list[str], trust: Trust = Trust.NONE) -> Client:
    certificate = CERTIFICATE if trust is not Trust.NONE else None
    known = client(certificate=certificate, trust=trust, tls=tls(certificate))
    return asyncio.run(admitted(known, headers, requires))


# For each requirement, the result with nothing, with a password, with a certificate and with both.
MATRIX = {
    Requires.NONE: ("in", "in", "in", "in"),
    Requires.ANY: (401, "in", "in", "in"),
    Requires.TLS: (403, 403, "in", "in"),
    Requires.HTTP: (401, "in", 401, "in"),
    Requires.BOTH: (403, 403, 401, "in"),
}
KINDS = {
    "nothing": (False, False),
    "password": (True, False),
    "certificate": (False, True),
    "both": (True, True),
}


def test_the_matrix_covers_every_requirement():
    assert MATRIX.keys() == set(Requires)


@pytest.mark.parametrize("requires", Requires)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trust", [Trust.EXPLICIT, Trust.IMPLICIT])
def test_a_client_is_let_in_or_refused_as_the_matrix_says(requires, kind, trust):
    password, certificate = KINDS[kind]
    wanted = MATRIX[requires][list(KINDS).index(kind)]
    headers = GOOD if password else []
    if wanted == "in":
        found = authenticated(requires, headers, trust if certificate else Trust.NONE)
        assert found.user == ("ann" if password and requires is not Requires.NONE else None)
        return
    with pytest.raises((Unauthenticated, Forbidden)) as refusal:
        authenticated(requires, headers, trust if certificate else Trust.NONE)
    assert refusal.value.status == wanted


@pytest.mark.parametrize("requires", [each for each in Requires if each is not Requires.NONE])
@pytest.mark.parametrize("trust", [Trust.EXPLICIT, Trust.NONE])
def test_a_wrong_password_is_refused_even_with_a_certificate(requires, trust):
    with pytest.raises(Unauthenticated) as refusal:
        authenticated(requires, BAD, trust)
    assert str(refusal.value) == "wrong user name or password"
    assert refusal.value.public == ""


def test_a_wrong_password_is_ignored_where_nothing_is_required():
    found = authenticated(Requires.NONE, BAD)
    assert found.user is None
    assert found.claimed is not None
    assert found.claimed.username == "ann"
    assert authenticated(Requires.NONE, ["nonsense"]).claimed is None


def test_the_claimed_name_is_kept_beside_the_verified_one():
    found = authenticated(Requires.ANY, GOOD)
    assert found.claimed is not None
    assert (found.claimed.username, found.user) == ("ann", "ann")


def test_a_refusal_by_the_verifier_reaches_the_caller():
    async def refuses(_: Client) -> bool:
        raise BadRequest("The digest uri is another's.")

    with pytest.raises(BadRequest):
        asyncio.run(authenticate(client(), GOOD, Requires.ANY, refuses))


@pytest.mark.parametrize("requires", [Requires.TLS, Requires.BOTH])
def test_a_refusal_tells_why_the_certificate_was_not_accepted(requires):
    offered = client(tls=tls(CERTIFICATE, verify_error="certificate has expired"))
    with pytest.raises(Forbidden) as refusal:
        asyncio.run(admitted(offered, GOOD, requires))
    assert refusal.value.public == (
        "This operation needs a TLS client certificate; the one offered was not accepted: certificate has expired."
    )


def test_the_log_tells_why_a_certificate_was_not_accepted():
    offered = client(tls=tls(CERTIFICATE, verify_error="certificate has expired"))
    with pytest.raises(Unauthenticated, match=r"no client certificate; the one offered .* has expired"):
        asyncio.run(admitted(offered, [], Requires.ANY))
