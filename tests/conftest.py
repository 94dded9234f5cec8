from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.kit import preloaded
from tests.kit.gateway import Gateway, enrol, running_gateway
from tests.kit.postgres import Cluster, program, running_cluster
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

# Tests let scripts flood their outputs on purpose. If one outlives its test, the kernel stops it at this limit.
_soft, _hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, _hard))

# The time of an example depends more on the machine and its load than on the tested code.
hypothesis.settings.register_profile("estgw", deadline=None)
hypothesis.settings.load_profile("estgw")


gc.disable()  # until all tests are collected: nothing of that is garbage, and it would be looked at again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the workshops.

    Processes divide the last tests among themselves, and each would make a course of its own for a few of these.
    """
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests/workshop"))


def pytest_collection_finish() -> None:
    """Leave thousands of tests out of each later garbage collection: one twentieth of the time of all."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Import the modules of the whole suite, in each worker in another order.

    Workers collect at the same time, and each would compile what Python has not compiled yet.  So each begins with a
    part of its own and finds the rest compiled.
    """
    worker: dict[str, Any] = getattr(session.config, "workerinput", {})
    if not worker or [Path(each).resolve() for each in session.config.args] != [ROOT / "tests"]:
        return
    ignored = {ROOT / each for each in session.config.getoption("ignore") or ()}
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if ignored.isdisjoint((path, *path.parents))]
    begin = len(files) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for path in files[begin:] + files[:begin]:
        with contextlib.suppress(BaseException):  # its collection reports it
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("client"):
        for name in mark.args:
            if reason := _missing(name):
                pytest.skip(reason)


@functools.cache
def _missing(client: str) -> str | None:
    """Why a real client can't be used here; None if it can."""
    if not shutil.which(client, path=f"{os.environ['PATH']}:/usr/sbin:{Path(sys.executable).parent}"):
        return f"{client} is not installed"
    if client == "pki":
        # strongSwan's fetcher is a plugin, and old versions know no EST.
        probe = ["pki", "--estca", "--url", "https://127.0.0.1:1"]
        done = subprocess.run(probe, capture_output=True, check=False, text=True, timeout=20)
        if "unknown" in done.stderr or "no capable fetcher" in done.stderr:
            return "pki lacks --estca or the curl plugin (libstrongswan-extra-plugins)"
    return None


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and warm parents of this process are forked, as those of a forked gateway are."""
    for module, replacement in preloaded.forking().items():
        monkeypatch.setattr(module, "subprocess", replacement)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A demo workspace, made once for each test process; tests that change files take a copy."""
    return Workspace.demo(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def gateway(lab: Workspace) -> Iterator[Gateway]:
    """The shipped configuration, served by a process as a user starts it."""
    with running_gateway(lab, fresh=True) as running:
        yield running


@pytest.fixture
def own_lab(lab: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace, which the test may change."""
    return lab.copy(tmp_path / "lab")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of the tests' own, started once in each test process."""
    with _started() as running:
        yield running


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """Another one, for the tests of a module that stop it."""
    with _started() as running:
        yield running


def _started() -> AbstractContextManager[Cluster]:
    if program("initdb") is None:
        pytest.skip("PostgreSQL's initdb is not installed")
    return running_cluster()


@pytest.fixture(scope="session")
def device(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of `CN=device-1`, enrolled once."""
    return enrol(gateway, tmp_path_factory.mktemp("device"))
