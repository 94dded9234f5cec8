"""Making a CSR from the names that the user gives and the CSR attributes of the server (RFC 7030 4.5, RFC 9908).

This module encodes the CSR itself: `cryptography`'s builder takes one value per attribute and a few string types only,
and values from the server must go out byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import keys
from estgw.client.faults import ClientError, InvalidAnswer, UsageError, clean
from estgw.client.keys import KeySpec
from estgw.errors import Malformed
from estgw.est import certs, csrattrs, oids
from estgw.est.binding import Binding
from estgw.est.csr import CHALLENGE_PASSWORD, EST_IDENTITY_LINKING
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish, NamePart
from estgw.est.der import SEQUENCE, elements, whole, wrap

SAN = "2.5.29.17"
_SUGGESTED = {
    "2.5.29.15": bytes.fromhex("03020780"),  # keyUsage: digitalSignature
    "2.5.29.19": bytes.fromhex("3000"),  # basicConstraints: no CA
    "2.5.29.37": bytes.fromhex("300a06082b06010505070302"),  # extKeyUsage: id-kp-clientAuth
}
"""Default values for extensions whose value a template leaves open (RFC 9908 3.4)."""
_COPIED = ("1.2.840.113549.1.9.2", "1.2.840.113549.1.9.8", "1.2.840.113549.1.9.20")
"""unstructuredName, unstructuredAddress and friendlyName: plain attributes that are sent back as they came."""
_PRINTABLE = re.compile(r"[A-Za-z0-9 '()+,./:=?-]*")
_KINDS = {0x81: "--email", 0x82: "--dns", 0x86: "--uri", 0x87: "--ip"}
_DIRECTORY_NAME = 0xA4
_NO_NAME = b"\x30\x00"


@dataclass(frozen=True)
class Wanted:
    """The names that the user wants in the certificate."""

    subject: x509.Name = field(default_factory=lambda: x509.Name([]))
    san: tuple[x509.GeneralName, ...] = ()
    san_critical: bool = False
    is_fixed: bool = False
    """For a renewal: subject and SAN stay as in the old certificate, whatever the server suggests (RFC 7030 4.2.2)."""


@dataclass(frozen=True)
class Plan:
    """A CSR without key, binding and signature."""

    key: KeySpec | None
    """The kind of key that the server asks for, if it does."""
    hash_name: str | None
    subject: bytes
    extensions: tuple[ExtensionWish, ...]
    attributes: tuple[AttributeWish, ...]
    linking: str
    """The attribute that holds the binding: challengePassword, or estIdentityLinking if the server lists it."""
    notes: tuple[str, ...] = ()
    """Attributes that the server asks for and the CSR will not have, in words for the user."""


def plan(wanted: Wanted, attrs: CsrAttrs | None) -> Plan:
    """Combine the user's names with the server's attributes; raises `UsageError` if a name is missing.

    If there is a template, the client follows it and ignores the rest (RFC 9908 4).  A template can't forbid the
    binding (RFC 7030 3.5: linked by default).
    """
    try:
        return _plan(wanted, attrs or CsrAttrs())
    except Malformed as fault:
        raise InvalidAnswer(f"the server's CSR attributes can't be read: {fault}") from None


def _plan(wanted: Wanted, attrs: CsrAttrs) -> Plan:
    template = attrs.template
    attributes = attrs.attributes if template is None else template.attributes
    oids = {*(attrs.oids if template is None else ()), *(wish.oid for wish in attributes if not wish.values)}
    key = _key_wish(attrs) if template is None else template.key
    notes: list[str] = []
    subject = wanted.subject.public_bytes()
    if template is not None and template.subject is not None and not wanted.is_fixed:
        subject = _subject(template.subject, wanted.subject, notes)
    extensions = _extensions(csrattrs.extensions(attributes), wanted, notes)
    copied = tuple(
        wish
        for wish in attributes
        if wish.values and (wish.oid in _COPIED or (template is not None and _is_plain(wish.oid)))
    )
    spec = keys.wished(key) if key is not None else None
    if key is not None and spec is None:
        raise ClientError(f"the server wants a kind of key that can't be made here ({key.oid})")
    if not wanted.is_fixed and subject == _NO_NAME and all(extension.oid != SAN for extension in extensions):
        raise UsageError("the certificate would have no name: give --subject, or one of --dns, --ip, --email and --uri")
    hash_name = next((keys.HASH_OIDS[oid] for oid in sorted(oids) if oid in keys.HASH_OIDS), None)
    linking = EST_IDENTITY_LINKING if EST_IDENTITY_LINKING in oids else CHALLENGE_PASSWORD
    known = {CHALLENGE_PASSWORD, EST_IDENTITY_LINKING, *keys.HASH_OIDS, *keys.KEY_OIDS}
    present = {attribute.oid.dotted_string for attribute in wanted.subject}
    unmet = sorted(oids - known - present)
    notes += [f"the server asks for {_oid_name(oid)} in the CSR, which will not be in it" for oid in unmet]
    return Plan(spec, hash_name, subject, extensions, copied, linking, tuple(notes))


def build(made: Plan, key: PrivateKeyTypes, binding: Binding | None, extra: Iterable[AttributeWish] = ()) -> bytes:
    """The signed CSR as DER, linked to a connection when there is a binding; `extra` attributes go in too."""
    attributes = [*made.attributes, *extra]
    if binding is not None:
        attributes.append(AttributeWish(made.linking, (string(binding.text),)))
    if made.extensions:
        request = wrap(SEQUENCE, b"".join(extension.encode() for extension in made.extensions))
        attributes.append(AttributeWish(csrattrs.EXTENSION_REQUEST, (request,)))
    encoded = csrattrs.set_of([attribute.encode() for attribute in attributes])
    version = b"\x02\x01\x00"
    info = wrap(SEQUENCE, version + made.subject + keys.spki(key) + wrap(b"\xa0", b"".join(encoded)))
    algorithm, signature = keys.sign(key, info, made.hash_name)
    return wrap(SEQUENCE, info + algorithm + wrap(b"\x03", b"\0" + signature))


def string(text: str) -> bytes:
    """A DirectoryString: PrintableString if the characters allow it, since RFC 2985 5.4.1 prefers that."""
    return wrap(b"\x13" if _PRINTABLE.fullmatch(text) else b"\x0c", text.encode())


def fixed_to(certificate: x509.Certificate) -> Wanted:
    """Subject and SAN of a certificate that is to be renewed (RFC 7030 4.2.2); raises `UsageError`."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return Wanted(certificate.subject, is_fixed=True)
    except certs.UNREADABLE as fault:
        raise UsageError(f"the certificate's extensions can't be read: {clean(str(fault), 200)}") from None
    return Wanted(certificate.subject, tuple(extension.value), extension.critical, is_fixed=True)


def _key_wish(attrs: CsrAttrs) -> KeyWish | None:
    """The key in attributes without a template: an attribute of the key algorithm's type (RFC 9908 3.2), or an OID."""
    for attribute in attrs.attributes:
        if attribute.oid in keys.KEY_OIDS:
            return KeyWish(attribute.oid, attribute.values[0] if attribute.values else None)
    plain = [oid for oid in attrs.oids if oid in keys.KEY_OIDS]
    return KeyWish(plain[0]) if plain else None


def _subject(template: Sequence[Sequence[NamePart]], subject: x509.Name, notes: list[str]) -> bytes:
    given = [(attribute.oid.dotted_string, _attribute_value(attribute)) for attribute in subject]
    rdns = []
    for rdn in template:
        parts = []
        for part in rdn:
            mine = next((pair for pair in given if pair[0] == part.oid), None)
            if mine is not None:
                given.remove(mine)
            if part.value is None and mine is None:
                raise UsageError(f"the server wants {_oid_name(part.oid)} in the subject: add it to --subject")
            value = part.value if part.value is not None else mine[1] if mine else b""
            parts.append(wrap(SEQUENCE, csrattrs.encode_oid(part.oid) + value))
        rdns.append(wrap(b"\x31", b"".join(csrattrs.set_of(parts))))
    for oid, _ in given:
        notes.append(f"the server's template has no {_oid_name(oid)} in the subject, so the CSR leaves it out")
    return wrap(SEQUENCE, b"".join(rdns))


def _attribute_value(attribute: x509.NameAttribute[str | bytes]) -> bytes:
    rdn = elements(x509.Name([attribute]).public_bytes(), "a name")[0]
    pair = elements(wrap(SEQUENCE, bytes(rdn.data)), "an RDN")[0]
    return whole(elements(whole(pair), "an attribute")[1])


def _extensions(wishes: Sequence[ExtensionWish], wanted: Wanted, notes: list[str]) -> tuple[ExtensionWish, ...]:
    done: dict[str, ExtensionWish] = {}
    mine = _san_entries(wanted.san)
    for wish in wishes:
        if wish.oid == SAN:
            if not wanted.is_fixed:
                mine = _merge_san(wish, mine)
                wanted = Wanted(wanted.subject, wanted.san, wish.critical)
            continue
        value = wish.value if wish.value is not None else _SUGGESTED.get(wish.oid)
        if value is None:
            notes.append(f"the server gives no value for extension {_oid_name(wish.oid)}, so the CSR leaves it out")
        else:
            done[wish.oid] = ExtensionWish(wish.oid, wish.critical, value)
    if mine:
        done[SAN] = ExtensionWish(SAN, wanted.san_critical, wrap(SEQUENCE, b"".join(mine)))
    return tuple(done.values())


def _san_entries(san: Sequence[x509.GeneralName]) -> list[bytes]:
    if not san:
        return []
    return [whole(entry) for entry in elements(x509.SubjectAlternativeName(san).public_bytes(), "a SAN")]


def _merge_san(wish: ExtensionWish, mine: list[bytes]) -> list[bytes]:
    """The server's entries, with its empty ones filled from ours (RFC 9908 3.4), then the rest of ours."""
    if wish.value is None:
        if not mine:
            raise UsageError("the server wants a subject alternative name: --dns, --ip, --email or --uri")
        return mine
    rest, merged = list(mine), []
    for entry in elements(wish.value, "a subject alternative name"):
        tag, encoded = bytes(entry.tag_bytes)[0], whole(entry)
        if len(entry.data) == 0 or (tag == _DIRECTORY_NAME and bytes(entry.data) == _NO_NAME):
            own = next((candidate for candidate in rest if candidate[0] == tag), None)
            if own is None:
                raise UsageError(
                    f"the server wants an entry in the subject alternative name: {_KINDS.get(tag, f'tag {tag:#x}')}"
                )
            encoded = own
        if encoded in rest:
            rest.remove(encoded)
        merged.append(encoded)
    return merged + rest


def _is_plain(oid: str) -> bool:
    special = (csrattrs.EXTENSION_REQUEST, csrattrs.EXTENSION_TEMPLATE, CHALLENGE_PASSWORD, EST_IDENTITY_LINKING)
    return oid not in special and oid not in keys.KEY_OIDS


def _oid_name(oid: str) -> str:
    name = oids.name_of(oid)
    return oid if name == oid else f"{name} ({oid})"
