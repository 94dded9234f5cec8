"""The report as one HTML file that needs no script and nothing from elsewhere: light, dark, and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape

from estgw import __version__
from estgw.conform.case import Result
from estgw.conform.model import Status
from estgw.conform.runner import Report
from estgw.conform.table import GROUPS, UNTESTABLE

_WORDS = {
    Status.FAIL: "a MUST is broken",
    Status.ERROR: "no judgement",
    Status.WARN: "a SHOULD, or real clients fail",
    Status.PASS: "as it should be",
    Status.INFO: "the server's choice",
    Status.SKIP: "not tested",
}
_STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --paper: #fff; --soft: #57606a; --line: #d0d7de; --wash: #f6f8fa;
  --FAIL: #b42318; --WARN: #8a5a00; --PASS: #1a7f37; --INFO: #0a56a8; --SKIP: #57606a; --ERROR: #7a3ea8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #9aa4af; --line: #30363d;
  --wash: #161b22; --FAIL: #ff7b72; --WARN: #e3b341; --PASS: #56d364; --INFO: #79c0ff; --SKIP: #9aa4af;
  --ERROR: #d2a8ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
p, ul { margin: .4rem 0; } .soft { color: var(--soft); } .verdict { font-size: 1.15rem; font-weight: 600; }
ul.counts { list-style: none; display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; padding: 0; }
details { border-top: 1px solid var(--line); } details:last-of-type { border-bottom: 1px solid var(--line); }
summary { display: grid; grid-template-columns: 3.6rem 13rem 1fr; gap: .6rem; padding: .35rem .2rem; cursor: pointer; }
summary:hover { background: var(--wash); } summary:focus-visible { outline: 2px solid var(--INFO); }
.status { font-weight: 700; font-size: .85rem; } .seen { overflow-wrap: anywhere; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
pre { background: var(--wash); border: 1px solid var(--line); padding: .6rem; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: 7rem 1fr; gap: .2rem .8rem; margin: .4rem .2rem .8rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
@media (max-width: 40rem) { summary { grid-template-columns: 3.6rem 1fr; } .seen { grid-column: 1 / -1; }
  dl { grid-template-columns: 1fr; } }
@media print { body { margin: 0; max-width: none; font-size: 11px; } summary { break-inside: avoid; } }
""" + "".join(f".{status.value} {{ color: var(--{status.value}); }}\n" for status in Status)


def page(report: Report, now: datetime | None = None) -> str:
    """The whole page; every text in it is escaped."""
    now = now or datetime.now(UTC)
    return "\n".join(["<!doctype html>", '<html lang="en">', *_head(report), *_body(report, now), "</html>", ""])


def _head(report: Report) -> Iterator[str]:
    yield '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>EST conformance of {escape(report.url)}</title><style>{_STYLE}</style></head>"


def _body(report: Report, now: datetime) -> Iterator[str]:
    of = report.counts.of
    yield "<body><header>"
    yield f"<h1>{escape(report.url)}</h1>"
    yield (
        f'<p class="soft">Judged by estgw {escape(__version__)} on {now:%Y-%m-%d %H:%M} UTC in {report.seconds:.0f} s; '
        f"the server issued {report.issued} certificates.</p>"
    )
    yield f'<p class="verdict">{escape(report.counts.line)}</p>'
    if report.ended_early:
        yield f'<p class="ERROR">The run ended early: {escape(report.ended_early)}.</p>'
    yield '<ul class="counts">'
    yield from (
        f'<li><span class="status {status.value}">{of[status]} {status.value}</span> '
        f'<span class="soft">{words}</span></li>'
        for status, words in _WORDS.items()
        if of[status]
    )
    yield "</ul></header><main>"
    for group in GROUPS:
        results = [each for each in report.results if each.case.group == group]
        if results:
            yield f"<section><h2>{escape(group)}</h2>"
            for result in results:
                yield from _case(result)
            yield "</section>"
    yield "</main><footer><h2>Not to be seen from outside</h2><ul>"
    yield from (f"<li><code>{escape(row)}</code> {escape(why)}</li>" for row, why in UNTESTABLE.items())
    yield "</ul></footer></body>"


def _case(result: Result) -> Iterator[str]:
    case, status = result.case, result.status
    is_open = " open" if status in (Status.FAIL, Status.ERROR) else ""
    yield f'<details id="{escape(case.id)}"{is_open}><summary>'
    yield f'<span class="status {status.value}">{status.value}</span><code>{escape(case.id)}</code>'
    yield f'<span class="seen">{escape(result.seen)}</span></summary><dl>'
    yield f"<dt>asks for</dt><dd>{escape(case.level.value)}: {escape(case.clause)}</dd>"
    yield f"<dt>expected</dt><dd>{escape(case.expected)}</dd>"
    if result.reason is not None:
        words = "and it passes: take it off the list" if result.is_surprise else result.reason
        yield f"<dt>known</dt><dd>expected to fail: {escape(words)}</dd>"
    if case.rows:
        yield f"<dt>rows</dt><dd>{escape(', '.join(case.rows))}</dd>"
    yield f"<dt>alone</dt><dd><code>{escape(result.command)}</code></dd></dl>"
    if result.exchange:
        yield f"<pre>{escape(chr(10).join(result.exchange))}</pre>"
    yield "</details>"
