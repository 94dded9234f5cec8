"""Names in certificates: compare them as names, and print them for scripts and logs.

RFC 5280 7.1 compares attribute values without case and with runs of white space as one; RFC 4514 is the text
form.  Two encodings of one name (PrintableString, UTF8String) are the same name.
"""

from __future__ import annotations

import re
import unicodedata

from cryptography import x509

from estgw.errors import Malformed
from estgw.est.bounds import UPPER_BOUNDS

NameKey = tuple[frozenset[tuple[str, str]], ...]
"""A distinguished name in its comparable form: equal names have equal keys."""


def name_key(name: x509.Name) -> NameKey:
    """The comparable form of a DN: RDNs in order, each a set of (OID, folded value)."""
    return tuple(
        frozenset((attribute.oid.dotted_string, fold(attribute.value)) for attribute in rdn) for rdn in name.rdns
    )


def san_key(extension: x509.SubjectAlternativeName | None) -> frozenset[tuple[str, str]]:
    """The comparable form of a SAN.  Order does not count; an absent SAN and an empty one are equal."""
    return frozenset(_general_name_key(entry) for entry in extension or ())


def _general_name_key(entry: x509.GeneralName) -> tuple[str, str]:
    match entry:
        case x509.DNSName():
            return "DNS", entry.value.lower().rstrip(".")
        case x509.RFC822Name():
            # RFC 5280 7.5: the part before the @ is case sensitive, the host is not.
            local, _, host = entry.value.rpartition("@")
            return "email", f"{local}@{host.lower()}"
        case x509.DirectoryName():
            return "dirName", repr([sorted(rdn) for rdn in name_key(entry.value)])
        case _:
            return san_text(entry).split(":", 1)[0], san_text(entry)


def san_text(entry: x509.GeneralName) -> str:
    """One SAN entry in OpenSSL's spelling, such as `DNS:host.example` or `IP:192.0.2.1`."""
    match entry:
        case x509.DNSName():
            return f"DNS:{escape_controls(entry.value)}"
        case x509.IPAddress():
            return f"IP:{entry.value}"
        case x509.RFC822Name():
            return f"email:{escape_controls(entry.value)}"
        case x509.UniformResourceIdentifier():
            return f"URI:{escape_controls(entry.value)}"
        case x509.DirectoryName():
            return f"dirName:{dn_text(entry.value)}"
        case x509.RegisteredID():
            return f"RID:{entry.value.dotted_string}"
        case x509.OtherName():
            return f"otherName:{entry.type_id.dotted_string};{entry.value.hex()}"
        case _:
            raise AssertionError(f"a GeneralName of a new kind: {entry!r}")


def require_sound(san: x509.SubjectAlternativeName | None) -> None:
    """Raise `Malformed` for a SAN entry with a control character, which no host, address or URI has.

    A policy on suffixes would read the end of `evil.example\\0.ours.example`, and some relying parties its beginning.
    """
    for entry in san or ():
        value = entry.value
        if isinstance(value, str) and escape_controls(value) != value:
            raise Malformed(f"the subject alternative name {san_text(entry)} holds a control character")


def san_of(extensions: x509.Extensions) -> x509.SubjectAlternativeName | None:
    """The subject alternative name among these extensions, or None."""
    try:
        return extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def dn_text(name: x509.Name) -> str:
    """Return a name as an RFC 4514 string.  Control characters become hex pairs, as its section 2.4 allows."""
    return escape_controls(name.rfc4514_string())


def openssl_subject(name: x509.Name) -> str:
    """Return a name in the form that `openssl ca -subj` takes, separators inside values escaped; `/` for an empty name.

    Raises `Malformed` for an attribute that OpenSSL would silently leave out, because it is empty or of a type without
    a name in OpenSSL, and for one beyond the bounds of RFC 5280 appendix A, which OpenSSL enforces.
    """
    rdns = []
    for rdn in name.rdns:
        for attribute in rdn:
            if attribute.oid not in _KNOWN_TO_OPENSSL or not isinstance(attribute.value, str):
                raise Malformed(f"the name has an attribute {attribute.oid.dotted_string}, which can't be changed to")
            _check_bounds(attribute.oid, attribute.value)
        rdns.append(
            "+".join(
                f"{attribute.oid.dotted_string}={_SEPARATOR.sub(_escaped, str(attribute.value))}" for attribute in rdn
            )
        )
    return "/" + "/".join(rdns)


def _check_bounds(oid: x509.ObjectIdentifier, text: str) -> None:
    shortest, longest = _LENGTHS.get(oid, (1, 32768))
    if not shortest <= len(text) <= longest:
        raise Malformed(f"the name has an attribute {oid.dotted_string} of {len(text)} characters")
    if not _ALPHABETS.get(oid, _ANY).fullmatch(text):
        raise Malformed(f"the name has an attribute {oid.dotted_string} with characters that it can't have")


_LENGTHS = {
    **{
        oid: (1, UPPER_BOUNDS[oid][1])
        for oid in (
            x509.NameOID.COMMON_NAME,
            x509.NameOID.LOCALITY_NAME,
            x509.NameOID.ORGANIZATION_NAME,
            x509.NameOID.ORGANIZATIONAL_UNIT_NAME,
            x509.NameOID.SERIAL_NUMBER,
            x509.NameOID.STATE_OR_PROVINCE_NAME,
        )
    },
    x509.NameOID.COUNTRY_NAME: (2, 2),
    x509.NameOID.EMAIL_ADDRESS: (1, 128),  # OpenSSL still has the bound of RFC 3280
}
_ANY = re.compile(r".*", re.DOTALL)
_PRINTABLE, _ASCII = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*"), re.compile(r"[\x00-\x7f]*")
_ALPHABETS = {
    x509.NameOID.COUNTRY_NAME: _PRINTABLE,
    x509.NameOID.DOMAIN_COMPONENT: _ASCII,
    x509.NameOID.EMAIL_ADDRESS: _ASCII,
    x509.NameOID.SERIAL_NUMBER: _PRINTABLE,
}
_SEPARATOR = re.compile(r"[\\/+=,]")


def _escaped(match: re.Match[str]) -> str:
    return "\\" + match[0]


_KNOWN_TO_OPENSSL = frozenset(
    {
        x509.NameOID.COMMON_NAME,
        x509.NameOID.COUNTRY_NAME,
        x509.NameOID.DOMAIN_COMPONENT,
        x509.NameOID.EMAIL_ADDRESS,
        x509.NameOID.GIVEN_NAME,
        x509.NameOID.LOCALITY_NAME,
        x509.NameOID.ORGANIZATION_NAME,
        x509.NameOID.ORGANIZATIONAL_UNIT_NAME,
        x509.NameOID.PSEUDONYM,
        x509.NameOID.SERIAL_NUMBER,
        x509.NameOID.STATE_OR_PROVINCE_NAME,
        x509.NameOID.STREET_ADDRESS,
        x509.NameOID.SURNAME,
        x509.NameOID.TITLE,
        x509.NameOID.USER_ID,
    }
)


def common_name(name: x509.Name) -> str | None:
    """The most specific common name, or None.  Control characters are escaped as in `dn_text`."""
    values = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if not values:
        return None
    text = values[-1].value
    text = text if isinstance(text, str) else text.hex()
    return escape_controls(text)


def escape_controls(text: str) -> str:
    """Return a text with each control character as backslash and hex pairs, in the manner of RFC 4514."""
    if text.isprintable():  # nearly every name is
        return text
    return "".join(_hex_pairs(char) if _is_control(char) else char for char in text)


LONGEST_FOLDED = 1024
"""Characters; RFC 5280 appendix A ends most attributes at 64 or 128."""


def fold(value: str | bytes) -> str:
    """Return the comparable form of an attribute's value: equal values have equal texts.

    A value longer than `LONGEST_FOLDED` is returned as it is, since normalizing combining characters takes quadratic
    time.
    """
    if isinstance(value, bytes):
        return "#" + value.hex()
    if len(value) > LONGEST_FOLDED:
        return value
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def _hex_pairs(char: str) -> str:
    return "".join(f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
