"""From the URL that a user gives to the paths of the operations (RFC 7030 3.1 and 3.2.2).

The user may give an authority, a base path with or without a CA label, or the full path of any operation, in the
spelling of the RFC or of the drafts.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from estgw.client.faults import UsageError, clean
from estgw.est.operations import OPERATIONS, PREFIX, is_operation_name

DEFAULT_PORT = 443
_MAXIMUM_LOCATION = 8000
_LABEL_SAFE = "-._~!$&'()*+,;=:"
"""Characters that a path segment may hold unencoded, besides letters and digits (RFC 3986 3.3)."""


@dataclass(frozen=True)
class Place:
    """An EST server: an origin, and the path under which its operations are."""

    host: str
    """A DNS name in A-label form, or an IP address without brackets."""
    port: int
    base: str
    """The path before the operation, percent-encoded, without a final slash."""
    draft: bool = False
    """Whether operations are spelled as in the drafts, as in the user's URL."""

    @property
    def origin(self) -> tuple[str, int]:
        """The origin (RFC 6454); the scheme is always https."""
        return self.host, self.port

    @property
    def authority(self) -> str:
        """`host[:port]` as URLs and the Host header have it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORT else f"{host}:{self.port}"

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address."""
        return is_address(self.host)

    @property
    def hint(self) -> str:
        """A sentence about a path under which servers seldom have EST; empty for /.well-known/est."""
        if self.base.startswith(PREFIX):
            return ""
        return f"-u names the path {self.base}, and EST is usually under {PREFIX}: try -u https://{self.authority}."

    def path(self, operation: str) -> str:
        """The request target of an operation."""
        row = OPERATIONS[operation]
        return f"{self.base}/{row.draft_name if self.draft else row.name}"

    def url(self, operation: str) -> str:
        """The absolute URL of an operation."""
        return f"https://{self.authority}{self.path(operation)}"


def parse(text: str, label: str | None = None) -> Place:
    """Read `-u` and `--label`; raises `UsageError`.

    A path outside `/.well-known/est` is taken as the base path that a server of the drafts' time was
    configured with: the operation is appended to it.
    """
    host, port, path = _split(text)
    segments = [segment for segment in path.split("/") if segment]
    draft = False
    if segments and is_operation_name(unquote(segments[-1])):
        last = unquote(segments.pop())
        draft = last in {row.draft_name for row in OPERATIONS.values()}
    if not segments:
        segments = PREFIX[1:].split("/")
    if label is not None:
        segments = _with_label(segments, label)
    return Place(host, port, "/" + "/".join(segments), draft)


def resolve(target: str, current: Place, path: str) -> tuple[Place, str]:
    """Resolve a `Location` from `path` at `current` to the place of the new origin and the request target.

    Raises `UsageError` for a URL that is not https, or longer than RFC 9110 4.1 asks a recipient to support.
    """
    if len(target) > _MAXIMUM_LOCATION:
        raise UsageError(f"a URL of more than {_MAXIMUM_LOCATION} characters: {clean(target, 200)!r}")
    try:
        absolute = urljoin(f"https://{current.authority}{path}", target.strip())
    except ValueError:
        raise UsageError(f"not a URL: {clean(target, 200)!r}") from None
    host, port, new_path = _split(absolute)
    return Place(host, port, current.base, current.draft), new_path or "/"


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _split(text: str) -> tuple[str, int, str]:
    """Host, port and path of a URL, or of an authority on its own."""
    shown = clean(text, 200)
    if not text or not text.isprintable() or " " in text:
        raise UsageError(f"not a URL: {shown!r}")
    if "://" not in text:
        text = "https://" + text
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"not a URL: {shown!r}") from None
    if parts.scheme.lower() != "https":
        rest = clean(text.partition("://")[2], 200)
        raise UsageError(f"EST runs over https only (RFC 7030 3.3): write https://{rest} in place of {shown}")
    if not host or parts.username is not None or parts.query or parts.fragment:
        raise UsageError(f"give https://HOST[:PORT][/PATH] and nothing else (the password goes to -p): {shown!r}")
    return _ascii_host(host), DEFAULT_PORT if port is None else port, _ascii_path(parts.path)


def _ascii_host(host: str) -> str:
    if is_address(host):
        return str(ipaddress.ip_address(host))
    try:
        return host.encode("idna").decode().lower().rstrip(".")
    except UnicodeError:
        raise UsageError(f"not a host name: {clean(host, 200)!r}") from None


def _ascii_path(path: str) -> str:
    return quote(path, safe="/%" + _LABEL_SAFE + "@")


def _with_label(segments: list[str], label: str) -> list[str]:
    if not label or "/" in label or not label.isprintable() or is_operation_name(label):
        raise UsageError(f"{clean(label, 100)!r} can't be a CA label (RFC 7030 3.2.2)")
    encoded = quote(label, safe=_LABEL_SAFE)
    known = PREFIX[1:].split("/")
    if segments[:2] == known and len(segments) > 2:
        if segments[2:] != [encoded]:
            raise UsageError(f"the URL has a CA label already, and it is not {clean(label, 100)!r}")
        return segments
    return [*segments, encoded]
