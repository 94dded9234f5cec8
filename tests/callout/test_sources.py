"""Code that the parent compiles for its children: it is never older than the file, and Python does the rest."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from estgw.callout import sources
from estgw.callout.sources import Sources
from tests.callout.running import ENV, running, script


@pytest.fixture
def known(monkeypatch) -> Iterator[Sources]:
    """Code that imports of this process use until the test ends, and that is looked for at each call."""
    monkeypatch.setattr(sources, "LOOK", 0.0)
    monkeypatch.setattr(SourceFileLoader, "get_code", SourceFileLoader.get_code)
    made = Sources()
    made.install()
    yield made


def loaded(path: Path, kind: type[SourceFileLoader] = SourceFileLoader) -> Any:
    """The module in a file, executed."""
    spec = importlib.util.spec_from_file_location("beside", path, loader=kind("beside", str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module(folder: Path, text: str, name: str = "beside") -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def test_a_module_beside_a_script_is_compiled_once(known, tmp_path):
    path = module(tmp_path, "def f(): pass")
    known.look_beside(str(tmp_path / "script"))
    first, second = loaded(path), loaded(path)
    assert first is not second
    assert first.f.__code__ is second.f.__code__
    assert first.f.__code__.co_filename == str(path)
    assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize("looks", [True, False])
def test_an_edit_counts_at_once_even_within_a_second_and_with_the_same_size(known, tmp_path, looks):
    path = module(tmp_path, "value = 1")
    known.look_beside(str(tmp_path / "script"))
    assert loaded(path).value == 1
    info = path.stat()
    path.write_text("value = 2")
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    if looks:
        known.look_beside(str(tmp_path / "script"))
    assert loaded(path).value == 2


def test_a_module_that_is_gone_is_not_found(known, tmp_path):
    path = module(tmp_path, "value = 1")
    known.look_beside(str(tmp_path / "script"))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        loaded(path)


def test_a_fault_or_a_warning_of_the_compiler_is_left_to_python(known, tmp_path):
    faulty, odd = module(tmp_path, "value =", "faulty"), module(tmp_path, "value = 1 is 1", "odd")
    known.look_beside(str(tmp_path / "script"))
    with pytest.raises(SyntaxError, match=r"faulty\.py, line 1"):
        loaded(faulty)
    with pytest.warns(SyntaxWarning, match="is"):
        loaded(odd)


def test_a_loader_of_another_kind_compiles_by_itself(known, tmp_path):
    class Other(SourceFileLoader):
        def get_data(self, path: str) -> bytes:
            return b"value = 'other'"

    path = module(tmp_path, "value = 'file'")
    known.look_beside(str(tmp_path / "script"))
    assert loaded(path, Other).value == "other"


def test_large_modules_and_those_past_a_bound_are_left_to_python(known, tmp_path, monkeypatch):
    compiled: list[str] = []

    def note(_text: bytes, path: str) -> tuple[None, tuple[()]]:
        compiled.append(path)
        return None, ()

    monkeypatch.setattr(sources, "_compiled", note)
    large = module(tmp_path, "#" * (sources.LONGEST_MODULE + 1), "large")
    for number in range(sources.MODULES + 5):
        module(tmp_path, "", f"m{number}")
    known.look_beside(str(tmp_path / "script"))
    assert str(large) not in compiled
    assert sources.MODULES - 1 <= len(compiled) <= sources.MODULES


def test_a_directory_that_can_not_be_read_is_left_to_python(known, tmp_path):
    known.look_beside(str(tmp_path / "missing" / "script"))


@pytest.mark.parametrize("runner", ["fork", "pool"])
def test_a_module_is_executed_in_each_process_with_its_own_variables(tmp_path, runner):
    module(tmp_path, "import os\nwho = os.environ['EST_OPERATION']\nprint('executed', flush=True)")
    program = script(tmp_path, "import beside\nprint(beside.who, beside.__file__, beside.__cached__)")
    with running() as machine:
        said = [machine.run(runner, program, env={**ENV, "EST_OPERATION": who}) for who in ("one", "two")]
        words = [outcome.stdout.decode().split() for outcome in said]
        assert [outcome.exit for outcome in said] == [0, 0]
        again = ["executed", "two"] if runner == "fork" else ["one"]  # a worker keeps what it has imported
        assert words[0][:2] == ["executed", "one"]
        assert words[1][: len(again)] == again
        file = tmp_path / "beside.py"
        assert words[0][2:] == [str(file), importlib.util.cache_from_source(str(file))]
        alone = subprocess.check_output([sys.executable, str(program)], env={**ENV, "EST_OPERATION": "one"}, text=True)
        assert alone.split() == words[0]
