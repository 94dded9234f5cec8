"""Per label: which operations are open, to whom, under which scripts."""

from __future__ import annotations

from pathlib import Path

from estgw.config import loading, routes
from estgw.gateway import openness

CONF = """
tls: {certificate: a, key: b}
client_auth: {users: users.htpasswd}
callouts:
  handlers: handlers/openssl
  ca_dir: ca
  authorize: handlers/openssl/authorize
  operations: {simpleenroll: {authenticate: /elsewhere/otp, runner: exec}}
labels:
  python: {handlers: handlers/python, authorize: handlers/python/authorize}
  open: {authorize: null, operations: {simpleenroll: {requires: none, handler: own}, csrattrs: {enabled: false}}}
"""


def rows(text: str = CONF) -> list[openness.Row]:
    settings = loading.load(Path("/x/conf.yaml"), text)
    return openness.rows(settings, routes.build(settings), Path("/x"))


def test_operations_that_differ_in_their_name_only_share_a_row():
    found = [row for row in rows() if row.label == "python"]
    assert [(row.operations, row.requires) for row in found] == [
        ("cacerts, csrattrs", "none (anybody)"),
        ("simpleenroll", "any (certificate or password)"),
        ("simplereenroll", "tls (certificate)"),
    ]
    assert {row.handlers for row in found} == {"handlers/python"}
    assert [row.authorize for row in found] == ["-", "handlers/python/authorize", "handlers/python/authorize"]


def test_a_row_says_who_verifies_passwords_and_which_script_answers():
    found = {(row.label, row.operations): row for row in rows()}
    enroll = found["(none)", "simpleenroll"]
    assert (enroll.authenticate, enroll.handlers, enroll.runner) == ("/elsewhere/otp", "handlers/openssl", "exec")
    opened = found["open", "simpleenroll"]
    assert (opened.requires, opened.authorize, opened.handlers) == ("none (anybody)", "-", "own")
    assert not [row for row in rows() if row.label == "open" and "csrattrs" in row.operations]


def test_a_row_names_only_certificates_where_no_password_is_taken():
    found = rows(CONF.replace("client_auth: {users: users.htpasswd}", "").replace("authenticate: /elsewhere/otp, ", ""))
    assert {row.requires for row in found if row.operations == "simpleenroll"} == {
        "any (certificate)",
        "none (anybody)",
    }


def test_the_table_has_aligned_columns():
    lines = openness.table(rows()).splitlines()
    assert lines[0].split("  ")[0] == "label"
    assert len({line.index(word) for line, word in ((lines[0], "requires"), (lines[1], "none (anybody)"))}) == 1


def test_the_log_has_the_row_in_a_sentence():
    sentence = next(row.sentence for row in rows() if row.label == "python" and row.operations == "simpleenroll")
    assert sentence == (
        "simpleenroll: any (certificate or password); passwords by /elsewhere/otp; "
        "authorize handlers/python/authorize; handlers handlers/python (exec)"
    )
