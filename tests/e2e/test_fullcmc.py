"""Full CMC through a gateway that runs the shipped scripts of both sets, with openssl and pyasn1 as second opinions."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import re
import secrets
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from pyasn1.codec.der import decoder, encoder
from pyasn1.type import univ
from pyasn1_alt_modules import rfc5652, rfc6402

from estgw.cmc.messages import PKIData, pki_response
from estgw.cmc.requests import PKCS10Request
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cms import signed
from estgw.est import certs
from tests.cmc_service import office as cmc
from tests.kit.cases import some
from tests.kit.connection import V12, Response, request
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, enrol, running_gateway
from tests.kit.processes import run

TYPE = "application/pkcs7-mime; smime-type=CMC-request"
ANSWER = "application/pkcs7-mime; smime-type=CMC-response"
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
SETS = ("fullcmc", "python/fullcmc")

both_sets = pytest.mark.parametrize("path", SETS)


def test_fullcmc_is_off_by_default(own_lab):
    """Otherwise a policy in the script simpleenroll could be bypassed through fullcmc."""
    with running_gateway(own_lab, {"callouts": {"operations": {"fullcmc": None}}}) as gateway:
        answer = gateway.post("fullcmc", b"MAA=", headers={"Content-Type": "application/pkcs7-mime"})
        assert (answer.status, answer.words) == (404, "fullcmc is not switched on here.")


def post(gateway, path, der, **options):
    content_type = options.pop("content_type", TYPE)
    return gateway.post(path, base64.encodebytes(der), headers={"Content-Type": content_type}, **options)


def statuses(answer: Response):
    assert answer.header("Content-Type") == ANSWER
    return pki_response(signed.parse(answer.der)).statuses


def opened(gateway, answer: Response, tmp_path):
    """The PKIResponse, verified by OpenSSL and read by pyasn1: (control OID, values) pairs, and the certificates."""
    (tmp_path / "answer.der").write_bytes(answer.der)
    command = ["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "answer.der", "-purpose", "any"]
    run(*command, "-CAfile", gateway.lab.anchor, "-out", tmp_path / "content", "-certsout", tmp_path / "certs.pem")
    shown = run("openssl", "asn1parse", "-inform", "DER", "-in", tmp_path / "content").stdout.decode()
    assert "id-cmc-statusInfoV2" in shown or "1.3.6.1.5.5.7.7.25" in shown
    response, rest = decoder.decode((tmp_path / "content").read_bytes(), rfc6402.PKIResponse())
    assert not rest
    controls = [
        (str(one["attrType"]), [bytes(value) for value in one["attrValues"]]) for one in response["controlSequence"]
    ]
    return controls, x509.load_pem_x509_certificates((tmp_path / "certs.pem").read_bytes())


@both_sets
def test_fullcmc_enrols_with_a_password_then_renews_with_the_certificate(gateway, tmp_path, path):
    key = cmc.new_key()
    asked = PKCS10Request(17, csr("device-17", x509.SubjectAlternativeName([x509.DNSName("m.example")]), key=key))
    body = cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key))
    assert post(gateway, path, body, login=None).status == 401
    answer = post(gateway, path, body)
    assert (answer.status, [each.words for each in statuses(answer)]) == (200, ["success"])
    _, bag = opened(gateway, answer, tmp_path)
    certificate = next(each for each in bag if each.public_key() == key.public_key())
    gateway.lab.verify(certificate)

    person = cmc.Person(key, certificate)
    pair = (tmp_path / "client.pem", tmp_path / "client.key")
    pair[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    pair[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    body = cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), person)
    renewed = post(gateway, path, body, login=None, certificate=pair)
    assert (renewed.status, [each.words for each in statuses(renewed)]) == (200, ["success"])
    _, bag = opened(gateway, renewed, tmp_path)
    (new,) = (each for each in bag if each.public_key() == key.public_key() and each != certificate)
    assert new.subject == certificate.subject
    again = post(gateway, path, body, login=None, certificate=pair)
    assert again.status == 400
    assert statuses(again)[0].failure == CMCFailInfo.BAD_REQUEST


def holder(lab, usages, *, critical=False):
    """A client with a certificate of the lab's CA for these usages; None leaves the extension out."""
    key, name = cmc.new_key(), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device-20")])
    issuer = x509.load_pem_x509_certificate((lab.ca / "issuer.pem").read_bytes())
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(NOW - timedelta(1)).not_valid_after(NOW + timedelta(5))
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=critical)
    ca_key: Any = load_pem_private_key((lab.ca / "private/cakey.pem").read_bytes(), None)
    return cmc.Person(key, builder.sign(ca_key, SHA256()))


NOW = datetime.now(UTC)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
USAGES = {
    "none": (None, True),
    "clientAuth": ([CLIENT], True),
    "both": ([SERVER, CLIENT], True),
    "RA": ([CLIENT, certs.CMC_RA], True),
    "serverAuth": ([SERVER], False),
    "any": ([ANY], False),
    "the gateway's own": ([SERVER, certs.CMC_RA], False),
    "RA alone": ([certs.CMC_RA], False),
}


@pytest.mark.parametrize(("usage", "critical"), some(itertools.product(USAGES, [False, True]), 3))
def test_fullcmc_renews_the_certificates_that_simplereenroll_renews(gateway, tmp_path, usage, critical):
    usages, good = USAGES[usage]
    person = holder(gateway.lab, usages, critical=critical)
    assert certs.may_authenticate(person.certificate) == good
    pair = (tmp_path / "client.pem", tmp_path / "client.key")
    pair[0].write_bytes(person.certificate.public_bytes(Encoding.PEM))
    pair[1].write_bytes(person.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    wanted = csr("device-20", key=person.key)
    body, headers = base64.encodebytes(wanted), {"Content-Type": "application/pkcs10"}
    simple = gateway.post("simplereenroll", body, headers=headers, login=None, certificate=pair)
    assert (simple.status == 200) == good, simple.words
    body = cmc.message(PKIData(tuple(cmc.fresh()), (PKCS10Request(1, wanted),)), person)
    full = post(gateway, "fullcmc", body)
    assert (full.status, statuses(full)[0].failure) == ((200, None) if good else (403, CMCFailInfo.BAD_IDENTITY))
    if not good:
        assert simple.status == 403
        assert "clientAuth" in statuses(full)[0].text


@both_sets
def test_fullcmc_works_for_messages_of_pyasn1_and_openssl(gateway, tmp_path, path):
    """No code of estgw makes the request or reads the answer."""
    certificate, key = enrol(gateway, tmp_path, "device-18")
    wanted = tmp_path / "wanted.der"
    run("openssl", "req", "-new", "-key", key, "-subj", "/CN=device-18", "-outform", "DER", "-out", wanted)
    data = rfc6402.PKIData()
    nonce, number = b"0123456789abcdef", 4711
    for at, (oid, value) in enumerate(
        (
            (rfc6402.id_cmc_transactionId, univ.Integer(number)),
            (rfc6402.id_cmc_senderNonce, univ.OctetString(nonce)),
            (rfc6402.id_cmc_dataReturn, univ.OctetString(b"keep this")),
        )
    ):
        one = rfc6402.TaggedAttribute()
        one["bodyPartID"], one["attrType"] = at + 1, oid
        one["attrValues"].append(encoder.encode(value))
        data["controlSequence"].append(one)
    inner, _ = decoder.decode(wanted.read_bytes(), rfc6402.CertificationRequest())
    tagged = rfc6402.TaggedRequest()
    tagged["tcr"]["bodyPartID"], tagged["tcr"]["certificationRequest"] = 9, inner
    data["reqSequence"].append(tagged)
    data["cmsSequence"].clear()
    data["otherMsgSequence"].clear()
    (tmp_path / "data").write_bytes(encoder.encode(data))
    command = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-in", tmp_path / "data"]
    command += [
        "-econtent_type",
        "1.3.6.1.5.5.7.12.2",
        "-signer",
        certificate,
        "-inkey",
        key,
        "-out",
        tmp_path / "message",
    ]
    run(*command)
    answer = post(gateway, path, (tmp_path / "message").read_bytes(), login=None, certificate=(certificate, key))
    assert answer.status == 200, answer
    controls, bag = opened(gateway, answer, tmp_path)
    found = dict(controls)
    assert len(found) == len(controls)
    (state,) = found[str(rfc6402.id_cmc_statusInfoV2)]
    told, _ = decoder.decode(state, rfc6402.CMCStatusInfoV2())
    assert (int(told["cMCStatus"]), [int(each["bodyPartID"]) for each in told["bodyList"]]) == (CMCStatus.SUCCESS, [9])
    (number_back,) = found[str(rfc6402.id_cmc_transactionId)]
    assert int(decoder.decode(number_back)[0]) == number
    assert bytes(decoder.decode(found[str(rfc6402.id_cmc_recipientNonce)][0])[0]) == nonce
    assert bytes(decoder.decode(found[str(rfc6402.id_cmc_dataReturn)][0])[0]) == b"keep this"
    assert len(bytes(decoder.decode(found[str(rfc6402.id_cmc_senderNonce)][0])[0])) == 16
    outer, _ = decoder.decode(answer.der, rfc5652.ContentInfo())
    content, _ = decoder.decode(outer["content"], rfc5652.SignedData())
    assert str(content["encapContentInfo"]["eContentType"]) == str(rfc6402.id_cct_PKIResponse)
    old = x509.load_pem_x509_certificate(certificate.read_bytes())
    (new,) = (each for each in bag if each.subject == old.subject)
    assert new.serial_number != old.serial_number
    gateway.lab.verify(new)


@pytest.mark.parametrize("spelling", [TYPE, TYPE.lower(), "application/pkcs7-mime; SMIME-TYPE=cmc-Request"])
def test_f2_the_content_type_is_compared_without_case(gateway, spelling):
    key = cmc.new_key()
    body = cmc.message(PKIData(tuple(cmc.fresh()), (cmc.pkcs10(1, key=key),)), cmc.Person(key))
    assert post(gateway, "fullcmc", body, content_type=spelling).status == 200


@both_sets
@pytest.mark.parametrize(
    "body",
    [b"", b"\x30\x00", b"not a message at all", csr("a PKCS#10")],
    ids=["nothing", "a sequence", "text", "a simple request"],
)
def test_f3_other_bodies_are_refused_with_a_full_pki_response(gateway, path, body):
    before = len(gateway.log)
    answer = post(gateway, path, body)
    assert answer.status == 400
    (only,) = statuses(answer)
    assert (only.status, only.body_list, only.failure) == (CMCStatus.FAILED, (0,), CMCFailInfo.BAD_REQUEST)
    lines = [line["line"] for line in gateway.log[before:] if line["event"] == "handler stderr"]
    assert lines == [f"the message: badRequest: {only.text}"]


@both_sets
def test_f5_a_rejection_contains_a_full_pki_response(gateway, tmp_path, path):
    """A client asks for another's name. The answer has the code and the words; the log names the body part."""
    certificate, key = enrol(gateway, tmp_path, "device-19")
    person = cmc.Person(
        load_pem_private_key(key.read_bytes(), None), x509.load_pem_x509_certificate(certificate.read_bytes())
    )
    body = cmc.message(PKIData(tuple(cmc.fresh()), (cmc.pkcs10(5, "admin", key=person.key),)), person)
    before = len(gateway.log)
    answer = post(gateway, path, body, login=None, certificate=(certificate, key))
    assert answer.status == 403
    (only,) = statuses(answer)
    assert (only.status, only.body_list, only.failure) == (CMCStatus.FAILED, (5,), CMCFailInfo.BAD_IDENTITY)
    opened(gateway, answer, tmp_path)
    (line,) = (line for line in gateway.log[before:] if line["event"] == "handler stderr")
    assert line["line"] == f"body part 5: badIdentity: {only.text}"
    assert line["request_id"] == gateway.access[-1]["request_id"]


def test_a_pkcs10_inside_must_have_the_binding_where_required(own_lab):
    """RFC 7030 3.5: the PKCS#10 inside must have the binding of this connection where the pop rules require it."""
    rules = {"pop": {"rules": [{"operation": "simpleenroll", "pop": "required"}]}}
    key = cmc.new_key()
    person = cmc.Person(key)
    with running_gateway(own_lab, rules, python=True) as gateway, gateway.connect(version=V12) as connection:

        def ask(challenge=None):
            asked = PKCS10Request(3, csr("linked", key=key, challenge=challenge))
            body = base64.encodebytes(cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), person))
            connection.send(request("POST", "fullcmc", body, headers={"Content-Type": TYPE}, login=LOGIN))
            return connection.response("POST")

        binding = base64.b64encode(connection.tls_unique)
        missing = ask()
        assert (missing.status, statuses(missing)[0].failure) == (403, CMCFailInfo.POP_REQUIRED)
        foreign = ask(base64.b64encode(b"another"))
        assert (foreign.status, statuses(foreign)[0].failure) == (403, CMCFailInfo.POP_FAILED)
        linked = ask(binding)
        assert (linked.status, statuses(linked)[0].status) == (200, CMCStatus.SUCCESS)


@both_sets
def test_authorize_decides_about_each_request_inside(own_lab, path):
    """With one refusal the status is partial, and the client can read the words of the refusal."""
    label = path.partition("/")[0] if "/" in path else ""
    directory = "python" if label else "openssl"
    own_lab.script(
        f"handlers/{directory}/authorize",
        'echo "$EST_OPERATION $EST_CMC_REQUEST $EST_CSR_SUBJECT $EST_AUTH_METHODS $EST_POP" >>asked\n'
        '[[ $EST_CSR_SUBJECT != CN=evil ]] || { echo "not on a Monday"; exit 77; }\n'
        "[[ $EST_CSR_SUBJECT != CN=later ]] || exit 75",
    )
    key = cmc.new_key()
    wanted = tuple(cmc.pkcs10(number, name, key=key) for number, name in enumerate(("good", "evil", "later"), 1))
    with running_gateway(own_lab, python=True) as gateway:
        answer = post(gateway, path, cmc.message(PKIData(tuple(cmc.fresh()), wanted), cmc.Person(key)))
        assert answer.status == 200
        found = statuses(answer)
        assert [(each.status, each.body_list) for each in found] == [
            (CMCStatus.PARTIAL, (0,)),
            (CMCStatus.SUCCESS, (1,)),
            (CMCStatus.FAILED, (2,)),
            (CMCStatus.PENDING, (3,)),
        ]
        assert (found[2].failure, found[2].text) == (CMCFailInfo.BAD_IDENTITY, "not on a Monday")
        alone = post(gateway, path, cmc.message(PKIData(tuple(cmc.fresh()), wanted[2:]), cmc.Person(key)))
        assert (alone.status, alone.retries_after(60)) == (202, True)
        assert statuses(alone)[0].status == CMCStatus.PENDING
    asked = (own_lab.path / "handlers" / directory / "asked").read_text().splitlines()
    assert asked == [
        "simpleenroll 1 CN=good http absent",
        "simpleenroll 2 CN=evil http absent",
        "simpleenroll 3 CN=later http absent",
        "simpleenroll 3 CN=later http absent",
    ]


def test_a_shared_secret_alone_gets_a_first_certificate(own_lab, tmp_path):
    """There is no login: the proof of identity authenticates, and popLinkWitnessV2 links (RFC 7030 3.5)."""
    office = cmc.Office(own_lab)
    office.secrets()
    own_lab.edit(
        "handlers/openssl/authorize",
        '[[ $EST_AUTH_METHODS ]] || refuse "who are you?"',
        "[[ $EST_AUTH_METHODS == cmc ]]",
    )
    settings = {
        "callouts": {"operations": {"fullcmc": {"requires": "none"}}},
        "pop": {"rules": [{"operation": "simpleenroll", "pop": "required"}]},
    }
    key = cmc.new_key()
    random = secrets.token_bytes(64)
    asked = cmc.linked_pkcs10(1, "device-7", key=key, random=random)
    controls = [*cmc.fresh(), *cmc.proof([asked]), cmc.control("popLinkRandom", random)]
    with running_gateway(own_lab, settings) as gateway:
        answer = post(gateway, "fullcmc", cmc.message(PKIData(tuple(controls), (asked,)), cmc.Person(key)), login=None)
        assert (answer.status, [each.words for each in statuses(answer)]) == (200, ["success"])
        found, _ = opened(gateway, answer, tmp_path)
        assert "1.3.6.1.5.5.7.7.26" in dict(found), "a bootstrapping client is told the anchors"
        wrong = [*cmc.fresh(), *cmc.proof([asked], secret="guess"), cmc.control("popLinkRandom", random)]
        answer = post(gateway, "fullcmc", cmc.message(PKIData(tuple(wrong), (asked,)), cmc.Person(key)), login=None)
        assert (answer.status, statuses(answer)[0].failure) == (403, CMCFailInfo.BAD_IDENTITY)
        nobody = cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key))
        answer = post(gateway, "fullcmc", nobody, login=None)
        assert (answer.status, statuses(answer)[0].failure) == (403, CMCFailInfo.BAD_IDENTITY)


@pytest.mark.parametrize("runner", ["exec", "fork", "pool"])
def test_every_runner_refuses_a_message_sent_twice(own_lab, runner):
    """The same message is sent on two connections at the same time and gets one certificate."""
    key = cmc.new_key()
    with running_gateway(own_lab, {"labels": {"python": {"runner": runner}}}) as gateway:
        for _ in range(2):
            asked = PKIData(tuple(cmc.fresh()), (cmc.pkcs10(1, key=key),))
            body = base64.encodebytes(cmc.message(asked, cmc.Person(key)))
            with gateway.connect() as one, gateway.connect() as other:
                for connection in (one, other):
                    connection.send(
                        request("POST", "python/fullcmc", body, headers={"Content-Type": TYPE}, login=LOGIN)
                    )
                answers = [one.response("POST"), other.response("POST")]
            assert sorted(answer.status for answer in answers) == [200, 400]
    with contextlib.closing(sqlite3.connect(own_lab.ca / "certs.sqlite")) as db:
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        query = "SELECT operation, label, length(pending_id) FROM certificates WHERE spki_sha256 = ?"
        rows = db.execute(query, [hashlib.sha256(spki).hexdigest()]).fetchall()
    assert rows == [("fullcmc", "python", 64)] * 2


def test_a_ca_that_cannot_sign_is_a_500(own_lab):
    (own_lab.ca / "private/cakey.pem").rename(own_lab.path / "gone")
    (own_lab.ca / "server.pem").rename(own_lab.ca / "own.pem")
    key = cmc.new_key()
    settings = {"tls": {"certificate": "openssl-ca/own.pem"}}
    with running_gateway(own_lab, settings) as gateway:
        answer = post(gateway, "fullcmc", cmc.message(PKIData((), (cmc.pkcs10(1, key=key),)), cmc.Person(key)))
        assert answer.status == 500
        assert re.search(r"cakey\.pem can't be used", gateway.log_text)
