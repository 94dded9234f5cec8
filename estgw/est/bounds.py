"""Bounds of names: the upper bounds of RFC 5280 appendix A.1 for each attribute, and a bound for each whole name.

A subject stays in the CA's register for years, and each look-up reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID

from estgw.errors import Malformed

UPPER_BOUNDS: Mapping[x509.ObjectIdentifier, tuple[str, int]] = {
    NameOID.COMMON_NAME: ("commonName", 64),
    NameOID.COUNTRY_NAME: ("countryName", 2),
    NameOID.EMAIL_ADDRESS: ("emailAddress", 255),
    NameOID.GENERATION_QUALIFIER: ("generationQualifier", 32768),
    NameOID.GIVEN_NAME: ("givenName", 32768),
    NameOID.INITIALS: ("initials", 32768),
    NameOID.LOCALITY_NAME: ("localityName", 128),
    x509.ObjectIdentifier("2.5.4.41"): ("name", 32768),
    NameOID.ORGANIZATION_NAME: ("organizationName", 64),
    NameOID.ORGANIZATIONAL_UNIT_NAME: ("organizationalUnitName", 64),
    NameOID.PSEUDONYM: ("pseudonym", 128),
    NameOID.SERIAL_NUMBER: ("serialNumber", 64),
    NameOID.STATE_OR_PROVINCE_NAME: ("stateOrProvinceName", 128),
    NameOID.SURNAME: ("surname", 32768),
    NameOID.TITLE: ("title", 64),
}
"""The attribute types of RFC 5280 A.1 with an upper bound: the name there, and the bound in characters."""


@dataclass(frozen=True)
class NameBounds:
    """The bounds for the names of a certificate."""

    attributes: bool = True
    """Whether `UPPER_BOUNDS` hold."""
    subject: int = 4096
    """The largest subject, in bytes of DER."""
    san: int = 16384
    """The largest subject alternative name, in bytes of DER."""

    def require(self, subject: x509.Name, san: x509.SubjectAlternativeName | None) -> None:
        """Raise `Malformed` for the first bound that these names exceed."""
        _require_size("subject", len(subject.public_bytes()), self.subject, "max_subject")
        _require_size("subject alternative name", len(san.public_bytes()) if san else 0, self.san, "max_san")
        if self.attributes:
            for where, name in _names(subject, san):
                for attribute in name:
                    _require_length(where, attribute)

    @property
    def text(self) -> str:
        """The bounds as a word and two numbers, for a script; `parse` reads them."""
        return f"{'rfc5280' if self.attributes else 'none'} {self.subject} {self.san}"

    @classmethod
    def parse(cls, text: str) -> NameBounds:
        """Return the bounds from their `text`.  Raises ValueError."""
        attributes, subject, san = text.split()
        return cls(attributes == "rfc5280", int(subject), int(san))


def _names(subject: x509.Name, san: x509.SubjectAlternativeName | None) -> Iterator[tuple[str, x509.Name]]:
    """Each distinguished name, preceded by its place: the subject or the subject alternative name."""
    yield "subject", subject
    for entry in san or ():
        if isinstance(entry, x509.DirectoryName):
            yield "subject alternative name", entry.value


def _require_length(where: str, attribute: x509.NameAttribute[str | bytes]) -> None:
    name, bound = UPPER_BOUNDS.get(attribute.oid, ("", 0))
    if name and len(attribute.value) > bound:
        raise Malformed(
            f"the {name} in the {where} has {len(attribute.value)} characters, and RFC 5280 allows {bound}; "
            "the server's setting name_bounds can lift that"
        )


def _require_size(what: str, size: int, bound: int, setting: str) -> None:
    if size > bound:
        raise Malformed(f"the {what} has {size} bytes, and {bound} are allowed here; the server's setting is {setting}")
