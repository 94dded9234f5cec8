"""Rules of imports: every module imports only folders before its own, and a few import nothing."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests import rooms
from tests.kit.processes import ROOT

PACKAGE = ROOT / "estgw"

# From the lowest folder up.
ORDER = [
    "errors",
    "logs",
    "commandline",
    "est",
    "cms",
    "cmc",
    "config",
    "tls",
    "metrics",
    "auth",
    "callout",
    "register",
    "record",
    "page",
    "gateway",
    "cmc_service",
    "supervision",
    "labs",
    "workshop",
    "cli",
]
CLIENT_STANDS_ON = {"errors", "commandline", "est", "cms", "cmc"}
JUDGES = {"conform", "quirks"}
"""Folders that judge other programs; a command starts them."""
BESIDE = {"client": CLIENT_STANDS_ON, **dict.fromkeys(sorted(JUDGES), CLIENT_STANDS_ON | {"client"})}
"""Folders beside the gateway, which import nothing of it, and what they may import."""
FREE = {"__init__", "__main__"}

# Libraries, and the only folders that may import them.  No process of ours decodes with pyasn1.
ONLY_IN: dict[str, set[str]] = {
    "aiohttp": {"gateway", "cli", "page", "workshop"},
    "OpenSSL": {"tls", "client", *JUDGES},
    "passlib": {"auth"},
    "pydantic": {"config"},
    "pydantic_core": {"config"},
    "structlog": {"logs", "gateway"},
    "prometheus_client": {"metrics"},
    "pkcs11": {"register"},
    "psycopg": {"register"},
    "segno": {"workshop"},
    "yaml": {"config", "client", "quirks"},
    "pyasn1": set(),
    "pyasn1_alt_modules": set(),
    "pyasn1_modules": set(),
    "requests": set(),
    "uvloop": set(),
}


def module_name(path: Path) -> str:
    """`est.csr` for estgw/est/csr.py; a package has its own name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {
    module_name(path): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "template" not in path.parts and "examples" not in path.parts
}


@functools.cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all imports of a module, also inside its functions."""
    for node in nodes(path):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str() as module, level=0):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                pytest.fail(f"{path}: a relative import")


def own(path: Path) -> set[str]:
    """The modules of estgw that a module imports."""
    found = set()
    for dotted in imports(path):
        parts = dotted.split(".")
        if parts[0] != "estgw":
            continue
        # The last part is a module or a name in one.
        name = ".".join(parts[1:])
        found.add(name if name in MODULES else ".".join(parts[1:-1]))
    return found - {""}


def opens_files(path: Path) -> bool:
    calls = [node.func for node in nodes(path) if isinstance(node, ast.Call)]
    return "open" in {call.id for call in calls if isinstance(call, ast.Name)}


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_folder_is_in_the_order():
    assert set(map(room, MODULES)) - FREE == {*ORDER, *BESIDE}


def test_every_module_but_errors_and_logs_is_in_a_folder():
    """Each step has a folder; only the errors and the log are shared by all."""
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "logs.py"}


def may_import(folder: str) -> set[str]:
    if folder in BESIDE:
        return BESIDE[folder] | {folder}
    return {*ORDER[: ORDER.index(folder)], folder, *(JUDGES if folder == "cli" else ())}


def breaches(found: Callable[[str], Iterable[str]]) -> dict[str, set[str]]:
    """What each module has that it must not have, for those that have some."""
    return {module: wrong for module in MODULES if (wrong := set(found(module)))}


def test_a_module_imports_only_folders_that_its_own_may_import():
    """The folders before its own; the client and the judges of others import nothing of the gateway."""
    assert not breaches(
        lambda module: (
            set() if room(module) in FREE else set(map(room, own(MODULES[module]))) - may_import(room(module))
        )
    )


def wing(module: str) -> str:
    """`commands` or `transport` for a module of the client; empty for the modules between them."""
    parts = module.split(".")
    return parts[1] if parts[0] == "client" and parts[1:2] in (["commands"], ["transport"]) else ""


def test_the_transport_imports_neither_the_client_nor_its_commands():
    def wrong(module: str) -> set[str]:
        imported = {each for each in own(MODULES[module]) if room(each) == "client"}
        if wing(module) == "transport":
            return {each for each in imported if wing(each) != "transport"} - {"client.faults"}
        if room(module) == "client" and wing(module) == "" and module != "client.__main__":
            return {each for each in imported if wing(each) == "commands"}
        return set()

    assert not breaches(wrong)


def test_no_modules_import_each_other_in_a_circle():
    """Modules of one folder may import each other, but never in a circle."""
    graph = {module: own(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for each in graph.get(module, ()):
                visit(each, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_the_modules_that_run_programs_know_nothing_of_est():
    assert own(MODULES["callout.header"]) == set()
    assert own(MODULES["callout.process"]) == {"callout.header"}
    assert own(MODULES["callout.spawn"]) == {"callout.process"}


def test_a_call_is_constructed_in_one_module_only():
    """The gateway, `estgw run` and a handler of Full PKI Requests describe a request by the same function."""
    made = [
        (module, node.lineno)
        for module, path in MODULES.items()
        for node in nodes(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Call"
    ]
    assert [module for module, _ in made] == ["gateway.request"], made


MANY = 6
MANY_ON_PURPOSE = {"__init__ of Session": "a library's entry, whose options are keywords with defaults"}


def test_no_function_has_more_than_six_parameters():
    found = set()
    for path in MODULES.values():
        for holder in nodes(path):
            for node in ast.iter_child_nodes(holder):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                arguments = node.args
                names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > MANY:
                    found.add(f"{node.name} of {holder.name}" if isinstance(holder, ast.ClassDef) else node.name)
    assert found == MANY_ON_PURPOSE.keys()


def test_the_pipeline_of_a_request_imports_no_http_library():
    assert not {dotted.split(".")[0] for dotted in imports(MODULES["gateway.request"])} & {"aiohttp", "OpenSSL"}


@pytest.mark.parametrize("module", ["callout.contract", "callout.environment"])
def test_the_contract_starts_no_process_and_opens_no_file(module):
    path = MODULES[module]
    assert "callout.process" not in own(path)
    assert not {dotted.split(".")[0] for dotted in imports(path)} & {"subprocess", "asyncio", "signal", "pathlib"}
    assert not opens_files(path)


def libraries(module: str) -> set[str]:
    return {dotted.split(".")[0] for dotted in imports(MODULES[module])}


def test_the_folders_of_the_standards_do_no_input_or_output():
    forbidden = {"aiohttp", "asyncio", "os", "pathlib", "socket", "ssl", "OpenSSL", "subprocess", "time"}

    def wrong(module: str) -> set[str]:
        if room(module) not in ("est", "cms", "cmc"):
            return set()
        return libraries(module) & forbidden | ({"open"} if opens_files(MODULES[module]) else set())

    assert not breaches(wrong)


def test_a_library_is_imported_only_in_its_folders():
    known = {*ONLY_IN, "estgw", "cryptography", *sys.stdlib_module_names}

    def wrong(module: str) -> set[str]:
        names = libraries(module)
        return {name for name in names if name in ONLY_IN and room(module) not in ONLY_IN[name]} | names - known

    assert not breaches(wrong)


def test_commandline_imports_no_other_folder():
    assert {room(each) for module, path in MODULES.items() if room(module) == "commandline" for each in own(path)} == {
        "commandline"
    }


def test_no_module_uses_private_parts_of_argparse_or_cryptography():
    private = {"_actions", "_group_actions", "_mutually_exclusive_groups", "_option_string_actions", "_subparsers"}
    touched = set()
    for path in (*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        if not re.search(rf"argparse\._|\._name\b|{'|'.join(private)}", path.read_text(encoding="utf-8")):
            continue  # parsing takes a hundred times longer than this search
        for node in nodes(path):
            match node:
                case ast.Attribute(value=ast.Name(id="argparse"), attr=name) if name.startswith("_"):
                    touched.add((path, name))
                case ast.Attribute(attr=name) if name in private:
                    touched.add((path, name))
                case ast.Attribute(value=ast.Call() | ast.Attribute(attr="oid"), attr="_name"):
                    touched.add((path, "_name"))
    assert touched == set()


def test_the_main_module_only_starts_the_command_line():
    assert own(MODULES["__main__"]) == {"cli.main"}
    assert own(MODULES["__init__"]) == set()


def test_a_module_has_at_most_400_lines():
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: lines for module, lines in lengths.items() if lines > 400} == {}


def test_the_diagram_shows_the_imports_of_today():
    """`make docs` rewrites it."""
    page = rooms.PAGE.read_text()
    assert rooms.rewritten(page) == page


def test_the_architecture_page_names_every_folder():
    page = rooms.PAGE.read_text()
    assert [name for name in (*ORDER[2:], *BESIDE) if f"`{name}/`" not in page] == []
