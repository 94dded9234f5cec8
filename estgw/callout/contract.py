"""The contract between gateway and script, version 1, as data: the environment.

`handlers/README.md` is generated from `ENV_VARS`, and from `verdicts.EXIT_STATUS`; a test compares the two.  Pure
functions: nothing here starts a process or touches a file.

It is CGI/1.1 (RFC 3875), Apache mod_ssl's names, a small EST_* set and the one name that the reference server of
2012 is known to have used, TLS_UNIQUE_SR.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from estgw import __version__
from estgw.callout.call import Call, CSRFacts, Enclosure, InnerRules
from estgw.errors import Malformed
from estgw.est import certs, encoding, names
from estgw.est.csr import CSR, OTP_CHALLENGE, REVOCATION_CHALLENGE
from estgw.est.keygen import Wish

VERSION = "1"

MAXIMUM_REQUEST = 96 * 1024
"""Longer requests come on standard input only; EST_REQUEST is then unset."""


Value = str | list[str] | Mapping[str, str] | None


@dataclass(frozen=True)
class EnvVar:
    """One row of the environment.

    `name` may end in `_n` for a numbered family, or be a pattern in angle brackets; `value` computes the text,
    the list of a family, a mapping of whole names, or None for "does not apply", which leaves it unset.
    """

    group: str
    name: str
    meaning: str
    when: str
    value: Callable[[Call], Value]
    passing: bool = False
    """Whether it identifies one request or one connection, so that it is left out of the cache's key."""
    by_kind: bool = False
    """Whether it differs between the callouts of one request."""


def _flag(value: object) -> str:
    return "1" if value else "0"


def openssl_time(moment: datetime) -> str:
    """A time as OpenSSL prints it, such as `Nov  3 08:00:00 2026 GMT`, whatever the locale."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{months[moment.month - 1]} {moment.day:2d} {moment:%H:%M:%S} {moment.year} GMT"


def _certificate(get: Callable[[x509.Certificate], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.client.certificate) if call.client.certificate else None


def _csr(get: Callable[[CSR], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.csr.pkcs10) if call.csr else None


def _asked(get: Callable[[CSRFacts], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.csr) if call.csr else None


def _body(get: Callable[[Call], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call) if call.route.operation.takes_body else None


def _verified(get: Callable[[Call], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call) if call.client.user is not None else None


def _claimed(get: Callable[[Call], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call) if call.client.claimed and call.shows_credentials else None


def _san_values(kind: type[x509.DNSName | x509.RFC822Name]) -> Callable[[Call], Value]:
    return _certificate(
        lambda certificate: [
            names.escape_controls(entry.value) for entry in certs.san(certificate) or () if isinstance(entry, kind)
        ]
    )


def _request(call: Call) -> Value:
    """The body as base64 without white space, whether it arrived as PEM, DER or base64."""
    if call.csr:
        text = base64.b64encode(call.csr.pkcs10.der).decode()
    else:
        try:
            der = encoding.decode(call.http.body, ("CMS", "PKCS7"))
        except Malformed:
            der = call.http.body
        text = base64.b64encode(der).decode()
    return text if len(text) <= MAXIMUM_REQUEST else None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _keygen(get: Callable[[Wish], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.keygen) if call.keygen else None


def _inner(get: Callable[[InnerRules], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.inner) if call.inner else None


def _enclosure(get: Callable[[Enclosure], Value]) -> Callable[[Call], Value]:
    return lambda call: get(call.enclosure) if call.enclosure else None


def _reenroll(csr: CSRFacts) -> Value:
    if csr.renewed is None:
        return None
    same = hashlib.sha256(certs.spki(csr.renewed)).hexdigest() == csr.pkcs10.spki_sha256
    return "renew" if same else "rekey"


def _headers(call: Call) -> Value:
    given = ((name, call.http.header(name)) for name in call.route.pass_headers)
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in given if value is not None}


_ALWAYS, _CERT, _PKCS10 = "always", "client certificate", "the operation takes a PKCS#10"
_HTTP, _SAN = "HTTP authentication succeeded", "the CSR asks for a SAN"
_KEYGEN = "serverkeygen, and the CSR wants the key encrypted"
_INNER, _ENCLOSED = "fullcmc", "`authorize` for a request inside a Full PKI Request"
_BINDING, _CLAIMED = "a binding is in force", "`pass_credentials`, or draft profile"

ENV_VARS: tuple[EnvVar, ...] = (
    EnvVar("CGI/1.1", "GATEWAY_INTERFACE", "`CGI/1.1`", _ALWAYS, lambda c: "CGI/1.1"),
    EnvVar("CGI/1.1", "SERVER_SOFTWARE", "`estgw/<version>`", _ALWAYS, lambda c: f"estgw/{__version__}"),
    EnvVar("CGI/1.1", "SERVER_NAME", "the name in the configuration", _ALWAYS, lambda c: c.http.server_name),
    EnvVar("CGI/1.1", "SERVER_PORT", "the port of this connection", _ALWAYS, lambda c: str(c.http.server_port)),
    EnvVar("CGI/1.1", "SERVER_PROTOCOL", "`HTTP/1.1`", _ALWAYS, lambda c: "HTTP/1.1"),
    EnvVar("CGI/1.1", "REQUEST_METHOD", "`GET` or `POST`", _ALWAYS, lambda c: c.http.method),
    EnvVar("CGI/1.1", "SCRIPT_NAME", "the path, percent-decoded", _ALWAYS, lambda c: c.http.path),
    EnvVar("CGI/1.1", "QUERY_STRING", "the raw query, or empty", _ALWAYS, lambda c: c.http.query),
    EnvVar("CGI/1.1", "CONTENT_TYPE", "as received", "POST, and the client sent one",
           _body(lambda c: c.http.header("Content-Type"))),
    EnvVar("CGI/1.1", "CONTENT_LENGTH", "bytes on standard input", "POST", _body(lambda c: str(len(c.http.body)))),
    EnvVar("CGI/1.1", "REMOTE_ADDR", "the client's address", _ALWAYS, lambda c: c.client.address),
    EnvVar("CGI/1.1", "REMOTE_PORT", "the client's port", _ALWAYS, lambda c: str(c.client.port), passing=True),
    EnvVar("CGI/1.1", "AUTH_TYPE", "`Basic` or `Digest`", _HTTP,
           _verified(lambda c: c.client.claimed.scheme if c.client.claimed else None)),
    EnvVar("CGI/1.1", "REMOTE_USER", "the verified user name, which may be empty", _HTTP,
           _verified(lambda c: c.client.user)),
    EnvVar("CGI/1.1", "HTTP_<NAME>", "a header's value", "listed in `pass_headers`", _headers),
    EnvVar("mod_ssl", "HTTPS", "`on`", _ALWAYS, lambda c: "on"),
    EnvVar("mod_ssl", "SSL_PROTOCOL", "`TLSv1.2` or `TLSv1.3`", _ALWAYS, lambda c: c.client.tls.version),
    EnvVar("mod_ssl", "SSL_CIPHER", "the cipher suite's name", _ALWAYS, lambda c: c.client.tls.cipher),
    EnvVar("mod_ssl", "SSL_TLS_SNI", "the host name asked for in TLS", "sent by the client",
           lambda c: c.client.tls.server_name),
    EnvVar("mod_ssl", "SSL_CLIENT_VERIFY", "`SUCCESS`, `NONE` or `FAILED:<reason>`", _ALWAYS,
           lambda c: c.client.verify),
    EnvVar("mod_ssl", "SSL_CLIENT_CERT", "the client certificate as PEM", _CERT, _certificate(_pem)),
    EnvVar("mod_ssl", "SSL_CLIENT_CERT_CHAIN_n", "what the client sent above it, PEM each", _CERT,
           lambda c: [_pem(issuer) for issuer in c.client.tls.chain] if c.client.certificate else None),
    EnvVar("mod_ssl", "SSL_CLIENT_S_DN", "its subject", _CERT, _certificate(lambda x: names.dn_text(x.subject))),
    EnvVar("mod_ssl", "SSL_CLIENT_I_DN", "its issuer", _CERT, _certificate(lambda x: names.dn_text(x.issuer))),
    EnvVar("mod_ssl", "SSL_CLIENT_S_DN_CN", "the most specific common name of its subject", f"{_CERT} with a CN",
           _certificate(lambda x: names.common_name(x.subject))),
    EnvVar("mod_ssl", "SSL_CLIENT_M_SERIAL", "its serial number", _CERT, _certificate(certs.serial_hex)),
    EnvVar("mod_ssl", "SSL_CLIENT_V_START", "valid from, as OpenSSL prints it", _CERT,
           _certificate(lambda x: openssl_time(x.not_valid_before_utc))),
    EnvVar("mod_ssl", "SSL_CLIENT_V_END", "valid until, as OpenSSL prints it", _CERT,
           _certificate(lambda x: openssl_time(x.not_valid_after_utc))),
    EnvVar("mod_ssl", "SSL_CLIENT_SAN_DNS_n", "its DNS names, one each", "present in the certificate",
           _san_values(x509.DNSName)),
    EnvVar("mod_ssl", "SSL_CLIENT_SAN_Email_n", "its e-mail addresses, one each", "present in the certificate",
           _san_values(x509.RFC822Name)),
    EnvVar("reference server", "TLS_UNIQUE_SR",
           "base64 of this connection's channel binding: what a client puts into challengePassword (RFC 7030 3.5)",
           _BINDING, lambda c: c.channel.binding.text if c.channel.binding else None, passing=True),
    EnvVar("EST", "EST_CONTRACT", f"`{VERSION}`, the version of this contract", _ALWAYS, lambda c: VERSION),
    EnvVar("EST", "EST_REQUEST_ID", "short random id, in every log line and in 5xx texts", _ALWAYS,
           lambda c: c.exchange.request_id, passing=True),
    EnvVar("EST", "EST_OPERATION", "the operation's canonical name", _ALWAYS, lambda c: c.route.operation.name),
    EnvVar("EST", "EST_LABEL", "the CA label", "a label in the URL", lambda c: c.route.label),
    EnvVar("EST", "EST_PROFILE", "`rfc` or `draft`", _ALWAYS, lambda c: c.profile.value),
    EnvVar("EST", "EST_CA_DIR", "directory of the CA that serves this label", _ALWAYS, lambda c: str(c.route.ca_dir)),
    EnvVar("EST", "EST_REGISTER", "URL of the CA's register, without a password", "`register` names one",
           lambda c: c.route.register),
    EnvVar("EST", "EST_TMPDIR", "private 0700 directory, shared by the callouts of one request, removed after it",
           _ALWAYS, lambda c: str(c.exchange.tmp_dir), passing=True),
    EnvVar("EST", "EST_TIMEOUT", "whole seconds this callout may take", _ALWAYS,
           lambda c: str(max(1, int(c.timeout))), by_kind=True),
    EnvVar("EST", "EST_REQUEST", "the request body as base64 text, white space removed",
           f"POST, and it fits ({MAXIMUM_REQUEST // 1024} KiB); standard input always has the body", _body(_request)),
    EnvVar("EST", "EST_CSR_FILE", "the CSR as PEM, parsed and its signature checked (serverkeygen: parsed only)",
           _PKCS10, lambda c: str(c.csr_file) if c.csr else None),
    EnvVar("EST", "EST_CSR_SHA256", "SHA-256 of its DER", _PKCS10, _csr(lambda x: x.sha256)),
    EnvVar("EST", "EST_CSR_SUBJECT", "the subject it asks for", _PKCS10,
           _asked(lambda x: names.dn_text(x.subject))),
    EnvVar("EST", "EST_CSR_SAN_n", "the names it asks for, such as `DNS:host.example` or `IP:192.0.2.1`",
           _SAN, _asked(lambda x: [names.san_text(entry) for entry in x.san or ()])),
    EnvVar("EST", "EST_CSR_EXT_SAN",
           "that SAN extension's value, DER in hex: `subjectAltName=DER:...` copies it and nothing else",
           _SAN, _asked(lambda x: x.san.public_bytes().hex() if x.san else None)),
    EnvVar("EST", "EST_CHANGE_SUBJECT",
           "the subject asked for again, as `openssl ca -subj` takes it: the CSR itself still has the old one",
           "the CSR has ChangeSubjectName (RFC 6402), and it is allowed",
           _asked(lambda x: names.openssl_subject(x.new_names.subject) if x.new_names else None)),
    EnvVar("EST", "EST_CSR_SPKI_SHA256", "SHA-256 of its SubjectPublicKeyInfo", _PKCS10, _csr(lambda x: x.spki_sha256)),
    EnvVar("EST", "EST_AUTH_METHODS", "`tls`, `http`, `tls+http` or empty: how the client is authenticated",
           _ALWAYS, lambda c: c.auth_methods),
    EnvVar("EST", "EST_CLIENT_TRUST", "`explicit` (our CA), `implicit` (a third party's) or `none`", _ALWAYS,
           lambda c: c.client.trust.value),
    EnvVar("EST", "EST_CLIENT_IS_RA", "flag: a certificate of our CA with id-kp-cmcRA", _ALWAYS,
           lambda c: _flag(c.client.is_ra)),
    EnvVar("EST", "EST_CLIENT_CERT_FILE", "the client certificate as PEM", _CERT,
           lambda c: str(c.client_certificate_file) if c.client.certificate else None, passing=True),
    EnvVar("EST", "EST_CLIENT_CERT_SHA256", "its SHA-256 fingerprint", _CERT,
           _certificate(lambda x: x.fingerprint(SHA256()).hex())),
    EnvVar("EST", "EST_TLS_BINDING", "`tls-unique`, `tls-exporter` or `tls13-finished`: the type of `TLS_UNIQUE_SR`",
           _BINDING, lambda c: c.channel.binding.type.value if c.channel.binding else None),
    EnvVar("EST", "EST_POP", "`linked`, `absent` (allowed by policy) or `waived` (an RA)", _PKCS10,
           _asked(lambda x: x.pop.value if x.pop else None)),
    EnvVar("EST", "EST_POP_REQUIRED", "flag: clients of this label must link POP, so csrattrs says so", _ALWAYS,
           lambda c: _flag(c.channel.pop_required)),
    EnvVar("EST", "EST_REENROLL", "`renew` (the same key) or `rekey`", "simplereenroll", _asked(_reenroll)),
    EnvVar("EST", "EST_RENEW_CERT_FILE", "the certificate being renewed, PEM", "simplereenroll",
           lambda c: str(c.renewed_file) if c.csr and c.csr.renewed else None),
    EnvVar("EST", "EST_OTP", "RFC 7894 otpChallenge", "present in the CSR",
           _csr(lambda x: x.text_attribute(OTP_CHALLENGE))),
    EnvVar("EST", "EST_REVOCATION_CHALLENGE", "RFC 7894 revocationChallenge", "present in the CSR",
           _csr(lambda x: x.text_attribute(REVOCATION_CHALLENGE))),
    EnvVar("EST", "EST_KEYGEN_PROTECT",
           "`none`, `symmetric` or `asymmetric`: what the new private key is to be encrypted with (RFC 7030 4.4.1)",
           "serverkeygen", _keygen(lambda w: w.protection.value)),
    EnvVar("EST", "EST_KEYGEN_KEY_ID", "the identifier of the key to encrypt with, in hex", _KEYGEN,
           _keygen(lambda w: w.key_id.hex() or None)),
    EnvVar("EST", "EST_KEYGEN_ALGORITHMS",
           "the key encipherment algorithms that the client takes, best first, by OpenSSL's names: "
           "`rsaesOaep:sha256 dhSinglePass-stdDH-sha256kdf-scheme:id-aes256-wrap aes-256-cbc`", _KEYGEN,
           _keygen(lambda w: " ".join(w.algorithms) or None)),
    EnvVar("EST", "EST_PENDING_ID", "names this request: the same for a repeat with a re-signed CSR", _PKCS10,
           lambda c: c.pending_id),
    EnvVar("EST", "EST_POP_LINKING",
           "`required`, `optional` or `waived`: what the rules of `pop` say of this client's simpleenroll", _INNER,
           _inner(lambda r: r.linking)),
    EnvVar("EST", "EST_AUTHORIZE", "the script that decides about each request inside, as if it had come alone",
           f"{_INNER}, and `authorize` names one", _inner(lambda r: str(r.authorize) if r.authorize else None)),
    EnvVar("EST", "EST_CSR_TEMPLATE", "the file that says what each CSR inside must have",
           f"{_INNER}, and `csr_template` names one",
           _inner(lambda r: str(r.csr_template) if r.csr_template else None)),
    EnvVar("EST", "EST_MAY_CHANGE_SUBJECT", "flag: `change_subject_name`, for the requests inside", _INNER,
           _inner(lambda r: _flag(r.change_subject_name))),
    EnvVar("EST", "EST_NAME_BOUNDS",
           "`name_bounds`, `max_subject` and `max_san`, for the requests inside: `rfc5280 4096 16384`", _INNER,
           _inner(lambda r: r.name_bounds.text)),
    EnvVar("EST", "EST_CMC_REQUEST", "the body part id of a request inside a Full PKI Request", _ENCLOSED,
           _enclosure(lambda e: str(e.part))),
    EnvVar("EST", "EST_CMC_IDENTIFICATION", "whose shared secret the message's identity proof rests on",
           f"{_ENCLOSED}, and it rests on one", _enclosure(lambda e: e.identification)),
    EnvVar("EST", "EST_AUTH_SCHEME", "`Basic` or `Digest`, **not verified**", _CLAIMED,
           _claimed(lambda c: c.client.claimed.scheme if c.client.claimed else None), by_kind=True),
    EnvVar("EST", "EST_USERNAME", "the user name as claimed, **not verified**", _CLAIMED,
           _claimed(lambda c: c.client.claimed.username if c.client.claimed else None), by_kind=True),
    EnvVar("EST", "EST_PASSWORD", "the password as claimed, **not verified**", _CLAIMED,
           _claimed(lambda c: c.client.claimed.password if c.client.claimed else None), by_kind=True),
    EnvVar("EST", "EST_REPLAY", "`1`: nothing is issued; the CA is a copy, and effects elsewhere must be left out",
           "`estgw replay`, `estgw watch` and `estgw run --dry-run`", lambda c: "1" if c.exchange.is_replay else None),
    EnvVar("plumbing", "PATH",
           "as configured, short; in front of it the gateway's own virtual environment, if it has one", _ALWAYS,
           lambda c: c.route.search_path),
    # Not LC_ALL, which amounts to the same where no other locale is set: with it each program that a script starts
    # opens the files of twelve categories in place of one, 0.1 ms every time.
    EnvVar("plumbing", "LC_CTYPE", "`C.UTF-8`", _ALWAYS, lambda c: "C.UTF-8"),
    EnvVar("plumbing", "TZ", "`UTC`", _ALWAYS, lambda c: "UTC"),
    EnvVar("plumbing", "TMPDIR", "= `EST_TMPDIR`", _ALWAYS, lambda c: str(c.exchange.tmp_dir), passing=True),
    EnvVar("plumbing", "HOME", "= `EST_TMPDIR`", _ALWAYS, lambda c: str(c.exchange.tmp_dir), passing=True),
    EnvVar("plumbing", "<any>", "literal values", "listed in `handler_env`", lambda c: c.route.handler_env),
)  # fmt: skip
