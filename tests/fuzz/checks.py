"""Shared parts of the targets: their registration, and the rules that results must keep."""

from __future__ import annotations

import contextlib
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.callout.call import Call
from estgw.callout.contract import ENV_VARS
from estgw.callout.environment import MAXIMUM_ENVIRONMENT, MAXIMUM_VARIABLE, environment_of
from estgw.errors import BadRequest, ConfigError, Malformed, RequestError
from estgw.est import encoding
from tests.kit.processes import ROOT

Function = Callable[[bytes], None]
Table = dict[str, tuple[Function, list[bytes]]]

DIRECTORY = Path(tempfile.gettempdir()) / "estgw-fuzz-no-such-directory"
"""The files of a call would be here; no target writes them."""
LONGEST_YAML = 10_000
"""In bytes. PyYAML takes 10 microseconds and more for each."""
_KEYS = Path(__file__).parent / "keys"
EC_KEY: Any = load_pem_private_key((_KEYS / "ec.pem").read_bytes(), None)
RSA_KEY: Any = load_pem_private_key((_KEYS / "rsa.pem").read_bytes(), None)
_VECTORS = ROOT / "tests" / "vectors"


def target(table: Table, *expected: type[Exception], seeds: str = "") -> Callable[[Function], Function]:
    """Put a function into a table. `expected` exceptions are no findings; `seeds` is a pattern of vectors."""

    def put(function: Function) -> Function:
        def run(data: bytes) -> None:
            with only(*expected):
                function(data)

        found = [path.read_bytes() for path in sorted(_VECTORS.glob(seeds))] if seeds else []
        table[function.__name__.replace("_", "-")] = (run, found)
        return function

    return put


@contextlib.contextmanager
def only(*expected: type[Exception]) -> Iterator[None]:
    """Allow these exceptions. Any other exception of the project, which the runner would allow, becomes a finding."""
    try:
        yield
    except expected:
        pass
    except (Malformed, RequestError, ConfigError) as fault:
        raise AssertionError(f"a fault of another kind: {type(fault).__name__}") from fault


_FIXED = {row.name for row in ENV_VARS}
_FAMILIES = tuple(name.removesuffix("n") for name in _FIXED if name.endswith("_n"))


def check_environment(call: Call) -> None:
    """Variables for scripts have the names of the table, contain plain text, and are bounded."""
    with only(BadRequest):
        made = environment_of(call)
        assert sum(len(name.encode()) + len(text.encode()) + 10 for name, text in made.items()) <= MAXIMUM_ENVIRONMENT
        for name, text in made.items():
            family = name.startswith(_FAMILIES) and name.rpartition("_")[2].isdigit()
            assert name in _FIXED or family or name in {"POLICY", "HTTP_USER_AGENT"}, name
            assert len(name) + 1 + len(text.encode()) <= MAXIMUM_VARIABLE, name
            assert not text.startswith("() {"), name
            odd = {char for char in text if unicodedata.category(char) in ("Cc", "Cs")}
            assert odd <= ({"\n"} if text.startswith("-----BEGIN ") else set()), (name, odd)
        for _, content in call.files():
            encoding.pem_blocks(content)
    _ = call.pending_id


@contextlib.contextmanager
def placed(path: Path | str, place: str = r":\d+:\d+: ") -> Iterator[None]:
    """Every fault raised inside is one line that begins with its place."""
    try:
        yield
    except ConfigError as refusal:
        for fault in refusal.faults:
            assert re.match(re.escape(str(path)) + place, fault), fault
            assert fault.isprintable(), fault
        assert refusal.faults
        raise


@contextlib.contextmanager
def written(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(prefix="estgw-fuzz-") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
