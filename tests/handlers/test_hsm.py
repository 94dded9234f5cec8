"""A CA whose key is in an HSM (SoftHSM2), for both sets: what it signs, dry runs, refusals, absence and slowness."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from estgw.auth import users
from estgw.cli import ca_check
from estgw.cli import main as command_line
from estgw.cmc.messages import PKIData
from estgw.cms import signed
from estgw.est import zeroing
from estgw.register import hsm
from estgw.register.engine import RegisterUnfit
from tests.cmc_service import office as cmc
from tests.e2e.test_fullcmc import post, statuses
from tests.kit.ca import pem
from tests.kit.connection import Response
from tests.kit.csr import csr
from tests.kit.der import armoured
from tests.kit.gateway import running_gateway
from tests.kit.processes import PATH, run
from tests.kit.restore import logging_as_before
from tests.kit.scripts import HandlerSet
from tests.kit.softhsm import PIN, Token, create_token, missing
from tests.kit.workspace import Workspace

SETS = ("openssl", "python")
exhaustive = pytest.mark.exhaustive
KINDS = {"ec": ec.EllipticCurvePublicKey, "rsa": rsa.RSAPublicKey}


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    if reason := missing():
        pytest.skip(reason)
    return create_token(tmp_path_factory.mktemp("token"))


def create(path: Path, token: Token, uri: str) -> Workspace:
    """A workspace whose CA has its key at this URI."""
    lab = Workspace.create(path)
    run(lab.ca / "create-ca", "--force", "--hsm", uri, env={"PATH": PATH, **token.environment})
    return lab


@pytest.fixture(scope="module")
def labs(token: Token, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    return {kind: create(tmp_path_factory.mktemp(kind) / "lab", token, token.uri(kind)) for kind in KINDS}


@pytest.fixture
def lab(labs: dict[str, Workspace], tmp_path: Path) -> Workspace:
    """A copy, to be changed."""
    return labs["ec"].copy(tmp_path / "lab")


def use(lab: Workspace, uri: str) -> None:
    (lab.ca / "generations/1/private/cakey.uri").write_text(uri)


@pytest.mark.parametrize("kind", ["ec", pytest.param("rsa", marks=exhaustive)])
@pytest.mark.parametrize("name", SETS)
def test_both_sets_issue_with_a_key_in_the_hsm(labs, token, name, kind):
    lab = labs[kind]
    assert isinstance(lab.root.public_key(), KINDS[kind])
    assert not list(lab.ca.rglob("cakey.pem"))
    issued = HandlerSet(name, lab).run("simpleenroll", csr(), **token.environment).certificate
    lab.verify(issued)
    assert HandlerSet(name, lab).rows[-1].serial == issued.serial_number


def test_the_ca_revokes_and_lists_with_the_hsm(lab, token):
    issued = HandlerSet("openssl", lab).run("simpleenroll", csr(), **token.environment).certificate
    environment = {"PATH": PATH, **token.environment}
    run(lab.ca / "revoke", f"{issued.serial_number:040X}", env=environment)
    crl = x509.load_pem_x509_crl((lab.ca / "crl.pem").read_bytes())
    assert crl.is_signature_valid(lab.root.public_key())
    assert crl.get_revoked_certificate_by_serial_number(issued.serial_number)
    run(lab.ca / "create-ca", "--server-only", env=environment)


def scripted(lab: Workspace, token: Token, *command: str, status: int = 0) -> str:
    """Run a script of the CA; what it says on stderr."""
    environment = {"PATH": PATH, **token.environment}
    return run(lab.ca / command[0], *command[1:], env=environment, status=status).stderr.decode()


def require_issued_by(lab: Workspace, token: Token, generation: int) -> None:
    """Both sets issue by the key of that generation, and its anchors verify that and the gateway's certificate."""
    assert (lab.ca / "current").resolve().name == str(generation)
    for name in SETS:
        issued = HandlerSet(name, lab).run("simpleenroll", csr(), **token.environment).certificate
        issued.verify_directly_issued_by(lab.load("issuer.pem")[0])
        run("openssl", "verify", "-partial_chain", "-CAfile", lab.ca / "anchors.pem", stdin=pem(issued))
    run("openssl", "verify", "-partial_chain", "-CAfile", lab.ca / "anchors.pem", lab.ca / "server.pem")


def test_a_ca_moves_into_the_hsm_to_its_next_key_there_and_out_again(token, tmp_path):
    lab = Workspace.create(tmp_path / "lab")
    first = lab.root
    scripted(lab, token, "rollover", "--hsm", token.uri("ec"))
    require_issued_by(lab, token, 2)
    assert not (lab.ca / "private/cakey.pem").exists()
    assert "name it with --hsm URI" in scripted(lab, token, "rollover", status=1)
    scripted(lab, token, "rollover", "--hsm", token.uri("next"))
    require_issued_by(lab, token, 3)
    scripted(lab, token, "rollover", "--curve", "P-384")
    require_issued_by(lab, token, 4)
    assert not (lab.ca / "private/cakey.uri").exists()
    assert list(lab.ca.rglob("cakey.pem"))
    (tmp_path / "first.pem").write_bytes(pem(first))
    run(
        "openssl",
        "verify",
        "-CAfile",
        tmp_path / "first.pem",
        "-untrusted",
        lab.ca / "chain.pem",
        lab.ca / "server.pem",
    )
    scripted(lab, token, "crl")
    crl = x509.load_pem_x509_crl((lab.ca / "crl.pem").read_bytes())
    key = lab.root.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)


@exhaustive
def test_an_issuing_ca_below_a_root_has_its_key_in_the_hsm(lab, token):
    scripted(lab, token, "create-ca", "--force", "--sub-ca", "--hsm", token.uri("ec"))
    assert [file.relative_to(lab.ca).parts[0] for file in lab.ca.rglob("cakey.pem") if not file.is_symlink()] == [
        "root"
    ]
    require_issued_by(lab, token, 1)
    scripted(lab, token, "rollover", "--hsm", token.uri("next"))
    require_issued_by(lab, token, 2)
    scripted(lab, token, "rollover", "--dir", str(lab.ca / "root"), "--hsm", token.uri("rsa"))
    scripted(lab, token, "rollover", "--hsm", token.uri("ec"))
    require_issued_by(lab, token, 3)


@pytest.mark.parametrize("responder", ["gateway", pytest.param("ca", marks=exhaustive)])
def test_fullcmc_issues_with_a_key_in_the_hsm(lab, token, responder):
    """Where the gateway's certificate is no RA's, the CA signs the answer."""
    if responder == "ca":
        profile = lab.ca / "profiles/est-server"
        profile.write_text(profile.read_text().replace(", 1.3.6.1.5.5.7.3.28", ""))
        scripted(lab, token, "create-ca", "--server-only")
    users.set_password(lab.path / "users.htpasswd", "estuser", "estpwd")
    key = cmc.new_key()
    body = cmc.message(PKIData(tuple(cmc.fresh()), (cmc.pkcs10(1, "device-7", key=key),)), cmc.Person(key))
    handler = {"handler_env": token.environment, "enabled": True}
    with running_gateway(lab, {"labels": {"python": {"operations": {"fullcmc": handler}}}}) as gateway:
        answer = post(gateway, "python/fullcmc", body)
    assert [each.words for each in statuses(answer)] == ["success"]
    message = signed.parse(answer.der)
    (found,) = (each for each in message.bag if each.public_key() == key.public_key())
    lab.verify(found)


@pytest.mark.exhaustive
def test_the_commands_of_the_readme_make_such_a_ca(lab, token, tmp_path):
    """The PIN is typed; the token and the place of the PIN are the test's."""
    readme = (lab.ca / "README.md").read_text()
    section = readme.partition("## A key in an HSM")[2].partition("\n## ")[0]
    commands = "".join(block.partition("```")[0] for block in section.split("```bash\n")[1:])
    assert commands.count("rollover") == 2
    for before, after in {
        "/srv/est/hsm-pin": f"{tmp_path}/pin",
        "--login": f"--pin {PIN}",
        "create-ca": "create-ca --force",
    }.items():
        assert before in commands
        commands = commands.replace(before, after)
    environment = {"PATH": PATH, **token.environment}
    run("bash", "-euo", "pipefail", "-c", commands, stdin=PIN.encode(), cwd=lab.ca, env=environment)
    issued = HandlerSet("python", lab).run("simpleenroll", csr(), **token.environment).certificate
    lab.verify(issued)


@pytest.mark.exhaustive
def test_the_list_of_a_register_is_signed_by_the_hsm(lab, token, tmp_path, monkeypatch):
    (lab.ca / "index.txt").unlink()
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    with logging_as_before():
        config = str(lab.path / "conf.yaml")
        assert command_line.main(["register", "crl", "-o", str(tmp_path / "crl.pem"), "-c", config]) == 0
    crl = x509.load_pem_x509_crl((tmp_path / "crl.pem").read_bytes())
    assert crl.is_signature_valid(lab.root.public_key())


@pytest.mark.parametrize("kind", ["ec", pytest.param("rsa", marks=exhaustive)])
@pytest.mark.parametrize("name", SETS)
def test_a_dry_run_does_not_ask_the_hsm(labs, token, tmp_path, capfdbinary, monkeypatch, name, kind):
    """The HSM is not even there, and the certificate has a signature of zeros."""
    lab = labs[kind]
    (tmp_path / "req.pem").write_bytes(armoured(csr()))
    (lab.path / "users.htpasswd").touch()
    before = lab.books()
    arguments = ["run", "simpleenroll", "--csr", str(tmp_path / "req.pem"), "--user", "estuser", "--dry-run"]
    arguments += [*(["--label", "python"] if name == "python" else []), "-c", str(lab.path / "conf.yaml")]
    with logging_as_before():
        status = command_line.main(arguments)
    printed = capfdbinary.readouterr()
    assert status == 0, printed.err
    (shown,) = zeroing.certificates(printed.out.partition(b"\n\n")[2])
    assert zeroing.is_zeroed(shown)
    assert shown.issuer == lab.root.subject
    key_id = shown.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert key_id == lab.root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert lab.books() == before


WRONG = {
    "wrong pin": (lambda token: token.uri(pin_file="wrong-pin"), "PinIncorrect|PIN incorrect"),
    "no such key": (lambda token: token.uri("nothing"), "NoSuchKey|not found"),
    "another key": (lambda token: token.uri("rsa"), "NoSuchKey|mismatch|do not match"),
    "a pin that others can read": (lambda token: token.uri(pin_file="open-pin"), "others can read it"),
    "a pin in the URI": (lambda token: "pkcs11:token=est;object=ec?pin-value=5678", "pin-value|pin-source"),
    "no URI": (lambda token: "slot 0", "it must have"),
}


@pytest.mark.parametrize("fault", ["wrong pin", *(pytest.param(each, marks=exhaustive) for each in list(WRONG)[1:])])
@pytest.mark.parametrize("name", SETS)
def test_what_a_person_must_mend_is_a_500_and_named_in_the_log(lab, token, name, fault):
    (token.directory / "open-pin").write_text("5678")
    uri, words = WRONG[fault]
    before = lab.rows
    use(lab, uri(token))
    result = HandlerSet(name, lab).run("simpleenroll", csr(), **token.environment)
    assert (result.status, result.out) == (78 if name == "python" else 70, b""), result
    assert any(each in result.err for each in words.split("|")), result.err
    assert "5678" not in result.err or fault == "a pin in the URI"
    assert "Traceback" not in result.err
    assert lab.rows == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("both", SETS)
def test_a_key_file_beside_the_uri_is_a_fault(lab, token, both):
    (lab.ca / "private/cakey.pem").write_text("key")
    result = HandlerSet(both, lab).run("simpleenroll", csr(), **token.environment)
    assert result.status in (70, 78)
    assert "cakey.pem" in result.err


def test_an_absent_hsm_is_a_503_a_slow_one_a_504_and_the_pool_goes_on_when_it_is_back(lab, token):
    numbers = itertools.count(1)
    with token.served() as first:
        use(lab, first.token.uri())
        handler = {"handler_env": first.token.environment, "timeout": 8, "requires": "none"}
        label = {"authorize": None, "operations": {"simpleenroll": handler}}
        overrides = {"client_auth": {"users": None}, "callouts": {"pool_size": 1}, "labels": {"python": label}}
        with running_gateway(lab, overrides) as gateway:

            def ask() -> Response:
                """Each time another request, as the same one would get its certificate from the register."""
                return gateway.post("/.well-known/est/python/simpleenroll", csr(f"device-{next(numbers)}"), login=None)

            lab.verify(ask().certificate)
            with first.stopped():
                assert ask().status == 504
            assert ask().status == 200
            first.kill()
            assert ask().status == 503
            assert "the HSM: " in gateway.log_text
            with token.served():
                lab.verify(ask().certificate)


def test_the_bash_set_says_the_same_of_an_hsm_that_is_away(lab, token):
    with token.served() as first:
        use(lab, first.token.uri())
        lab.verify(HandlerSet("openssl", lab).run("simpleenroll", csr(), **first.token.environment).certificate)
        first.kill()
        result = HandlerSet("openssl", lab).run("simpleenroll", csr(), **first.token.environment)
        assert (result.status, result.out) == (69, b"")
        assert "failed loading private key" in result.err
        use(lab, token.uri().replace("token=est", "token=other"))
        assert HandlerSet("openssl", lab).run("simpleenroll", csr(), **token.environment).status == 69


def test_a_check_asks_the_hsm_for_a_signature(lab, token, monkeypatch):
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    assert ca_check.faults(lab.ca, PATH) == []
    use(lab, token.uri("nothing"))
    (fault,) = ca_check.faults(lab.ca, PATH)
    assert "NoSuchKey" in fault


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("pkcs11:token=a;slot-id=3;object=b?module-path=/m&pin-source=/p", "slot-id is not understood"),
        ("pkcs11:token=a;object=b?module-path=m&pin-source=/p", "it lacks module-path, the absolute path"),
        ("pkcs11:token=a;object=b?module-path=/m", "it lacks pin-source"),
        ("pkcs11:token=a?module-path=/m&pin-source=/p", "it must name a token"),
        ("pkcs11:object=a?module-path=/m&pin-source=/p", "it must name a token"),
    ],
)
def test_a_uri_without_all_that_is_needed_is_told_so(tmp_path, uri, words):
    (tmp_path / "uri").write_text(uri)
    with pytest.raises(RegisterUnfit, match=words):
        hsm.URI.read(tmp_path / "uri")


def test_a_uri_is_read_as_rfc_7512_has_it(tmp_path):
    (tmp_path / "uri").write_text("pkcs11:token=my%20token;id=%01%a0;type=private?pin-source=/p%20q&module-path=/m\n")
    found = hsm.URI.read(tmp_path / "uri")
    assert (found.token, found.key) == ({"token_label": "my token"}, {"id": b"\x01\xa0"})
    assert (found.module, str(found.pin_file)) == ("/m", "/p q")
