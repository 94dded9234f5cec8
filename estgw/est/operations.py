"""The table of EST operations, and the functions that find the operation of a URL.

RFC 7030 3.2.2 defines the paths and methods, 4.1 to 4.5 the media types.  Clients of 2012 and 2013 send the spellings
and types of the drafts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_to_bytes

from estgw.errors import BadRequest, MethodNotAllowed, NotFound, UnsupportedMediaType

PREFIX = "/.well-known/est"
"""RFC 7030 3.2.2, registered by RFC 8615."""

PKCS10 = "application/pkcs10"
DRAFT_PKCS10 = "application/x-est-pkcs10"
"""The reference client of 2012 sent it; it was never registered."""

CURL_FORM = "application/x-www-form-urlencoded"
"""`curl --data-binary` sends it by default.  Accepted in the draft profile only."""


class Profile(Enum):
    """The generation of the protocol of a request."""

    RFC = "rfc"
    DRAFT = "draft"


class Body(Enum):
    """The content of an answer with status 200."""

    CA_CERTS = "ca-certs"  # certs-only PKCS#7, any number of certificates (4.1.3)
    ISSUED = "issued"  # certs-only PKCS#7 with the issued certificate alone (4.2.3)
    CSRATTRS = "csrattrs"  # CsrAttrs (4.5.2)
    KEYGEN = "keygen"  # multipart: private key and certificate (4.4.2)
    CMC = "cmc"  # PKI Response (4.3.2)
    DER = "der"  # any DER, base64 on the wire
    RAW = "raw"  # the handler's output as it is


class Requires(Enum):
    """The authentication that an operation requires (RFC 7030 3.2.3, 3.3.2)."""

    NONE = "none"
    ANY = "any"
    TLS = "tls"
    HTTP = "http"
    BOTH = "both"


@dataclass(frozen=True)
class Operation:
    """One EST operation: its names, and the types of its request and answer."""

    name: str
    draft_name: str
    method: str
    request_types: tuple[str, ...]  # empty: no body is expected
    response_type: str
    body: Body
    requires: Requires
    has_csr: bool = False  # the body is a PKCS#10, which may be linked to the connection (3.5)
    may_wait: bool = False  # a handler's exit 75 is a 202 (4.2.3)
    proves_key: bool = False  # the CSR's key and signature count (4.2.1); serverkeygen ignores them (4.4.1)
    renews: bool = False  # subject and SAN must be equal to those of a certificate that the client has (4.2.2)
    off_by_default: bool = False  # served only where the configuration switches it on

    @property
    def holds_requests(self) -> bool:
        """Whether the body is a message with requests inside, which the handler checks one by one (4.3.1)."""
        return self.body is Body.CMC

    @property
    def takes_body(self) -> bool:
        """Whether the request has a body."""
        return self.method == "POST"


CERTS_ONLY = "application/pkcs7-mime; smime-type=certs-only"
"""One space and no quotes: real clients compare these bytes."""

_PKCS10 = (PKCS10, DRAFT_PKCS10)

_TABLE = (
    Operation("cacerts", "CACerts", "GET", (), "application/pkcs7-mime", Body.CA_CERTS, Requires.NONE),
    Operation("csrattrs", "CSRAttrs", "GET", (), "application/csrattrs", Body.CSRATTRS, Requires.NONE),
    Operation("simpleenroll", "simpleEnroll", "POST", _PKCS10, CERTS_ONLY, Body.ISSUED, Requires.ANY,
              has_csr=True, may_wait=True, proves_key=True),
    Operation("simplereenroll", "simpleReEnroll", "POST", _PKCS10, CERTS_ONLY, Body.ISSUED, Requires.TLS,
              has_csr=True, may_wait=True, proves_key=True, renews=True),
    # RFC 7030 6 recommends that server-side key generation is off by default.
    Operation("serverkeygen", "serverKeyGen", "POST", _PKCS10, "multipart/mixed", Body.KEYGEN, Requires.ANY,
              has_csr=True, may_wait=True, off_by_default=True),
    # Full CMC is optional (4.3).  It has its own policy script, so enabling it would silently bypass rules that were
    # added to simpleenroll's.
    Operation("fullcmc", "fullCMC", "POST", ("application/pkcs7-mime",),
              "application/pkcs7-mime; smime-type=CMC-response", Body.CMC, Requires.ANY,
              may_wait=True, off_by_default=True),
)  # fmt: skip
OPERATIONS: Mapping[str, Operation] = {operation.name: operation for operation in _TABLE}

_DRAFT_NAMES = {operation.draft_name for operation in _TABLE}


@dataclass(frozen=True)
class Target:
    """The result of `resolve`: the operation's name as configured, the CA label, and the spelling used."""

    operation: str
    label: str | None
    draft_path: bool


def twins(raw_target: str, label: str | None) -> tuple[str, ...]:
    """Return the request targets that a Digest `uri` may name: this one, and the same without the label.

    One client always omits the label there.  `raw_target` is the target in the request line, query included.  The query
    is kept as it is: a slash in it does not separate segments (RFC 3986 3.4).
    """
    if label is None:
        return (raw_target,)
    path, mark, query = raw_target.partition("?")
    return raw_target, f"{PREFIX}/{path.rpartition('/')[2]}{mark}{query}"


def is_operation_name(word: str) -> bool:
    """Whether `word` is an operation in any spelling: such a word can't be a label (RFC 7030 3.2.2)."""
    return word.lower() in OPERATIONS


def resolve(raw_path: str, labels: Collection[str], extra: Collection[str] = ()) -> Target:
    """Return the operation and label that a path names.

    `raw_path` is the request target without its query, percent-encoded as received; `labels` are the configured CA
    labels, and `extra` the names of operations that only the configuration defines.  Operation names match in any case,
    since the RFC has them in lower case and the drafts in mixed case.  Paths are case sensitive (RFC 9110 4.2.3), but
    nothing else is ever served under such a name.  Labels match exactly.

    Raises `NotFound` with a text that names the unknown part, and `BadRequest` as `decode_path` does.
    """
    path = decode_path(raw_path)
    if path != PREFIX and not path.startswith(PREFIX + "/"):
        raise NotFound(f"EST lives under {PREFIX}/ here.")
    segments = path[len(PREFIX) :].split("/")[1:]
    if not segments or segments == [""]:
        raise NotFound(f"No operation in the path: {PREFIX}/cacerts would be one.")
    if len(segments) > 2:
        raise NotFound(f"Too many path segments: {PREFIX}[/label]/operation is the form.")
    label = segments[0] if len(segments) == 2 else None
    word = segments[-1]
    if not word:
        raise NotFound("The path ends in a slash; operations do not.")
    name = word if word in extra else word.lower()
    if name not in OPERATIONS and name not in extra:
        raise NotFound("No such EST operation here.")
    if label is not None and label not in labels:
        raise NotFound("No such CA label here.")
    return Target(name, label, draft_path=word in _DRAFT_NAMES)


def decode_path(raw_path: str) -> str:
    """Return a path with percent-encoding undone once.

    Raises `BadRequest` for an encoded slash, a control character or bad UTF-8.
    """
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeError:  # encoding may fail too: aiohttp passes bytes that are not UTF-8 as lone surrogates
        raise BadRequest("The path is not UTF-8.") from None
    if "%2f" in raw_path.lower() or not path.isprintable():
        raise BadRequest("The path holds an encoded slash or a control character.")
    return path


def check_method(operation: Operation, method: str) -> None:
    """Raise `MethodNotAllowed` unless the method is the operation's own (RFC 7030 3.2.2)."""
    if method != operation.method:
        raise MethodNotAllowed(f"{operation.name} is a {operation.method}.", allow=operation.method)


def check_media_type(operation: Operation, content_type: str | None, profile: Profile) -> None:
    """Raise `UnsupportedMediaType` unless the operation accepts the Content-Type.

    Types are compared as whole words without case, and parameters are ignored (RFC 9110 8.3.1).  In the draft profile a
    missing type and curl's default are accepted too, since clients of 2013 sent none.
    """
    if not operation.takes_body or not operation.request_types:
        return
    media_type = essence(content_type)
    if media_type in operation.request_types:
        return
    if profile is Profile.DRAFT and media_type in ("", CURL_FORM):
        return
    wanted = operation.request_types[0]
    got = f"not {media_type}" if media_type.isprintable() and media_type else "and none was given"
    raise UnsupportedMediaType(f"{operation.name} takes {wanted}, {got[:100]}.")


def essence(content_type: str | None) -> str:
    """Return the media type in lower case without parameters; empty if there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def profile_of(target: Target, content_type: str | None, setting: str) -> Profile:
    """Return the profile of a request; `setting` is `rfc`, `draft` or `auto`.

    With `auto`, a request with the drafts' mixed-case path or media type is a draft request.
    """
    if setting != "auto":
        return Profile(setting)
    draft = target.draft_path or essence(content_type) == DRAFT_PKCS10
    return Profile.DRAFT if draft else Profile.RFC
