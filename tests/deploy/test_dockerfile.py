"""docs/deploy/Dockerfile is built in a chroot, and the image is used there as docs/install.md says."""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs7

from estgw import __version__
from estgw.cli.main import program
from tests.deploy.image import PACKAGES, Image, docker, instructions
from tests.deploy.machine import DEPLOY, page, settings
from tests.kit.csr import csr
from tests.kit.processes import DEADLINE, ROOT, run, until

DOCKERFILE = DEPLOY / "Dockerfile"
CODENAME = "bookworm"
"""Debian 12, as debootstrap names it."""
NAME = "est.example.org"
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and chroot need root")


def lines(how: str) -> list[str]:
    """The commands of a block in docs/install.md, each in one line."""
    return page("install.md", how).replace("\\\n", "").splitlines()


def values(name: str) -> list[str]:
    """What the Dockerfile says behind the instructions of this name."""
    return [argument for each, argument in instructions(DOCKERFILE.read_text()) if each == name]


def command() -> list[str]:
    """The one that the image runs."""
    (words,) = values("CMD")
    return [str(word) for word in json.loads(words)]


@pytest.mark.client("hadolint")
def test_hadolint_finds_no_fault_in_the_dockerfile():
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert hadolint
    done = run(hadolint, "--no-color", DOCKERFILE, status=None)
    assert (done.returncode, done.stdout.decode()) == (0, "")


@pytest.mark.parametrize("text", ["ONBUILD RUN true", "COPY --chown=900 a b/", "run true"])
def test_an_instruction_that_the_chroot_cannot_carry_out_is_refused(text):
    with pytest.raises(ValueError, match=f"not known here: {text}"):
        instructions(text)


def test_the_sources_of_copy_are_in_the_checkout_or_made_by_make_dist():
    wheel = f"dist/estgw-{__version__}-py3-none-any.whl"
    sources = [source for argument in values("COPY") for source in argument.split()[:-1]]
    assert [source for source in sources if fnmatch.fnmatch(wheel, source)] == ["dist/estgw-*.whl"]
    assert [source for source in sources if not (ROOT / source).is_file()] == ["dist/estgw-*.whl"]


def test_the_command_of_the_image_and_those_on_the_page_are_commands_of_estgw():
    asked = [docker(line).command for line in lines("container")]
    for words in [command(), *(words for words in asked if words[:1] == ["estgw"])]:
        program(words[1]).parse(words[1:])
    assert asked[-1] == [], "the last one serves, by the command of the image"
    tools = {words[0] for words in asked if words and "/" in words[0]}
    assert tools == {"openssl-ca/create-ca"}
    assert all((ROOT / tool).is_file() for tool in tools)


def test_the_page_the_dockerfile_and_the_unit_name_the_same_image_port_directory_and_user():
    text = (ROOT / "docs/install.md").read_text()
    asked = [docker(line) for line in lines("container")]
    assert {each.image for each in asked} == {"estgw"}
    assert "docker build -f docs/deploy/Dockerfile -t estgw .\n" in text
    assert {each.volume for each in asked} == {f"est:{values('VOLUME')[0]}"}
    assert values("WORKDIR") == values("VOLUME") == settings(DEPLOY / "estgw.service", "WorkingDirectory")
    (port,) = values("EXPOSE")
    assert asked[-1].publish == f"443:{port}"
    assert command()[-2:] == ["--listen", f"0.0.0.0:{port}"]
    assert f"run as user {values('USER')[0].partition(':')[0]}," in text
    assert [asked[-1].stop_timeout] == settings(DEPLOY / "estgw.service", "TimeoutStopSec")
    own = re.search(r"in place of `(-v .*?)` in all five commands: `(.*?)`", text)
    assert own
    others = [docker(line.replace(own[1], own[2])) for line in lines("container")]
    assert [(each.user, each.volume) for each in others] == [("$(id -u):$(id -g)", f"$PWD:{values('VOLUME')[0]}")] * 5
    assert page("install.md", "container postgresql").endswith(f"\nUSER {values('USER')[0]}\n")
    assert re.findall(r"'(psycopg.*)'", text) == re.findall(
        r'postgres = \["(.*)"\]', (ROOT / "pyproject.toml").read_text()
    )


@AS_ROOT
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.client("debootstrap")
@pytest.mark.client("curl")
def test_the_image_is_built_enrols_by_both_sets_and_stops_as_the_page_says():
    if run("unshare", "--mount", "true", status=None).returncode:
        pytest.skip("root may not mount here")
    # On a disk, as a file system in memory may be without devices.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        place = Path(name)
        packages = downloaded(place / "packages")
        image = Image(base(place / "root"))
        build(image, DOCKERFILE.read_text(), context(place / "context"), packages)
        serves(image, volume(image, place / "volume"))
        own = volume(image, place / "own")
        run("chown", "4711:4711", own)
        serves(image, own, "4711:4711")

        asked = "docker run --rm -v est:/var/lib/estgw estgw python -c 'import psycopg'"
        without = run(*image.container(asked, own, "4711:4711"), status=1)
        assert b"No module named 'psycopg'" in without.stderr
        build(image, page("install.md", "container postgresql"), place, packages)
        long(image.container(asked, own, "4711:4711"))


def long(command: Sequence[str | Path]) -> str:
    """What a program prints that may take minutes and must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def downloaded(path: Path) -> Path:
    """A directory with what pip downloads for Debian's Python, by the settings of this machine."""
    python = ("--python-version", "3.11", "--only-binary", ":all:", "--dest", path)
    pip = (sys.executable, "-m", "pip", "download", *python)
    long([*pip, "--require-hashes", "-r", ROOT / "requirements.lock"])
    long([*pip, "psycopg[binary]"])  # for the page's other image
    return path


def base(path: Path) -> Path:
    """A directory with a small Debian, which takes the place of the base image."""
    assert values("FROM") == ["debian:12-slim"]
    query = ("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", f"Codename: {CODENAME}")
    mirror = long(query).split()[:1]  # none where this machine is another Debian: debootstrap has one of its own
    long(["unshare", "--mount", "debootstrap", "--variant=minbase", CODENAME, path, *mirror])
    (path / "etc/apt/apt.conf.d/host").write_text(long(["apt-config", "dump", "Acquire"]))
    return path


def context(path: Path) -> Path:
    """The checkout after `make dist`."""
    path.mkdir()
    for each in ROOT.iterdir():
        if each.name != "dist":
            (path / each.name).symlink_to(each)
    long([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", path / "dist"])
    return path


def build(image: Image, text: str, context: Path, packages: Path) -> None:
    proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": PACKAGES, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    image.build(text, context, packages, {**proxies, **pip})


def volume(image: Image, path: Path) -> Path:
    """A new volume: docker fills it with what the image has there."""
    run("cp", "-a", f"{image.root}{image.volume}", path)
    return path


def serves(image: Image, volume: Path, user: str = "") -> None:
    """Follow the page with a volume of this user."""

    def inside(line: str) -> str:
        """What `docker exec` prints."""
        return long(image.container(lines("container")[-1], volume, user, docker(line).command))

    with serving(image, volume, user) as container:
        container.enrol("")
        inside(f"docker exec est openssl-ca/revoke {container.enrol('/python').serial_number:X}")
        asked = "docker exec est sqlite3 openssl-ca/certs.sqlite 'SELECT status FROM certificates'"
        assert inside(asked) == "revoked\n"
        *tools, kill = lines("container reload")
        for line in tools:
            inside(line)
        assert kill == "docker kill --signal HUP est"
        container.process.send_signal(signal.SIGHUP)
        until(lambda: '"reloaded"' in container.log.read_text())
        container.enrol("")
        inside("docker exec est sh -c 'touch /tmp/new && ! touch /var/tmp/new'")
    assert {path.stat().st_uid for path in volume.rglob("*")} == {volume.stat().st_uid} - {0}


@contextlib.contextmanager
def serving(image: Image, volume: Path, user: str) -> Iterator[Container]:
    """The gateway of the container that the page starts, at another port."""
    *first, serve = lines("container")
    printed = [long(image.container(line, volume, user)) for line in first]
    words = ["127.0.0.1:0" if ":" in word else word for word in image.command]
    log = volume.with_suffix(".log")
    with log.open("w") as file:
        process = subprocess.Popen(
            image.container(serve, volume, user, words), stdout=subprocess.PIPE, stderr=file, text=True
        )
    assert process.stdout is not None
    try:
        ready = re.fullmatch(rf"estgw ready (https://{NAME}:(\d+))\n", process.stdout.readline())
        assert ready, log.read_text()
        curl = ("curl", "-sS", "--fail", "--cacert", str(volume / "openssl-ca/cacert.pem"))
        there = ("--resolve", f"{NAME}:{ready[2]}:127.0.0.1", "-u", f"alice:{printed[-1].split()[-1]}")
        yield Container(process, log, f"{ready[1]}/.well-known/est", (*curl, *there))
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class Container(NamedTuple):
    """A container that runs."""

    process: subprocess.Popen[str]
    log: Path
    url: str
    curl: tuple[str, ...]

    def enrol(self, label: str) -> x509.Certificate:
        request = self.log.with_suffix(".b64")
        request.write_bytes(base64.encodebytes(csr("device-1")))
        body = ("-H", "Content-Type: application/pkcs10", "--data-binary", f"@{request}")
        answer = run(*self.curl, *body, f"{self.url}{label}/simpleenroll").stdout
        (certificate,) = pkcs7.load_der_pkcs7_certificates(base64.b64decode(answer))
        return certificate
