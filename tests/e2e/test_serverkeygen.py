"""Keys that the server makes and encrypts (RFC 7030 4.4): every kind of protection, opened by other programs.

`openssl cms` decrypts and verifies, `openssl asn1parse` shows the RecipientInfo, and estclient does all of it at
once.  G1 to G16 are rows of tests/rfc_coverage.md.
"""

from __future__ import annotations

import base64
import email
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
    pkcs7,
)

from estgw.est import encoding, keygen
from estgw.est.csrattrs import decode_oid, encode_oid
from estgw.est.der import ContentInfo, decode, elements, whole, wrap
from tests.kit.ca import name, pem
from tests.kit.cases import some
from tests.kit.connection import CERTS_ONLY, Response
from tests.kit.csr import csr
from tests.kit.der import attribute, oid
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.processes import ROOT, run
from tests.kit.workspace import Workspace

SEALED = "application/pkcs7-mime; smime-type=server-generated-key"
KEY_PACKAGE = "2.16.840.1.101.2.1.2.78.5"
SHARED = {bits: bytes(range(bits // 8)) for bits in (128, 192, 256)}
SEQUENCE, SET, OCTETS, NULL = b"\x30", b"\x31", b"\x04", b"\x05\x00"
OAEP_SHA256 = bytes.fromhex(
    "302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500"
)
OIDS = {name: oid for oid, name in keygen.ALGORITHMS.items()}
USAGES = [
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
]


def capability(name: str) -> bytes:
    """An SMIMECapability; after a colon, the hash of OAEP or the wrap of a key agreement."""
    kind, _, parameter = name.partition(":")
    parameters = NULL if kind == "rsaEncryption" else b""
    if parameter.startswith("id-"):
        parameters = wrap(SEQUENCE, encode_oid(OIDS[parameter]))
    elif parameter == "sha256":
        parameters = OAEP_SHA256
    return wrap(SEQUENCE, encode_oid(OIDS.get(kind, kind)) + parameters)


def capabilities(*names: str) -> bytes:
    return attribute(keygen.SMIME_CAPABILITIES, wrap(SEQUENCE, b"".join(map(capability, names))))


def identifier(kind: str, value: bytes) -> bytes:
    return attribute(kind, wrap(OCTETS, value))


def asking(oid: str, key_id: bytes, *names: str, subject: str = "CN=keyless") -> bytes:
    return csr(name(subject), identifier(oid, key_id), capabilities(*names))


def certified(
    key: Any, *, usage: dict[str, bool] | None = None, ski: bytes | None = b"", days: int = 1
) -> x509.Certificate:
    """A certificate of an unknown CA for this key; an empty `ski` is the usual one, None leaves it out."""
    own, now = name("CN=recipient"), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(key.public_key())
    builder = (
        builder.serial_number(0x00C0FFEE).not_valid_before(now - timedelta(2)).not_valid_after(now + timedelta(days))
    )
    if ski is not None:
        usual = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(x509.SubjectKeyIdentifier(ski or usual.digest), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.KeyUsage(**(dict.fromkeys(USAGES, False) | usage)), critical=True)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())


def ski_of(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def key_pem(key: Any) -> bytes:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


@dataclass(frozen=True)
class Recipient:
    """A client whose certificate the server has."""

    key: Any
    certificate: x509.Certificate
    usage: dict[str, bool]

    @classmethod
    def make(cls, key: Any, **options: Any) -> Recipient:
        usage = {"key_encipherment": True} if isinstance(key, rsa.RSAPrivateKey) else {"key_agreement": True}
        return cls(key, certified(key, usage=usage, **options), usage)

    def files(self, folder: Path) -> tuple[Path, Path]:
        (folder / "to.pem").write_bytes(pem(self.certificate))
        (folder / "to.key").write_bytes(key_pem(self.key))
        return folder / "to.pem", folder / "to.key"


RSA = Recipient.make(rsa.generate_private_key(65537, 2048))
CURVES: dict[int, Recipient] = {
    curve.key_size: Recipient.make(ec.generate_private_key(curve))
    for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
}
NAMELESS = Recipient.make(rsa.generate_private_key(65537, 2048), ski=None)
NAMELESS_EC = Recipient.make(ec.generate_private_key(ec.SECP256R1()), ski=None)
BY_FILE = b"by-file"
UNFIT = {
    "signing RSA": certified(rsa.generate_private_key(65537, 2048), usage={"digital_signature": True}),
    "signing EC": certified(ec.generate_private_key(ec.SECP256R1()), usage={"digital_signature": True}),
    "agreement for RSA": certified(rsa.generate_private_key(65537, 2048), usage={"key_agreement": True}),
    "Ed25519": certified(ed25519.Ed25519PrivateKey.generate()),
    "expired": certified(ec.generate_private_key(ec.SECP256R1()), days=-1),
}


def furnish(ca: Path) -> None:
    """The shared keys and the certificates that the CA knows."""
    (ca / "keygen-keys").write_text(
        "# identifier and AES key\n"
        f"device-7  {SHARED[256].hex()}   # a comment\n\n"
        f"0x00ff {SHARED[128].hex()}\nk192\t{SHARED[192].hex().upper()}\n"
    )
    (ca / "keygen-keys").chmod(0o600)
    folder = ca / "keygen-certificates"
    folder.mkdir()
    known = [RSA.certificate, *(one.certificate for one in CURVES.values()), NAMELESS_EC.certificate, *UNFIT.values()]
    for number, certificate in enumerate(known):
        (folder / f"{number}.pem").write_bytes(pem(certificate))
    (folder / f"{BY_FILE.hex()}.pem").write_bytes(pem(NAMELESS.certificate))


@pytest.fixture(scope="module")
def server(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    own = lab.copy(tmp_path_factory.mktemp("keygen"))
    furnish(own.ca)
    text = (own.path / "handlers/openssl/serverkeygen").read_text()
    labels: dict[str, Any] = {}
    for label, kind in (("rsa", "rsa-2048"), ("ed25519", "ed25519")):
        changed = text.replace("kind=p-256", f"kind={kind}", 1)
        handler = own.script(f"handlers/openssl/serverkeygen-{label}", changed)
        labels[label] = {"operations": {"serverkeygen": {"handler": str(handler)}}}
    strict = own.script(
        "handlers/openssl/serverkeygen-strict", re.sub(r"^# (\[\[ \$EST_KEYGEN)", r"\1", text, flags=re.MULTILINE)
    )
    careless = own.script("handlers/openssl/serverkeygen-careless", "EST_KEYGEN_PROTECT=none exec ./serverkeygen")
    text = (own.path / "handlers/python/serverkeygen").read_text()
    for kind in ("p-256", "rsa-2048", "ed25519", "ml-dsa-65"):
        handler = own.script(f"handlers/python/serverkeygen-{kind}", text.replace('"p-256"', f'"{kind}"'))
        labels[f"python-{kind}"] = {"operations": {"serverkeygen": {"handler": str(handler)}}}
    labels["strict"] = {"operations": {"serverkeygen": {"handler": str(strict)}}}
    labels["careless"] = {"operations": {"serverkeygen": {"handler": str(careless)}}}
    switched_on = {"callouts": {"operations": {"serverkeygen": {"enabled": True}}}, "labels": labels}
    with running_gateway(own, switched_on) as running:
        yield running


# Parsing the answer.


def parts(answer: Response) -> tuple[str, bytes, x509.Certificate]:
    """The key's type and DER, and the certificate."""
    assert answer.status == 200, answer
    message = email.message_from_bytes(f"Content-Type: {answer.header('Content-Type')}\r\n\r\n".encode() + answer.body)
    first, second = list(message.walk())[1:]
    assert [part["Content-Transfer-Encoding"] for part in (first, second)] == ["base64", "base64"]
    assert second["Content-Type"] == CERTS_ONLY
    key, bag = (base64.b64decode(str(part.get_payload())) for part in (first, second))
    (certificate,) = pkcs7.load_der_pkcs7_certificates(bag)
    return first["Content-Type"], key, certificate


@dataclass(frozen=True)
class Envelope:
    """The parts of an EnvelopedData that RFC 7030 4.4.2 specifies."""

    der: bytes
    version: int
    kind: str
    recipient: list[Any]
    content_type: str
    cipher: str

    @classmethod
    def read(cls, der: bytes) -> Envelope:
        info = decode(ContentInfo, der, "CMS")
        assert info.content_type.dotted_string == "1.2.840.113549.1.7.3"
        version, recipients, content = elements(whole(info.content), "EnvelopedData")
        (recipient,) = elements(wrap(SEQUENCE, bytes(recipients.data)), "recipients")
        inner_type, cipher, _ = elements(whole(content), "content")
        kind = {b"\x30": "ktri", b"\xa1": "kari", b"\xa2": "kekri"}[bytes(recipient.tag_bytes)]
        return cls(
            der,
            bytes(version.data)[0],
            kind,
            elements(wrap(SEQUENCE, bytes(recipient.data)), "RecipientInfo"),
            decode_oid(whole(inner_type)),
            algorithm(cipher),
        )

    @property
    def recipient_version(self) -> int:
        return bytes(self.recipient[0].data)[0]

    def opened(self, folder: Path, *how: str | Path) -> bytes:
        """Decrypt with OpenSSL: a bare SignedData, according to the content type."""
        (folder / "sealed.der").write_bytes(self.der)
        out = run("openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", folder / "sealed.der", *how).stdout
        return wrap(SEQUENCE, encode_oid("1.2.840.113549.1.7.2") + wrap(b"\xa0", out))


def algorithm(part: Any) -> str:
    found = decode_oid(whole(elements(whole(part), "an algorithm")[0]))
    return keygen.ALGORITHMS.get(found, found)


def verified(lab: Workspace, signed: bytes, folder: Path) -> bytes:
    """The PKCS#8 in the package, after OpenSSL has verified the signature up to the CA."""
    (folder / "signed.der").write_bytes(signed)
    trust = ("-CAfile", lab.anchor, "-purpose", "any", "-signer", folder / "signer.pem", "-inform", "DER")
    package = run("openssl", "cms", "-verify", "-binary", *trust, "-in", folder / "signed.der").stdout
    signer = x509.load_pem_x509_certificate((folder / "signer.pem").read_bytes())
    assert signer == x509.load_pem_x509_certificate((lab.ca / "server.pem").read_bytes())
    assert KEY_PACKAGE.encode() in run("openssl", "asn1parse", "-inform", "DER", "-in", folder / "signed.der").stdout
    (key,) = elements(package, "AsymmetricKeyPackage")
    return whole(key)


def require_ours(lab: Workspace, certificate: x509.Certificate) -> None:
    """Require a certificate of our CA. OpenSSL 3.0 can't read the keys of RFC 9881, so it does not verify those."""
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(lab.anchor.read_bytes()))
    if not isinstance(certificate.public_key(), mldsa.MLDSA65PublicKey):
        lab.verify(certificate)


def check(server: Gateway, answer: Response, folder: Path, *how: str | Path) -> Envelope:
    """Decrypt, verify, compare with the certificate. The caller checks the RecipientInfo."""
    kind, der, certificate = parts(answer)
    assert kind == SEALED
    envelope = Envelope.read(der)
    assert envelope.content_type == "1.2.840.113549.1.7.2"
    key = load_der_private_key(verified(server.lab, envelope.opened(folder, *how), folder), None)
    assert key.public_key() == certificate.public_key()
    assert certificate.subject == name("CN=keyless")
    require_ours(server.lab, certificate)
    return envelope


# In the clear.


@pytest.mark.parametrize(
    ("label", "kind"), [("", "id-ecPublicKey"), ("rsa/", "rsaEncryption"), ("ed25519/", "ED25519")]
)
def test_g6_a_key_without_protection_is_pkcs8_in_the_clear(server, label, kind):
    """G5, G6, G7: PKCS#8 that `openssl pkey` reads, beside the certificate alone."""
    media_type, key, certificate = parts(server.post(f"{label}serverkeygen", csr("keyless")))
    assert media_type == "application/pkcs8"
    run("openssl", "pkey", "-inform", "DER", "-noout", stdin=key)
    assert kind.encode() in run("openssl", "asn1parse", "-inform", "DER", stdin=key).stdout
    assert load_der_private_key(key, None).public_key() == certificate.public_key()
    require_ours(server.lab, certificate)


def test_g4_capabilities_alone_do_not_ask_for_encryption(server):
    """An S/MIME client's CSR has them. Without a key identifier there is no encryption."""
    request = csr(name("CN=keyless"), capabilities("aes-256-cbc"))
    assert parts(server.post("serverkeygen", request[:-1] + bytes([request[-1] ^ 1])))[0] == "application/pkcs8"


def test_the_policy_in_serverkeygen_can_require_encryption(server):
    answer = server.post("strict/serverkeygen", csr("keyless"))
    assert (answer.status, answer.words) == (403, "ask for an encrypted key (RFC 7030 4.4.1)")
    request = asking(keygen.DECRYPT_KEY_ID, b"device-7", "id-aes256-wrap")
    assert parts(server.post("strict/serverkeygen", request))[0] == SEALED


# Under a shared key.


@pytest.mark.parametrize(
    ("name", "bits", "label"),
    [
        (b"device-7", 256, ""),
        (b"\x00\xff", 128, "rsa/"),
        (b"k192", 192, "ed25519/"),
        (b"device-7", 256, "python-rsa-2048/"),
        (b"k192", 192, "python-ed25519/"),
        (b"\x00\xff", 128, "python-ml-dsa-65/"),
    ],
)
def test_g12_a_key_is_encrypted_under_a_shared_key(server, tmp_path, name, bits, label):
    """G11, G12: kekri, version 4. kekid is the identifier; the wrap is from the list and fits the key."""
    request = asking(keygen.DECRYPT_KEY_ID, name, "id-aes128-wrap", "id-aes192-wrap", "id-aes256-wrap")
    how = ("-secretkey", SHARED[bits].hex(), "-secretkeyid", name.hex())
    envelope = check(server, server.post(f"{label}serverkeygen", request), tmp_path, *how)
    assert (envelope.kind, envelope.version, envelope.recipient_version) == ("kekri", 2, 4)
    assert bytes(elements(whole(envelope.recipient[1]), "kekid")[0].data) == name
    assert algorithm(envelope.recipient[2]) == f"id-aes{bits}-wrap"
    assert envelope.cipher == f"aes-{bits}-cbc"


@pytest.mark.parametrize(
    ("wanted", "cipher"),
    [
        (["aes-128-cbc"], "aes-128-cbc"),
        (["aes-128-cbc", "aes-256-gcm", "aes-192-cbc"], "aes-192-cbc"),
        (["des-ede3-cbc", "aes-128-cbc", "aes-256-cbc", "1.2.3.4"], "aes-256-cbc"),
    ],
)
def test_the_content_cipher_is_one_that_the_client_accepts(server, tmp_path, wanted, cipher):
    request = asking(keygen.DECRYPT_KEY_ID, b"device-7", *wanted, "id-aes256-wrap")
    how = ("-secretkey", SHARED[256].hex(), "-secretkeyid", b"device-7".hex())
    assert check(server, server.post("serverkeygen", request), tmp_path, *how).cipher == cipher


# To a certificate.


@pytest.mark.parametrize(
    ("wanted", "used", "parameters"),
    [
        (["rsaesOaep", "rsaEncryption"], "rsaesOaep", b"\x30\x00"),
        (["rsaesOaep:sha256", "rsaesOaep"], "rsaesOaep", OAEP_SHA256),
        (["rsaEncryption", "rsaesOaep"], "rsaEncryption", NULL),
        (["1.2.3", "id-aes128-wrap", "dhSinglePass-stdDH-sha256kdf-scheme", "rsaEncryption"], "rsaEncryption", NULL),
    ],
)
def test_g13_a_key_is_encrypted_to_an_rsa_certificate(server, tmp_path, wanted, used, parameters):
    """G13: rid is the key identifier of the attribute, so version 2. The first algorithm that fits is used."""
    request = asking(keygen.ASYMMETRIC_DECRYPT_KEY_ID, ski_of(RSA.certificate), *wanted)
    envelope = check(server, server.post("serverkeygen", request), tmp_path, *recip(RSA, tmp_path))
    assert (envelope.kind, envelope.version, envelope.recipient_version) == ("ktri", 2, 2)
    _, rid, method, _ = envelope.recipient
    assert (bytes(rid.tag_bytes), bytes(rid.data)) == (b"\x80", ski_of(RSA.certificate))
    assert algorithm(method) == used
    assert whole(elements(whole(method), "an algorithm")[1]) == parameters
    assert envelope.cipher == "aes-128-cbc"


def recip(recipient: Recipient, folder: Path) -> tuple[str | Path, ...]:
    certificate, key = recipient.files(folder)
    return "-recip", certificate, "-inkey", key


def issuer_and_serial(certificate: x509.Certificate) -> bytes:
    return wrap(SEQUENCE, certificate.issuer.public_bytes() + b"\x02\x04\x00\xc0\xff\xee")


def test_g13_an_rsa_certificate_may_lack_a_key_identifier(server, tmp_path):
    """Only this server knows the identifier, so rid is issuerAndSerialNumber, and all versions are 0 (RFC 5652 6.1)."""
    request = asking(keygen.ASYMMETRIC_DECRYPT_KEY_ID, BY_FILE, "rsaesOaep")
    envelope = check(server, server.post("serverkeygen", request), tmp_path, *recip(NAMELESS, tmp_path))
    assert (envelope.kind, envelope.version, envelope.recipient_version) == ("ktri", 0, 0)
    assert whole(envelope.recipient[1]) == issuer_and_serial(NAMELESS.certificate)


@pytest.mark.parametrize(
    ("size", "bits", "kdf"), [(256, 128, "sha256"), (256, 128, "sha512"), (384, 192, "sha384"), (521, 256, "sha512")]
)
def test_g14_a_key_is_encrypted_to_an_ec_certificate(server, tmp_path, size, bits, kdf):
    """G14: kari, version 3, an ephemeral key of the same curve, the wrap from the client's list."""
    scheme, recipient = f"dhSinglePass-stdDH-{kdf}kdf-scheme", CURVES[size]
    names = (
        "rsaEncryption",
        "dhSinglePass-stdDH-sha1kdf-scheme",
        scheme,
        *(f"id-aes{each}-wrap" for each in (256, 192, 128)),
    )
    request = asking(keygen.ASYMMETRIC_DECRYPT_KEY_ID, ski_of(recipient.certificate), *names)
    envelope = check(server, server.post("serverkeygen", request), tmp_path, *recip(recipient, tmp_path))
    assert (envelope.kind, envelope.version, envelope.recipient_version) == ("kari", 2, 3)
    _, _, method, keys = envelope.recipient
    assert algorithm(method) == scheme
    assert algorithm(elements(whole(method), "an algorithm")[1]) == f"id-aes{bits}-wrap"
    (encrypted,) = elements(whole(keys), "keys")
    rid = elements(whole(encrypted), "key")[0]
    assert whole(rid) == wrap(b"\xa0", wrap(OCTETS, ski_of(recipient.certificate)))
    assert envelope.cipher == f"aes-{bits}-cbc"


def test_g14_a_wrap_inside_the_scheme_is_used(server, tmp_path):
    """RFC 5753 7.2. The certificate has no key identifier, so the client has hashed its key."""
    digest = x509.SubjectKeyIdentifier.from_public_key(NAMELESS_EC.key.public_key()).digest
    wanted = ("dhSinglePass-stdDH-sha256kdf-scheme:id-aes256-wrap", "id-aes128-wrap", "aes-256-cbc")
    answer = server.post("serverkeygen", asking(keygen.ASYMMETRIC_DECRYPT_KEY_ID, digest, *wanted))
    envelope = check(server, answer, tmp_path, *recip(NAMELESS_EC, tmp_path))
    _, _, method, keys = envelope.recipient
    assert algorithm(elements(whole(method), "an algorithm")[1]) == "id-aes256-wrap"
    (encrypted,) = elements(whole(keys), "keys")
    assert whole(elements(whole(encrypted), "key")[0]) == issuer_and_serial(NAMELESS_EC.certificate)
    assert envelope.cipher == "aes-256-cbc"


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_key_is_encrypted_to_the_clients_tls_certificate(server, tmp_path, kind):
    """The server need not store it: the identifier in the CSR is in the certificate of the connection."""
    usage = "keyEncipherment" if kind == "rsa" else "keyAgreement"
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    own = server.lab.copy(tmp_path / "own")
    own.edit("openssl-ca/profiles/client", "critical, digitalSignature", f"critical, digitalSignature, {usage}")
    with running_gateway(own, {"callouts": {"operations": {"serverkeygen": {"enabled": True}}}}) as gateway:
        mine = gateway.post("simpleenroll", csr("keyless", key=key)).certificate
        me = Recipient(key, mine, {})
        request = asking(keygen.ASYMMETRIC_DECRYPT_KEY_ID, ski_of(mine), "rsaesOaep:sha256", *AGREEING)
        refused = gateway.post("serverkeygen", request)
        assert (refused.status, "is known here" in refused.words) == (400, True)
        answer = gateway.post("serverkeygen", request, login=None, certificate=me.files(tmp_path))
        assert check(gateway, answer, tmp_path, *recip(me, tmp_path)).kind == ("ktri" if kind == "rsa" else "kari")


AGREEING = ("dhSinglePass-stdDH-sha256kdf-scheme", "id-aes128-wrap")
SYM, ASYM = keygen.DECRYPT_KEY_ID, keygen.ASYMMETRIC_DECRYPT_KEY_ID
SKI = ski_of(RSA.certificate)
ALL = capabilities("rsaEncryption", *AGREEING, "id-aes256-wrap")

P256 = ski_of(CURVES[256].certificate)

REFUSED = {
    "g8 no capabilities": ([identifier(SYM, b"device-7")], "has no SMIMECapabilities to say how"),
    "g8 no capabilities for a certificate": ([identifier(ASYM, SKI)], "has no SMIMECapabilities to say how"),
    "g9 unknown key": ([identifier(SYM, b"device-8"), ALL], "no key with the identifier 0x6465766963652d38 is known"),
    "g9 a certificate's name": ([identifier(SYM, SKI), ALL], "is known here"),
    "g9 a name that begins as a known one": ([identifier(SYM, b"device-"), ALL], "is known here"),
    "g10 unknown certificate": ([identifier(ASYM, b"\0" * 20), ALL], "no certificate with the key identifier 0x0000"),
    "g10 a shared key's name": ([identifier(ASYM, b"device-7"), ALL], "is known here"),
    "g10 a path": ([identifier(ASYM, b"../server"), ALL], "is known here"),
    **{
        f"g10 {name}": ([identifier(ASYM, ski_of(certificate)), ALL], "the private key can't be encrypted")
        for name, certificate in UNFIT.items()
    },
    "both": ([identifier(SYM, b"device-7"), identifier(ASYM, SKI), ALL], "both to a symmetric and to an asymmetric"),
    "no wrap for this key": ([identifier(SYM, b"device-7"), capabilities("id-aes128-wrap")], "id-aes256-wrap, which"),
    "no transport": ([identifier(ASYM, SKI), capabilities(*AGREEING)], "no algorithm for it"),
    "no agreement": ([identifier(ASYM, P256), capabilities("rsaEncryption")], "no algorithm for it"),
    "agreement without a wrap": ([identifier(ASYM, P256), capabilities(AGREEING[0])], "no algorithm for it"),
    "no content cipher": ([identifier(SYM, b"device-7"), capabilities("id-aes256-wrap", "aes-256-gcm")], "AES-CBC"),
}


@pytest.mark.parametrize(("attributes", "words"), some(REFUSED.values(), 2))
def test_protection_that_the_server_cannot_provide_is_a_400(server, attributes, words):
    """G8, G9, G10, G15: 400 with words, no certificate, and no key in the clear. tests/est has more of G8."""
    before = server.lab.books()
    answer = server.post("serverkeygen", csr(name("CN=keyless"), *attributes))
    assert answer.status == 400
    assert words in answer.words
    assert "PRIVATE" not in answer.body.decode()
    assert server.lab.books() == before


def test_a_key_in_the_clear_is_stopped_after_a_request_for_encryption(server):
    """The gateway checks the answer: after a request for encryption it never sends a key in the clear."""
    answer = server.post("careless/serverkeygen", asking(SYM, b"device-7", "id-aes256-wrap"))
    assert answer.status == 500
    assert "PRIVATE" not in answer.body.decode()
    reason = server.access[-1]["reason"]
    words = "serverkeygen-careless: printed a private key in the clear, and the client asked for an encrypted one"
    assert reason.startswith(words)
    assert 'It printed "[private key removed]".' in reason


def test_g2_serverkeygen_needs_authentication(server):
    assert server.post("serverkeygen", asking(SYM, b"device-7", "id-aes256-wrap"), login=None).status == 401


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (f"device-7 {SHARED[256].hex()}\n", 0o640, "others may read the keys in it"),
        ("device-7\n", 0o600, "keygen-keys:1: not an identifier and an AES key"),
        (f"# one\ndevice-7 {SHARED[256].hex()}00\n", 0o600, "keygen-keys:2: not an identifier"),
        (f"0xzz {SHARED[256].hex()}\n", 0o600, "keygen-keys:1: not an identifier"),
        (f"device-7 {SHARED[256].hex()}\n0x{b'device-7'.hex()} {SHARED[128].hex()}\n", 0o600, "two keys of one name"),
    ],
)
def test_a_faulty_keygen_keys_file_is_a_500(server, text, mode, words):
    file = server.lab.ca / "keygen-keys"
    good, before, logged = file.read_text(), server.lab.books(), len(server.log_text)
    try:
        file.write_text(text)
        file.chmod(mode)
        assert server.post("serverkeygen", asking(SYM, b"device-7", "id-aes256-wrap")).status == 500
        assert words in server.log_text[logged:]
        assert SHARED[256].hex() not in server.log_text
    finally:
        file.write_text(good)
        file.chmod(0o600)
    assert server.lab.books() == before


def test_no_private_key_stays_in_a_file_or_in_the_log(server, tmp_path):
    """The private key is in no file of the workspace, and the shared key is not in the log."""
    how = ("-secretkey", SHARED[256].hex(), "-secretkeyid", b"device-7".hex())
    _, der, _ = parts(server.post("serverkeygen", asking(SYM, b"device-7", "id-aes256-wrap")))
    key = load_der_private_key(verified(server.lab, Envelope.read(der).opened(tmp_path, *how), tmp_path), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32)
    armoured = key_pem(key).splitlines()[1]
    for path in server.lab.path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert secret not in content, path
        assert armoured not in content, path
    assert SHARED[256].hex() not in server.log_text


# estclient does all of this at once.


def estclient(server: Gateway, folder: Path, *options: str | Path, label: str = "") -> None:
    url = f"{server.url}/.well-known/est{label}"
    command = (
        sys.executable,
        "-m",
        "estgw.client",
        "serverkeygen",
        "-u",
        url,
        "-c",
        server.lab.anchor,
        "-p",
        LOGIN,
    )
    run(*command, "--subject", "CN=keyless", "-o", folder / "new.pem", *options)
    certificate = x509.load_pem_x509_certificate((folder / "new.pem").read_bytes())
    key = load_pem_private_key((folder / "new.key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    require_ours(server.lab, certificate)


@pytest.mark.parametrize("label", some(["", "/rsa", "/ed25519", "/python-p-256", "/python-ml-dsa-65"], 2))
def test_estclient_decrypts_with_a_shared_key(server, tmp_path, label):
    (tmp_path / "shared").write_text(SHARED[256].hex())
    estclient(server, tmp_path, "--decrypt-key", tmp_path / "shared", "--decrypt-key-id", "device-7", label=label)


@pytest.mark.parametrize("recipient", [RSA, CURVES[256], CURVES[521]], ids=["rsa", "p256", "p521"])
def test_estclient_decrypts_with_a_certificate(server, tmp_path, recipient):
    certificate, key = recipient.files(tmp_path)
    estclient(server, tmp_path, "--decrypt-cert", certificate, "--decrypt-cert-key", key)


# Every kind of signer that a CA can have, with `seal` alone.


def sealed_by(signer: Any, certificate: x509.Certificate, folder: Path, key: Any) -> bytes:
    """The SignedData that `seal` makes with this signer, decrypted."""
    furnish(folder)
    (folder / "signer.pem").write_bytes(pem(certificate))
    (folder / "signer.key").write_bytes(key_pem(signer))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "EST_KEYGEN_PROTECT": "symmetric",
        "EST_KEYGEN_KEY_ID": "00ff",
        "EST_KEYGEN_ALGORITHMS": "id-aes128-wrap",
    }
    files = ("--keys", "keygen-keys", "--certificates", "keygen-certificates")
    command = (ROOT / "handlers/seal", *files, "--signer", "signer.pem", "--signer-key", "signer.key")
    out = run(*command, stdin=key_pem(key), env=environment, cwd=folder).stdout
    (block,) = encoding.pem_blocks(out)
    assert block.label == "CMS"
    return Envelope.read(block.der).opened(folder, "-secretkey", SHARED[128].hex(), "-secretkeyid", "00ff")


SIGNERS: dict[str, tuple[Any, Any]] = {
    "rsa": (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
    "p-384": (ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
    "ed25519": (ed25519.Ed25519PrivateKey.generate(), None),
    "ml-dsa-65": (mldsa.MLDSA65PrivateKey.generate(), None),
}


@pytest.mark.parametrize("kind", SIGNERS)
def test_seal_signs_with_every_kind_of_key(tmp_path, kind):
    """RFC 5754, RFC 8419, RFC 9882. OpenSSL 3.0 verifies RSA and ECDSA in a CMS; the test verifies the others."""
    signer, digest = SIGNERS[kind]
    own, now = name("CN=server"), datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(own).issuer_name(own).public_key(signer.public_key())
    builder = builder.serial_number(7).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    certificate = builder.sign(signer, digest)
    secret = mldsa.MLDSA65PrivateKey.generate()
    signed = sealed_by(signer, certificate, tmp_path, secret)
    fields = elements(whole(decode(ContentInfo, signed, "CMS").content), "SignedData")
    package = bytes(
        elements(wrap(SEQUENCE, bytes(elements(whole(fields[2]), "content")[1].data)), "OCTET STRING")[0].data
    )
    (inner,) = elements(package, "AsymmetricKeyPackage")
    assert load_der_private_key(whole(inner), None).public_key() == secret.public_key()
    info = elements(wrap(SEQUENCE, bytes(fields[-1].data)), "signers")[0]
    version, _, digests, attributes, method, signature = elements(whole(info), "SignerInfo")
    assert (bytes(fields[0].data), bytes(version.data)) == (b"\x03", b"\x01")
    used = {"rsa": "sha256", "p-384": "sha384"}.get(kind, "sha512")
    hashed = hashes.Hash(getattr(hashes, used.upper())())
    hashed.update(package)
    assert hashed.finalize() in bytes(attributes.data)
    assert oid(KEY_PACKAGE) in bytes(attributes.data)
    assert algorithm(digests).endswith({"sha256": ".1", "sha384": ".2", "sha512": ".3"}[used])
    if digest is None:
        assert algorithm(method) == {"ed25519": "1.3.101.112", "ml-dsa-65": "2.16.840.1.101.3.4.3.18"}[kind]
        signer.public_key().verify(bytes(signature.data), wrap(SET, bytes(attributes.data)))
    else:
        (tmp_path / "signed.der").write_bytes(signed)
        trust = ("-CAfile", tmp_path / "signer.pem", "-purpose", "any", "-inform", "DER")
        assert run("openssl", "cms", "-verify", "-binary", *trust, "-in", tmp_path / "signed.der").stdout == package
