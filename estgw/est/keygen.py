"""Server-side key generation: read from a CSR how the new private key is to be encrypted (RFC 7030 4.4.1).

This module encrypts nothing.  It names the protection that the CSR asks for, so that a script can apply it or refuse.
A CSR that asks for protection in a form that can't be read is `Malformed`: its client must not get a key in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cryptography.hazmat import asn1

from estgw.errors import Malformed
from estgw.est.csr import CSR
from estgw.est.der import SEQUENCE, decode_oid, elements, whole, wrap

DECRYPT_KEY_ID = "1.2.840.113549.1.9.16.2.37"  # id-aa-decryptKeyID: RFC 4108 2.2.5, RFC 7030 4.4.1.1
ASYMMETRIC_DECRYPT_KEY_ID = "1.2.840.113549.1.9.16.2.54"  # id-aa-asymmDecryptKeyID: RFC 7030 4.4.1.2
SMIME_CAPABILITIES = "1.2.840.113549.1.9.15"  # RFC 2985 5.6, RFC 8551 2.5.2

MAXIMUM_KEY_ID = 128
"""Octets.  An identifier is a digest or a short name; it goes into an environment variable and into the log."""
MAXIMUM_CAPABILITIES = 64

OAEP = "1.2.840.113549.1.1.7"
ALGORITHMS: Mapping[str, str] = {
    "1.2.840.113549.1.1.1": "rsaEncryption",
    OAEP: "rsaesOaep",
    "1.3.132.1.11.1": "dhSinglePass-stdDH-sha256kdf-scheme",
    "1.3.132.1.11.2": "dhSinglePass-stdDH-sha384kdf-scheme",
    "1.3.132.1.11.3": "dhSinglePass-stdDH-sha512kdf-scheme",
    "1.3.133.16.840.63.0.2": "dhSinglePass-stdDH-sha1kdf-scheme",
    "2.16.840.1.101.3.4.1.5": "id-aes128-wrap",
    "2.16.840.1.101.3.4.1.25": "id-aes192-wrap",
    "2.16.840.1.101.3.4.1.45": "id-aes256-wrap",
    "2.16.840.1.101.3.4.1.2": "aes-128-cbc",
    "2.16.840.1.101.3.4.1.22": "aes-192-cbc",
    "2.16.840.1.101.3.4.1.42": "aes-256-cbc",
    "2.16.840.1.101.3.4.1.6": "aes-128-gcm",
    "2.16.840.1.101.3.4.1.26": "aes-192-gcm",
    "2.16.840.1.101.3.4.1.46": "aes-256-gcm",
    "1.2.840.113549.3.7": "des-ede3-cbc",
}
"""The algorithms for key encipherment under the names that OpenSSL prints; others keep their dotted form."""

_AGREEMENTS = {oid for oid, name in ALGORITHMS.items() if name.startswith("dhSinglePass")}
_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_MGF1 = "1.2.840.113549.1.1.8"
_OCTETS, _OID, _NULL = b"\x04", b"\x06", b"\x05"
_HASH, _MASK = b"\xa0", b"\xa1"


class Protection(Enum):
    """The kind of key that encrypts the private key; with `NONE` only TLS protects it."""

    NONE = "none"
    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


@dataclass(frozen=True)
class Wish:
    """The protection that a CSR asks for: the key that encrypts, and the algorithms, the preferred one first."""

    protection: Protection = Protection.NONE
    key_id: bytes = b""
    algorithms: tuple[str, ...] = ()
    """Names of `ALGORITHMS`; OAEP is followed by a colon and its hash, a key agreement by a colon and its key wrap."""


def wish(csr: CSR) -> Wish:
    """Return the protection that the CSR asks for.  Raises `Malformed` when its attributes can't be read.

    SMIMECapabilities alone asks for none, since S/MIME clients put it into every CSR.
    """
    named = [oid for oid in (DECRYPT_KEY_ID, ASYMMETRIC_DECRYPT_KEY_ID) if oid in csr.attributes]
    if not named:
        return Wish()
    if len(named) > 1:
        raise Malformed("the CSR wants the private key encrypted both to a symmetric and to an asymmetric key")
    symmetric = named[0] == DECRYPT_KEY_ID
    key_id = _key_id(csr, named[0], "DecryptKeyIdentifier" if symmetric else "AsymmetricDecryptKeyIdentifier")
    return Wish(Protection.SYMMETRIC if symmetric else Protection.ASYMMETRIC, key_id, _algorithms(csr))


def _key_id(csr: CSR, oid: str, name: str) -> bytes:
    value = _single(csr, oid, name)
    if bytes(value.tag_bytes) != _OCTETS:
        raise Malformed(f"the CSR's {name} is no OCTET STRING")
    found = bytes(value.data)
    if not 0 < len(found) <= MAXIMUM_KEY_ID:
        raise Malformed(f"the CSR's {name} has {len(found)} octets, not 1 to {MAXIMUM_KEY_ID}")
    return found


def _algorithms(csr: CSR) -> tuple[str, ...]:
    if SMIME_CAPABILITIES not in csr.attributes:
        raise Malformed("the CSR wants the private key encrypted and has no SMIMECapabilities to say how")
    listed = elements(whole(_single(csr, SMIME_CAPABILITIES, "SMIMECapabilities")), "SMIMECapabilities")
    if not 0 < len(listed) <= MAXIMUM_CAPABILITIES:
        raise Malformed(f"the CSR's SMIMECapabilities has {len(listed)} entries, not 1 to {MAXIMUM_CAPABILITIES}")
    return tuple(_algorithm(entry) for entry in listed)


def _single(csr: CSR, oid: str, name: str) -> asn1.TLV:
    values = csr.attributes[oid]
    if len(values) != 1:
        raise Malformed(f"the CSR's {name} has {len(values)} values, not one")
    return values[0]


def _algorithm(entry: asn1.TLV) -> str:
    """The name of one SMIMECapability (RFC 8551 2.5.2)."""
    oid, parameters = _identifier(entry)
    name = ALGORITHMS.get(oid, oid)
    if oid == OAEP:
        used = _oaep_hash(parameters)
        return oid if used is None else name if used == "sha1" else f"{name}:{used}"
    if oid in _AGREEMENTS and parameters is not None and bytes(parameters.tag_bytes) == SEQUENCE:
        wrapping, _ = _identifier(parameters)  # RFC 5753 7.2: the parameters are the key wrap algorithm
        return f"{name}:{ALGORITHMS.get(wrapping, wrapping)}"
    return name


def _oaep_hash(parameters: asn1.TLV | None) -> str | None:
    """The hash of RSAES-OAEP-params (RFC 4055 4.1), which MGF1 must share; None for other parameters.

    Absent and empty parameters mean SHA-1 (RFC 3560 6): OAEP does not need a hash that resists collisions.
    """
    if parameters is None or bytes(parameters.tag_bytes) == _NULL:
        return "sha1"
    used = {_HASH: "sha1", _MASK: "sha1"}
    for part in elements(whole(parameters), "RSAES-OAEP parameters"):
        tag = bytes(part.tag_bytes)
        if tag not in used:
            return None  # pSourceAlgorithm, a label, which no client uses
        inner = elements(wrap(SEQUENCE, bytes(part.data)), "RSAES-OAEP parameters")
        if len(inner) != 1:
            return None
        oid, deeper = _identifier(inner[0])
        if tag == _MASK:
            if oid != _MGF1 or deeper is None:
                return None
            oid, _ = _identifier(deeper)
        used[tag] = _HASHES.get(oid, oid)
    return used[_HASH] if used[_HASH] == used[_MASK] and used[_HASH] in _HASHES.values() else None


def _identifier(entry: asn1.TLV) -> tuple[str, asn1.TLV | None]:
    """Return OID and parameters of a SMIMECapability, which has the form of an AlgorithmIdentifier."""
    parts = elements(whole(entry), "SMIMECapabilities")
    if not 1 <= len(parts) <= 2 or bytes(parts[0].tag_bytes) != _OID:
        raise Malformed("the CSR's SMIMECapabilities has an entry that is no algorithm")
    return decode_oid(whole(parts[0])), parts[1] if len(parts) == 2 else None
