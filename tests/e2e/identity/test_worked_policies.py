"""The README's chapter on who may enrol: the order of the gates, the words, and its three policies."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.est.operations import OPERATIONS, Requires
from tests.kit.clients import Pair, People, bound
from tests.kit.connection import V12
from tests.kit.csr import CHALLENGE_PASSWORD, challenge, csr, san
from tests.kit.der import oid
from tests.kit.gateway import LOGIN, running_gateway
from tests.kit.keys import KEY, key_pem
from tests.kit.processes import ROOT
from tests.kit.scripts import policy
from tests.kit.workspace import Workspace

FOREIGN = challenge("c29tZWJvZHkgZWxzZSdz")


def worked(heading: str) -> dict[str, Any]:
    """The YAML that follows a bold line of the README."""
    _, found, below = (ROOT / "README.md").read_text().partition(f"**{heading}")
    assert found, heading
    block = re.search(r"```yaml\n(.*?)```", below, re.DOTALL)
    assert block
    settings: dict[str, Any] = yaml.safe_load(block[1])
    return settings


@pytest.fixture
def people(own_lab: Workspace) -> People:
    return People(own_lab)


def trusting(people: People) -> dict[str, Any]:
    return {"explicit": people.config["explicit"]}


def test_readme_policy_first_a_password_then_the_certificate_works(own_lab, tmp_path):
    line = f"estuser {hashlib.sha256(b'once').hexdigest()}\n"
    (own_lab.path / "handlers/examples/one-time-passwords").write_text(line)
    with running_gateway(own_lab, worked("First a password, then the certificate")) as gateway:
        pair = tmp_path / "device.pem", tmp_path / "device.key"
        issued = gateway.post("simpleenroll", csr(), login="estuser:once").certificate
        pair[0].write_bytes(issued.public_bytes(Encoding.PEM))
        pair[1].write_bytes(key_pem(KEY))
        assert gateway.post("simpleenroll", csr(), login="estuser:once").status == 401
        assert gateway.post("simpleenroll", csr(), login=LOGIN).status == 401
        assert gateway.post("simplereenroll", csr(), login=None, certificate=pair).status == 200
        assert gateway.post("simpleenroll", csr(), login=None, certificate=pair).status == 401


def test_readme_policy_for_devices_with_a_makers_certificate_works(own_lab, people):
    settings = worked("Devices with a maker's certificate")
    own_lab.path.joinpath(settings["client_auth"]["implicit"][0]).write_bytes(
        Path(people.config["implicit"][0]).read_bytes()
    )
    settings["client_auth"] |= trusting(people)
    with running_gateway(own_lab, settings) as gateway:
        with gateway.connect(version=V12, certificate=people.pairs["theirs"]) as device:
            linked = csr("device-1", challenge(bound(device)))
            own_lab.verify(device.ask("POST", "iot/simpleenroll", linked).certificate)
            assert device.ask("POST", "iot/simpleenroll", csr("device-1")).status == 400
            assert device.ask("POST", "iot/simpleenroll", csr("device-1", FOREIGN)).status == 400
            assert oid(CHALLENGE_PASSWORD) in device.ask("GET", "iot/csrattrs").der
        for kind in ("none", "unknown"):
            with gateway.connect(version=V12, certificate=people.pairs[kind]) as other:
                linked = csr("device-1", challenge(bound(other)))
                assert other.ask("POST", "iot/simpleenroll", linked, login=LOGIN).status == 403


def test_readme_policy_for_an_ra_that_enrols_for_others_works(own_lab, people, tmp_path):
    settings = worked("An RA enrols for others")
    with (
        policy(own_lab, "Only RAs may name others"),
        running_gateway(own_lab, {**settings, "client_auth": trusting(people)}) as gateway,
    ):
        with gateway.connect(version=V12, certificate=people.pairs["our RA"]) as ra:
            for body in (csr("another", FOREIGN), csr("another")):
                status = ra.ask("POST", "simpleenroll", body).status
                assert status == 200
        with gateway.connect(version=V12, certificate=people.pairs["ours"]) as client:
            own = challenge(bound(client))
            assert client.ask("POST", "simpleenroll", csr("device-1", own)).status == 200
            assert client.ask("POST", "simpleenroll", csr("another", own)).status == 403
            assert client.ask("POST", "simpleenroll", csr("device-1", FOREIGN)).status == 400
            assert client.ask("POST", "simpleenroll", csr("device-1")).status == 400


def gates() -> dict[int, set[int]]:
    """The statuses that each gate of the README's table refuses with."""
    text = (ROOT / "README.md").read_text().partition("\n| # | gate |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (\d) \|.*\|([^|]*)\|$", text, re.MULTILINE)
    return {int(number): {int(status) for status in re.findall(r"\b[2-5]\d\d\b", last)} for number, last in rows}


def test_gates_refuse_in_the_order_of_the_readme(own_lab, people):
    """Each request has a fault at one gate and at every later one. The first of these gates must answer."""
    asked = own_lab.path / "asked"
    ask = f'echo "${{EST_CSR_SAN_0-nobody}}" >>{asked}\n'
    decision = own_lab.script("decision", ask + "[[ -v EST_CSR_SAN_0 ]] || { echo 'the decision says no'; exit 77; }")
    handler = own_lab.script(
        "handler", "[[ $EST_CSR_SUBJECT == CN=lucky ]] || { echo 'so does the handler'; exit 77; }"
    )
    operation = {"requires": "both", "handler": str(handler), "raw_output": True}
    config = {
        "client_auth": {**people.config, "unknown_certificates": "reject"},
        "callouts": {"authorize": str(decision), "operations": {"simpleenroll": operation}},
    }
    foreign, named = FOREIGN, san(x509.DNSName("a.example"))
    linked, unlinked = csr("unlucky"), csr("unlucky", foreign)
    spoilt = unlinked[:-1] + bytes([unlinked[-1] ^ 1])
    ours = people.pairs["ours"]
    steps: list[tuple[int, str, bytes, str, Pair | None, int, str]] = [
        (2, "no-label/simpleenroll", spoilt, "estuser:no", None, 404, ""),
        (3, "simpleenroll", spoilt, "estuser:no", None, 401, ""),
        (4, "simpleenroll", spoilt, LOGIN, None, 403, "needs a TLS client certificate"),
        (5, "simpleenroll", spoilt, LOGIN, ours, 400, "signature"),
        (6, "simpleenroll", unlinked, LOGIN, ours, 400, "challengePassword"),
        (7, "simpleenroll", linked, LOGIN, ours, 403, "the decision says no"),
        (8, "simpleenroll", csr("unlucky", named), LOGIN, ours, 403, "so does the handler"),
    ]
    assert [1, *(step[0] for step in steps)] == list(gates())
    with running_gateway(own_lab, config) as gateway:
        # In TLS 1.3 a client sees the alert at its first read.
        with (
            pytest.raises((OSError, AssertionError)),
            gateway.connect(certificate=people.pairs["unknown"]) as stranger,
        ):
            stranger.ask("POST", "no-label/simpleenroll", spoilt, login="estuser:no")
        for gate, path, body, login, certificate, status, words in steps:
            answer = gateway.post(path, body, login=login, certificate=certificate)
            assert (answer.status, words.encode() in answer.body) == (status, True), gate
            assert status in gates()[gate]
            assert asked.exists() is (gate >= 7)
        whole = gateway.post("simpleenroll", csr("lucky", named), certificate=ours)
        assert whole.status == 200
    assert asked.read_text() == "nobody\nDNS:a.example\nDNS:a.example\n"


def test_the_readmes_table_has_every_requirement_word():
    """The README's table and the configuration have the same words."""
    text = (ROOT / "README.md").read_text().partition("\n| `requires` |")[2].partition("\n\n")[0]
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", text, re.MULTILINE)}
    assert rows.keys() == {word.value for word in Requires}
    for word, named in rows.items():
        operations = {name for name, operation in OPERATIONS.items() if operation.requires.value == word}
        assert set(re.findall(r"\w+", named)) == operations
