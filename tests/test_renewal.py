from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from estgw import renewal
from estgw.auth.identity import Client, Trust
from estgw.errors import BadRequest, Forbidden, Malformed
from estgw.est import csr as csrs
from estgw.est.certs import load_pem
from estgw.tls.info import TLSInfo
from tests import pki
from tests.tls.pki import DAY, NOW, root

OURS, THEIRS = root("Our CA"), root("Their CA")
TLS = TLSInfo("TLSv1.3", "c", None, None)
NOBODY = Client("192.0.2.7", 1, TLS)
CHANGE = "1.3.6.1.5.5.7.7.36"
DNS = x509.DNSName


def client(
    subject: str | x509.Name = "CN=device-1", *extensions: Any, trust: Trust = Trust.EXPLICIT, key: Any = pki.P256
) -> Client:
    ca = OURS if trust is Trust.EXPLICIT else THEIRS
    certificate = pki.certificate(ca, subject, *extensions, key=key)
    return replace(NOBODY, certificate=certificate, trust=trust)


def route(ca_dir: Path = Path("/nowhere"), *, change: bool = False, without: bool = False) -> Any:
    return SimpleNamespace(ca_dir=ca_dir, change_subject_name=change, renew_without_certificate=without)


def renewed(of: Client, csr: bytes, on: Any = None) -> x509.Certificate:
    return asyncio.run(renewal.renewed_certificate(of, csrs.parse(csr), on or route()))


# The names are those of the certificate, compared as names (RFC 7030 4.2.2).

SAME = {
    "the same": ("device-1", pki.csr("device-1")),
    "another string type": ("device-1", pki.csr(pki.dn((pki.CN, pki.PRINTABLE, b"device-1")))),
    "BMPString": ("device-1", pki.csr(pki.dn((pki.CN, pki.BMP, "device-1".encode("utf-16-be"))))),
    "another case": ("Device-1", pki.csr("dEVICE-1")),
    "white space": ("device 1", pki.csr("  device   1 ")),
    "not ASCII": ("gerät", pki.csr("GERÄT")),
}
OTHER = {
    "another value": pki.csr("device-2"),
    "one RDN more": pki.csr(pki.dn((pki.CN, pki.UTF8, b"device-1"), (pki.CN, pki.UTF8, b"device-1"))),
    "another attribute": pki.csr(pki.dn(("2.5.4.10", pki.UTF8, b"device-1"))),
    "white space within a word": pki.csr("device -1"),
    "a name more": pki.csr("device-1", pki.san(DNS("a.example"))),
}


@pytest.mark.parametrize(("name", "csr"), SAME.values(), ids=SAME)
def test_the_same_name_in_another_coat(name, csr):
    of = client(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
    assert renewed(of, csr) == of.certificate


@pytest.mark.parametrize("csr", OTHER.values(), ids=OTHER)
def test_other_names_are_refused_with_the_difference(csr):
    with pytest.raises(Forbidden, match="A reenroll keeps subject and subject alternative name: the CSR"):
        renewed(client(), csr)


def test_the_order_of_names_does_not_count():
    names = [DNS("a.example"), x509.RFC822Name("d@a.example"), DNS("B.example")]
    of = client("CN=device-1", x509.SubjectAlternativeName(names))
    lower = [DNS("b.example"), x509.RFC822Name("d@A.example"), DNS("a.example")]
    assert renewed(of, pki.csr("device-1", pki.san(*lower))) == of.certificate
    for wrong, word in ((names[:2], "lacks DNS:b.example"), ([*names, DNS("c.example")], "adds DNS:c.example")):
        with pytest.raises(Forbidden, match=word):
            renewed(of, pki.csr("device-1", pki.san(*wrong)))
    with pytest.raises(Forbidden, match="lacks"):
        renewed(of, pki.csr("device-1"))


def test_the_order_of_rdns_counts():
    of = client("CN=a,O=b")
    assert renewed(of, pki.csr(pki.name("CN=a,O=b"))) == of.certificate
    with pytest.raises(Forbidden, match="subject is O=b,CN=a"):
        renewed(of, pki.csr(pki.name("O=b,CN=a")))


def test_whose_certificate_it_is():
    with pytest.raises(Forbidden, match="yours is another's"):
        renewed(client(trust=Trust.IMPLICIT), pki.csr("device-1"))
    with pytest.raises(Forbidden, match="yours is another's"):
        renewed(client(trust=Trust.IMPLICIT), pki.csr("device-1"), route(without=True))
    for of in (NOBODY, client(trust=Trust.NONE)):
        with pytest.raises(Forbidden, match="there was none"):
            renewed(of, pki.csr("device-1"))


# Without a TLS certificate: the look-up in the CA's index.


class Books:
    """What `openssl ca` would have written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "newcerts").mkdir()
        self.serial = 0xA0

    def issue(self, name: str = "device-1", *san: x509.GeneralName, status: str = "V", ends: Any = NOW + DAY) -> Any:
        self.serial += 1
        extensions = [x509.SubjectAlternativeName(san)] if san else []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = pki.certificate(OURS, subject, *extensions, serial=self.serial, ends=ends)
        (self.path / f"newcerts/{self.serial:X}.pem").write_bytes(made.public_bytes(Encoding.PEM))
        escaped = "".join(char if char.isascii() else "".join(f"\\x{b:02X}" for b in char.encode()) for char in name)
        with (self.path / "index.txt").open("a") as index:
            index.write(f"{status}\t270101000000Z\t\t{self.serial:X}\tunknown\t/CN={escaped}\n")
        return made

    def find(self, csr: bytes) -> x509.Certificate:
        return renewed(NOBODY, csr, route(self.path, without=True))


@pytest.fixture
def books(tmp_path) -> Books:
    return Books(tmp_path)


def test_the_newest_valid_one_is_found(books):
    books.issue()
    newer = books.issue()
    books.issue("device-2")
    books.issue("device-1", DNS("a.example"))
    books.issue(status="R")
    books.issue(status="E")
    books.issue(ends=NOW - DAY / 2)
    assert books.find(pki.csr("device-1")) == newer


@pytest.mark.parametrize("name", ["gerät", "a b", "O'Brien, Inc.", "DEVICE-1", "1/CN=x"])
def test_names_that_the_index_writes_its_own_way(books, name):
    made = books.issue(name)
    assert books.find(pki.csr(name)) == made
    assert books.find(pki.csr(name.upper())) == made
    assert books.find(pki.csr(name.lower())) == made


def test_neither_case_nor_white_space_nor_string_type_counts(books):
    made = books.issue("Device 1")
    bmp = pki.dn((pki.CN, pki.BMP, "device 1".encode("utf-16-be")))
    for name in ("dEVICE 1", " device   1 ", bmp):
        assert books.find(pki.csr(name)) == made


def test_a_name_that_the_index_spells_in_hex(books):
    """`openssl ca` writes a BMPString so; its certificate is one like any other."""
    made = books.issue("device-1")
    index = books.path / "index.txt"
    index.write_text(index.read_text().replace("device-1", "\\x00d\\x00e\\x00v\\x00i\\x00c\\x00e\\x00-\\x001"))
    assert books.find(pki.csr("device-1")) == made


def test_the_index_spares_the_reading_of_others_certificates(books, monkeypatch):
    made = books.issue("device-1")
    for number in range(20):
        books.issue(f"host-{number}.example")
    read: list[bytes] = []

    def reading(pem: bytes) -> list[x509.Certificate]:
        read.append(pem)
        return load_pem(pem)

    monkeypatch.setattr("estgw.est.certs.load_pem", reading)
    assert books.find(pki.csr("Device-1")) == made
    assert len(read) == 1


def test_nothing_is_found(books):
    with pytest.raises(Forbidden, match="No valid certificate with the CSR's subject"):
        books.find(pki.csr("device-1"))
    books.issue("device-10")
    books.issue("device-1", DNS("a.example"))
    with pytest.raises(Forbidden, match="No valid certificate"):
        books.find(pki.csr("device-1"))


def test_a_spoilt_index_is_no_crash(books):
    made = books.issue()
    with (books.path / "index.txt").open("ab") as index:
        index.write(b"\xff\xfe\nV\n\nV\t\t\t../../secret\tunknown\t/CN=device-1\nV\t\t\tFFFF\tunknown\t/CN=device-1\n")
        index.write(b"V\t\t\tEE\tunknown\t/CN=device-1\nV\t\t\tDD\tunknown\t/CN=device-1\n")
    (books.path / "newcerts/EE.pem").write_text("nothing")
    (books.path / "newcerts/DD.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert books.find(pki.csr("device-1")) == made


# ChangeSubjectName (RFC 6402 2.8).


def change(subject: bytes | None = None, *san: x509.GeneralName) -> bytes:
    names = x509.SubjectAlternativeName(san).public_bytes()[2:] if san else b""
    return pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, subject or b"", pki.tlv(0xA1, names) if san else b""))


NEW = pki.dn((pki.CN, pki.UTF8, b"new"))


def new_names(of: Client, *attributes: bytes, allowed: bool = True) -> Any:
    return renewal.new_names(of, csrs.parse(pki.csr("device-1", *attributes)), route(change=allowed))


def test_both_parts():
    made = new_names(client(), change(NEW, DNS("new.example")))
    assert made.subject.rfc4514_string() == "CN=new"
    assert list(made.san) == [DNS("new.example")]


def test_absent_means_empty():
    made = new_names(client(), change(NEW))
    assert (made.subject.rfc4514_string(), made.san) == ("CN=new", None)
    made = new_names(client(), change(None, DNS("new.example")))
    assert (made.subject.rfc4514_string(), list(made.san)) == ("", [DNS("new.example")])


def test_no_such_attribute():
    assert new_names(NOBODY) is None
    assert new_names(NOBODY, allowed=False) is None


def test_where_it_is_not_allowed():
    with pytest.raises(BadRequest, match="leave ChangeSubjectName out"):
        new_names(client(), change(NEW), allowed=False)


def test_who_may_not():
    for of in (NOBODY, client(trust=Trust.NONE)):
        with pytest.raises(Forbidden, match="needs a TLS client certificate"):
            new_names(of, change(NEW))
    with pytest.raises(Forbidden, match="keeps the certificate's own names"):
        new_names(client("CN=somebody else"), change(NEW))
    assert new_names(client(trust=Trust.IMPLICIT), change(NEW))  # RFC 7030 4.2.1: for a device's own certificate, too


@pytest.mark.parametrize(
    "attribute",
    [
        pki.attribute(CHANGE),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE)),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, NEW), pki.tlv(pki.SEQUENCE, NEW)),
        pki.attribute(CHANGE, pki.tlv(pki.BOOLEAN, b"\xff")),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, pki.tlv(pki.BOOLEAN, b"\xff"))),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, pki.tlv(0xA1))),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, pki.tlv(0xA1, pki.tlv(0x99, b"x")))),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, pki.tlv(pki.SEQUENCE, b"\x31\x00"))),
        pki.attribute(CHANGE, pki.tlv(pki.SEQUENCE, NEW, NEW)),
        pki.attribute(CHANGE, b"\x30\x80\x00\x00"),
        change(pki.dn((pki.CN, pki.UTF8, b"\xff\xfe"))),
        change(pki.dn((pki.CN, pki.UTF8, b""))),
        change(pki.dn((pki.CN, pki.UTF8, b"x" * 65))),
        change(pki.dn(("2.5.4.6", pki.UTF8, b"DEU"))),
        change(pki.dn(("2.5.4.5", pki.UTF8, "gerät".encode()))),
        change(pki.dn(("1.2.3.4", pki.UTF8, b"x"))),
    ],
    ids=lambda value: value.hex()[30:70],
)
@pytest.mark.filterwarnings("default::UserWarning")
def test_odd_values_are_the_clients_fault(attribute):
    with pytest.raises(BadRequest):
        try:
            new_names(client(), attribute)
        except Malformed:  # of the CSR as a whole
            raise BadRequest from None
