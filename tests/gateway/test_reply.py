"""From a handler's output, or an error, to the HTTP response."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from estgw import __version__, errors
from estgw.callout.call import Call
from estgw.callout.cgi import Output
from estgw.errors import HandlerFailed, RequestError
from estgw.est import encoding
from estgw.est.answers import Answer
from estgw.est.csr import parse
from estgw.est.csrattrs import decode_csrattrs
from estgw.est.operations import OPERATIONS, Body, Operation, Profile, Requires
from estgw.gateway import reply
from tests.callout.calls import CA, plain, route
from tests.kit.ca import certificate
from tests.kit.csr import csr
from tests.kit.der import SEQUENCE, VECTORS, armoured, oid, tlv
from tests.kit.keys import OTHER, key_pem

LEAF = certificate(CA)
LEAF_PEM = LEAF.public_bytes(Encoding.PEM)
CHALLENGE_PASSWORD = "1.2.840.113549.1.9.7"
CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"


def call(operation: str = "simpleenroll", **changes: Any) -> Call:
    return plain(Path("/tmp"), operation, **changes)


def to_wire(operation: str, output: bytes | Output, made: Call | None = None, **route_changes: Any) -> Answer:
    output = output if isinstance(output, Output) else Output(output)
    made = made or call(operation)
    made = replace(made, route=replace(made.route, **route_changes))
    return reply.to_wire(made, output, columns=64, linking_attribute="challengePassword")


def answer(operation: str, output: bytes | Output, profile: Profile = Profile.RFC) -> web.Response:
    output = output if isinstance(output, Output) else Output(output)
    return reply.success(OPERATIONS[operation], profile, output, to_wire(operation, output))


def told(response: web.Response) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in response.headers.items() if name != "Server"}
    return response.status, headers, response.body if isinstance(response.body, bytes) else b""


# Success.


def test_enrolment_answers_200_with_certs_only_in_base64():
    status, headers, body = told(answer("simpleenroll", LEAF_PEM))
    assert status == 200
    assert headers == {"Content-Type": CERTS_ONLY, "Content-Transfer-Encoding": "base64"}
    assert body.endswith(b"\n")


def test_answers_name_the_server_and_its_version():
    assert answer("simpleenroll", LEAF_PEM).headers["Server"] == f"estgw/{__version__}"


@pytest.mark.parametrize(
    ("operation", "output", "rfc", "draft"),
    [
        ("cacerts", LEAF_PEM, "application/pkcs7-mime", "application/pkcs7-mime"),
        ("simpleenroll", LEAF_PEM, CERTS_ONLY, "application/pkcs7-mime"),
        ("simplereenroll", LEAF_PEM, CERTS_ONLY, "application/pkcs7-mime"),
        ("csrattrs", tlv(SEQUENCE), "application/csrattrs", "application/csrattrs"),
    ],
)
def test_content_type_follows_the_operation_and_the_profile(operation, output, rfc, draft):
    assert answer(operation, output).headers["Content-Type"] == rfc
    assert answer(operation, output, Profile.DRAFT).headers["Content-Type"] == draft


def test_a_keygen_answer_names_its_boundary():
    made = answer("serverkeygen", key_pem(OTHER) + certificate(CA, key=OTHER).public_bytes(Encoding.PEM))
    assert made.headers["Content-Type"] == "multipart/mixed; boundary=estgw-serverkeygen"
    assert "Content-Transfer-Encoding" not in made.headers


def test_headers_of_the_handler_replace_the_defaults():
    output = Output(LEAF_PEM, None, {"Content-Type": "a/b", "X-Serial": "5"})
    headers = told(answer("simpleenroll", output))[1]
    assert (headers["Content-Type"], headers["X-Serial"]) == ("a/b", "5")


def test_a_handlers_own_status_and_body_go_out_unchanged():
    output = Output(b"moved", 307, {"Location": "https://x/", "Content-Type": "text/plain"})
    assert told(answer("simpleenroll", output)) == (
        307,
        {"Location": "https://x/", "Content-Type": "text/plain"},
        b"moved",
    )


@pytest.mark.parametrize("output", [b"", b"\n", b" \r\n"])
def test_csrattrs_without_output_answers_204(output):
    status, headers, body = told(answer("csrattrs", output))
    assert (status, headers, body) == (204, {}, b"")


def test_a_204_drops_the_handlers_content_type():
    made = told(answer("csrattrs", Output(b"text", 204, {"Content-Type": "text/plain", "X-A": "1"})))
    assert made == (204, {"X-A": "1"}, b"")


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {"csrattrs"}))
@pytest.mark.parametrize("output", [b"", b"\n"])
def test_empty_output_of_other_operations_is_a_handler_fault(operation, output):
    with pytest.raises(HandlerFailed) as raised:
        to_wire(operation, output)
    assert str(raised.value) == f"{operation}: printed nothing"
    assert raised.value.public == "The server could not do this. Its log says why, under request 0123456789."


@pytest.mark.parametrize("operation", sorted(OPERATIONS.keys() - {"serverkeygen"}))
def test_junk_output_is_a_handler_fault_that_the_client_does_not_see(operation):
    with pytest.raises(HandlerFailed) as raised:
        to_wire(operation, b"Signature ok")
    assert str(raised.value).startswith(f"{operation}: ")
    assert "Signature" not in raised.value.public


def test_raw_output_goes_out_unchecked():
    assert to_wire("simpleenroll", b"\0junk", raw_output=True) == Answer(b"\0junk")
    assert to_wire("simpleenroll", b"", raw_output=True) == Answer(b"")


def test_a_configured_operation_answers_with_its_own_type():
    crls = Operation("crls", "crls", "GET", (), "application/pkix-crl", Body.RAW, Requires.NONE)
    asked = replace(call("cacerts"), route=route(crls))
    made = reply.to_wire(asked, Output(b"x"), columns=64, linking_attribute="challengePassword")
    assert told(reply.success(crls, Profile.RFC, Output(b"x"), made)) == (
        200,
        {"Content-Type": "application/pkix-crl"},
        b"x",
    )


def test_a_certificate_for_another_key_than_the_csrs_is_logged():
    made = call("simpleenroll", csr=parse(csr(key=OTHER)))
    with capture_logs() as lines:
        to_wire("simpleenroll", LEAF_PEM, made)
    assert [line["event"] for line in lines] == ["the certificate issued is for another key than the CSR's"]


def test_a_certificate_with_an_unreadable_key_is_logged_as_another_key():
    """The certificate's curve is unknown. The script answers for it, so the client gets no error."""
    known, odd = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    leaf = encoding.pem_blocks(LEAF_PEM)[0].der
    assert leaf.count(known) == 1
    with capture_logs() as lines:
        made = to_wire("simpleenroll", leaf.replace(known, odd), call("simpleenroll", csr=parse(csr(key=OTHER))))
    assert made.issued is not None
    assert [line["event"] for line in lines] == ["the certificate issued is for another key than the CSR's"]
    with capture_logs() as lines:
        to_wire("simpleenroll", LEAF_PEM, call("simpleenroll", csr=parse(csr())))
    assert lines == []


def test_to_wire_returns_the_issued_certificate_for_the_log():
    assert to_wire("simpleenroll", LEAF_PEM).issued == LEAF


# csrattrs announces that linking is required, even if the handler does not (RFC 7030 4.5.2).


@pytest.mark.parametrize(
    ("output", "der"),
    [
        (b"", tlv(SEQUENCE, oid(CHALLENGE_PASSWORD))),
        (tlv(SEQUENCE), tlv(SEQUENCE, oid(CHALLENGE_PASSWORD))),
        (tlv(SEQUENCE, oid(CHALLENGE_PASSWORD)), tlv(SEQUENCE, oid(CHALLENGE_PASSWORD))),
    ],
)
def test_csrattrs_announces_that_linking_is_required(output, der):
    made = to_wire("csrattrs", output, call("csrattrs", pop_required=True))
    assert base64.b64decode(made.body) == der
    assert told(reply.success(OPERATIONS["csrattrs"], Profile.RFC, Output(output), made))[0] == 200


def test_csrattrs_announces_linking_beside_the_handlers_attributes():
    wishes = tlv(SEQUENCE, oid("1.2.3"))
    made = base64.b64decode(to_wire("csrattrs", wishes, call("csrattrs", pop_required=True)).body)
    assert oid("1.2.3") in made
    assert oid(CHALLENGE_PASSWORD) in made


def test_junk_csrattrs_are_a_handler_fault_with_linking_too():
    with pytest.raises(HandlerFailed):
        to_wire("csrattrs", b"junk", call("csrattrs", pop_required=True))
    with pytest.raises(HandlerFailed):
        to_wire("csrattrs", armoured(tlv(SEQUENCE, tlv(2, b"\5")), "X"), call("csrattrs", pop_required=True))


# csrattrs in YAML.


def test_csrattrs_in_yaml_are_encoded_as_in_rfc_9908():
    yaml = b"- challengePassword\n- key: ec:P-384\n- macAddress\n- ecdsa-with-SHA384\n"
    vector = (VECTORS / "rfc9908-5.2-rfc7030-example-corrected.b64").read_bytes()
    assert base64.b64decode(to_wire("csrattrs", yaml).body) == base64.b64decode(vector)


def test_csrattrs_in_yaml_without_attributes_answers_204():
    assert told(answer("csrattrs", b"# nothing today\n")) == (204, {}, b"")


@pytest.mark.parametrize(
    ("yaml", "faults"),
    [
        (b"- serialNumbr\n", "stdout:1:3: 0: 'serialNumbr' is no name known here; do you mean serialNumber?"),
        (b"- serialNumber\n- NO\n", 'stdout:2:3: YAML reads NO as a bool; quote it: "NO"'),
        (
            b"- key: rsa:100\n- x y\n",
            "stdout:1:3: 0.key: an RSA key has 1024 to 16384 bits, not '100'; stdout:2:3: 1: ",
        ),
    ],
)
def test_faults_in_csrattrs_yaml_are_logged_with_line_and_column(yaml, faults):
    with pytest.raises(HandlerFailed) as raised:
        to_wire("csrattrs", yaml)
    assert faults in str(raised.value)
    assert "stdout" not in raised.value.public


def test_linking_is_announced_in_yaml_and_inside_its_template():
    """RFC 9908 4: a client that knows templates ignores the bare OID."""
    yaml = b"- serialNumber\n- template:\n    key: ec:P-256\n"
    made = to_wire("csrattrs", yaml, call("csrattrs", pop_required=True))
    attrs = decode_csrattrs(base64.b64decode(made.body))
    assert attrs.oids == ("2.5.4.5", CHALLENGE_PASSWORD)
    assert attrs.template is not None
    assert [attribute.oid for attribute in attrs.template.attributes] == [CHALLENGE_PASSWORD]
    nothing = to_wire("csrattrs", b"# nothing\n", call("csrattrs", pop_required=True))
    assert base64.b64decode(nothing.body) == tlv(SEQUENCE, oid(CHALLENGE_PASSWORD))


# Refusals.


def refuse(error: RequestError, operation: str | None = "simpleenroll", challenges: tuple[str, ...] = ()) -> Any:
    return told(reply.refusal(error, operation=operation, challenges=list(challenges)))


TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@pytest.mark.parametrize(
    ("error", "answered"),
    [
        (errors.BadRequest("The CSR is bad."), (400, TEXT, b"The CSR is bad.\n")),
        (errors.Forbidden("No, Zoë."), (403, TEXT, "No, Zoë.\n".encode())),
        (errors.MethodNotAllowed("It is a GET.", "GET"), (405, {**TEXT, "Allow": "GET"}, b"It is a GET.\n")),
        (errors.Unavailable("Busy.", retry_after=5), (503, {**TEXT, "Retry-After": "5"}, b"Busy.\n")),
        (errors.Pending(60), (202, {"Retry-After": "60"}, b"")),
        (errors.HandlerFailed("Sorry.", log="secret"), (500, TEXT, b"Sorry.\n")),
        (errors.RequestError(""), (500, {}, b"")),
        (errors.NotFound("No such EST operation here."), (404, TEXT, b"No such EST operation here.\n")),
    ],
)
def test_a_refusal_has_its_status_headers_and_text(error, answered):
    assert refuse(error) == answered


def test_a_404_for_csrattrs_is_empty():
    assert refuse(errors.NotFound("Not switched on."), "csrattrs") == (404, {}, b"")
    assert refuse(errors.NotFound("Not switched on."), None)[2] != b""


def test_a_401_is_empty_and_has_its_challenges_in_order():
    response = reply.refusal(
        errors.Unauthenticated("words", log="wrong"), operation="simpleenroll", challenges=["Digest x", "Basic y"]
    )
    assert (response.status, response.body) == (401, b"")
    assert response.headers.getall("WWW-Authenticate") == ["Digest x", "Basic y"]
    assert "Content-Type" not in response.headers or response.headers["Content-Type"] != TEXT["Content-Type"]


def test_a_401_without_a_challenge_is_a_403():
    status, headers, body = refuse(errors.Unauthenticated(log="no credentials"))
    assert (status, headers) == (403, TEXT)
    assert b"Passwords are not taken here" in body


def test_only_a_401_has_challenges():
    assert "WWW-Authenticate" not in refuse(errors.Forbidden("No."), challenges=("Basic x",))[1]


@pytest.mark.parametrize(("error", "kept"), [(errors.BadRequest("x"), None), (errors.TooLarge("x"), False)])
def test_an_unread_body_ends_the_connection(error, kept):
    assert reply.refusal(error, operation=None, challenges=[]).keep_alive is kept
