"""Keys from the server: in the clear, under a shared key, for an RSA or EC certificate, and every fault."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.client import cms, keygen
from estgw.client.faults import Exit, InvalidAnswer
from estgw.client.sealing import Secret
from estgw.client.transport.wire import Answer
from estgw.est import certs, csr
from estgw.est import keygen as gateway_keygen
from estgw.est.csrattrs import decode_oid
from estgw.est.der import elements, whole, wrap
from estgw.est.keygen import ASYMMETRIC_DECRYPT_KEY_ID, DECRYPT_KEY_ID, SMIME_CAPABILITIES
from tests.client import rogue
from tests.kit.ca import common_name, root

VECTORS = Path(__file__).parents[2] / "vectors"
KEY_PACKAGE = "2.16.840.1.101.2.1.2.78.5"
ENVELOPED = "application/pkcs7-mime; smime-type=server-generated-key"
SHARED, SHARED_ID = bytes(range(32)), b"device-7"
ASK = ("--subject", "CN=device", "-o", "device.pem", "--no-csrattrs")


def pkcs8(key):
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def multipart(key_type, key_der, certificate, boundary="estServerExampleBoundary", encode=base64.encodebytes):
    """As in RFC 7030 A.4: with a preamble, an epilogue and a blank before the boundary parameter."""
    body = b"preamble\r\n"
    for kind, der in ((key_type, key_der), (rogue.CERTS_ONLY, certs.pack([certificate]))):
        head = f"--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        body += head.encode() + encode(der) + b"\r\n"
    body += f"--{boundary}--\r\nepilogue\r\n".encode()
    return rogue.reply(body=body, content_type=f"multipart/mixed ; boundary={boundary}")


@pytest.fixture
def generated(ca):
    """A key that the server has made, and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key, ca.sign(common_name("device"), key.public_key())


def openssl(*arguments, stdin):
    return subprocess.run(["openssl", "cms", *map(str, arguments)], input=stdin, capture_output=True, check=True).stdout


@pytest.fixture
def signed(ca, generated, tmp_path):
    """RFC 5958's AsymmetricKeyPackage in a SignedData by the server's own certificate."""
    signer = ca.issue("signer")
    (tmp_path / "signer.pem").write_bytes(signer.both)
    package = wrap(b"\x30", pkcs8(generated[0]))
    return openssl("-sign", "-binary", "-nodetach", "-outform", "DER", "-signer", tmp_path / "signer.pem",
                   "-econtent_type", KEY_PACKAGE, stdin=package)  # fmt: skip


def enveloped(signed, *recipient):
    return openssl("-encrypt", "-binary", "-outform", "DER", "-aes-256-cbc", *recipient, stdin=signed)


def shared_options(tmp_path, key=SHARED):
    (tmp_path / "shared").write_text(key.hex() + "\n")
    return ("--decrypt-key", "shared", "--decrypt-key-id", SHARED_ID.decode())


@pytest.fixture
def serve(holder, estclient, anchor):
    def run(answer, *options):
        with rogue.Server(holder, lambda _: answer) as server:
            ended = estclient("serverkeygen", "-u", server.url, "-c", anchor, *(options or ASK))
        return ended, server.requests

    return run


def fits(tmp_path):
    certificate = x509.load_pem_x509_certificate((tmp_path / "device.pem").read_bytes())
    key = load_pem_private_key((tmp_path / "device.key").read_bytes(), None)
    return certificate.public_key() == key.public_key()


def test_a_key_in_the_clear_is_stored_and_not_printed(serve, generated, tmp_path):
    ended, (request,) = serve(multipart("application/pkcs8", pkcs8(generated[0]), generated[1]))
    assert ended.status == Exit.DONE
    assert fits(tmp_path)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in ended.out + ended.err
    parsed = csr.parse(request.body)
    assert parsed.text_attribute(csr.CHALLENGE_PASSWORD) == request.binding
    assert SMIME_CAPABILITIES not in parsed.attributes
    assert parsed.spki != certs.spki(generated[1])


def test_the_example_of_rfc_7030_a4_is_read():
    body = (VECTORS / "rfc7030-a4-serverkeygen-response.multipart").read_bytes()
    from email.message import Message

    headers = Message()
    headers["Content-Type"] = "multipart/mixed ; boundary=estServerExampleBoundary"
    key, certificate = keygen.read(Answer(200, "OK", headers, body), Secret())
    assert base64.b64encode(key)[:4] == b"MIIE"
    assert "serverside key generated response" in certificate.subject.rfc4514_string()


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_key_under_a_shared_key_is_decrypted(serve, generated, signed, tmp_path, size):
    key = SHARED[:size]
    encrypted = enveloped(signed, "-secretkey", key.hex(), "-secretkeyid", SHARED_ID.hex())
    ended, (request,) = serve(multipart(ENVELOPED, encrypted, generated[1]), *ASK, *shared_options(tmp_path, key))
    assert ended.status == Exit.DONE, ended.err
    assert fits(tmp_path)
    parsed = csr.parse(request.body)
    (identifier,) = parsed.attributes[DECRYPT_KEY_ID]
    assert whole(identifier) == b"\x04\x08device-7"
    assert cms.WRAPS[size] in capabilities(parsed)


def capabilities(parsed):
    (value,) = parsed.attributes[SMIME_CAPABILITIES]
    return [
        decode_oid(whole(elements(whole(one), "a capability")[0])) for one in elements(whole(value), "capabilities")
    ]


def test_a_key_under_a_shared_key_with_gcm_is_decrypted(serve, generated, signed, tmp_path):
    encrypted = openssl("-encrypt", "-binary", "-outform", "DER", "-aes-128-gcm", "-secretkey", SHARED.hex(),
                        "-secretkeyid", SHARED_ID.hex(), stdin=signed)  # fmt: skip
    ended, _ = serve(multipart(ENVELOPED, encrypted, generated[1]), *ASK, *shared_options(tmp_path))
    assert ended.status == Exit.DONE, ended.err
    assert fits(tmp_path)


def test_an_encrypted_key_in_streamed_ber_is_decrypted(serve, generated, signed, tmp_path):
    encrypted = openssl("-encrypt", "-binary", "-stream", "-outform", "DER", "-aes-256-cbc", "-secretkey", SHARED.hex(),
                        "-secretkeyid", SHARED_ID.hex(), stdin=signed)  # fmt: skip
    assert b"\x30\x80" in encrypted[:4]
    ended, _ = serve(multipart(ENVELOPED, encrypted, generated[1]), *ASK, *shared_options(tmp_path))
    assert ended.status == Exit.DONE, ended.err


def recipient(ca, key):
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return ca.sign(common_name("recipient"), key.public_key(), [(ski, False)]), ski


@pytest.mark.parametrize("kind", ["rsa", "rsa-oaep", "rsa-oaep-sha256", "ec"])
def test_a_key_encrypted_to_a_certificate_is_decrypted(serve, ca, generated, signed, tmp_path, kind):
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)
    certificate, ski = recipient(ca, key)
    (tmp_path / "to.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "to.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    oaep, sha256 = ("rsa_padding_mode:oaep",), ("rsa_oaep_md:sha256", "rsa_mgf1_md:sha256")
    settings = {"rsa-oaep": oaep, "rsa-oaep-sha256": oaep + sha256}.get(kind, ())
    padding = [word for setting in settings for word in ("-keyopt", setting)]
    encrypted = enveloped(signed, "-recip", tmp_path / "to.pem", *padding)
    options = (*ASK, "--decrypt-cert", "to.pem", "--decrypt-cert-key", "to.key")
    ended, (request,) = serve(multipart(ENVELOPED, encrypted, generated[1]), *options)
    assert ended.status == Exit.DONE, ended.err
    assert fits(tmp_path)
    parsed = csr.parse(request.body)
    (identifier,) = parsed.attributes[ASYMMETRIC_DECRYPT_KEY_ID]
    assert bytes(identifier.data) == ski.digest
    expected = "1.3.132.1.11.1" if kind == "ec" else "1.2.840.113549.1.1.7"
    assert expected in capabilities(parsed)
    # The gateway reads it so, best first: OAEP with SHA-256, then its default form.
    understood = gateway_keygen.wish(parsed).algorithms
    ours = ("dhSinglePass-stdDH-sha256kdf-scheme:id-aes256-wrap", "id-aes128-wrap")
    assert understood[:2] == (ours if kind == "ec" else ("rsaesOaep:sha256", "rsaesOaep"))
    assert {"aes-256-cbc", "aes-128-cbc"} <= set(understood)
    if kind != "ec":
        assert bytes.fromhex("300d06092a864886f70d0101073000") in request.der  # RFC 3560, byte for byte


def test_clear_text_is_refused_when_encryption_was_asked_for(serve, generated, tmp_path):
    ended, _ = serve(multipart("application/pkcs8", pkcs8(generated[0]), generated[1]), *ASK, *shared_options(tmp_path))
    assert ended.status == Exit.INVALID_ANSWER
    assert "in the clear" in ended.err
    assert not (tmp_path / "device.key").exists()


def test_clear_text_labelled_as_encrypted_is_refused_too(serve, generated, tmp_path):
    ended, _ = serve(multipart(ENVELOPED, pkcs8(generated[0]), generated[1]), *ASK, *shared_options(tmp_path))
    assert ended.status == Exit.INVALID_ANSWER
    assert not (tmp_path / "device.key").exists()


def test_encryption_without_a_request_for_it_is_refused(serve, generated, signed):
    encrypted = enveloped(signed, "-secretkey", SHARED.hex(), "-secretkeyid", SHARED_ID.hex())
    ended, _ = serve(multipart(ENVELOPED, encrypted, generated[1]))
    assert ended.status == Exit.INVALID_ANSWER


def test_a_wrong_shared_key_or_a_flipped_bit_is_an_invalid_answer(serve, generated, signed, tmp_path):
    good = enveloped(signed, "-secretkey", SHARED.hex(), "-secretkeyid", SHARED_ID.hex())
    other_key = enveloped(signed, "-secretkey", SHARED[::-1].hex(), "-secretkeyid", SHARED_ID.hex())
    other_name = enveloped(signed, "-secretkey", SHARED.hex(), "-secretkeyid", "00")
    shorter = enveloped(signed, "-secretkey", SHARED[:16].hex(), "-secretkeyid", SHARED_ID.hex())
    flipped = good[:-20] + bytes([good[-20] ^ 1]) + good[-19:]
    for encrypted in (other_key, other_name, shorter, flipped, good[:-1], b"\x30\x00", signed):
        ended, _ = serve(multipart(ENVELOPED, encrypted, generated[1]), *ASK, *shared_options(tmp_path))
        assert ended.status == Exit.INVALID_ANSWER, ended
        assert not (tmp_path / "device.key").exists()


def test_a_key_from_an_unknown_signer_is_refused(serve, generated, tmp_path):
    stranger = root("Stranger").issue("signer")
    (tmp_path / "stranger.pem").write_bytes(stranger.both)
    package = wrap(b"\x30", pkcs8(generated[0]))
    signed = openssl("-sign", "-binary", "-nodetach", "-outform", "DER", "-signer", tmp_path / "stranger.pem",
                     "-econtent_type", KEY_PACKAGE, stdin=package)  # fmt: skip
    for content in (signed, package):
        encrypted = enveloped(content, "-secretkey", SHARED.hex(), "-secretkeyid", SHARED_ID.hex())
        ended, _ = serve(multipart(ENVELOPED, encrypted, generated[1]), *ASK, *shared_options(tmp_path))
        assert ended.status == Exit.INVALID_ANSWER
        assert "sign" in ended.err


def test_a_key_that_does_not_fit_the_certificate_is_refused(serve, generated, tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    ended, _ = serve(multipart("application/pkcs8", pkcs8(other), generated[1]))
    assert ended.status == Exit.INVALID_ANSWER
    assert "does not fit" in ended.err
    assert not list(tmp_path.glob("device.*"))


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/mixed", b"--x\r\n\r\n--x--"),
        ("multipart/mixed; boundary=x", b""),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: application/pkcs8\r\n\r\nMAA=\r\n--x--\r\n"),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: application/pkcs8\r\n\r\nMAA=\r\n" * 2 + b"--x--\r\n"),
        ("multipart/mixed; boundary=x", b"--x\r\nContent-Type: text/plain\r\n\r\nMAA=\r\n" * 2 + b"--x--\r\n"),
        (
            "multipart/mixed; boundary=x",
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n" * 2 + b"--x--",
        ),
        ("multipart/mixed; boundary=x", b"--x\r\n" * 100_000),
        ("application/pkcs8", b"MAA="),
        ("text/html", b"<p>"),
    ],
)
def test_an_unreadable_answer_is_an_invalid_answer(serve, content_type, body):
    ended, _ = serve(rogue.reply(body=body, content_type=content_type))
    assert ended.status == Exit.INVALID_ANSWER


def test_an_unreadable_private_key_is_refused(serve, generated):
    # Ed25519 with 31 octets
    short = wrap(b"\x30", bytes.fromhex("020100300506032b6570") + wrap(b"\x04", wrap(b"\x04", bytes(31))))
    for der in (b"\x30\x03\x02\x01\x00", b"junk", b"", short):
        ended, _ = serve(multipart("application/pkcs8", der, generated[1]))
        assert ended.status == Exit.INVALID_ANSWER


def test_a_package_of_several_keys_is_an_invalid_answer():
    with pytest.raises(InvalidAnswer):
        cms.private_key_info(wrap(b"\x30", b"\x30\x00\x30\x00"))


def test_a_finished_csr_must_ask_for_the_encryption_itself(serve, generated, tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    plain = x509.CertificateSigningRequestBuilder().subject_name(common_name("x")).sign(key, hashes.SHA256())
    (tmp_path / "csr.der").write_bytes(plain.public_bytes(serialization.Encoding.DER))
    options = ("--csr", "csr.der", "-o", "device.pem", *shared_options(tmp_path))
    ended, requests = serve(rogue.reply(400), *options)
    assert ended.status == Exit.USAGE
    assert "does not ask for encryption" in ended.err
    assert not requests


@pytest.mark.parametrize(
    "options",
    [
        ("--decrypt-key", "shared"),
        ("--decrypt-key-id", "x"),
        ("--decrypt-cert", "anchor.pem"),
        ("--decrypt-cert-key", "shared"),
        ("--decrypt-key", "shared", "--decrypt-key-id", "0xzz"),
        ("--decrypt-key", "anchor.pem", "--decrypt-key-id", "x"),
        ("--decrypt-key", "shared", "--decrypt-cert", "anchor.pem"),
    ],
)
def test_contradictory_decryption_options_are_a_usage_error(estclient, anchor, tmp_path, options):
    (tmp_path / "shared").write_text(SHARED.hex())
    assert estclient("serverkeygen", "-u", "localhost:1", "-c", anchor, *ASK, *options).status == Exit.USAGE


def test_an_existing_key_file_is_not_overwritten(serve, generated, tmp_path):
    (tmp_path / "device.key").write_text("precious")
    ended, requests = serve(multipart("application/pkcs8", pkcs8(generated[0]), generated[1]))
    assert ended.status == Exit.FAILED
    assert not requests
    assert (tmp_path / "device.key").read_text() == "precious"


def test_trace_hides_the_key(serve, generated, tmp_path):
    secret = base64.encodebytes(pkcs8(generated[0])).decode().splitlines()[1]
    ended, _ = serve(multipart("application/pkcs8", pkcs8(generated[0]), generated[1]), *ASK, "--trace")
    assert "bytes of private key ***" in ended.err
    assert secret not in ended.err
    assert os.environ.get("SSLKEYLOGFILE") is None
