"""Records of requests and failed handshakes, as a real gateway writes them."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from estgw.cli import main as command_line
from estgw.record import folder
from estgw.record.table import FREE, KEYS, fill, markdown
from tests.kit.clients import bound, digest_answer, digest_challenge, digest_file
from tests.kit.connection import V12
from tests.kit.connection import request as connection_request
from tests.kit.csr import challenge, csr
from tests.kit.gateway import LOGIN, enrol, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import DEADLINE, ROOT, until
from tests.kit.workspace import Workspace
from tests.record.kit import Record, Recording, paths, recording

GATES = ["TLS", "path", "password", "requires", "CSR", "linking", "authorize", "handler"]


@pytest.fixture(scope="module")
def recorder(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    own = lab.copy(tmp_path_factory.mktemp("records") / "lab")
    digest = {"digest": ["MD5"], "digest_users": str(digest_file(own, LOGIN))}
    with recording(own, {"client_auth": digest}) as running:
        yield running


@pytest.fixture(scope="module")
def device(recorder: Recording, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return enrol(recorder.gateway, tmp_path_factory.mktemp("device"))


def results(record: Record) -> str:
    """The results of the gates, one letter each."""
    assert [gate["name"] for gate in record["gates"]] == GATES
    return "".join(gate["result"][0] for gate in record["gates"])


def test_an_enrolment_is_recorded_whole(recorder):
    answers = []
    request = csr("device-5")
    record = recorder.of(lambda: answers.append(recorder.gateway.post("simpleenroll", request)))
    (answer,) = answers
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["at"])
    assert (record["format"], record["kind"], record["operation"], record["profile"]) == (
        1, "request", "simpleenroll", "rfc",
    )  # fmt: skip
    assert results(record) == "pppppppp"
    assert base64.b64decode(record["request"]["body"]) == request
    assert record["request"]["csr"] == {
        "subject": "CN=device-5",
        "names": [],
        "key": "EC P-256",
        "signature": "ecdsa-with-SHA256",
        "sha256": record["request"]["csr"]["sha256"],
        "pem": record["request"]["csr"]["pem"],
    }
    assert base64.b64decode(record["response"]["body"]) == answer.body
    assert record["response"]["status"] == record["outcome"]["status"] == 200
    assert record["outcome"] == {"status": 200, "gate": None, "reason": "", "hint": None}
    assert int(record["issued"]["serial"], 16) == answer.certificate.serial_number
    assert [(each["kind"], each["script"], each["exit"]) for each in record["callouts"]] == [
        ("authorize", "handlers/openssl/authorize", 0),
        ("handler", "handlers/openssl/simpleenroll", 0),
    ]
    handler = record["callouts"][1]
    assert handler["environment"]["EST_CSR_SUBJECT"] == "CN=device-5"
    assert handler["stdout"].startswith("-----BEGIN CERTIFICATE-----")
    assert len(handler["sha256"]) == 64
    assert handler["ran_ms"] > 0
    assert record["auth"]["user"] == "estuser"
    assert record["auth"]["verified"] is True
    assert ["Authorization", "[removed]"] in record["request"]["headers"]
    assert record["ms"] >= handler["ran_ms"]


def test_a_record_has_the_id_of_the_log_line(recorder):
    record = recorder.of(lambda: recorder.gateway.get("cacerts"))
    line = recorder.gateway.access[-1]
    assert record["id"] == line["request_id"]
    assert record["outcome"]["status"] == line["status"]


def test_requests_on_one_connection_are_counted(recorder):
    with recorder.gateway.connect() as connection:
        first, second = (recorder.of(lambda: connection.ask("GET", "cacerts")) for _ in range(2))
    assert [record["connection"]["request"] for record in (first, second)] == [1, 2]
    assert first["connection"]["number"] == second["connection"]["number"]
    assert first["connection"]["port"] == second["connection"]["port"]


def test_a_refusal_names_its_gate_its_reason_and_what_to_do(recorder):
    record = recorder.of(lambda: recorder.gateway.post("simpleenroll", csr(), login=None))
    line = recorder.gateway.access[-1]
    assert results(record) == "ppsrssss"
    assert record["outcome"] == {
        "status": 401,
        "gate": "requires",
        "reason": "no credentials, and no client certificate",
        "hint": line["hint"],
    }
    assert record["auth"]["challenges"][-1] == 'Basic realm="estrealm"'
    assert record["gates"][3]["reason"] == record["outcome"]["reason"]


def test_a_wrong_password_is_refused_by_the_password_gate(recorder):
    record = recorder.of(lambda: recorder.gateway.post("simpleenroll", csr(), login="estuser:wrong-guess"))
    assert results(record) == "pprsssss"
    assert (record["auth"]["scheme"], record["auth"]["user"], record["auth"]["verified"]) == ("Basic", "estuser", False)


def test_a_digest_answer_is_recorded_without_its_response(recorder):
    request = csr()
    with recorder.gateway.connect() as connection:
        challenge = digest_challenge(connection.ask("POST", "simpleenroll", request))
        header = digest_answer(challenge, LOGIN)
        record = recorder.of(lambda: connection.ask("POST", "simpleenroll", request, headers={"Authorization": header}))
    assert record["auth"]["scheme"] == "Digest"
    assert record["auth"]["digest"]["nonce"] == challenge["nonce"]
    assert "response" not in record["auth"]["digest"]
    response = re.search(r'response="(\w+)"', header)
    assert response is not None
    assert response[1] not in str(record)


def test_a_renewal_shows_certificate_and_binding(recorder, device):
    with recorder.gateway.connect(version=V12, certificate=device) as connection:
        binding = bound(connection)
        request = csr("device-1", challenge=binding)
        record = recorder.of(lambda: connection.ask("POST", "simplereenroll", request))
    assert results(record) == "ppsppppp"
    assert record["tls"]["subject"] == "CN=device-1"
    assert record["tls"]["verify"] == "SUCCESS"
    assert record["tls"]["trust"] == "explicit"
    assert record["tls"]["certificate"].encode() == device[0].read_bytes()
    assert record["tls"]["handshake_ms"] > 0
    assert record["binding"] == {
        "type": "tls-unique",
        "expected": binding,
        "found": binding,
        "attribute": "challengePassword",
        "required": False,
        "result": "linked",
    }


def test_an_unknown_path_has_a_record_without_an_operation(recorder):
    record = recorder.of(lambda: recorder.gateway.get("/nowhere?token=hidden-in-the-query"))
    assert results(record) == "prssssss"
    assert (record["operation"], record["label"], record["outcome"]["status"]) == (None, None, 404)
    assert record["request"]["line"] == "GET /nowhere?token=[removed] HTTP/1.1"


def test_what_is_not_http_has_a_record(recorder):
    def ask() -> None:
        with recorder.gateway.connect() as connection:
            connection.send(b"no HTTP at all\r\n\r\n")
            connection.rest()

    record = recorder.of(ask)
    assert results(record) == "prssssss"
    assert record["request"] is None
    assert record["outcome"]["status"] == record["response"]["status"] == 400
    assert record["outcome"]["reason"].startswith("not HTTP: ")
    assert record["outcome"]["hint"]


def test_a_failed_handshake_has_a_record(recorder, own_lab):
    def ask() -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            recorder.gateway.connect(anchor=ROOT / "tests/handlers/rfc9881/ml-dsa-44-cert.pem")

    record = recorder.of(ask)
    assert (record["kind"], record["tls"], record["request"], record["response"]) == ("handshake", {}, None, None)
    assert results(record) == "rsssssss"
    assert "unknown ca" in record["outcome"]["reason"]
    assert record["connection"]["number"] > 0
    line = recorder.gateway.wait_for("TLS handshake failed", reason=record["outcome"]["reason"])
    assert line["hint"] == record["outcome"]["hint"]


def test_a_client_that_goes_away_has_a_record(recorder):
    def ask() -> None:
        with recorder.gateway.connect() as connection:
            expect = {"Expect": "100-continue", "Content-Length": "900"}
            connection.send(connection_request("POST", "simpleenroll", b"", headers=expect))
            assert connection.response().status == 100

    record = recorder.of(ask)
    assert record["outcome"]["status"] in (None, 400)
    assert record["request"]["length"] == 900


def test_a_long_output_is_cut_and_its_length_is_true(own_lab):
    own_lab.script("handlers/openssl/cacerts", "head -c 300000 /dev/zero | tr '\\0' x; exit 77")
    with recording(own_lab) as running:
        record = running.of(lambda: running.gateway.get("cacerts"))
    (callout,) = record["callouts"]
    assert (len(callout["stdout"]), callout["stdout_length"], callout["stdout_cut"]) == (262144, 300000, True)


def test_a_kept_answer_is_recorded_as_such(own_lab):
    text = "printf 'Content-Type: application/pkcs7-mime\\nX-EST-Cache: 60\\n\\n'; cat \"$EST_CA_DIR/cacert.pem\""
    own_lab.script("handlers/openssl/cacerts", text)
    with recording(own_lab) as running:
        first, second = (running.of(lambda: running.gateway.get("cacerts")) for _ in range(2))
    assert [record["callouts"][0]["cached"] for record in (first, second)] == [False, True]
    assert second["callouts"][0]["stdout"] == ""


# Files.


def test_files_and_directory_are_private(recorder):
    recorder.of(lambda: recorder.gateway.get("cacerts"))
    assert stat.S_IMODE(recorder.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in recorder.folder.iterdir()} == {0o600}
    name = max(recorder.folder.iterdir()).name
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{3}-[0-9a-f]{10}\.json", name)


def test_the_oldest_files_go_first(own_lab):
    with recording(own_lab, {"record": {"files": 3}}) as running:
        made = [running.of(lambda: running.gateway.get("cacerts"))["id"] for _ in range(5)]
        until(lambda: len(running.records) == 3)
        assert [record["id"] for record in running.records] == made[-3:]
    with recording(own_lab, {"record": {"files": 2}}) as running:
        until(lambda: len(running.records) == 2)
        assert [record["id"] for record in running.records] == made[-2:]


def test_a_directory_that_others_may_enter_refuses_the_start(own_lab):
    (own_lab.path / "records").mkdir(mode=0o755)
    (own_lab.path / "records").chmod(0o755)
    with pytest.raises(AssertionError, match=r"others may enter .*chmod 700"), recording(own_lab):
        pass


@pytest.mark.slow
def test_a_full_disk_costs_one_warning_and_no_request(own_lab):
    """The directory goes away while the gateway runs, which every write meets as a fault."""
    with recording(own_lab) as running:
        running.of(lambda: running.gateway.get("cacerts"))
        running.folder.rename(own_lab.path / "elsewhere")
        assert [running.gateway.get("cacerts").status for _ in range(5)] == [200] * 5
        running.gateway.wait_for("records are lost")
        time.sleep(0.3)
        lost = [line for line in running.gateway.log if line["event"] == "records are lost"]
        assert len(lost) == 1
        assert "No such file or directory" in lost[0]["reason"]


@pytest.mark.slow
def test_a_kill_leaves_whole_files_only(own_lab):
    with recording(own_lab, status=-signal.SIGKILL, temporary=own_lab.path) as running:
        running.of(lambda: running.gateway.get("cacerts"))
        with running.gateway.connect() as connection:
            for _ in range(40):
                connection.send(b"GET /.well-known/est/nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.response()
            os.kill(running.gateway.process.pid, signal.SIGKILL)
        running.gateway.process.wait(10)
    assert running.records
    for path in folder.names(running.folder):
        folder.read(path)


def test_nothing_is_recorded_unless_it_is_asked_for(own_lab):
    with running_gateway(own_lab) as gateway:
        gateway.get("cacerts")
    assert not (own_lab.path / "records").exists()


@pytest.mark.slow
def test_every_worker_records_into_one_directory(own_lab):
    with recording(own_lab, {"server": {"workers": 2}}, clean=False) as running:
        for _ in range(12):
            assert running.gateway.get("cacerts").status == 200
        until(lambda: len(running.records) == 12)


def test_a_request_is_served_while_a_client_of_plain_http_is_recorded(recorder):
    def ask() -> None:
        with socket.create_connection(("127.0.0.1", recorder.gateway.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            plain.recv(1000)

    assert recorder.of(ask)["outcome"]["reason"] == "http request"
    assert recorder.gateway.get("cacerts").status == 200


# The table of keys.


def test_the_page_lists_the_keys_of_the_code():
    page = (ROOT / "docs/records.md").read_text()
    assert markdown() in page
    assert fill(page) == page, "make docs writes it anew"


def test_records_have_the_keys_of_the_table_and_no_others(recorder):
    with recorder.gateway.connect() as connection:  # between them, these have every key
        request = csr("device-1", challenge(bound(connection)))
        asked = digest_challenge(connection.ask("POST", "simpleenroll", request))
        header = {"Authorization": digest_answer(asked, LOGIN)}
        recorder.of(lambda: connection.ask("POST", "simpleenroll", request, headers=header))
    recorder.of(lambda: recorder.gateway.post("simpleenroll", csr()))
    recorder.of(lambda: recorder.gateway.get("/nowhere"))
    listed = {key for key, _, _ in KEYS}
    found = set().union(*(paths(record, free=FREE) for record in recorder.records))
    branches = {key.rpartition(".")[0] for key in listed}
    assert found - branches <= listed
    assert listed - found <= {"of"}
    always = {"id", "format", "at", "kind", "connection", "tls", "gates", "callouts", "outcome", "ms"}
    assert all(always <= record.keys() for record in recorder.records)


# The demo and the configuration.


@pytest.mark.slow
def test_a_demo_records_where_the_configuration_is_silent_and_not_where_it_speaks(own_lab):
    def demo() -> list[str]:
        command = [*forked_estgw(), "demo", "--dir", own_lab.path, "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as started:
            assert started.stdout is not None
            port = int(started.stdout.readline().rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                plain.recv(1000)
            started.terminate()
            assert started.wait(DEADLINE) == 0
        return [path.name for path in own_lab.path.glob("records/*")]

    assert len(demo()) == 1
    config = own_lab.path / "conf.yaml"
    config.write_text(config.read_text() + "\nrecord: {keep: 5}\n")
    assert len(demo()) == 1


def test_a_reload_names_a_change_of_the_recording(own_lab):
    with recording(own_lab) as running:
        running.gateway.configure({"record": {"dir": str(running.folder), "keep": 7}})
        assert running.gateway.reload()["event"] == "reloaded"
        line = running.gateway.wait_for("not changed by a reload")
    assert line["settings"] == ["record.keep: 100 stays, not 7"]


def test_check_names_a_fault_of_the_directory(own_lab, capsys):
    (own_lab.path / "records").write_text("")
    config = own_lab.path / "conf.yaml"
    config.write_text(config.read_text() + "\nrecord: {dir: records}\n")
    assert command_line.main(["check", "-c", str(config)]) == 1
    assert f"record.dir: {own_lab.path}/records is no directory" in capsys.readouterr().err


def test_a_workspace_with_records_can_be_compared_with_what_is_shipped(own_lab, capsys):
    with recording(own_lab) as running:
        running.of(lambda: running.gateway.get("cacerts"))
    assert command_line.main(["init", "--diff", str(own_lab.path)]) == 0
    assert "records/" not in capsys.readouterr().out


@pytest.mark.parametrize("runner", ["exec", "fork", "pool"])
def test_every_runner_records_both_scripts_of_a_request(own_lab, runner):
    with recording(own_lab, {"labels": {"python": {"runner": runner}}}) as running:
        record = running.of(lambda: running.gateway.post("python/simpleenroll", csr("device-8")))
    assert results(record) == "pppppppp"
    assert [(each["kind"], each["script"], each["runner"], each["exit"]) for each in record["callouts"]] == [
        ("authorize", "handlers/python/authorize", runner, 0),
        ("handler", "handlers/python/simpleenroll", runner, 0),
    ]
    assert record["callouts"][1]["stdout"].startswith("-----BEGIN CERTIFICATE-----")
    gates = {gate["name"]: gate["ms"] for gate in record["gates"]}
    assert gates["handler"] >= record["callouts"][1]["ran_ms"] > 0
    assert gates["authorize"] > 0


@pytest.mark.parametrize("runner", ["exec", "fork", "pool"])
def test_every_runner_records_a_refusal_by_authorize(own_lab, runner):
    own_lab.edit("handlers/python/authorize", "    #### Policy", '    refuse("not on a Sunday")\n    #### Policy')
    with recording(own_lab, {"labels": {"python": {"runner": runner}}}) as running:
        record = running.of(lambda: running.gateway.post("python/simpleenroll", csr("device-8")))
    assert results(record) == "pppppprs"
    (callout,) = record["callouts"]
    assert (callout["kind"], callout["exit"], callout["stdout"]) == ("authorize", 77, "not on a Sunday\n")
    assert record["outcome"]["status"] == 403
