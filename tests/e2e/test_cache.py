"""Answers that a handler lets the gateway cache (`X-EST-Cache`)."""

from __future__ import annotations

import pytest

from tests.kit.csr import csr
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.workspace import Workspace

COUNTED = """
echo . >>"$EST_CA_DIR/asked"
printf 'Status: 200\\nX-EST-Cache: %s\\nX-Seen: %s\\n\\n' "${SECONDS_TO_KEEP-600}" "$(wc -l <"$EST_CA_DIR/asked")"
cat "$EST_CA_DIR/cacert.pem"
"""

KEEP = "printf 'Status: 200\\nX-EST-Cache: 600\\n\\n'"


@pytest.fixture
def caching(own_lab: Workspace):
    handler = str(own_lab.script("counted", COUNTED))
    junk = str(
        own_lab.script("junk", "echo . >>\"$EST_CA_DIR/junk\"; printf 'Status: 200\\nX-EST-Cache: 600\\n\\njunk'")
    )
    issuing = str(
        own_lab.script("issuing", "printf 'Status: 200\\nX-EST-Cache: 600\\n\\n'; exec handlers/openssl/simpleenroll")
    )
    wishes = str(
        own_lab.script(
            "wishes",
            "echo . >>\"$EST_CA_DIR/wishes\"; printf 'Status: 200\\nX-EST-Cache: 600\\n\\n'; echo '- friendlyName'",
        )
    )
    labels = {
        "kept": {"operations": {"cacerts": {"handler": handler}}},
        "twin": {"operations": {"cacerts": {"handler": handler}}},
        "known": {"operations": {"cacerts": {"handler": handler, "requires": "any"}}},
        "never": {"operations": {"cacerts": {"handler": handler, "handler_env": {"SECONDS_TO_KEEP": "0"}}}},
        "odd": {"operations": {"cacerts": {"handler": handler, "handler_env": {"SECONDS_TO_KEEP": "soon"}}}},
        "junk": {"operations": {"cacerts": {"handler": junk}}},
        "wishes": {"operations": {"csrattrs": {"handler": wishes}}},
        "issuing": {"operations": {"simpleenroll": {"handler": issuing}}},
    }
    with running_gateway(own_lab, {"labels": labels}) as gateway:
        yield gateway


def asked(gateway: Gateway) -> int:
    """How often the handler ran."""
    file = gateway.lab.ca / "asked"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_a_cached_answer_runs_the_handler_once_for_five_requests(caching):
    answers = [caching.get("kept/cacerts") for _ in range(5)]
    assert {(answer.status, answer.body, answer.header("X-Seen")) for answer in answers} == {
        (200, answers[0].body, "1")
    }
    assert asked(caching) == 1
    assert answers[0].header("X-EST-Cache") is None
    lines = [line for line in caching.access if line["path"].endswith("/kept/cacerts")]
    assert len({line["request_id"] for line in lines}) == 5


def test_each_label_caches_its_own_answer(caching):
    assert [caching.get(f"{label}/cacerts").header("X-Seen") for label in ("kept", "twin", "kept")] == ["1", "2", "1"]


def test_a_cached_answer_still_requires_the_login(caching):
    """A request without a login gets a 401, not the cached answer."""
    first = caching.get("known/cacerts", login="estuser:estpwd")
    assert (first.status, first.header("X-Seen")) == (200, "1")
    assert caching.get("known/cacerts").status == 401
    assert caching.get("known/cacerts", login="estuser:estpwd").header("X-Seen") == "1"


def test_x_est_cache_0_caches_nothing(caching):
    assert [caching.get("never/cacerts").header("X-Seen") for _ in range(3)] == ["1", "2", "3"]


def test_a_malformed_x_est_cache_is_a_500(caching):
    assert caching.get("odd/cacerts").status == 500
    assert "X-EST-Cache is 'soon', not whole seconds" in caching.access[-1]["reason"]


def test_a_faulty_answer_is_not_cached(caching):
    """A repaired script takes effect at once."""
    assert [caching.get("junk/cacerts").status for _ in range(2)] == [500, 500]
    assert (caching.lab.ca / "junk").read_text() == ".\n.\n"


def test_an_edit_of_the_script_drops_its_cached_answer(caching):
    caching.get("kept/cacerts")
    caching.lab.edit("counted", "X-Seen: %s", "X-Seen: edited %s")
    assert caching.get("kept/cacerts").header("X-Seen") == "edited 2"


def test_a_reload_drops_cached_answers(caching):
    caching.get("kept/cacerts")
    assert caching.reload()["event"] == "reloaded"
    assert caching.get("kept/cacerts").header("X-Seen") == "2"


def test_csrattrs_with_x_est_cache_are_answered_alike(caching):
    first, again = caching.get("wishes/csrattrs"), caching.get("wishes/csrattrs")
    assert (first.status, first.body) == (again.status, again.body)
    assert first.status == 200
    assert (caching.lab.ca / "wishes").read_text() == ".\n"


def test_an_enrolment_is_never_cached(caching):
    """Only answers to GET are cached. Each POST is a new request, whatever its handler prints."""
    first, again = (caching.post("issuing/simpleenroll", csr()) for _ in range(2))
    assert (first.status, again.status) == (200, 200)
    assert first.certificate.serial_number != again.certificate.serial_number
