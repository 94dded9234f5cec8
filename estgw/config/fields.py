"""The types of the values in conf.yaml: how each is read, and the sentence for one that can't be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from estgw.est.operations import is_operation_name

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
"""RFC 3986 unreserved characters; RFC 7030 3.2.2 leaves the alphabet open."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
FORBIDDEN_HEADERS = {"proxy", "authorization", "proxy-authorization"}
"""`Proxy` would become HTTP_PROXY, which programs use; credentials have variables of their own."""


def _resolve(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        raise ValueError("a string is expected, the path of a file")
    if not value or "\0" in value:
        raise ValueError("no path of a file")
    base: Path = (info.context or {})["base"]
    try:
        return (base / Path(value).expanduser()).absolute()
    except RuntimeError:
        raise ValueError(f"{value}: there is no such user") from None


def _listen(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):  # YAML's reading of a port alone
        raise ValueError(f"give it as ADDRESS:PORT, such as 127.0.0.1:{value if 0 <= value < 65536 else 8443}")
    if isinstance(value, str):
        split_address(value)
    return value


def _listens(value: object) -> object:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("at least one address is needed, such as [127.0.0.1:8443]")
        return value
    address = value if isinstance(value, str) and ":" in value else f"127.0.0.1:{value}"
    try:
        split_address(address)
    except ValueError:
        address = "127.0.0.1:8443"
    raise ValueError(f"a list of ADDRESS:PORT in brackets is expected: [{address}]")


def split_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8443` or `[::1]:8443` as host and port; raises ValueError with a sentence."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError("give it as ADDRESS:PORT, such as 127.0.0.1:8443 or [::1]:8443")
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        raise ValueError(f"{host} is no IP address; 0.0.0.0 and [::] listen everywhere") from None


def _number(kind: str, example: int, units: Mapping[str, int]) -> BeforeValidator:
    """Explain the form of a number to those who write a unit: the units are known and the number is computed."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"([0-9]{1,9}) ?([A-Za-z]*)", value)
        factor = units.get(found[2].lower()) if found else None
        way_out = f"write {int(found[1]) * factor}" if found and factor else f"for example {example}"
        raise ValueError(f"a number{kind} is expected, without a unit and without quotes: {way_out}")

    return BeforeValidator(check)


SECONDS = _number(" of seconds", 30, {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400})
BYTES = _number(" of bytes", 65536, {"": 1, "b": 1} | dict.fromkeys(("k", "kb", "kib"), 1024)
                 | dict.fromkeys(("m", "mb", "mib"), 1024**2) | dict.fromkeys(("g", "gb", "gib"), 1024**3))  # fmt: skip
COUNT = _number("", 10, {"": 1})


def _label(name: str) -> str:
    if is_operation_name(name):
        raise ValueError("an operation's name can't be a label (RFC 7030 3.2.2)")
    if not LABEL.fullmatch(name):
        raise ValueError("a label has letters, digits and . _ ~ - only")
    return name


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError("no name for an environment variable")
    return name


def _value(text: str) -> str:
    if not text.isprintable() or text.startswith("() {"):
        raise ValueError("a variable's value has no control character and does not begin like a shell function")
    return text


def _host(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", name):
        raise ValueError("a host name without a port is expected, such as lab.example")
    return name.lower()


def _header(name: str) -> str:
    if name.lower() in FORBIDDEN_HEADERS or not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name):
        raise ValueError(f"{name} can't be passed to a script")
    return name


def _fingerprint(text: str) -> str:
    digits = text.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError("a SHA-256 fingerprint has 64 hex digits, with or without colons")
    return digits


def _network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


def _register(url: str) -> str:
    """What psycopg will read; no sentence here repeats it, as there may be a password in it."""
    if not re.match(r"postgres(ql)?://", url):
        raise ValueError("postgresql://ROLE@HOST/DATABASE is expected; without a register it is certs.sqlite in ca_dir")
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
    except ValueError:
        raise ValueError("this URL can't be read: postgresql://ROLE@HOST/DATABASE is expected") from None
    if ":" in parts.netloc.rpartition("@")[0] or not query.keys().isdisjoint({"password", "sslpassword"}):
        raise ValueError(
            "a password has no place in this file, which scripts and logs may show: take it out, change it, and write "
            "?passfile=/etc/estgw/pgpass, or use a client certificate (?sslcert=...&sslkey=...)"
        )
    if "options" in query:
        raise ValueError("PgBouncer refuses options: set them for the role, by ALTER ROLE ... SET")
    if not url.isprintable() or len(url) > 2000:
        raise ValueError("a URL has at most 2000 characters, and no control character")
    return url


FilePath = Annotated[Path, BeforeValidator(_resolve)]
Listen = Annotated[str, BeforeValidator(_listen)]
Seconds = Annotated[float, SECONDS, Field(gt=0, le=86400)]
Count = Annotated[int, COUNT, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, BYTES, Field(ge=1024, le=64 * 1024 * 1024)]
NameBytes = Annotated[int, BYTES, Field(ge=64, le=64 * 1024)]
TLSVersion = Literal["1.2", "1.3"]


LabelName = Annotated[str, AfterValidator(_label)]
VariableName = Annotated[str, AfterValidator(_variable)]
VariableValue = Annotated[str, AfterValidator(_value)]
HostName = Annotated[str, AfterValidator(_host)]
RegisterURL = Annotated[str, AfterValidator(_register)]
HeaderName = Annotated[str, AfterValidator(_header)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
Network = Annotated[str, AfterValidator(_network)]
Listens = Annotated[tuple[Listen, ...], BeforeValidator(_listens), Field(strict=False)]
