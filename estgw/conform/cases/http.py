"""HTTP authentication and framing (RFC 7030 3.2.3, RFC 7616, RFC 7617, and what real clients can read)."""

from __future__ import annotations

import base64
import re

from estgw.client.faults import clean
from estgw.conform import checks, facts
from estgw.conform.case import Case
from estgw.conform.http import Reply
from estgw.conform.model import Level, Need, failed, skipped, warned
from estgw.conform.probe import JUNK, Form, Probe

_QUOTED = ("realm", "domain", "nonce", "opaque", "qop")
_PLAIN = ("algorithm", "stale")
"""RFC 7616 3.3: the sender must quote the first ones and must not quote these."""
_PARAMETER = re.compile(r'(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)')
_LONGEST_HEAD = 1024
"""Bytes of a head that one real client reads."""
_ODD = (
    ("no base64", "Basic !!!!"),
    ("nothing", "Basic"),
    ("no colon", "Basic " + base64.b64encode(b"estgw-conform").decode()),
    ("a control character", "Basic " + base64.b64encode(b"estgw\x00conform:x").decode()),
    ("another scheme", "Estgw-Conform x"),
)


def challenge(probe: Probe) -> str:
    """A4."""
    reply = _anonymous(probe)
    if reply.status != 401:
        if reply.is_success:
            raise failed(f"a request without credentials is answered with {reply}")
        raise skipped(f"a request without credentials gets {reply.status}, not 401: no password is asked for")
    values = reply.all("WWW-Authenticate")
    if not values:
        raise failed("401 without WWW-Authenticate (RFC 9110 15.5.2)")
    if not probe.login.challenges:
        raise failed(f"401 with a challenge that can't be read: {clean(values[0], 100)}")
    schemes = [each.scheme.capitalize() for each in probe.login.challenges]
    if reply.body:
        raise warned(f"{', '.join(schemes)}; some clients fail on a 401 with a body")
    return f"401 with {', '.join(schemes)}"


def _anonymous(probe: Probe) -> Reply:
    """A request without credentials; where nothing may be issued, it is no CSR."""
    if probe.setup.is_read_only:
        return probe.once("anonymous", lambda probe: probe.post(lambda _: JUNK, Form(with_login=False)))
    return facts.anonymous(probe).reply


def wrong_password(probe: Probe) -> str:
    """A4."""
    facts.require_enrolment(probe)
    form = Form(authorization=probe.login.basic(password="estgw-conform-wrong"))  # noqa: S106 - wrong on purpose
    return checks.refused(facts.enrol(probe, form=form).reply, "the password is wrong")


def cert_unchallenged(probe: Probe) -> str:
    """A3."""
    identity = facts.own(probe)
    reply = facts.enrol(probe, form=Form(identity=identity, with_login=False)).reply
    if reply.status == 401:
        raise warned("a client with a certificate of this CA is asked for a password, and it may have none")
    return f"a client with a certificate gets {reply.status}, and no challenge"


def empty_user(probe: Probe) -> str:
    """A7."""
    facts.require_enrolment(probe)
    form = Form(authorization=probe.login.basic(user="", password="estgw-conform-wrong"))  # noqa: S106
    return checks.refused(facts.enrol(probe, form=form).reply, "the user name is empty and the password wrong")


def digest(probe: Probe) -> str:
    """A10."""
    facts.anonymous(probe)  # shows the challenges
    raw = [value for value in probe.login.raw_challenges if value.lower().startswith("digest")]
    algorithms = []
    for value in raw:
        for name, text in _PARAMETER.findall(value):
            if name.lower() in _QUOTED and not text.startswith('"'):
                raise failed(f"{name} without quotes: {clean(value, 200)}")
            if name.lower() in _PLAIN and text.startswith('"'):
                raise failed(f"{name} in quotes: {clean(value, 200)}")
    for each in (each for each in probe.login.challenges if each.scheme == "digest"):
        if "qop" not in each.parameters or not {"realm", "nonce"} <= each.parameters.keys():
            raise failed("a Digest challenge without realm, nonce or qop")
        algorithms.append(each.parameters.get("algorithm", "MD5").upper())
    if len(set(algorithms)) < len(algorithms):
        raise failed(f"two Digest challenges with the same algorithm: {', '.join(algorithms)}")
    reply = _digest_post(probe, probe.target("simpleenroll"))[0]
    if reply.status == 401:
        raise failed("the right password is refused in a Digest answer")
    if "SHA-256" not in algorithms:
        raise warned(f"{', '.join(algorithms)} only; RFC 7616 3.7 wants SHA-256")
    return f"{', '.join(algorithms)}; the right password: {reply.status}"


def digest_uri(probe: Probe) -> str:
    """A11."""
    reply, _ = _digest_post(probe, f"{probe.setup.place.base}/simplereenroll")
    return checks.refused(reply, "the answer to Digest is for another path")


def replay(probe: Probe) -> str:
    """A11."""
    first, header = _digest_post(probe, probe.target("simpleenroll"))
    if not first.is_success:
        raise skipped(f"the first request gets {first}")
    second = facts.enrol(probe, form=Form(authorization=header)).reply
    if second.is_success:
        raise warned("a recorded Digest answer is taken a second time, with the same nonce count")
    return f"the second time: {second.status}"


def _digest_post(probe: Probe, uri: str) -> tuple[Reply, str]:
    """An enrolment with a Digest answer for `uri`, made for a fresh nonce; the answer and its header."""
    asked = facts.enrol(probe, form=Form(with_login=False)).reply
    authorizer = probe.login.authorizer()
    values = [value for value in asked.all("WWW-Authenticate") if value.lower().startswith("digest")]
    if not authorizer.learn(values):
        raise skipped("no Digest challenge that can be answered")
    header = authorizer.header("POST", uri) or ""
    return facts.enrol(probe, form=Form(authorization=header)).reply, header


def odd_basic(probe: Probe) -> str:
    """A12."""
    seen = []
    crashes = []
    for what, header in _ODD:
        reply = probe.post(facts.maker(probe, facts.wish(probe)), Form(authorization=header))
        seen.append(f"{what}: {reply.status}")
        if reply.is_success:
            raise failed(f"credentials with {what} are taken: {reply}")
        if reply.status >= 500:
            crashes.append(f"credentials with {what}: {reply.status}")
    return checks.faults(crashes, ", ".join(seen))


def framing(probe: Probe) -> str:
    """What strongSwan, libest, Bouncy Castle and GlobalSign's client need of an answer."""
    replies = {"cacerts": facts.cacerts(probe)}
    if not probe.setup.is_read_only:
        replies["simpleenroll"] = facts.first(probe).reply
    found: list[str] = []
    for name, reply in replies.items():
        found += [f"{name}: {each}" for each in _framing_faults(reply)]
    return checks.faults(found, "HTTP/1.1, Content-Length, usual header names, Content-Transfer-Encoding")


def _framing_faults(reply: Reply) -> list[str]:
    found = []
    if reply.version != "HTTP/1.1":
        found.append(f"{reply.version} (strongSwan reads HTTP/1.1 only)")
    if reply.is_chunked:
        found.append("chunked (libest and strongSwan need Content-Length)")
    elif reply.ended_by_close:
        found.append("no Content-Length")
    odd = [
        name for name, _ in reply.fields if name.lower() in ("content-type", "content-length") and name != name.title()
    ]
    if odd:
        found.append(f"{', '.join(odd)} in small letters (libest compares the case)")
    if len(reply.head) > _LONGEST_HEAD:
        found.append(f"a head of {len(reply.head)} bytes (libest reads {_LONGEST_HEAD})")
    if reply.status == 200 and (reply.get("Content-Transfer-Encoding") or "").lower() != "base64":
        found.append("no Content-Transfer-Encoding: base64 (Bouncy Castle then reads DER)")
    if reply.body.endswith(b"\0"):
        found.append("a NUL at the end of the body")
    return found


def redirects(probe: Probe) -> str:
    """E25, the server's half."""
    reply = facts.cacerts(probe)
    if 300 <= reply.status < 400:
        raise warned(f"cacerts is a redirect to {clean(reply.get('Location') or '', 100)}; few clients follow it")
    posted = probe.post(lambda _: JUNK)
    if 300 <= posted.status < 400:
        raise warned(f"simpleenroll is a redirect ({posted.status}); a client has to ask its user (RFC 7030 3.2.1)")
    return "none"


CASES = (
    Case("challenge", "http", Level.MUST, "RFC 7030 3.2.3, RFC 9110 15.5.2", ("A4", "A1"),
         "A 401 to a request without credentials has a challenge in WWW-Authenticate.", challenge),
    Case("wrong-password", "http", Level.MUST, "RFC 7030 3.2.3", ("A4", "E5"),
         "A wrong password gets no certificate.", wrong_password, (Need.ISSUE, Need.PASSWORD)),
    Case("cert-unchallenged", "http", Level.SHOULD, "RFC 7030 3.2.3, RFC 5273 4", ("A3", "T10", "E10"),
         "A client with a certificate of this CA gets another one without a password.", cert_unchallenged,
         (Need.ISSUE, Need.LOGIN)),
    Case("empty-user", "http", Level.MUST, "RFC 7030 3.2.3", ("A7",),
         "An empty user name with a wrong password is refused like any other.", empty_user,
         (Need.ISSUE, Need.PASSWORD)),
    Case("digest", "http", Level.MUST, "RFC 7616 3.3, 3.7", ("A10",),
         "Digest challenges have qop, quotes where they belong, and the right password logs in.", digest,
         (Need.ISSUE, Need.PASSWORD, Need.DIGEST)),
    Case("digest-uri", "http", Level.MUST, "RFC 7616 3.4.6", ("A11",),
         "A Digest answer that was made for another path is refused.", digest_uri,
         (Need.ISSUE, Need.PASSWORD, Need.DIGEST)),
    Case("replay", "http", Level.SHOULD, "RFC 7616 5.6", ("A11",),
         "A Digest answer is good once.", replay, (Need.ISSUE, Need.PASSWORD, Need.DIGEST)),
    Case("odd-basic", "http", Level.MUST, "RFC 7617 2", ("A12",),
         "Credentials that can't be read are refused, and the server goes on.", odd_basic, (Need.ISSUE,)),
    Case("framing", "http", Level.SHOULD, "what real clients need", (),
         "Answers are HTTP/1.1 with Content-Length, and say that they are base64.", framing),
    Case("redirects", "http", Level.SHOULD, "RFC 7030 3.2.1", ("E25",),
         "No operation is a redirect.", redirects),
)  # fmt: skip
