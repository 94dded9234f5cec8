"""csrattrs.yaml: from text to DER and back. Every fault has line and column."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from estgw.config import csrattrs_yaml
from estgw.errors import ConfigError, Malformed
from estgw.est import csrattrs
from estgw.est.csrattrs import AttributeWish, CsrAttrs, NamePart, Template, decode_csrattrs
from estgw.est.csrattrs_values import MOST_FAULTS
from tests.est.test_csrattrs import EXAMPLES, FILES, example, vector
from tests.kit.der import UTF8, oid, tlv
from tests.kit.processes import ROOT

FILE = Path("csrattrs.yaml")
SHIPPED = ROOT / "handlers/openssl/csrattrs.yaml"


def read(text: str) -> CsrAttrs:
    found = csrattrs_yaml.read(text.encode(), FILE)
    assert found is not None
    return found


def faults(text: str | bytes) -> list[str]:
    """The faults without the name of the file."""
    content = text.encode() if isinstance(text, str) else text
    with pytest.raises(ConfigError) as raised:
        csrattrs_yaml.read(content, FILE)
    assert all(fault.startswith("csrattrs.yaml:") for fault in raised.value.faults)
    return [fault.removeprefix("csrattrs.yaml:") for fault in raised.value.faults]


# Byte for byte.


@pytest.mark.parametrize("name", FILES)
def test_every_vector_survives_explain_and_encode(name):
    text = csrattrs_yaml.write(decode_csrattrs(vector(name)))
    assert read(text).encode() == vector(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_survives_explain_and_encode(name):
    assert read(csrattrs_yaml.write(example(name))) == example(name)


TEMPLATE_AND_CLASSIC = """\
- challengePassword
- key: ec:P-256
- ecdsa-with-SHA256
- template:
    subject:
      - commonName
      - organizationalUnitName: myDept
      - organizationalUnitName: myGroup
    key: ec:P-256
    attributes:
      - extensions:
          subjectAltName: ['DNS:www.myServer.com', IP]
          keyUsage: [critical, digitalSignature, keyAgreement]
          extendedKeyUsage:
"""


def test_q12_a_template_beside_the_classic_form_is_read_and_written():
    der = vector("derived-rfc9908-template-with-legacy.b64")
    assert csrattrs_yaml.write(decode_csrattrs(der)) == TEMPLATE_AND_CLASSIC
    assert csrattrs_yaml.to_der(TEMPLATE_AND_CLASSIC.encode()) == der


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("- challengePassword\n- key: rsa:4096\n- sha256WithRSAEncryption\n", "rfc9908-5.4-rsa4096-sha256.b64"),
        (
            "- 1.2.840.113549.1.9.7\n- key: ec:secp384r1\n- 2.5.4.5\n- ecdsa-with-sha384\n",
            "rfc9908-5.5-p384-serialnumber-sha384.b64",
        ),
        ("- template:\n", "derived-rfc9908-template-minimal.b64"),
        ("[]\n", "derived-csrattrs-empty-sequence.b64"),
    ],
)
def test_q9_published_answers_are_made_from_plain_words(text, name):
    assert csrattrs_yaml.to_der(text.encode()) == vector(name)


_TEXTS = st.text(max_size=200) | st.text(" \n\r\x85\u2028\ufeff\t-a", max_size=200)


@given(st.lists(_TEXTS, max_size=3), _TEXTS, _TEXTS)
def test_any_text_survives_yaml(values, one, other):
    subject = ((NamePart("2.5.4.3", tlv(UTF8, one.encode())),), (NamePart("2.5.4.5", tlv(UTF8, other.encode())),))
    template = AttributeWish(csrattrs.TEMPLATE, (Template(subject).encode(),))
    attribute = AttributeWish("2.999.1", csrattrs.set_of([tlv(UTF8, text.encode()) for text in values]))
    attrs = CsrAttrs((attribute, template))
    text = csrattrs_yaml.write(attrs)
    assert read(text) == attrs
    assert "\x1b" not in text


@pytest.mark.parametrize("text", ["NO", "2.10", "0123", "1:30", "~", "null", "", " ", "<<", "=", "2026-01-01", "- a", "#", "0x10", "1_000", "a: b", "*a", "!x", "\x85\u2028\ufeff", "yes\n", "'\""])  # noqa: E501  # fmt: skip
def test_texts_that_yaml_1_1_misreads_are_quoted(text):
    attrs = CsrAttrs((AttributeWish("2.999.1", (tlv(UTF8, text.encode()),)),))
    assert read(csrattrs_yaml.write(attrs)) == attrs


@pytest.mark.parametrize("octets", [252, 253, 3000])
def test_a_number_too_long_for_python_to_print_survives_as_hex(octets):
    number = tlv(2, b"\x01" * octets)
    limit = tlv(0x30, oid("2.5.29.19"), tlv(4, tlv(0x30, number)))
    attrs = CsrAttrs(
        (AttributeWish("2.999.1", (number,)), AttributeWish(csrattrs.EXTENSION_REQUEST, (tlv(0x30, limit),)))
    )
    assert read(csrattrs_yaml.write(attrs)) == attrs


# Output of a handler.


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"\n",
        b"\x30\0",
        b"\x30\x03\x02\x01\xff",
        b"MAA=\n",
        b"MA A=\r\n",
        b"-----BEGIN CSRATTRS-----\nMAA=\n-----END CSRATTRS-----\n",
        b"# words before\n-----BEGIN CSRATTRS-----\nMAA=\n-----END CSRATTRS-----\n",
    ],
)
def test_der_base64_and_pem_pass_unchanged(output):
    assert csrattrs_yaml.to_der(output) == output


@pytest.mark.parametrize("name", FILES)
def test_no_vector_is_mistaken_for_yaml(name):
    for output in (vector(name), base64.b64encode(vector(name)), base64.encodebytes(vector(name))):
        assert not csrattrs_yaml.is_yaml(output)


@pytest.mark.parametrize("output", [b"# nothing\n", b"---\n", b"# a\n---\n# b\n", b"~\n", b"--- ~\n...\n"])
def test_q4_a_file_without_wishes_gives_an_empty_answer(output):
    assert csrattrs_yaml.to_der(output) == b""


def test_line_ends_and_a_byte_order_mark_change_nothing():
    der = csrattrs_yaml.to_der(b"- serialNumber\n- macAddress\n")
    assert csrattrs_yaml.to_der(b"- serialNumber\r\n- macAddress\r\n") == der
    assert csrattrs_yaml.to_der(b"\xef\xbb\xbf- serialNumber\n- macAddress") == der


def test_faults_in_a_handlers_output_have_line_and_column():
    with pytest.raises(Malformed) as raised:
        csrattrs_yaml.to_der(b"- serialNumber\n- key: ec:P-1\n- Nobody\n")
    text = str(raised.value)
    assert text.startswith("printed neither DER, base64, PEM nor good csrattrs YAML: stdout:2:3: 1.key: 'P-1' is no")
    assert "; stdout:3:3: 2: 'Nobody' is no name known here" in text


def test_an_error_message_on_stdout_is_refused():
    with pytest.raises(Malformed, match="stdout:1:1: a list of wishes is wanted"):
        csrattrs_yaml.to_der(b"Error: can't open the file!\n")


# Faults.


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- serialNumber\n-  key: ec:P-1\n", "2:4: 1.key: 'P-1' is no name known here; do you mean P-"),
        (
            "- template:\n    key: ec\n    subject:\n      - CN\n      - XY: a\n",
            "5:9: 0.template.subject.1.XY: 'XY' is no",
        ),
        ("- template:\n    sujbect: [CN]\n", "2:5: 0.template.sujbect: this is no part of a template"),
        ("- extensions:\n    keyUsage: [critical, sign]\n", "2:5: 0.extensions.keyUsage: 'sign' is no key usage"),
        ("- key: ec\n- key: rsa\n", "2:3: 1: a second key, and RFC 9908 3 has room for one"),
        ("- template: {key: ec, key: rsa}\n", "1:23: key: stands here twice"),
        ("serialNumber: 5\n", "1:1: a list of wishes is wanted"),
        ("serialNumber\n", "1:1: a list of wishes is wanted"),
        ("- a: [\n", "2:1: expected the node content, but found '<stream end>'"),
        ("- a\n- b: c: d\n", "2:7: mapping values are not allowed here"),
        ("- a\n---\n- b\n", "2:1: but found another document"),
        ("- a\n- \x07\n", "2:3: not YAML: unacceptable character #x0007"),
        (b"- \xff\n", "1:1: not UTF-8"),
        ("[" * 2000, "1:1: not YAML: maximum recursion depth"),
    ],
)
def test_a_fault_is_reported_with_its_place(text, fault):
    (found,) = faults(text)
    assert found.startswith(fault), found


@pytest.mark.parametrize(
    ("wish", "kind"),
    [
        ("NO", "a bool"),
        ("on", "a bool"),
        ("2.10", "a float"),
        ("1e3", None),
        (".inf", "a float"),
        ("2026-01-01", "a timestamp"),
        ("1:30", "a number that is written otherwise"),
        ("0123", "a number that is written otherwise"),
        ("0x1F", "a number that is written otherwise"),
        ("1_000", "a number that is written otherwise"),
        ("+5", "a number that is written otherwise"),
    ],
)
def test_a_value_that_yaml_1_1_misreads_is_refused_with_quotes(wish, kind):
    if kind is None:
        assert read(f"- friendlyName: {wish}\n")  # a text to YAML 1.1
        return
    told = f'YAML reads {wish} as {kind}; quote it: "{wish}"'
    assert faults(f"- serialNumber\n- friendlyName: {wish}\n") == [f"2:17: {told}"]
    assert faults(f"- {wish}\n") == [f"1:3: {told}"]
    assert read(f'- friendlyName: "{wish}"\n')


def test_a_number_in_place_of_a_text_is_refused():
    assert faults("- serialNumber: 5\n") == [
        '1:3: 0.serialNumber: a number; quote it for a text ("5"), or write {integer: 5}'
    ]
    assert read('- serialNumber: "5"\n') == read("- serialNumber: {printable: '5'}\n")


@pytest.mark.parametrize("key", ["NO", "2.999", "5", "~"])
def test_a_key_that_yaml_1_1_misreads_is_refused_with_quotes(key):
    (found,) = faults(f"- serialNumber\n- {key}: x\n")
    assert found.startswith(f"2:3: {key}: YAML reads this key as a")
    assert found.endswith(f'quote it: "{key}"')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "- &a serialNumber\n- *a\n",
            "1:3: a part with this anchor (&) is used again as an alias (*); write it out there",
        ),
        ("- &a [*a]\n", "1:3: a part with this anchor (&) is used again as an alias (*)"),
        ("- template:\n    <<: {key: ec}\n", "2:5: a merge (<<) is not accepted here; write it out"),
        (
            "- !!python/object/apply:os.system [id]\n",
            "1:3: a tag (tag:yaml.org,2002:python/object/apply:os.system) that",
        ),
        ("- !secret x\n", '1:3: YAML reads x as a !secret; quote it: "x"'),
        ("- !!binary aGk=\n", "1:3: YAML reads aGk= as a binary"),
        ("- !!set {a}\n", "1:3: a tag (tag:yaml.org,2002:set) that has no meaning here"),
        ("- ? [a]\n  : b\n", "1:5: found unhashable key"),
    ],
)
def test_aliases_merges_and_tags_are_refused(text, fault):
    (found,) = faults(text)
    assert found.startswith(fault), found


def test_faults_are_reported_in_the_order_of_the_file():
    found = faults("- NO\n- on: 5\n- template: {a: 2.5, a: 1:30}\n")
    assert [fault.split(": ")[0] for fault in found] == ["1:3", "2:3", "3:17", "3:22", "3:25"]


# Bounds.


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"- q{number}z\n" for number in range(7000)),
        "- template:\n    subject:\n" + "".join(f"      - q{number}z\n" for number in range(4000)),
        "- &a [x]\n" + "- *a\n" * 12000,
        "- {NO: on}\n" * 5000,
        "- " + "[" * 60000,
        "- " + "{a: " * 15000,
        "- " * 30000,
        "- " + "a" * 65000,
        "- 1.2." + "9" * 65000,
        "- 2.999.1: {integer: " + "9" * 4000 + "}\n- nobody\n",
        "- 2.999.1: {integer: " + "9" * 5000 + "}\n",
        "- extensions: {subjectAltName: 'dirName:" + "CN=a+" * 12000 + "'}\n",
        "- serialNumber\n" * 5000,
    ],
)
def test_a_huge_or_hostile_text_is_refused_quickly_and_briefly(text):
    started = time.process_time()
    with pytest.raises(Malformed) as raised:
        csrattrs_yaml.to_der(text.encode())
    assert time.process_time() - started < 10
    assert len(str(raised.value)) < 20_000
    assert str(raised.value).count("stdout:") <= MOST_FAULTS


def test_nested_aliases_are_refused_and_not_expanded():
    levels = "".join(f"- &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    found = faults("- &a0 [x]\n" + levels)
    assert all("is used again" in fault for fault in found)
    assert len(found) == 9


def test_more_than_64_kib_is_refused():
    fits = "- serialNumber\n#" + "x" * (csrattrs_yaml.MOST_BYTES - 16)
    assert len(fits) == csrattrs_yaml.MOST_BYTES
    assert read(fits).oids == ("2.5.4.5",)
    assert faults(fits + "x") == ["1:1: longer than 65536 bytes"]


@given(st.text("-: \n[]{}ab,'\"#&*!|>?%@`0123456789.keyctmplat", max_size=60))
@settings(max_examples=300)
def test_any_text_is_read_or_refused(text):
    try:
        attrs = csrattrs_yaml.read(text.encode(), FILE)
    except ConfigError as refusal:
        assert refusal.faults
        return
    if attrs is not None:
        assert read(csrattrs_yaml.write(attrs)) == attrs


@given(st.binary(max_size=40))
def test_any_output_is_read_or_refused(output):
    try:
        der = csrattrs_yaml.to_der(output)
    except Malformed:
        return
    assert der in (output, b"") or decode_csrattrs(der)


# Template check.


def load(directory: Path, text: str) -> list[str]:
    path = directory / "t.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        csrattrs_yaml.load_template_check(path)
    return [fault.removeprefix(f"{directory}/") for fault in raised.value.faults]


def test_the_shipped_wishes_can_be_a_template_check():
    made = csrattrs_yaml.load_template_check(SHIPPED)
    assert [str(kind) for kind in made.keys] == ["ec:P-256"]
    assert made.signatures == ("1.2.840.10045.4.3.2",)


def test_a_template_check_may_name_several_keys(tmp_path):
    (tmp_path / "t.yaml").write_text("- key: ec:P-256\n- key: rsa:3072\n")
    assert len(csrattrs_yaml.load_template_check(tmp_path / "t.yaml").keys) == 2


def test_wishes_that_cannot_be_checked_are_refused(tmp_path):
    assert load(tmp_path, "# nothing\n") == ["t.yaml:1:1: there is nothing in it to insist on"]
    assert load(tmp_path, "- nobody\n")[0].startswith("t.yaml:1:3: 0: 'nobody' is no name")
    (found,) = load(tmp_path, "- extensions: {extendedKeyUsage: {hex: '0500'}}\n")
    assert found.startswith("t.yaml:1:1: nothing can be compared with this: not an extendedKeyUsage")
    assert load(tmp_path, "x" * 70000) == ["t.yaml:1:1: longer than 65536 bytes"]
    with pytest.raises(ConfigError, match="none: No such file or directory"):
        csrattrs_yaml.load_template_check(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        csrattrs_yaml.load_template_check(tmp_path)


# The shipped file.


def test_the_shipped_file_asks_for_p_256_and_sha_256():
    assert csrattrs_yaml.write(read(SHIPPED.read_text())) == "- key: ec:P-256\n- ecdsa-with-SHA256\n"


def uncommented() -> str:
    """The file with every commented wish made active: without a # directly before a dash or an indented line."""
    lines = SHIPPED.read_text().splitlines()
    return "\n".join(line[1:] if line.startswith(("#-", "#  ")) else line for line in lines) + "\n"


def test_every_commented_wish_of_the_shipped_file_is_valid():
    attrs = read(uncommented())
    assert len(attrs.items) == len([wish for wish in uncommented().splitlines() if wish.startswith("- ")])
    assert attrs.template is not None
    assert attrs.template.subject is not None
    assert attrs.template.key is not None
    (attribute,) = attrs.template.attributes
    assert attribute.oid == csrattrs.EXTENSION_TEMPLATE
    assert read(csrattrs_yaml.write(attrs)) == attrs


@pytest.mark.parametrize(
    "number", [number for number, line in enumerate(SHIPPED.read_text().splitlines()) if line.startswith("#-")]
)
def test_each_commented_wish_can_be_made_active_alone(number):
    lines = SHIPPED.read_text().splitlines()
    while number < len(lines) and lines[number].startswith(("#-", "#  ")):
        lines[number] = lines[number][1:]
        number += 1
    before = len(read(SHIPPED.read_text()).items)
    assert len(read("\n".join(lines) + "\n").items) > before


def test_every_kind_of_key_named_in_the_shipped_file_is_known():
    comment = next(line for line in SHIPPED.read_text().splitlines() if line.startswith("# The kind of key:"))
    kinds = [word.rstrip(",;") for word in comment.removeprefix("# The kind of key: ").split()]
    assert len(kinds) > 5
    for kind in kinds:
        assert read(f"- key: {kind}\n- template: {{key: '{kind}'}}\n")


def test_the_shipped_file_has_lines_of_at_most_120_characters():
    assert max(map(len, SHIPPED.read_text().splitlines())) <= 120


def test_the_shipped_file_is_yaml_for_another_parser():
    assert isinstance(yaml.safe_load(uncommented()), list)


def test_importing_csrattrs_yaml_loads_no_heavy_library():
    """Turning words into bytes needs neither the network libraries nor pydantic."""
    code = "import sys, estgw.config.csrattrs_yaml; "
    code += "print([m for m in ('aiohttp', 'OpenSSL', 'pydantic') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == "[]\n"


def test_the_example_in_the_handlers_readme_is_valid():
    """handlers/README.md, "Standard output of a handler"."""
    text = (ROOT / "handlers/README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(- key: .*?)```", text, re.DOTALL)
    attrs = read(shown)
    assert attrs.oids == ("1.2.840.10045.4.3.2",)
    assert attrs.template is not None
    assert attrs.template.key is not None
    assert [wish.value for wish in csrattrs.extensions(attrs.template.attributes)][2] is None
