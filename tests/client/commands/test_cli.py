"""The command `estclient`: its start, its options, and its exit statuses."""

from __future__ import annotations

import base64
import json
import shlex
import stat
import time
from pathlib import Path

import pytest

from estgw import client
from estgw.client import faults
from estgw.client.commands import cli
from estgw.client.commands import option_rows as options
from estgw.client.faults import Exit
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs
from tests.client import rogue
from tests.client.common import NEW, python
from tests.kit.ca import root

COMMANDS = [name for command in cli.PROGRAM.commands for name in command.names]


def test_version_starts_quickly():
    """150 ms on an idle machine; on a busy one, at most eight times the start of the bare interpreter."""

    def took(*arguments):
        began = time.monotonic()
        done = python(*arguments, check=True)
        return time.monotonic() - began, done.stdout

    pairs = [(took("-c", "pass"), took("-m", "estgw.client", "--version")) for _ in range(5)]
    assert all(said.startswith("estclient ") for _, (_, said) in pairs)
    bare, ours = (min(times) for times in zip(*((one[0], two[0]) for one, two in pairs), strict=True))
    assert ours < max(0.15, 8 * bare), (bare, ours)


def test_version_loads_no_slow_library():
    parse = "from estgw.client.commands import cli; cli.PROGRAM.parse(['cacerts', '-u', 'x'])"
    code = f"import sys; {parse}; print([m for m in sys.modules])"
    loaded = python("-c", code, check=True).stdout
    for name in ("aiohttp", "pydantic", "cryptography", "OpenSSL", "http.client", "ssl"):
        assert f"'{name}'" not in loaded


def test_no_command_loads_libraries_of_the_gateway():
    folder = Path(client.__file__).parent
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if "examples" not in path.parts]
    modules = sorted(".".join(path.parts) for path in paths if not path.name.startswith("__"))
    assert "transport.session" in modules
    lines = "; ".join(f"import estgw.client.{name}" for name in modules)
    loaded = python("-c", f"import sys; {lines}; print([m for m in sys.modules])", check=True).stdout
    for name in ("aiohttp", "pydantic", "structlog", "pyasn1", "yaml", "estgw.config.model", "estgw.gateway.app"):
        assert f"'{name}'" not in loaded


def test_commands_without_cmc_do_not_load_it():
    lines = "; ".join(f"import estgw.client.commands.{name}" for name in ("run", "enrolling", "serverkeygen", "trace"))
    loaded = python("-c", f"import sys; {lines}; print([m for m in sys.modules])", check=True).stdout
    assert "'estgw.cmc" not in loaded


def test_a_wrong_command_line_exits_2(estclient, anchor):
    for arguments in (
        (),
        ("enroll",),
        ("enroll", "-u", "x"),
        ("cacerts", "-u", "http://x", "-c", anchor),
        ("cacerts", "-u", "localhost", "-c", "nosuch"),
        ("cacerts", "-u", "localhost", "-c", __file__),
        ("cacerts", "-u", "localhost", "--timeout", "0"),
        ("cacerts", "-u", "localhost", "-c", anchor, "--key", anchor),
        ("csrattrs", "-u", "localhost", "-c", anchor, "--cert", anchor),
        ("reenroll", "-u", "localhost", "-c", anchor),
        ("enroll", "-u", "localhost", "-c", anchor, "--csr", "-", "--new-key"),
        ("enroll", "-u", "localhost", "-c", anchor, "-p", "a:b:c\n", "--csr", "x"),
    ):
        assert estclient(*arguments).status == Exit.USAGE, arguments


@pytest.mark.parametrize(
    "options",
    [
        ("enroll", "--csr", "x", "--subject", "CN=x"),
        ("enroll", "-R", "x", "--dns", "x", "--ip", "::1"),
        ("enroll", "--csr", "x", "--no-csrattrs"),
        ("enroll", "--csr", "x", "--key-out", "k"),
        ("enroll", "--reuse-key", "x", "--subject", "CN=x", "--key-out", "k"),
        ("enroll", "--new-key", "--subject", "CN=x", "-o", "x", "--no-pop", "--require-pop"),
        ("enroll", "--new-key", "--subject", "CN=x", "-o", "x", "--key-out", "x", "--outform", "der"),
        ("reenroll", "--cert", "x", "--key-out", "k"),
        ("reenroll", "--cert", "x", "--new-key", "--key-out", "k"),
        ("reenroll", "--cert", "x", "--outform", "der"),
        ("serverkeygen", "--csr", "x", "--uri", "x:y", "-o", "x"),
        ("fullcmc", "enroll", "--csr", "x", "--crmf"),
        ("fullcmc", "enroll", "--new-key", "--subject", "CN=x", "-o", "x", "--encrypted-pop"),
        ("fullcmc", "renew", "--cert", "x", "--key-out", "k"),
        ("fullcmc", "renew", "--cert", "x", "--encrypted-pop"),
    ],
)
def test_no_option_is_silently_ignored(estclient, anchor, options):
    ended = estclient(*options, "-u", "localhost:1", "-c", anchor)
    assert ended.status == Exit.USAGE
    assert "x: No such file" not in ended.err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_the_exit_statuses(estclient, command):
    ended = estclient(*command.split(), "--help")
    assert ended.out.startswith(f"usage: estclient {command.removeprefix('simple')} ")
    assert ended.status == 0
    assert "7 invalid answer" in ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_each_help_parses(estclient, command):
    (line,) = (line for line in estclient(*command.split(), "--help").out.splitlines() if line.startswith("example: "))
    run, _ = cli.PROGRAM.parse(shlex.split(line.replace("HEX", 32 * "ab"))[2:])
    assert run in {each.run for each in cli.PROGRAM.commands if command in each.names}


def test_enroll_and_simpleenroll_are_the_same_command(holder, anchor, estclient, enroller):
    with rogue.Server(holder, enroller()) as server:
        for name in ("enroll", "simpleenroll"):
            command = (name, "-u", server.url, "-c", anchor, "--new-key", "--subject", "CN=x", "-o", f"{name}.pem")
            assert estclient(*command).status == Exit.DONE


def test_sslkeylogfile_gets_the_secrets_in_a_private_file(holder, anchor, estclient, enroller, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with rogue.Server(holder, enroller()) as server:
        assert estclient("cacerts", "-u", server.url, "-c", anchor).status == Exit.DONE
        assert "EXPORTER_SECRET" in (tmp_path / "keys").read_text()
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
        monkeypatch.setenv("SSLKEYLOGFILE", "no/such/keys")
        ended = estclient("cacerts", "-u", server.url, "-c", anchor)
    assert (ended.status, ended.err.count("\n")) == (Exit.USAGE, 1)
    assert "SSLKEYLOGFILE: no/such/keys: No such file" in ended.err


def test_csrattrs_prints_words_or_writes_der(holder, anchor, estclient, enroller, tmp_path):
    wishes = CsrAttrs(
        (
            "1.2.840.113549.1.9.7",
            AttributeWish(csrattrs.EC_PUBLIC_KEY, (csrattrs.encode_oid("1.3.132.0.34"),)),
            AttributeWish(csrattrs.EXTENSION_REQUEST, (bytes.fromhex("300b30090603551d1304023000".replace(" ", "")),)),
            "1.2.840.10045.4.3.3",
        )
    )
    body = rogue.reply(body=base64.b64encode(wishes.encode()), content_type="application/csrattrs")
    with rogue.Server(holder, enroller(csrattrs=body)) as server:
        common = ("csrattrs", "-u", server.url, "-c", anchor)
        text = estclient(*common).out
        assert estclient(*common, "--outform", "der", "-o", "out").status == Exit.DONE
        assert estclient(*common, "--outform", "p7").status == Exit.USAGE
    assert "key: ec:P-384" in text
    assert "challengePassword" in text
    assert "SHA-384" in text
    assert (tmp_path / "out").read_bytes() == wishes.encode()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2592000), ("12h", 43200), ("5m", 300), ("7", 7), ("2w", 1209600)]
)
def test_a_duration_is_a_number_with_an_optional_unit(text, seconds):
    assert options.duration(text).total_seconds() == seconds


def test_every_exit_status_has_its_fault(ask, holder, anchor, estclient, tmp_path):
    """One run for each; the library's exceptions, --help and the man page have the same ones."""
    stranger = tmp_path / "stranger.pem"
    stranger.write_bytes(root("Stranger").pem)
    answers = {
        0: rogue.reply(204, content_type=None),
        1: rogue.reply(500, content_type=None),
        3: rogue.reply(503, content_type=None, Retry_After="5"),
        4: rogue.reply(403, content_type=None),
        7: rogue.reply(body=b"<html>", content_type="text/html"),
    }
    for status, answer in answers.items():
        assert ask(answer, "csrattrs").status == status
    assert estclient("csrattrs", "-u", "localhost", "-c", "nosuch").status == 2
    with rogue.Server(holder, lambda _: answers[0]) as server:
        assert estclient("csrattrs", "-u", server.url, "-c", stranger).status == 5
        gone = server.url
    assert estclient("csrattrs", "-u", gone, "-c", anchor).status == 6
    promised = {
        fault.status
        for fault in vars(faults).values()
        if isinstance(fault, type) and issubclass(fault, faults.ClientError)
    }
    assert promised == {1, 2, 3, 4, 5, 6, 7}
    assert [number for number, _, _ in cli.PROGRAM.exit_status] == sorted({0, *promised}) == sorted(Exit)


def test_an_interrupt_ends_with_status_1(anchor, estclient, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("socket.create_connection", interrupt)
    ended = estclient("cacerts", "-u", "localhost", "-c", anchor)
    assert ended.status == Exit.FAILED
    assert "interrupted" in ended.err


def test_the_library_loads_tls_on_first_use():
    code = "import sys, estgw.client as c; print('OpenSSL' in sys.modules); print(c.Session.__name__)"
    assert python("-c", code, check=True).stdout.split() == ["False", "Session"]
    with pytest.raises(AttributeError):
        client.Nothing  # noqa: B018
    assert json.dumps(client.__all__)


def test_a_very_long_mail_address_is_a_usage_error(anchor, estclient):
    """The standard library's parser recurses once for each group in an address."""
    ended = estclient("enroll", "-u", "localhost:1", "-c", anchor, *NEW, "--email", "c:" * 5000)
    assert ended.status == Exit.USAGE
    assert "--email with more than 254 characters" in ended.err
