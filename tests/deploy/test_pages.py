"""docs/install.md, upgrade.md, backup.md and removal.md are followed, from the first line to the last."""

from __future__ import annotations

import re

import pytest

from tests.deploy.machine import ACTIVATE, DEPLOY, Machine, page
from tests.kit.connection import Connection
from tests.kit.csr import csr

pytestmark = pytest.mark.slow


def test_the_install_page_begins_with_ten_commands():
    assert len(page("install.md", "install").splitlines()) == 10


@pytest.mark.client(ACTIVATE)
@pytest.mark.client("curl")
@pytest.mark.client("sqlite3")
def test_a_service_is_installed_upgraded_backed_up_restored_and_removed_as_the_pages_say(tmp_path):
    machine = Machine(tmp_path)
    password = machine.paste(page("install.md", "install")).split()[-1]
    assert machine.said.read_text() == "enable --now estgw.socket estgw.service\n"
    assert {unit.name for unit in machine.units.iterdir()} == {unit.name for unit in DEPLOY.glob("estgw*")}
    checked = machine.paste("cd /var/lib/estgw && runuser -u estgw -- /opt/estgw/bin/estgw check")
    assert "est.example.org" not in checked, "server.name is in the certificate"

    machine.paste(page("install.md", "revocation"))
    assert "crls: [openssl-ca/crl.pem]" in (machine.home / "conf.yaml").read_text()
    with machine.serving() as server:
        shown = page("install.md", "installed")
        asked = shown.replace(":443:", f":{server.port}:").replace(
            "est.example.org/", f"est.example.org:{server.port}/"
        )
        assert asked.count(str(server.port)) == 2
        assert machine.paste(asked).startswith("MII")
        for path in ("simpleenroll", "python/simpleenroll"):
            with Connection(server) as connection:
                answer = connection.ask("POST", path, csr(), login=f"alice:{password}")
                assert answer.status == 200, answer.words

    handler = machine.home / "handlers/openssl/simpleenroll"
    handler.write_text(handler.read_text() + "# my policy\n")
    assert "my policy" in machine.paste(page("upgrade.md", "upgrade"))
    machine.paste(page("upgrade.md", "upgraded"))

    index = machine.home / "openssl-ca/index.txt"
    kept = index.read_text()
    assert kept.startswith("V\t")
    machine.paste(page("backup.md", "backup"))
    assert machine.archive.stat().st_mode & 0o777 == 0o600
    for lost in (index, handler, machine.home / "openssl-ca/private/cakey.pem"):
        lost.unlink()
    (machine.home / "openssl-ca/certs.sqlite").write_bytes(b"spoiled")
    machine.paste(page("backup.md", "restore"))
    assert index.read_text() == kept
    assert handler.read_text().endswith("# my policy\n")
    held = "sqlite3 /var/lib/estgw/openssl-ca/certs.sqlite 'SELECT count(*) FROM certificates'"
    assert machine.paste(held) == "1\n"
    assert not list(machine.home.glob("openssl-ca/certs.copy"))

    machine.paste(page("removal.md", "removal"))
    assert not machine.home.exists()
    assert not list(machine.units.iterdir())
    said = machine.said.read_text().splitlines()
    assert said[-2:] == ["disable --now estgw.socket estgw.service estgw-crl.timer", "daemon-reload"]
    assert all(
        re.fullmatch(r"(enable --now|restart|stop|start|disable --now) [a-z. -]+|daemon-reload", line) for line in said
    )
