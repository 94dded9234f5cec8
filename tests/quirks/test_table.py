"""The table of quirks, the page about it, and the tests are one table."""

from __future__ import annotations

import inspect
import re

import pytest

from estgw.quirks import judges, logins, spoiling
from estgw.quirks.clients import client_of
from estgw.quirks.seen import OPERATION_OF
from estgw.quirks.table import CONTROL, QUIRKS
from tests.quirks import measured, tables


def test_the_page_has_the_tables_of_today():
    """`make docs` rewrites them."""
    page = tables.PAGE.read_text()
    assert tables.filled(page) == page
    assert page.count("<!-- table: ") == len(tables.TABLES)


def test_the_control_comes_first_and_spoils_nothing():
    assert next(iter(QUIRKS)) == CONTROL
    row = QUIRKS[CONTROL]
    assert (row.spoil, row.login, row.face, row.aside) == (spoiling.as_it_is, logins.basic, None, None)


@pytest.mark.parametrize("row", QUIRKS.values(), ids=QUIRKS.keys())
def test_a_row_is_complete(row):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", row.name)
    assert re.match(r"RFC \d{4} ?\d*", row.clause)
    assert row.server
    assert row.client
    assert not row.server.endswith(".")
    assert set(row.steps) <= OPERATION_OF.keys()
    assert row.steps[0] in client_of("estclient").commands


def test_no_two_rows_are_the_same_quirk():
    rows = [(row.spoil, row.login, row.face, row.aside, row.spoils, row.steps[0]) for row in QUIRKS.values()]
    assert len(set(rows)) == len(rows)


def test_every_function_is_in_a_row():
    """A quirk that no row names would never be met."""

    def functions(module):
        return {
            name
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
        }

    assert functions(spoiling) == {row.spoil.__name__ for row in QUIRKS.values()}
    assert functions(logins) == {row.login.__name__ for row in QUIRKS.values()}
    used = {row.judge.__qualname__.partition(".")[0] for row in QUIRKS.values()}
    assert functions(judges) == used


@pytest.mark.parametrize("table", [measured.CURL, measured.PKI])
def test_what_was_measured_is_about_quirks_that_exist(table):
    named = [name for names in table.values() for name in names.split()]
    assert set(named) <= QUIRKS.keys()
    assert len(named) == len(set(named))


def test_a_wrong_answer_is_of_the_operation_that_the_client_is_asked_for():
    for row in QUIRKS.values():
        if row.spoil is not spoiling.as_it_is and "csrattrs" not in row.spoils:
            assert OPERATION_OF[row.steps[0]] in row.spoils, row.name
