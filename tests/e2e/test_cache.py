"""Answers that a handler lets us keep (`X-EST-Cache`), through the whole gateway."""

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
def keeping(own_lab: Workspace):
    handler = str(own_lab.script("counted", COUNTED))
    junk = str(
        own_lab.script("junk", "echo . >>\"$EST_CA_DIR/junk\"; printf 'Status: 200\\nX-EST-Cache: 600\\n\\njunk'")
    )
    issuing = str(
        own_lab.script("issuing", "printf 'Status: 200\\nX-EST-Cache: 600\\n\\n'; exec handlers/openssl/simpleenroll")
    )
    wishes = str(own_lab.script("wishes", "printf 'Status: 200\\nX-EST-Cache: 600\\n\\n'; echo '- friendlyName'"))
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


def test_one_run_for_many(keeping):
    answers = [keeping.get("kept/cacerts") for _ in range(5)]
    assert {(answer.status, answer.body, answer.header("X-Seen")) for answer in answers} == {
        (200, answers[0].body, "1")
    }
    assert asked(keeping) == 1
    assert answers[0].header("X-EST-Cache") is None
    lines = [line for line in keeping.access if line["path"].endswith("/kept/cacerts")]
    assert len({line["request_id"] for line in lines}) == 5


def test_a_label_has_its_own(keeping):
    assert [keeping.get(f"{label}/cacerts").header("X-Seen") for label in ("kept", "twin", "kept")] == ["1", "2", "1"]


def test_a_client_has_its_own(keeping):
    """What needs a login still needs it, and nobody gets what was made for another."""
    first = keeping.get("known/cacerts", login="estuser:estpwd")
    assert (first.status, first.header("X-Seen")) == (200, "1")
    assert keeping.get("known/cacerts").status == 401
    assert keeping.get("known/cacerts", login="estuser:estpwd").header("X-Seen") == "1"


def test_a_handler_that_keeps_nothing(keeping):
    assert [keeping.get("never/cacerts").header("X-Seen") for _ in range(3)] == ["1", "2", "3"]


def test_a_time_that_is_none_is_a_fault(keeping):
    assert keeping.get("odd/cacerts").status == 500
    assert "X-EST-Cache is 'soon', not whole seconds" in keeping.access[-1]["reason"]


def test_what_is_unsound_is_not_kept(keeping):
    """Whoever mends a script sees it mended."""
    assert [keeping.get("junk/cacerts").status for _ in range(2)] == [500, 500]
    assert (keeping.lab.ca / "junk").read_text() == ".\n.\n"


def test_an_edit_counts_at_once(keeping):
    keeping.get("kept/cacerts")
    keeping.lab.edit("counted", "X-Seen: %s", "X-Seen: edited %s")
    assert keeping.get("kept/cacerts").header("X-Seen") == "edited 2"


def test_a_reload_drops_it(keeping):
    keeping.get("kept/cacerts")
    assert keeping.reload()["event"] == "reloaded"
    assert keeping.get("kept/cacerts").header("X-Seen") == "2"


def test_wishes_are_kept_as_well(keeping):
    first, again = keeping.get("wishes/csrattrs"), keeping.get("wishes/csrattrs")
    assert (first.status, first.body) == (again.status, again.body) == (200, again.body)


def test_an_enrolment_never_is(keeping):
    """Nothing but an answer to a GET: each POST is a new request, whatever its handler says."""
    first, again = (keeping.post("issuing/simpleenroll", csr()) for _ in range(2))
    assert (first.status, again.status) == (200, 200)
    assert first.certificate.serial_number != again.certificate.serial_number
