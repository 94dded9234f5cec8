"""Rules of imports: every module imports only folders before its own, and a few import nothing."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
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
    "cli",
]
CLIENT_STANDS_ON = {"errors", "commandline", "est", "cms", "cmc"}
BESIDE = {"client": CLIENT_STANDS_ON, "conform": {*CLIENT_STANDS_ON, "client"}}
"""Folders beside the gateway, which import nothing of it, and what they may import."""
FREE = {"__init__", "__main__"}

# Libraries, and the only folders that may import them.  No process of ours decodes with pyasn1.
ONLY_IN: dict[str, set[str]] = {
    "aiohttp": {"gateway", "cli", "page"},
    "OpenSSL": {"tls", "client", "conform"},
    "passlib": {"auth"},
    "pydantic": {"config"},
    "pydantic_core": {"config"},
    "structlog": {"logs", "gateway"},
    "prometheus_client": {"metrics"},
    "yaml": {"config", "client"},
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
    assert {room(module) for module in MODULES} - FREE == {*ORDER, *BESIDE}


def test_every_module_but_errors_and_logs_is_in_a_folder():
    """Each step has a folder; only the errors and the log are shared by all."""
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py", "logs.py"}


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) not in FREE | BESIDE.keys()])
def test_a_module_imports_only_folders_before_its_own(module):
    allowed = {*ORDER[: ORDER.index(room(module))], room(module)}
    if room(module) == "cli":
        allowed.add("conform")  # a command judges servers
    assert {room(each) for each in own(MODULES[module])} <= allowed


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in BESIDE])
def test_client_and_conform_import_only_folders_of_the_standards_and_the_client(module):
    assert {room(each) for each in own(MODULES[module])} <= BESIDE[room(module)] | {room(module)}


def wing(module: str) -> str:
    """`commands` or `transport` for a module of the client; empty for the modules between them."""
    parts = module.split(".")
    return parts[1] if parts[0] == "client" and parts[1:2] in (["commands"], ["transport"]) else ""


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) == "client"])
def test_the_transport_imports_neither_the_client_nor_its_commands(module):
    imported = {each for each in own(MODULES[module]) if room(each) == "client"}
    if wing(module) == "transport":
        assert {each for each in imported if wing(each) != "transport"} <= {"client.faults"}
    elif wing(module) == "" and module != "client.__main__":
        assert "commands" not in set(map(wing, imported))


def test_no_module_of_the_gateway_imports_the_client():
    for module, path in MODULES.items():
        if room(module) not in BESIDE:
            assert "client" not in {room(each) for each in own(path)}, module


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


def test_the_contract_starts_no_process_and_opens_no_file():
    path = MODULES["callout.contract"]
    assert "callout.process" not in own(path)
    assert not {dotted.split(".")[0] for dotted in imports(path)} & {"subprocess", "asyncio", "signal", "pathlib"}
    assert not opens_files(path)


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in ("est", "cms", "cmc")])
def test_the_folders_of_the_standards_do_no_input_or_output(module):
    names = {dotted.split(".")[0] for dotted in imports(MODULES[module])}
    assert not names & {"aiohttp", "asyncio", "os", "pathlib", "socket", "ssl", "OpenSSL", "subprocess", "time"}
    assert not opens_files(MODULES[module])


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_imported_only_in_its_folders(module):
    names = {dotted.split(".")[0] for dotted in imports(MODULES[module])}
    strangers = {name for name in names if name in ONLY_IN and room(module) not in ONLY_IN[name]}
    assert strangers == set()
    known = {*ONLY_IN, "estgw", "cryptography", *sys.stdlib_module_names}
    assert names <= known


def test_commandline_imports_no_other_folder():
    assert {room(each) for module, path in MODULES.items() if room(module) == "commandline" for each in own(path)} == {
        "commandline"
    }


@pytest.mark.parametrize("path", [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))], ids=str)
def test_no_module_uses_private_parts_of_argparse_or_cryptography(path):
    private = {"_actions", "_group_actions", "_mutually_exclusive_groups", "_option_string_actions", "_subparsers"}
    touched = set()
    if not re.search(rf"argparse\._|\._name\b|{'|'.join(private)}", path.read_text(encoding="utf-8")):
        return  # parsing takes a hundred times longer than this search
    for node in nodes(path):
        match node:
            case ast.Attribute(value=ast.Name(id="argparse"), attr=name) if name.startswith("_"):
                touched.add(name)
            case ast.Attribute(attr=name) if name in private:
                touched.add(name)
            case ast.Attribute(value=ast.Call() | ast.Attribute(attr="oid"), attr="_name"):
                touched.add("_name")
    assert touched == set()


def test_the_main_module_only_starts_the_command_line():
    assert own(MODULES["__main__"]) == {"cli.main"}
    assert own(MODULES["__init__"]) == set()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_at_most_400_lines(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400


def test_the_diagram_shows_the_imports_of_today():
    """`make docs` rewrites it."""
    page = rooms.PAGE.read_text()
    assert rooms.rewritten(page) == page


def test_the_architecture_page_names_every_folder():
    page = rooms.PAGE.read_text()
    assert [name for name in (*ORDER[2:], *BESIDE) if f"`{name}/`" not in page] == []
