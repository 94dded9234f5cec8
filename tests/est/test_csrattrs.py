"""CSR attributes: every published example survives a round trip, and what is none is called so."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, strategies

from estgw.errors import Malformed
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs, ExtensionWish, KeyWish, NamePart, Template

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = sorted(path.name for pattern in ("*csrattrs*", "*9908*") for path in VECTORS.glob(pattern))
# RFC 9908 5.1, 5.4, 5.5 and 5.6 (5.3 was published with the bytes of 5.6), then two of our own making:
# a template beside the old style, and the smallest template there is.
INLINE = {
    "5.1": "MGwwagYJKoZIhvcNAQkOMV0wWzBZBgNVHREBAf8ETzBNoEsGCCsGAQUFBwgKoD8WPXJmYzg5OTQrZmQ3MzlmYzIzYzM0NDAx",
}
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
P256, P384 = "1.2.840.10045.3.1.7", "1.3.132.0.34"


def vector(name):
    data = (VECTORS / name).read_bytes()
    return base64.b64decode(data) if name.endswith(".b64") else data


@pytest.mark.parametrize("name", FILES)
def test_every_vector_survives_a_round_trip(name):
    der = vector(name)
    attrs = csrattrs.decode_csrattrs(der)
    assert attrs.encode() == der
    template = attrs.template
    if template is not None:
        (raw,) = [value for one in attrs.attributes if one.oid == csrattrs.TEMPLATE for value in one.values]
        assert template.encode() == raw


def test_there_are_vectors():
    assert len(FILES) >= 6
