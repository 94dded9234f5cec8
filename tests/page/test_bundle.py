"""The files that a page needs first, put together."""

from __future__ import annotations

import re

import pytest

from estgw.page.bundle import INDEX, bundled, first
from estgw.page.site import static_files
from tests.page.conftest import Look
from tests.page.shown import Shown

FILES = static_files()
BUNDLED = bundled(FILES)
ENTRIES = {"/index": "/js/main.js", "/trainer": "/js/trainer.js"}
FIRST = sorted({path for entry in ENTRIES.values() for path in first(FILES, entry)})


def text(path: str) -> str:
    return BUNDLED[path][1].decode()


@pytest.mark.parametrize("stem", ENTRIES)
def test_a_page_names_one_stylesheet_and_one_script(stem):
    named = re.findall(r'(?:href|src)="(/[^"]+)"', text(f"{stem}.html"))
    assert named == ["/icon.svg", f"{stem}.css", f"{stem}.js"]
    assert set(named) <= BUNDLED.keys()


@pytest.mark.parametrize("stem", ENTRIES)
def test_a_page_has_all_its_styles_in_their_order(stem):
    page = FILES[f"{stem}.html"][1].decode()
    wanted = [FILES[path][1].decode() for path in re.findall(r'rel="stylesheet" href="([^"]+)"', page)]
    places = [text(f"{stem}.css").index(each) for each in wanted]
    assert places == sorted(places)


@pytest.mark.parametrize("path", FIRST)
def test_a_module_that_is_needed_first_has_imports_and_exports_that_can_be_put_together(path):
    source = FILES[path][1].decode()
    for line in source.splitlines():
        if line.startswith("import "):
            assert re.fullmatch(r'import (\{ [\w, ]+ \}|\* as \w+) from "\./\w+\.js";', line), line
        if line.startswith("export "):
            assert re.match(r"export (async function|function|class|const) \w+", line), line
    assert not re.search(r"^await |import\.meta", source, re.MULTILINE)


@pytest.mark.parametrize("entry", ENTRIES.values())
def test_each_module_stands_after_those_that_it_imports(entry):
    order = first(FILES, entry)
    assert order[-1] == entry
    assert len(set(order)) == len(order)
    for path in order:
        for name in re.findall(r'^import .* from "\./(\w+\.js)"', FILES[path][1].decode(), re.MULTILINE):
            assert order.index(f"/js/{name}") < order.index(path)


def test_only_the_index_loads_modules_later():
    """A module that is loaded later takes what was loaded first from the script of the index."""
    assert INDEX == "/index.html"
    for stem, entry in ENTRIES.items():
        later = [path for path in first(FILES, entry) if "import(" in FILES[path][1].decode()]
        assert bool(later) == (stem == "/index")


@pytest.mark.client("chromium-headless-shell")
@pytest.mark.slow
def test_a_module_that_is_loaded_later_shares_those_that_are_there(look: Look, page: Shown):
    tab = look.at(page.url)
    order = first(FILES, "/js/main.js")
    for path in order[:-1]:
        same = tab.evaluate(
            """async ([path, name]) => {
              const [one, all] = await Promise.all([import(path), import("/index.js")]);
              return Object.keys(one).length > 0 && Object.keys(one).every((key) => one[key] === all[name][key]);
            }""",
            [path, f"m{order.index(path)}"],
        )
        assert same, path
