"""conf.yaml as frozen models: strict, without unknown keys; all faults are reported at once with their positions.

Paths are relative to the file.  The shipped conf.yaml explains the keys.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from estgw.config.fields import (
    BYTES,
    COUNT,
    LABEL,
    SECONDS,
    Bytes,
    Count,
    FilePath,
    Fingerprint,
    HeaderName,
    HostName,
    LabelName,
    Listen,
    Listens,
    NameBytes,
    Network,
    RegisterURL,
    Seconds,
    TLSVersion,
    VariableName,
    VariableValue,
    split_address,
)
from estgw.config.route import Linking, RunnerName
from estgw.est.bounds import NameBounds
from estgw.est.operations import OPERATIONS, Body, Requires, is_operation_name

GONE: Mapping[tuple[str | int, ...], str] = {
    ("client_auth", "nonce_secret"): "this key is gone; remove the line.  Gateways that shared a secret each accepted "
    "what another had accepted, a recorded Digest answer too.  Each process makes its own nonces now, and gives a "
    "client from another one a new nonce (stale=true)"
}
"""Keys of older versions, with the text that says what to do and why they are gone."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Server(_Model):
    """The addresses of the gateway, and the limits of connections."""

    listen: Listens = ("127.0.0.1:8443",)
    name: str = "localhost"
    workers: Annotated[int, COUNT, Field(ge=1, le=64)] = 1
    proxies: tuple[Network, ...] = Field((), strict=False)
    max_connections: Count = 1000
    handshake_timeout: Seconds = 10
    idle_timeout: Seconds = 30
    max_connection_age: Seconds = 3600
    body_timeout: Seconds = 30
    drain_delay: Annotated[float, SECONDS, Field(ge=0, le=3600)] = 0
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
    remember: Annotated[float, SECONDS, Field(ge=0, le=3600)] = 60
    guess_delay: Annotated[float, SECONDS, Field(ge=0, le=60)] = 2

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
    fingerprint: Fingerprint | None = None
    trust: Literal["explicit", "implicit", "none"] | None = None
    ra: bool | None = None
    address: Network | None = None


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
    handler_env: Mapping[VariableName, VariableValue] = Field(default_factory=dict)
    method: Literal["GET", "POST"] | None = None
    request_types: tuple[str, ...] | None = Field(None, strict=False)
    response_type: str | None = None
    body: Annotated[Body | None, Field(strict=False)] = None


class ServiceSettings(_Model):
    """The settings of one CA label.  The default of each is the setting for the paths without a label."""

    handlers: FilePath | None = None
    ca_dir: FilePath | None = None
    register_url: RegisterURL | None = Field(None, alias="register")
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


def _places() -> int:
    """How many callouts run at once where conf.yaml does not say.

    Most scripts compute all the time.  More of them at once issue hardly more, and all others wait for a processor.
    """
    return max(4, 2 * len(os.sched_getaffinity(0)))


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
    max_running: Count = Field(default_factory=_places)
    max_waiting: Count = 100
    max_stdout: Bytes = 1024 * 1024
    max_stderr: Bytes = 64 * 1024
    runner: RunnerName = "auto"
    pool_size: Count = 4
    pool_requests: Count = 1000
    max_file: Annotated[int, BYTES, Field(ge=1024 * 1024, le=1 << 40)] = 1 << 30
    path: str = "/usr/local/bin:/usr/bin:/bin"
    pass_headers: tuple[HeaderName, ...] = Field((), strict=False)


class Log(_Model):
    """The form and level of the log."""

    format: Literal["auto", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning"] = "info"


class Metrics(_Model):
    """The address at which metrics are served, if any."""

    listen: Listen | None = None


class Recording(_Model):
    """What is kept of each request, in memory and as files."""

    keep: Annotated[int, COUNT, Field(ge=0, le=10_000)] = 0
    memory: Annotated[int, BYTES, Field(ge=1024 * 1024, le=1 << 40)] = 64 * 1024 * 1024
    dir: FilePath | None = None
    files: Count = 5000

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self.keep > 0 or self.dir is not None


DEMO_RECORDS, DEMO_KEEP = "records", 200
"""Where a demo records, and how many it keeps in memory, if conf.yaml says nothing about it."""


class Page(_Model):
    """The live page: what is recorded, in a browser."""

    listen: Listen | None = None
    hosts: tuple[HostName, ...] = Field((), strict=False)
    public: bool = False
    tokens: FilePath | None = None
    edit: FilePath | None = None
    hand: bool = False

    @model_validator(mode="after")
    def _local_or_public(self) -> Page:
        host = None if self.listen is None else split_address(self.listen)[0]
        if host is not None and not self.public and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(
                f"{self.listen} can be reached from other machines: listen on 127.0.0.1 or [::1], "
                "or say public: true, for TLS with the gateway's certificate"
            )
        return self


DEMO_PAGE = "127.0.0.1:8444"
"""Where a demo serves the page, if conf.yaml says nothing about it and the port is free."""


class Config(_Model):
    """The whole of conf.yaml."""

    server: Server = Server()
    tls: TLS
    client_auth: ClientAuth = ClientAuth()
    pop: POP = POP()
    callouts: Callouts
    labels: Mapping[LabelName, ServiceSettings] = Field(default_factory=dict)
    log: Log = Log()
    metrics: Metrics = Metrics()
    record: Recording = Recording()
    page: Page = Page()

    @field_validator("page")
    @classmethod
    def _can_be_shown(cls, page: Page, info: ValidationInfo) -> Page:
        server, record = info.data.get("server"), info.data.get("record")
        if page.listen is None or server is None or record is None:  # what is wrong with these is told anyway
            return page
        if server.workers > 1:
            raise ValueError(
                "each worker has records of its own, and a page shows those of one: set server.workers to 1"
            )
        if not record.keep:
            raise ValueError("the page shows the records in memory: set record.keep, such as 200")
        if page.listen in server.listen and not page.listen.endswith(":0"):
            raise ValueError(f"{page.listen} is an address of the gateway itself: take another port")
        return page

    def for_demo(self, folder: Path, name: str = "") -> Config:
        """The same for `estgw demo`, which records and shows that if conf.yaml does not mention it.

        `folder` is where conf.yaml lies.  A `name` takes the place of `server.name`.
        """
        made = self
        if name:
            made = made.model_copy(update={"server": made.server.model_copy(update={"name": name})})
        if "record" not in self.model_fields_set:
            record = Recording(keep=DEMO_KEEP).model_copy(update={"dir": folder.absolute() / DEMO_RECORDS})
            made = made.model_copy(update={"record": record})
        if "page" not in self.model_fields_set and made.record.keep and self.server.workers == 1:
            made = made.model_copy(update={"page": Page(listen=DEMO_PAGE)})
        return made
