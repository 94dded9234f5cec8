"""A run as a user starts it: options, exit statuses, reports, and servers that misbehave in every other way."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from estgw.cli.main import main
from estgw.client.transport.challenge import Credentials
from estgw.conform import table
from estgw.conform.model import Status
from tests.client.rogue import Request, endless, reply
from tests.client.transport.test_rogue import ber
from tests.conform import page
from tests.conform.judging import identity, judge, one, setup
from tests.conform.server import EST, LOGIN, Good
from tests.kit.ca import CA, Credential, root


@dataclass
class Ended:
    """The result of a command."""

    status: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]


@pytest.fixture
def estgw(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> Callable[..., Ended]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Ended:
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert "\x1b" not in said.out
        return Ended(status, said.out, said.err)

    return run


@pytest.fixture
def anchor(ca: CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(ca.pem)
    return path


@pytest.fixture
def server(ca: CA, holder: Credential) -> Iterator[EST]:
    with EST(holder, Good(ca)) as running:
        yield running


def broken(ca: CA, answer: Callable[[Good, Request], Any]) -> Good:
    return Good(ca, fault=answer)


# Options and exit statuses.


def test_a_run_without_a_fail_ends_with_0_and_counts_the_musts(estgw, server, anchor):
    ended = estgw("conform", server.url, "-c", anchor, "-p", LOGIN, "--only", "cacerts")
    assert ended.status == 0
    assert ended.last == "MUST: 5 passed, 0 failed, 0 not tested"


def test_a_fail_ends_with_1_and_shows_clause_exchange_and_command(estgw, ca, holder, anchor):
    with EST(holder, broken(ca, lambda _, request: reply(404) if request.operation == "cacerts" else ...)) as server:
        url = server.url
        ended = estgw("conform", url, "-c", anchor, "-p", LOGIN, "--only", "core.prefix")
    assert ended.status == 1
    assert "FAIL core.prefix: RFC 7030 3.2.2" in ended.out
    assert "expected: GET /.well-known/est/cacerts is answered with 200." in ended.out
    assert "> GET /.well-known/est/cacerts HTTP/1.1" in ended.out
    assert f"estgw conform {url} -c {anchor} -p estuser --only core.prefix" in ended.out
    assert ended.last == "MUST: 0 passed, 1 failed, 0 not tested"


def test_strict_counts_warnings(estgw, server, anchor):
    words = ("conform", server.url, "-c", anchor, "--only", "tls.resume")
    assert estgw(*words).status == 0
    assert estgw(*words, "--strict").status == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which server?"),
        (["https://localhost:1"], "give -c FILE"),
        (["http://localhost:1", "-c", "ca.pem"], "EST runs over https only"),
        (["https://localhost:1", "-c", "ca.pem", "--only", "enrol"], "no group or case 'enrol'"),
        (["https://localhost:1", "-c", "ca.pem", "--only", "one-off"], "pop.one-off"),
        (["https://localhost:1", "-c", "ca.pem", "--subject", "moon"], "--subject: 'moon' is no RFC 4514 name"),
        (["https://localhost:1", "-c", "ca.pem", "--expect", "gone"], "gone: No such file"),
        (["https://localhost:1", "-c", "ca.pem", "--timeout", "0"], "--timeout"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(words, said, estgw, anchor):
    ended = estgw("conform", *words)
    assert ended.status == 2
    assert said in ended.err


def test_a_server_that_is_not_there_ends_with_3(estgw, anchor):
    ended = estgw("conform", "https://localhost:1", "-c", anchor)
    assert ended.status == 3
    assert "no server listens on port 1" in ended.err


def test_the_list_names_every_case(estgw):
    ended = estgw("conform", "--list")
    assert ended.status == 0
    assert [line.split()[0] for line in ended.out.splitlines()] == [case.id for case in table.CASES]


def test_an_expected_fail_does_not_count_and_one_that_passes_does(estgw, ca, holder, anchor, tmp_path):
    Path("known").write_text("# ours\ncacerts.type  ticket 17\n")
    words = ("-c", anchor, "--only", "cacerts.type", "--expect", "known", "--junit", "r.xml")
    wrong = broken(ca, lambda good, request: good.answer(request).replace(b"pkcs7-mime", b"pkcs7"))
    with EST(holder, wrong) as server:
        ended = estgw("conform", server.url, *words)
    assert ended.status == 0
    assert "(expected: ticket 17)" in ended.out
    (case,) = ElementTree.parse("r.xml").iter("testcase")
    assert [node.tag for node in case] == ["skipped", "system-out"]
    with EST(holder, Good(ca)) as server:
        ended = estgw("conform", server.url, *words)
    assert ended.status == 1
    assert "take it off the list" in ended.out
    assert (
        next(ElementTree.parse("r.xml").iter("failure")).get("message") == "expected to fail (ticket 17), and it passes"
    )


@pytest.mark.parametrize(
    ("line", "said"), [("core.moon x", "no case 'core.moon'"), ("core.prefix", "without a reason")]
)
def test_a_wrong_line_in_the_list_of_known_fails_is_named(line, said, estgw, anchor):
    Path("known").write_text(f"\n{line}\n")
    ended = estgw("conform", "https://localhost:1", "-c", anchor, "--expect", "known")
    assert ended.status == 2
    assert f"known:2: {'there is ' if 'no case' in said else ''}" in ended.err
    assert said in ended.err


# Secrets.


def test_a_server_that_is_not_trusted_gets_no_request(estgw, server, tmp_path):
    other = tmp_path / "other.pem"
    other.write_bytes(root("Another").pem)
    ended = estgw("conform", server.url, "-c", other, "-p", LOGIN)
    assert ended.status == 3
    assert server.requests == []


def test_the_password_is_in_no_report_even_if_the_server_sends_it_back(estgw, ca, holder, anchor, tmp_path):
    def echo(_: Good, request: Request) -> Any:
        sent = request.headers.get("Authorization", "")
        words = f"{sent} {base64.b64decode(sent.partition(' ')[2] or '').decode()}"
        return reply(400, words.encode(), "text/plain", X_Echo=sent)

    reports = ("--json", "r.json", "--junit", "r.xml", "--html", "r.html")
    with EST(holder, broken(ca, echo)) as server:
        ended = estgw("conform", server.url, "-c", anchor, "-p", LOGIN, "--only", "enroll", *reports)
    written = "".join(Path(name).read_text() for name in ("r.json", "r.xml", "r.html"))
    for secret in ("estpwd", base64.b64encode(LOGIN.encode()).decode()):
        assert secret not in ended.out + ended.err + written
    assert "estuser:***" in written


def test_a_digest_that_the_server_sends_back_is_masked(ca, holder):
    sent = 'Digest username="estuser", response="0123456789abcdef0123456789abcdef"'
    with EST(holder, broken(ca, lambda *_: reply(400, sent.encode(), "text/plain"))) as server:
        result = one(setup(server, ca), "core.prefix")
    assert "0123456789abcdef" not in json.dumps([result.seen, result.exchange])


def test_a_wrong_password_is_sent_twice_and_not_again(ca, holder):
    with EST(holder, Good(ca)) as server:
        report = judge(setup(server, ca, credentials=Credentials("estuser", "forgotten")))
        sent = [request.headers["Authorization"] for request in server.requests if "Authorization" in request.headers]
    wrong = base64.b64encode(b"estuser:forgotten").decode()
    assert len([header for header in sent if wrong in header]) == 2
    skipped = {each.case.id: each.seen for each in report.results if each.status is Status.SKIP}
    assert skipped["enroll.issue"] == "the server has refused the password of -p"


def test_private_keys_of_the_server_are_in_no_report(ca, holder):
    with EST(holder, Good(ca)) as server:
        result = one(setup(server, ca), "keygen.parts")
    assert result.status is Status.PASS
    assert any("of private key ***" in line for line in result.exchange)


# Reports.


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attributes)))


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e"


@pytest.fixture
def hostile(ca: CA, holder: Credential) -> Iterator[EST]:
    answer = reply(400, HOSTILE.encode(), "text/plain", X_Odd=HOSTILE.encode().decode("latin-1").replace("\x1b", ""))
    with EST(holder, broken(ca, lambda *_: answer)) as running:
        yield running


def test_the_html_report_has_no_script_and_escapes_what_the_server_says(estgw, hostile, anchor):
    estgw("conform", hostile.url, "-c", anchor, "-p", LOGIN, "--only", "enroll", "--html", "r.html")
    text = Path("r.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert {"script", "img", "link", "iframe"}.isdisjoint(tag for tag, _ in tags.seen)
    assert not [name for _, attributes in tags.seen for name in attributes if name.startswith("on") or name == "src"]
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not re.search(r"https?://(?!localhost)", text)


def test_the_json_report_has_every_case_with_its_clause(estgw, server, anchor):
    estgw("conform", server.url, "-c", anchor, "-p", LOGIN, "--only", "core", "--json", "r.json")
    data = json.loads(Path("r.json").read_text())
    assert data["format"] == 1
    assert [each["case"] for each in data["cases"]] == [case.id for case in table.CASES if case.group == "core"]
    assert data["must"] == {"passed": 3, "failed": 0, "not_tested": 2}
    first = data["cases"][0]
    assert (first["status"], first["clause"], first["requirements"]) == ("PASS", "RFC 7030 3.2.2", ["U1"])


def test_the_junit_report_has_a_suite_for_each_group(estgw, hostile, anchor):
    estgw("conform", hostile.url, "-c", anchor, "-p", LOGIN, "--only", "core", "--only", "cacerts", "--junit", "r.xml")
    suites = {each.get("name"): each for each in ElementTree.parse("r.xml").getroot()}
    assert list(suites) == ["core", "cacerts"]
    assert suites["core"].get("tests") == str(len(suites["core"]))
    failed = [each for each in suites["cacerts"] if each.find("failure") is not None]
    assert suites["cacerts"].get("failures") == str(len(failed))
    assert str(failed[0].findtext("failure")).startswith("RFC 7030 4.1.3")


# Servers that misbehave otherwise.


def test_a_server_that_never_answers_ends_with_3_soon(estgw, ca, holder, anchor):
    began = time.monotonic()
    with EST(holder, broken(ca, lambda *_: time.sleep(2))) as server:
        ended = estgw("conform", server.url, "-c", anchor, "--timeout", "0.5")
    assert ended.status == 3
    assert "no answer in time" in ended.err
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "pieces",
    [
        lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X-More: x\r\n" * 500),
        lambda: endless(b"HTTP/1.1 200 OK\r\n\r\n", b"A" * 65536),
        lambda: endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nAAAA\r\n" * 1000),
        lambda: endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["head", "body", "chunks", "interim"],
)
def test_a_flood_is_a_fail(pieces, ca, holder):
    with EST(holder, broken(ca, lambda *_: pieces())) as server:
        result = one(setup(server, ca), "cacerts.status")
    assert result.status is Status.FAIL


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"SSH-2.0-x\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", "cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nMAA=", "a Content-Length that is none"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "a Content-Length that is none"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "a chunk whose size is 'zz'"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "a header line that is none"),
        (b"HTTP/1.1 200", "a head that does not end"),
    ],
    ids=["ssh", "short", "two lengths", "negative", "chunk", "header", "half a head"],
)
def test_what_is_no_http_is_a_fail_with_the_reason(raw, said, ca, holder):
    with EST(holder, broken(ca, lambda *_: [raw])) as server:
        result = one(setup(server, ca), "cacerts.status")
    assert (result.status, said in result.seen) == (Status.FAIL, True), result.seen


def test_http_1_0_and_chunks_and_ber_are_read_and_warned_about(ca, holder):
    body = base64.encodebytes(ber(base64.b64decode(reply_body(Good(ca)))))
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in body.splitlines(keepends=True)) + b"0\r\n\r\n"
    head = b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n"
    answers = {
        "HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + head + b"\r\n" + body,
        "chunked": b"HTTP/1.1 200 OK\r\n" + head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
    }
    for words, raw in answers.items():

        def answer(_: Any, request: Any, raw: bytes = raw) -> Any:
            return [raw] if request.operation == "cacerts" else ...

        with EST(holder, broken(ca, answer)) as server:
            results = {each.case.id: each for each in judge(setup(server, ca), "cacerts", "http.framing").results}
        assert results["cacerts.status"].status is Status.PASS
        assert (results["cacerts.form"].status, "BER" in results["cacerts.form"].seen) == (Status.WARN, True)
        assert results["http.framing"].status is Status.WARN
        assert words in results["http.framing"].seen


def reply_body(good: Good) -> Any:
    nobody: Any = None
    return good.cacerts(nobody).partition(b"\r\n\r\n")[2]


def always_cacerts(raw: bytes) -> Callable[[Good, Request], Any]:
    return lambda _, request: [raw] if request.operation == "cacerts" else ...


def test_a_redirect_is_not_followed_and_gets_a_warning(ca, holder):
    away = reply(302, Location="https://localhost:1/.well-known/est/cacerts")
    with EST(holder, broken(ca, lambda *_: away)) as server:
        results = {each.case.id: each for each in judge(setup(server, ca), "core.prefix", "http.redirects").results}
    assert {each.status for each in results.values()} == {Status.WARN}
    assert "judge that address instead" in results["core.prefix"].seen


def test_a_server_that_hangs_up_on_every_csr_fails_and_the_run_goes_on(ca, holder):
    def hang_up(_: Good, request: Request) -> Any:
        return None if request.operation == "simpleenroll" else ...

    with EST(holder, broken(ca, hang_up)) as server:
        report = judge(setup(server, ca), "enroll.issue", "cacerts.status")
    found = {each.case.id: each.status for each in report.results}
    assert found == {"enroll.issue": Status.FAIL, "cacerts.status": Status.PASS}


def test_a_server_that_goes_away_ends_the_run_with_errors(ca, holder):
    with EST(holder, Good(ca)) as server:
        given = setup(server, ca)
        closing: list[str] = []

        def tell(result: Any) -> None:
            if not closing:
                server.__exit__()
            closing.append(result.case.id)

        report = judge(given, "cacerts", "core", tell=tell)
    statuses = [each.status for each in report.results]
    assert Status.ERROR in statuses
    assert report.ended_early == "3 cases in a row could not be carried out"
    assert report.exit_status(strict=False) == 3


def test_only_a_certificate_is_enough_to_be_judged(ca, holder):
    client = identity(ca.issue("device-1"))
    with EST(holder, Good(ca)) as server:
        report = judge(setup(server, ca, credentials=None, identity=client), "enroll", "reenroll", "pop")
    assert {each.status for each in report.results} <= {Status.PASS, Status.SKIP, Status.INFO}
    assert report.results[0].status is Status.PASS


# The page.


def test_the_page_lists_the_cases_of_today():
    """`make docs` rewrites it."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.rewritten(text) == text
