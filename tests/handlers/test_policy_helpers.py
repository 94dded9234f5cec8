"""The helpers for policies: Bash and Python give the same answers, and handlers/README.md lists them."""

from __future__ import annotations

import ast
import atexit
import functools
import ipaddress
import json
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from estgw.est import names
from tests.kit import warm
from tests.kit.cases import some
from tests.kit.csr import csr, subject
from tests.kit.processes import PATH, ROOT
from tests.kit.scripts import HandlerSet

pytestmark = pytest.mark.slow

BASH = ROOT / "handlers/openssl/policy.sh"
PYTHON = ROOT / "handlers/python/policy.py"

IN_BASH = """
set -euo pipefail
source "$POLICY"
unset EPOCHSECONDS
EPOCHSECONDS=$NOW
if "$@"; then echo yes; else echo "no:${fault//$'\\n'/?}"; fi
"""
IN_PYTHON = """#!/usr/bin/env python3
import json, os, sys, time
sys.path.insert(0, os.path.dirname(os.environ["POLICY"]))
import policy
time.time = lambda: float(os.environ["NOW"])
helper, *given = json.loads(os.environ["GIVEN"])
given = [int(text) if helper == "office_hours" else text for text in given]
print("yes" if getattr(policy, helper)(*given) else "no:" + policy.fault.replace("\\n", "?"))
"""
BOTH = {"bash": BASH, "python": PYTHON}


@functools.cache
def in_python() -> Path:
    """A script that asks a helper in Python, for the warm parent of these tests."""
    file = Path(tempfile.mkdtemp()) / "helper"
    atexit.register(shutil.rmtree, file.parent)
    file.write_text(IN_PYTHON)
    file.chmod(0o755)
    return file


def answer(language: str, words: Sequence[str], env: Mapping[str, str]) -> tuple[int | None, str, str]:
    """Exit status, stdout and stderr."""
    if language == "python":
        ended = warm.run(in_python(), {**env, "GIVEN": json.dumps(words)})
        return ended.exit, ended.stdout.decode(), ended.stderr.decode()
    command = ["bash", "-c", IN_BASH, "policy", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def answers(helper: str, *given: str | Path, **env: str) -> dict[str, str]:
    """The answer in each language: `yes`, `no:` and the fault, or `exit` and the status of a script that failed."""
    found = {}
    for language, file in BOTH.items():
        always = {"PATH": PATH, "LC_CTYPE": "C.UTF-8", "TZ": "UTC", "POLICY": str(file), "NOW": "0"}
        status, out, err = answer(language, [helper, *map(str, given)], {**always, **env})
        found[language] = out.rstrip("\n") if status == 0 else f"exit {status}: {err}"
    return found


def verdicts(helper: str, *given: str | Path, **env: str) -> dict[str, bool]:
    found = answers(helper, *given, **env)
    assert all(re.match("yes$|no:", text) for text in found.values()), found
    return {language: text == "yes" for language, text in found.items()}


def both(verdict: bool) -> dict[str, bool]:
    return dict.fromkeys(BOTH, verdict)


def asking(name: x509.Name | str, san: Sequence[x509.GeneralName] = ()) -> dict[str, str]:
    """The variables of a request for these names, as the gateway writes them."""
    name = subject(name) if isinstance(name, str) else name
    env = {"EST_CSR_SUBJECT": names.dn_text(name)}
    if san:
        env["EST_CSR_EXT_SAN"] = x509.SubjectAlternativeName(san).public_bytes().hex()
    return env | {f"EST_CSR_SAN_{at}": names.san_text(entry) for at, entry in enumerate(san)}


# allowed_suffix.

NOBODY = x509.Name([])
ORG, CN = NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
DNS, HOST = x509.DNSName, "a.example.org"

REQUESTS: dict[str, tuple[x509.Name | str, list[x509.GeneralName], bool]] = {
    "CN only": (HOST, [], True),
    "SAN only": (NOBODY, [DNS(HOST)], True),
    "CN and SAN": (HOST, [DNS(HOST), DNS("b.c.example.org")], True),
    "capital letters": ("A.Example.ORG", [DNS("B.EXAMPLE.org")], True),
    "two domains": (HOST, [DNS("a.example.com")], True),
    "the domain itself": ("example.org", [], True),
    "only below the domain": ("example.com", [], False),
    "a stranger in the CN": ("evil.example.net", [], False),
    "a stranger in the CN, and a good SAN": ("evil.example.net", [DNS(HOST)], False),
    "a good CN, and a stranger in the SAN": (HOST, [DNS(HOST), DNS("evil.example.net")], False),
    "a CN that is no host": ("device-1", [DNS(HOST)], False),
    "no name": (NOBODY, [], False),
    "an organization and no name": (subject({ORG: "example.org"}), [], False),
    "an empty SAN entry": (HOST, [DNS("")], False),
    "no dot before the domain": ("evilexample.org", [], False),
    "the domain in the middle": ("a.example.org.evil.example", [], False),
    "wildcard": ("*.example.org", [], False),
    "wildcard in the SAN": (NOBODY, [DNS("*.example.org")], False),
    "a star alone": ("*", [], False),
    "leading dot": (".example.org", [], False),
    "trailing dot": ("a.example.org.", [], False),
    "two dots": ("a..example.org", [], False),
    "line feed": ("evil.example\n.example.org", [], False),
    "line feed at the end": (f"{HOST}\n", [], False),
    "line feed in the SAN": (NOBODY, [DNS(f"{HOST}\nevil")], False),
    "NUL": ("evil.example\0.example.org", [], False),
    "blank": (f"evil.example {HOST}", [], False),
    "IDN in A-labels": ("xn--bcher-kva.example.org", [], True),
    "IDN in U-labels": ("bücher.example.org", [], False),
    "a letter that becomes an ASCII one": ("\u212a.example.org", [], False),
    "underscore": ("a_b.example.org", [], False),
    "hyphen at the end": ("a-.example.org", [], False),
    "label of 63": (NOBODY, [DNS("a" * 63 + ".example.org")], True),
    "label of 64": (NOBODY, [DNS("a" * 64 + ".example.org")], False),
    "name of 253": (NOBODY, [DNS("a." * 121 + HOST[2:])], True),
    "name of 255": (NOBODY, [DNS("a." * 123 + HOST[2:])], False),
    "a very long name": (NOBODY, [DNS("a." * 8000 + HOST)], False),
    "IP address": (HOST, [x509.IPAddress(ipaddress.ip_address("192.0.2.1"))], False),
    "IP address in the CN": ("192.0.2.1", [], False),
    "mailbox": (HOST, [x509.RFC822Name("x@a.example.org")], False),
    "URI": (HOST, [x509.UniformResourceIdentifier("https://a.example.org")], False),
    "directory name": (HOST, [x509.DirectoryName(subject(HOST))], False),
    "other name": (HOST, [x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\5\0")], False),
    "a DNS name that begins like a CN": (HOST, [DNS(f"CN={HOST}")], False),
    "many SANs": (HOST, [DNS(f"h{number}.example.org") for number in range(200)], True),
    "many SANs, one of a stranger": (HOST, [*(DNS(f"{n}.example.org") for n in range(199)), DNS("x.example")], False),
    "two CNs": (subject(HOST, "b.example.org"), [], True),
    "two CNs and one stranger": (subject(HOST, "evil.example.net"), [], False),
    "two CNs in one RDN": (subject(HOST, {CN: "evil.example.net", ORG: "x"}), [], False),
    "a CN inside an organization": (subject({ORG: "x,CN=evil.example.net"}, HOST), [], True),
    "a CN behind a backslash": (subject("evil.example.net", {ORG: "x\\"}, HOST), [], False),
    "a comma in the CN": (f"{HOST},CN={HOST}", [], False),
    "a plus in the CN": (f"{HOST}+O=x", [], False),
    "a backslash in the CN": (f"evil\\.{HOST}", [], False),
    "quotes": (f'"{HOST}"', [], False),
    "command substitution": ("$(id).example.org", [], False),
    "hash": ("#a.example.org", [], False),
}  # fmt: skip


@pytest.mark.parametrize("case", some(REQUESTS, 4))
def test_allowed_suffix_is_the_same_in_both_languages(case: str) -> None:
    name, san, verdict = REQUESTS[case]
    assert verdicts("allowed_suffix", "example.org", ".example.com", **asking(name, san)) == both(verdict)


@pytest.mark.parametrize(
    ("domains", "verdict"),
    [
        (["example.org"], True),
        ([".example.org"], True),
        (["EXAMPLE.Org"], True),
        (["example.net", "example.org"], True),
        (["a.example.org"], True),
        ([".a.example.org"], False),
        (["ample.org"], False),
        (["org"], True),
        (["*.example.org"], False),
        ([""], False),
        (["."], False),
        ([], False),
    ],
)
def test_allowed_suffix_reads_its_domains_the_same_way(domains: list[str], verdict: bool) -> None:
    assert verdicts("allowed_suffix", *domains, **asking(HOST)) == both(verdict)


RAW = {
    "a subject that ends in a backslash": {"EST_CSR_SUBJECT": f"CN={HOST}\\"},
    "a line feed that nobody has escaped": {"EST_CSR_SUBJECT": f"CN={HOST}\n"},
    "a line feed in the middle": {"EST_CSR_SUBJECT": f"O=x\nCN=evil,CN={HOST}\nCN=evil"},
    "a SAN without a kind": {"EST_CSR_SUBJECT": f"CN={HOST}", "EST_CSR_SAN_0": HOST},
    "an empty CN": {"EST_CSR_SUBJECT": "CN="},
    "an empty CN, and a good SAN": {"EST_CSR_SUBJECT": "CN=", "EST_CSR_SAN_0": f"DNS:{HOST}"},
    "an empty SAN": {"EST_CSR_SUBJECT": f"CN={HOST}", "EST_CSR_SAN_0": ""},
    "a subject that is not there": {},
}


@pytest.mark.parametrize("case", some(RAW, 3))
def test_allowed_suffix_refuses_variables_that_no_gateway_writes(case: str) -> None:
    assert verdicts("allowed_suffix", "example.org", **RAW[case]) == both(False)


LONG = {
    "letters": "a",
    "labels": "a.",
    "commas": ",",
    "parts": ",CN=a",
    "backslashes": "\\",
    "escaped commas": "\\,",
}


@pytest.mark.parametrize("helper", ["allowed_suffix", "only_user_name", "only_certificate_names"])
@pytest.mark.parametrize("filler", some(LONG, 3))
def test_a_long_name_is_refused_within_seconds(helper: str, filler: str) -> None:
    """The kernel allows variables of 128 kB. Some patterns of Bash would take minutes for them."""
    text = LONG[filler] * (100_000 // len(LONG[filler]))
    given = ["example.org"] if helper == "allowed_suffix" else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    known = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=a", "SSL_CLIENT_SAN_DNS_0": "b", "REMOTE_USER": "a"}
    for env in ({"EST_CSR_SUBJECT": f"CN={text}"}, {"EST_CSR_SUBJECT": "CN=a", "EST_CSR_SAN_0": f"DNS:{text}"}):
        assert verdicts(helper, *given, **env, **known) == both(False)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3


def test_the_fault_says_which_name_is_wrong() -> None:
    for env, fault in (
        (asking("evil.example.net"), "CN=evil.example.net"),
        (asking(HOST, [DNS(HOST), DNS("evil.example.net")]), "DNS:evil.example.net"),
        (asking(NOBODY), "it names no host"),
    ):
        assert set(answers("allowed_suffix", "example.org", **env).values()) == {f"no:{fault}"}
    env = asking("zoe", [DNS("b.example")]) | {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=zoe"}
    assert set(answers("only_certificate_names", **env).values()) == {"no:DNS:b.example"}
    env["SSL_CLIENT_S_DN"] = "CN=adam"
    assert set(answers("only_certificate_names", **env).values()) == {"no:CN=zoe"}


# The user's name, and the names of the client's certificate.

USERS: dict[str, tuple[str | None, x509.Name | str, list[x509.GeneralName], bool]] = {
    "own name": ("zoe", "zoe", [], True),
    "another": ("zoe", "adam", [], False),
    "no user": (None, "zoe", [], False),
    "an empty user": ("", NOBODY, [], False),
    "star": ("*", "zoe", [], False),
    "a star as name": ("zoe", "*", [], False),
    "capital letters": ("zoe", "ZOE", [], False),
    "a line feed": ("zoe", "zoe\n", [], False),
    "one more part": ("zoe", subject({ORG: "x"}, "zoe"), [], False),
    "a part in the name": ("zoe", "zoe,O=x", [], False),
    "a SAN besides": ("zoe", "zoe", [DNS("evil.example.net")], False),
    "the own name in the SAN, too": ("zoe", "zoe", [DNS("zoe")], False),
}


@pytest.mark.parametrize("case", some(USERS, 4))
def test_only_user_name_is_the_same_in_both_languages(case: str) -> None:
    user, name, san, verdict = USERS[case]
    env = asking(name, san) | ({} if user is None else {"REMOTE_USER": user})
    assert verdicts("only_user_name", **env) == both(verdict)


CLIENT = {
    "SSL_CLIENT_VERIFY": "SUCCESS",
    "SSL_CLIENT_S_DN": "CN=zoe",
    "SSL_CLIENT_SAN_DNS_0": "a.example",
    "SSL_CLIENT_SAN_DNS_1": "*.Example",
    "SSL_CLIENT_SAN_Email_0": "zoe@a.example",
}
OWN: dict[str, tuple[dict[str, str], x509.Name | str, list[x509.GeneralName], bool]] = {
    "the subject": ({}, "zoe", [], True),
    "a host and a mailbox": ({}, "zoe", [x509.RFC822Name("zoe@a.example"), DNS("A.Example")], True),
    "the wildcard that it has": ({}, "zoe", [DNS("*.example")], True),
    "another subject": ({}, "adam", [], False),
    "another host": ({}, "zoe", [DNS("a.example"), DNS("b.example")], False),
    "a mailbox as a host": ({}, "zoe", [DNS("zoe@a.example")], False),
    "a host as a URI": ({}, "zoe", [x509.UniformResourceIdentifier("a.example")], False),
    "an IP address": ({}, "zoe", [x509.IPAddress(ipaddress.ip_address("192.0.2.1"))], False),
    "a pattern": ({}, "zoe", [DNS(".*")], False),
    "all elements of an array": ({}, "zoe", [DNS("@"), DNS("*")], False),
    "a bracket": ({}, "zoe", [DNS("a.example]x")], False),
    "command substitution": ({}, "zoe", [DNS("$(echo a.example)")], False),
    "a line feed": ({}, "zoe", [DNS("a.example\ndns:b.example")], False),
    "a letter that becomes an ASCII one": (
        {"SSL_CLIENT_SAN_DNS_0": "k.example", "EST_CSR_SAN_0": "DNS:\u212a.example"},
        "zoe",
        [],
        False,
    ),
    "an empty entry": ({}, "zoe", [DNS("")], False),
    "no certificate": ({"SSL_CLIENT_VERIFY": "NONE", "SSL_CLIENT_S_DN": ""}, "zoe", [], False),
    "no certificate, and no name asked for": ({"SSL_CLIENT_VERIFY": "NONE"}, NOBODY, [], False),
    "a certificate that does not verify": ({"SSL_CLIENT_VERIFY": "FAILED:expired"}, "zoe", [], False),
}


@pytest.mark.parametrize("case", some(OWN, 3))
def test_only_certificate_names_is_the_same_in_both_languages(case: str) -> None:
    changed, name, san, verdict = OWN[case]
    assert verdicts("only_certificate_names", **CLIENT | changed, **asking(name, san)) == both(verdict)


# Lists, hours, registers.

NO_SPANS = [
    "0",
    "0d",
    "-1",
    "-90d",
    "",
    "d",
    "90 d",
    "90D",
    "1.5h",
    "ninety",
    "90d\n",
    "36526d",
    "9" * 10,
    "1w",
    "0x10",
    "$(id)",
]


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ("0a" * 32, True),
        ("0A" * 32, True),
        ("0b" * 32, True),
        ("windows", True),
        ("last", True),
        ("0a" * 31, False),
        ("", False),
        (".*", False),
        ("last\n" + "0c" * 32, False),
        ("0a" * 32 + "\n", False),
        ("-v", False),
        ("\u212a", False),
    ],
)
def test_is_listed_is_the_same_in_both_languages(tmp_path: Path, value: str, verdict: bool) -> None:
    file = tmp_path / "-a list"
    file.write_bytes(f"{'0a' * 32}\n\n# {'0c' * 32}\n{'0B' * 32}\nwindows\r\nk\nlast".encode())
    assert verdicts("is_listed", value, file) == both(verdict)


def test_is_listed_is_false_without_the_file(tmp_path: Path) -> None:
    assert verdicts("is_listed", "x", tmp_path / "nowhere") == both(False)


@pytest.mark.parametrize(
    ("moment", "hours", "verdict"),
    [
        ("2026-11-23 08:00:00", (8, 18), True),  # a Monday
        ("2026-11-23 07:59:59", (8, 18), False),
        ("2026-11-27 17:59:59", (8, 18), True),  # a Friday
        ("2026-11-27 18:00:00", (8, 18), False),
        ("2026-11-25 00:30:00", (8, 18), False),
        ("2026-11-25 09:00:00", (9, 10), True),
        ("2026-11-28 12:00:00", (0, 24), False),
        ("2026-11-29 09:00:00", (8, 18), False),  # a Sunday
    ],
)
def test_office_hours_is_the_same_in_both_languages(moment: str, hours: tuple[int, int], verdict: bool) -> None:
    now = int(datetime.fromisoformat(f"{moment}+00:00").timestamp())
    given = [str(hour) for hour in hours]
    assert verdicts("office_hours", *given, NOW=str(now)) == both(verdict)
    assert verdicts("office_hours", *given, NOW=str(now), TZ="Asia/Tokyo") == both(verdict), "UTC, whatever TZ says"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> HandlerSet:
    return HandlerSet.create("openssl", tmp_path_factory.mktemp("ca") / "ws")


def test_is_revoked_and_ends_within_are_the_same_in_both_languages(bench: HandlerSet, tmp_path: Path) -> None:
    good, revoked, broken = (tmp_path / name for name in ("good.pem", "revoked.pem", "broken.pem"))
    for file in (good, revoked):
        file.write_bytes(bench.issue("simpleenroll", csr(file.stem)).public_bytes(Encoding.PEM))
    bench.workspace.do("revoke", str(revoked))
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n")
    missing = tmp_path / "missing.pem"
    env = {"EST_CA_DIR": str(bench.ca), "EST_TIMEOUT": "10", "NOW": "0"}
    for file, verdict in ((good, False), (revoked, True)):
        assert verdicts("is_revoked", file, **env) == both(verdict), file
    for span, file, verdict in (
        ("89d", good, False),
        ("91d", good, True),
        ("3000h", good, True),
        ("60m", good, False),
        ("30", good, False),
        ("36525d", good, True),
    ):
        assert verdicts("ends_within", span, file, **env) == both(verdict), (span, file)
    for file in (broken, missing):
        for said in (
            *answers("is_revoked", file, **env).values(),
            *answers("ends_within", "91d", file, **env).values(),
        ):
            assert said.startswith("exit 78: ")
            assert said.strip() != "exit 78:", "the log says why"


@pytest.mark.parametrize("span", some(NO_SPANS, 4))
def test_a_malformed_length_of_time_is_a_fault_in_both_languages(bench: HandlerSet, span: str) -> None:
    env = {"EST_CA_DIR": str(bench.ca), "EST_TIMEOUT": "10"}
    for said in answers("ends_within", span, bench.ca / "cacert.pem", **env).values():
        assert said.startswith("exit 78: ")
        assert f"'{span}' is no length of time: write a number with s, m, h or d behind it, 1s to 36525d" in said


# Users per label.

LABEL_USERS = "p1 p1\r\np1 teacher\n- p3\n  p1 p4\np1 two words\np1 Joe\np2 \n"


@pytest.mark.parametrize(
    ("label", "user", "verdict"),
    [
        ("p1", "p1", True),
        ("p1", "teacher", True),
        ("p1", "two words", True),
        (None, "p3", True),
        ("p2", "p1", False),
        ("p2", "teacher", False),
        (None, "p1", False),
        ("p1", "p3", False),
        ("p1", "p4", False),
        ("p1", "joe", False),
        ("p1", "P1", False),
        ("p1", ".*", False),
        ("p1", "p", False),
        ("p1", "p1\np1 p1", False),
        ("p2", "", False),
        ("p2", None, False),
    ],
)
def test_is_user_of_label_is_the_same_in_both_languages(
    tmp_path: Path, label: str | None, user: str | None, verdict: bool
) -> None:
    file = tmp_path / "label-users"
    file.write_bytes(LABEL_USERS.encode())
    env = {"REMOTE_USER": user, "EST_LABEL": label}
    given = {name: value for name, value in env.items() if value is not None}
    assert verdicts("is_user_of_label", file, **given) == both(verdict)
    assert verdicts("is_user_of_label", tmp_path / "nowhere", **given) == both(False)
    if not verdict:
        assert {said.partition("no:")[2] for said in answers("is_user_of_label", file, **given).values()} == {
            (user or "a client without a password").replace("\n", "?")
        }


# The table, and the files.


def test_the_readme_lists_the_helpers_of_both_files() -> None:
    _, _, below = (ROOT / "handlers/README.md").read_text().partition("## Helpers for policies")
    table = re.findall(r"^\| `(\w+)", below.partition("\n## ")[0], re.MULTILINE)
    bash = re.findall(r"^([a-z]\w*)\(\) \{", BASH.read_text(), re.MULTILINE)
    tree = ast.parse(PYTHON.read_text())
    python = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]
    assert table == bash == python
    tested = set(re.findall(r"(?:answers|verdicts)\(\"(\w+)", Path(__file__).read_text()))
    assert tested == {*table} - {"refuse"}
