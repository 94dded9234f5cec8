"""One factory of CSRs: it signs whatever is in them, byte by byte, so that they can be wrong in every way."""

from __future__ import annotations

from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.kit.der import BIT_STRING, CN, INTEGER, SEQUENCE, UTF8, attribute, dn, element, extension, oid, tlv
from tests.kit.keys import KEY, algorithm_of, signature

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
SAN = "2.5.29.17"


def subject(*rdns: str | dict[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name: a text is a common name, a dict is a multi-valued RDN; length limits are not looked at."""
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(kind, text, _validate=False)
            for kind, text in ({NameOID.COMMON_NAME: rdn} if isinstance(rdn, str) else rdn).items()
        )
        for rdn in rdns
    )


def challenge(text: str, tag: int = UTF8, codec: str = "utf-8") -> bytes:
    """A challengePassword attribute."""
    return attribute(CHALLENGE_PASSWORD, tlv(tag, text.encode(codec)))


def extension_request(*extensions: bytes) -> bytes:
    """An extensionRequest attribute."""
    return attribute(EXTENSION_REQUEST, tlv(SEQUENCE, *extensions))


def san(*names: x509.GeneralName) -> bytes:
    """An extensionRequest that asks for these names and nothing else."""
    return extension_request(extension(SAN, x509.SubjectAlternativeName(names).public_bytes()))


def subject_der(request: bytes) -> bytes:
    """The subject as it is encoded in a CSR."""
    return element(element(request, 0), 1)


def csr(
    name: str | bytes | x509.Name = "device-1",
    *wishes: bytes | x509.GeneralName | x509.ExtensionType,
    key: Any = KEY,
    challenge: str | bytes | None = None,
    critical: bool = False,
    algorithm: str | None = None,
    version: int = 0,
    spki: bytes | None = None,
    shuffled: bool = False,
) -> bytes:
    """A CSR as DER, correctly signed over whatever is in it.

    A text is a common name, bytes are a Name as DER.  Wishes are names for the SAN, extensions (`critical` ones, if
    need be), and attributes as DER; `challenge` is the challengePassword.  DER puts the attributes in order;
    `shuffled` leaves them as they are given.
    """
    match name:
        case str():
            name = dn((CN, UTF8, name.encode()))
        case x509.Name():
            name = name.public_bytes()
    names = [wish for wish in wishes if isinstance(wish, x509.GeneralName)]
    extensions = [extension(SAN, x509.SubjectAlternativeName(names).public_bytes())] if names else []
    extensions += [
        extension(wish.oid.dotted_string, wish.public_bytes(), critical=critical)
        for wish in wishes
        if isinstance(wish, x509.ExtensionType)
    ]
    attributes = [wish for wish in wishes if isinstance(wish, bytes)]
    if challenge is not None:
        text = challenge.encode() if isinstance(challenge, str) else challenge
        attributes.append(attribute(CHALLENGE_PASSWORD, tlv(UTF8, text)))
    if extensions:
        attributes.append(extension_request(*extensions))
    spki = spki or key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    chosen = attributes if shuffled else sorted(attributes)
    body = tlv(SEQUENCE, tlv(INTEGER, bytes([version])), name, spki, tlv(0xA0, *chosen))
    algorithm = algorithm or algorithm_of(key)
    null = tlv(5) if isinstance(key, rsa.RSAPrivateKey) else b""
    signed = tlv(BIT_STRING, b"\0", signature(key, body, algorithm))
    return tlv(SEQUENCE, body, tlv(SEQUENCE, oid(algorithm), null), signed)
