"""fullcmc from the message that comes in to the one that goes out (RFC 5272 3.2, 4.2).

Every end but one is a signed response: only a CA that can't sign leaves the client without.
"""

import os
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cmc_ca import Books

from estgw.cmc import references
from estgw.cmc.controls import Taken
from estgw.cmc.messages import BadMessage, Layer, PKIData, layers, pki_data
from estgw.cmc.status import CMCFailInfo, CMCStatus
from estgw.cmc_service import controls, inner_request, pending, ra
from estgw.cmc_service.answer import Answer, Refused
from estgw.cmc_service.exchange import Case
from estgw.cmc_service.policy import Policy, Who
from estgw.cmc_service.signer import Desk
from estgw.cmc_service.state import Full, State, mark
from estgw.cms import signed
from estgw.errors import Malformed
from estgw.est import certs, encoding

AUTHENTICATED_DATA = "1.2.840.113549.1.9.16.1.2"
MARGIN = 2  # seconds before the gateway ends us, for signing and printing
CESSATION = 5  # cessationOfOperation
MOST_REQUESTS = 100  # in all messages together
IN_REQUESTS = ("popLinkWitness", "popLinkWitnessV2")  # attributes of a request, not of the message around it
SINGLE = (
    "transactionId", "senderNonce", "recipientNonce", "identification", "identityProof", "identityProofV2",
    "popLinkRandom",
)  # fmt: skip


def main(policy: Policy) -> int:
    """Answer the message on standard input; the exit status."""
    deadline = time.monotonic() + max(1, int(os.environ["EST_TIMEOUT"]) - MARGIN)
    books = Books(Path(os.environ["EST_CA_DIR"]))
    signer, chain = books.signer
    answer = Answer()
    guarded(answer, (), partial(_receive, policy, books, answer, deadline))
    body = answer.seal(signer, chain)
    head = [f"Status: {answer.http_status}"]
    if answer.http_status in (202, 503):
        head.append(f"Retry-After: {policy.retry}")
    sys.stdout.buffer.write("\n".join([*head, "", ""]).encode() + body)
    sys.stdout.flush()
    return os.EX_OK


def guarded(answer: Answer, parts: tuple[int, ...], work: Callable[[], None]) -> None:
    """Do some work; whatever goes wrong with it becomes the status of these parts, and the log has the reason."""
    try:
        work()
    except Refused as why:
        answer.bad(why, *parts)
    except Malformed as fault:
        if isinstance(fault, BadMessage) and not answer.echo:
            answer.echo = fault.controls
        answer.bad(Refused.by(fault), *parts)
    except Full as why:
        print(f"cmc.sqlite has no room for more of the kind {why.kind}", file=sys.stderr)
        answer.bad(Refused(CMCFailInfo.TRY_LATER, str(why)), *parts)
    except (sqlite3.Error, OSError) as fault:
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
        answer.bad(_excuse(busy=getattr(fault, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY), *parts)
    except SystemExit as end:  # ca.py and store.py end so, with words in the log
        answer.bad(_excuse(busy=end.code == os.EX_UNAVAILABLE), *parts)
    except Exception:  # noqa: BLE001 - certificates may have been issued: the client is to have them
        traceback.print_exc()
        answer.bad(_excuse(busy=False), *parts)


def _excuse(*, busy: bool) -> Refused:
    """For what is nobody's fault but ours."""
    if busy:
        return Refused(CMCFailInfo.TRY_LATER, "the CA is busy")
    return Refused(CMCFailInfo.INTERNAL_CA_ERROR, "the CA could not do it")


def _receive(policy: Policy, books: Books, answer: Answer, deadline: float) -> None:
    """From bytes to a message that somebody answers for, then to its parts."""
    der = encoding.decode(sys.stdin.buffer.read(), certs.PKCS7_LABELS)
    message = _parse(der)
    data = pki_data(message)
    answer.echo = data.controls
    _require_sound(data)
    state = State(books.folder)
    try:
        _sweep(books, state)
        desk = Desk(policy, books, state)
        who = desk.identify(message, data) if message.signers else Who("nobody", is_authenticated=False)
        tree = list(layers(message))
        references.check(tree)
        if sum(len(layer.data.requests) for layer in tree) > MOST_REQUESTS:
            raise Refused(CMCFailInfo.BAD_REQUEST, f"more than {MOST_REQUESTS} requests in one message")
        said = ra.Statements([((), data)] if who.is_ra else [], ())
        _require_known(data, who.is_ra, said)
        if not who.is_authenticated:
            _require_nothing(data)
        full, kept = None, None
        if who.is_authenticated and not _only_revokes(tree):
            try:
                kept = _require_new(policy, state, who, message, data, der)
            except Full as why:
                full = why
        _process(Case(policy, books, state, who, who.is_ra, data, said, answer, deadline, full), desk, tree)
        if policy.anchors and who.certificate is None:
            answer.extra.append(("trustedAnchors", controls.trust_anchors(books)))
        _expect_next(policy, state, who, data, answer)
        if kept is not None and {each.status for each in answer.statuses} == {CMCStatus.PENDING}:
            state.drop(*kept)  # nothing came of it yet: the same again is how EST asks again (RFC 7030 4.2.3)
    finally:
        state.close()


def _parse(der: bytes) -> signed.SignedData:
    try:
        return signed.parse(der)
    except Malformed as fault:
        if AUTHENTICATED_DATA in str(fault):
            raise Refused(CMCFailInfo.AUTH_DATA_FAIL, "AuthenticatedData is not taken here: sign the message") from None
        raise


def _process(case: Case, desk: Desk, tree: list[Layer]) -> None:
    """Every part of one message, each for itself; then the messages inside, which only an RA may send."""
    for control in case.data.controls:
        if control.body_part_id not in case.said.processed:
            guarded(case.answer, (control.body_part_id,), partial(controls.handle, case, control))
    for request in case.data.requests:
        guarded(case.answer, (request.body_part_id,), partial(inner_request.handle, case, request))
    path = case.said.path
    inside = {layer.path[-1]: layer for layer in tree if layer.path and layer.path[:-1] == path}
    parts = [each.body_part_id for each in case.data.cms] + [each.body_part_id for each in case.data.others]
    for number in parts:
        if number not in inside:
            case.answer.bad(Refused(None, "a message of a kind that is not known", (number,), CMCStatus.NO_SUPPORT))
            continue
        layer = inside[number]
        answer = Answer(echo=layer.data.controls)
        guarded(answer, (), partial(_process_inner, case, desk, tree, layer, answer))
        if ra.is_batch(case.data, number):
            case.answer.nested.append((number, answer.seal(*case.books.signer)))
            case.answer.certificates += answer.certificates
            case.answer.statuses += ra.summary(answer, number)
        else:
            case.answer.absorb(answer, number)


def _process_inner(case: Case, desk: Desk, tree: list[Layer], layer: Layer, answer: Answer) -> None:
    """A message that an RA has wrapped: it must be sound, but it is the RA who answers for it."""
    if not case.ra:
        raise Refused(CMCFailInfo.BAD_IDENTITY, "only an RA may wrap messages of others")
    data = layer.data
    _require_sound(data)
    above = ra.Statements(case.said.by, layer.path)
    who, by_ra = desk.identify_inner(layer.message, data, case.who, vouched=above.identity(data))
    said = ra.Statements([*case.said.by, (layer.path, data)], layer.path) if by_ra else above
    _require_known(data, by_ra, said)
    inner = Case(case.policy, case.books, case.state, who, by_ra, data, said, answer, case.deadline, case.full)
    _process(inner, desk, tree)


def _require_sound(data: PKIData) -> None:
    """Each control can be read, and there is one of a kind where one is meant; raises `BadMessage`."""
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


def _require_known(data: PKIData, by_ra: bool, said: ra.Statements) -> None:
    """No control may go unheeded (RFC 5272 3.2.1.1), but for those that an RA has dealt with (6.19)."""
    processed = said.processed
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
        if control.name in ra.CONTROLS and not by_ra:
            raise Refused(CMCFailInfo.BAD_IDENTITY, f"{control.words} is for RAs", part)
        if control.name in ("statusInfo", "statusInfoV2", "regInfo"):
            print(f"{control.words}: read, and without consequence", file=sys.stderr)


def _require_nothing(data: PKIData) -> None:
    """From somebody unknown: a revocation by passphrase, or a bootstrapping client that wants the anchors."""
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
        or any(controls.SERVICES.keys() & {each.name} - {"revokeRequest"} for each in layer.data.controls)
        for layer in tree
    )


def _require_new(
    policy: Policy, state: State, who: Who, message: signed.SignedData, data: PKIData, der: bytes
) -> tuple[str, str]:
    """No message twice, and no nonce of one sender twice (RFC 5272 6.6); an answer to ours brings our nonce back.

    A message is remembered as long as it could come again.  One with a signing time that is its signer's own is refused
    for that as soon as it is older than `clock` allows.  JSS and so Dogtag's tools send none: then the signer's
    certificate ends it, or where a secret or a login stands for it, `remember`.  After that `inner.handle` has its
    say about a secret, and who can log in needs no copy of a message.

    The kind and key of what is remembered, to be forgotten if nothing comes of the message.  Raises `Refused`, `Full`.
    """
    now, nonce, transaction = datetime.now(UTC), data.value("senderNonce"), data.value("transactionId")
    # What is signed, and not how: a signature, the bag and unsigned attributes can be changed on the way.
    key = mark(who.name, "nonce", nonce) if nonce is not None else mark(who.name, message.content, who.signed_at)
    if who.signed_at is not None:
        kind, lasts = "message", who.signed_at + policy.clock - now
    else:
        kind, lasts = "untimed", policy.remember
        if who.certificate is not None:
            lasts = who.certificate.not_valid_after_utc - now
    # Until version 2 of the table, every message was of this kind, and known by its bytes.
    is_known = any(state.get("message", each) is not None for each in (key, mark(who.name, der)))
    if is_known or not state.put(kind, key, b"", lasts, mark(who.name)):
        words = "this message has been here before" if nonce is None else "this senderNonce has been used before"
        raise Refused(CMCFailInfo.BAD_REQUEST, f"{words}: make a new one for each message")
    answered = data.value("recipientNonce")
    if answered is not None and state.get("sent", mark(who.name, transaction)) != answered:
        raise Refused(CMCFailInfo.BAD_REQUEST, "the recipientNonce is none that was sent in this transaction")
    return kind, key


def _expect_next(policy: Policy, state: State, who: Who, data: PKIData, answer: Answer) -> None:
    """Keep our nonce where the client is to come back in the same transaction."""
    unfinished = {CMCStatus.PENDING, CMCStatus.POP_REQUIRED, CMCStatus.CONFIRM_REQUIRED}
    if unfinished & {each.status for each in answer.statuses}:
        key = mark(who.name, data.value("transactionId"))
        state.drop("sent", key)
        state.put("sent", key, answer.own_nonce, policy.remember, mark(who.name))


def _sweep(books: Books, state: State) -> None:
    """What nobody has confirmed in time is revoked (RFC 5272 6.14)."""
    enough = time.monotonic() + int(os.environ["EST_TIMEOUT"]) / 4
    for certificate in pending.unconfirmed(state):
        if time.monotonic() > enough:
            return
        serial = certs.serial_hex(certificate)
        try:
            books.revoke(certificate, CESSATION)
        except SystemExit:
            print(f"nobody has confirmed {serial}, and it could not be revoked", file=sys.stderr)
            return  # this client has waited long enough for what is another's
        state.drop("unconfirmed", serial)
        print(f"nobody has confirmed {serial}: revoked", file=sys.stderr)
