"""CSR attributes for a person: one line per wish."""

from __future__ import annotations

from estgw.client import keys
from estgw.client.faults import clean
from estgw.est import csrattrs, oids
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish


def render(attrs: CsrAttrs, lines: list[str], form: str) -> bytes:
    """The output: for `der` the bytes from the server, else the lines of `describe`, since PEM has no label for it."""
    return attrs.encode() if form == "der" else "".join(f"{line}\n" for line in lines).encode()


def describe(attrs: CsrAttrs) -> list[str]:
    """One line for each attribute, a template first; raises `Malformed`."""
    lines: list[str] = []
    template = attrs.template
    if template is not None:
        lines.append("template (RFC 9908); a client that knows it ignores the rest:")
        for rdn in template.subject or ():
            parts = [f"{_name(part.oid)}={'...' if part.value is None else _value(part.value)}" for part in rdn]
            lines.append("  subject: " + " + ".join(parts))
        if template.key is not None:
            lines.append(f"  key: {_key(template.key)}")
        lines += [f"  {line}" for attribute in template.attributes for line in _attribute(attribute)]
    for item in attrs.items:
        if isinstance(item, str):
            lines.append(_bare(item))
        elif item.oid != csrattrs.TEMPLATE:
            lines += _attribute(item)
    return lines


def _bare(oid: str) -> str:
    if oid in keys.HASH_OIDS:
        return f"signature with {keys.HASH_OIDS[oid]}: {_name(oid)}"
    return f"attribute: {_name(oid)}"


def _attribute(attribute: AttributeWish) -> list[str]:
    if attribute.oid in keys.KEY_OIDS:
        return [f"key: {_key(KeyWish(attribute.oid, attribute.values[0] if attribute.values else None))}"]
    if attribute.oid in (csrattrs.EXTENSION_REQUEST, csrattrs.EXTENSION_TEMPLATE):
        found = csrattrs.extensions([attribute])
        return [_extension(wish) for wish in found] or [f"extensions: {' '.join(map(_value, attribute.values))}"]
    return [f"attribute: {_name(attribute.oid)} {' '.join(map(_value, attribute.values))}".rstrip()]


def _extension(wish: ExtensionWish) -> str:
    value = "..." if wish.value is None else wish.value.hex()
    return f"extension: {_name(wish.oid)}{', critical' if wish.critical else ''} {value}"


def _key(wish: KeyWish) -> str:
    spec = keys.wished(wish)
    return str(spec) if spec is not None else f"{_name(wish.oid)} (can't be made here)"


def _value(der: bytes) -> str:
    """Text for the string types and OIDs, hex for everything else."""
    if der[:1] in (b"\x0c", b"\x13", b"\x16") and len(der) < 130:
        return repr(clean(der[2:].decode("utf-8", "replace")))
    if der[:1] == b"\x06":
        return _name(csrattrs.decode_oid(der))
    return der.hex()


def _name(oid: str) -> str:
    name = oids.name_of(oid)
    return oid if name == oid else f"{name} ({oid})"
