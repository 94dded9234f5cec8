"""Decrypting the private key of a serverkeygen answer (RFC 7030 4.4.2, RFC 5652, RFC 5958).

`openssl cms` decrypts for a certificate and checks the signature inside.  A shared key is used here, since
`openssl cms -secretkey` takes it on the command line only, where every process can read it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client.faults import ClientError, InvalidAnswer, clean
from estgw.cms import enveloped, recipients
from estgw.cms.signed import content_info
from estgw.errors import Malformed
from estgw.est import ber
from estgw.est.der import SEQUENCE, elements, whole, wrap

WRAPS = {length: oid for oid, length in recipients.WRAPS.items()}
"""AES key wrap (RFC 3565) by key length in bytes."""
_TIMEOUT = 60.0


def is_enveloped(der: bytes) -> bool:
    """Whether this is a CMS EnvelopedData or AuthEnvelopedData."""
    try:
        kind, _ = content_info(ber.to_der(der))
    except Malformed:
        return False
    return kind in (enveloped.ENVELOPED_DATA, enveloped.AUTH_ENVELOPED_DATA)


def open_with_secret(der: bytes, key: bytes, key_id: bytes) -> bytes:
    """Decrypt for a key-encryption-key recipient (RFC 5652 6.2.3); raises `InvalidAnswer`.

    `key` is an AES key of 16, 24 or 32 bytes, `key_id` the kekid under which both sides know it.
    """
    try:
        message = enveloped.parse(der)
        for recipient in message.recipients:
            if recipient.kind == "shared key" and recipient.whom == key_id:
                return enveloped.decrypt_content(message, recipients.unwrap(recipient, key))
        raise Malformed("it is not encrypted to the key identifier that was sent")
    except Malformed as fault:
        raise InvalidAnswer(f"the encrypted private key can't be opened: {fault}") from None


def open_with_certificate(der: bytes, certificate: Path, key: Path) -> bytes:
    """Decrypt for a certificate's holder, by RSA or ECDH; raises `InvalidAnswer`."""
    return _openssl(["-decrypt", "-recip", str(certificate), "-inkey", str(key)], der, "can't be decrypted")


def verified_content(content: bytes, anchors: Sequence[x509.Certificate]) -> bytes:
    """The content of the SignedData inside, after a path has led from its signer to one of `anchors`.

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
        return _openssl(["-verify", *trusted, "-purpose", "any"], content, "is not signed under one of our anchors")


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
