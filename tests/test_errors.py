"""Every way a request can fail."""

from __future__ import annotations

import pytest

from estgw import errors
from estgw.errors import ConfigError, Malformed, MethodNotAllowed, Pending, RequestError, TooManyGuesses, Unavailable

STATUS = {
    "Pending": 202,
    "BadRequest": 400,
    "Unauthenticated": 401,
    "Forbidden": 403,
    "NotFound": 404,
    "MethodNotAllowed": 405,
    "RequestTimedOut": 408,
    "TooLarge": 413,
    "UnsupportedMediaType": 415,
    "TooManyGuesses": 429,
    "HandlerFailed": 500,
    "NotSupported": 501,
    "Unavailable": 503,
    "HandlerTimedOut": 504,
}


def test_each_request_error_has_its_status():
    kinds = {kind.__name__: kind.status for kind in RequestError.__subclasses__() if kind.__module__ == "estgw.errors"}
    assert kinds == STATUS


def test_an_error_may_tell_the_log_more_than_the_client():
    error = errors.HandlerFailed("Sorry.", log="the script printed its key")
    assert (error.public, str(error)) == ("Sorry.", "the script printed its key")
    assert str(errors.Forbidden("No.")) == "No."


def test_the_words_of_an_error_are_shortened():
    error = errors.Forbidden("x" * 1_000_000, log="y" * 1_000_000)
    assert (len(error.public), len(str(error))) == (4099, 4099)
    assert error.public.endswith("x...")


def test_errors_have_retry_after_or_allow_headers():
    assert Pending(60).headers == {"Retry-After": "60"}
    assert Pending(60).public == ""
    assert Unavailable("Busy.", retry_after=7).headers == {"Retry-After": "7"}
    assert MethodNotAllowed("cacerts is a GET.", "GET").headers == {"Allow": "GET"}
    assert TooManyGuesses(retry_after=9).headers == {"Retry-After": "9"}


def test_headers_of_an_error_are_a_copy():
    shared = {"X": "1"}
    error = RequestError("No.", headers=shared)
    error.headers["Y"] = "2"
    assert shared == {"X": "1"}


@pytest.mark.parametrize("name", STATUS)
def test_only_an_unread_body_ends_the_connection(name):
    assert getattr(errors, name).close is (name in ("RequestTimedOut", "TooLarge"))


def test_a_config_error_has_all_faults_one_per_line():
    refusal = ConfigError(["a:1:1: one", "a:2:1: two"])
    assert refusal.faults == ["a:1:1: one", "a:2:1: two"]
    assert str(refusal) == "a:1:1: one\na:2:1: two"


def test_malformed_is_a_value_error_and_no_request_error():
    assert issubclass(Malformed, ValueError)
    assert not issubclass(Malformed, RequestError)
