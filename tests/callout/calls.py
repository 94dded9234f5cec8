"""Calls to be made: one with everything that a request can have, and the simplest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509

from estgw.auth.http import Credentials
from estgw.auth.identity import Client, Trust
from estgw.auth.pop import POP
from estgw.callout.call import Call, InnerRules
from estgw.est import certs
from estgw.est.binding import Binding, BindingType
from estgw.est.bounds import NameBounds
from estgw.est.csr import OTP_CHALLENGE, REVOCATION_CHALLENGE, parse
from estgw.est.operations import OPERATIONS, Profile
from estgw.tls.info import TLSInfo
from tests.kit.ca import CLIENT_AUTH, certificate, name, root
from tests.kit.csr import challenge, csr, san
from tests.kit.der import UTF8, attribute, tlv

CA = root("Test CA")
SUB = CA.sub("Sub CA")
CERTIFICATE = certificate(
    CA,
    "CN=device-1,O=Ours",
    x509.ExtendedKeyUsage([CLIENT_AUTH, certs.CMC_RA]),
    x509.SubjectAlternativeName(
        [
            x509.DNSName("one.example"),
            x509.RFC822Name("ann@example.org"),
            x509.DNSName("two.example"),
            x509.RFC822Name("bob@example.org"),
        ]
    ),
    serial=0xABC,
)
BINDING = Binding(BindingType.TLS_UNIQUE, bytes(range(12)))
CSR = csr(
    name("CN=device-1,O=Ours"),
    challenge(BINDING.text),
    san(x509.DNSName("one.example"), x509.RFC822Name("ann@example.org")),
    attribute(OTP_CHALLENGE, tlv(UTF8, b"90503846")),
    attribute(REVOCATION_CHALLENGE, tlv(UTF8, b"please revoke")),
)


def tls(certificate: x509.Certificate | None = None, **changes: Any) -> TLSInfo:
    """A TLS 1.2 connection."""
    info = TLSInfo(
        version="TLSv1.2",
        cipher="ECDHE-ECDSA-AES128-GCM-SHA256",
        server_name="est.example",
        certificate=certificate,
        bindings={BINDING.type: BINDING},
    )
    return replace(info, **changes)


def client(**changes: Any) -> Client:
    """Somebody of whom nothing is known."""
    return replace(Client("192.0.2.7", 40000, tls()), **changes)


KNOWN = client(
    tls=tls(CERTIFICATE, chain=(SUB.certificate,), verified_chain=(CERTIFICATE, CA.certificate)),
    certificate=CERTIFICATE,
    trust=Trust.EXPLICIT,
    is_ra=True,
    claimed=Credentials("Basic", "ann", "secret"),
    user="ann",
)
"""Somebody with everything: a certificate, a chain, a password."""


def plain(directory: Path, operation: str = "cacerts", **changes: Any) -> Call:
    """The least that a call can have."""
    return replace(
        Call(
            request_id="0123456789",
            operation=OPERATIONS[operation],
            label=None,
            profile=Profile.RFC,
            client=client(),
            ca_dir=Path("/srv/ca"),
            tmp_dir=directory,
            timeout=30,
            search_path="/usr/local/bin:/usr/bin:/bin",
            method=OPERATIONS[operation].method,
            script_name=f"/.well-known/est/{operation}",
            query="",
            server_name="localhost",
            server_port=8443,
        ),
        **changes,
    )


def full(directory: Path, operation: str = "simplereenroll", **changes: Any) -> Call:
    """A call in which everything is set; its files are written."""
    call = plain(
        directory,
        operation,
        label="iot",
        profile=Profile.DRAFT,
        client=KNOWN,
        query="a=b&c",
        content_type="application/pkcs10; x=y",
        body=CSR,
        headers={"User-Agent": "curl/8", "X-Forwarded-For": "192.0.2.9"},
        handler_env={"POLICY": "strict"},
        binding=BINDING,
        csr=parse(CSR),
        pop=POP.LINKED,
        pop_required=True,
        renewed=CERTIFICATE,
        inner=InnerRules("required", Path("/srv/authorize"), Path("/srv/template.yaml"), True, NameBounds()),
        timeout=12.7,
    )
    call = replace(call, **changes)
    for path, content in call.files():
        path.write_bytes(content)
    return call
