"""What the quirks do to a right answer.  Each function takes the request, the right answer and the desk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from email.utils import formatdate

from cryptography.hazmat.primitives.asymmetric import ec

from estgw.est import csrattrs_data, encoding
from estgw.est.operations import CERTS_ONLY
from estgw.quirks import desk as desks
from estgw.quirks.desk import Asked, Desk
from estgw.quirks.material import common_name
from estgw.quirks.wire import Reply

Spoil = Callable[[Asked, Reply, Desk], Reply]

SECONDS = 2
"""Retry-After."""
TIMES = 2
"""How often the server says later."""
SOMEBODY = "somebody-else"
HTML = b"<!doctype html><title>Sign in</title><p>quirk-html: this is a web page and no certificate.</p>\n"
JUNK = b"quirk-junk: base64 of these words, which are no PKCS#7. " * 8
_CLOSE = ("Connection", "close")

TEMPLATE = [
    {"key": "rsa:3072"},
    {
        "template": {
            "subject": ["commonName", {"organizationName": "estgw quirks"}],
            "key": "ec:P-384",
        }
    },
]
"""RFC 9908 4: a client that knows templates ignores the RSA key beside it."""
UNKNOWN = [
    "1.3.6.1.4.1.99999.7030.1",
    {"1.3.6.1.4.1.99999.7030.2": {"hex": "0c0571756972 6b".replace(" ", "")}},
    {"extensions": {"1.3.6.1.4.1.99999.7030.3": {"hex": "0500"}}},
]
POP = ["challengePassword"]


def as_it_is(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """The right answer."""
    del asked, desk
    return good


def wrong_key(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Certify another key than the CSR's."""
    del good
    return desk.issued(asked, desk.certificate(asked, of_key=desk.material.other_key.public_key()))


def wrong_issuer(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Let another CA sign."""
    del good
    return desk.issued(asked, desk.certificate(asked, by_stranger=True))


def wrong_name(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Certify the right key for another subject."""
    if good.certificate is None:
        return good
    key = good.certificate.public_key()
    return desk.issued(asked, desk.material.issue(common_name(SOMEBODY), key))


def two_certs(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Put the CA's certificate before the issued one."""
    if good.certificate is None:
        return good
    both = [desk.material.old.certificate, good.certificate]
    return replace(desks.bag(asked, both, CERTS_ONLY), certificate=good.certificate)


def html(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Answer with a web page, as a captive portal does."""
    del asked, good, desk
    return Reply(200, HTML, "text/html; charset=utf-8")


def junk(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Answer with the right type and base64 of something else."""
    del desk
    return replace(good, body=encoding.encode_base64(JUNK, columns=asked.columns), certificate=None)


def no_type(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Leave Content-Type out."""
    del asked, desk
    return replace(good, content_type=None)


def wrong_type(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Send the right bytes under the type of a web page."""
    del asked, desk
    return replace(good, content_type="text/html")


def later(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Say 202 with seconds."""
    del desk
    return Reply(202, headers=(("Retry-After", str(SECONDS)),)) if asked.number < TIMES else good


def later_date(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Say 202 with a date (RFC 9110 10.2.3), at least `SECONDS` away."""
    del desk
    when = formatdate(math.floor(time.time()) + SECONDS + 1, usegmt=True)
    return Reply(202, headers=(("Retry-After", when),)) if asked.number < TIMES else good


def later_none(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Say 202 without the Retry-After that RFC 7030 4.2.3 demands."""
    del desk
    return Reply(202) if asked.number < TIMES else good


def busy(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Say 503 with seconds (RFC 9110 15.6.4)."""
    del desk
    return Reply(503, headers=(("Retry-After", str(SECONDS)),)) if asked.number < TIMES else good


def redirect_same(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Redirect to another path here."""
    return good if asked.is_again else Reply(307, headers=(("Location", desk.url(asked, aside=False)),))


def redirect_away(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Redirect to a server with the wrong name."""
    del good
    return Reply(307, headers=(("Location", desk.url(asked, aside=True)),))


def one_line(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Break no line (RFC 8951 3.1)."""
    del asked, desk
    return replace(good, body=_base64(good, None))


def crlf_76(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Break lines as MIME does."""
    del asked, desk
    return replace(good, body=_base64(good, 76).replace(b"\n", b"\r\n"))


def no_cte(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Leave Content-Transfer-Encoding out, which means nothing here (RFC 8951 3)."""
    del asked, desk
    return replace(good, is_base64=False)


def chunked(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Send chunks (RFC 9112 7.1)."""
    del asked, desk
    parts = _parts(good.body, 5)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    return replace(good, pieces=(good.head(("Transfer-Encoding", "chunked"), _CLOSE), chunks))


def lower_case(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Write header names in lower case, which is the same (RFC 9110 5.1)."""
    del asked, desk
    return replace(good, pieces=(good.head(("Content-Length", str(len(good.body))), _CLOSE, lower=True) + good.body,))


def split(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Send the answer in several TLS records."""
    del asked, desk
    whole = good.head(("Content-Length", str(len(good.body))), _CLOSE) + good.body
    return replace(good, pieces=tuple(_parts(whole, 7)))


def cut_body(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """End the connection in the middle of the body."""
    del asked, desk
    whole = good.head(("Content-Length", str(len(good.body))), _CLOSE) + good.body[: len(good.body) * 3 // 5]
    return replace(good, pieces=(whole,))


def rollover_bag(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Show both roots of a CA that changes its key, and the two certificates between them (RFC 4210 4.4)."""
    del good
    return desks.bag(asked, list(desk.material.rollover), "application/pkcs7-mime")


def shuffled_bag(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """The same with the newest root last: the order says nothing (RFC 5272 4.1)."""
    del good
    return desks.bag(asked, list(reversed(desk.material.rollover)), "application/pkcs7-mime")


def template_only(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Ask for a template, and for another key beside it."""
    del good, desk
    return _attributes(asked, TEMPLATE)


def unknown_attrs(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Ask for things that nobody knows (RFC 7030 4.5.2)."""
    del good, desk
    return _attributes(asked, UNKNOWN)


def pop_wanted(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Ask for a linked CSR (RFC 7030 3.5)."""
    del good, desk
    return _attributes(asked, POP)


def keygen_other_key(asked: Asked, good: Reply, desk: Desk) -> Reply:
    """Send a key and a certificate for another one."""
    del good
    certified = ec.generate_private_key(ec.SECP256R1()).public_key()
    return desks.keygen(asked, desk.material.other_key, desk.certificate(asked, of_key=certified))


def _attributes(asked: Asked, wishes: Sequence[object]) -> Reply:
    der = csrattrs_data.read(list(wishes)).encode()
    return Reply(200, encoding.encode_base64(der, columns=asked.columns), "application/csrattrs", is_base64=True)


def _base64(good: Reply, columns: int | None) -> bytes:
    return encoding.encode_base64(encoding.decode_base64(good.body), columns=columns)


def _parts(data: bytes, count: int) -> list[bytes]:
    size = -(-len(data) // count)
    return [data[at : at + size] for at in range(0, len(data), size)]
