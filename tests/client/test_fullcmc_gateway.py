"""Full CMC from end to end: `estclient fullcmc` against the gateway and its own handler."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509

from estgw.client.faults import Exit
from estgw.est import certs
from tests.client.common import LOGIN, pair_fits
from tests.kit.gateway import running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import until

SECRET = "correct horse battery"


@pytest.fixture(scope="module")
def server(lab, tmp_path_factory):
    own = lab.copy(tmp_path_factory.mktemp("fullcmc"))
    secrets = own.ca / "cmc-secrets"
    secrets.write_text(f"device-7 {SECRET}\n")
    secrets.chmod(0o600)
    with running_gateway(own, python=True) as running:
        yield running


@pytest.fixture
def run(server, estclient):
    def run(command, *arguments, label="python"):
        """The label python has workers; the scripts in Bash start an interpreter for each message."""
        to = ("--label", label) if label else ()
        return estclient("fullcmc", command, "-u", server.url, "-c", server.lab.anchor, *to, *arguments)

    return run


@pytest.fixture
def member(run, tmp_path):
    """Options of a client with a certificate, which it got by CMC and a password."""
    ended = run("enroll", *LOGIN, "--new-key", "ec:P-256", "--subject", "CN=member", "-o", "member.pem")
    assert ended.status == Exit.DONE, ended.err
    return "--cert", "member.pem", "--key", "member.key"


def loaded(path):
    return x509.load_pem_x509_certificate(Path(path).read_bytes())


def check(server, stem="device"):
    assert pair_fits(f"{stem}.pem", f"{stem}.key")
    server.lab.verify(loaded(f"{stem}.pem"))


NEW = ("--new-key", "ec:P-256", "--subject", "CN=device", "-o", "device.pem")


@pytest.mark.parametrize("label", ["", "python"], ids=["openssl", "python"])
@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_fullcmc_enrols_with_a_password(server, run, crmf, label):
    ended = run("enroll", *LOGIN, *NEW, *crmf, "--json", label=label)
    assert ended.status == Exit.DONE, ended.err
    assert ended.json["cmc"] == ["success"]
    check(server)


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_fullcmc_enrols_with_a_secret_and_refuses_a_wrong_one(server, run, tmp_path, crmf):
    """The secret proves the identity; the gateway requires a login nonetheless."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    known = (*LOGIN, "--identification", "device-7", "--secret-file", "secret")
    assert run("enroll", *known, *NEW, *crmf).status == Exit.DONE
    check(server)
    (tmp_path / "secret").write_text("wrong\n")
    ended = run("enroll", *known, *NEW[:-1], "other.pem", *crmf)
    assert ended.status == Exit.REFUSED
    assert "badIdentity" in ended.err
    assert not (tmp_path / "other.key").exists()


def test_a_holder_enrols_again_for_its_own_names_only(server, run, member):
    again = ("--new-key", "--no-csrattrs", "-o", "device.pem", "--subject")
    assert run("enroll", *member, *again, "CN=member").status == Exit.DONE
    check(server)
    ended = run("enroll", *member, *again[:-2], "other.pem", "--subject", "CN=somebody else")
    assert ended.status == Exit.REFUSED
    assert "badIdentity" in ended.err


@pytest.mark.parametrize("kind", ["rsa:2048", "ec:P-256"])
def test_encrypted_pop_enrols_by_a_challenge(run, kind):
    new = ("--new-key", kind, *NEW[2:], "--no-csrattrs")
    ended = run("enroll", *LOGIN, *new, "--crmf", "--encrypted-pop", "--json")
    assert ended.status == Exit.DONE, ended.err
    assert pair_fits("device.pem", "device.key")


@pytest.fixture
def ra(server, tmp_path):
    """Options of an RA, and a CSR that was made elsewhere."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for name in ("ra", "other"):
        request = ["openssl", "req", "-new", *key, "-keyout", f"{name}.key", "-subj", f"/CN={name}"]
        subprocess.run([*request, "-out", f"{name}.csr"], check=True, capture_output=True, cwd=tmp_path)
    issue = ["openssl", "ca", "-config", "openssl.cnf", "-batch", "-notext", "-extfile", "profiles/ra"]
    files = ["-in", str(tmp_path / "ra.csr"), "-out", str(tmp_path / "ra.pem")]
    subprocess.run(["flock", "ca.lock", *issue, *files], check=True, capture_output=True, cwd=server.lab.ca)
    return "--cert", "ra.pem", "--key", "ra.key"


def test_an_ra_enrols_and_revokes_others(server, run, ra):
    ended = run("enroll", *ra, "--csr", "other.csr", "-o", "other.pem")
    assert ended.status == Exit.DONE, ended.err
    check(server, "other")
    assert run("enroll", *ra, *NEW).status == Exit.DONE
    check(server)
    for which in (("--target", "device.pem"), ("--serial", certs.serial_hex(loaded("other.pem")))):
        ended = run("revoke", *ra, *which, "--reason", "superseded")
        assert ended.status == Exit.DONE, ended.err
    assert {loaded("other.pem").serial_number, loaded("device.pem").serial_number} <= revoked(run, ra)


@pytest.mark.parametrize("new", [(), ("--new-key", "ec:P-256")], ids=["same key", "new key"])
@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_renew_keeps_the_subject_with_the_same_or_a_new_key(server, run, member, new, crmf):
    old = loaded("member.pem")
    ended = run("renew", *member, *new, *crmf)
    assert ended.status == Exit.DONE, ended.err
    check(server, "member")
    found = loaded("member.pem")
    assert found.subject == old.subject
    assert found.serial_number != old.serial_number
    assert (certs.spki(found) != certs.spki(old)) == bool(new)


def revoked(run, options):
    """The serial numbers in the CRL."""
    ended = run("get-crl", *options, "-o", "crl.pem")
    assert ended.status == Exit.DONE, ended.err
    return {each.serial_number for each in x509.load_pem_x509_crl(Path("crl.pem").read_bytes())}


def test_a_revoked_certificate_is_in_the_crl_and_cannot_renew(run, member):
    """Afterwards the certificate is in the CRL and its signatures are refused."""
    serial = loaded("member.pem").serial_number
    assert serial not in revoked(run, member)
    ended = run("revoke", *member, "--reason", "keyCompromise")
    assert ended.status == Exit.DONE, ended.err
    assert serial in revoked(run, LOGIN)
    ended = run("renew", *member)
    assert ended.status == Exit.REFUSED
    assert "revoked" in ended.err


def test_a_holder_cannot_revoke_the_certificate_of_another(run, member):
    run("enroll", *LOGIN, *NEW)
    ended = run("revoke", *member, "--target", "device.pem")
    assert ended.status == Exit.REFUSED
    assert "may not revoke" in ended.err


@pytest.mark.parametrize("crmf", [(), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_revoke_works_with_the_passphrase_of_the_enrolment(run, tmp_path, crmf):
    """The passphrase of the enrolment replaces the signature."""
    (tmp_path / "secret").write_text("open sesame\n")
    ended = run("enroll", *LOGIN, *NEW, *crmf, "--revocation-secret-file", "secret", "--trace")
    assert ended.status == Exit.DONE, ended.err
    assert "CMC with a secret in it ***" in ended.err
    (tmp_path / "wrong").write_text("close sesame\n")
    by = ("revoke", *LOGIN, "--target", "device.pem", "--secret-file")
    assert run(*by, "wrong").status == Exit.REFUSED
    ended = run(*by, "secret")
    assert ended.status == Exit.DONE, ended.err
    assert loaded("device.pem").serial_number in revoked(run, LOGIN)


@pytest.fixture(scope="module")
def slow(lab, tmp_path_factory):
    """A CA that needs manual approval and a confirmation of each certificate."""
    own = lab.copy(tmp_path_factory.mktemp("slow"))
    for old, new in (("human=False", "human=True"), ("retry=60", "retry=1")):
        own.edit("handlers/python/fullcmc", old, new)
    own.edit("handlers/python/fullcmc", "confirm=None", "confirm=timedelta(hours=1)")
    with running_gateway(own) as running:
        yield running


@pytest.mark.parametrize("crmf", [pytest.param((), marks=pytest.mark.exhaustive), ("--crmf",)], ids=["pkcs10", "crmf"])
def test_a_pending_enrolment_is_approved_and_confirmed(slow, estclient, crmf, tmp_path):
    """The first run exits 3. The same request with --wait is approved meanwhile, and then confirmed."""
    enrol = ("fullcmc", "enroll", "-u", slow.url, "-c", slow.lab.anchor, *LOGIN, *crmf, "--no-csrattrs")
    ended = estclient(*enrol, *NEW)
    assert ended.status == Exit.TRY_LATER, ended.err
    assert "CMC pending" in ended.err

    def pending(*arguments):
        command = [*forked_estgw(), "pending", *arguments, "-c", slow.config]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    def approve():
        before = len(slow.access)
        until(lambda: len(slow.access) > before)
        (waiting,) = pending("list").stdout.splitlines()
        pending("approve", waiting.split()[0])

    with ThreadPoolExecutor() as pool:
        human = pool.submit(approve)
        ended = estclient(*enrol, "--reuse-key", "device.key", *NEW[2:], "--wait", "60", "--json")
        human.result()
    assert ended.status == Exit.DONE, ended.err
    check(slow)
    assert ended.json["cmc"] == ["success"]
    (tmp_path / "device.key").unlink()
