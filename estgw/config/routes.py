"""Make routes from the configuration: for each CA label, the operations that are on, their requirements and scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from estgw.config.model import Callouts, Config, OperationSettings, ServiceSettings
from estgw.config.route import Route
from estgw.est.bounds import NameBounds
from estgw.est.operations import OPERATIONS, Body, Operation, Requires


@dataclass(frozen=True)
class Service:
    """The routes and settings of one label, or of the paths without a label."""

    label: str | None
    routes: Mapping[str, Route]
    profile: str
    base64_lines: str


def build(config: Config) -> Mapping[str | None, Service]:
    """Return all services by label.  The one without a label, which RFC 7030 3.2.2 requires, has the key None."""
    services: dict[str | None, Service] = {None: _service(None, ServiceSettings(), config.callouts)}
    for label, settings in config.labels.items():
        services[label] = _service(label, settings, config.callouts)
    return services


def search_path(common: Callouts) -> str:
    """The PATH of all scripts.  In a virtual environment, its programs come first.

    So `#!/usr/bin/env python3` in a handler starts the interpreter that has the gateway's libraries.
    """
    own = [sys.executable.rpartition("/")[0]] if sys.prefix != sys.base_prefix else []
    return ":".join([*own, common.path])


def routes(services: Mapping[str | None, Service]) -> Iterator[Route]:
    """Yield all routes of all labels."""
    for service in services.values():
        yield from service.routes.values()


def _service(label: str | None, own: ServiceSettings, common: Callouts) -> Service:
    names = [
        *OPERATIONS,
        *(name for name in {**common.operations, **own.operations} if name not in OPERATIONS),
    ]
    made = {name: _route(label, name, own, common) for name in names}
    return Service(
        label=label,
        routes={name: route for name, route in made.items() if route is not None},
        profile=own.profile or common.profile,
        base64_lines=own.base64_lines or common.base64_lines,
    )


def _route(label: str | None, name: str, own: ServiceSettings, common: Callouts) -> Route | None:
    """The route, or None if the operation is off.  Settings of the label override those for all labels."""
    shared = common.operations.get(name)
    mine = own.operations.get(name)
    if mine is not None and shared is not None:
        chosen = shared.model_copy(update={key: getattr(mine, key) for key in mine.model_fields_set})
    else:
        chosen = mine or shared or OperationSettings()
    operation = OPERATIONS.get(name) or _new_operation(name, chosen)
    # An entry without `enabled`, such as one with a timeout, does not switch on an operation that is off by default.
    enabled = chosen.enabled if "enabled" in chosen.model_fields_set else not operation.off_by_default
    if not enabled:
        return None
    requires = chosen.requires or operation.requires
    # An operation that is open to all (cacerts, csrattrs) needs no authorization, unless its own entry names a script.
    # CMC does: the requests inside name their senders, whether TLS knows these or not.
    asks_nobody = requires is Requires.NONE and operation.body is not Body.CMC
    authorize = None if asks_nobody else _inherited("authorize", own, common)
    return Route(
        operation=operation,
        label=label,
        handler=chosen.handler or (own.handlers or common.handlers) / name,
        ca_dir=own.ca_dir or common.ca_dir,
        requires=requires,
        authenticate=_own("authenticate", chosen, _inherited("authenticate", own, common)),
        authorize=_own("authorize", chosen, authorize),
        change_subject_name=bool(_inherited("change_subject_name", own, common)),
        renew_without_certificate=bool(_inherited("renew_without_certificate", own, common)),
        csr_template=_inherited("csr_template", own, common) if operation.has_csr or operation.holds_requests else None,
        name_bounds=NameBounds(
            attributes=_inherited("name_bounds", own, common) == "rfc5280",
            subject=_inherited("max_subject", own, common),
            san=_inherited("max_san", own, common),
        ),
        timeout=chosen.timeout or common.timeout,
        decision_timeout=common.decision_timeout,
        raw_output=chosen.raw_output,
        pass_credentials=chosen.pass_credentials,
        pass_headers=common.pass_headers,
        serialize=chosen.serialize,
        search_path=search_path(common),
        handler_env=chosen.handler_env,
        runner=chosen.runner or own.runner or common.runner,
        decision_runner=own.runner or common.runner,
        register=_register(own, common),
    )


def _register(own: ServiceSettings, common: Callouts) -> str | None:
    """A register belongs to a CA: a label with a directory of its own does not inherit the register of another CA."""
    is_same_ca = own.ca_dir in (None, common.ca_dir)
    return own.register_url or (
        common.register_url if is_same_ca and "register_url" not in own.model_fields_set else None
    )


def _inherited(key: str, own: ServiceSettings, common: Callouts) -> Any:
    """The label's setting, if it has one, null included; else the setting for all labels."""
    return getattr(own if key in own.model_fields_set else common, key)


def _own(key: str, settings: OperationSettings, otherwise: Any) -> Any:
    return getattr(settings, key) if key in settings.model_fields_set else otherwise


def _new_operation(name: str, settings: OperationSettings) -> Operation:
    """An operation that the table lacks, such as a path of RFC 8295.  The model has checked that it is complete."""
    return Operation(
        name=name,
        draft_name=name,
        method=settings.method or "GET",
        request_types=settings.request_types or (),
        response_type=settings.response_type or "application/octet-stream",
        body=settings.body or Body.RAW,
        requires=settings.requires or Requires.ANY,
        has_csr=settings.body is Body.ISSUED,
        may_wait=settings.body in (Body.ISSUED, Body.KEYGEN, Body.CMC),
        proves_key=settings.body is Body.ISSUED,
    )
