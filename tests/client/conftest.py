from __future__ import annotations

import io
import json
from dataclasses import dataclass

import pytest

from estgw.client.commands.cli import main
from estgw.est import csr
from tests.client import rogue
from tests.kit.ca import root


@pytest.fixture(scope="session")
def ca():
    return root()


@pytest.fixture(scope="session")
def holder(ca):
    """The certificate of a correct server."""
    return ca.server()


@pytest.fixture
def anchor(ca, tmp_path):
    path = tmp_path / "anchor.pem"
    path.write_bytes(ca.pem)
    return path


class Terminal(io.StringIO):
    """A standard input that is a terminal."""

    def isatty(self):
        return True


@dataclass
class Ended:
    """The result of a run of estclient."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def estclient(capfd, tmp_path, monkeypatch):
    """Run the command in this process, in its own directory. No run may print a traceback or an escape character."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capfd.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert "\x1b" not in err
        return Ended(status, out, err)

    with open("/dev/null") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield run


@pytest.fixture
def enroller(ca):
    """The answers of a simple, correct EST server; `answers` replaces some by operation."""

    def make(**answers):
        def answer(request):
            given = answers.get(request.operation)
            if given is not None:
                given = given(request) if callable(given) else given
                if given is not ...:
                    return given
            match request.operation:
                case "cacerts":
                    return rogue.reply(body=rogue.bag(ca.certificate))
                case "csrattrs":
                    return rogue.reply(204, content_type=None)
                case _:
                    certificate = ca.certify(csr.parse(request.body).der)
                    return rogue.reply(body=rogue.bag(certificate), content_type=rogue.CERTS_ONLY)

        return answer

    return make


@pytest.fixture
def ask(estclient, anchor, holder):
    """Run a command against a server that has only one answer."""

    def run(raw, *command):
        command = command or ("cacerts", "-o", "out.pem")
        with rogue.Server(holder, lambda _: raw) as server:
            return estclient(*command, "-u", server.url, "-c", anchor, "--timeout", "3")

    return run
