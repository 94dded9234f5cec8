"""The checks of each CA label: its scripts, its CA directory, its csr_template.

A fault that is found here takes one label out of service and no other.  The paths without a label count as a label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from estgw.callout import program, runners
from estgw.callout.language import language
from estgw.config import csrattrs_yaml, loading, routes
from estgw.config.marked_yaml import text_of
from estgw.config.model import Config
from estgw.config.route import Route
from estgw.config.routes import Service
from estgw.errors import ConfigError, Unavailable
from estgw.est.operations import Body
from estgw.est.template_check import TemplateCheck

Faults = Mapping[str | None, tuple[str, ...]]
"""The faults by label; a label without a fault has no entry."""


@dataclass(frozen=True)
class Snapshot:
    """conf.yaml, what its labels' checks have found, and the csr_template files, all read at one moment.

    Several workers are given one snapshot, so that all of them have the same labels in service.
    """

    text: str
    settings: Config
    faults: Faults = field(default_factory=dict)
    templates: Mapping[Path, str] = field(default_factory=dict)
    """The text of each sound `csr_template`."""
    demo: str | None = None
    """For `estgw demo`, which records if conf.yaml is silent: its host name, or empty for the configured one.

    None: not for a demo.
    """

    @classmethod
    def take(cls, path: Path, *, demo: str | None = None) -> Snapshot:
        """Read conf.yaml and check its labels; raises `ConfigError` for a fault of conf.yaml itself."""
        text = text_of(path)
        settings = _settings(path, text, demo=demo)
        faults: dict[str | None, tuple[str, ...]] = {}
        templates: dict[Path, str] = {}
        for label, service in routes.build(settings).items():
            found = [*_script_faults(service), *_ca_faults(service), *_template_faults(service, templates)]
            if found:
                faults[label] = tuple(dict.fromkeys(found))
        return cls(text, settings, faults, templates, demo)

    def encode(self) -> bytes:
        """For another process, which has the same code."""
        templates = {str(path): text for path, text in self.templates.items()}
        return json.dumps([self.text, list(self.faults.items()), templates, self.demo]).encode()

    @classmethod
    def decode(cls, path: Path, content: str) -> Snapshot:
        """What `encode` made; `path` is that of conf.yaml."""
        text, faults, templates, demo = json.loads(content)
        return cls(
            text,
            _settings(path, text, demo=demo),
            {label: tuple(found) for label, found in faults},
            {Path(name): template for name, template in templates.items()},
            demo,
        )

    @property
    def in_service(self) -> frozenset[str | None]:
        """The labels without a fault."""
        return frozenset({None, *self.settings.labels}) - self.faults.keys()

    def template_checks(self) -> Mapping[Path, TemplateCheck]:
        """What the `csr_template` files insist on."""
        return {path: csrattrs_yaml.template_check(text.encode(), path) for path, text in self.templates.items()}

    def sentences(self) -> list[str]:
        """Each fault once, with the labels that it takes out of service."""
        return sentences(self.faults, only_one=not self.settings.labels)


def _settings(path: Path, text: str, *, demo: str | None) -> Config:
    settings = loading.load(path, text)
    return settings if demo is None else settings.for_demo(path.parent, demo)


def sentences(faults: Faults, *, only_one: bool = False) -> list[str]:
    """Each fault once, with the labels that have it; `only_one` leaves them out, where there is one label alone."""
    by_fault: dict[str, list[str]] = {}
    for label, found in faults.items():
        for fault in found:
            by_fault.setdefault(fault, []).append(name(label))
    return [fault if only_one else f"{fault} ({', '.join(labels)})" for fault, labels in by_fault.items()]


def name(label: str | None) -> str:
    """A label in a sentence."""
    return "the default label" if label is None else f"label {label}"


def out_of_service(label: str | None, faults: Iterable[str], retry_after: int) -> Unavailable:
    """The refusal of each request to a label with faults."""
    subject, (first, *others) = name(label), faults
    more = f", and {len(others)} more; `estgw check` lists all" if others else ""
    return Unavailable(
        f"{subject[:1].upper()}{subject[1:]} is out of service, because its configuration has a fault. "
        "The server's log says which.",
        retry_after=retry_after,
        log=f"{subject} is out of service: {first}{more}",
    )


def _script_faults(service: Service) -> list[str]:
    found = []
    scripts = {(script, route.search_path) for route in service.routes.values() for script in route.programs}
    for script, search_path in sorted(scripts):
        found += program.faults(script, search_path)
    return found or [
        f"{route.handler}: the runner {route.runner} is for Python scripts; auto and exec are for all"
        for route in _routes_without_a_runner(service)
    ]


def _routes_without_a_runner(service: Service) -> list[Route]:
    """The routes whose handler the runner asked for can't run.

    A label's runner is meant for those of its scripts that it can run, so it must fit one.  A runner that an operation
    names is meant for that handler.
    """
    served = list(service.routes.values())
    unfit = [route for route in served if not runners.can_run(route.runner, language(route.handler))]
    return [route for route in unfit if route.runner != route.decision_runner or len(unfit) == len(served)]


def _ca_faults(service: Service) -> list[str]:
    folders = {route.ca_dir for route in service.routes.values()}
    found = [f"{folder}: not a directory" for folder in sorted(folders) if not folder.is_dir()]
    return found + [
        f"{route.handler}: it would not use the register in PostgreSQL, or would connect to it for each request: "
        "`register` is for scripts in Python with runner: fork or pool"
        for route in service.routes.values()
        if route.register and route.operation.body in ISSUING and not _keeps_connections(route)
    ]


ISSUING = (Body.ISSUED, Body.KEYGEN, Body.CMC)


def _keeps_connections(route: Route) -> bool:
    return runners.choose(route.runner, language(route.handler)) in ("fork", "pool")


def _template_faults(service: Service, templates: dict[Path, str]) -> list[str]:
    found: list[str] = []
    for path in sorted({route.csr_template for route in service.routes.values() if route.csr_template}):
        try:
            content = csrattrs_yaml.template_content(path)
            csrattrs_yaml.template_check(content, path)
        except ConfigError as refusal:
            found += refusal.faults
        else:
            templates[path] = content.decode()
    return found
