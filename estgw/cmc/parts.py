"""Convert names and extensions in DER to cryptography's objects, and back.

cryptography reads them only inside a CSR or a certificate.  So this module puts a bare name or extension into an
unsigned CSR, which is never verified, and reads it from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from estgw.cms.fields import SET, bits, octets, oid, sequence, set_of, tagged
from estgw.errors import Malformed
from estgw.est import certs, names
from estgw.est.csr import EXTENSION_REQUEST, NewNames
from estgw.est.der import wrap

EMPTY_NAME = b"\x30\x00"
_SUBJECT_ALT_NAME = "2.5.29.17"
_VERSION = b"\x02\x01\x00"
_TRUE = b"\x01\x01\xff"
# RFC 8410's example of a key, which every version of every library reads.
_SOME_KEY = bytes.fromhex("302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
_NO_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256; a CSR must name an algorithm


def carrier(
    subject: bytes | None = None,
    public_key: bytes | None = None,
    extensions: bytes | None = None,
    attributes: Iterable[tuple[str, bytes]] = (),
    algorithm: bytes = _NO_ALGORITHM,
) -> bytes:
    """Return a PKCS#10 with these parts and an empty signature, as DER.

    All parts are DER: `subject` a Name, `public_key` a SubjectPublicKeyInfo, `extensions` Extensions, `algorithm` the
    AlgorithmIdentifier of the signature.  `attributes` have a dotted OID and one value each.
    """
    made = [sequence(oid(kind), set_of([value])) for kind, value in attributes]
    if extensions is not None:
        made.append(sequence(oid(EXTENSION_REQUEST), wrap(SET, extensions)))
    info = sequence(_VERSION, subject or EMPTY_NAME, public_key or _SOME_KEY, tagged(0, *sorted(made)))
    return sequence(info, algorithm, bits(b""))


def read_name(der: bytes, what: str = "a name") -> x509.Name:
    """Return a Name from DER.  Raises `Malformed`."""
    return _load(carrier(subject=der), what).subject


def read_new_names(subject: bytes, san: bytes | None) -> NewNames:
    """Names from the DER of a Name and the value of a subjectAltName; raises `Malformed`."""
    if san is None:
        return NewNames(read_name(subject), None)
    extension = sequence(oid(_SUBJECT_ALT_NAME), octets(san))
    return NewNames(read_name(subject), names.san_of(read_extensions(sequence(extension))))


def read_extensions(der: bytes, what: str = "extensions") -> x509.Extensions:
    """Return Extensions from DER.  Raises `Malformed`."""
    request = _load(carrier(extensions=der), what)
    try:
        with certs.without_warnings():
            return request.extensions
    except certs.UNREADABLE as fault:
        raise Malformed(f"{what} that can't be read: {_words(fault)}") from None


def read_general_names(der: bytes, what: str = "general names") -> x509.SubjectAlternativeName:
    """Return GeneralNames from DER, as a subject alternative name.  Raises `Malformed`."""
    extension = sequence(sequence(oid(_SUBJECT_ALT_NAME), octets(der)))
    return read_extensions(extension, what).get_extension_for_class(x509.SubjectAlternativeName).value


def read_general_name(der: bytes, what: str = "a general name") -> x509.GeneralName:
    """Return a GeneralName from DER.  Raises `Malformed`."""
    name: x509.GeneralName = next(iter(read_general_names(sequence(der), what)))
    return name


def write_extensions(extensions: Iterable[x509.Extension[Any]]) -> bytes:
    """Return Extensions as DER."""
    return sequence(
        *(
            sequence(oid(each.oid.dotted_string), _TRUE if each.critical else b"", octets(each.value.public_bytes()))
            for each in extensions
        )
    )


def load_key(spki: bytes, what: str = "a public key") -> Any:
    """Return a public key from the DER of a SubjectPublicKeyInfo.  Raises `Malformed`."""
    try:
        return load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Malformed(f"{what} that can't be used: {_words(fault)}") from None


def _load(der: bytes, what: str) -> x509.CertificateSigningRequest:
    try:
        with certs.without_warnings():
            request = x509.load_der_x509_csr(der)
            _ = request.subject
    except certs.UNREADABLE as fault:
        raise Malformed(f"{what} that can't be read: {_words(fault)}") from None
    return request


def _words(fault: Exception) -> str:
    """The first line of a library's error, at most 120 characters of it."""
    return (str(fault).splitlines() or [type(fault).__name__])[0][:120]
