"""Values in the words of csrattrs.yaml: strings, and the extensions that have words of their own.

Functions come in pairs.  `read_...` takes the value that YAML made of the text and raises `Malformed` with a sentence.
`write_...` makes the words for DER.  It may raise `Malformed`, too; its caller then writes hex, so that a value without
words is not lost.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat import asn1

from estgw.errors import Malformed
from estgw.est import oids
from estgw.est.csrattrs import decode_oid, encode_oid
from estgw.est.der import SEQUENCE, decode, elements, whole, wrap

Loc: TypeAlias = tuple[str | int, ...]
"""The path to a value from the top of the file: keys, and numbers of list elements from 0."""


class Unfit(Malformed):
    """Data that can't be read as wishes; `faults` has a path and a sentence for each fault."""

    def __init__(self, faults: Sequence[tuple[Loc, str]]) -> None:
        super().__init__("; ".join(what for _, what in faults))
        self.faults = tuple(faults)


@contextlib.contextmanager
def at(*steps: str | int) -> Iterator[None]:
    """Put `steps` before the path of each fault that is raised inside, as `Unfit`."""
    try:
        yield
    except Unfit as fault:
        raise Unfit([((*steps, *loc), what) for loc, what in fault.faults]) from None
    except Malformed as fault:
        raise Unfit([(steps, str(fault))]) from None


MOST_FAULTS = 20
"""Faults that are reported at once.  There is a limit because the search for a similar name is slow."""


def collect(data: Sequence[Any] | Mapping[str, Any], read: Callable[[Any, Any], Any]) -> list[Any]:
    """Return the result of `read` for each element, called with its number or key and the element.

    Raises `Unfit` with the faults of all elements together, at most `MOST_FAULTS`.
    """
    made: list[Any] = []
    faults: list[tuple[Loc, str]] = []
    for step, element in data.items() if isinstance(data, Mapping) else enumerate(data):
        try:
            with at(step):
                made.append(read(step, element))
        except Unfit as fault:
            faults += fault.faults
        if len(faults) >= MOST_FAULTS:
            break
    if faults:
        raise Unfit(faults[:MOST_FAULTS])
    return made


# Strings and other single values.

_STRINGS: Mapping[str, tuple[bytes, str]] = {
    "utf8": (b"\x0c", "utf-8"),
    "printable": (b"\x13", "ascii"),
    "ia5": (b"\x16", "ascii"),
    "bmp": (b"\x1e", "utf-16-be"),
}
_NOT_PRINTABLE = re.compile(r"[^A-Za-z0-9 '()+,./:=?-]")
_USUAL = {
    "2.5.4.5": "printable",  # RFC 5280 A.1: serialNumber, countryName and dnQualifier
    "2.5.4.6": "printable",
    "2.5.4.46": "printable",
    "0.9.2342.19200300.100.1.25": "ia5",  # RFC 5280 A.1: domainComponent and emailAddress
    "1.2.840.113549.1.9.1": "ia5",
    "1.3.6.1.1.1.1.22": "ia5",  # RFC 2307 2.4: macAddress
    "1.2.840.113549.1.9.20": "bmp",  # RFC 2985 5.5.1: friendlyName
}
"""The string type for a plain text as the value of an attribute, where it is not UTF8String."""
KINDS = (*_STRINGS, "oid", "integer", "hex")
_LONGEST_INTEGER = 256
"""Octets of an INTEGER that is written as a number; Python refuses to print more than about 1,700."""
_KIND_LIST = ", ".join(KINDS)


def read_value(data: Any, oid: str = "") -> bytes:
    """Return one value as DER.  Raises `Malformed`.

    `data` is a text, which gets the usual string type of the attribute `oid`, or `{kind: ...}` with one of `KINDS`.
    """
    if isinstance(data, str):
        return _read_string(data, _USUAL.get(oid, "utf8"))
    if isinstance(data, int):
        raise Malformed(f'a number; quote it for a text ("{data}"), or write {{integer: {data}}}')
    if not isinstance(data, Mapping) or len(data) != 1:
        raise Malformed(f"a text is wanted, or one of {_KIND_LIST} with its value")
    ((kind, inner),) = data.items()
    with at(kind):
        if kind == "integer":
            if not isinstance(inner, int):
                raise Malformed("a whole number is wanted")
            return _integer(inner)
        if not isinstance(inner, str):
            raise Malformed(f'a text is wanted; quote it ("{inner}")' if inner is not None else "a text is wanted")
        if kind == "oid":
            return encode_oid(oids.oid_of(inner))
        if kind == "hex":
            der = read_hex(inner)
            decode(asn1.TLV, der, "one whole DER value")
            return der
        if kind in _STRINGS:
            return _read_string(inner, kind)
    raise Malformed(f"{kind[:80]!r} is no kind of value; there are {_KIND_LIST}")


def write_value(der: bytes, oid: str = "") -> Any:
    """Return the words for one value in DER, or `{"hex": ...}` if no words read back as the same bytes."""
    usual = _USUAL.get(oid, "utf8")
    candidates: list[Any] = []
    with contextlib.suppress(Malformed, UnicodeDecodeError):
        if der[:1] == _OID:
            candidates.append({"oid": oids.name_of(decode_oid(der))})
        elif der[:1] == b"\x02" and len(der) <= _LONGEST_INTEGER:
            candidates.append({"integer": int.from_bytes(bytes(decode(asn1.TLV, der, "").data), "big", signed=True)})
        else:
            for kind, (tag, codec) in _STRINGS.items():
                if der[:1] == tag:
                    text = bytes(decode(asn1.TLV, der, "a string").data).decode(codec)
                    candidates.append(text if kind == usual else {kind: text})
    return next((words for words in candidates if _reads_back(words, der, oid)), {"hex": der.hex()})


def text_of(der: bytes) -> str | None:
    """The text of a string value in DER, or None for other types."""
    words = write_value(der)
    if isinstance(words, dict):
        ((kind, words),) = words.items()
        return words if kind in _STRINGS else None
    return str(words)


def read_hex(text: Any) -> bytes:
    """Return bytes from hex digits, which white space and colons may separate.  Raises `Malformed`."""
    if not isinstance(text, str):
        raise Malformed(
            f'hex digits are wanted; quote them ("{text}")' if text is not None else "hex digits are wanted"
        )
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise Malformed(f"no hex digits, or an odd number of them: {text[:80]!r}") from None


def _reads_back(words: Any, der: bytes, oid: str) -> bool:
    try:
        return read_value(words, oid) == der
    except Malformed:
        return False


def _read_string(text: str, kind: str) -> bytes:
    tag, codec = _STRINGS[kind]
    if kind == "printable" and (wrong := _NOT_PRINTABLE.search(text)):
        raise Malformed(f"a PrintableString has no {wrong[0]!r} (RFC 5280 A.1)")
    try:
        return wrap(tag, text.encode(codec))
    except UnicodeEncodeError as fault:
        raise Malformed(f"{text[fault.start]!r} is no character of this kind of string ({kind})") from None


def _integer(number: int) -> bytes:
    return wrap(b"\x02", number.to_bytes((number.bit_length() + 8) // 8 or 1, "big", signed=True))


# Extensions (RFC 5280 4.2.1), in OpenSSL's spelling.

_OID = b"\x06"
_USAGES = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
_GENERAL_NAMES = {"email": 0x81, "DNS": 0x82, "dirName": 0xA4, "URI": 0x86, "IP": 0x87, "RID": 0x88, "otherName": 0xA0}
_OPEN = {"email": b"", "DNS": b"", "dirName": b"\x30\x00", "URI": b"", "IP": b""}
"""The content of a general name that the client is to fill in (RFC 9908 3.4)."""
_NAME_PARTS = {name: x509.ObjectIdentifier(oid) for name, oid in oids.NAME_PARTS.items()}
_KIND_OF_TAG = {tag: kind for kind, tag in _GENERAL_NAMES.items()}


def read_usages(words: Sequence[str]) -> bytes:
    """Return KeyUsage as DER: a named bit list without trailing zeros (X.690 11.2.2).  Raises `Malformed`."""
    bits = 0
    for word in words:
        if word not in _USAGES:
            raise Malformed(f"{word[:80]!r} is no key usage; there are {', '.join(_USAGES)}")
        bits |= 1 << (15 - _USAGES.index(word))
    unused = (bits & -bits).bit_length() - 1
    return wrap(b"\x03", bytes([unused % 8]) + bits.to_bytes(2, "big")[: 2 - unused // 8])


def write_usages(der: bytes) -> list[str]:
    """Return the names of the bits of a KeyUsage in DER.  Raises `Malformed`."""
    data = bytes(decode(asn1.TLV, der, "a KeyUsage").data)
    bits = int.from_bytes(data[1:3].ljust(2, b"\0"), "big")
    return [usage for place, usage in enumerate(_USAGES) if bits & 1 << (15 - place)]


def read_purposes(words: Sequence[str]) -> bytes:
    """Return ExtKeyUsageSyntax as DER, from names or dotted OIDs.  Raises `Malformed`."""
    return wrap(SEQUENCE, b"".join(encode_oid(oids.oid_of(word)) for word in words))


def write_purposes(der: bytes) -> list[str]:
    """Return the names of the purposes of an ExtKeyUsageSyntax in DER.  Raises `Malformed`."""
    return [oids.name_of(decode_oid(whole(element))) for element in elements(der, "an extendedKeyUsage")]


def read_constraints(words: Sequence[str]) -> bytes:
    """Return BasicConstraints as DER, from words such as `CA:TRUE` and `pathlen:0`.  Raises `Malformed`."""
    given = dict(word.partition(":")[::2] for word in words)
    is_ca = given.pop("CA", None)
    length = given.pop("pathlen", None)
    sound = is_ca in ("TRUE", "FALSE") and not given and len({*words}) == len(words) == 1 + (length is not None)
    if not sound or (length is not None and not re.fullmatch("[0-9]{1,4}", length)):
        raise Malformed("basicConstraints is CA:FALSE, or CA:TRUE, which pathlen:0 may follow")
    content = b"" if is_ca == "FALSE" else b"\x01\x01\xff"
    return wrap(SEQUENCE, content + (b"" if length is None else _integer(int(length))))


def write_constraints(der: bytes) -> list[str]:
    """Return the words for BasicConstraints in DER: CA or not, and the path length.  Raises `Malformed`."""
    words, is_ca = [], "CA:FALSE"
    for element in elements(der, "basicConstraints"):
        if bytes(element.tag_bytes) == b"\x01":
            is_ca = "CA:TRUE"
        elif len(bytes(element.data)) > _LONGEST_INTEGER:
            raise Malformed("a pathlen that is too long to be printed")
        else:
            words.append(f"pathlen:{int.from_bytes(bytes(element.data), 'big')}")
    return [is_ca, *words]


def read_general_names(words: Sequence[str]) -> bytes:
    """Return GeneralNames as DER, from words such as `DNS:host`.  Raises `Malformed`."""
    return wrap(SEQUENCE, b"".join(map(read_general_name, words)))


def read_general_name(word: str) -> bytes:
    """Return one GeneralName as DER.  A kind alone, without a colon, leaves the name to the client.

    Raises `Malformed`.
    """
    kind, colon, text = word.partition(":")
    tag = bytes([_GENERAL_NAMES.get(kind, 0)])
    if kind not in _GENERAL_NAMES:
        raise Malformed(f"{word[:80]!r} does not begin with {', '.join(_GENERAL_NAMES)} and a colon")
    if not colon or not text:
        if kind not in _OPEN or colon:
            raise Malformed(f"{kind} without a value; to leave it to the client, write the kind alone, no colon")
        return wrap(tag, _OPEN[kind])
    try:
        match kind:
            case "dirName":
                return wrap(tag, x509.Name.from_rfc4514_string(text, _NAME_PARTS).public_bytes())
            case "IP":
                return wrap(tag, ipaddress.ip_address(text).packed)
            case "RID":
                return wrap(tag, encode_oid(oids.oid_of(text))[2:])
            case "otherName":
                oid, _, value = text.partition(";")
                return wrap(tag, encode_oid(oids.oid_of(oid)) + wrap(b"\xa0", read_value({"hex": value})))
            case _:
                return wrap(tag, text.encode("ascii"))
    except UnicodeEncodeError:
        raise Malformed(f"{kind}: only ASCII goes in there (RFC 5280 7: xn-- for other hosts)") from None
    except ValueError as fault:
        # The library's error for a faulty name has no text.
        why = str(fault) or "a name is wanted, such as CN=device-1,O=Example (RFC 4514)"
        raise Malformed(f"{word[:80]!r} can't be read as {kind}: {why}") from None


def write_general_names(der: bytes) -> list[str]:
    """Return the entries of GeneralNames in DER, in OpenSSL's spelling.  Raises `Malformed`."""
    return [_general_name_words(entry) for entry in elements(der, "a subject alternative name")]


def _general_name_words(entry: asn1.TLV) -> str:
    tag, content = bytes(entry.tag_bytes), bytes(entry.data)
    kind = _KIND_OF_TAG.get(tag[0]) if len(tag) == 1 else None
    if kind is not None and content == _OPEN.get(kind):
        return kind
    try:
        match kind:
            case "dirName":
                return f"dirName:{_name_words(content)}"
            case "IP":
                return f"IP:{ipaddress.ip_address(content)}"
            case "RID":
                return f"RID:{oids.name_of(decode_oid(wrap(_OID, content)))}"
            case "otherName":
                oid, value = elements(wrap(SEQUENCE, content), "an otherName")
                return f"otherName:{oids.name_of(decode_oid(whole(oid)))};{bytes(value.data).hex()}"
            case None:
                raise Malformed("a general name of an unknown kind")
            case _:
                return f"{kind}:{content.decode('ascii')}"
    except ValueError:
        raise Malformed("a general name without words") from None


def _name_words(der: bytes) -> str:
    """A distinguished name, given as DER, as an RFC 4514 string, which does not show string types."""
    rdns = []
    for rdn in elements(der, "a name"):
        pairs = [
            elements(whole(one), "a part of a name") for one in elements(wrap(SEQUENCE, bytes(rdn.data)), "an RDN")
        ]
        rdns.append(
            x509.RelativeDistinguishedName(
                x509.NameAttribute(
                    x509.ObjectIdentifier(decode_oid(whole(pair[0]))), text_of(whole(pair[1])) or "", _validate=False
                )
                for pair in pairs
            )
        )
    return x509.Name(rdns).rfc4514_string()


CODECS: Mapping[str, tuple[Callable[[Sequence[str]], bytes], Callable[[bytes], list[str]]]] = {
    "2.5.29.15": (read_usages, write_usages),
    "2.5.29.17": (read_general_names, write_general_names),
    "2.5.29.19": (read_constraints, write_constraints),
    "2.5.29.37": (read_purposes, write_purposes),
}
"""By OID of an extension: the function from words to the DER of its value, and the function back."""
