"""Facts about a connection: the client's certificate, the verdict on it and the channel bindings."""

from __future__ import annotations

import asyncio
import re
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from estgw.est.binding import BindingType
from estgw.tls.handshake import Verification
from tests.kit.ca import DAY, NOW, SERVER_AUTH, Credential, broken_certificate
from tests.kit.der import CN, SEQUENCE, SET, T61, UTF8, dn, tlv
from tests.kit.keys import KEY
from tests.tls.serving import VERSIONS, exchange, meet, meet_credential, openssl_exchange, run, serving, subjects

both_versions = pytest.mark.parametrize("version", list(VERSIONS))


# Certificates.


@both_versions
def test_a_connection_without_a_certificate_has_no_chain_and_no_error(world, version):
    info = meet(world, world.client(VERSIONS[version]))
    assert info.version == version
    assert re.search("GCM|CHACHA20", info.cipher)
    assert info.server_name == "localhost"
    assert (info.certificate, info.chain, info.verified_chain, info.verify_error) == (None, (), (), None)


@both_versions
@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("valid", ["CN=Root CA"]),
        ("no-eku", ["CN=Root CA"]),
        ("client-and-server", ["CN=Root CA"]),
        ("below-sub-ca", ["CN=Sub CA", "CN=Root CA"]),
        ("below-sub-sub-ca", ["CN=Sub Sub CA", "CN=Sub CA", "CN=Root CA"]),
    ],
)
def test_a_certificate_that_verifies_is_reported_with_its_chain(world, version, name, chain):
    info = meet(world, world.client(VERSIONS[version], name))
    assert info.certificate == world.clients[name].certificate
    # Python's client adds the root by itself where it has no other chain to send.
    assert info.chain == (world.clients[name].chain or (world.root.certificate,))
    assert subjects(info.verified_chain) == ["CN=device", *chain]
    assert info.verify_error is None


@both_versions
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("stranger", "unable to get local issuer certificate"),
        ("self-signed", "self-signed certificate"),
        ("impostor", "unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("too-early", "certificate is not yet valid or the system clock is incorrect"),
        ("server-only", "unsuitable certificate purpose"),
    ],
)
def test_an_unverified_certificate_is_accepted_with_its_error(world, version, name, error):
    info = meet(world, world.client(VERSIONS[version], name))
    assert info.certificate == world.clients[name].certificate
    assert info.verified_chain == ()
    assert info.verify_error == error


def test_the_record_keeps_the_first_fault_of_the_lowest_depth():
    record = Verification()
    assert record.words is None
    for error, depth in [(10, 2), (20, 1), (26, 0), (10, 0), (19, 1)]:
        record.record(error, depth)
    assert record.words == "unsuitable certificate purpose"


def test_the_lowest_fault_is_reported(world, tmp_path):
    """The CA has expired, and the device's certificate has the wrong purpose. OpenSSL reports from the top down."""
    old_sub = world.root.sub("Old Sub CA", ends=NOW - DAY / 2)
    device = old_sub.issue("device", eku=(SERVER_AUTH,))
    assert meet_credential(world, tmp_path, device).verify_error == "unsuitable certificate purpose"


def test_a_certificate_that_cannot_be_parsed_counts_as_none(world, tmp_path):
    """The certificate has an unknown X.509 version. OpenSSL reads it, cryptography does not."""
    device = world.root.issue("device")
    der = device.certificate.public_bytes(Encoding.DER)
    broken = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    certificate, key = device.write(tmp_path, "broken")
    certificate.write_text(ssl.DER_cert_to_PEM_cert(broken))
    client = world.client()
    client.load_cert_chain(certificate, key)
    info = meet(world, client)
    assert (info.certificate, info.chain, info.verified_chain) == (None, (), ())
    assert info.verify_error == "the client's certificates can't be parsed"


UNREADABLE = {
    "Latin-1 in a TeletexString": dn((CN, T61, b"M\xfcller")),
    "one attribute twice in an RDN": tlv(SEQUENCE, tlv(SET, *[dn((CN, UTF8, b"device"))[4:]] * 2)),
}


@pytest.mark.parametrize("subject", UNREADABLE)
def test_a_certificate_whose_names_cannot_be_read_counts_as_none(world, tmp_path, subject):
    """OpenSSL accepts these names and our CA has signed them. cryptography parses them only when they are read."""
    der = broken_certificate(world.root, UNREADABLE[subject])
    device = Credential(x509.load_der_x509_certificate(der), KEY)
    info = meet_credential(world, tmp_path, device)
    assert (info.certificate, info.chain, info.verified_chain) == (None, (), ())
    assert info.verify_error == "the client's certificates can't be parsed"


@pytest.mark.parametrize("name", ["valid", "stranger"])
def test_a_resumed_session_counts_as_not_verified(world, name):
    """The context refuses resumption. The verify callback does not run in it, so no fault would prove nothing."""
    context = world.context()
    context.openssl.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    context.openssl.set_session_id(b"test")
    client = world.client(VERSIONS["TLSv1.2"], name)

    async def scene() -> None:
        async with serving(context) as gateway:
            session = await asyncio.to_thread(exchange, gateway.port, client, then=lambda tls: tls.session)
            resumed = await asyncio.to_thread(
                exchange, gateway.port, client, session=session, then=lambda tls: tls.session_reused
            )
            assert resumed
            info = gateway.infos[1]
            assert info.certificate == world.clients[name].certificate
            assert (info.verified_chain, info.verify_error) == ((), "not verified on this connection")
            assert BindingType.TLS_UNIQUE not in info.bindings

    asyncio.run(scene())


# Bindings.


@both_versions
def test_tls_unique_is_the_clients_value_and_absent_in_tls_1_3(world, version):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            theirs = await asyncio.to_thread(
                exchange,
                gateway.port,
                world.client(VERSIONS[version]),
                then=lambda tls: tls.get_channel_binding("tls-unique"),
            )
            ours = gateway.infos[0].bindings.get(BindingType.TLS_UNIQUE)
        if version == "TLSv1.2":
            assert ours is not None
            assert ours.value == theirs
            assert len(theirs) == 12
        else:
            assert ours is None

    asyncio.run(scene())


@both_versions
def test_exporter_and_finished_are_the_clients_values(world, version):
    def theirs(tls: SSL.Connection) -> tuple[bytes, bytes | None]:
        return tls.export_keying_material(b"EXPORTER-Channel-Binding", 32, b""), tls.get_finished()

    async def scene() -> None:
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.set_max_proto_version({"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}[version])
        async with serving(world.context()) as gateway:
            for attempt in range(3):
                exported, finished = await asyncio.to_thread(openssl_exchange, gateway.port, client, then=theirs)
                values = {kind: found.value for kind, found in gateway.infos[attempt].bindings.items()}
                own = BindingType.TLS_UNIQUE if version == "TLSv1.2" else BindingType.TLS13_FINISHED
                assert values == {BindingType.TLS_EXPORTER: exported, own: finished}

    asyncio.run(scene())


def test_no_exporter_without_extended_master_secret(world):
    client = world.client(ssl.TLSVersion.TLSv1_2)
    client.options |= 1  # SSL_OP_NO_EXTENDED_MASTER_SECRET
    assert set(meet(world, client).bindings) == {BindingType.TLS_UNIQUE}


def test_exporter_is_the_value_that_openssl_prints(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            output = await run(
                *("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-tls1_3"),
                *("-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"),
            )
            found = re.search("Keying material: ([0-9A-F]+)", output)
            assert found
            assert bytes.fromhex(found[1]) == gateway.infos[0].bindings[BindingType.TLS_EXPORTER].value

    asyncio.run(scene())
