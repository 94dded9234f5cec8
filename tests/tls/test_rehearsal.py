"""A verdict on an open connection's certificate is the verdict of a new handshake."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from estgw.tls.adapter import TLSContext, tls_info
from estgw.tls.info import TLSInfo
from tests.kit.ca import DAY, NOW, Credential, root
from tests.tls.serving import VERSIONS, World, exchange, serving

CLIENTS = (
    "valid", "no-eku", "below-sub-ca", "below-sub-sub-ca", "stranger", "self-signed", "impostor", "expired",
    "too-early", "server-only", "client-and-server", "other-ca", "revoked", "below-revoked-ca", "weak-key",
    "below-weak-ca", "deep",
)  # fmt: skip


@pytest.fixture(scope="module")
def clients(world: World) -> dict[str, Credential]:
    lost = world.root.sub("Lost Sub CA")
    weak = world.root.sub("Weak Sub CA", key=rsa.generate_private_key(65537, 1024))
    deep = world.root
    for number in range(9):
        deep = deep.sub(f"Sub CA {number}")
    return {
        **world.clients,
        "revoked": world.root.issue("revoked"),
        "below-revoked-ca": lost.issue("device"),
        "weak-key": world.root.issue("weak", key=rsa.generate_private_key(65537, 1024)),
        "below-weak-ca": weak.issue("device"),
        "deep": deep.issue("device"),
    }


@pytest.fixture(scope="module")
def contexts(world: World, clients: dict[str, Credential]) -> dict[str, TLSContext]:
    both = (world.root.certificate, world.other.certificate)
    lost = Credential(clients["below-revoked-ca"].chain[0], None)
    crl = world.root.crl(clients["revoked"], lost)
    made: dict[str, dict[str, Any]] = {
        "plain": {},
        "no anchors": {"anchors": ()},
        "a sub-CA as the anchor": {"anchors": (world.sub.certificate,)},
        "another CA": {"anchors": (world.other.certificate,)},
        "an expired anchor": {"anchors": (root("Root CA", starts=NOW - 3 * DAY, ends=NOW - DAY).certificate,)},
        "a CRL": {"anchors": both, "crls": (crl,)},
        "an expired CRL": {"crls": (world.root.crl(starts=NOW - 3 * DAY, ends=NOW - DAY),)},
        "a forged CRL": {"crls": (root("Root CA").crl(),)},
    }
    return {name: world.context(**settings) for name, settings in made.items()}


def meet(world: World, directory: Path, credential: Credential, *contexts: TLSContext, version: Any = None) -> TLSInfo:
    """Shake hands under the first context. Returns what the last context says about that connection."""

    class Noting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            infos.extend(tls_info(self.transport, context) for context in contexts)
            self.transport.write(data)  # type: ignore[attr-defined]

    infos: list[TLSInfo] = []
    client = world.client(version)
    client.set_ciphers("DEFAULT:@SECLEVEL=0")  # a client may have a weak key
    client.load_cert_chain(*credential.write(directory, "credential"))

    async def scene() -> TLSInfo:
        async with serving(contexts[0], Noting) as gateway:
            await asyncio.to_thread(exchange, gateway.port, client)
            return infos[-1]

    return asyncio.run(scene())


@pytest.mark.parametrize("name", CLIENTS)
def test_rehearsal_gives_the_verdict_of_a_new_handshake(world, clients, contexts, tmp_path, name):
    """Each client under each context gets the same words and the same chain."""
    credential, found, wanted = clients[name], {}, {}
    for rules, context in contexts.items():
        new = meet(world, tmp_path, credential, context)
        before = "plain" if rules == "no anchors" else "no anchors"
        old = meet(world, tmp_path, credential, contexts[before], context)
        found[rules] = (old.verify_error, old.verified_chain)
        wanted[rules] = (new.verify_error, new.verified_chain)
        assert (old.certificate, old.chain) == (new.certificate, new.chain)
    assert found == wanted


def test_the_table_has_both_verdicts_under_each_set_of_rules(clients, contexts):
    seen = {
        (rules, bool(context.rehearsal.verdict(clients[name].certificates).error))
        for rules, context in contexts.items()
        for name in ("valid", "revoked", "below-sub-ca", "other-ca", "stranger")
    }
    broken = {"no anchors", "an expired anchor", "an expired CRL", "a forged CRL"}
    assert seen >= {(rules, True) for rules in contexts} | {(rules, False) for rules in contexts if rules not in broken}


@pytest.mark.parametrize("version", list(VERSIONS))
def test_rehearsal_sees_a_revocation_in_either_tls_version(world, clients, contexts, tmp_path, version):
    info = meet(world, tmp_path, clients["revoked"], contexts["plain"], contexts["a CRL"], version=VERSIONS[version])
    assert (info.version, info.verify_error, info.verified_chain) == (version, "certificate revoked", ())
    assert info.bindings


def test_rehearsal_handles_a_chain_of_several_tls_records(world, contexts):
    """A TLS record has 16 KiB at most, a Certificate message may have more."""
    large = world.root.sub("Large Sub CA", padding=40_000).issue("device")
    assert contexts["plain"].rehearsal.verdict(large.certificates).error is None
    assert contexts["another CA"].rehearsal.verdict(large.certificates).error is not None


def test_rehearsal_under_reject_unknown_has_the_same_words(world, clients):
    rules = world.context(reject_unknown=True).rehearsal
    assert rules.verdict(clients["valid"].certificates).error is None
    assert rules.verdict(clients["expired"].certificates).error == "certificate has expired"


def test_a_verdict_stands_until_the_next_date_of_a_certificate_or_crl(world):
    device = world.root.issue("device", starts=NOW - DAY, ends=NOW + DAY)
    crl = world.root.crl(starts=NOW - DAY, ends=NOW + DAY / 2)
    now, day = NOW.timestamp(), DAY.total_seconds()
    plain, checked = world.context().rehearsal, world.context(crls=(crl,)).rehearsal
    assert plain.stands_until([device.certificate], now) == now + day
    assert checked.stands_until([device.certificate], now) == now + day / 2
    assert plain.stands_until([device.certificate], now + day) == now + day + 1
    assert plain.stands_until([device.certificate], now + day + 1) == now + 30 * day  # the anchor's own end
    assert plain.stands_until([device.certificate], now + 400 * day) == float("inf")
