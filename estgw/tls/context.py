"""Make an OpenSSL context for the server from the settings: TLS 1.2 and 1.3, without resumption."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from OpenSSL import SSL, crypto

from estgw.errors import ConfigError
from estgw.est.names import dn_text
from estgw.tls.adapter import TLSContext, error_words
from estgw.tls.handshake import Verification
from estgw.tls.rehearsal import Rehearsal

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

_CIPHERS_12 = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AESCCM:!AESCCM8:!aNULL"
"""TLS 1.2: forward secrecy and AEAD only (RFC 9325 4.2); TLS 1.3 has nothing else."""

_MAX_INTERMEDIATES = 8
"""Real hierarchies have fewer, and each costs a signature check before the client is authenticated.  OpenSSL bounds the
size of a client's certificates: 100 kB, enough for a dozen ML-DSA-87 certificates."""

# Numbers of OpenSSL's stable interface without a name in pyOpenSSL.
_UNABLE_TO_GET_CRL = 3  # X509_V_ERR_UNABLE_TO_GET_CRL
_CRL_NOT_YET_VALID = 11  # X509_V_ERR_CRL_NOT_YET_VALID
_CRL_HAS_EXPIRED = 12  # X509_V_ERR_CRL_HAS_EXPIRED
_MODE_NO_AUTO_CHAIN = 8  # SSL_MODE_NO_AUTO_CHAIN

_LONGEST_NAME = 200
"""Characters of a CA's name in words for a client."""


@dataclass(frozen=True)
class TLSSettings:
    """The settings for TLS."""

    certificate: Path
    """PEM: the server's certificate, then its chain."""
    key: Path
    minimum: Literal["1.2", "1.3"] = "1.2"
    maximum: Literal["1.2", "1.3"] = "1.3"
    anchors: tuple[x509.Certificate, ...] = ()
    """The explicit and the implicit trust anchors (RFC 7030 1.1) together: CA certificates, self-signed or not."""
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    """Certificates are checked for revocation if their issuer has one of these CRLs."""
    reject_unknown: bool = False
    """Whether the handshake fails for a client whose certificate does not verify."""


def server_context(settings: TLSSettings) -> TLSContext:
    """Return the context for new handshakes.  Raises `ConfigError` if certificate and key can't be used."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.minimum])
    context.set_max_proto_version(_VERSIONS[settings.maximum])
    context.set_cipher_list(_CIPHERS_12)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 34 kB less per idle connection
    # The server sends the chain in its file, not one that OpenSSL would build from the anchors for clients.
    context.set_mode(_MODE_NO_AUTO_CHAIN)
    # The verify callback does not run for a resumed session, so an unknown client would seem to be verified.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    # A renegotiation would change tls-unique during a request (RFC 5929 3.1).
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    _load_identity(context, settings.certificate, settings.key)
    _trust(context, settings)
    return TLSContext(context, Rehearsal(partial(_trust, settings=settings), settings.anchors, settings.crls))


def _load_identity(context: SSL.Context, certificate: Path, key: Path) -> None:
    _read(certificate)
    if b"ENCRYPTED" in _read(key):  # in PKCS#8 and in the older form; OpenSSL would ask at the terminal
        raise ConfigError([f"{key}: the key is encrypted; give the server one without a passphrase"])
    mismatch = ConfigError([f"{key}: is not the key of {certificate}"])
    try:
        context.use_certificate_chain_file(certificate)
    except SSL.Error as exc:
        raise ConfigError([f"{certificate}: no usable certificate in PEM: {error_words(exc)}"]) from None
    try:
        context.use_privatekey_file(key)
    except SSL.Error as exc:
        if "mismatch" in error_words(exc):
            raise mismatch from None
        raise ConfigError([f"{key}: no usable private key in PEM: {error_words(exc)}"]) from None
    try:
        context.check_privatekey()
    except SSL.Error:  # the key is of another kind than the certificate's
        raise mismatch from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError([f"{path}: can't be read: {exc.strerror}"]) from None


def _trust(context: SSL.Context, settings: TLSSettings) -> None:
    store = context.get_cert_store()
    assert store is not None  # every context has one
    for anchor in settings.anchors:
        store.add_cert(crypto.X509.from_cryptography(anchor))
    for crl in settings.crls:
        store.add_crl(crl)
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN  # a sub-CA may be an anchor
    if settings.crls:
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)
    context.set_verify_depth(_MAX_INTERMEDIATES)
    # Each handshake requests a certificate and none requires it: RFC 7030 4.1 lets every client fetch /cacerts, and
    # each operation has its own requirement.  The request has no list of CA names, since clients with a certificate of
    # another CA would then not send it.
    context.set_verify(SSL.VERIFY_PEER, _verify_callback(settings))


def _verify_callback(settings: TLSSettings) -> Any:
    crl_issuers = frozenset(crl.issuer for crl in settings.crls)

    def verify(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int) -> bool:
        """Return whether to go on.  OpenSSL calls this for each fault (`ok` is 0) and each certificate without one."""
        if ok:
            return True
        if error == _UNABLE_TO_GET_CRL and not _issued_by(certificate, crl_issuers):
            return True  # if it checks one CRL, OpenSSL requires CRLs of all CAs
        record: Verification = connection.get_app_data()
        record.record(error, depth, _crl_words(error, certificate, settings.crls))
        return not settings.reject_unknown

    return verify


def _crl_words(error: int, certificate: crypto.X509, crls: tuple[x509.CertificateRevocationList, ...]) -> str:
    """For a CRL that is over, and so refuses everybody: whose it is, since when, and what helps.  Else empty."""
    if error not in (_CRL_HAS_EXPIRED, _CRL_NOT_YET_VALID):
        return ""
    mine = [crl for crl in crls if _issued_by(certificate, frozenset({crl.issuer}))]
    moments = [crl.last_update_utc if error == _CRL_NOT_YET_VALID else crl.next_update_utc for crl in mine]
    edge = max((f"{moment:%Y-%m-%d %H:%M} UTC" for moment in moments if moment is not None), default="an unknown time")
    issuers = sorted({dn_text(crl.issuer)[:_LONGEST_NAME] for crl in mine})
    verb = "begins" if error == _CRL_NOT_YET_VALID else "ended"
    return (
        f"the server's CRL of {' or '.join(issuers) or 'this CA'} {verb} at {edge}, and until the server has a current "
        "one, every certificate of this CA is refused"
    )


def _issued_by(certificate: crypto.X509, names: frozenset[x509.Name]) -> bool:
    """Whether one of `names` issued the certificate.  True for a certificate that can't be parsed."""
    try:
        return certificate.to_cryptography().issuer in names
    except Exception:  # noqa: BLE001  # pyOpenSSL would raise it in another connection
        return True
