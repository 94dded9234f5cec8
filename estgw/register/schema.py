"""The tables of a register, for both engines, and how one of an earlier version becomes one of this version.

Times are UTC in ISO 8601, digests are in hex, DER is that of the certificate or CRL.  A column comes a release before
it is needed and goes a release after, so that two versions of estgw work on one register side by side.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Iterator

from cryptography import x509

from estgw.est import names

VERSION = 2
"""1 had certificates alone, without subject_key and request_key."""

COLUMNS = (
    "serial", "status", "revoked_at", "reason", "subject", "san", "spki_sha256", "not_before", "not_after", "profile",
    "operation", "label", "request_id", "pending_id", "issued_at", "der", "subject_key", "request_key",
)  # fmt: skip
"""Of certificates; `rowid` counts the rows besides."""

_CERTIFICATES = """
CREATE TABLE certificates (
    {rowid}serial text NOT NULL {unique},     -- upper-case hex, as `openssl x509 -serial` prints it
    status       text NOT NULL DEFAULT 'valid' CHECK (status IN ('valid', 'revoked')),
    revoked_at   text,
    reason       text,                       -- why it was revoked, such as keyCompromise
    subject      text NOT NULL,              -- RFC 4514
    san          text NOT NULL,
    spki_sha256  text NOT NULL,
    not_before   text NOT NULL,
    not_after    text NOT NULL,
    profile      text NOT NULL,
    operation    text NOT NULL,
    label        text,
    request_id   text NOT NULL,
    pending_id   text,
    issued_at    text NOT NULL,
    der          {bytes} NOT NULL,
    subject_key  text NOT NULL DEFAULT '',   -- SHA-256 of the folded subject; '' from a program of version 1
    request_key  text                        -- of `once`: EST_PENDING_ID, scripts, profile, lifetime and names
);
CREATE INDEX by_subject ON certificates (subject);
CREATE INDEX by_pending_id ON certificates (pending_id);
"""
_LATER = """
CREATE INDEX by_subject_key ON certificates (subject_key);
CREATE INDEX by_request_key ON certificates (request_key);
CREATE INDEX revoked ON certificates (not_after) WHERE status = 'revoked';
CREATE TABLE kept (                          -- what fullcmc remembers between requests
    kind   text NOT NULL,
    key    text NOT NULL,
    value  {bytes} NOT NULL,
    until  bigint NOT NULL,                  -- seconds since 1970
    owner  text NOT NULL DEFAULT '',         -- the client whose row it is, where a bound counts
    PRIMARY KEY (kind, key)
);
CREATE INDEX by_end ON kept (until);
CREATE INDEX by_owner ON kept (kind, owner, until);
CREATE TABLE requests (                      -- requests that wait for a person (RFC 7030 4.2.3)
    id      text PRIMARY KEY,                -- EST_PENDING_ID
    state   text NOT NULL CHECK (state IN ('waiting', 'approved', 'issued', 'refused')),
    facts   text NOT NULL,                   -- variables of the contract by name, as JSON
    csr     text NOT NULL,                   -- PEM
    owner   text NOT NULL,                   -- the client, where a bound counts
    reason  text,                            -- of a refusal, for the client
    serial  text REFERENCES certificates (serial),
    since   text NOT NULL,
    changed text NOT NULL
);
CREATE INDEX by_state ON requests (state, owner);
CREATE INDEX by_change ON requests (changed);
CREATE TABLE crls (
    number      bigint PRIMARY KEY,          -- cRLNumber (RFC 5280 5.2.3)
    this_update text NOT NULL,
    next_update text NOT NULL,
    der         {bytes} NOT NULL
);
"""

SQLITE = (
    f"PRAGMA journal_mode = WAL;\nPRAGMA user_version = {VERSION};"
    + _CERTIFICATES.format(rowid="", unique="PRIMARY KEY", bytes="blob")
    + _LATER.format(bytes="blob")
)
POSTGRESQL = (
    _CERTIFICATES.format(
        rowid="rowid bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n    ", unique="UNIQUE", bytes="bytea"
    )
    + _LATER.format(bytes="bytea")
    + f"CREATE TABLE version (number integer NOT NULL);\nINSERT INTO version VALUES ({VERSION});\n"
)
"""For the schema that the role's search_path names."""


class WrongVersion(Exception):
    """The register is of a version that this program does not know; the text says what to do."""


def require_known(version: int) -> None:
    """Raise `WrongVersion` unless it is this program's."""
    if version > VERSION:
        raise WrongVersion(
            f"it is of version {version}, and this estgw knows {VERSION}: upgrade estgw and its handlers"
        )
    if version < VERSION:
        raise WrongVersion(f"it is of version {version}, and this estgw needs {VERSION}: say estgw register upgrade")


def upgrade_sqlite(db: sqlite3.Connection) -> None:
    """Bring it up to this version, in one transaction.  Programs of version 1 go on working with it.

    Raises `WrongVersion` for a later one.
    """
    if _version(db) == VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db) == 1:  # one of two processes does it
            db.create_function("subject_key", 1, key_of_certificate, deterministic=True)
            db.execute("ALTER TABLE certificates ADD COLUMN subject_key text NOT NULL DEFAULT ''")
            db.execute("ALTER TABLE certificates ADD COLUMN request_key text")
            for statement in statements(_LATER.format(bytes="blob")):
                db.execute(statement)
            db.execute("UPDATE certificates SET subject_key = subject_key(der)")
            db.execute(f"PRAGMA user_version = {VERSION}")
        require_known(_version(db))
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def statements(script: str) -> Iterator[str]:
    """The statements of a script of ours, whose comments and texts have no semicolon."""
    return (each for each in map(str.strip, re.sub(r"--.*", "", script).split(";")) if each)


def key_of_certificate(der: bytes) -> str:
    """The `subject_key` of a certificate."""
    return subject_key(x509.load_der_x509_certificate(der).subject)


def subject_key(name: x509.Name) -> str:
    """A digest by which equal names are found, however they are written (RFC 5280 7.1)."""
    folded = [sorted(rdn) for rdn in names.name_key(name)]
    return hashlib.sha256(repr(folded).encode("utf-8", "surrogatepass")).hexdigest()
