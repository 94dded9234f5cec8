from __future__ import annotations

import asyncio
import contextlib
import importlib
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from estgw.auth.identity import Client, Trust
from estgw.errors import BadRequest, Forbidden, Malformed
from estgw.est import csr as csrs
from estgw.est.certs import load_pem
from estgw.gateway import renewal, request
from estgw.register.engine import RegisterError
from estgw.tls.info import TLSInfo
from tests.kit.ca import DAY, NOW, certificate, name, root
from tests.kit.csr import csr, san
from tests.kit.der import BMP, BOOLEAN, CN, PRINTABLE, SEQUENCE, UTF8, attribute, dn, tlv
from tests.kit.keys import KEY
from tests.kit.processes import ROOT
from tests.register.test_engines import version_1

OURS, THEIRS = root("Our CA"), root("Their CA")
TLS = TLSInfo("TLSv1.3", "c", None, None)
NOBODY = Client("192.0.2.7", 1, TLS)
CHANGE = "1.3.6.1.5.5.7.7.36"
DNS = x509.DNSName


def client(
    subject: str | x509.Name = "CN=device-1", *extensions: Any, trust: Trust = Trust.EXPLICIT, key: Any = KEY
) -> Client:
    ca = OURS if trust is Trust.EXPLICIT else THEIRS
    return replace(NOBODY, certificate=certificate(ca, subject, *extensions, key=key), trust=trust)


def route(ca_dir: Path = Path("/nowhere"), *, change: bool = False, without: bool = False) -> Any:
    return SimpleNamespace(ca_dir=ca_dir, register=None, change_subject_name=change, renew_without_certificate=without)


def renewed(of: Client, csr: bytes, on: Any = None) -> x509.Certificate:
    return asyncio.run(renewal.renewed_certificate(of, csrs.parse(csr), on or route()))


# The CSR must have the certificate's names. They are compared as names (RFC 7030 4.2.2).

SAME = {
    "the same": ("device-1", csr("device-1")),
    "another string type": ("device-1", csr(dn((CN, PRINTABLE, b"device-1")))),
    "BMPString": ("device-1", csr(dn((CN, BMP, "device-1".encode("utf-16-be"))))),
    "another case": ("Device-1", csr("dEVICE-1")),
    "white space": ("device 1", csr("  device   1 ")),
    "not ASCII": ("gerät", csr("GERÄT")),
}
OTHER = {
    "another value": csr("device-2"),
    "one RDN more": csr(dn((CN, UTF8, b"device-1"), (CN, UTF8, b"device-1"))),
    "another attribute": csr(dn(("2.5.4.10", UTF8, b"device-1"))),
    "white space within a word": csr("device -1"),
    "a name more": csr("device-1", san(DNS("a.example"))),
}


@pytest.mark.parametrize(("name", "csr"), SAME.values(), ids=SAME)
def test_reenroll_accepts_the_same_name_in_another_spelling(name, csr):
    of = client(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    assert renewed(of, csr) == of.certificate


@pytest.mark.parametrize("csr", OTHER.values(), ids=OTHER)
def test_reenroll_refuses_other_names_and_says_the_difference(csr):
    with pytest.raises(Forbidden, match="A reenroll keeps subject and subject alternative name: the CSR"):
        renewed(client(), csr)


def test_reenroll_ignores_the_order_of_alternative_names():
    names = [DNS("a.example"), x509.RFC822Name("d@a.example"), DNS("B.example")]
    of = client("CN=device-1", x509.SubjectAlternativeName(names))
    lower = [DNS("b.example"), x509.RFC822Name("d@A.example"), DNS("a.example")]
    assert renewed(of, csr("device-1", san(*lower))) == of.certificate
    for wrong, word in ((names[:2], "lacks DNS:b.example"), ([*names, DNS("c.example")], "adds DNS:c.example")):
        with pytest.raises(Forbidden, match=word):
            renewed(of, csr("device-1", san(*wrong)))
    with pytest.raises(Forbidden, match="lacks"):
        renewed(of, csr("device-1"))


def test_reenroll_refuses_another_order_of_rdns():
    of = client("CN=a,O=b")
    assert renewed(of, csr(name("CN=a,O=b"))) == of.certificate
    with pytest.raises(Forbidden, match="subject is O=b,CN=a"):
        renewed(of, csr(name("O=b,CN=a")))


def test_reenroll_refuses_another_cas_certificate_or_none():
    with pytest.raises(Forbidden, match="yours is another's"):
        renewed(client(trust=Trust.IMPLICIT), csr("device-1"))
    with pytest.raises(Forbidden, match="yours is another's"):
        renewed(client(trust=Trust.IMPLICIT), csr("device-1"), route(without=True))
    for of in (NOBODY, client(trust=Trust.NONE)):
        with pytest.raises(Forbidden, match="there was none"):
            renewed(of, csr("device-1"))


# Without a TLS certificate: the look-up in the CA's index.


class Register:
    """What `openssl ca` would have written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "newcerts").mkdir()
        self.serial = 0xA0

    def issue(self, name: str = "device-1", *san: x509.GeneralName, status: str = "V", ends: Any = NOW + DAY) -> Any:
        self.serial += 1
        extensions = [x509.SubjectAlternativeName(san)] if san else []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = certificate(OURS, subject, *extensions, serial=self.serial, ends=ends)
        (self.path / f"newcerts/{self.serial:X}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        escaped = "".join(char if char.isascii() else "".join(f"\\x{b:02X}" for b in char.encode()) for char in name)
        with (self.path / "index.txt").open("a") as index:
            index.write(f"{status}\t270101000000Z\t\t{self.serial:X}\tunknown\t/CN={escaped}\n")
        return made

    def find(self, csr: bytes) -> x509.Certificate:
        return renewed(NOBODY, csr, route(self.path, without=True))


@pytest.fixture
def register(tmp_path) -> Register:
    return Register(tmp_path)


def test_lookup_finds_the_newest_valid_certificate(register):
    register.issue()
    newer = register.issue()
    register.issue("device-2")
    register.issue("device-1", DNS("a.example"))
    register.issue(status="R")
    register.issue(status="E")
    register.issue(ends=NOW - DAY / 2)
    assert register.find(csr("device-1")) == newer


@pytest.mark.parametrize("name", ["gerät", "a b", "O'Brien, Inc.", "DEVICE-1", "1/CN=x"])
def test_lookup_finds_names_that_the_index_escapes(register, name):
    made = register.issue(name)
    assert register.find(csr(name)) == made
    assert register.find(csr(name.upper())) == made
    assert register.find(csr(name.lower())) == made


def test_lookup_ignores_case_white_space_and_string_type(register):
    made = register.issue("Device 1")
    bmp = dn((CN, BMP, "device 1".encode("utf-16-be")))
    for spelling in ("dEVICE 1", " device   1 ", bmp):
        assert register.find(csr(spelling)) == made


def test_lookup_finds_a_name_that_the_index_spells_in_hex(register):
    """`openssl ca` writes a BMPString in hex."""
    made = register.issue("device-1")
    index = register.path / "index.txt"
    index.write_text(index.read_text().replace("device-1", "\\x00d\\x00e\\x00v\\x00i\\x00c\\x00e\\x00-\\x001"))
    assert register.find(csr("device-1")) == made


def test_lookup_reads_only_the_certificate_that_the_index_names(register, monkeypatch):
    made = register.issue("device-1")
    for number in range(20):
        register.issue(f"host-{number}.example")
    read: list[bytes] = []

    def reading(pem: bytes) -> list[x509.Certificate]:
        read.append(pem)
        return load_pem(pem)

    monkeypatch.setattr("estgw.est.certs.load_pem", reading)
    assert register.find(csr("Device-1")) == made
    assert len(read) == 1


def test_lookup_refuses_when_no_certificate_has_the_csrs_names(register):
    with pytest.raises(Forbidden, match="No valid certificate with the CSR's subject"):
        register.find(csr("device-1"))
    register.issue("device-10")
    register.issue("device-1", DNS("a.example"))
    with pytest.raises(Forbidden, match="No valid certificate"):
        register.find(csr("device-1"))


def test_lookup_skips_broken_rows_of_the_index(register):
    made = register.issue()
    with (register.path / "index.txt").open("ab") as index:
        index.write(b"\xff\xfe\nV\n\nV\t\t\t../../secret\tunknown\t/CN=device-1\nV\t\t\tFFFF\tunknown\t/CN=device-1\n")
        index.write(b"V\t\t\tEE\tunknown\t/CN=device-1\nV\t\t\tDD\tunknown\t/CN=device-1\n")
    (register.path / "newcerts/EE.pem").write_text("nothing")
    (register.path / "newcerts/DD.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert register.find(csr("device-1")) == made


# The same with the archives of openssl-ca/rotate.


def archive(register: Register, number: int) -> None:
    (register.path / "index-archive").mkdir(exist_ok=True)
    (register.path / "index.txt").rename(register.path / f"index-archive/{number:06}-2026-11-23.txt")
    (register.path / "index.txt").touch()


def test_lookup_prefers_the_index_and_then_the_last_archive(register):
    register.issue()
    archive(register, 1)
    register.issue("device-2")
    second = register.issue()
    archive(register, 2)
    assert register.find(csr("device-1")) == second
    assert register.find(csr("device-2"))
    third = register.issue()
    assert register.find(csr("device-1")) == third


def test_a_row_of_the_index_overrides_the_archives_row(register):
    register.issue()
    lost = register.issue()
    archive(register, 1)
    with (register.path / "index.txt").open("a") as index:
        index.write(f"R\t270101000000Z\t261123120000Z\t{lost.serial_number:X}\tunknown\t/CN=device-1\n")
    assert register.find(csr("device-1")).serial_number == lost.serial_number - 1


def test_lookup_works_while_the_index_is_being_replaced(register):
    """`openssl ca` renames the old index away, then moves the new one into its place."""
    made = register.issue()
    (register.path / "index.txt").rename(register.path / "index.txt.old")
    assert register.find(csr("device-1")) == made


@pytest.mark.parametrize("name", ["device-1", "gerät", "名前", "Straße", "\uff37ide", "x=y", "o/CN=device-2"])
def test_lookup_reads_only_certificates_with_a_similar_name(register, monkeypatch, name):
    made = register.issue(name)
    for number in range(10, 20):
        register.issue(f"device-{number}")
        register.issue(f"gerät-{number}")
        register.issue(f"x {name}")
        register.issue(f"{name} x")
    archive(register, 1)
    read: list[bytes] = []

    def reading(pem: bytes) -> list[x509.Certificate]:
        read.append(pem)
        return load_pem(pem)

    monkeypatch.setattr("estgw.est.certs.load_pem", reading)
    assert register.find(csr(name.casefold())) == made
    assert len(read) <= (1 if "/" not in name and "=" not in name else 11)


def test_lookup_finds_a_name_of_several_parts(register):
    made = register.issue("device-1")
    index = register.path / "index.txt"
    subject = x509.Name.from_rfc4514_string("CN=device-1,O=Our  Company")
    made = certificate(OURS, subject, serial=0xF1, ends=NOW + DAY)
    (register.path / "newcerts/F1.pem").write_bytes(made.public_bytes(Encoding.PEM))
    with index.open("a") as rows:
        rows.write("V\t270101000000Z\t\tF1\tunknown\t/O=Our  Company/CN=device-1\n")
    assert register.find(csr(x509.Name.from_rfc4514_string("CN=DEVICE-1,O=our company"))) == made
    with pytest.raises(Forbidden, match="No valid certificate"):
        register.find(csr(x509.Name.from_rfc4514_string("CN=device-1,O=your company")))


def test_lookup_stops_after_the_maximum_of_certificates(register, monkeypatch):
    monkeypatch.setattr("estgw.register.lookup.MOST", 3)
    oldest = register.issue("device-1", DNS("a.example"))
    for _ in range(3):
        register.issue("device-1")
    with pytest.raises(Forbidden, match="No valid certificate"):
        register.find(csr("device-1", san(DNS("a.example"))))
    monkeypatch.setattr("estgw.register.lookup.MOST", 4)
    assert register.find(csr("device-1", san(DNS("a.example")))) == oldest


# The register of handlers/python, as its own code writes it.


class Store(Register):
    """The same, in the register of handlers/python."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(path)
        monkeypatch.syspath_prepend(ROOT / "handlers/python")
        self.module = importlib.import_module("store")
        for variable, value in {
            "CA_DIR": str(path),
            "OPERATION": "simpleenroll",
            "TIMEOUT": "30",
            "REQUEST_ID": "1",
        }.items():
            monkeypatch.setenv(f"EST_{variable}", value)

    def enter(self, subject: str | x509.Name, *san: x509.GeneralName, starts: Any = NOW - DAY, **options: Any) -> Any:
        self.serial += 1
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]) if isinstance(subject, str) else subject
        extensions = [x509.SubjectAlternativeName(san)] if san else []
        options = {"starts": starts, "ends": NOW + DAY} | options
        made = certificate(OURS, name, *extensions, serial=self.serial, **options)
        self.module.add(made, "", "client")
        return made

    def revoke(self, certificate: x509.Certificate) -> None:
        with contextlib.closing(sqlite3.connect(self.path / "certs.sqlite")) as db, db:
            db.execute(
                "UPDATE certificates SET status = 'revoked' WHERE der = ?", [certificate.public_bytes(Encoding.DER)]
            )


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    return Store(tmp_path, monkeypatch)


def test_lookup_finds_certificates_of_the_python_handlers(store):
    store.enter("device-1")
    newer = store.enter("device-1")
    store.enter("device-10")
    store.enter("device-1", DNS("a.example"))
    store.revoke(store.enter("device-1"))
    store.enter("device-1", ends=NOW - DAY / 2)
    assert store.find(csr("DEVICE-1")) == newer
    with pytest.raises(Forbidden, match="No valid certificate"):
        store.find(csr("device-2"))


@pytest.mark.parametrize(
    "name",
    [
        "gerät",
        "a b",
        " a  b",
        "O'Brien, Inc.",
        '"; <\\> + #',
        "#1",
        "1/CN=x",
        "a\tb",
        "\\41",
        "a\0b",
        "Straße",
        "x\u200by",
    ],
)
def test_lookup_finds_names_that_the_python_register_escapes(store, name):
    made = store.enter(name)
    for spelling in (name, name.upper(), name.casefold()):
        assert store.find(csr(dn((CN, UTF8, spelling.encode())))) == made


def test_lookup_skips_what_openssl_ca_has_revoked(store):
    """`openssl-ca/revoke` marks it in both registers, but another tool may mark it in the index only."""
    kept, lost = store.enter("device-1"), store.enter("device-1")
    (store.path / "index.txt").write_text(f"R\t270101000000Z\t261123120000Z\t{lost.serial_number:X}\tunknown\t/CN=x\n")
    assert store.find(csr("device-1")) == kept


def test_of_two_registers_the_newer_certificate_counts(store):
    store.issue()
    newer = store.enter("device-1", starts=NOW - DAY / 4)
    assert store.find(csr("device-1")) == newer
    store.enter("device-2", starts=NOW - 9 * DAY)
    assert store.find(csr("device-2")) != (other := store.issue("device-2")) == store.find(csr("device-2"))
    assert other.serial_number == store.serial


def test_lookup_in_a_broken_register_raises_instead_of_refusing(store):
    store.enter("device-1")
    (store.path / "certs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(RegisterError, match="file is not a database"):
        store.find(csr("device-1"))


def test_lookup_finds_what_a_program_of_version_1_has_entered(store):
    """It writes no subject_key, and goes on after an upgrade."""
    first, older, newer = store.enter("device-1"), store.enter("device-2"), store.enter("Gerät, 1")
    with contextlib.closing(sqlite3.connect(store.path / "certs.sqlite")) as db, db:
        db.execute("UPDATE certificates SET subject_key = '' WHERE subject <> 'CN=device-1'")
    assert store.find(csr("DEVICE-2")) == older
    assert store.find(csr("gerät, 1")) == newer
    assert store.find(csr("device-1")) == first


def test_lookup_reads_a_register_of_version_1_and_does_not_change_it(tmp_path):
    made = certificate(OURS, "CN=device-1", serial=0xA1, ends=NOW + DAY)
    version_1(tmp_path, made, certificate(OURS, "CN=device-2", serial=0xA2, ends=NOW + DAY)).close()
    before = (tmp_path / "certs.sqlite").read_bytes()
    assert renewed(NOBODY, csr("Device-1"), route(tmp_path, without=True)) == made
    assert (tmp_path / "certs.sqlite").read_bytes() == before


def test_lookup_of_a_name_reads_no_rows_of_other_names(store):
    """However many there are: the subject_key has an index."""
    store.enter("device-1")
    with contextlib.closing(sqlite3.connect(store.path / "certs.sqlite")) as db:
        for key in ("'x'", "''"):
            plan = db.execute(f"EXPLAIN QUERY PLAN SELECT 1 FROM certificates WHERE subject_key = {key}").fetchall()
            assert "USING COVERING INDEX by_subject_key" in plan[0][3]


def test_lookup_finds_a_very_long_name(store):
    name = "x" * 60000 + "y" * 100
    made = store.enter(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name, _validate=False)]))
    assert store.find(csr(dn(("2.5.4.10", UTF8, name.encode())))) == made


# ChangeSubjectName (RFC 6402 2.8).


def change(subject: bytes | None = None, *san: x509.GeneralName) -> bytes:
    names = x509.SubjectAlternativeName(san).public_bytes()[2:] if san else b""
    return attribute(CHANGE, tlv(SEQUENCE, subject or b"", tlv(0xA1, names) if san else b""))


NEW = dn((CN, UTF8, b"new"))


def new_names(of: Client, *attributes: bytes, allowed: bool = True) -> Any:
    return request.new_names(of, csrs.parse(csr("device-1", *attributes)), route(change=allowed))


def test_change_subject_name_gives_subject_and_alternative_names():
    made = new_names(client(), change(NEW, DNS("new.example")))
    assert made.subject.rfc4514_string() == "CN=new"
    assert list(made.san) == [DNS("new.example")]


def test_a_part_that_change_subject_name_leaves_out_becomes_empty():
    made = new_names(client(), change(NEW))
    assert (made.subject.rfc4514_string(), made.san) == ("CN=new", None)
    made = new_names(client(), change(None, DNS("new.example")))
    assert (made.subject.rfc4514_string(), list(made.san)) == ("", [DNS("new.example")])


def test_no_new_names_without_change_subject_name():
    assert new_names(NOBODY) is None
    assert new_names(NOBODY, allowed=False) is None


def test_change_subject_name_is_refused_where_it_is_not_allowed():
    with pytest.raises(BadRequest, match="leave ChangeSubjectName out"):
        new_names(client(), change(NEW), allowed=False)


def test_change_subject_name_needs_a_certificate_with_the_csrs_names():
    for of in (NOBODY, client(trust=Trust.NONE)):
        with pytest.raises(Forbidden, match="needs a TLS client certificate"):
            new_names(of, change(NEW))
    with pytest.raises(Forbidden, match="keeps the certificate's own names"):
        new_names(client("CN=somebody else"), change(NEW))
    assert new_names(client(trust=Trust.IMPLICIT), change(NEW))  # RFC 7030 4.2.1: for a device's own certificate, too


@pytest.mark.parametrize(
    "attribute",
    [
        attribute(CHANGE),
        attribute(CHANGE, tlv(SEQUENCE)),
        attribute(CHANGE, tlv(SEQUENCE, NEW), tlv(SEQUENCE, NEW)),
        attribute(CHANGE, tlv(BOOLEAN, b"\xff")),
        attribute(CHANGE, tlv(SEQUENCE, tlv(BOOLEAN, b"\xff"))),
        attribute(CHANGE, tlv(SEQUENCE, tlv(0xA1))),
        attribute(CHANGE, tlv(SEQUENCE, tlv(0xA1, tlv(0x99, b"x")))),
        attribute(CHANGE, tlv(SEQUENCE, tlv(SEQUENCE, b"\x31\x00"))),
        attribute(CHANGE, tlv(SEQUENCE, NEW, NEW)),
        attribute(CHANGE, b"\x30\x80\x00\x00"),
        change(dn((CN, UTF8, b"\xff\xfe"))),
        change(dn((CN, UTF8, b""))),
        change(dn((CN, UTF8, b"x" * 65))),
        change(dn(("2.5.4.6", UTF8, b"DEU"))),
        change(dn(("2.5.4.5", UTF8, "gerät".encode()))),
        change(dn(("1.2.3.4", UTF8, b"x"))),
    ],
    ids=lambda value: value.hex()[30:70],
)
@pytest.mark.filterwarnings("default::UserWarning")
def test_malformed_change_subject_name_is_a_bad_request(attribute):
    with pytest.raises(BadRequest):
        try:
            new_names(client(), attribute)
        except Malformed:  # of the CSR as a whole
            raise BadRequest from None
