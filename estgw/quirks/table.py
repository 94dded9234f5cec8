"""The table of quirks: what the server does, what a good client does, and the functions for both.

A new quirk is a row here and a function in `spoiling` (or `logins`, or a `Face`); most find their judge in `judges`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from OpenSSL import SSL

from estgw.est.certs import CMC_RA
from estgw.quirks import judges, logins, spoiling
from estgw.quirks.material import CLIENT_AUTH, SERVER_AUTH, WRONG_HOST, Face
from estgw.quirks.seen import Judge

CONTROL = "none"
"""The quirk that is none: unless a client passes it, nothing else about that client can be judged."""
_ENROL = ("simpleenroll", "simplereenroll")


@dataclass(frozen=True, kw_only=True)
class Quirk:
    """One way to misbehave."""

    name: str
    server: str
    """Continues "the server"."""
    client: str
    """Continues "a good client"."""
    clause: str
    """Where the standard says so."""
    judge: Judge
    spoil: spoiling.Spoil = spoiling.as_it_is
    spoils: tuple[str, ...] = _ENROL
    """The operations whose answers `spoil` gets."""
    login: logins.Check = logins.basic
    steps: tuple[str, ...] = ("enroll",)
    """What a client is asked to do, in order; the first one is necessary."""
    face: Face | None = None
    """The certificate and TLS versions of a port of its own."""
    aside: Face | None = None
    """The same for a port to which a redirect leads."""


_ROWS = (
    Quirk(name=CONTROL, server="does everything right", client="enrols", clause="RFC 7030 4.2", judge=judges.takes),
    Quirk(name="wrong-key", server="certifies another key", client="refuses", clause="RFC 7030 4.2.3",
          judge=judges.refuses, spoil=spoiling.wrong_key),
    Quirk(name="wrong-issuer", server="sends a certificate by another CA", client="refuses", clause="RFC 7030 4.1.3",
          judge=judges.refuses, spoil=spoiling.wrong_issuer),
    Quirk(name="wrong-name", server="certifies another subject", client="refuses", clause="RFC 7030 4.2.1",
          judge=judges.refuses, spoil=spoiling.wrong_name),
    Quirk(name="two-certs", server="puts its CA's certificate before the issued one",
          client="finds its own, or refuses", clause="RFC 7030 4.2.3",
          judge=judges.finds_the_leaf, spoil=spoiling.two_certs),
    Quirk(name="html", server="answers with a web page", client="refuses", clause="RFC 7030 3.2.1",
          judge=judges.refuses, spoil=spoiling.html),
    Quirk(name="junk", server="answers with base64 of nonsense", client="refuses", clause="RFC 7030 4.2.3",
          judge=judges.refuses, spoil=spoiling.junk),
    Quirk(name="no-type", server="leaves Content-Type out", client="refuses", clause="RFC 7030 3.2.1",
          judge=judges.refuses, spoil=spoiling.no_type),
    Quirk(name="wrong-type", server="sends the certificate as text/html", client="refuses", clause="RFC 7030 3.2.1",
          judge=judges.refuses, spoil=spoiling.wrong_type),
    Quirk(name="later", server="says 202 and Retry-After: 2, twice",
          client="comes back, not sooner, with the CSR linked anew", clause="RFC 7030 4.2.3",
          judge=judges.returns(spoiling.SECONDS, must=True), spoil=spoiling.later),
    Quirk(name="later-date", server="says 202 and a date in Retry-After, twice",
          client="comes back, not sooner, with the CSR linked anew", clause="RFC 9110 10.2.3",
          judge=judges.returns(spoiling.SECONDS, must=True), spoil=spoiling.later_date),
    Quirk(name="later-none", server="says 202 without Retry-After, twice",
          client="comes back after a second or more, or gives up in words", clause="RFC 7030 4.2.3",
          judge=judges.returns(judges.ONE_SECOND, must=False), spoil=spoiling.later_none),
    Quirk(name="busy", server="says 503 and Retry-After: 2, twice",
          client="comes back, not sooner, or gives up in words", clause="RFC 9110 15.6.4",
          judge=judges.returns(spoiling.SECONDS, must=False), spoil=spoiling.busy),
    Quirk(name="endless-401", server="refuses every password", client="gives up after a few tries",
          clause="RFC 7030 3.2.3", judge=judges.gives_up, login=logins.endless_401),
    Quirk(name="basic-then-digest", server="offers Basic, and then wants Digest", client="logs in by Digest",
          clause="RFC 7030 3.2.3", judge=judges.logs_in, login=logins.basic_then_digest),
    Quirk(name="digest-sha256", server="offers Digest with SHA-256 alone", client="logs in", clause="RFC 7616 3.7",
          judge=judges.logs_in, login=logins.digest_sha256),
    Quirk(name="redirect-same", server="redirects to another path of its own", client="follows",
          clause="RFC 7030 3.2.1", judge=judges.follows, spoil=spoiling.redirect_same),
    Quirk(name="redirect-away", server="redirects to a server with the wrong name", client="sends nothing there",
          clause="RFC 7030 3.2.1, 3.6", judge=judges.stays_away, spoil=spoiling.redirect_away,
          aside=Face(names=(WRONG_HOST,))),
    Quirk(name="one-line", server="breaks no line of the base64", client="reads it", clause="RFC 8951 3.1",
          judge=judges.takes, spoil=spoiling.one_line),
    Quirk(name="crlf-76", server="breaks lines at 76 columns with CRLF", client="reads it", clause="RFC 8951 3.1",
          judge=judges.takes, spoil=spoiling.crlf_76),
    Quirk(name="no-cte", server="leaves Content-Transfer-Encoding out", client="reads base64 all the same",
          clause="RFC 8951 3", judge=judges.takes, spoil=spoiling.no_cte),
    Quirk(name="chunked", server="sends chunks", client="reads them", clause="RFC 9112 7.1",
          judge=judges.takes, spoil=spoiling.chunked),
    Quirk(name="lower-case", server="writes header names in lower case", client="reads them", clause="RFC 9110 5.1",
          judge=judges.takes, spoil=spoiling.lower_case),
    Quirk(name="split", server="sends the answer in seven TLS records", client="reads all of it",
          clause="RFC 8446 5.1", judge=judges.takes, spoil=spoiling.split),
    Quirk(name="cut-body", server="ends the connection in the middle of the body", client="refuses",
          clause="RFC 9112 8", judge=judges.refuses, spoil=spoiling.cut_body),
    Quirk(name="rollover-bag", server="shows a CA that changes its key in /cacerts", client="takes the newest root",
          clause="RFC 7030 4.1.3", judge=judges.takes_the_newest_root, spoil=spoiling.rollover_bag,
          spoils=("cacerts",), steps=("cacerts",)),
    Quirk(name="shuffled-bag", server="shows the same with the newest root last", client="takes the newest root",
          clause="RFC 5272 4.1", judge=judges.takes_the_newest_root, spoil=spoiling.shuffled_bag,
          spoils=("cacerts",), steps=("cacerts",)),
    Quirk(name="template-only", server="sends a template in /csrattrs, and other wishes beside it",
          client="obeys the template alone", clause="RFC 9908 4", judge=judges.obeys_the_template,
          spoil=spoiling.template_only, spoils=("csrattrs",)),
    Quirk(name="unknown-attrs", server="asks for unknown things in /csrattrs", client="ignores them and enrols",
          clause="RFC 7030 4.5.2", judge=judges.ignores_the_unknown, spoil=spoiling.unknown_attrs,
          spoils=("csrattrs",)),
    Quirk(name="pop-wanted", server="asks for a linked CSR in /csrattrs", client="links it to the connection",
          clause="RFC 7030 3.5", judge=judges.links, spoil=spoiling.pop_wanted, spoils=("csrattrs",)),
    Quirk(name="keygen-clear", server="sends a key in the clear to a client that wants it encrypted",
          client="refuses", clause="RFC 7030 4.4.1", judge=judges.refuses_a_clear_key, spoils=(),
          steps=("serverkeygen-sealed",)),
    Quirk(name="keygen-other-key", server="sends a key that does not fit the certificate", client="refuses",
          clause="RFC 7030 4.4.2", judge=judges.refuses, spoil=spoiling.keygen_other_key,
          spoils=("serverkeygen",), steps=("serverkeygen",)),
    Quirk(name="wrong-host", server="shows a certificate for another host", client="sends nothing",
          clause="RFC 7030 3.6.1", judge=judges.sends_nothing, face=Face(names=(WRONG_HOST,))),
    Quirk(name="expired", server="shows an expired certificate", client="sends nothing", clause="RFC 7030 3.3.1",
          judge=judges.sends_nothing, face=Face(has_expired=True)),
    Quirk(name="unknown-ca", server="shows a certificate by an unknown CA", client="sends nothing",
          clause="RFC 7030 3.3.1", judge=judges.sends_nothing, face=Face(by_stranger=True)),
    Quirk(name="not-serverauth", server="shows a certificate that is for clients", client="sends nothing",
          clause="RFC 5280 4.2.1.12", judge=judges.sends_nothing, face=Face(usages=(CLIENT_AUTH,))),
    Quirk(name="ra-wrong-host", server="shows an RA's certificate (id-kp-cmcRA) for another host",
          client="goes on under explicit anchors only", clause="RFC 7030 3.6", judge=judges.trusts_an_ra,
          steps=("enroll", "enroll-implicit"), face=Face(names=(WRONG_HOST,), usages=(SERVER_AUTH, CMC_RA))),
    Quirk(name="tls11", server="speaks TLS 1.1 only", client="sends nothing", clause="RFC 8996 2",
          judge=judges.sends_nothing, face=Face(version=SSL.TLS1_1_VERSION)),
    Quirk(name="tls12", server="speaks TLS 1.2 only", client="enrols", clause="RFC 8996 2",
          judge=judges.takes, face=Face(version=SSL.TLS1_2_VERSION)),
    Quirk(name="tls13", server="speaks TLS 1.3 only", client="enrols", clause="RFC 8446",
          judge=judges.takes, face=Face(version=SSL.TLS1_3_VERSION)),
)  # fmt: skip
QUIRKS: Mapping[str, Quirk] = {row.name: row for row in _ROWS}


def listing() -> str:
    """All quirks in words, one a line."""
    width = max(map(len, QUIRKS)) + 2
    return "".join(f"quirk-{row.name:{width}}the server {row.server}\n" for row in QUIRKS.values())
