"""The commands of a trainer, on a workshop with a user id for each participant."""

from __future__ import annotations

import concurrent.futures
import html
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import load_der_pkcs7_certificates

from estgw.est import certs
from estgw.workshop import handouts, layout, plan
from tests.kit.processes import alive, until
from tests.workshop.conftest import OPTIONS, Course

pytestmark = pytest.mark.slow

SCRIPT = "openssl/simpleenroll"


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): path.read_bytes() for path in files if path.name not in ("gateway.log", "ca.lock", ".lock")}


@pytest.mark.exhaustive
def test_a_second_init_overwrites_nothing_and_adds_participants(course, python):
    script = course.seat("p01").folder / "handlers" / SCRIPT
    script.write_text(script.read_text() + "# mine\n")
    before = content(course.folder)
    course.init(2, *OPTIONS)
    assert content(course.folder) == before
    for options, words in (
        (["--participants", "1"], "init adds some and removes none"),
        (["--name", "other.example"], "estgw workshop addresses gives it other names"),
        (["--port", "30000"], "with another value of port"),
    ):
        assert words in course.run("init", course.own, *options, status=1).stderr
    assert content(course.folder) == before


def test_check_enrols_everybody_and_names_a_port_that_is_gone(course):
    done = course.run("check", course.own)
    assert "2 enrolments at once" in done.stdout
    assert done.stdout.endswith("all well\n")


def test_status_tells_the_last_refusal_with_its_hint_and_the_raised_hand(course):
    found = course.edit("p02", SCRIPT, '#!/bin/bash\necho "not on a Monday"; exit 77\n')
    assert course.enrol("p02") == (403, b"not on a Monday\n")
    assert course.page("p02", "POST", "/api/hand/up")[0] == 200
    until(lambda: course.page("p02", "GET", "/api/standing")[1]["refusal"])
    line = until(lambda: next((line for line in course.run("status", course.own).stdout.splitlines()
                               if line.startswith("p02") and "refused" in line), None))  # fmt: skip
    assert "HAND RAISED" in line
    assert "last: simpleenroll 403" in line
    assert "not on a Monday" in line
    assert re.search(r"\(hint: \w+", line)
    for _ in range(4):
        course.enrol("p02")
    until(lambda: "STUCK: 5 refusals in a row" in course.run("status", course.own).stdout)
    course.edit("p02", SCRIPT, found["text"])
    assert course.enrol("p02")[0] == 200
    until(lambda: "STUCK" not in course.run("status", course.own).stdout)


def test_reset_brings_back_scripts_and_ca_and_lets_a_running_request_finish(course):
    seat = course.seat("p02")
    anchor = seat.anchor.read_bytes()
    course.edit("p02", SCRIPT, "#!/bin/bash\nsleep 3; echo late; exit 77\n")
    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = threads.submit(course.enrol, "p02")
        time.sleep(1)
        done = course.run("reset", "p02", course.own)
        assert running.result() == (403, b"late\n")
    old = Path(done.stdout.rpartition(" ")[2].strip())
    assert "sleep 3" in (old / "handlers" / SCRIPT).read_text()
    assert not os.access(old.parent, os.R_OK) or (old.parent.stat().st_mode & 0o077) == 0
    assert seat.anchor.read_bytes() == anchor
    until(course.all_up)
    assert course.enrol("p02")[0] == 200
    assert "sleep 3" not in (seat.folder / "handlers" / SCRIPT).read_text()
    assert (
        "there is no participant 'p03'; they are p01 to p02" in course.run("reset", "p03", course.own, status=1).stderr
    )
    assert "there is no participant" in course.run("reset", "../p01", course.own, status=1).stderr


@pytest.mark.exhaustive
def test_addresses_renew_the_server_certificates_and_keep_the_cas(course):
    seat = course.seat("p01")
    anchor, before = seat.anchor.read_bytes(), certs.load_pem((seat.folder / "openssl-ca/server.pem").read_bytes())[0]
    names = ["--name", "localhost", "--name", "127.0.0.1", "--name", "192.0.2.77"]
    done = course.run("addresses", course.own, *names)
    assert "before: localhost, 127.0.0.1\nnow:    localhost, 127.0.0.1, 192.0.2.77" in done.stdout
    after = certs.load_pem((seat.folder / "openssl-ca/server.pem").read_bytes())[0]
    assert seat.anchor.read_bytes() == anchor
    assert after.serial_number != before.serial_number
    san = certs.san(after)
    assert san is not None
    assert "192.0.2.77" in map(str, san.get_values_for_type(x509.IPAddress))
    until(course.all_up)
    assert course.enrol("p01")[0] == 200
    gone = course.run("check", course.own, status=1)
    assert "192.0.2.77 is no address of this machine now" in gone.stderr
    assert "estgw workshop addresses" in gone.stderr
    assert "nothing has changed" in course.run("addresses", course.own, *names).stdout
    assert (
        "not a host name or IP address: 'a_b'" in course.run("addresses", course.own, "--name", "a_b", status=1).stderr
    )
    course.run("addresses", course.own, "--name", "localhost", "--name", "127.0.0.1")
    until(course.all_up)


def pasted(handout: str, shell: str) -> str:
    """What a participant pastes from a handout, box after box."""
    text = html.unescape("\n".join(re.findall(f'<pre class="{shell}">(.*?)</pre>', handout, re.DOTALL)))
    assert "\n#" not in f"\n{text}", "an interactive zsh takes a comment for a command"
    return text


@pytest.mark.client("curl")
def test_the_commands_of_a_handout_get_a_certificate_in_bash(course, tmp_path):
    course.run("handouts", course.own)
    text = (course.folder / "handouts/p01.html").read_text()
    assert (course.folder / "handouts/p01.html").stat().st_mode & 0o077 == 0
    done = subprocess.run(
        ["bash", "-c", pasted(text, "bash")], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines()[-1] == "cert.pem: OK", done
    whole = (course.folder / "handouts/all.html").read_text()
    assert whole.count("<section>") == 2
    assert whole.count("<svg") == 2
    assert "not run by our tests" in whole
    seat = course.seat("p01")
    for fact in (seat.password, f"https://localhost:{seat.page_port}/#{seat.token}"):
        assert fact in text
        assert fact not in (course.folder / "handouts/p02.html").read_text()


@pytest.mark.client("curl")
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_curl_lines_for_powershell_work_on_what_the_other_lines_write(course, tmp_path, name):
    """PowerShell is not run.  Python makes what its lines about .NET are to make, with 76 columns and CRLF."""
    workshop, seat = replace(course.workshop, names=(name,)), course.seat("p01")
    text = "\n".join(step.commands for step in handouts.powershell(workshop, seat))

    def curl(words: list[str]) -> str:
        done = subprocess.run(["curl", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    fetch, enrol = (shlex.split(line) for line in re.findall(r"curl\.exe (.*?)\)?$", text, re.MULTILINE))
    curl(fetch)
    bag = load_der_pkcs7_certificates(b64decode((tmp_path / "cacerts.b64").read_bytes()))
    [digest] = re.findall(r"-eq '([0-9A-F]{64})'", text)
    [root] = [one for one in bag if one.fingerprint(SHA256()).hex().upper() == digest]
    encoded = b64encode(root.public_bytes(Encoding.DER)).decode()
    lines = "\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
    (tmp_path / "ca.pem").write_bytes(
        f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\r\n".encode("ascii")
    )
    [subject] = re.findall(r"::new\('(CN=[^']+)', \$key", text)
    key = rsa.generate_private_key(65537, 2048)
    request = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string(subject)).sign(key, SHA256())
    (tmp_path / "req.b64").write_bytes(b64encode(request.public_bytes(Encoding.DER)))
    answer = curl(enrol).splitlines()
    assert answer[-1] == "200"
    [made] = load_der_pkcs7_certificates(b64decode("".join(answer[:-1])))
    assert made.subject == request.subject
    wrong = [word.replace(seat.password, "wrong") for word in enrol]
    assert curl(wrong).splitlines() == ["", "401"], "the status is all that a wrong password is answered with"


@pytest.mark.exhaustive
def test_a_handout_whose_ca_is_another_is_told_and_gets_no_certificate(course, tmp_path):
    course.run("handouts", course.own)
    text = pasted((course.folder / "handouts/p01.html").read_text(), "bash")
    wrong = re.sub(r"grep -q \S+", "grep -q 00:11", text)
    done = subprocess.run(["bash", "-c", wrong], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("This is another CA: do not go on.\n")
    assert not (tmp_path / "ca.pem").exists()
    assert not (tmp_path / "cert.pem").exists() or (tmp_path / "cert.pem").stat().st_size == 0


def test_an_export_has_no_secrets(course):
    course.run("export", course.own)
    for name in ("p01", "p02"):
        archive = course.folder / f"export/{name}.tar.gz"
        listed = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True, check=True).stdout
        assert "./handlers/openssl/simpleenroll" in listed
        assert "./openssl-ca/index.txt" in listed
        assert not re.search(r"cakey|serverkey\.pem|private|htpasswd|page\.tokens", listed)
        everything = subprocess.run(["tar", "-xOzf", archive], capture_output=True, check=True).stdout
        keys = (course.seat(name).folder / "openssl-ca").glob("**/private/*.pem")
        assert all(key.read_bytes() not in everything for key in keys)
        assert course.seat(name).token.encode() not in everything


def test_the_trainers_page_resets_through_the_supervisor_and_lowers_a_hand(course):
    status, found = course.page("trainer", "GET", "/api/participants")
    assert status == 200
    assert [one["id"] for one in found["participants"]] == ["p01", "p02"]
    assert found["reset"]
    course.page("p01", "POST", "/api/hand/up")
    until(lambda: course.page("trainer", "GET", "/api/participants")[1]["participants"][0]["hand"])
    assert course.page("trainer", "POST", "/api/participants/p01/lower")[1] == {"error": None}
    assert not course.page("p01", "GET", "/api/facts")[1]["hand"]
    status, answer = course.page("trainer", "POST", "/api/participants/p01/reset")
    assert (status, answer["error"]) == (200, None)
    assert course.page("trainer", "POST", "/api/participants/p03/reset")[0] == 404
    until(course.all_up)


def test_a_participant_checks_a_lab_in_the_page_and_the_trainer_sees_it(course):
    assert course.enrol("p01")[0] == 200
    status, found = course.page("p01", "GET", "/api/labs")
    assert (status, found["error"]) == (200, None)
    assert len(found["said"].splitlines()) == 10
    status, found = course.page("p01", "POST", "/api/labs/1/check")
    assert (status, found["error"]) == (200, None)
    assert found["said"].startswith("Lab 1:")
    checked = course.page("p01", "GET", "/api/standing")[1]["labs"]["1"]
    assert set(checked.values()) <= {"done", "not yet", "wrong"}
    (course.seat("p01").folder / ".estgw/labs.json").write_text('{"1": {"a": "done"}, "2": {"a": "not yet"}}')
    until(lambda: course.page("trainer", "GET", "/api/participants")[1]["participants"][0]["labs"] == ["1"])


def test_units_are_accepted_by_systemd(course):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = course.run("serve", "--systemd", course.own)
    units = sorted((course.folder / "systemd").iterdir())
    assert [unit.name for unit in units] == [
        *(f"estgw-workshop-{name}.service" for name in ("p01", "p02", "trainer")),
        "estgw-workshop.target",
    ]
    assert all(str(unit) in done.stdout for unit in units)
    verified = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", units[0]], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert found, judged
    assert float(found[1]) <= 2.5


def test_a_second_serve_and_a_wipe_of_a_served_workshop_are_refused(course):
    assert "is served already" in course.run("serve", course.own, status=1).stderr
    assert "is being served; stop that first" in course.run("wipe", "--yes", course.own, status=1).stderr


@pytest.mark.exhaustive
def test_what_is_interrupted_in_init_is_completed_by_the_next(python):
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    folder.chmod(0o711)
    course = Course(folder / "course", python)
    try:
        course.init(1)
        (course.folder / "p01/.estgw/workshop").unlink()
        (course.folder / "p01/users.htpasswd").unlink()
        assert "is not complete; run estgw workshop init" in course.run("serve", course.own, status=1).stderr
        course.init(1)
        assert (course.folder / "p01/users.htpasswd").exists()
        assert "nothing is missing" in course.run("init", course.own).stdout
        assert "say it with --yes" in course.run("wipe", course.own, status=1).stderr
        course.run("wipe", "--yes", course.own)
        assert list(course.folder.iterdir()) == []
    finally:
        shutil.rmtree(folder)


@pytest.mark.exhaustive
def test_ctrl_c_ends_all_processes(python):
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    folder.chmod(0o711)
    course = Course(folder / "course", python)
    try:
        course.init(1)
        with course.served():
            pids = [course.child(name)["pid"] for name in ("p01", "trainer")]
            assert course.process is not None
            course.process.send_signal(signal.SIGINT)
            until(lambda: not any(map(alive, pids)))
    finally:
        shutil.rmtree(folder)


@pytest.mark.exhaustive
def test_a_killed_supervisor_leaves_no_gateway_and_the_next_one_starts(python):
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="estgw-test-", dir="/srv"))
    folder.chmod(0o711)
    course = Course(folder / "course", python)
    try:
        course.init(1)
        with pytest.raises(AssertionError), course.served():  # as its end is not a clean one
            pids = [course.child(name)["pid"] for name in ("p01", "trainer")]
            assert course.process is not None
            course.process.kill()
            until(lambda: not any(map(alive, pids)))
        with course.served():
            assert course.enrol("p01")[0] == 200
            course.init(2)
            assert "does not know them yet" in course.run("init", course.own, "--participants", "3").stdout
    finally:
        shutil.rmtree(folder)


def test_a_fresh_password_has_no_letters_that_look_alike():
    made = {plan.new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[a-hj-km-np-z2-9]{4}(-[a-hj-km-np-z2-9]{4}){2}", each) for each in made)
    assert layout.endpoint("2001:db8::1", 1) == "[2001:db8::1]:1"
