"""What goes over the wire: the way from a URL to a quirk, each wrong answer, and what is noted of it."""

from __future__ import annotations

import base64
import ssl
import time
from email.utils import parsedate_to_datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import NameOID

from estgw.client.transport import answers, multipart, trust
from estgw.client.transport.challenge import Authorizer, Credentials
from estgw.est import csrattrs
from estgw.quirks.material import USER
from estgw.quirks.seen import Place
from estgw.quirks.table import QUIRKS
from tests.kit.ca import common_name
from tests.kit.connection import EST, basic
from tests.kit.csr import csr
from tests.kit.keys import KEY


def bag(body):
    return answers.bag_of(body)


def names(certificate):
    return certificate.subject.rfc4514_string()


def test_the_control_wants_a_login_and_then_issues_for_the_csr(fresh):
    with fresh.peer() as peer:
        status, headers, body = peer.ask(
            "POST", "quirk-none/simpleenroll", csr("device"), Content_Type="application/pkcs10"
        )
        assert (status, body) == (401, b"")
        assert headers["WWW-Authenticate"].startswith("Basic ")
        assert peer.enrol("none", Authorization=basic("quirk:wrong"))[0] == 401
        status, headers, body = peer.enrol("none")
    (certificate,) = bag(body)
    assert status == 200
    assert headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert headers["Content-Transfer-Encoding"] == "base64"
    assert certificate.public_key() == KEY.public_key()
    assert names(certificate) == "CN=device"
    certificate.verify_directly_issued_by(fresh.server.material.old.certificate)
    assert [(one.status, one.scheme, one.is_right) for one in fresh.exchanges] == [
        (401, "", False),
        (401, "basic", False),
        (200, "basic", True),
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/est/quirk-html/simpleenroll",
        "/.well-known/est/quirk-html.ann/simpleEnroll",
        "/quirk-html/.well-known/est/simpleenroll",
        "/quirk-html.ann/simpleenroll?x=1",
    ],
)
def test_the_label_chooses_the_quirk_wherever_it_stands(fresh, path):
    with fresh.peer() as peer:
        assert peer.ask("POST", path, csr("d"), Authorization=peer.right, Content_Type="application/pkcs10")[0] == 200
    (noted,) = fresh.exchanges
    assert (noted.quirk, noted.client) == ("html", "ann" if ".ann" in path else "")


@pytest.mark.parametrize("path", ["quirk-nosuch/cacerts", "cacerts", "quirk-/cacerts", "quirk-html.%20/cacerts"])
def test_an_unknown_quirk_is_a_404_that_lists_all(fresh, path):
    with fresh.peer() as peer:
        status, headers, body = peer.ask("GET", path)
    assert status == 404
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert all(f"quirk-{name} " in body.decode() for name in QUIRKS)
    assert fresh.exchanges == []


def test_a_fault_of_tls_at_the_main_port_is_a_404_that_names_its_port(fresh):
    with fresh.peer() as peer:
        status, _, body = peer.ask("GET", "quirk-expired/cacerts")
    assert status == 404
    assert f"has port {fresh.server.ports['expired']}." in body.decode()


def test_default_is_the_quirk_of_a_url_without_a_label(serving):
    with serving(default="rollover-bag").peer() as peer:
        assert len(bag(peer.ask("GET", "cacerts")[2])) == 4
        assert len(bag(peer.ask("GET", "quirk-none/cacerts")[2])) == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "quirk-none/cacerts", 405),
        ("GET", "quirk-none/simpleenroll", 405),
        ("GET", "quirk-none/nosuch", 404),
        ("POST", "quirk-none/fullcmc", 415),
        ("GET", "quirk-none/csrattrs", 204),
    ],
)
def test_the_rest_of_the_server_is_correct(fresh, method, path, status):
    with fresh.peer() as peer:
        assert peer.ask(method, path)[0] == status


def test_a_csr_that_is_none_or_is_badly_signed_is_a_400_with_a_reason(fresh):
    spoiled = bytearray(csr("device"))
    spoiled[-1] ^= 1
    with fresh.peer() as peer:
        assert peer.enrol("none", b"MAA=")[0] == 400
        status, _, body = peer.enrol("none", bytes(spoiled))
    assert status == 400
    assert body == b"The CSR's signature does not fit its key.\n"


# Wrong answers.


def test_wrong_key_certifies_another_key(fresh):
    with fresh.peer() as peer:
        (certificate,) = bag(peer.enrol("wrong-key")[2])
    assert certificate.public_key() != KEY.public_key()
    assert names(certificate) == "CN=device"
    certificate.verify_directly_issued_by(fresh.server.material.old.certificate)


def test_wrong_issuer_is_right_but_for_its_signature(fresh):
    with fresh.peer() as peer:
        (certificate,) = bag(peer.enrol("wrong-issuer")[2])
    assert certificate.public_key() == KEY.public_key()
    assert not trust.is_signed_by(certificate, fresh.server.material.old.certificate)


def test_wrong_name_is_right_but_for_its_subject(fresh):
    with fresh.peer() as peer:
        (certificate,) = bag(peer.enrol("wrong-name")[2])
    assert certificate.public_key() == KEY.public_key()
    assert names(certificate) == "CN=somebody-else"
    certificate.verify_directly_issued_by(fresh.server.material.old.certificate)


def test_two_certs_sends_the_ca_first(fresh):
    with fresh.peer() as peer:
        der = base64.b64decode(peer.enrol("two-certs")[2])
    ca = fresh.server.material.old.certificate.public_bytes(Encoding.DER)
    issued = fresh.exchanges[-1].certificate.public_bytes(Encoding.DER)
    assert ca + issued in der


@pytest.mark.parametrize(
    ("quirk", "kind", "is_bag"),
    [
        ("html", "text/html; charset=utf-8", False),
        ("junk", "application/pkcs7-mime; smime-type=certs-only", False),
        ("no-type", None, True),
        ("wrong-type", "text/html", True),
    ],
)
def test_a_wrong_body_or_type_is_a_200(fresh, quirk, kind, is_bag):
    with fresh.peer() as peer:
        status, headers, body = peer.enrol(quirk)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert body.startswith(b"MII") == is_bag


def test_the_four_certificates_of_a_rollover_come_in_both_orders(fresh):
    with fresh.peer() as peer:
        there, back = (
            base64.b64decode(peer.ask("GET", f"quirk-{name}-bag/cacerts")[2]) for name in ("rollover", "shuffled")
        )
    material = fresh.server.material
    encoded = [one.public_bytes(Encoding.DER) for one in material.rollover]
    assert b"".join(encoded) in there
    assert b"".join(reversed(encoded)) in back
    assert {one.subject for one in material.rollover} == {material.old.certificate.subject}
    material.new_with_old.verify_directly_issued_by(material.old.certificate)
    material.old_with_new.verify_directly_issued_by(material.new.certificate)
    assert max(material.rollover, key=lambda one: one.not_valid_after_utc) == material.new.certificate


# Later.


def test_later_says_202_twice_for_the_same_key_and_then_issues(fresh):
    with fresh.peer() as peer:
        found = [peer.enrol("later", csr("device")) for _ in range(3)]
        assert [status for status, _, _ in found] == [202, 202, 200]
        assert [headers["Retry-After"] for _, headers, _ in found] == ["2", "2", None]
        assert found[0][2] == b""


def test_later_date_is_at_least_two_seconds_away(fresh):
    with fresh.peer() as peer:
        before = time.time()
        _, headers, _ = peer.enrol("later-date", csr("somebody"))
    assert 2 <= parsedate_to_datetime(headers["Retry-After"]).timestamp() - before <= 4


def test_later_none_and_busy_say_what_the_table_says(fresh):
    with fresh.peer() as peer:
        status, headers, _ = peer.enrol("later-none")
        assert (status, headers["Retry-After"]) == (202, None)
        status, headers, _ = peer.enrol("busy")
        assert (status, headers["Retry-After"]) == (503, "2")


# Logins.


def test_endless_401_refuses_the_right_password(fresh):
    with fresh.peer() as peer:
        assert [peer.enrol("endless-401")[0] for _ in range(3)] == [401, 401, 401]


@pytest.mark.parametrize(("quirk", "algorithm"), [("basic-then-digest", ""), ("digest-sha256", "algorithm=SHA-256")])
def test_digest_lets_in_who_knows_the_password_and_nobody_else(fresh, quirk, algorithm):
    with fresh.peer() as peer:
        status, headers, _ = peer.enrol(quirk)  # Basic, with the right password
        assert status == 401
        challenge = headers["WWW-Authenticate"]
        assert challenge.startswith("Digest ")
        assert ("algorithm" in challenge) == bool(algorithm)
        assert algorithm in challenge
        for password, expected in ((fresh.server.material.password, 200), ("wrong", 401)):
            authorizer = Authorizer(Credentials(USER, password))
            assert authorizer.learn([challenge])
            header = authorizer.header("POST", f"{EST}/quirk-{quirk}/simpleenroll")
            assert peer.enrol(quirk, Authorization=header)[0] == expected


def test_basic_then_digest_offers_basic_first(fresh):
    with fresh.peer() as peer:
        _, headers, _ = peer.ask(
            "POST", "quirk-basic-then-digest/simpleenroll", csr("d"), Content_Type="application/pkcs10"
        )
    assert headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize("header", ["Digest", "Digest x", "Basic", "Basic !", "Basic bm9jb2xvbg==", "\xff", "Bearer x"])
def test_credentials_that_can_not_be_read_are_wrong(fresh, header):
    with fresh.peer() as peer:
        assert peer.enrol("none", Authorization=header)[0] == 401


# Redirects.


def test_redirect_same_leads_to_the_certificate(fresh):
    with fresh.peer() as peer:
        status, headers, _ = peer.enrol("redirect-same")
        assert status == 307
        to = headers["Location"]
        assert to.startswith(f"{EST}/quirk-redirect-same/")
        status, _, body = peer.ask("POST", to, csr("d"), Authorization=peer.right, Content_Type="application/pkcs10")
    assert status == 200
    assert len(bag(body)) == 1


def test_redirect_away_leads_to_a_port_with_the_wrong_name(fresh):
    port = fresh.server.aside["redirect-away"]
    with fresh.peer() as peer:
        _, headers, _ = peer.enrol("redirect-away")
    assert headers["Location"] == f"https://localhost:{port}{EST}/quirk-redirect-away/simpleenroll"
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate(("localhost", port)).encode())
    assert names(certificate) == "CN=wrong-host.invalid"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:443", "", "localhost\\@evil.example"])
def test_a_redirect_never_leads_to_a_host_that_the_client_has_made_up(fresh, host):
    with fresh.peer() as peer:
        _, headers, _ = peer.enrol("redirect-away", Host=host)
    assert headers["Location"].startswith("https://localhost:")


# Framing.


def framed(served, quirk):
    """Head, body and pieces of an answer."""
    body = csr("device")
    with served.peer() as peer:
        lines = [
            f"POST {EST}/quirk-{quirk}/simpleenroll HTTP/1.1",
            "Host: localhost",
            "User-Agent: test",
            "Connection: close",
            f"Authorization: {peer.right}",
            "Content-Type: application/pkcs10",
            f"Content-Length: {len(body)}",
        ]
        peer.http.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        pieces = list(iter(lambda: peer.http.sock.recv(65536), b""))
    head, _, rest = b"".join(pieces).partition(b"\r\n\r\n")
    return head, rest, pieces


def test_one_line_has_no_line_break(fresh):
    head, body, _ = framed(fresh, "one-line")
    assert b"\n" not in body
    assert bag(body)
    assert b"Content-Length: %d" % len(body) in head


def test_crlf_76_breaks_lines_as_mime_does(fresh):
    lines = framed(fresh, "crlf-76")[1].split(b"\r\n")
    assert {len(line) for line in lines[:-2]} == {76}
    assert b"\n" not in b"".join(lines)


def test_no_cte_has_no_transfer_encoding_field(fresh):
    assert b"content-transfer-encoding" not in framed(fresh, "no-cte")[0].lower()
    assert b"content-transfer-encoding" in framed(fresh, "none")[0].lower()


def test_chunked_has_chunks_and_no_length(fresh):
    head, body, _ = framed(fresh, "chunked")
    assert b"Transfer-Encoding: chunked" in head
    assert b"Content-Length" not in head
    assert body.endswith(b"\r\n0\r\n\r\n")


def test_lower_case_has_no_upper_case_field_name(fresh):
    fields = [line.partition(b":")[0] for line in framed(fresh, "lower-case")[0].split(b"\r\n")[1:]]
    assert b"content-length" in fields
    assert all(field == field.lower() for field in fields)


def test_split_comes_in_several_records(fresh):
    head, body, pieces = framed(fresh, "split")
    assert len(pieces) > 1
    assert bag(body)
    assert b"Content-Length: %d" % len(body) in head


def test_cut_body_is_shorter_than_its_length_says(fresh):
    head, body, _ = framed(fresh, "cut-body")
    length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
    assert 0 < len(body) < length


def test_a_client_without_user_agent_and_accept_gets_unbroken_base64(fresh):
    """strongSwan 5.9.8 to 5.9.10 reads no line break, and sends neither."""
    with fresh.peer() as peer:
        peer.http.putrequest("GET", f"{EST}/quirk-none/cacerts", skip_accept_encoding=True)
        peer.http.endheaders()
        assert b"\n" not in peer.http.getresponse().read()
        assert b"\n" in peer.ask("GET", "quirk-none/cacerts", User_Agent="test")[2]


# CSR attributes, and keys.


def test_the_attributes_are_what_the_table_says(fresh):
    with fresh.peer() as peer:
        found = {
            quirk: csrattrs.decode_csrattrs(base64.b64decode(peer.ask("GET", f"quirk-{quirk}/csrattrs")[2]))
            for quirk in ("template-only", "unknown-attrs", "pop-wanted")
        }
    template = found["template-only"].template
    assert template is not None
    assert template.key is not None
    assert found["pop-wanted"].oids == ("1.2.840.113549.1.9.7",)
    assert len(found["unknown-attrs"].items) == 3


def keygen(served, quirk):
    with served.peer() as peer:
        _, headers, body = peer.enrol(quirk, operation="serverkeygen")
    key, certificate = multipart.split(headers, body)
    return load_der_private_key(base64.b64decode(key.body), None), bag(certificate.body)[0]


def test_keygen_other_key_sends_a_pair_that_does_not_fit(fresh):
    key, certificate = keygen(fresh, "keygen-other-key")
    assert key.public_key() != certificate.public_key()
    key, certificate = keygen(fresh, "none")
    assert key.public_key() == certificate.public_key()


# Faults of TLS.


def shown(served, quirk):
    with served.peer(served.server.ports[quirk]) as peer:
        return x509.load_der_x509_certificate(peer.http.sock.getpeercert(True)), peer.http.sock.version()


@pytest.mark.parametrize("quirk", [name for name, row in QUIRKS.items() if row.face and name != "tls11"])
def test_a_port_has_the_fault_of_its_name_and_no_other(fresh, quirk):
    certificate, version = shown(fresh, quirk)
    material = fresh.server.material
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usages = {oid.dotted_string for oid in certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value}
    seen = {
        "wrong-host": "localhost" not in san.get_values_for_type(x509.DNSName),
        "expired": certificate.not_valid_after_utc < material.old.certificate.not_valid_before_utc
        or certificate.not_valid_after_utc.timestamp() < time.time(),
        "unknown-ca": not trust.is_signed_by(certificate, material.old.certificate),
        "not-serverauth": "1.3.6.1.5.5.7.3.1" not in usages,
        "ra": "1.3.6.1.5.5.7.3.28" in usages,
        "tls12": version == "TLSv1.2",
    }
    expected = {"ra", "wrong-host"} if quirk == "ra-wrong-host" else {quirk} - {"tls13"}
    assert {name for name, holds in seen.items() if holds} == expected
    fresh.wait(lambda: fresh.handshakes)
    assert fresh.handshakes[-1].quirk == quirk
    assert fresh.handshakes[-1].place is Place.OWN


def test_tls11_refuses_a_client_of_today(fresh):
    with pytest.raises(ssl.SSLError):
        fresh.peer(fresh.server.ports["tls11"])
    fresh.wait(lambda: fresh.handshakes)
    assert fresh.handshakes[-1].fault


def test_all_is_made_anew_at_each_start(serving):
    one, other = serving(), serving()
    assert one.server.material.password != other.server.material.password
    assert one.server.material.own.isdisjoint(other.server.material.own)


def test_the_server_certificate_has_the_names_that_were_given(serving):
    served = serving(names=("Lab.Example", "192.0.2.7"))
    pem = ssl.get_server_certificate(("localhost", served.server.port))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "lab.example" in san.get_values_for_type(x509.DNSName)
    assert "192.0.2.7" in map(str, san.get_values_for_type(x509.IPAddress))
    assert certificate.issuer == common_name("estgw quirk CA, trust it nowhere")
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)


def test_ports_follow_the_first_one_and_a_taken_one_is_named(serving):
    first = serving()
    with pytest.raises(OSError, match=f"127.0.0.1:{first.server.port}: "):
        serving(port=first.server.port)
    with pytest.raises(OSError, match="port 65536 does not exist; choose a lower first port"):
        serving(port=65535)
