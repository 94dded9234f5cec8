"""The commands and configurations in the README are run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from estgw.callout import tables
from estgw.gateway import state
from tests.kit import documents
from tests.kit.processes import ROOT
from tests.kit.workspace import Workspace

pytestmark = pytest.mark.slow

BLOCKS = documents.blocks(ROOT / "README.md")


@pytest.fixture(scope="module")
def shell(lab: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[documents.Shell]:
    """The demo's workspace with the gateway running, and our two programs in the PATH."""
    with documents.shell(lab.copy(tmp_path_factory.mktemp("readme"))) as shell:
        yield shell


@pytest.mark.timeout(600)  # the judges alone take a minute on a busy machine
@pytest.mark.client("curl")
def test_every_command_in_the_readme_works(shell: documents.Shell) -> None:
    ran = [block for block in BLOCKS if block.is_run]
    assert len(ran) >= 5
    for block in ran:
        if block.how == "run: refused":
            assert block.shown
            uncomment(shell.lab.path / "handlers/openssl/simpleenroll", BLOCKS[BLOCKS.index(block) - 1].text)
        printed = shell.follow(block)
        if "openssl verify" in block.text:
            assert "cert.pem: OK" in printed
    certificate = shell.lab.path / "device-2.pem"
    assert "BEGIN CERTIFICATE" in certificate.read_text()


def test_the_library_example_is_the_one_in_the_package() -> None:
    (shown,) = [block.text for block in BLOCKS if block.language == "python"]
    assert shown == (ROOT / "estgw/client/examples/library.py").read_text()


def uncomment(script: Path, lines: str) -> None:
    text = script.read_text()
    for line in lines.splitlines():
        assert text.count(f"# {line}\n") == 1, "the README shows a policy that the script does not have"
        text = text.replace(f"# {line}\n", f"{line}\n")
    script.write_text(text)


def test_the_first_commands_of_the_readme_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = re.findall(r"^make (\w+)", BLOCKS[0].text, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda b: b.text[:20])
def test_every_policy_in_the_readme_is_a_valid_configuration(block: documents.Block, own_lab: Workspace) -> None:
    (own_lab.path / "device-maker.pem").write_bytes(own_lab.anchor.read_bytes())
    settings = yaml.safe_load((own_lab.path / "conf.yaml").read_text())
    for group, wanted in yaml.safe_load(block.text).items():
        settings[group] = {**(settings.get(group) or {}), **wanted}
    path = own_lab.path / "conf-shown.yaml"
    path.write_text(yaml.safe_dump(settings))
    state.load(path)


def test_handlers_readme_has_the_tables_of_the_code() -> None:
    text = (ROOT / "handlers/README.md").read_text(encoding="utf-8")
    assert tables.fill(text) == text, "run: make docs"
    for name in tables.TABLES:
        assert f"<!-- table: {name} -->" in text


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "handlers/README.md", "openssl-ca/README.md", "CHANGELOG.md"),
        *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
    ],
)
def test_links_in_the_documents_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / name).parent.joinpath(target).exists(), target


@pytest.mark.client("curl")
def test_the_first_commands_of_the_readme_show_a_refusal(shell: documents.Shell) -> None:
    """The terminal shows a policy's words; for a 401, which has no words, curl names the status."""
    first = next(block.text for block in BLOCKS if "simpleEnroll" in block.text).replace(
        "\nopenssl verify", "\n: verify"
    )
    script = shell.lab.path / "handlers/openssl/simpleenroll"
    text = script.read_text()
    script.write_text(text.replace("#!/bin/bash\n", "#!/bin/bash\necho not today; exit 77\n", 1))
    try:
        assert shell.paste(first) == "not today\n"
    finally:
        script.write_text(text)
    done = shell.run(first.replace("estuser:estpwd", "estuser:wrong"))
    assert (done.stdout, done.stderr.splitlines()[-1]) == ("", "curl: (22) The requested URL returned error: 401")
