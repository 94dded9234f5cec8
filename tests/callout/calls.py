"""Two calls: one with everything that a request can have, and the simplest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from estgw.auth.credentials import Credentials
from estgw.auth.identity import Client, Trust
from estgw.auth.pop import POP
from estgw.callout.call import Call, ChannelFacts, CSRFacts, ExchangeFacts, HTTPFacts, InnerRules
from estgw.config import routes
from estgw.config.model import Config
from estgw.config.route import Route
from estgw.est import certs
from estgw.est.binding import Binding, BindingType
from estgw.est.bounds import NameBounds
from estgw.est.csr import CSR as CSR_
from estgw.est.csr import OTP_CHALLENGE, REVOCATION_CHALLENGE, parse
from estgw.est.operations import OPERATIONS, Operation, Profile
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
    """A client of which nothing is known."""
    return replace(Client("192.0.2.7", 40000, tls()), **changes)


PATH = "/usr/local/bin:/usr/bin:/bin"
HEADERS = (
    ("Content-Type", "application/pkcs10; x=y"),
    ("user-agent", "curl/8"),
    ("X-Forwarded-For", "192.0.2.9"),
    ("X-Other", "not passed on"),
)
KNOWN = client(
    tls=tls(CERTIFICATE, chain=(SUB.certificate,), verified_chain=(CERTIFICATE, CA.certificate)),
    certificate=CERTIFICATE,
    trust=Trust.EXPLICIT,
    is_ra=True,
    claimed=Credentials("Basic", "ann", "secret"),
    user="ann",
)
"""A client with everything: a certificate, a chain, a password."""


def route(operation: str | Operation, **changes: Any) -> Route:
    """A route as built from a minimal configuration."""
    known = OPERATIONS[operation] if isinstance(operation, str) else operation
    least = {
        "tls": {"certificate": "c", "key": "k"},
        "callouts": {"handlers": "/srv/handlers", "ca_dir": "/srv/ca"},
    }
    made = routes.build(Config.model_validate(least, context={"base": Path("/")}))[None].routes["cacerts"]
    made = replace(
        made, operation=known, handler=made.handler.with_name(known.name), requires=known.requires, search_path=PATH
    )
    return replace(made, **changes)


def plain(directory: Path, operation: str = "cacerts", **changes: Any) -> Call:
    """The simplest call; `changes` are as in `change`."""
    made = Call(
        exchange=ExchangeFacts("0123456789", directory),
        route=route(operation),
        profile=Profile.RFC,
        client=client(),
        http=HTTPFacts(
            method=OPERATIONS[operation].method,
            target=f"/.well-known/est/{operation}",
            raw_path=f"/.well-known/est/{operation}",
            server_port=8443,
        ),
        channel=ChannelFacts(),
    )
    return change(made, **changes)


def change(call: Call, **changes: Any) -> Call:
    """Return the call with some facts changed, each found by its own name.

    A `csr` that is parsed replaces the one in the CSR facts; a mapping of headers is also passed on to scripts.
    """
    if isinstance(changes.get("csr"), CSR_):
        changes["pkcs10"] = changes.pop("csr")
        call = replace(call, csr=call.csr or CSRFacts(changes["pkcs10"]))
    if "csr" in changes and changes["csr"] is None:
        changes = {key: value for key, value in changes.items() if key not in fields_of(CSRFacts)}
    if isinstance(headers := changes.get("headers"), Mapping):
        changes |= {"headers": tuple(headers.items()), "pass_headers": tuple(headers)}
    groups: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        owner = next((part for part in PARTS if key in fields_of(getattr(call, part))), "")
        groups.setdefault(owner, {})[key] = value
    own = groups.pop("", {})
    changed = {part: replace(getattr(call, part), **values) for part, values in groups.items()}
    return replace(call, **changed, **own)


PARTS = ("exchange", "route", "http", "channel", "csr")


def fields_of(part: object) -> set[str]:
    return {field.name for field in fields(part)} if is_dataclass(part) else set()


def full(directory: Path, operation: str = "simplereenroll", **changes: Any) -> Call:
    """A call in which everything is set. Its files are written."""
    call = plain(
        directory,
        operation,
        label="iot",
        profile=Profile.DRAFT,
        client=KNOWN,
        query="a=b&c",
        body=CSR,
        headers=HEADERS,
        pass_headers=("User-Agent", "X-Forwarded-For", "X-Absent"),
        handler_env={"POLICY": "strict"},
        register="postgresql://ca@db.example/certs",
        binding=BINDING,
        csr=parse(CSR),
        pop=POP.LINKED,
        pop_required=True,
        renewed=CERTIFICATE,
        inner=InnerRules("required", Path("/srv/authorize"), Path("/srv/template.yaml"), True, NameBounds()),
        timeout=12.7,
        is_replay=True,
    )
    call = change(call, **changes)
    for path, content in call.files():
        path.write_bytes(content)
    return call
