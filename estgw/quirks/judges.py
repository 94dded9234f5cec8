"""The judges: from what the wire has shown and what a command has left behind to a verdict.

Without `Step.kept` nobody has watched the command, and a judge that needs to know what it kept says UNCLEAR.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from estgw.client import keys
from estgw.client.transport import answers, trust
from estgw.errors import Malformed
from estgw.est import certs, csr, csrattrs, encoding, keygen
from estgw.est.binding import BindingType
from estgw.est.csrattrs import TEMPLATE, CsrAttrs
from estgw.est.names import dn_text
from estgw.est.template_check import TemplateCheck
from estgw.quirks.kept import Kept
from estgw.quirks.seen import Exchange, Judge, Place, Step, Verdict, fails, passes, unclear, untried

MOST_PASSWORDS = 5
"""Times that a client may send a password that is refused each time."""
EARLY = 0.1
"""Seconds that clocks and rounding may take from Retry-After."""
ONE_SECOND = 1.0
"""The least pause where the server names none: less is a busy loop."""
_UNSEEN = "the wire does not show what the client kept; look at its files"


def takes(steps: Sequence[Step]) -> Verdict:
    """The client gets its certificate."""
    step = steps[0]
    if not step.served:
        return _unserved(step)
    return _has_kept(step, step.served[-1])


def refuses(steps: Sequence[Step]) -> Verdict:
    """The client keeps nothing of the answer, and says that it failed."""
    step = steps[0]
    if not step.served:
        return _unmet(step)
    if step.kept is None:
        return unclear("the wrong answer went out", _UNSEEN)
    return _has_refused(step.kept, step.served[-1])


def refuses_a_clear_key(steps: Sequence[Step]) -> Verdict:
    """The client asked for a sealed key, and keeps no other."""
    asked = [one for one in steps[0].served if _wants_sealing(one)]
    return refuses(steps) if asked or not steps[0].served else untried("the CSR asked for no encryption of the key")


def finds_the_leaf(steps: Sequence[Step]) -> Verdict:
    """The client takes its own certificate out of two, or none."""
    step = steps[0]
    if not step.served:
        return _unmet(step)
    if step.kept is None:
        return unclear("two certificates went out", _UNSEEN)
    leaf = step.served[-1].certificate
    for name, found in step.kept.bags.items():
        if found[0] == leaf:
            return passes(f"{name} begins with the issued certificate")
        if leaf in found and step.kept.is_raw(name):
            return unclear(f"{name} is the PKCS#7 as it came; its reader must find the leaf")
    if step.kept.bags:
        return fails(f"{', '.join(step.kept.bags)}: the CA's certificate stands where the client's own should")
    return _said_no(step.kept)


def gives_up(steps: Sequence[Step]) -> Verdict:
    """The client sends a refused password a few times at most, and ends."""
    step = steps[0]
    sent = [one for one in step.exchanges if one.scheme]
    if not sent:
        return _unmet(step, "it sent no password")
    words = f"it sent its password {'once' if len(sent) == 1 else f'{len(sent)} times'}"
    if len(sent) > MOST_PASSWORDS:
        return fails(f"{words}; {MOST_PASSWORDS} would have been enough")
    if step.kept is None:
        return passes(words)
    if step.kept.status is None:
        return fails(words, step.kept.ending)
    return passes(words, step.kept.ending) if step.kept.has_failed else unclear(words, step.kept.ending)


def logs_in(steps: Sequence[Step]) -> Verdict:
    """The client answers a Digest challenge (RFC 7030 3.2.3: Basic and Digest)."""
    step = steps[0]
    if not step.exchanges:
        return _unmet(step)
    if not any(one.status != 401 and one.scheme == "digest" for one in step.exchanges):
        sent = sorted({one.scheme for one in step.exchanges if one.scheme})
        return fails(f"it answered no Digest challenge; it sent {', '.join(sent) or 'no credentials'}", *_ending(step))
    if step.kept is None and step.served:
        return passes("it logged in by Digest")
    return takes(steps)


def follows(steps: Sequence[Step]) -> Verdict:
    """The client follows a redirect on the same server (RFC 7030 3.2.1)."""
    step = steps[0]
    if not any(one.status == 307 for one in step.exchanges):
        return _unmet(step)
    if not step.served:
        return fails("it did not follow the redirect to another path of the same server", *_ending(step))
    return passes("it followed") if step.kept is None else takes(steps)


def stays_away(steps: Sequence[Step]) -> Verdict:
    """The client sends nothing to the server to which a redirect leads."""
    step = steps[0]
    if not any(one.status == 307 for one in step.exchanges):
        return _unmet(step)
    if not step.handshakes(Place.ASIDE):
        return passes("it did not go there")
    return _sent_nothing(step, Place.ASIDE)


def sends_nothing(steps: Sequence[Step]) -> Verdict:
    """The client sends no request to a server that it must not trust (RFC 7030 3.3.1, 3.6)."""
    if not steps[0].handshakes(Place.OWN):
        return _unmet(steps[0], "it did not connect")
    return _sent_nothing(steps[0], Place.OWN)


def trusts_an_ra(steps: Sequence[Step]) -> Verdict:
    """The client takes id-kp-cmcRA for the name under explicit anchors, and under no others (RFC 7030 3.6)."""
    first = steps[0]
    if not first.handshakes(Place.OWN):
        return _unmet(first, "it did not connect")
    if first.kept is None and first.at(Place.OWN):
        return unclear("it went on, which is right under explicit anchors and wrong under implicit ones")
    if first.kept is None:
        return unclear("it did not go on, which is right under implicit anchors and wrong under explicit ones")
    for step in steps[1:]:
        if step.operation == "enroll-implicit" and step.at(Place.OWN):
            return fails("it went on under implicit anchors, where id-kp-cmcRA proves nothing (RFC 7030 3.6.2)")
    if not first.at(Place.OWN):
        reasons = [one.fault for one in first.handshakes(Place.OWN) if one.fault]
        return fails("it refused an RA of its own CA, which is safe and not RFC 7030 3.6.1", *reasons, *_ending(first))
    found = takes(steps)
    tried = "refused it under implicit ones" if len(steps) > 1 else "implicit ones were not tried"
    return Verdict(found.result, (*found.evidence, f"it went on under explicit anchors; {tried}"))


def returns(seconds: float, *, must: bool) -> Judge:
    """The client comes back, not sooner than in `seconds`; `must` says whether giving up is not an answer."""

    def judge(steps: Sequence[Step]) -> Verdict:
        step = steps[0]
        tries = [one for one in step.exchanges if one.is_enrolment and one.status in (200, 202, 503)]
        if not any(one.status != 200 for one in tries):
            return _unmet(step)
        pauses = [then.came - first.left for first, then in pairwise(tries) if first.status != 200]
        if any(pause < seconds - EARLY for pause in pauses):
            return fails(f"it came back after {min(pauses):.1f} s, sooner than in {seconds:g} s")
        for first, then in pairwise(tries):
            if first.link and then.connection != first.connection and then.link is None:
                return fails("it sent the CSR with the binding of the old connection over a new one (RFC 7030 4.2.3)")
        if step.served:
            words = "it came back after " + ", ".join(f"{pause:.1f} s" for pause in pauses)
            if step.kept is None:
                return passes(words)
            found = _has_kept(step, step.served[-1])
            return Verdict(found.result, (words, *found.evidence))
        return _gone(step, must)

    return judge


def _gone(step: Step, must: bool) -> Verdict:
    """The verdict on a client that has not come back to the end."""
    if step.kept is None:
        return unclear("it has not come back yet")
    if step.kept.status is None:
        return unclear("it was still waiting when it was stopped")
    if not step.kept.has_failed:
        return fails("it did not come back, and ended as if all were well", step.kept.ending)
    if must:
        return unclear("it did not come back, and said so; its user may start it again", step.kept.ending)
    return passes("it gave up, and said so", step.kept.ending)


def takes_the_newest_root(steps: Sequence[Step]) -> Verdict:
    """The client keeps the self-signed certificate that runs longest (RFC 7030 4.1.3)."""
    step = steps[0]
    if not step.served:
        return _unmet(step)
    if step.kept is None:
        return unclear("the bag went out", _UNSEEN)
    sent = answers.bag_of(step.served[-1].body)
    newest = max((one for one in sent if trust.is_signed_by(one, one)), key=lambda one: one.not_valid_after_utc)
    holding = [name for name, found in step.kept.bags.items() if newest in found]
    if any(not step.kept.is_raw(name) or len(step.kept.bags[name]) == 1 for name in holding):
        return passes(f"{holding[0]} has the newest root")
    if holding:
        return unclear(f"{holding[0]} is the bag as it came; its reader must find the newest root")
    kept = [f"{name} has {len(found)} other certificates" for name, found in step.kept.bags.items()]
    return fails("the newest root is not among what it kept", *(kept or [step.kept.ending]))


def obeys_the_template(steps: Sequence[Step]) -> Verdict:
    """The CSR has what the template asks for, and not what stands beside it (RFC 9908 4)."""
    step = steps[0]
    asked = _attributes(step)
    if asked is None:
        return _unmet(step, "it did not ask for /csrattrs")
    made = [one for one in step.exchanges if one.csr]
    if not made:
        return fails("it read the template and sent no request", *_ending(step))
    check = TemplateCheck.of(CsrAttrs(tuple(one for one in asked.attributes if one.oid == TEMPLATE)))
    missing = check.missing(csr.parse(made[-1].csr))
    return fails(f"the CSR lacks: {'; '.join(missing)}") if missing else passes("the CSR is what the template asks for")


def ignores_the_unknown(steps: Sequence[Step]) -> Verdict:
    """The client goes on in spite of attributes that it can't know (RFC 7030 4.5.2)."""
    step = steps[0]
    if _attributes(step) is None:
        return _unmet(step, "it did not ask for /csrattrs")
    if not any(one.csr for one in step.exchanges):
        return fails("it read attributes that it does not know and sent no request", *_ending(step))
    return passes("it sent its request") if step.kept is None else takes(steps)


def links(steps: Sequence[Step]) -> Verdict:
    """The CSR has the channel binding of its connection (RFC 7030 3.5)."""
    made = [one for one in steps[0].exchanges if one.csr]
    if not made:
        return _unmet(steps[0])
    last = made[-1]
    if last.link is BindingType.TLS13_FINISHED:
        return passes("the CSR is linked by the Finished message of TLS 1.3, which no standard describes")
    if last.link is not None:
        return passes(f"the CSR is linked by {last.link.value}")
    if last.claims_link:
        return fails("the CSR has a binding, and it is not this connection's")
    return fails("the CSR is not linked")


# What the judges share.


def _has_kept(step: Step, served: Exchange) -> Verdict:
    """Whether the certificate that went out is among the files, and fits the keys there."""
    if step.kept is None:
        return unclear("the certificate went out", _UNSEEN)
    if served.certificate not in step.kept.issued:
        return fails("the certificate went out, and the client did not keep it", step.kept.ending)
    for key in step.kept.keys:
        if keys.spki(key) == certs.spki(served.certificate):
            return passes("it kept the certificate, which fits its key")
    if step.kept.keys:
        return fails("it kept the certificate, which fits none of the keys that it kept")
    if served.is_enrolment and served.key != certs.spki(served.certificate):
        return fails("it kept a certificate for another key than the CSR's")
    return passes("it kept the certificate")


def _has_refused(kept: Kept, served: Exchange) -> Verdict:
    if kept.issued:
        names = ", ".join(dn_text(one.subject) for one in kept.issued[:3])
        return fails(f"it kept the certificate of the wrong answer ({names})", kept.ending)
    if any(keys.spki(key) != served.key for key in kept.keys):
        return fails("it kept the private key of the wrong answer", kept.ending)
    if name := kept.holding(served.body):
        return fails(f"{name} holds the body of the wrong answer", kept.ending)
    return _said_no(kept)


def _said_no(kept: Kept) -> Verdict:
    if kept.status is None:
        return unclear("it kept nothing", kept.ending)
    if kept.has_failed:
        return passes("it kept nothing", kept.ending)
    return unclear("it kept nothing, and ended as if all were well", kept.ending)


def _sent_nothing(step: Step, place: Place) -> Verdict:
    sent = step.at(place)
    passwords = [one.scheme for one in sent if one.scheme]
    if passwords:
        return fails(f"it sent its password there ({passwords[0]})")
    if sent:
        return fails(f"it sent a request there ({sent[0].method} {sent[0].operation})")
    faults = [one.fault for one in step.handshakes(place) if one.fault]
    return passes(f"it ended the connection: {faults[0]}" if faults else "it ended the connection without a request")


def _attributes(step: Step) -> CsrAttrs | None:
    """The attributes that the client has read."""
    read = [one.body for one in step.exchanges if one.operation == "csrattrs" and one.status == 200]
    try:
        return csrattrs.decode_csrattrs(encoding.decode(read[-1], ())) if read else None
    except Malformed:
        return None


def _wants_sealing(served: Exchange) -> bool:
    try:
        return keygen.wish(csr.parse(served.csr)).protection is not keygen.Protection.NONE
    except Malformed:
        return False


def _unserved(step: Step) -> Verdict:
    """The verdict on a client that should have been served and was not."""
    faults = [one.fault for one in step.handshakes(Place.OWN) if one.fault]
    if faults:
        return fails(f"the handshake failed: {faults[0]}", *_ending(step))
    return _unmet(step)


def _unmet(step: Step, words: str = "") -> Verdict:
    """The verdict on a client that never came as far as the quirk."""
    statuses = [f"{one.operation} {one.status}" for one in step.exchanges[-3:]]
    met = f"it came as far as {', '.join(statuses)}" if statuses else "no request came"
    return untried(words or met, *_ending(step))


def _ending(step: Step) -> tuple[str, ...]:
    return () if step.kept is None else (step.kept.ending,)
