"""What other implementations say: openssl, pyasn1, pkilint."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from pkilint.loader import load_pem_certificate  # type: ignore[import-untyped]
from pkilint.pkix import certificate, extension, name  # type: ignore[import-untyped]
from pyasn1.codec.der.decoder import decode as read_asn1
from pyasn1.codec.der.encoder import encode as write_asn1

OPENSSL_SIGNS = ["rsa", "p256", "p384", "p521"]
OPENSSL_DECRYPTS = ["rsa", "p256", "p384", "p521"]


def openssl(arguments: Sequence[object], data: bytes) -> bytes:
    """What `openssl cms` makes of some bytes, DER in and out."""
    done = subprocess.run(
        ["openssl", "cms", "-binary", *map(str, arguments)], input=data, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def reads(der: bytes, kind: Any) -> Any:
    """pyasn1's opinion of some DER: it takes it, to the last byte, and would write the very same."""
    found, rest = read_asn1(der, asn1Spec=kind)
    assert rest == b""
    assert write_asn1(found).hex() == der.hex()
    return found


def lint(pem: bytes) -> set[str]:
    """What pkilint's RFC 5280 linter has to say about a certificate, in its own codes."""
    validator = certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )
    findings = validator.validate(load_pem_certificate(pem.decode(), "issued").root)
    return {found.finding.code for result in findings for found in result.finding_descriptions}
