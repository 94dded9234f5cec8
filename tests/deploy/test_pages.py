"""docs/install.md is followed, from the first line to the last."""

from __future__ import annotations

import pytest

from tests.deploy.machine import ACTIVATE, DEPLOY, Machine, page
from tests.kit.connection import Connection
from tests.kit.csr import csr

pytestmark = pytest.mark.slow


def test_the_install_page_begins_with_ten_commands():
    assert len(page("install.md", "install").splitlines()) == 10


@pytest.mark.client(ACTIVATE)
@pytest.mark.client("curl")
def test_a_service_that_is_installed_as_the_page_says_enrols_by_both_sets(tmp_path):
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
