"""CSRs as cases want them: right, wrong by a little, and linked in every way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from estgw.client import keys, request
from estgw.client.faults import UsageError
from estgw.client.request import Wanted
from estgw.conform.model import skipped
from estgw.est import csr
from estgw.est.binding import Binding
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish

Maker = Callable[[Binding | None], bytes]
"""Makes a CSR (DER) for one connection."""
Linking = Callable[[Binding | None], AttributeWish | None]
"""Makes the attribute with the channel binding, right or wrong, or none."""

DEFAULT_KEY = keys.parse_spec(keys.DEFAULT)


@dataclass(frozen=True)
class Wish:
    """What a CSR asks for."""

    subject: x509.Name
    key: PrivateKeyTypes = field(repr=False)
    san: tuple[x509.GeneralName, ...] = ()
    extensions: tuple[ExtensionWish, ...] = ()
    attributes: tuple[AttributeWish, ...] = ()
    linking: Linking | None = None
    """None: the right binding, in the attribute that the server wants."""
    is_fixed: bool = False
    """For a renewal: the names stay, whatever the server's template says."""


def maker(wish: Wish, attrs: CsrAttrs | None) -> Maker:
    """A maker of this CSR by the server's CSR attributes; raises a `Finding` if they ask for names that it lacks."""
    try:
        plan = request.plan(Wanted(wish.subject, wish.san, is_fixed=wish.is_fixed), attrs)
    except UsageError as fault:
        raise skipped(f"{fault} (give --subject)") from None
    own = {each.oid for each in wish.extensions}
    kept = tuple(each for each in plan.extensions if each.oid not in own)
    plan = replace(plan, extensions=(*kept, *wish.extensions))
    linking = wish.linking

    def make(binding: Binding | None) -> bytes:
        if linking is None:
            return request.build(plan, wish.key, binding, wish.attributes)
        attribute = linking(binding)
        extra = wish.attributes if attribute is None else (*wish.attributes, attribute)
        return request.build(plan, wish.key, None, extra)

    return make


def unlinked(_: Binding | None) -> AttributeWish | None:
    """No binding at all."""
    return None


def challenge(value: bytes) -> Linking:
    """A challengePassword with that value, a whole string in DER, whatever the connection."""
    return lambda _: AttributeWish(csr.CHALLENGE_PASSWORD, (value,))


def spoiled(der: bytes) -> bytes:
    """A CSR with one bit of its signature turned; it can still be read."""
    return der[:-1] + bytes([der[-1] ^ 1])


def extension(value: x509.ExtensionType, *, critical: bool = False) -> ExtensionWish:
    """An extension with a value."""
    return ExtensionWish(value.oid.dotted_string, critical, value.public_bytes())
