"""The server context, seen by clients: which certificates it verifies, what it refuses, and faulty settings."""

from __future__ import annotations

import asyncio
import re
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from OpenSSL import SSL

from estgw.errors import ConfigError
from estgw.tls import context as context_module
from estgw.tls.context import TLSSettings, server_context
from estgw.tls.handshake import Verification
from estgw.tls.info import TLSInfo
from tests.kit.ca import DAY, NOW, Credential, pem, root
from tests.tls.serving import VERSIONS, exchange, meet, meet_credential, openssl_exchange, run, serving, subjects

both_versions = pytest.mark.parametrize("version", list(VERSIONS))


# Trust.


def test_a_sub_ca_can_be_the_anchor(world):
    info = meet(world, world.client(name="below-sub-ca"), anchors=(world.sub.certificate,))
    assert subjects(info.verified_chain) == ["CN=device", "CN=Sub CA"]
    info = meet(world, world.client(name="valid"), anchors=(world.sub.certificate,))
    assert info.verified_chain == ()
    assert info.verify_error == "self-signed certificate in certificate chain"


def test_cas_of_one_name_all_verify_their_clients(world, tmp_path):
    generations = [root("Rolling CA") for _ in range(3)]
    anchors = tuple(ca.certificate for ca in generations)
    for ca in generations:
        info = meet_credential(world, tmp_path, ca.issue("device"), anchors=anchors)
        assert info.verified_chain[1:] == (ca.certificate,)


def test_no_certificate_verifies_without_anchors(world):
    assert meet(world, world.client(name="valid"), anchors=()).verified_chain == ()


def test_a_chain_deeper_than_the_limit_is_not_verified(world, tmp_path):
    verdicts = []
    ca = world.root
    for level in range(10):
        info = meet_credential(world, tmp_path, ca.issue("device"))
        verdicts.append(info.verify_error)
        ca = ca.sub(f"CA of level {level}")
    assert verdicts == [None] * 9 + ["certificate chain too long"]


def test_the_certificate_request_names_no_cas(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            for method in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
                client = SSL.Context(SSL.TLS_CLIENT_METHOD)
                client.set_max_proto_version(method)
                names = await asyncio.to_thread(
                    openssl_exchange,
                    gateway.port,
                    client,
                    then=lambda tls: tls.get_client_ca_list(as_cryptography=True),
                )
                assert names == []

    asyncio.run(scene())


# The size of what a client sends.


@pytest.mark.parametrize("parameters", [mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey])
def test_a_post_quantum_chain_is_accepted(world, tmp_path, parameters):
    ca = root("PQ Root", key=parameters.generate())
    device = ca.sub("PQ Sub", key=parameters.generate()).issue("device", key=parameters.generate())
    client = SSL.Context(SSL.TLS_CLIENT_METHOD)
    certificate, key = device.write(tmp_path, "device")
    client.use_certificate_chain_file(certificate)
    client.use_privatekey_file(key)

    async def scene() -> TLSInfo:
        async with serving(world.context(anchors=(ca.certificate,))) as gateway:
            await asyncio.to_thread(openssl_exchange, gateway.port, client)
            return gateway.infos[0]

    info = asyncio.run(scene())
    assert subjects(info.verified_chain) == ["CN=device", "CN=PQ Sub", "CN=PQ Root"]


def test_an_enormous_chain_is_refused(world, tmp_path):
    device = world.root.issue("device")
    filler = tuple(world.other.issue(f"filler {n}", padding=8000).certificate for n in range(15))
    client = world.client()
    client.load_cert_chain(*Credential(device.certificate, device.key, filler).write(tmp_path, "enormous"))

    async def scene() -> None:
        async with serving(world.context()) as gateway:
            # The client gets an alert, or a reset while it still sends.
            with pytest.raises(OSError):
                await asyncio.to_thread(exchange, gateway.port, client)
            await asyncio.sleep(0)
        assert gateway.reasons == ["excessive message size"]

    asyncio.run(scene())


# Revocation.


def test_a_crl_refuses_only_the_certificates_that_it_lists(world, tmp_path):
    revoked, fine = world.root.issue("revoked"), world.root.issue("fine")
    settings = {
        "anchors": (world.root.certificate, world.other.certificate),
        "crls": (world.root.crl(revoked),),
    }
    info = meet_credential(world, tmp_path, revoked, **settings)
    assert (info.verify_error, info.verified_chain) == ("certificate revoked", ())
    assert meet_credential(world, tmp_path, revoked).verified_chain  # not without the CRL
    assert meet_credential(world, tmp_path, fine, **settings).verify_error is None
    # CAs without a CRL.
    assert meet(world, world.client(name="other-ca"), **settings).verify_error is None
    info = meet(world, world.client(name="below-sub-ca"), **settings)
    assert (info.verify_error, len(info.verified_chain)) == (None, 3)
    assert meet(world, world.client(name="stranger"), **settings).verify_error is not None


def test_a_certificate_below_a_revoked_sub_ca_is_not_verified(world, tmp_path):
    sub = world.root.sub("Lost Sub CA")
    info = meet_credential(world, tmp_path, sub.issue("device"), crls=(world.root.crl(sub),))
    assert (info.verify_error, info.verified_chain) == ("certificate revoked", ())


@pytest.mark.parametrize(
    ("starts", "ends", "error"),
    [
        (NOW - 3 * DAY, NOW - DAY, "CRL has expired: the server's CRL of CN=Root CA ended at "),
        (NOW + DAY, NOW + 3 * DAY, "CRL is not yet valid: the server's CRL of CN=Root CA begins at "),
    ],
)
def test_no_certificate_verifies_under_an_expired_or_early_crl(world, starts, ends, error):
    crl = world.root.crl(starts=starts, ends=ends)
    words = meet(world, world.client(name="valid"), crls=(crl,)).verify_error
    assert words is not None
    assert words.startswith(error)
    assert words.endswith("and until the server has a current one, every certificate of this CA is refused")


def test_no_certificate_verifies_under_a_forged_crl(world):
    crl = root("Root CA").crl()
    info = meet(world, world.client(name="valid"), crls=(crl,))
    assert info.verify_error is not None
    assert info.verified_chain == ()


def test_crls_work_for_cas_that_share_a_name(world, tmp_path):
    old, new = root("Rolling CA"), root("Rolling CA")
    revoked = old.issue("revoked")
    settings = {
        "anchors": (old.certificate, new.certificate),
        "crls": (old.crl(revoked), new.crl()),
    }
    assert meet_credential(world, tmp_path, revoked, **settings).verify_error == "certificate revoked"
    assert meet_credential(world, tmp_path, old.issue("fine"), **settings).verify_error is None
    assert meet_credential(world, tmp_path, new.issue("fine"), **settings).verify_error is None


def test_a_verify_callback_never_raises(world):
    """pyOpenSSL stores its exception with the context and raises it in another client's connection."""

    class Broken:
        def to_cryptography(self) -> None:
            raise RuntimeError("can't be parsed")

    class Connection:
        record = Verification()

        def get_app_data(self) -> Verification:
            return self.record

    verify = context_module._verify_callback(world.settings(crls=(world.root.crl(),)))
    assert verify(Connection(), Broken(), 3, 0, 0) is True
    assert Connection.record.words == "unable to get certificate CRL"


# reject_unknown: the client must learn the reason.


@both_versions
@pytest.mark.parametrize(
    ("name", "alert", "reason"),
    [
        ("stranger", "alert unknown ca", "unable to get local issuer certificate"),
        ("expired", "alert,? certificate expired", "certificate has expired"),
        ("server-only", "alert unsupported certificate|alert bad certificate", "unsuitable certificate purpose"),
    ],
)
def test_the_alert_tells_the_client_why_it_is_refused(world, version, name, alert, reason):
    async def scene() -> None:
        async with serving(world.context(reject_unknown=True)) as gateway:
            with pytest.raises(ssl.SSLError) as caught:
                await asyncio.to_thread(exchange, gateway.port, world.client(VERSIONS[version], name))
            assert re.search(alert, str(caught.value).replace("_", " "), re.IGNORECASE)
            certificate, key = world.files[name]
            output = await run(
                *("curl", "-sSv", "--max-time", "5", "--cacert", world.root_file, "--cert", certificate),
                *("--key", key, f"--tlsv{version[-3:]}", "--tls-max", version[-3:]),
                f"https://localhost:{gateway.port}/",
            )
            assert re.search(alert, output)  # curl prints its own words for an expired certificate
            for allowed in (None, "valid"):
                await asyncio.to_thread(exchange, gateway.port, world.client(VERSIONS[version], allowed))
        assert gateway.reasons == [f"certificate verify failed: {reason}"] * 2

    asyncio.run(scene())


def test_reject_unknown_accepts_clients_of_a_ca_without_a_crl(world):
    settings = {"crls": (world.root.crl(),), "reject_unknown": True}
    info = meet(world, world.client(name="below-sub-ca"), **settings)
    assert len(info.verified_chain) == 3


# What is refused.


@pytest.mark.parametrize(
    ("limits", "options", "alert"),
    [
        ({}, ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "alert protocol version"),
        ({"minimum": "1.3"}, ["-tls1_2"], "alert protocol version"),
        ({"maximum": "1.2"}, ["-tls1_3"], "alert protocol version"),
        ({}, ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], "alert handshake failure"),
        ({}, ["-tls1_2", "-cipher", "NULL:aNULL:@SECLEVEL=0"], "alert handshake failure"),
    ],
)
def test_old_versions_and_weak_ciphers_are_refused(world, limits, options, alert):
    async def scene() -> None:
        async with serving(world.context(**limits)) as gateway:
            output = await run("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", *options)
            assert alert in output
        assert gateway.infos == []
        assert len(gateway.failures) == 1

    asyncio.run(scene())


def test_only_forward_secret_aead_ciphers_are_offered(world):
    connection = SSL.Connection(world.context().openssl, None)
    names = connection.get_cipher_list()
    assert "ECDHE-ECDSA-AES128-GCM-SHA256" in names
    assert "ECDHE-RSA-CHACHA20-POLY1305" in names
    for name in names:
        assert re.fullmatch("TLS_.*|ECDHE-(ECDSA|RSA)-.*(GCM|POLY1305|CCM).*", name)


@both_versions
def test_no_session_is_resumed(world, version):
    client = world.client(VERSIONS[version], "stranger")

    def session_of(tls: ssl.SSLSocket) -> ssl.SSLSession | None:
        assert not tls.session_reused
        return tls.session

    async def scene() -> None:
        async with serving(world.context()) as gateway:
            session = None
            for _ in range(3):
                session = await asyncio.to_thread(exchange, gateway.port, client, session=session, then=session_of)
                assert session is not None
            assert [info.verify_error for info in gateway.infos] == ["unable to get local issuer certificate"] * 3

    asyncio.run(scene())


def test_renegotiation_is_refused(world):
    async def scene() -> None:
        async with serving(world.context()) as gateway:
            output = await run(
                *("openssl", "s_client", "-connect", f"127.0.0.1:{gateway.port}", "-tls1_2"), stdin=b"R\n"
            )
            assert "RENEGOTIATING" in output
            assert "no renegotiation" in output

    asyncio.run(scene())


# Settings that can't be used.


def test_an_unusable_certificate_or_key_file_is_a_fault(world, tmp_path):
    certificate, key = world.server
    _, other_key = world.files["valid"]
    empty = tmp_path / "empty"
    empty.write_text("no PEM here\n")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    ed25519 = tmp_path / "rsa.key"
    ed25519.write_bytes(
        mldsa.MLDSA44PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    missing = tmp_path / "missing"
    for cert_file, key_file, words in [
        (missing, key, f"{missing}: can't be read: No such file or directory"),
        (certificate, missing, f"{missing}: can't be read: No such file or directory"),
        (tmp_path, key, f"{tmp_path}: can't be read: Is a directory"),
        (empty, key, f"{empty}: no usable certificate in PEM"),
        (key, key, f"{key}: no usable certificate in PEM"),
        (certificate, empty, f"{empty}: no usable private key in PEM"),
        (certificate, certificate, f"{certificate}: no usable private key in PEM"),
        (certificate, other_key, f"{other_key}: is not the key of {certificate}"),
        (certificate, ed25519, f"{ed25519}: is not the key of {certificate}"),
        (certificate, encrypted, f"{encrypted}: the key is encrypted"),
    ]:
        with pytest.raises(ConfigError) as caught:
            server_context(TLSSettings(cert_file, key_file))
        assert caught.value.faults[0].startswith(words)
        assert len(caught.value.faults) == 1


def test_server_keys_of_every_kind_are_accepted(world, tmp_path):
    """The EC key is in the form that `openssl ecparam -genkey` writes: parameters first."""

    async def scene() -> None:
        for name, command in {
            "ec": ["ecparam", "-name", "prime256v1", "-genkey"],
            "rsa": ["genrsa", "-traditional", "2048"],
            "ed25519": ["genpkey", "-algorithm", "ed25519"],
        }.items():
            key_file = tmp_path / f"{name}.key"
            key_file.write_text(await run("openssl", *command))
            private = serialization.load_pem_private_key(key_file.read_bytes(), None)
            certificate = world.root.server(key=private).certificate
            (tmp_path / f"{name}.crt").write_bytes(pem(certificate))
            context = server_context(TLSSettings(tmp_path / f"{name}.crt", key_file))
            async with serving(context) as gateway:
                await asyncio.to_thread(exchange, gateway.port, world.client())

    asyncio.run(scene())


def test_the_server_sends_the_chain_in_its_file(world, tmp_path):
    """The server adds nothing from the anchors for clients."""

    def sent(tls: SSL.Connection) -> list[x509.Certificate] | None:
        return tls.get_peer_cert_chain(as_cryptography=True)

    server = world.sub_sub.server()
    below_root = world.root.server()

    async def scene() -> None:
        for credential in (server, below_root):
            files = credential.write(tmp_path, "server")
            anchors = (world.root.certificate, world.sub.certificate)
            async with serving(server_context(TLSSettings(files[0], files[1], anchors=anchors))) as gateway:
                client = SSL.Context(SSL.TLS_CLIENT_METHOD)
                chain = await asyncio.to_thread(openssl_exchange, gateway.port, client, then=sent)
                assert chain == credential.certificates

    asyncio.run(scene())
