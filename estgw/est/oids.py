"""Names of the object identifiers in CSR attributes.  The first name in a row is printed; each one is accepted."""

from __future__ import annotations

from collections.abc import Mapping

from estgw.errors import Malformed
from estgw.est.der import encode_oid

# Attributes of a CSR: RFC 2985, 7030 4.5.2, 7894, 4108, 6402, 9763, 9883, 9908.
_ATTRIBUTES = """
1.2.840.113549.1.9.7        challengePassword
1.2.840.113549.1.9.14       extensionRequest id-ExtensionReq
1.2.840.113549.1.9.2        unstructuredName
1.2.840.113549.1.9.8        unstructuredAddress
1.2.840.113549.1.9.15       smimeCapabilities
1.2.840.113549.1.9.20       friendlyName
1.2.840.113549.1.9.16.2.37  decryptKeyID id-aa-decryptKeyID
1.2.840.113549.1.9.16.2.54  asymmDecryptKeyID id-aa-asymmDecryptKeyID
1.2.840.113549.1.9.16.2.56  otpChallenge id-aa-otpChallenge
1.2.840.113549.1.9.16.2.57  revocationChallenge id-aa-revocationChallenge
1.2.840.113549.1.9.16.2.58  estIdentityLinking id-aa-estIdentityLinking
1.2.840.113549.1.9.16.2.60  relatedCertRequest id-aa-relatedCertRequest
1.2.840.113549.1.9.16.2.61  certificationRequestInfoTemplate id-aa-certificationRequestInfoTemplate
1.2.840.113549.1.9.16.2.62  extensionReqTemplate id-aa-extensionReqTemplate
1.3.6.1.5.5.7.7.36          changeSubjectName id-cmc-changeSubjectName
1.3.6.1.4.1.22112.2.1       statementOfPossession
1.3.6.1.1.1.1.22            macAddress
"""

# Attributes of a subject: X.520, RFC 4519, RFC 5280 A.1.
_NAMES = """
2.5.4.3                     commonName CN
2.5.4.4                     surname SN
2.5.4.5                     serialNumber
2.5.4.6                     countryName C
2.5.4.7                     localityName L
2.5.4.8                     stateOrProvinceName ST
2.5.4.9                     streetAddress street
2.5.4.10                    organizationName O
2.5.4.11                    organizationalUnitName OU
2.5.4.12                    title
2.5.4.15                    businessCategory
2.5.4.17                    postalCode
2.5.4.41                    name
2.5.4.42                    givenName GN
2.5.4.43                    initials
2.5.4.44                    generationQualifier
2.5.4.46                    dnQualifier
2.5.4.65                    pseudonym
2.5.4.97                    organizationIdentifier
0.9.2342.19200300.100.1.1   userId UID
0.9.2342.19200300.100.1.5   favouriteDrink
0.9.2342.19200300.100.1.25  domainComponent DC
1.2.840.113549.1.9.1        emailAddress
"""

# RFC 5280 4.2, RFC 7633, RFC 9608.
_EXTENSIONS = """
2.5.29.14                   subjectKeyIdentifier
2.5.29.15                   keyUsage
2.5.29.17                   subjectAltName SAN
2.5.29.18                   issuerAltName
2.5.29.19                   basicConstraints
2.5.29.30                   nameConstraints
2.5.29.31                   cRLDistributionPoints
2.5.29.32                   certificatePolicies
2.5.29.35                   authorityKeyIdentifier
2.5.29.36                   policyConstraints
2.5.29.37                   extendedKeyUsage extKeyUsage
2.5.29.54                   inhibitAnyPolicy
2.5.29.56                   noRevAvail
1.3.6.1.5.5.7.1.1           authorityInfoAccess
1.3.6.1.5.5.7.1.11          subjectInfoAccess
1.3.6.1.5.5.7.1.24          tlsfeature
"""

# RFC 5280 4.2.1.12, RFC 6402 2.10.
_PURPOSES = """
1.3.6.1.5.5.7.3.1           serverAuth
1.3.6.1.5.5.7.3.2           clientAuth
1.3.6.1.5.5.7.3.3           codeSigning
1.3.6.1.5.5.7.3.4           emailProtection
1.3.6.1.5.5.7.3.8           timeStamping
1.3.6.1.5.5.7.3.9           OCSPSigning
1.3.6.1.5.5.7.3.17          ipsecIKE
1.3.6.1.5.5.7.3.27          cmcCA
1.3.6.1.5.5.7.3.28          cmcRA
2.5.29.37.0                 anyExtendedKeyUsage
"""

# Keys with parameters: RFC 3279 2.3.
_KEYS = """
1.2.840.10045.2.1           ecPublicKey id-ecPublicKey
1.2.840.113549.1.1.1        rsaEncryption
"""

# One OID for key and signature, no parameters: RFC 8410, RFC 9881.
_PLAIN_KEYS = """
1.3.101.112                 ed25519 id-Ed25519
1.3.101.113                 ed448 id-Ed448
2.16.840.1.101.3.4.3.17     ml-dsa-44 id-ml-dsa-44
2.16.840.1.101.3.4.3.18     ml-dsa-65 id-ml-dsa-65
2.16.840.1.101.3.4.3.19     ml-dsa-87 id-ml-dsa-87
"""

# RFC 5480 2.1.1.1, RFC 5639.
_CURVES = """
1.2.840.10045.3.1.7         P-256 prime256v1 secp256r1
1.3.132.0.34                P-384 secp384r1
1.3.132.0.35                P-521 secp521r1
1.3.132.0.33                P-224 secp224r1
1.3.36.3.3.2.8.1.1.7        brainpoolP256r1
1.3.36.3.3.2.8.1.1.11       brainpoolP384r1
1.3.36.3.3.2.8.1.1.13       brainpoolP512r1
"""

# RFC 5758, RFC 8017 appendix C, RFC 4055.
_SIGNATURES = """
1.2.840.10045.4.3.2         ecdsa-with-SHA256
1.2.840.10045.4.3.3         ecdsa-with-SHA384
1.2.840.10045.4.3.4         ecdsa-with-SHA512
1.2.840.113549.1.1.11       sha256WithRSAEncryption
1.2.840.113549.1.1.12       sha384WithRSAEncryption
1.2.840.113549.1.1.13       sha512WithRSAEncryption
1.2.840.113549.1.1.10       rsassaPss id-RSASSA-PSS
"""

_DIGESTS = """
2.16.840.1.101.3.4.2.1      sha256 SHA-256
2.16.840.1.101.3.4.2.2      sha384 SHA-384
2.16.840.1.101.3.4.2.3      sha512 SHA-512
2.16.840.1.101.3.4.2.8      sha3-256
2.16.840.1.101.3.4.2.9      sha3-384
2.16.840.1.101.3.4.2.10     sha3-512
"""


def _rows(*tables: str) -> dict[str, list[str]]:
    return {oid: names for table in tables for oid, *names in map(str.split, table.strip().splitlines())}


NAME_PARTS: Mapping[str, str] = {name: oid for oid, names in _rows(_NAMES).items() for name in names}
"""OIDs of the attributes of a distinguished name, by name."""
KEYS = frozenset(_rows(_KEYS, _PLAIN_KEYS))
PLAIN_KEYS: Mapping[str, str] = {oid: names[0] for oid, names in _rows(_PLAIN_KEYS).items()}
CURVES: Mapping[str, str] = {oid: names[0] for oid, names in _rows(_CURVES).items()}
SIGNATURES = frozenset(_rows(_SIGNATURES, _DIGESTS, _PLAIN_KEYS))
"""OIDs that say how a CSR is to be signed: a signature algorithm, or a digest alone."""
DIGESTS: Mapping[str, str] = {names[0]: oid for oid, names in _rows(_DIGESTS).items()}

_ALL = _rows(_ATTRIBUTES, _NAMES, _EXTENSIONS, _PURPOSES, _KEYS, _PLAIN_KEYS, _CURVES, _SIGNATURES, _DIGESTS)
_OIDS = {name.lower(): oid for oid, names in _ALL.items() for name in names}


def name_of(oid: str) -> str:
    """The name of an object identifier (dotted), or its dotted form if the tables lack it."""
    return _ALL[oid][0] if oid in _ALL else oid


def oid_of(text: str) -> str:
    """Return the dotted form of a name, in any case, or a dotted form as it is.

    Raises `Malformed` with the nearest known name.
    """
    found = _OIDS.get(text.lower())
    if found is not None:
        return found
    if text[:1].isdigit() and "." in text:
        encode_oid(text)
        return text
    import difflib  # for a mistyped name alone

    near = difflib.get_close_matches(text.lower(), _OIDS, n=1)
    hint = f"do you mean {name_of(_OIDS[near[0]])}?" if near else "give it as a dotted number"
    raise Malformed(f"{text[:80]!r} is no name known here; {hint}")


def curve_of(text: str) -> str:
    """Return the dotted form of a curve.  Raises `Malformed` for the name of anything else."""
    found = oid_of(text)
    if found in _ALL and found not in CURVES:
        raise Malformed(f"{text[:80]!r} is no curve; there are {', '.join(CURVES.values())}")
    return found
