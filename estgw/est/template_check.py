"""Check a CSR against required attributes: a policy in the words of csrattrs.yaml (RFC 7030 4.5.2, last paragraph).

The check finds what a CSR lacks; a CSR may hold more.  An RSA key may be longer, and extensions may be critical or not.
If the policy lists several keys or signatures, one of them is enough, since a CSR has only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.asymmetric import rsa

from estgw.errors import Malformed
from estgw.est import csrattrs, names, oids
from estgw.est.csr import CSR, NewNames
from estgw.est.csrattrs import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    TEMPLATE,
    AttributeWish,
    CsrAttrs,
    KeyWish,
    NamePart,
    Template,
    decode_oid,
)
from estgw.est.csrattrs_data import SAN
from estgw.est.csrattrs_keys import Kind, kind_of
from estgw.est.csrattrs_values import CODECS, text_of, write_value
from estgw.est.der import elements, whole

_DNS = b"\x82"
_LISTS = (SAN, "2.5.29.15", "2.5.29.37")
"""Extensions whose entries are required one by one: names, usages, purposes."""


@dataclass(frozen=True)
class TemplateCheck:
    """The requirements for each CSR, parsed once by `of`."""

    parts: tuple[NamePart, ...]
    """Attributes of the subject.  Those with a value come first, so that an open one does not match in their place."""
    keys: tuple[Kind, ...]
    signatures: tuple[str, ...]
    curves: tuple[str, ...]
    oids: tuple[str, ...]
    attributes: tuple[AttributeWish, ...]
    extensions: Mapping[str, Mapping[str, str] | bytes | None]
    """By OID: the entries and their words, the whole value as DER, or None if each value is accepted."""

    @classmethod
    def of(cls, wanted: CsrAttrs) -> TemplateCheck:
        """Return the check for CSR attributes, classic form and template together.  Raises `Malformed`."""
        template = wanted.template or Template()
        classic = [one for one in wanted.attributes if one.oid != TEMPLATE]
        keys = [KeyWish(one.oid, *one.values[:1]) for one in classic if one.oid in oids.KEYS]
        keys += [KeyWish(oid) for oid in wanted.oids if oid in oids.KEYS - oids.SIGNATURES]
        keys += [template.key] if template.key is not None else []
        parts = [part for rdn in template.subject or () for part in rdn]
        attributes = [*(one for one in classic if one.oid not in oids.KEYS), *template.attributes]
        return cls(
            parts=tuple(sorted(parts, key=lambda part: part.value is None)),
            keys=tuple(map(kind_of, keys)),
            signatures=tuple(oid for oid in wanted.oids if oid in oids.SIGNATURES),
            curves=tuple(oid for oid in wanted.oids if oid in oids.CURVES),
            oids=tuple(oid for oid in wanted.oids if oid not in oids.KEYS | oids.SIGNATURES | oids.CURVES.keys()),
            attributes=tuple(one for one in attributes if one.oid not in (EXTENSION_REQUEST, EXTENSION_TEMPLATE)),
            extensions={
                wish.oid: None if wish.value is None else _entries(wish.oid, wish.value)
                for wish in csrattrs.extensions(attributes)
            },
        )

    def require(self, csr: CSR, new_names: NewNames | None, *, proves_key: bool) -> None:
        """Raise `Malformed` with everything that the CSR lacks.

        `new_names`, from a ChangeSubjectName, replace the CSR's names, since they will be issued.  Without `proves_key`
        key and signature are not checked, since serverkeygen ignores them (RFC 7030 4.4.1).
        """
        if lacks := self.missing(csr, new_names, proves_key=proves_key):
            raise Malformed(f"the CSR lacks what is insisted on here: {'; '.join(lacks)}")

    def missing(self, csr: CSR, new_names: NewNames | None = None, *, proves_key: bool = True) -> list[str]:
        """Return what the CSR lacks, as words for an error.  Raises `Malformed`."""
        request = _Request(csr, new_names)
        lacks = _subject(request, self.parts)
        if proves_key:
            lacks += _key(request, self.keys) + _signature(request, self.signatures)
            lacks += [oids.name_of(oid) for oid in self.curves if oid != request.kind.curve]
        lacks += [oids.name_of(oid) for oid in self.oids if not request.has(oid)]
        lacks += [words for attribute in self.attributes for words in _attribute(request, attribute)]
        lacks += [words for oid, wanted in self.extensions.items() for words in _extension(request, oid, wanted)]
        return lacks


@dataclass(frozen=True)
class _Request:
    """A CSR in the form in which it is compared."""

    csr: CSR
    new_names: NewNames | None

    @cached_property
    def subject(self) -> list[tuple[str, str]]:
        """OIDs and folded values of the subject that will be issued."""
        name = self.new_names.subject if self.new_names is not None else self.csr.subject
        return [pair for rdn in names.name_key(name) for pair in sorted(rdn)]

    @cached_property
    def extensions(self) -> dict[str, bytes]:
        """Values as DER by OID; the SAN is the one that will be issued."""
        found = {extension.oid.dotted_string: extension.value.public_bytes() for extension in self.csr.extensions}
        if self.new_names is not None:
            found.pop(SAN, None)
            if self.new_names.san is not None:
                found[SAN] = self.new_names.san.public_bytes()
        return found

    @cached_property
    def kind(self) -> Kind:
        """The kind of its key."""
        oid, *parameters = elements(whole(elements(self.csr.spki, "a public key")[0]), "an algorithm")
        wish = KeyWish(decode_oid(whole(oid)), *(whole(one) for one in parameters[:1]))
        key = self.csr.request.public_key()
        return Kind(wish.oid, wish.curve, key.key_size if isinstance(key, rsa.RSAPublicKey) else None)

    def has(self, oid: str) -> bool:
        """Whether the CSR has this OID as an attribute, an extension or a part of the subject."""
        return oid in self.csr.attributes or oid in self.extensions or oid in dict(self.subject)


def _subject(request: _Request, parts: Iterable[NamePart]) -> list[str]:
    """The parts that the subject lacks.  An open part needs an attribute of its type that no other part has matched."""
    left = list(request.subject)
    lacks = []
    for part in parts:
        wanted = None if part.value is None else _pair(part.oid, part.value)
        pair = next((pair for pair in left if pair[0] == part.oid and wanted in (None, pair)), None)
        if pair is None:
            lacks.append(f"{_shown(part.oid, part.value)} in the subject")
        else:
            left.remove(pair)
    return lacks


def _pair(oid: str, value: bytes) -> tuple[str, str]:
    """The OID and the folded value of a part of a subject, as names are compared."""
    text = text_of(value)
    if text is None:
        return oid, f"#{value.hex()}"
    attribute = x509.NameAttribute(x509.ObjectIdentifier(oid), text, _validate=False)
    ((pair,),) = names.name_key(x509.Name([attribute]))
    return pair


def _key(request: _Request, wanted: Iterable[Kind]) -> list[str]:
    has = request.kind
    kinds = list(dict.fromkeys(wanted))
    if not kinds or any(_fits(has, kind) for kind in kinds):
        return []
    return [f"a key {_either(map(str, kinds))} (it has {has})"]


def _fits(has: Kind, wanted: Kind) -> bool:
    return has.oid == wanted.oid and wanted.curve in (None, has.curve) and (has.bits or 0) >= (wanted.bits or 0)


def _signature(request: _Request, wanted: tuple[str, ...]) -> list[str]:
    algorithm = request.csr.request.signature_algorithm_oid.dotted_string
    try:
        digest = request.csr.request.signature_hash_algorithm
    except UnsupportedAlgorithm:
        digest = None
    has = {algorithm, oids.DIGESTS.get(digest.name) if digest else None}
    if not wanted or has & set(wanted):
        return []
    return [f"a signature with {_either(map(oids.name_of, wanted))} (it has {oids.name_of(algorithm)})"]


def _attribute(request: _Request, wanted: AttributeWish) -> list[str]:
    if not wanted.values:
        return [] if request.has(wanted.oid) else [oids.name_of(wanted.oid)]
    given = [whole(value) for value in request.csr.attributes.get(wanted.oid, ())]
    return [
        _shown(wanted.oid, value)
        for value in wanted.values
        if not any(_same(value, one) for one in given) and _pair(wanted.oid, value) not in request.subject
    ]


def _same(wanted: bytes, given: bytes) -> bool:
    """Whether two values in DER are equal, or are the same text in different string types."""
    text = text_of(wanted)
    return wanted == given or (text is not None and text == text_of(given))


def _extension(request: _Request, oid: str, wanted: Mapping[str, str] | bytes | None) -> list[str]:
    name, value = oids.name_of(oid), request.extensions.get(oid)
    if value is None:
        return [name]
    if wanted is None or wanted == value:
        return []
    if isinstance(wanted, bytes):
        return [f"{name} with the value {wanted.hex()}"]
    given = _keys_of(oid, value)
    return [f"{words} in {name}" for key, words in wanted.items() if key not in given]


def _entries(oid: str, value: bytes) -> Mapping[str, str] | bytes:
    """For a list, its entries' keys for comparison and their words; for another extension, its value."""
    if oid not in _LISTS:
        return value
    words = CODECS[oid][1](value)
    if oid != SAN:
        return {word: word for word in words}
    # The client fills in a general name that is given as its kind alone, so each entry of that kind matches.
    pairs = zip(elements(value, "a subject alternative name"), words, strict=True)
    return {_entry_key(entry)[":" not in word]: word for entry, word in pairs}


def _keys_of(oid: str, value: bytes) -> set[str]:
    """The keys by which the entries of a CSR's extension are compared."""
    if oid != SAN:
        return set(CODECS[oid][1](value))
    return {key for entry in elements(value, "a subject alternative name") for key in _entry_key(entry)}


def _entry_key(entry: asn1.TLV) -> tuple[str, str]:
    """The key of a general name and the key of its kind.  Host names are compared without case (RFC 5280 7.2)."""
    tag, content = bytes(entry.tag_bytes), bytes(entry.data)
    return f"{tag.hex()}:{(content.lower() if tag == _DNS else content).hex()}", tag.hex()


def _shown(oid: str, value: bytes | None) -> str:
    if value is None:
        return oids.name_of(oid)
    words = write_value(value, oid)
    return f"{oids.name_of(oid)}={next(iter(words.values())) if isinstance(words, dict) else words}"


def _either(words: Iterable[str]) -> str:
    return " or ".join(words)
