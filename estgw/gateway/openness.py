"""Which operations each label has open, to whom, and under which scripts: for `estgw check`, and for the log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from estgw.config.model import Config
from estgw.config.route import Route
from estgw.config.routes import Service
from estgw.est.operations import Requires

OPEN_TO: Mapping[Requires, str] = {
    Requires.NONE: "anybody",
    Requires.ANY: "certificate or password",
    Requires.TLS: "certificate",
    Requires.HTTP: "password",
    Requires.BOTH: "certificate and password",
}
"""What each `requires` means, in the words of the table."""
HEADER = ("label", "operations", "requires", "passwords by", "authorize", "handlers", "runner")
NOTHING = "-"


@dataclass(frozen=True)
class Row:
    """Operations of one label that differ in nothing but their names; the fields are those of `HEADER`."""

    label: str
    operations: str
    requires: str
    authenticate: str
    authorize: str
    handlers: str
    runner: str

    @property
    def sentence(self) -> str:
        """The row without its label, for the log."""
        scripts = [
            f"{key} {value}"
            for key, value in (("passwords by", self.authenticate), ("authorize", self.authorize))
            if value != NOTHING
        ]
        return "; ".join([f"{self.operations}: {self.requires}", *scripts, f"handlers {self.handlers} ({self.runner})"])


def rows(settings: Config, services: Mapping[str | None, Service], folder: Path) -> list[Row]:
    """The table; paths are as seen from `folder`, the configuration's."""
    return [row for service in services.values() for row in rows_of(service, settings, folder)]


def rows_of(service: Service, settings: Config, folder: Path) -> Iterator[Row]:
    """The rows of one label."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, route in service.routes.items():
        found.setdefault(_alike(route, settings, folder), []).append(name)
    for rest, names in found.items():
        yield Row(service.label or "(none)", ", ".join(names), *rest)


def _alike(route: Route, settings: Config, folder: Path) -> tuple[str, ...]:
    """What operations share that stand in one row."""

    def seen(path: Path | None) -> str:
        if path is None:
            return NOTHING
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

    known, requires = settings.client_auth, route.requires
    passwords = seen(route.authenticate or known.users or known.digest_users)
    no_passwords = passwords == NOTHING and requires is Requires.ANY
    open_to = OPEN_TO[Requires.TLS if no_passwords else requires]
    handlers = route.handler.parent if route.handler.name == route.operation.name else route.handler
    return (
        f"{requires.value} ({open_to})",
        NOTHING if requires in (Requires.NONE, Requires.TLS) else passwords,
        seen(route.authorize),
        seen(handlers),
        route.runner,
    )


def table(found: list[Row]) -> str:
    """The rows in columns, under a header."""
    lines = [HEADER, *(astuple(row) for row in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
