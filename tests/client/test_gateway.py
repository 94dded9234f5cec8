"""The client against our own gateway: every operation, both TLS versions, both profiles, every way to authenticate."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from estgw.client import Credentials, Session, Trust, files
from estgw.client.faults import Exit
from estgw.client.transport.wire import Exchange
from estgw.est import certs
from tests.client import bench
from tests.client.bench import SHARED, SHARED_ID
from tests.kit.ca import root
from tests.kit.gateway import running_gateway
from tests.kit.preloaded import forked_estclient, script

ROOT = Path(__file__).parents[2]
LOGIN = ("-p", "estuser:estpwd")
VERSIONS = ("1.2", "1.3")
PROFILES = ("rfc", "draft")


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    """A gateway with all operations, and a label for each test that needs other settings."""
    own = lab.copy(tmp_path_factory.mktemp("client"))
    with running_gateway(own, bench.furnish(own), python=True) as running:
        yield running


@pytest.fixture(scope="module", params=["SHA-256", "MD5"])
def digest(request, lab, tmp_path_factory):
    """A gateway that offers Digest with one hash, and links by Finished at TLS 1.3 as libest's servers do."""
    own = lab.copy(tmp_path_factory.mktemp("digest"))
    hashed = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}[request.param](b"estuser:estrealm:estpwd").hexdigest()
    (own.path / "users.htdigest").write_text(f"estuser:estrealm:{hashed}\n")
    overrides = {
        "client_auth": {"digest": [request.param], "digest_users": str(own.path / "users.htdigest")},
        "pop": {"tls13": "finished", "default": "required"},
    }
    with running_gateway(own, overrides) as running:
        yield request.param, running


def at(server, profile="rfc", label=None):
    """A URL of the profile: one operation in the drafts' spelling selects it for all."""
    place = f"{server.url}/.well-known/est" + (f"/{label}" if label else "")
    return place + ("/CACerts" if profile == "draft" else "")


def common(server, *, version="1.3", profile="rfc", label=None):
    return ("-u", at(server, profile, label), "-c", server.lab.anchor, "--tls", version)


def check(server, room, stem="device"):
    """The pair fits, and the CA has issued the certificate."""
    certificate = x509.load_pem_x509_certificate((room / f"{stem}.pem").read_bytes())
    key = load_pem_private_key((room / f"{stem}.key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    server.lab.verify(certificate)
    return certificate


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("label", [None, "python"], ids=["openssl", "python"])
def test_every_operation_works_against_the_gateway(server, estclient, tmp_path, label, version, profile):
    """cacerts, csrattrs, enroll by password, reenroll by certificate, serverkeygen and fullcmc, always linked.

    Paths without a label have the handlers of the openssl set; the shipped label `python` has the Python set.
    """
    options = common(server, version=version, profile=profile, label=label)
    assert estclient("cacerts", *options, "-o", "ca.pem").status == Exit.DONE
    assert certs.load_pem((tmp_path / "ca.pem").read_bytes()) == certs.load_pem(server.lab.anchor.read_bytes())
    assert "key: ec:P-256" in estclient("csrattrs", *options).out

    new = ("--new-key", "--subject", "CN=device,O=Example", "--dns", "a.example", "-o", "device.pem")
    ended = estclient("enroll", *options, *LOGIN, *new, "--json")
    assert ended.status == Exit.DONE, ended.err
    assert ended.json["connection"]["binding"] == ("tls-unique" if version == "1.2" else "tls-exporter")
    line = server.access[-1]
    assert (line["operation"], line["pop"], line["status"]) == ("simpleenroll", "linked", 200)
    first = check(server, tmp_path)

    pair = ("--cert", "device.pem", "--key", "device.key")
    for more in ((), ("--new-key", "ec:P-256")):
        ended = estclient("reenroll", *options, *pair, *more)
        assert ended.status == Exit.DONE, ended.err
        line = server.access[-1]
        assert (line["operation"], line["pop"], line["status"]) == ("simplereenroll", "linked", 200)
    renewed = check(server, tmp_path)
    assert renewed.subject == first.subject
    assert certs.spki(renewed) != certs.spki(first)

    ended = estclient("serverkeygen", *options, *LOGIN, "--subject", "CN=kept", "-o", "kept.pem")
    assert ended.status == Exit.DONE, ended.err
    assert check(server, tmp_path, "kept").subject.rfc4514_string() == "CN=kept"

    request = ROOT / "tests" / "vectors" / "altmod-rfc6402-cmc-fullpkirequest.b64"
    ended = estclient("fullcmc", *options, *LOGIN, "--cmc", request, "-o", "cmc.pem")
    assert ended.status == Exit.DONE, ended.err
    paths = {entry["path"] for entry in server.access[-8:]}
    assert any("serverKeyGen" in path for path in paths) == (profile == "draft")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_with_a_certificate_can_enrol_another_name(server, estclient, tmp_path, version):
    options = common(server, version=version)
    new = ("--new-key", "--subject", "CN=first", "-o", "first.pem")
    assert estclient("enroll", *options, *LOGIN, *new).status == Exit.DONE
    more = ("--cert", "first.pem", "--key", "first.key", "--new-key", "--subject", "CN=second", "-o", "second.pem")
    ended = estclient("enroll", *options, *more)
    assert ended.status == Exit.DONE, ended.err
    assert server.access[-1]["identity"] == "CN=first"
    check(server, tmp_path, "second")


@pytest.mark.parametrize("version", VERSIONS)
def test_digest_is_answered_on_one_connection_and_only_once(digest, estclient, tmp_path, version):
    """Challenge, answer and binding share a connection. POP is required here."""
    algorithm, server = digest
    options = ("-u", server.url, "-c", server.lab.anchor, "--tls", version, *LOGIN)
    ended = estclient("enroll", *options, "--new-key", "--subject", "CN=d", "-o", "d.pem", "--pop-finished")
    assert ended.status == Exit.DONE, ended.err
    check(server, tmp_path, "d")
    seen: list[Exchange] = []
    anchors = tuple(certs.load_pem(server.lab.anchor.read_bytes()))
    with (
        Session(
            server.url, Trust(explicit=anchors), credentials=Credentials("estuser", "wrong"), observer=seen.append
        ) as session,
        pytest.raises(Exception, match="does not accept"),
    ):
        session.enroll(options_csr)
    sent = [exchange.headers.get("Authorization", "") for exchange in seen if exchange.answer]
    assert sent[0] == ""
    assert sent[1].startswith("Digest ")
    assert ("algorithm=SHA-256" in sent[1]) == (algorithm == "SHA-256")
    assert len(sent) == 2


def options_csr(binding):
    from estgw.client import keys, request

    plan = request.plan(request.Wanted(x509.Name.from_rfc4514_string("CN=x")), None)
    return request.build(plan, keys.generate(keys.parse_spec("ec:P-256")), binding)


def test_the_exporter_is_refused_where_finished_is_required(digest, estclient):
    _, server = digest
    options = ("-u", server.url, "-c", server.lab.anchor, "--tls", "1.3", *LOGIN)
    ended = estclient("enroll", *options, "--new-key", "--subject", "CN=d", "-o", "d.pem")
    assert ended.status == Exit.REFUSED


def test_a_csr_is_linked_where_linking_is_required(server, estclient, tmp_path):
    options = common(server, label="linked")
    assert "challengePassword" in estclient("csrattrs", *options).out
    new = ("--new-key", "--subject", "CN=d", "-o", "d.pem")
    ended = estclient("enroll", *options, *LOGIN, *new, "--no-pop")
    assert ended.status == Exit.REFUSED
    assert "400" in ended.err
    assert estclient("enroll", *options, *LOGIN, *new).status == Exit.DONE


REFERENCE_COMMAND = """
./estclient enroll -u https://$ESTSRVR:$ESTPORT/$ESTURL -p estuser:estpwd -c $EST_DEMOCLIENT_CACERT \\
    -R ESThandlerC_genp10.sh
"""


@pytest.mark.parametrize("path", ["", ".well-known/est/linked", ".well-known/est/simpleEnroll"])
def test_the_command_line_of_the_reference_client_works(server, tmp_path, path):
    """The command line is unchanged. Its script is found by its bare name and links the CSR."""
    program = tmp_path / "estclient"
    program.write_text(script(forked_estclient()))
    program.chmod(0o755)
    (tmp_path / "ESThandlerC_genp10.sh").symlink_to(ROOT / "handlers" / "examples" / "genp10")
    given = {"ESTSRVR": "localhost", "ESTPORT": str(server.port), "ESTURL": path, "CN": "demostep4"}
    given |= {"EST_DEMOCLIENT_CACERT": str(server.lab.anchor), "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", REFERENCE_COMMAND], cwd=tmp_path, env=given, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    (tmp_path / "device.pem").write_bytes(done.stdout)
    assert check(server, tmp_path).subject.rfc4514_string() == "CN=demostep4"
    assert server.access[-1]["pop"] == "linked"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_script_of_the_reference_client_links_its_csr(server, estclient, tmp_path, monkeypatch, version):
    monkeypatch.setenv("CN", "scripted")
    script = ROOT / "handlers" / "examples" / "genp10"
    options = common(server, version=version, label="linked")
    ended = estclient("enroll", *options, *LOGIN, "-R", script, "-o", "device.pem")
    assert ended.status == Exit.DONE, ended.err
    assert check(server, tmp_path).subject.rfc4514_string() == "CN=scripted"


def test_a_pending_request_is_the_same_on_every_connection(server, estclient, tmp_path):
    """202, then the same request with the same key on another connection with another binding."""
    options = (*common(server, label="pending"), *LOGIN)
    ended = estclient("enroll", *options, "--new-key", "--subject", "CN=patient", "-o", "p.pem", "--wait", "6")
    assert ended.status == Exit.TRY_LATER
    asked = (server.lab.ca / "asked").read_text().splitlines()
    assert len(asked) > 1
    assert len(set(asked)) == 1, "one request, sent several times"
    (server.lab.ca / f"approved-{asked[0].split()[0]}").touch()
    again = ("--reuse-key", "p.key", "--subject", "CN=patient", "-o", "p.pem")
    assert estclient("enroll", *options, *again).status == Exit.DONE
    check(server, tmp_path, "p")


def test_enroll_follows_the_template_of_the_gateway(server, estclient, tmp_path):
    """RFC 9908 from end to end: the gateway takes the CSR only if it follows /csrattrs."""
    options = (*common(server, label="template"), *LOGIN)
    new = ("--new-key", "--subject", "CN=device", "-o", "t.pem")
    ended = estclient("enroll", *options, *new)
    assert ended.status == Exit.USAGE
    assert "wants an entry in the subject alternative name: --dns" in ended.err
    assert estclient("enroll", *options, *new, "--dns", "t.example", "--no-csrattrs").status == Exit.REFUSED
    ended = estclient("enroll", *options, *new, "--dns", "t.example")
    assert ended.status == Exit.DONE, ended.err
    certificate = check(server, tmp_path, "t")
    assert certificate.subject.rfc4514_string() == "CN=device,O=Example"
    assert certificate.public_key().key_size == 384
    assert list(certs.san(certificate) or ()) == [x509.DNSName("t.example")]


def test_serverkeygen_decrypts_a_key_and_accepts_none_in_the_clear(server, estclient, tmp_path):
    (tmp_path / "shared").write_bytes(SHARED)
    secret = ("--decrypt-key", "shared", "--decrypt-key-id", SHARED_ID.decode())
    new = ("--subject", "CN=sealed", "-o", "s.pem")
    ended = estclient("serverkeygen", *common(server, label="sealed"), *LOGIN, *new, *secret)
    assert ended.status == Exit.DONE, ended.err
    check(server, tmp_path, "s")
    # A server that can't encrypt says so and sends no key in the clear.
    ended = estclient("serverkeygen", *common(server), *LOGIN, "--subject", "CN=c", "-o", "c.pem", *secret)
    assert ended.status == Exit.REFUSED
    assert not (tmp_path / "c.key").exists()


def test_missing_csrattrs_are_no_failure_but_missing_operations_are(server, estclient):
    assert "asks for no attribute" in estclient("csrattrs", *common(server, label="plain")).err
    new = ("--subject", "CN=x", "-o", "x.pem")
    assert estclient("serverkeygen", *common(server, label="bare"), *LOGIN, *new).status == Exit.REFUSED
    assert estclient("csrattrs", *common(server, label="nosuch"), "-v").err.endswith("asks for no attribute.\n")
    assert estclient("cacerts", *common(server, label="nosuch")).status == Exit.REFUSED


def test_bootstrap_by_fingerprint_then_enrol_works(server, estclient, tmp_path):
    """RFC 7030 4.1.1 from end to end: a fingerprint, a new connection, a certificate."""
    (anchor,) = certs.load_pem(server.lab.anchor.read_bytes())
    fingerprint = hashlib.sha256(
        base64.b64decode("".join(server.lab.anchor.read_text().split("-----")[2].split()))
    ).hexdigest()
    assert files.certificates(server.lab.anchor) == [anchor]
    assert estclient("cacerts", "-u", server.url, "-o", "ca.pem").status == Exit.UNTRUSTED
    assert estclient("cacerts", "-u", server.url, "-o", "ca.pem", "--fingerprint", fingerprint).status == Exit.DONE
    new = ("--new-key", "--subject", "CN=d", "-o", "d.pem")
    assert estclient("enroll", "-u", server.url, "-c", "ca.pem", *LOGIN, *new).status == Exit.DONE


@pytest.mark.parametrize("kind", ["rsa:3072", "ed25519", "ec:P-384"])
def test_keys_of_every_kind_are_enrolled(server, estclient, tmp_path, kind):
    options = common(server, label="plain")
    ended = estclient("enroll", *options, *LOGIN, "--new-key", kind, "--subject", "CN=d", "-o", "d.pem")
    assert ended.status == Exit.DONE, ended.err
    check(server, tmp_path, "d")


def test_an_ml_dsa_key_gets_a_certificate_or_a_refusal(server, estclient, tmp_path):
    """`openssl ca` before 3.5 has no ML-DSA; the gateway's words about it must be printed in both cases."""
    options = common(server, label="plain")
    ended = estclient("enroll", *options, *LOGIN, "--new-key", "ml-dsa-65", "--subject", "CN=d", "-o", "d.pem")
    assert ended.status in (Exit.DONE, Exit.FAILED, Exit.REFUSED), ended.err
    assert server.access[-1]["pop"] == "linked"


def test_a_password_takes_one_challenge_and_one_answer(server, estclient):
    """A challenge and its answer use one connection, so there is no second handshake."""
    before = len(server.access)
    new = ("--new-key", "--subject", "CN=d", "-o", "d.pem", "--no-csrattrs")
    assert estclient("enroll", *common(server), *LOGIN, *new).status == Exit.DONE
    first, second = server.access[before:]
    assert (first["status"], second["status"]) == (401, 200)


def test_the_library_example_enrols_in_15_lines(server, tmp_path, monkeypatch):
    """The program has 15 lines and runs unchanged except for the port."""
    (tmp_path / "openssl-ca").symlink_to(server.lab.ca)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "estgw" / "client" / "examples" / "library.py").read_text()
    assert len([line for line in text.splitlines() if line]) <= 15
    exec(compile(text.replace(":8443", f":{server.port}"), "library.py", "exec"), {})
    check(server, tmp_path, "device-3")
    assert (tmp_path / "device-3.key").stat().st_mode & 0o777 == 0o600
    assert server.access[-1]["pop"] == "linked"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_rejected_client_certificate_is_reported_as_an_alert(lab, estclient, tmp_path, version):
    """In TLS 1.3 the alert comes after the handshake, when a request may be under way. It must still be reported."""
    own = lab.copy(tmp_path / "strict")
    (tmp_path / "me.pem").write_bytes(root("Stranger").issue("me").both)
    with running_gateway(own, {"client_auth": {"unknown_certificates": "reject"}}) as server:
        for command in (("csrattrs",), ("enroll", *LOGIN, "--new-key", "--subject", "CN=d", "-o", "d.pem")):
            ended = estclient(*command, *common(server, version=version), "--cert", "me.pem")
            assert ended.status == Exit.UNTRUSTED
            assert "alert unknown ca" in ended.err
            assert not (tmp_path / "d.key").exists()


def test_a_client_with_the_old_root_gets_the_new_one_and_enrols(lab, estclient, tmp_path):
    """RFC 7030 4.1.3 with the sample CA."""
    own = lab.copy(tmp_path / "rolled")
    old = tmp_path / "old.pem"
    old.write_bytes(own.anchor.read_bytes())
    subprocess.run([own.ca / "rollover"], check=True, capture_output=True)
    with running_gateway(own) as rolled:
        ended = estclient("cacerts", "-u", rolled.url, "-c", old, "-o", "ca.pem", "--json")
        assert ended.status == Exit.DONE, ended.err
        roles = {entry["role"]: entry for entry in ended.json["certificates"]}
        assert set(roles) == {"OldWithOld", "NewWithNew", "OldWithNew", "NewWithOld"}
        assert roles["NewWithNew"]["newest"]
        new = ("--new-key", "--subject", "CN=d", "-o", "d.pem")
        for anchors in ("ca.pem", old):
            assert estclient("enroll", "-u", rolled.url, "-c", anchors, *LOGIN, *new).status == Exit.DONE
            (tmp_path / "d.key").unlink()
    stored = certs.load_pem((tmp_path / "ca.pem").read_bytes())
    issued = x509.load_pem_x509_certificate((tmp_path / "d.pem").read_bytes())
    issued.verify_directly_issued_by(stored[0])
