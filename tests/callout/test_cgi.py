"""The meaning of a handler's stdout."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from estgw.callout import cgi
from estgw.callout.cgi import Output, read
from estgw.errors import Malformed

# The raw form.


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"\x30\x03\x02\x01\x05",
        b"MAMCAQU=\n",
        b"X-Header: 1\n\nbody",
        b"Location: https://x\n\n",
        b"\nStatus: 404\n\n",
        b" Status: 404\n\n",
        b"Status 404\n\n",
        b"StatusX: 404\n\n",
        b"\xff\xfe",
    ],
)
def test_stdout_that_does_not_begin_with_a_header_is_the_body(stdout):
    assert read(stdout) == Output(stdout)


# The CGI form.


@pytest.mark.parametrize(
    ("stdout", "output"),
    [
        (b"Status: 404\n\nno", Output(b"no", 404)),
        (b"status:404 Not Found\r\n\r\nno", Output(b"no", 404)),
        (b"STATUS \t:  202  \n\n", Output(b"", 202)),
        (b"Content-Type: text/plain\n\n\nbody\n", Output(b"\nbody\n", None, {"Content-Type": "text/plain"})),
        (b"content-type:text/plain\r\n\nmixed", Output(b"mixed", None, {"Content-Type": "text/plain"})),
        (b"Content-Type: a/b\nStatus: 200\n\n\0\xff", Output(b"\0\xff", 200, {"Content-Type": "a/b"})),
        (b"Status: 202\nRetry-After: 30\n\n", Output(b"", 202, {"Retry-After": "30"})),
        (
            b"Status: 307\nLocation: https://other.example/x\n\n",
            Output(b"", 307, {"Location": "https://other.example/x"}),
        ),
        (b"Status: 200\nx-tHING-1: two words\n\n", Output(b"", 200, {"X-Thing-1": "two words"})),
        (b"Status: 200\nX-Empty:\n\n", Output(b"", 200, {"X-Empty": ""})),
        (b"Status: 200\nX-A: b:c: d\n\n", Output(b"", 200, {"X-A": "b:c: d"})),
    ],
)
def test_a_header_block_is_read(stdout, output):
    assert read(stdout) == output


def test_dropped_headers_are_named():
    stdout = b"Status: 200\nContent-Length: 5\nSet-Cookie: a\nTransfer-Encoding: chunked\nServer: me\n\nbody"
    assert read(stdout) == Output(
        b"body", 200, {}, dropped=("content-length", "set-cookie", "transfer-encoding", "server")
    )


def test_the_last_of_two_equal_headers_counts():
    assert read(b"Status: 200\nStatus: 404\n\n").status == 404


@pytest.mark.parametrize(
    ("stdout", "words"),
    [
        (b"Status: 404", "no empty line"),
        (b"Status: 404\nbody", "no empty line"),
        (b"Status: 404\nno header\n\n", "not a header line: b'no header'"),
        (b"Status: 404\n folded\n\n", "not a header line"),
        (b"Status: 404\nX A: 1\n\n", "not a header line"),
        (b"Status: 404\n: 1\n\n", "not a header line"),
        (b"Status: x\n\n", "Status is 'x'"),
        (b"Status:\n\n", "Status is ''"),
        (b"Status: 199\n\n", "Status is '199'"),
        (b"Status: 100 Continue\n\n", "from 200 to 599"),
        (b"Status: 600\n\n", "from 200 to 599"),
        (b"Status: 2000\n\n", "from 200 to 599"),
        (b"Status: 404\nX-A: \xff\n\n", "not ASCII"),
        (b"Status: 404\nX-A: \x1b[31m\n\n", "control character"),
        (b"Status: 404\nX-A: a\0b\n\n", "control character"),
        (b"Status: 404\nX-A: a\rX-B: b\x07\n\n", "control character"),
        (b"Status: 202\nRetry-After: soon\n\n", "whole seconds"),
        (b"Status: 202\nRetry-After: -1\n\n", "whole seconds"),
        (b"Status: 202\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\n\n", "whole seconds"),
        (b"Status: 302\n\n", "302 without a Location"),
        (b"Status: 302\nLocation: /there\n\n", "absolute https URL"),
        (b"Status: 302\nLocation: http://x/\n\n", "absolute https URL"),
        (b"Status: 302\nLocation: https:///path\n\n", "absolute https URL"),
        (b"Status: 302\nLocation: https://[\n\n", r"Location is 'https://\[', which is no URL: Invalid IPv6 URL"),
        (b"Status: 200\nLocation: https://x/\n\n", "with a Status of 3xx"),
        (b"Content-Type: a/b\nLocation: https://x/\n\n", "with a Status of 3xx"),
        (b"Status: 200\n" + b"X-A: 1\n" * 1200 + b"\n", "no empty line ends the header block within 8192 bytes"),
    ],
)
def test_a_malformed_header_block_is_refused_with_the_reason(stdout, words):
    with pytest.raises(Malformed, match=words) as refusal:
        read(stdout)
    assert str(refusal.value).isprintable()


def test_a_carriage_return_alone_ends_a_header_line():
    assert read(b"Status: 200\nX-A: a\rX-B: b\n\n").headers == {"X-A": "a", "X-B": "b"}


def test_a_header_block_may_have_8_kib_and_no_more():
    block = b"Status: 200\n" + b"X-A: " + b"x" * (8192 - 17)
    assert len(block) == 8192
    assert read(block + b"\n\nbody").body == b"body"
    with pytest.raises(Malformed):
        read(block + b"xxxxxx\n\nbody")


def test_header_values_hold_no_line_ends_and_the_body_stays_body():
    made = read(b"Content-Type: text/plain\nX-A: 1\n\nSet-Cookie: evil")
    assert all(value.isprintable() for value in made.headers.values())
    assert made.body == b"Set-Cookie: evil"


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: b"Status: 200\n" + tail))
@example(b"Status: 200\n" + b" " * 9000)
def test_any_stdout_is_an_output_or_malformed(stdout):
    try:
        output = read(stdout)
    except Malformed:
        return
    assert output.body in stdout
    assert output.status is None or 200 <= output.status <= 599
    for name, value in output.headers.items():
        assert value.isprintable()
        assert name in ("Content-Type", "Retry-After", "Location") or name.startswith("X-")


# Words for the client.


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"  you may not\n", "you may not"),
        (b"two\r\nlines\r\n", "two\nlines"),
        (b"Zo\xc3\xab", "Zoë"),
        (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2),
        (b"a\x1b[31mb\0c\td", "a?[31mb?c?d"),
        (b"", ""),
        (b"\n\n", ""),
    ],
)
def test_words_lose_control_characters_and_surrounding_space(raw, text):
    assert cgi.words(raw) == text


def test_words_are_bounded():
    assert len(cgi.words(b"x" * 100_000)) == 2048


@given(st.binary())
def test_words_are_always_printable(raw):
    assert all(char == "\n" or char.isprintable() for char in cgi.words(raw))


@pytest.mark.parametrize(("value", "seconds"), [(b"0", 0), (b"300", 300), (b"86400", 86400)])
def test_x_est_cache_sets_how_long_an_answer_is_kept(value, seconds):
    output = read(b"Status: 200\nX-EST-Cache: " + value + b"\n\nbody")
    assert (output.keep, output.headers) == (seconds, {})


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"86401", b"99999", b"forever", b"1 s"])
def test_an_invalid_x_est_cache_is_refused(value):
    with pytest.raises(Malformed, match=r"X-EST-Cache is .*, not whole seconds from 0 to 86400"):
        read(b"Status: 200\nX-EST-Cache: " + value + b"\n\nbody")
