"""A gateway with one CA label for each of many scripts: correct, odd and misbehaving ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.gateway import Gateway, running_gateway
from tests.kit.workspace import Workspace

# The script of each label for simpleenroll; {lab} is the workspace.
SCRIPTS = {
    # The environment, one line per variable, as words for the client.
    "reflect": "env -0 | tr '\\n\\0' '~\\n' | grep -E \"^($WANTED)=\"; exit 77",
    "names": "env -0 | tr '\\n\\0' '~\\n' | sed 's/=.*//'; exit 77",
    "talk": r"""printf 'one\n\e[31mtwo\n{"event": "forged"}\n\n' >&2; cat {lab}/openssl-ca/private/c*.pem >&2; false""",
    # Misbehaviour, with the words that the log has for it.
    "crash": "echo 'line 3: no such thing' >&2; exit 1",
    "signal": "kill -SEGV $$",
    "junk": "echo 'Certificate: here you are'",
    "silent": "exit 0",
    "broken-head": "printf 'Status: 200\\nno colon here\\n\\nbody'",
    "endless-head": "printf 'Status: 200\\n'",
    "two": "cat {lab}/openssl-ca/cacert.pem {lab}/openssl-ca/server.pem",
    "key": "cat {lab}/openssl-ca/server.pem {lab}/openssl-ca/private/serverkey.pem",
    "flood": "head -c 40000000 /dev/zero; sleep 30",
    "flood-stderr": "head -c 40000000 /dev/zero >&2; sleep 30",
    "hang": "sleep 60",
    "stubborn": "trap '' TERM; echo $$ >{lab}/stubborn.pid; while true; do sleep 0.2; done",
    "child": "sleep 60 & echo $! >{lab}/child.pid; cat {lab}/openssl-ca/cacert.pem",
    "no-input": "exec 0<&-; cat {lab}/openssl-ca/cacert.pem",
    # Verdicts.
    "bad-request": "echo 'the serial number is missing'; exit 65",
    "busy": "echo 'the CA sleeps'; exit 69",
    "later": "echo 'never seen'; exit 75",
    "soon": "printf 'Status: 202\\nRetry-After: 7\\n\\n'",
    "refused": "echo 'not on the list'; exit 77",
    "unknown": "echo 'never seen'; exit 64",
    "conflict": "printf 'Status: 409\\nContent-Type: text/plain\\nX-Why: twice\\nSet-Cookie: a=b\\n\\ntwice\\n'",
    "slow": "sleep 0.4; cat {lab}/openssl-ca/cacert.pem",
}

WANTED = (
    "TLS_UNIQUE_SR|SSL_PROTOCOL|SSL_CLIENT_VERIFY|AUTH_TYPE|REMOTE_USER|QUERY_STRING|SCRIPT_NAME|"
    "EST_(TLS_BINDING|POP|PROFILE|LABEL|OPERATION|AUTH_METHODS|CLIENT_TRUST|CLIENT_IS_RA|CA_DIR|"
    "USERNAME|PASSWORD|AUTH_SCHEME)"
)
"""The variables that the reflecting script prints. All of them would be more than a client gets to see."""


@pytest.fixture(scope="session")
def bench(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Labels named after `SCRIPTS`, and some for the settings that a label can have."""
    own = lab.copy(tmp_path_factory.mktemp("bench"))
    labels: dict[str, Any] = {}
    for name, text in SCRIPTS.items():
        handler = own.script(f"bench/{name}", text.replace("{lab}", str(own.path)))
        labels[name] = {"operations": {"simpleenroll": {"handler": str(handler)}}}
    labels["reflect"]["operations"]["simpleenroll"]["handler_env"] = {"WANTED": WANTED}
    for name in ("hang", "stubborn"):
        labels[name]["operations"]["simpleenroll"]["timeout"] = 0.5
    nothing = str(own.script("bench/nothing", "exit 0"))
    junk = str(own.script("bench/raw", "printf 'Content-Type: text/x-lesson\\n\\nwrong on purpose'"))
    crl = str(own.script("bench/crl", 'openssl x509 -in "$EST_CA_DIR/cacert.pem" -outform DER'))
    labels |= {
        "keygen": {"operations": {"serverkeygen": {"enabled": True}}},
        "no-wishes": {"operations": {"csrattrs": {"handler": nothing}}},
        "raw": {"operations": {"simpleenroll": {"handler": junk, "raw_output": True}}},
        "rfc": {"profile": "rfc"},
        "draft": {"profile": "draft"},
        "reflect-rfc": {"profile": "rfc", **labels["reflect"]},
        "reflect-draft": {"profile": "draft", **labels["reflect"]},
        "unbroken": {"base64_lines": "none"},
        "lines": {"base64_lines": "64"},
        "open": {"operations": {"simpleenroll": {"requires": "none"}}},
        "http": {"operations": {"simpleenroll": {"requires": "http"}}},
        "tls": {"operations": {"simpleenroll": {"requires": "tls"}}},
        "both": {"operations": {"simpleenroll": {"requires": "both"}}},
        "extra": {
            "operations": {
                "crl": {"method": "GET", "response_type": "application/x-crl", "body": "der", "requires": "none",
                        "handler": crl},
            }
        },
    }  # fmt: skip
    others: dict[str, dict[str, Any]] = {
        "credentials": {"pass_credentials": True, "handler_env": {"WANTED": "EST_(USERNAME|PASSWORD|AUTH_SCHEME)"}},
        "own-words": {"handler_env": {"WANTED": "WANTED|LESSON", "LESSON": "three"}},
    }
    for name, settings in others.items():
        labels[name] = {"operations": {"simpleenroll": {"handler": str(own.path / "bench/reflect"), **settings}}}
    with running_gateway(own, {"labels": labels, "callouts": {"max_stdout": 100_000}}) as running:
        yield running


def variables(words: str) -> dict[str, str]:
    """The variables that the reflecting script printed."""
    return dict(line.split("=", 1) for line in words.splitlines())
