"""The files that a page needs first, as two: its stylesheets in one, and its script with the modules that it imports.

A browser has six connections to a host, and each file costs it and the gateway some milliseconds.  So each page is
served with two files that are put together at the start; `static/` keeps one module for one thing.

A module becomes a function that returns its exports.  That asks of our modules what `tests/page/test_bundle.py` proves:
imports of one line each, no circle, and exports that are functions, classes or constants of the module itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

File = tuple[str, bytes]
"""Type and content."""
Files = Mapping[str, File]
"""By path, such as `/js/main.js`."""

INDEX = "/index.html"
_SHEET = re.compile(r'<link rel="stylesheet" href="([^"]+)"(?: media="([^"]+)")?>\n')
_SCRIPT = re.compile(r'<script type="module" src="([^"]+)"></script>')
_IMPORT = re.compile(r'^import (.+?) from "([^"]+)";\n', re.MULTILINE)
_LATER = re.compile(r'import\("([^"]+)"\)')
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)


def bundled(files: Files) -> dict[str, File]:
    """Return the files of the pages, with those that each page needs first put together.

    The index loads more modules later, and these import some of the first ones: such a module becomes one that takes
    its exports from the index's script, so that there is one of each.
    """
    made = dict(files)
    for page in [path for path in files if path.endswith(".html")]:
        kind, content = files[page]
        text, stem = content.decode(), page.removesuffix(".html")
        sheets, script = _SHEET.findall(text), _SCRIPT.search(text)
        assert sheets, page
        assert script, page
        modules = first(files, script[1])
        made |= {
            f"{stem}.css": (files[sheets[0][0]][0], _sheets(files, sheets).encode()),
            f"{stem}.js": (files[script[1]][0], _modules(files, modules).encode()),
        }
        if page == INDEX:
            made |= {path: (files[path][0], _proxy(files, path, modules).encode()) for path in modules}
        links = f'<link rel="stylesheet" href="{stem}.css">\n<script type="module" src="{stem}.js"></script>'
        made[page] = kind, _SHEET.sub("", text).replace(script[0], links).encode()
        for path in (script[1], *(path for path, _ in sheets)):
            made.pop(path, None)
    return made


def _sheets(files: Files, sheets: list[tuple[str, str]]) -> str:
    texts = ((files[path][1].decode(), media) for path, media in sheets)
    return "\n".join(f"@media {media} {{\n{text}}}\n" if media else text for text, media in texts)


def first(files: Files, entry: str) -> list[str]:
    """Return the modules that are loaded for a script, itself last, each after those that it imports."""
    found: list[str] = []

    def add(path: str) -> None:
        for _, name in _IMPORT.findall(files[path][1].decode()):
            inner = _resolved(path, name)
            if inner not in found:
                add(inner)
        found.append(path)

    add(entry)
    return found


def _resolved(path: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


def _modules(files: Files, modules: list[str]) -> str:
    """One module that does what they do, and exports each of them as a whole."""
    names = {path: f"m{number}" for number, path in enumerate(modules)}
    parts = []
    for path in modules:
        text = files[path][1].decode()

        def imported(found: re.Match[str], path: str = path) -> str:
            what, module = found[1].replace(" as ", ": "), names[_resolved(path, found[2])]
            return f"const {what.removeprefix('*: ')} = {module};\n"

        body = _LATER.sub(lambda found, path=path: f'import("{_resolved(path, found[1])}")', text)  # type: ignore[misc]
        body = _EXPORT.sub("", _IMPORT.sub(imported, body))
        exports = ", ".join(_EXPORT.findall(text))
        parts.append(f"// {path}\nexport const {names[path]} = (() => {{\n{body}\nreturn {{ {exports} }};\n}})();\n")
    return "".join(parts)


def _proxy(files: Files, path: str, modules: list[str]) -> str:
    exports = ", ".join(_EXPORT.findall(files[path][1].decode()))
    name = f"m{modules.index(path)}"
    return f'import {{ {name} }} from "{INDEX.removesuffix(".html")}.js";\nexport const {{ {exports} }} = {name};\n'
