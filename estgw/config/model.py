"""conf.yaml as frozen models: strict, without unknown keys; all faults are reported at once with their positions.

Paths are relative to the file.  The shipped conf.yaml explains the keys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from estgw.config import marked_yaml
from estgw.config.route import Linking, RunnerName
from estgw.errors import ConfigError
from estgw.est.bounds import NameBounds
from estgw.est.operations import OPERATIONS, Body, Requires, is_operation_name

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,63}")
"""RFC 3986 unreserved characters; RFC 7030 3.2.2 leaves the alphabet open."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
GONE: Mapping[tuple[str | int, ...], str] = {
    ("client_auth", "nonce_secret"): "this key is gone; remove the line.  Gateways that shared a secret each accepted "
    "what another had accepted, a recorded Digest answer too.  Each process makes its own nonces now, and gives a "
    "client from another one a new nonce (stale=true)"
}
"""Keys of older versions, with the text that says what to do and why they are gone."""
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


_SECONDS = _number(" of seconds", 30, {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400})
_BYTES = _number(" of bytes", 65536, {"": 1, "b": 1} | dict.fromkeys(("k", "kb", "kib"), 1024)
                 | dict.fromkeys(("m", "mb", "mib"), 1024**2) | dict.fromkeys(("g", "gb", "gib"), 1024**3))  # fmt: skip
_COUNT = _number("", 10, {"": 1})


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


FilePath = Annotated[Path, BeforeValidator(_resolve)]
Listen = Annotated[str, BeforeValidator(_listen)]
Seconds = Annotated[float, _SECONDS, Field(gt=0, le=86400)]
Count = Annotated[int, _COUNT, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, _BYTES, Field(ge=1024, le=64 * 1024 * 1024)]
NameBytes = Annotated[int, _BYTES, Field(ge=64, le=64 * 1024)]
TLSVersion = Literal["1.2", "1.3"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Server(_Model):
    """The addresses of the gateway, and the limits of connections."""

    listen: Annotated[tuple[Listen, ...], BeforeValidator(_listens), Field(strict=False)] = ("127.0.0.1:8443",)
    name: str = "localhost"
    workers: Annotated[int, _COUNT, Field(ge=1, le=64)] = 1
    max_connections: Count = 1000
    handshake_timeout: Seconds = 10
    idle_timeout: Seconds = 30
    max_connection_age: Seconds = 3600
    body_timeout: Seconds = 30
    drain_timeout: Seconds = 40
    max_body: Bytes = 256 * 1024


class TLS(_Model):
    """The gateway's own certificate, and its TLS versions."""

    certificate: FilePath
    key: FilePath
    minimum: TLSVersion = "1.2"
    maximum: TLSVersion = "1.3"

    @model_validator(mode="after")
    def _ordered(self) -> TLS:
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


class ClientAuth(_Model):
    """The certificates and passwords by which clients authenticate (RFC 7030 3.2.3, 3.3.2)."""

    explicit: tuple[FilePath, ...] = Field((), strict=False)
    implicit: tuple[FilePath, ...] = Field((), strict=False)
    crls: tuple[FilePath, ...] = Field((), strict=False)
    unknown_certificates: Literal["reject", "anonymous", "pass"] = "anonymous"
    users: FilePath | None = None
    digest: tuple[Literal["SHA-256", "MD5"], ...] = Field((), strict=False)
    digest_users: FilePath | None = None
    nonce_age: Seconds = 300
    realm: str = Field("estrealm", pattern=r'^[^":\\\x00-\x1f\x7f]{1,100}$')
    remember: Annotated[float, _SECONDS, Field(ge=0, le=3600)] = 60
    guess_delay: Annotated[float, _SECONDS, Field(ge=0, le=60)] = 2

    @model_validator(mode="after")
    def _digest_whole(self) -> ClientAuth:
        if bool(self.digest) != bool(self.digest_users):
            raise ValueError("digest and digest_users belong together")
        return self


class POPRule(_Model):
    """The linking setting `pop` for the clients that meet all given conditions."""

    pop: Linking
    operation: str | None = None
    label: str | None = None
    user: str | None = None
    subject: str | None = None
    issuer: str | None = None
    fingerprint: Annotated[str, AfterValidator(_fingerprint)] | None = None
    trust: Literal["explicit", "implicit", "none"] | None = None
    ra: bool | None = None
    address: Annotated[str, AfterValidator(_network)] | None = None


class POP(_Model):
    """Linking identity and POP (RFC 7030 3.5)."""

    tls13: Literal["exporter", "finished", "off"] = "exporter"
    attribute: Literal["challengePassword", "estIdentityLinking"] = "challengePassword"
    rules: tuple[POPRule, ...] = Field((), strict=False)
    default: Linking = "optional"


class OperationSettings(_Model):
    """One operation: the differences from the table of `estgw.est.operations`, or a new operation."""

    enabled: bool = True
    handler: FilePath | None = None
    requires: Annotated[Requires | None, Field(strict=False)] = None
    timeout: Seconds | None = None
    authenticate: FilePath | None = None
    authorize: FilePath | None = None
    raw_output: bool = False
    pass_credentials: bool = False
    serialize: str | None = None
    runner: RunnerName | None = None
    handler_env: Mapping[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_value)]] = Field(
        default_factory=dict
    )
    method: Literal["GET", "POST"] | None = None
    request_types: tuple[str, ...] | None = Field(None, strict=False)
    response_type: str | None = None
    body: Annotated[Body | None, Field(strict=False)] = None


class ServiceSettings(_Model):
    """The settings of one CA label.  The default of each is the setting for the paths without a label."""

    handlers: FilePath | None = None
    ca_dir: FilePath | None = None
    profile: Literal["rfc", "draft", "auto"] | None = None
    base64_lines: Literal["auto", "64", "none"] | None = None
    authenticate: FilePath | None = None
    authorize: FilePath | None = None
    change_subject_name: bool | None = None
    renew_without_certificate: bool | None = None
    name_bounds: Literal["rfc5280", "none"] | None = None
    max_subject: NameBytes | None = None
    max_san: NameBytes | None = None
    csr_template: FilePath | None = None
    runner: RunnerName | None = None
    operations: Mapping[str, OperationSettings] = Field(default_factory=dict)

    @field_validator("operations")
    @classmethod
    def _known_or_complete(cls, operations: Mapping[str, OperationSettings]) -> Mapping[str, OperationSettings]:
        found = {name: fault for name, settings in operations.items() if (fault := _operation_fault(name, settings))}
        if found:
            raise PydanticCustomError("operations", "see ctx", {"faults": found})
        return operations


def _operation_fault(name: str, settings: OperationSettings) -> str | None:
    shape = (settings.method, settings.response_type, settings.body)
    if name in OPERATIONS:
        given = any(part is not None for part in (*shape, settings.request_types))
        return "its method, types and body are given by RFC 7030" if given else None
    if is_operation_name(name):
        return "write it in lower case; both spellings are served"
    if not LABEL.fullmatch(name):
        return "an operation's name is a path segment: letters, digits and . _ ~ - only"
    return "a new operation says method, response_type and body" if None in shape else None


class Callouts(ServiceSettings):
    """The settings for the paths without a label, and the limits of every callout."""

    handlers: FilePath
    ca_dir: FilePath
    profile: Literal["rfc", "draft", "auto"] = "auto"
    base64_lines: Literal["auto", "64", "none"] = "auto"
    change_subject_name: bool = False
    renew_without_certificate: bool = False
    name_bounds: Literal["rfc5280", "none"] = "rfc5280"
    max_subject: NameBytes = NameBounds.subject
    max_san: NameBytes = NameBounds.san
    timeout: Seconds = 30
    decision_timeout: Seconds = 5
    retry_after: Count = 60
    max_running: Count = 8
    max_waiting: Count = 100
    max_stdout: Bytes = 1024 * 1024
    max_stderr: Bytes = 64 * 1024
    runner: RunnerName = "auto"
    pool_size: Count = 4
    pool_requests: Count = 1000
    max_file: Annotated[int, _BYTES, Field(ge=1024 * 1024, le=1 << 40)] = 1 << 30
    path: str = "/usr/local/bin:/usr/bin:/bin"
    pass_headers: tuple[Annotated[str, AfterValidator(_header)], ...] = Field((), strict=False)


class Log(_Model):
    """The form and level of the log."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning"] = "info"


class Metrics(_Model):
    """The address at which metrics are served, if any."""

    listen: Listen | None = None


class Config(_Model):
    """The whole of conf.yaml."""

    server: Server = Server()
    tls: TLS
    client_auth: ClientAuth = ClientAuth()
    pop: POP = POP()
    callouts: Callouts
    labels: Mapping[Annotated[str, AfterValidator(_label)], ServiceSettings] = Field(default_factory=dict)
    log: Log = Log()
    metrics: Metrics = Metrics()


def load(path: Path, text: str | None = None) -> Config:
    """Read conf.yaml, or take `text` for what stands in it; raises `ConfigError` with every fault in it."""
    marked = marked_yaml.read(path) if text is None else marked_yaml.parse(path, text)
    if not isinstance(marked.data, dict):
        raise ConfigError([marked.fault((), "a mapping with the group names is expected")])
    odd = marked.odd_numbers()
    try:
        made = Config.model_validate(marked.data, context={"base": path.absolute().parent})
    except ValidationError as refusal:
        found = [fault for error in refusal.errors() if error["loc"] not in odd for fault in _faults(marked, error)]
        raise ConfigError([*odd.values(), *found]) from None
    if odd:
        raise ConfigError(list(odd.values()))
    return made


def _faults(marked: marked_yaml.MarkedYAML, error: Any) -> list[str]:
    if error["type"] == "operations":
        return [marked.fault((*error["loc"], name), text) for name, text in error["ctx"]["faults"].items()]
    return [_fault(marked, error)]


def _fault(marked: marked_yaml.MarkedYAML, error: Any) -> str:
    loc: tuple[str | int, ...] = tuple(step for step in error["loc"] if step != "[key]")
    match error["type"]:
        case "missing":
            return marked.fault(loc, "is missing")
        case "extra_forbidden":
            return marked.fault(loc, GONE.get(loc, "no such key here"))
        case "value_error":
            text = str(error["ctx"]["error"])
        case _:
            text = error["msg"][:1].lower() + error["msg"][1:]
    scalar = marked.plain_scalar(loc)
    wants_text = "string" in text or error["type"] in ("literal_error", "enum")
    if scalar and wants_text and not isinstance(error["input"], str):
        text = f'YAML reads {scalar} as {marked_yaml.a(type(error["input"]).__name__)}; quote it: "{scalar}"'
    return marked.fault(loc, text)
