"""Answers to serverkeygen: a private key, in the clear or encrypted, and its certificate (RFC 7030 4.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from estgw.client import cms
from estgw.client.faults import InvalidAnswer, clean
from estgw.client.sealing import Secret
from estgw.client.transport import answers, multipart
from estgw.client.transport.wire import Answer
from estgw.errors import Malformed
from estgw.est import certs, encoding

CLEAR = "application/pkcs8"
ENCRYPTED = "server-generated-key"


def read(
    answer: Answer, secret: Secret, anchors: Callable[[], Sequence[x509.Certificate]] = tuple
) -> tuple[bytes, x509.Certificate]:
    """Private key (PKCS#8 DER) and certificate of an answer (RFC 7030 4.4.2); raises `InvalidAnswer`.

    A key in the clear is refused when `secret` asked for encryption.  `anchors` is called for the certificates
    that the signer of an encrypted key must lead to.
    """
    key_type, key_body, certificate_body = _parts(answer)
    found = answers.bag_of(certificate_body)
    try:
        der = encoding.decode(key_body, ("PRIVATE KEY", *certs.PKCS7_LABELS))
    except Malformed as fault:
        raise InvalidAnswer(f"the private key can't be read: {fault}") from None
    if key_type == CLEAR:
        if secret.is_wanted:
            raise InvalidAnswer("the private key came in the clear although its encryption was asked for; refused")
    else:
        if not secret.is_wanted:
            raise InvalidAnswer(
                "the private key came encrypted, which was not asked for: give --decrypt-key or --decrypt-cert"
            )
        content = _opened(der, secret)
        der = cms.private_key_info(cms.verified_content(content, anchors()))
    return der, _fitting(der, found)


def _opened(der: bytes, secret: Secret) -> bytes:
    if secret.key is not None:
        return cms.open_with_secret(der, secret.key, secret.key_id)
    if secret.certificate is None or secret.certificate_key is None:
        raise AssertionError("a secret has a key or a certificate with its key")
    return cms.open_with_certificate(der, secret.certificate, secret.certificate_key)


def _fitting(der: bytes, found: list[x509.Certificate]) -> x509.Certificate:
    try:
        key = load_der_private_key(der, password=None)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        fitting = [certificate for certificate in found if certs.spki(certificate) == spki]
    except certs.UNREADABLE:
        # The library's own words are left out: they might quote key material.
        raise InvalidAnswer("the private key can't be read") from None
    if len(fitting) != 1:
        raise InvalidAnswer("the private key does not fit the certificate")
    return fitting[0]


def _parts(answer: Answer) -> tuple[str, bytes, bytes]:
    """Type and body of the key's part, and the body of the certificate's, in either order."""
    if answer.content_type != "multipart/mixed":
        raise InvalidAnswer(f"an answer of type {clean(answer.content_type, 100)!r}, not multipart/mixed")
    parts = multipart.split(answer.headers, answer.body)
    keys_found = [part for part in parts if part.content_type == CLEAR or part.smime_type == ENCRYPTED]
    rest = [part for part in parts if part not in keys_found and part.content_type == "application/pkcs7-mime"]
    if len(parts) != 2 or len(keys_found) != 1 or len(rest) != 1:
        kinds = ", ".join(f"{part.content_type} {part.smime_type}".strip() for part in parts)
        raise InvalidAnswer(f"a serverkeygen answer is a key and a certificate; this one has: {clean(kinds, 200)}")
    return keys_found[0].content_type, keys_found[0].body, rest[0].body
