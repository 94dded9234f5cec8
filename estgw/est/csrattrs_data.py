"""CSR attributes as the plain lists, texts and mappings of csrattrs.yaml: converted in both directions, byte for byte.

The language is a list of wishes.  A wish is one element of CsrAttrs; the list has the order of the elements:

    - challengePassword                     an OID by name or number (in a template: an attribute to be filled in)
    - friendlyName: my device               an attribute with its value, or a list of them
    - key: ec:P-256                         the key's kind, and its curve or size
    - extensionRequest: {keyUsage: [critical, digitalSignature], subjectAltName: DNS:host.example}
    - template: {subject: [commonName, organizationName: Example], key: ..., attributes: [...]}
    - hex: 06092a86...                      any element, as DER

`extensions` means extensionRequest.  In a template that leaves the value of an extension open, it means
extensionReqTemplate (RFC 9908 3.4).  SETs are put into DER's order.

Writing tries several forms, the shortest first, and takes the first one that reads back as the same bytes; hex always
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from estgw.errors import Malformed
from estgw.est import csrattrs, oids
from estgw.est.csrattrs import (
    EXTENSION_REQUEST,
    EXTENSION_TEMPLATE,
    TEMPLATE,
    AttributeWish,
    CsrAttrs,
    ExtensionWish,
    Item,
    NamePart,
    Template,
    set_of,
)
from estgw.est.csrattrs_keys import read_classic, read_template_key, write_classic, write_template_key
from estgw.est.csrattrs_values import CODECS, KINDS, at, collect, read_hex, read_value, write_value
from estgw.est.der import SEQUENCE, wrap

SAN = "2.5.29.17"
AS_WRITTEN = "as written"
"""The value of `order` for a template whose attributes are not in DER's order; some servers send such templates."""
_ONCE = ("key", "extensions", "template")
"""The wishes that may occur once only (RFC 9908 3.2, 3.4)."""


def read(data: Any, *, alternatives: bool = False) -> CsrAttrs:
    """Return CSR attributes from a list of wishes.  Raises `Unfit` with the faults in it, at most `MOST_FAULTS`.

    `alternatives` allows several keys, of which a CSR needs one.  It is for a policy that CSRs are checked against; an
    answer to a client can't hold them.
    """
    if not isinstance(data, list):
        raise Malformed("a list of wishes is wanted, each on a line of its own that begins with a dash")
    return CsrAttrs(tuple(_read_wishes(data, _read_item, ("key",) if alternatives else ())))


def write(attrs: CsrAttrs) -> list[Any]:
    """Return the list of wishes from which `read` makes the same bytes."""
    return _write_wishes(attrs.items, _write_item, _read_item)


# Lists of wishes: the whole, and a template's attributes.


def _read_wishes(data: Sequence[Any], read_one: Callable[[Any], Any], repeated: Sequence[str] = ()) -> list[Any]:
    seen = set[str]()

    def one(_: Any, wish: Any) -> Any:
        word = _only_key(wish)
        if word in _ONCE and word not in repeated:
            if word in seen:
                raise Malformed(f"a second {word}, and RFC 9908 3 has room for one")
            seen.add(word)
        return read_one(wish)

    return collect(data, one)


def _write_wishes(items: Iterable[Any], words: Callable[[Any], list[Any]], read_one: Callable[[Any], Any]) -> list[Any]:
    made: list[Any] = []
    seen = set[str]()
    for item in items:
        wish = next(one for one in words(item) if _only_key(one) not in seen and _makes(read_one, one, item))
        if _only_key(wish) in _ONCE:
            seen.add(_only_key(wish))
        made.append(wish)
    return made


def _only_key(wish: Any) -> str:
    return next(iter(wish)) if isinstance(wish, Mapping) and len(wish) == 1 else ""


def _makes(read_one: Callable[[Any], Any], words: Any, item: Any) -> bool:
    try:
        return bool(read_one(words) == item)
    except Malformed:
        return False


def _single(wish: Any) -> tuple[str, Any]:
    if not isinstance(wish, Mapping) or len(wish) != 1:
        raise Malformed("a name or number is wanted here, or one with a colon and its value")
    ((word, inner),) = wish.items()
    return str(word), inner


# One wish.


def _read_item(wish: Any) -> Item:
    if isinstance(wish, str):
        return oids.oid_of(wish)
    word, inner = _single(wish)
    with at(word):
        match word:
            case "key":
                return read_classic(inner)
            case "template":
                return AttributeWish(TEMPLATE, (_read_template(inner).encode(),))
            case "hex":
                found = csrattrs.decode_csrattrs(wrap(SEQUENCE, read_hex(inner))).items
                if len(found) != 1:
                    raise Malformed("one whole DER value is wanted, an OBJECT IDENTIFIER or an Attribute")
                return found[0]
    return _read_attribute(wish, template=False)


def _write_item(item: Item) -> list[Any]:
    if isinstance(item, str):
        return [oids.name_of(item)]
    words: list[Any] = []
    if item.oid in oids.KEYS:
        words += [{"key": key} for key in write_classic(item)]
    if item.oid == TEMPLATE and len(item.values) == 1:
        words += [{"template": one} for one in _write_template(item.values[0])]
    return [*words, *_write_attribute(item), {"hex": item.encode().hex()}]


def _read_attribute(wish: Any, *, template: bool) -> AttributeWish:
    """Return an attribute.  Only a template may have one without values, which leaves it to the client."""
    if isinstance(wish, str) and template:
        return AttributeWish(oids.oid_of(wish))
    word, inner = _single(wish)
    with at(word):
        if word == "extensions":
            wishes = read_extensions(inner)
            is_open = any(map(_is_open, wishes))
            if is_open and not template:
                raise Malformed("only a template can leave the value of an extension to the client (RFC 9908 3.4)")
            return _extension_attribute(EXTENSION_TEMPLATE if is_open else EXTENSION_REQUEST, wishes)
        if word in ("key", "template", "subject"):
            raise Malformed("stands beside the template's attributes, not among them" if template else "not here")
        oid = oids.oid_of(word)
        if (
            oid in (EXTENSION_REQUEST, EXTENSION_TEMPLATE)
            and isinstance(inner, Mapping)
            and _only_key(inner) not in KINDS
        ):
            return _extension_attribute(oid, read_extensions(inner))
        if inner is None:
            raise Malformed("there is a colon and no value; leave the colon out")
        values = inner if isinstance(inner, list) else [inner]
        made = collect(values, lambda _, value: read_value(value, oid)) if values is inner else [read_value(inner, oid)]
        return AttributeWish(oid, set_of(made))


def _write_attribute(item: AttributeWish, *, template: bool = False) -> list[Any]:
    name = oids.name_of(item.oid)
    words: list[Any] = [name] if template and not item.values else []
    if item.oid in (EXTENSION_REQUEST, EXTENSION_TEMPLATE) and len(item.values) == 1:
        try:
            wanted = {oids.name_of(wish.oid): write_extension(wish) for wish in csrattrs.extensions([item])}
        except Malformed:
            wanted = {}
        words += [{"extensions": wanted}, {name: wanted}]
    values = [write_value(value, item.oid) for value in item.values]
    return [*words, {name: values[0] if len(values) == 1 else values}]


# Extensions.


def read_extensions(data: Any) -> list[ExtensionWish]:
    """Return the extensions in a mapping from names to words.  Raises `Malformed`."""
    if not isinstance(data, Mapping) or not data:
        raise Malformed("extensions are wanted here, one a line: its name, a colon and its value")
    wishes = collect(data, lambda name, words: read_extension(oids.oid_of(name), words))
    if len({wish.oid for wish in wishes}) < len(wishes):
        raise Malformed("one extension stands here twice, by two names (RFC 9908 3.2)")
    return wishes


def read_extension(oid: str, data: Any) -> ExtensionWish:
    """Return one extension.  Raises `Malformed`.

    `data` is None, one word, a list of words that may begin with `critical`, or `{hex: ...}`.
    """
    words = [] if data is None else data if isinstance(data, list) else [data]
    critical = words[:1] == ["critical"]
    words = words[critical:]
    if data == []:
        raise Malformed("an empty list; leave the value out for the client to find it")
    if not words:
        return ExtensionWish(oid, critical)
    if len(words) == 1 and isinstance(words[0], Mapping):
        hexed = _only_key(words[0]) == "hex"
        return ExtensionWish(oid, critical, read_hex(words[0]["hex"]) if hexed else read_value(words[0]))
    if not all(isinstance(word, str) for word in words):
        raise Malformed("texts are wanted here; quote what YAML takes for something else")
    if oid not in CODECS:
        raise Malformed("this extension has no words here; give its DER as {hex: ...}")
    return ExtensionWish(oid, critical, CODECS[oid][0](words))


def write_extension(wish: ExtensionWish) -> Any:
    """Return the words for one extension."""
    words: list[Any] = []
    if wish.value is not None:
        try:
            words = CODECS[wish.oid][1](wish.value)
            sound = CODECS[wish.oid][0](words) == wish.value if words else False
        except (Malformed, KeyError):
            sound = False
        words = words if sound else [{"hex": wish.value.hex()}]
    if wish.critical:
        return ["critical", *words]
    return words if len(words) > 1 else words[0] if words else None


def open_names(value: bytes) -> list[str]:
    """The kinds of general name that a SAN, given as DER, leaves to the client."""
    try:
        return [word for word in CODECS[SAN][1](value) if ":" not in word]
    except Malformed:
        return []


def _is_open(wish: ExtensionWish) -> bool:
    return wish.value is None or (wish.oid == SAN and bool(open_names(wish.value)))


def _extension_attribute(oid: str, wishes: Iterable[ExtensionWish]) -> AttributeWish:
    return AttributeWish(oid, (wrap(SEQUENCE, b"".join(wish.encode() for wish in wishes)),))


# Templates (RFC 9908 3.4).

_PARTS = ("subject", "key", "attributes", "order")


def _read_template(data: Any) -> Template:
    if data is None:
        return Template()
    if not isinstance(data, Mapping):
        raise Malformed(f"a template is wanted here: {', '.join(_PARTS[:3])}, each with a colon")
    for part in data.keys() - set(_PARTS):
        with at(part):
            raise Malformed(f"this is no part of a template; there are {', '.join(_PARTS[:3])}")
    with at("subject"):
        subject = _read_subject(data["subject"]) if data.get("subject") is not None else None
    with at("key"):
        key = read_template_key(data["key"]) if data.get("key") is not None else None
    with at("attributes"):
        wishes = data.get("attributes") or []
        if not isinstance(wishes, list):
            raise Malformed("a list is wanted here, each attribute on a line of its own that begins with a dash")
        attributes = _read_wishes(wishes, _read_inner)
        if {EXTENSION_REQUEST, EXTENSION_TEMPLATE} <= {attribute.oid for attribute in attributes}:
            raise Malformed("extensionRequest and extensionReqTemplate exclude each other (RFC 9908 3.4)")
    if data.get("order") is None:
        attributes.sort(key=AttributeWish.encode)
    elif data["order"] != AS_WRITTEN:
        with at("order"):
            raise Malformed(f"there is no order but {AS_WRITTEN!r}; without a word it is DER's")
    return Template(subject, key, tuple(attributes))


def _write_template(der: bytes) -> list[Any]:
    try:
        template = csrattrs.decode_template(der)
    except Malformed:
        return []
    words: dict[str, Any] = {}
    if template.subject is not None:
        words["subject"] = [_write_rdn(rdn) for rdn in template.subject]
    if template.key is not None:
        words["key"] = write_template_key(template.key)
    if template.attributes:
        words["attributes"] = _write_wishes(template.attributes, _inner_words, _read_inner)
    return [words, {**words, "order": AS_WRITTEN}]


def _read_inner(wish: Any) -> AttributeWish:
    if _only_key(wish) == "hex":
        item = _read_item(wish)
        if isinstance(item, str):
            raise Malformed("an Attribute is wanted here")
        return item
    return _read_attribute(wish, template=True)


def _inner_words(attribute: AttributeWish) -> list[Any]:
    return [*_write_attribute(attribute, template=True), {"hex": attribute.encode().hex()}]


def _read_subject(data: Any) -> tuple[tuple[NamePart, ...], ...]:
    if not isinstance(data, list):
        raise Malformed("a list is wanted here: a name to be filled in, or a name, a colon and its value")
    return tuple(collect(data, lambda _, rdn: _read_rdn(rdn)))


def _read_rdn(data: Any) -> tuple[NamePart, ...]:
    """Return one RDN; a list makes an RDN of several attributes."""
    if not isinstance(data, list):
        return (_read_part(data),)
    if not data:
        raise Malformed("an empty RDN")
    parts = collect(data, lambda _, part: _read_part(part))
    return tuple(sorted(parts, key=NamePart.encode))


def _read_part(data: Any) -> NamePart:
    if isinstance(data, str):
        return NamePart(oids.oid_of(data))
    word, inner = _single(data)
    with at(word):
        oid = oids.oid_of(word)
        return NamePart(oid, None if inner is None else read_value(inner, oid))


def _write_rdn(rdn: Sequence[NamePart]) -> Any:
    parts = [
        oids.name_of(part.oid) if part.value is None else {oids.name_of(part.oid): write_value(part.value, part.oid)}
        for part in rdn
    ]
    return parts[0] if len(parts) == 1 else parts
