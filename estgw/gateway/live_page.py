"""The live page of a gateway process: from its records to a link for a browser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from estgw.config import routes
from estgw.config.fields import split_address
from estgw.config.model import Config
from estgw.errors import ConfigError
from estgw.gateway.lab_sheets import LabSheets
from estgw.gateway.replays import Replays
from estgw.page import guard, viewers
from estgw.page.app import Desk, Facts, Page, Replay, ReplayFailed
from estgw.page.files import Files
from estgw.page.serving import Address, Served, bind, served
from estgw.page.site import Access
from estgw.page.standing import Standing
from estgw.page.viewers import Tokens
from estgw.record.folder import RecordError
from estgw.record.recorder import Recorder
from estgw.record.ring import Ring
from estgw.tls.sockets import endpoint

VERSIONS = Path(".estgw/versions")
"""Beside conf.yaml: earlier versions of what was edited in the page."""


class LivePage:
    """A page that is being served; its token lasts as long as the process."""

    def __init__(self, page: Page, server: Served, config_file: Path) -> None:
        self._page, self._server, self._config_file = page, server, config_file
        self._port = 0

    @property
    def link(self) -> str:
        """Its URL, with the token behind `#`."""
        return self._server.url

    def opened(self, settings: Config, port: int) -> None:
        """Tell where the gateway listens."""
        self._port = port
        self._page.describe(_facts(settings, self._config_file, port))

    def adopt(self, settings: Config) -> None:
        """Go on under a configuration that was read again: the page, its token and its connections stay.

        Raises OSError if the gateway's certificate can't be used.
        """
        self.opened(settings, self._port)
        self._server.reload(settings.tls.certificate, settings.tls.key)


@contextlib.asynccontextmanager
async def shown(
    settings: Config, config_file: Path, recorder: Recorder | None, addresses: Sequence[str], *, demo: bool
) -> AsyncIterator[LivePage | None]:
    """Serve the page while the context lasts; None if the configuration wants none.  Raises `ConfigError`.

    `addresses` are the gateway's own.  A `demo` takes the next free port where the page's is taken.  Raises OSError
    when the page can't be served.
    """
    ring = recorder.ring if recorder is not None else None
    if settings.page.listen is None or recorder is None or ring is None:
        yield None
        return
    if found := faults(settings):
        raise ConfigError(found)
    host, port = split_address(settings.page.listen)
    files = (settings.tls.certificate, settings.tls.key) if settings.page.public else None
    theirs = frozenset(split_address(address)[1] for address in addresses) - {0}
    address = Address(host, port, next_free=demo, not_these=theirs, tls=files)
    tokens = _tokens(settings)
    token = next(iter(tokens))
    access = Access(tokens, frozenset(settings.page.hosts), address.scheme)
    desk = _desk(settings, config_file, _replay(ring, Replays(recorder, config_file)))
    page = Page(ring, _facts(settings, config_file, 0), access, desk)
    name = _name(settings, host)
    try:
        sock = bind(address)
    except OSError as fault:
        raise OSError(fault.errno, f"page.listen: {fault.strerror}") from None
    async with served(page, sock, address, name, token) as server:
        yield LivePage(page, server, config_file)


def faults(settings: Config) -> list[str]:
    """The faults of the files that `page` names."""
    found = []
    try:
        _tokens(settings)
    except ConfigError as refusal:
        found += refusal.faults
    if settings.page.edit is not None and not settings.page.edit.is_dir():
        found.append(f"page.edit: {settings.page.edit}: no such directory")
    return found


def _tokens(settings: Config) -> Tokens:
    """The tokens of `page.tokens`, or a new one that shows all.  Raises `ConfigError`."""
    if settings.page.tokens is None:
        return {guard.new_token(): None}
    try:
        return viewers.read(settings.page.tokens)
    except ValueError as fault:
        raise ConfigError([f"page.tokens: {fault}"]) from None


def _desk(settings: Config, config_file: Path, replay: Replay) -> Desk:
    folder, edit = config_file.absolute().parent, settings.page.edit
    return Desk(
        replay=replay,
        files=None if edit is None else Files(edit, folder / VERSIONS, routes.search_path(settings.callouts)),
        labs=LabSheets(config_file).run if settings.page.hand else None,
        standing=Standing(folder) if settings.page.hand else None,
    )


def _name(settings: Config, host: str) -> str | None:
    """A host name for the link: one of `page.hosts` where others come from elsewhere; None for the address itself."""
    if settings.page.public and settings.page.hosts:
        return settings.page.hosts[0]
    return {"0.0.0.0": "localhost", "::": "[::1]"}.get(host)  # noqa: S104 - to a browser these are no addresses


def _replay(ring: Ring, replays: Replays) -> Replay:
    async def replay(identifier: str) -> str:
        try:
            made = str((await replays.replay(identifier))["id"])
        except RecordError as fault:
            raise ReplayFailed(str(fault)) from None
        if ring.get(made) is None:
            raise ReplayFailed("the replay is done, and its record is larger than record.memory allows")
        return made

    return replay


def _facts(settings: Config, config_file: Path, port: int) -> Facts:
    folder = config_file.absolute().parent
    anchors = settings.client_auth.explicit
    return Facts(
        name=folder.name,
        url=f"https://{endpoint((settings.server.name, port))}",
        folder=str(folder),
        config=str(config_file.absolute()),
        anchor=str(anchors[0]) if anchors else None,
    )
