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
    why: str
    """Why it matters, as a clause."""
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
    Quirk(name=CONTROL, server="does everything right", client="enrols", clause="RFC 7030 4.2",
          why="without this, nothing else that the client does can be judged",
          judge=judges.takes),
    Quirk(name="wrong-key", server="certifies another key", client="refuses", clause="RFC 7030 4.2.3",
          why="a certificate for another key is of no use, and its holder would find out in production",
          judge=judges.refuses, spoil=spoiling.wrong_key),
    Quirk(name="wrong-issuer", server="sends a certificate by another CA", client="refuses", clause="RFC 7030 4.1.3",
          why="whoever can put a certificate into an answer could make the client somebody else",
          judge=judges.refuses, spoil=spoiling.wrong_issuer),
    Quirk(name="wrong-name", server="certifies another subject", client="refuses", clause="RFC 7030 4.2.1",
          why="the client would present itself under a name that it never asked for",
          judge=judges.refuses, spoil=spoiling.wrong_name),
    Quirk(name="two-certs", server="puts its CA's certificate before the issued one",
          client="finds its own, or refuses", clause="RFC 7030 4.2.3",
          why="a client that takes the first certificate presents its CA's as its own",
          judge=judges.finds_the_leaf, spoil=spoiling.two_certs),
    Quirk(name="html", server="answers with a web page", client="refuses", clause="RFC 7030 3.2.1",
          why="a captive portal or a proxy answers like this, and its page must not end up as a certificate",
          judge=judges.refuses, spoil=spoiling.html),
    Quirk(name="junk", server="answers with base64 of nonsense", client="refuses", clause="RFC 7030 4.2.3",
          why="a damaged answer must not replace a certificate that works",
          judge=judges.refuses, spoil=spoiling.junk),
    Quirk(name="no-type", server="leaves Content-Type out", client="refuses", clause="RFC 7030 3.2.1",
          why="without its type the client guesses what the bytes are, and guesses can be steered",
          judge=judges.refuses, spoil=spoiling.no_type),
    Quirk(name="wrong-type", server="sends the certificate as text/html", client="refuses", clause="RFC 7030 3.2.1",
          why="an answer that says it is a web page is one, whatever it looks like",
          judge=judges.refuses, spoil=spoiling.wrong_type),
    Quirk(name="later", server="says 202 and Retry-After: 2, twice",
          client="comes back, not sooner, with the CSR linked anew", clause="RFC 7030 4.2.3",
          why="CAs with a person behind them answer so; a client that stays away never gets its certificate",
          judge=judges.returns(spoiling.SECONDS, must=True), spoil=spoiling.later),
    Quirk(name="later-date", server="says 202 and a date in Retry-After, twice",
          client="comes back, not sooner, with the CSR linked anew", clause="RFC 9110 10.2.3",
          why="Retry-After has two forms, and servers choose",
          judge=judges.returns(spoiling.SECONDS, must=True), spoil=spoiling.later_date),
    Quirk(name="later-none", server="says 202 without Retry-After, twice",
          client="comes back after a second or more, or gives up in words", clause="RFC 7030 4.2.3",
          why="a client that comes back at once, again and again, is an attack on its own CA",
          judge=judges.returns(judges.ONE_SECOND, must=False), spoil=spoiling.later_none),
    Quirk(name="busy", server="says 503 and Retry-After: 2, twice",
          client="comes back, not sooner, or gives up in words", clause="RFC 9110 15.6.4",
          why="thousands of devices that do not wait keep a server down that was about to recover",
          judge=judges.returns(spoiling.SECONDS, must=False), spoil=spoiling.busy),
    Quirk(name="endless-401", server="refuses every password", client="gives up after a few tries",
          clause="RFC 7030 3.2.3",
          why="a client that repeats a wrong password locks its own account",
          judge=judges.gives_up, login=logins.endless_401),
    Quirk(name="basic-then-digest", server="offers Basic, and then wants Digest", client="logs in by Digest",
          clause="RFC 7030 3.2.3",
          why="a server may change its scheme while devices are in the field",
          judge=judges.logs_in, login=logins.basic_then_digest),
    Quirk(name="digest-sha256", server="offers Digest with SHA-256 alone", client="logs in", clause="RFC 7616 3.7",
          why="MD5 is not allowed everywhere, so some servers offer SHA-256 alone",
          judge=judges.logs_in, login=logins.digest_sha256),
    Quirk(name="redirect-same", server="redirects to another path of its own", client="follows",
          clause="RFC 7030 3.2.1",
          why="servers move their paths, and RFC 7030 lets clients follow without asking a person",
          judge=judges.follows, spoil=spoiling.redirect_same),
    Quirk(name="redirect-away", server="redirects to a server with the wrong name", client="sends nothing there",
          clause="RFC 7030 3.2.1, 3.6",
          why="a redirect is the cheapest way to send a password to somebody else",
          judge=judges.stays_away, spoil=spoiling.redirect_away,
          aside=Face(names=(WRONG_HOST,))),
    Quirk(name="one-line", server="breaks no line of the base64", client="reads it", clause="RFC 8951 3.1",
          why="servers that write base64 without line breaks are in use, as RFC 8951 allows",
          judge=judges.takes, spoil=spoiling.one_line),
    Quirk(name="crlf-76", server="breaks lines at 76 columns with CRLF", client="reads it", clause="RFC 8951 3.1",
          why="servers that break lines are in use, as MIME has them",
          judge=judges.takes, spoil=spoiling.crlf_76),
    Quirk(name="no-cte", server="leaves Content-Transfer-Encoding out", client="reads base64 all the same",
          clause="RFC 8951 3",
          why="RFC 8951 tells servers to leave the header out",
          judge=judges.takes, spoil=spoiling.no_cte),
    Quirk(name="chunked", server="sends chunks", client="reads them", clause="RFC 9112 7.1",
          why="proxies and many frameworks answer in chunks",
          judge=judges.takes, spoil=spoiling.chunked),
    Quirk(name="lower-case", server="writes header names in lower case", client="reads them", clause="RFC 9110 5.1",
          why="proxies that speak HTTP/2 on the other side write lower case",
          judge=judges.takes, spoil=spoiling.lower_case),
    Quirk(name="split", server="sends the answer in seven TLS records", client="reads all of it",
          clause="RFC 8446 5.1",
          why="a body comes in as many pieces as the network likes",
          judge=judges.takes, spoil=spoiling.split),
    Quirk(name="cut-body", server="ends the connection in the middle of the body", client="refuses",
          clause="RFC 9112 8",
          why="half an answer that is taken for a whole one may lack the certificates that matter",
          judge=judges.refuses, spoil=spoiling.cut_body),
    Quirk(name="rollover-bag", server="shows a CA that changes its key in /cacerts", client="takes the newest root",
          clause="RFC 7030 4.1.3",
          why="after the CA's key has changed, a client with the old root trusts nobody",
          judge=judges.takes_the_newest_root, spoil=spoiling.rollover_bag,
          spoils=("cacerts",), steps=("cacerts",)),
    Quirk(name="shuffled-bag", server="shows the same with the newest root last", client="takes the newest root",
          clause="RFC 5272 4.1",
          why="the bag is a SET, so its order means nothing",
          judge=judges.takes_the_newest_root, spoil=spoiling.shuffled_bag,
          spoils=("cacerts",), steps=("cacerts",)),
    Quirk(name="template-only", server="sends a template in /csrattrs, and other wishes beside it",
          client="obeys the template alone", clause="RFC 9908 4",
          why="the CA refuses a CSR that does not fit its template",
          judge=judges.obeys_the_template,
          spoil=spoiling.template_only, spoils=("csrattrs",)),
    Quirk(name="unknown-attrs", server="asks for unknown things in /csrattrs", client="ignores them and enrols",
          clause="RFC 7030 4.5.2",
          why="new attributes appear every few years, and old devices have to go on",
          judge=judges.ignores_the_unknown, spoil=spoiling.unknown_attrs,
          spoils=("csrattrs",)),
    Quirk(name="pop-wanted", server="asks for a linked CSR in /csrattrs", client="links it to the connection",
          clause="RFC 7030 3.5",
          why="without the link, a CSR that was copied on its way gets a certificate for somebody else's request",
          judge=judges.links, spoil=spoiling.pop_wanted, spoils=("csrattrs",)),
    Quirk(name="keygen-clear", server="sends a key in the clear to a client that wants it encrypted",
          client="refuses", clause="RFC 7030 4.4.1",
          why="the client asked for encryption because something between it and the server can read",
          judge=judges.refuses_a_clear_key, spoils=(),
          steps=("serverkeygen-sealed",)),
    Quirk(name="keygen-other-key", server="sends a key that does not fit the certificate", client="refuses",
          clause="RFC 7030 4.4.2",
          why="a key without its certificate can't authenticate anybody",
          judge=judges.refuses, spoil=spoiling.keygen_other_key,
          spoils=("serverkeygen",), steps=("serverkeygen",)),
    Quirk(name="wrong-host", server="shows a certificate for another host", client="sends nothing",
          clause="RFC 7030 3.6.1",
          why="any other server of the same CA could take the client's password",
          judge=judges.sends_nothing, face=Face(names=(WRONG_HOST,))),
    Quirk(name="expired", server="shows an expired certificate", client="sends nothing", clause="RFC 7030 3.3.1",
          why="a certificate that is over may be one whose key is known by now",
          judge=judges.sends_nothing, face=Face(has_expired=True)),
    Quirk(name="unknown-ca", server="shows a certificate by an unknown CA", client="sends nothing",
          clause="RFC 7030 3.3.1",
          why="anybody can make such a certificate",
          judge=judges.sends_nothing, face=Face(by_stranger=True)),
    Quirk(name="not-serverauth", server="shows a certificate that is for clients", client="sends nothing",
          clause="RFC 5280 4.2.1.12",
          why="any device of the same CA could pose as the server",
          judge=judges.sends_nothing, face=Face(usages=(CLIENT_AUTH,))),
    Quirk(name="ra-wrong-host", server="shows an RA's certificate (id-kp-cmcRA) for another host",
          client="goes on under explicit anchors only", clause="RFC 7030 3.6",
          why="RFC 7030 lets an RA serve under any name, for clients that trust its CA explicitly",
          judge=judges.trusts_an_ra,
          steps=("enroll", "enroll-implicit"), face=Face(names=(WRONG_HOST,), usages=(SERVER_AUTH, CMC_RA))),
    Quirk(name="tls11", server="speaks TLS 1.1 only", client="sends nothing", clause="RFC 8996 2",
          why="TLS 1.1 has known weaknesses and is forbidden",
          judge=judges.sends_nothing, face=Face(version=SSL.TLS1_1_VERSION)),
    Quirk(name="tls12", server="speaks TLS 1.2 only", client="enrols", clause="RFC 8996 2",
          why="many servers in the field speak nothing newer",
          judge=judges.takes, face=Face(version=SSL.TLS1_2_VERSION)),
    Quirk(name="tls13", server="speaks TLS 1.3 only", client="enrols", clause="RFC 8446",
          why="servers begin to speak nothing older",
          judge=judges.takes, face=Face(version=SSL.TLS1_3_VERSION)),
)  # fmt: skip
QUIRKS: Mapping[str, Quirk] = {row.name: row for row in _ROWS}


def listing() -> str:
    """All quirks in words, one a line."""
    width = max(map(len, QUIRKS)) + 2
    return "".join(f"quirk-{row.name:{width}}the server {row.server}\n" for row in QUIRKS.values())
