"""handlers/README.md, "Policies": its examples in scripts that a gateway runs; other programs and packages."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from estgw.est.csr import parse
from tests.kit.csr import csr
from tests.kit.gateway import Gateway, running_gateway
from tests.kit.preloaded import forked_estgw
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

README = (ROOT / "handlers/README.md").read_text(encoding="utf-8")
MARK = "#### Policy: edit me"


def shown(comment: str) -> str:
    """The block below a comment of the README."""
    found = re.search(rf"<!-- {re.escape(comment)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, comment
    return found[1]


def add_policy(lab: Workspace, script: str, lines: str) -> None:
    """Write lines below the mark of a script, as an editor would."""
    path = lab.path / "handlers" / script
    head, mark, rest = path.read_text().partition(MARK)
    assert mark, script
    indent = head.rpartition("\n")[2]
    first, _, rest = rest.partition("\n")
    added = "".join(f"{indent}{line}\n" for line in lines.splitlines())
    path.write_text(f"{head}{mark}{first}\n{added}{rest}")


def words(gateway: Gateway, path: str, name: str, *san: x509.GeneralName) -> tuple[int, str]:
    answer = gateway.post(path, csr(name, *san))
    return answer.status, "" if answer.status == 200 else answer.words


@pytest.mark.parametrize(("script", "path"), [("openssl", "simpleenroll"), ("python", "python/simpleenroll")])
def test_the_policies_of_the_readme_refuse_foreign_hosts_and_odd_hours(
    own_lab: Workspace, script: str, path: str
) -> None:
    block = shown(f"policy: {script}/authorize")
    assert re.search(r"8,? 18", block)
    add_policy(
        own_lab, f"{script}/authorize", re.sub(r"8(,?) 18", r"0\1 24", block)
    )  # the test may run at any hour and on any day
    weekend = re.sub(r"\(\(day < 6 && (.*)\)\)", r"((\1))", (own_lab.path / "handlers/openssl/policy.sh").read_text())
    (own_lab.path / "handlers/openssl/policy.sh").write_text(weekend)
    own_lab.edit("handlers/python/policy.py", "now.isoweekday() < 6 and ", "")
    with running_gateway(own_lab, python=True) as gateway:
        assert words(gateway, path, "a.example.org") == (200, "")
        evil = x509.DNSName("evil.example.com")
        refusal = (403, "not ours to certify: CN=evil.example.com")
        assert words(gateway, path, "evil.example.com") == refusal
        assert words(gateway, path, "evil.example.com", x509.DNSName("a.example.org")) == refusal
        assert words(gateway, path, "a.example.org", evil) == (403, "not ours to certify: DNS:evil.example.com")
        for file in ("openssl/authorize", "python/authorize"):
            text = (own_lab.path / "handlers" / file).read_text()
            (own_lab.path / "handlers" / file).write_text(re.sub(r"0(,?) 24", r"0\1 0", text))
        assert words(gateway, path, "a.example.org") == (403, "come back in office hours")


def test_the_first_script_of_the_readme_refuses_every_request(own_lab: Workspace) -> None:
    (own_lab.path / "handlers/openssl/simpleenroll").write_text(shown("handler: simpleenroll"))
    with running_gateway(own_lab, python=True) as gateway:
        assert words(gateway, "simpleenroll", "device-1") == (403, "Not on a Monday.")


# HTTPS.


class Inventory(http.server.BaseHTTPRequestHandler):
    """An inventory that knows one key."""

    known = ""

    def do_GET(self) -> None:
        self.send_response(204 if self.path == f"/devices/{self.known}" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def inventory(lab: Workspace) -> Iterator[str]:
    """An HTTPS server with the lab's own certificate; yields its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(lab.ca / "server.pem", lab.ca / "private/serverkey.pem")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Inventory) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.client("curl")
def test_a_script_can_ask_another_service_over_https(own_lab: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's certificate verifies only under the roots that `handler_env` names."""
    trusting = {"SSL_CERT_FILE": str(own_lab.anchor)}
    config = {
        "callouts": {"operations": {"simpleenroll": {"handler_env": trusting}}},
        "labels": {"strict": {"operations": {"simpleenroll": {"handler_env": {}}}}},
    }
    with inventory(own_lab) as url:
        block = shown("policy: openssl/simpleenroll")
        assert "https://inventory.example.org" in block
        add_policy(own_lab, "openssl/simpleenroll", block.replace("https://inventory.example.org", url))
        with running_gateway(own_lab, config, python=True) as gateway:
            refusal = (403, "the inventory does not know this key")
            assert words(gateway, "simpleenroll", "device-1") == refusal
            monkeypatch.setattr(Inventory, "known", parse(csr("device-1")).spki_sha256)
            assert words(gateway, "simpleenroll", "device-1") == (200, "")
            assert words(gateway, "strict/simpleenroll", "device-1") == refusal
            assert "certificate" in gateway.log_text


COUNT = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"


def test_a_program_that_a_script_starts_has_the_systems_roots(own_lab: Workspace) -> None:
    plain = {"PATH": os.environ["PATH"]}
    here = subprocess.run([sys.executable, "-c", COUNT], env=plain, capture_output=True, text=True, check=True).stdout
    if here.strip() == "0":
        pytest.skip("this machine has no roots")
    own_lab.script("handlers/openssl/simpleenroll", f'source "${{0%/*}}/issue.sh"; python3 -c "{COUNT}"; exit 77')
    with running_gateway(own_lab, python=True) as gateway:
        assert words(gateway, "simpleenroll", "device-1") == (403, here.strip())


def test_no_openssl_x509_of_a_handler_loads_the_systems_roots() -> None:
    """Loading them takes 40 ms each time."""
    lines = [
        line
        for folder in ("handlers/openssl", "handlers/examples")
        for path in sorted((ROOT / folder).iterdir())
        for line in path.read_text().splitlines()
        if not line.lstrip().startswith("#")
    ]
    assert sum(line.count("openssl x509") for line in lines) >= 5
    for line in lines:
        assert line.count("openssl x509") == line.count("SSL_CERT_FILE=/dev/null openssl x509"), line
    assert re.search("^export .*SSL_CERT_FILE=/dev/null$", (ROOT / "openssl-ca/lib.sh").read_text(), re.MULTILINE)


# A Python package that the gateway's environment does not have.


def make_wheel(folder: Path, name: str, code: str) -> None:
    """A wheel of one module, by hand (PEP 427)."""
    folder.mkdir()
    info = f"{name}-9.9.dist-info"
    with zipfile.ZipFile(folder / f"{name}-9.9-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


@pytest.mark.exhaustive
@pytest.mark.timeout(360)  # `python3 -m venv` unpacks pip, which takes minutes on a busy machine
def test_a_script_can_import_a_package_from_its_own_environment(own_lab: Workspace) -> None:
    """The lines of the README, with a package index that is a directory."""
    make_wheel(own_lab.path / "index", "requests", "def knows(subject):\n    return subject == 'CN=device-1'\n")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shown("run: venv")],
        cwd=own_lab.path,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(own_lab.path / "index"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",  # compiling pip itself takes longer than all else here
            "HOME": str(own_lab.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    policy = """
from requests import knows
if not knows(env["EST_CSR_SUBJECT"]):
    refuse("the inventory does not know you")
"""
    add_policy(own_lab, "python/authorize", policy)
    checked = subprocess.run(
        [*forked_estgw(), "check", "-c", own_lab.path / "conf.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
    with running_gateway(own_lab, python=True) as gateway:
        assert words(gateway, "python/simpleenroll", "device-1") == (200, "")
        assert words(gateway, "python/simpleenroll", "device-2") == (403, "the inventory does not know you")
