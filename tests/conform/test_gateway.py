"""Our own gateway before the judge: both handler sets, everything switched on, each TLS version alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.cli.main import main
from tests.kit.ca import Credential, root
from tests.kit.clients import digest_file
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN, Gateway, running_gateway
from tests.kit.keys import KEY
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

KNOWN = {"tls.resume": "a resumed session verifies no certificate anew, and the binding would move (README, promise 8)"}
"""What the gateway is warned about, and why it stays so."""
PLAIN_ONLY = {"pop.advertised", "enroll.later"}
"""What a gateway with everything on still leaves to other settings."""


@dataclass(frozen=True)
class Bench:
    """A gateway with everything on, and the files of a user who has everything."""

    gateway: Gateway
    ra: tuple[Path, Path]
    other: tuple[Path, Path]
    secret: Path

    def options(self) -> list[str]:
        certificates = ["--ra-cert", *self.ra[:1], "--ra-key", *self.ra[1:], "--other-cert", self.other[0]]
        certificates += ["--other-key", self.other[1]]
        secret = ["--decrypt-key", self.secret, "--decrypt-key-id", "device-7"]
        return [str(each) for each in (*certificates, *secret)]


def ra_of(lab: Workspace, directory: Path) -> tuple[Path, Path]:
    """An RA's certificate of the gateway's own CA."""
    request = directory / "ra.csr"
    request.write_bytes(x509.load_der_x509_csr(csr("an RA")).public_bytes(Encoding.PEM))
    certificate = x509.load_pem_x509_certificate(lab.do("issue", str(request), "--profile", "ra").encode())
    return Credential(certificate, KEY).write(directory, "ra")


@pytest.fixture(scope="module")
def bench(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    own = lab.copy(tmp_path_factory.mktemp("conform"))
    keys = own.ca / "keygen-keys"
    keys.write_text(f"device-7 {bytes(range(32)).hex()}\n")
    keys.chmod(0o600)
    secret = own.path / "secret.hex"
    secret.write_text(bytes(range(32)).hex())
    ra, other = ra_of(own, own.path), root("A stranger").issue("device-1").write(own.path, "other")
    overrides: dict[str, Any] = {
        "client_auth": {"digest": ["MD5", "SHA-256"], "digest_users": str(digest_file(own, LOGIN))},
        "pop": {"default": "required", "rules": [{"ra": True, "pop": "waived"}]},
        "callouts": {"operations": {"serverkeygen": {"enabled": True}, "fullcmc": {"enabled": True}}},
    }
    with running_gateway(own, overrides, python=True) as running:
        yield Bench(running, ra, other, secret)


def judged(gateway: Gateway, report: Path, *options: str) -> dict[str, dict[str, Any]]:
    """The results of a run by case; the run must end without a FAIL and without an ERROR."""
    words = ["conform", gateway.url, "-c", str(gateway.anchor), "-p", LOGIN, "--json", str(report), *options]
    status = main(words)
    found = {each["case"]: each for each in json.loads(report.read_text())["cases"]}
    wrong = {name: each["seen"] for name, each in found.items() if each["status"] in ("FAIL", "ERROR")}
    assert wrong == {}
    assert status == 0
    return found


def of(status: str, found: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, each in found.items() if each["status"] == status}


def test_the_bash_handlers_pass_with_everything_on(bench: Bench, tmp_path: Path) -> None:
    found = judged(bench.gateway, tmp_path / "r.json", *bench.options())
    assert of("WARN", found) == KNOWN.keys()
    assert of("SKIP", found) == {"core.label", "core.no-label", "csrattrs.extension-once", "enroll.later"}


def test_the_python_handlers_pass_with_everything_on(bench: Bench, tmp_path: Path) -> None:
    found = judged(bench.gateway, tmp_path / "r.json", *bench.options(), "--label", "python")
    assert of("WARN", found) == KNOWN.keys()
    assert of("SKIP", found) == {"csrattrs.extension-once", "enroll.later"}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_one_tls_version_alone_passes(version: str, lab: Workspace, tmp_path: Path) -> None:
    own = lab.copy(tmp_path / "lab")
    with running_gateway(own, {"tls": {"minimum": version, "maximum": version}}, python=True) as gateway:
        groups = [word for group in ("tls", "enroll", "pop") for word in ("--only", group)]
        found = judged(gateway, tmp_path / "r.json", *groups, "--label", "python")
    other = {"1.2": {"pop.right-1.3"}, "1.3": {name for name in found if name.startswith("pop.")} - {"pop.right-1.3"}}
    assert other[version] <= of("SKIP", found)


def test_a_request_that_waits_is_a_202_with_a_time(lab: Workspace, tmp_path: Path) -> None:
    own = lab.copy(tmp_path / "lab")
    later = own.script("handlers/openssl/later", "exit 75")
    waiting = {"labels": {"later": {"operations": {"simpleenroll": {"handler": str(later)}}}}}
    with running_gateway(own, waiting, python=True) as gateway:
        found = judged(gateway, tmp_path / "r.json", "--only", "enroll.later", "--label", "later")
    assert of("PASS", found) == {"enroll.later"}


def test_read_only_gets_nothing_issued(bench: Bench, tmp_path: Path) -> None:
    before = bench.gateway.lab.books()
    found = judged(bench.gateway, tmp_path / "r.json", "--read-only", "--skip", "hostile")
    assert bench.gateway.lab.books() == before
    assert len(of("PASS", found)) > 15
