"""Input from peers of the gateway: requests, certificates, HTTP, and the environment made of them."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from yarl import URL

from estgw.auth import digest, http, pop
from estgw.auth.digest import Digest, Nonces
from estgw.auth.identity import Anchors, Client, Trust, identify
from estgw.auth.pop import POP
from estgw.auth.pop_rules import Rules
from estgw.config import csrattrs_yaml, loading, model, routes
from estgw.errors import BadRequest, Malformed, NotFound, RequestError, Unauthenticated
from estgw.est import ber, certs, encoding, keygen, names, operations
from estgw.est import csr as csrs
from estgw.est.bounds import NameBounds
from estgw.est.csr import CSR
from estgw.est.operations import OPERATIONS, Profile
from estgw.gateway import request as requests
from estgw.tls.adapter import TLSContext
from estgw.tls.context import TLSSettings, server_context
from estgw.tls.handshake import Verification, read_info
from tests.callout import calls
from tests.fuzz import checks, mutator
from tests.fuzz.checks import DIRECTORY, EC_KEY, check_environment, only, written
from tests.kit.ca import root
from tests.kit.connection import EST
from tests.kit.csr import csr as csr_of
from tests.kit.der import UTF8, attribute, tlv
from tests.kit.processes import ROOT

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
_target = functools.partial(checks.target, TARGETS)

_ENROLL = routes.build(loading.load(ROOT / "conf.yaml"))[None].routes["simpleenroll"]
_INSIST = csrattrs_yaml.load_template_check(Path(__file__).parent / "insist.yaml")
_LINKING = Rules(
    model.POP.model_validate(
        {
            "rules": [
                {"pop": "waived", "subject": "CN=ra*,O=*", "trust": "explicit"},
                {"pop": "required", "issuer": "CN=*", "address": "192.0.2.0/24"},
            ]
        },
        strict=False,
    ).rules,
    "optional",
)


# Encodings, and BER.


@_target(Malformed, seeds="*.b64")
def body(data: bytes) -> None:
    with only(Malformed):
        encoding.pem_blocks(data)
    der = encoding.decode(data, ())
    assert der[:1] == b"\x30" or b"-----BEGIN" in data
    assert encoding.decode_base64(encoding.encode_base64(der)) == der
    assert encoding.decode(encoding.encode_pem(der, "X"), ("X",)) == der


@_target(Malformed, seeds="*.der")
def to_der(data: bytes) -> None:
    der = ber.to_der(data)
    assert ber.to_der(der) == der


# Requests for certificates.


@_target(Malformed, seeds="*request*")
def csr(data: bytes) -> None:
    found = csrs.parse(data)
    again = csrs.parse(found.pem)
    assert (again.der, again.spki_sha256) == (found.der, found.spki_sha256)
    steps: tuple[Callable[[CSR], object], ...] = (
        csrs.verify,
        csrs.require_subject,
        keygen.wish,
        lambda it: csrs.difference(it, calls.CERTIFICATE),
        lambda it: names.require_sound(it.san),
        lambda it: NameBounds().require(it.subject, it.san),
        lambda it: _INSIST.require(it, csrs.change_subject_name(it), proves_key=True),
        lambda it: [it.text_attribute(oid) for oid in it.attributes],
    )
    for step in steps:
        with only(Malformed):
            step(found)
    changed = None
    with only(RequestError):
        changed = requests.new_names(calls.KNOWN, found, replace(_ENROLL, change_subject_name=True))
    with only(Malformed, BadRequest):
        pop.link(found, calls.BINDING, "required", "TLSv1.2", "challengePassword")
    for operation in ("simpleenroll", "simplereenroll", "serverkeygen"):
        call = calls.plain(DIRECTORY, operation, body=data, csr=found, pop=POP.ABSENT, renewed=calls.CERTIFICATE)
        check_environment(calls.change(call, new_names=changed))


# Findings that are too large for a file of the corpus.
TARGETS["csr"][1].extend(
    (
        csr_of("a" + "\u0301\u0316" * 24_000),
        csr_of("x", attribute("2.999.1", *(tlv(UTF8, b"%05d" % each) for each in range(14_000)))),
    )
)


@_target(Malformed)
def certificate(data: bytes) -> None:
    """A TLS client's certificate, whatever OpenSSL thinks of it."""
    found = certs.load(data)
    certs.require_names(found)
    for trust in Trust:
        chain = (found, calls.CA.certificate) if trust is not Trust.NONE else ()
        tls = calls.tls(found, chain=(found, calls.CA.certificate), verified_chain=chain)
        _check_client(Client("192.0.2.7", 40000, tls, found, trust, certs.has_eku(found, certs.CMC_RA)))


def _check_client(client: Client) -> None:
    """All uses of a certificate, with any kind of trust."""
    _ = client.name, client.verify, client.methods, client.why_not
    asked, found = csrs.parse(calls.CSR), client.certificate
    _LINKING.linking(client, "simpleenroll", None)
    if found is not None:
        csrs.difference(asked, found)
    with only(RequestError):
        requests.new_names(client, asked, _ENROLL)
    check_environment(calls.plain(DIRECTORY, "simpleenroll", client=client, csr=asked, renewed=found))


@_target(SSL.Error)
def handshake(data: bytes) -> None:
    """A client's certificate in a handshake. Our CA signs any content."""
    anchor, server_side = _server()
    match mutator.read(data):
        case [mutator.Node(children=[info, algorithm, _])]:
            signature = EC_KEY.sign(info.encode(), ec.ECDSA(hashes.SHA256()))
            data = tlv(0x30, info.encode(), algorithm.encode(), tlv(3, b"\0", signature))
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        with written(encoding.encode_pem(data, "CERTIFICATE")) as file:
            context.use_certificate_file(str(file))
        context.use_privatekey(EC_KEY)
    except SSL.Error:
        return  # OpenSSL's own client would not send it
    record = Verification()
    ends = [SSL.Connection(server_side.openssl, None), SSL.Connection(context, None)]
    ends[0].set_app_data(record)
    ends[0].set_accept_state()
    ends[1].set_connect_state()
    for here, there in (ends[::-1], ends) * 3:
        with contextlib.suppress(SSL.WantReadError):
            here.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            there.bio_write(here.bio_read(100_000))
    _check_client(identify(("192.0.2.7", 40000), read_info(ends[0], record), Anchors([anchor], []), "pass"))


@functools.cache
def _server() -> tuple[x509.Certificate, TLSContext]:
    """An anchor whose key is `EC_KEY`, and a TLS server that trusts it."""
    ca = root("Fuzz CA", key=EC_KEY)
    with tempfile.TemporaryDirectory() as directory:
        return ca.certificate, server_context(TLSSettings(*ca.write(Path(directory), "ca"), anchors=(ca.certificate,)))


# HTTP.


@_target(Unauthenticated)
def authorization(data: bytes) -> None:
    nonces = Nonces()
    header = _header(data.replace(b"NONCE", nonces.make().encode()))
    claimed = http.parse([header])
    assert claimed is not None
    assert not any(ord(char) < 0x20 or ord(char) == 0x7F for char in claimed.username + (claimed.password or ""))
    assert "secret" not in repr(claimed).replace(claimed.username, "")
    if claimed.response is not None:
        hashes = {("ann", name): digest.ha1(name, "ann", "estrealm", "secret") for name in digest.ALGORITHMS}
        verifier = Digest("estrealm", tuple(digest.ALGORITHMS), hashes, nonces, 300)
        with only(BadRequest):
            verifier.verify(claimed.response, "GET", (f"{EST}/simpleenroll",))
        verifier.verify(claimed.response, "GET", (claimed.response.uri,))


@_target(NotFound, BadRequest)
def path(data: bytes) -> None:
    raw = _header(data)
    media_type, _, raw_path = raw.rpartition(" ")
    operations.twins(raw_path, "iot")
    with only(RequestError):
        operations.check_media_type(OPERATIONS["simpleenroll"], media_type, Profile.RFC)
    assert operations.decode_path(raw_path).isprintable()
    found = operations.resolve(raw_path, {"iot"}, {"crl"})
    assert found.label in (None, "iot")
    assert found.operation in {*OPERATIONS, "crl"}
    assert operations.profile_of(found, media_type, "auto") in Profile


@_target(BadRequest, Unauthenticated)
def request(data: bytes) -> None:
    """The environment made from a request's own text: one part a line, and the rest is the body."""
    words = [_header(line) for line in data.split(b"\n", 6)]
    target, content_type, agent, authorization, name, label, content = [*words, *[""] * 7][:7]
    url = URL(target.encode("utf-8", "surrogateescape").decode("latin-1"), encoded=True)
    claimed = http.parse([authorization] if authorization else [])
    call = calls.plain(
        DIRECTORY,
        "fullcmc",
        label="iot" if label else None,
        raw_path=url.raw_path,
        query=url.raw_query_string,
        body=content.encode("utf-8", "surrogateescape"),
        headers=(("Content-Type", content_type), ("User-Agent", agent)),
        pass_headers=("User-Agent",),
        handler_env={"POLICY": "strict"},
        pass_credentials=True,
        client=calls.client(
            tls=calls.tls(server_name=name.encode("utf-8", "surrogateescape").decode("ascii", "backslashreplace")),
            claimed=claimed,
            user=claimed.username if claimed else None,
        ),
    )
    check_environment(call)


def _header(data: bytes) -> str:
    """The form in which aiohttp passes on bytes that are not UTF-8."""
    return data.decode("utf-8", "surrogateescape")
