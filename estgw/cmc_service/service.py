"""fullcmc from the message that comes in to the one that goes out (RFC 5272 3.2, 4.2).

Every end but one is a signed response: a client gets none only from a CA that can't sign.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

from estgw.cmc import references
from estgw.cmc.controls import Taken
from estgw.cmc.messages import BadMessage, Layer, PKIData, layers, pki_data
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service import confirmation, controls, inner_request, ra, replay, signer
from estgw.cmc_service.answer import Answer, Refused
from estgw.cmc_service.ca import CA, CABusy, CADeclined, CAError, CAFailed
from estgw.cmc_service.exchange import Exchange, Service
from estgw.cmc_service.policy import Policy
from estgw.cmc_service.state import Full, State
from estgw.cms import signed
from estgw.errors import Malformed, spread
from estgw.est import certs, encoding
from estgw.gateway import enclosed
from estgw.register.engine import RegisterBusy, RegisterError

AUTHENTICATED_DATA = "1.2.840.113549.1.9.16.1.2"
MARGIN = 2
"""Seconds for signing and printing, before the gateway ends the script."""
MAXIMUM_REQUESTS = 100
"""In all messages together."""
IN_REQUESTS = ("popLinkWitness", "popLinkWitnessV2")
"""Attributes of a request, which are no controls of the message around it (RFC 5272 6.3.1)."""
SINGLE = (
    "transactionId", "senderNonce", "recipientNonce", "identification", "identityProof", "identityProofV2",
    "popLinkRandom",
)  # fmt: skip
"""Controls of which a message has at most one."""


def main(policy: Policy, ca: CA) -> int:
    """Answer the message on standard input; the exit status."""
    outer = enclosed.read(os.environ)
    deadline = time.monotonic() + max(1, outer.timeout - MARGIN)
    try:
        key, chain = ca.responder
    except CAFailed as fault:
        print(fault, file=sys.stderr)
        return os.EX_CONFIG
    answer = Answer()

    def receive() -> None:
        der = encoding.decode(sys.stdin.buffer.read(), certs.PKCS7_LABELS)
        message = _parse(der)
        data = pki_data(message)
        answer.echo = data.controls
        _require_sound(data)
        state = State(ca.directory, outer.timeout / 4)
        _serve(Service(policy, ca, state, outer, deadline), message, data, der, answer)

    guarded(answer, (), receive)
    body = answer.seal(key, chain)
    head = [f"Status: {answer.http_status}"]
    if answer.http_status in (202, 503):
        head.append(f"Retry-After: {spread(policy.retry)}")
    sys.stdout.buffer.write("\n".join([*head, "", ""]).encode() + body)
    sys.stdout.flush()
    return os.EX_OK


def guarded(answer: Answer, parts: tuple[int, ...], work: Callable[[], None]) -> None:
    """Do some work.  A fault becomes the status of these parts, and the log has the reason."""
    try:
        work()
    except Refused as why:
        answer.bad(why, *parts)
    except Malformed as fault:
        if isinstance(fault, BadMessage) and not answer.echo:
            answer.echo = fault.controls
        answer.bad(Refused.by(fault), *parts)
    except Full as why:
        print(f"the register has no room for more of the kind {why.kind}", file=sys.stderr)
        answer.bad(Refused(CMCFailInfo.TRY_LATER, str(why)), *parts)
    except CADeclined as why:
        answer.bad(Refused(CMCFailInfo.BAD_REQUEST, str(why)), *parts)
    except CABusy:
        answer.bad(_excuse(busy=True), *parts)
    except CAError as fault:
        print(fault, file=sys.stderr)
        answer.bad(_excuse(busy=False), *parts)
    except (RegisterError, OSError) as fault:
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
        answer.bad(_excuse(busy=isinstance(fault, RegisterBusy)), *parts)
    except SystemExit as end:  # a function of the policy may end so, with words in the log
        answer.bad(_excuse(busy=end.code == os.EX_UNAVAILABLE), *parts)
    except Exception:  # noqa: BLE001 - certificates may have been issued, which the client is to get
        import traceback

        traceback.print_exc()
        answer.bad(_excuse(busy=False), *parts)


def _excuse(*, busy: bool) -> Refused:
    """The refusal for a fault on this side."""
    if busy:
        return Refused(CMCFailInfo.TRY_LATER, "the CA is busy")
    return Refused(CMCFailInfo.INTERNAL_CA_ERROR, "the CA could not do it")


def _serve(service: Service, message: signed.SignedData, data: PKIData, der: bytes, answer: Answer) -> None:
    """Find the signer of a message, then serve its parts."""
    _revoke_overdue(service)
    client = signer.identify(service, message, data)
    tree = list(layers(message))
    references.check(tree)
    if sum(len(layer.data.requests) for layer in tree) > MAXIMUM_REQUESTS:
        raise Refused(CMCFailInfo.BAD_REQUEST, f"more than {MAXIMUM_REQUESTS} requests in one message")
    statements = ra.Statements([((), data)] if client.is_ra else [], ())
    _require_known(data, client.is_ra, statements)
    if not client.is_authenticated:
        _require_nothing(data)
    full, kept = None, None
    if client.is_authenticated and not _only_revokes(tree):
        try:
            kept = replay.require_new(service, client, message, data, der)
        except Full as why:
            full = why
    exchange = Exchange(service, client, client.is_ra, data, statements, answer, full)
    _process(exchange, tree)
    if service.policy.anchors and client.certificate is None:
        answer.extra.append(("trustedAnchors", controls.trust_anchors(service.ca)))
    replay.expect_next(service, client, data, answer)
    if kept is not None and {each.status for each in answer.statuses} == {CMCStatus.PENDING}:
        service.state.drop(*kept)  # an EST client sends the same message again for what waits (RFC 7030 4.2.3)


def _parse(der: bytes) -> signed.SignedData:
    try:
        return signed.parse(der)
    except Malformed as fault:
        if AUTHENTICATED_DATA in str(fault):
            raise Refused(CMCFailInfo.AUTH_DATA_FAIL, "AuthenticatedData is not taken here: sign the message") from None
        raise


def _process(exchange: Exchange, tree: list[Layer]) -> None:
    """Every part of one message, each for itself; then the messages inside, which only an RA may send."""
    data, answer, statements = exchange.data, exchange.answer, exchange.statements
    for control in data.controls:
        if control.body_part_id not in statements.processed:
            guarded(answer, (control.body_part_id,), partial(controls.handle, exchange, control))
    for request in data.requests:
        guarded(answer, (request.body_part_id,), partial(inner_request.handle, exchange, request))
    path = statements.path
    inside = {layer.path[-1]: layer for layer in tree if layer.path and layer.path[:-1] == path}
    for number in [each.body_part_id for each in data.cms] + [each.body_part_id for each in data.others]:
        if number not in inside:
            answer.bad(Refused(None, "a message of a kind that is not known", (number,), CMCStatus.NO_SUPPORT))
            continue
        layer = inside[number]
        inner = Answer(echo=layer.data.controls)
        guarded(inner, (), partial(_process_inner, exchange, tree, layer, inner))
        if ra.is_batch(data, number):
            answer.nested.append((number, inner.seal(*exchange.service.ca.responder)))
            answer.certificates += inner.certificates
            answer.statuses += ra.summary(inner, number)
        else:
            answer.absorb(inner, number)


def _process_inner(exchange: Exchange, tree: list[Layer], layer: Layer, answer: Answer) -> None:
    """A message that an RA has wrapped: its signatures must be good, and the RA is its signer."""
    if not exchange.is_by_ra:
        raise Refused(CMCFailInfo.BAD_IDENTITY, "only an RA may wrap messages of others")
    service, data, by = exchange.service, layer.data, exchange.statements.by
    _require_sound(data)
    above = ra.Statements(by, layer.path)
    client, is_by_ra = signer.identify_inner(
        service, layer.message, data, exchange.signer, is_checked=above.identity(data)
    )
    statements = ra.Statements([*by, (layer.path, data)], layer.path) if is_by_ra else above
    _require_known(data, is_by_ra, statements)
    _process(Exchange(service, client, is_by_ra, data, statements, answer, exchange.full), tree)


def _require_sound(data: PKIData) -> None:
    """Each control can be read, and a message has at most one of those in `SINGLE`; raises `BadMessage`."""
    for control in data.controls:
        try:
            _ = (
                control.all_values
                if control.name in ("statusInfo", "statusInfoV2") or not control.row
                else control.value
            )
        except Malformed as fault:
            raise BadMessage(str(fault), (control.body_part_id,), data.ids, data.controls) from None
    for name in SINGLE:
        data.one(name)


def _require_known(data: PKIData, is_by_ra: bool, statements: ra.Statements) -> None:
    """No control may be ignored (RFC 5272 3.2.1.1), except those that an RA has processed (6.19)."""
    processed = statements.processed
    for control in data.controls:
        if control.body_part_id in processed:
            continue
        part = (control.body_part_id,)
        if control.name == "authData":
            raise Refused(CMCFailInfo.AUTH_DATA_FAIL, "AuthenticatedData is not taken here", part)
        if control.row is not None and control.row.taken is Taken.REFUSED:
            raise Refused(None, f"{control.words} is not offered here", part, CMCStatus.NO_SUPPORT)
        if control.row is None or control.row.taken is Taken.MISPLACED or control.name in IN_REQUESTS:
            raise Refused(CMCFailInfo.BAD_REQUEST, f"{control.words} has no place in a request here", part)
        if control.name in ra.CONTROLS and not is_by_ra:
            raise Refused(CMCFailInfo.BAD_IDENTITY, f"{control.words} is for RAs", part)
        if control.name in ("statusInfo", "statusInfoV2", "regInfo"):
            print(f"{control.words}: read, and without consequence", file=sys.stderr)


def _require_nothing(data: PKIData) -> None:
    """An unknown client may revoke by passphrase, or ask for the anchors before its first certificate."""
    asks = [each.body_part_id for each in data.controls if not controls.is_open_to_all(each)]
    asks += [each.body_part_id for each in (*data.requests, *data.cms, *data.others)]
    asks += [each.body_part_id for each in data.find("revokeRequest")[1:]]  # a passphrase costs time to check
    if asks:
        raise Refused(
            CMCFailInfo.BAD_IDENTITY, "nobody answers for this message: no signer of ours, no proof of identity", asks
        )


def _only_revokes(tree: list[Layer]) -> bool:
    """Whether a message asks for nothing but revocation, which is not remembered, so that no full table stops it.

    It can come twice: revoking what is revoked changes nothing, and nobody can undo a revocation by a message, as
    removeFromCRL is not taken (RFC 5272 6.11).
    """
    return not any(
        layer.data.requests
        or any(controls.ASKING.keys() & {each.name} - {"revokeRequest"} for each in layer.data.controls)
        for layer in tree
    )


def _revoke_overdue(service: Service) -> None:
    """Revoke certificates whose confirmation did not come in time (RFC 5272 6.14)."""
    enough = time.monotonic() + service.outer.timeout / 4
    for certificate in confirmation.overdue(service.state):
        if time.monotonic() > enough:
            return
        serial = certs.serial_hex(certificate)
        try:
            service.ca.revoke(certificate, "cessationOfOperation")
        except CAError as fault:
            print(f"nobody has confirmed {serial}, and it could not be revoked: {fault}", file=sys.stderr)
            return  # do not let this client wait longer for another client's certificate
        confirmation.close(service.state, certificate)
        print(f"nobody has confirmed {serial}: revoked", file=sys.stderr)
