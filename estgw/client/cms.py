"""Opening what a serverkeygen answer wraps a private key in (RFC 7030 4.4.2, RFC 5652, RFC 5958).

Recipients with a certificate are left to `openssl cms`, and so is the signature inside.  A shared key is used
here, since `openssl cms -secretkey` takes it on the command line only, where every process can read it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import keywrap, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client.faults import ClientError, InvalidAnswer, clean
from estgw.errors import Malformed
from estgw.est import ber
from estgw.est.csrattrs import decode_oid
from estgw.est.der import SEQUENCE, ContentInfo, decode, elements, whole, wrap

ENVELOPED, AUTH_ENVELOPED = "1.2.840.113549.1.7.3", "1.2.840.113549.1.9.16.1.23"
SIGNED_DATA = "1.2.840.113549.1.7.2"
_CBC = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
_GCM = {"2.16.840.1.101.3.4.1.6": 16, "2.16.840.1.101.3.4.1.26": 24, "2.16.840.1.101.3.4.1.46": 32}
WRAPS = {16: "2.16.840.1.101.3.4.1.5", 24: "2.16.840.1.101.3.4.1.25", 32: "2.16.840.1.101.3.4.1.45"}
"""AES key wrap (RFC 3565) by key length in bytes."""
_KEK, _SET, _OCTETS = b"\xa2", b"\x31", b"\x04"
_TIMEOUT = 60.0


def is_enveloped(der: bytes) -> bool:
    """Whether this is a CMS EnvelopedData or AuthEnvelopedData."""
    try:
        info = decode(ContentInfo, ber.to_der(der), "a CMS message")
    except Malformed:
        return False
    return info.content_type.dotted_string in (ENVELOPED, AUTH_ENVELOPED)


def open_with_secret(der: bytes, key: bytes, key_id: bytes) -> bytes:
    """Decrypt for a key-encryption-key recipient (RFC 5652 6.2.3); raises `InvalidAnswer`.

    `key` is an AES key of 16, 24 or 32 bytes, `key_id` the kekid under which both sides know it.
    """
    try:
        info = decode(ContentInfo, ber.to_der(der), "a CMS message")
        fields = elements(whole(info.content), "EnvelopedData")
        position = next(at for at, part in enumerate(fields) if bytes(part.tag_bytes) == _SET)
        content_key = _unwrap(fields[position], key, key_id)
        _, algorithm, encrypted = elements(whole(fields[position + 1]), "EncryptedContentInfo")
        mac = bytes(fields[-1].data) if info.content_type.dotted_string == AUTH_ENVELOPED else b""
        attributes = b"".join(
            wrap(_SET, bytes(part.data)) for part in fields[position + 2 :] if bytes(part.tag_bytes) == b"\xa1"
        )
        return _decrypt(algorithm, content_key, _octets(encrypted), mac, attributes)
    except (Malformed, ValueError, IndexError, StopIteration, InvalidTag, keywrap.InvalidUnwrap) as fault:
        words = str(fault) if isinstance(fault, Malformed) else "is it encrypted to this key?"
        raise InvalidAnswer(f"the encrypted private key can't be opened: {words}") from None


def open_with_certificate(der: bytes, certificate: Path, key: Path) -> bytes:
    """Decrypt for a certificate's holder, by RSA or ECDH; raises `InvalidAnswer`."""
    return _openssl(["-decrypt", "-recip", str(certificate), "-inkey", str(key)], der, "can't be decrypted")


def verified_content(content: bytes, anchors: Sequence[x509.Certificate]) -> bytes:
    """The content of the SignedData inside, once its signer has been traced to one of `anchors`.

    Raises `InvalidAnswer`.  The content may be a whole ContentInfo or, as RFC 5652 6.3 has it, the bare
    SignedData.
    """
    try:
        first = elements(ber.to_der(content), "a SignedData")
        if first and bytes(first[0].tag_bytes) != b"\x06":
            oid = wrap(b"\x06", bytes.fromhex("2a864886f70d010702"))
            content = wrap(SEQUENCE, oid + wrap(b"\xa0", content))
    except Malformed as fault:
        raise InvalidAnswer(f"the decrypted private key is not signed: {fault}") from None
    with tempfile.TemporaryDirectory(prefix="estclient-") as room:
        bundle = Path(room, "anchors.pem")
        bundle.write_bytes(b"".join(anchor.public_bytes(Encoding.PEM) for anchor in anchors))
        trusted = ["-CAfile", str(bundle), "-no-CApath", "-no-CAstore", "-certfile", str(bundle), "-partial_chain"]
        return _openssl(["-verify", *trusted, "-purpose", "any"], content, "is not signed by somebody we trust")


def private_key_info(content: bytes) -> bytes:
    """The one PKCS#8 of an AsymmetricKeyPackage (RFC 5958 2), as DER; raises `InvalidAnswer`."""
    try:
        parts = elements(content, "an AsymmetricKeyPackage")
    except Malformed as fault:
        raise InvalidAnswer(f"the decrypted private key can't be read: {fault}") from None
    if parts and bytes(parts[0].tag_bytes) == b"\x02":
        return content  # the key itself, without a package around it
    if len(parts) != 1:
        raise InvalidAnswer(f"{len(parts)} private keys in the answer, not one")
    return whole(parts[0])


def _unwrap(recipients: asn1.TLV, key: bytes, key_id: bytes) -> bytes:
    for recipient in elements(wrap(SEQUENCE, bytes(recipients.data)), "recipients"):
        if bytes(recipient.tag_bytes) != _KEK:
            continue
        _, identifier, algorithm, wrapped = elements(wrap(SEQUENCE, bytes(recipient.data)), "a KEKRecipientInfo")
        named = elements(whole(identifier), "a KEKIdentifier")[0]
        if bytes(named.data) == key_id:
            oid = decode_oid(whole(elements(whole(algorithm), "an algorithm")[0]))
            if oid != WRAPS[len(key)]:
                raise Malformed(f"it is wrapped with {oid}, which does not fit a key of {len(key)} bytes")
            return keywrap.aes_key_unwrap(key, bytes(wrapped.data))
    raise Malformed("it is not encrypted to the key identifier that was sent")


def _decrypt(algorithm: asn1.TLV, key: bytes, data: bytes, mac: bytes, attributes: bytes) -> bytes:
    oid_part, parameters = elements(whole(algorithm), "an algorithm")
    oid = decode_oid(whole(oid_part))
    if _CBC.get(oid) == len(key) and not mac:
        decryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(parameters.data))).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        return unpadder.update(decryptor.update(data) + decryptor.finalize()) + unpadder.finalize()
    if _GCM.get(oid) == len(key) and len(mac) == 16:
        nonce = elements(whole(parameters), "GCM parameters")[0]
        return AESGCM(key).decrypt(bytes(nonce.data), data + mac, attributes or None)
    raise Malformed(f"its content is encrypted with {oid}, which is not taken")


def _octets(encrypted: asn1.TLV) -> bytes:
    """`[0] IMPLICIT OCTET STRING`, in one piece or, as BER allows, in several."""
    if bytes(encrypted.tag_bytes) == b"\x80":
        return bytes(encrypted.data)
    pieces = elements(wrap(SEQUENCE, bytes(encrypted.data)), "encrypted content")
    return b"".join(bytes(piece.data) for piece in pieces if bytes(piece.tag_bytes) == _OCTETS)


def _openssl(arguments: Sequence[str], data: bytes, failure: str) -> bytes:
    """Run `openssl cms`, DER in, content out; nothing secret is on its command line or in a file of ours."""
    try:
        done = subprocess.run(
            ["openssl", "cms", "-inform", "DER", "-binary", *arguments],
            input=data,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError:
        raise ClientError("the openssl command is needed for this and is not installed") from None
    except subprocess.TimeoutExpired:
        raise ClientError("openssl cms took too long") from None
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InvalidAnswer(f"the encrypted private key {failure}: {clean(lines[-1] if lines else '', 200)}")
    return done.stdout
