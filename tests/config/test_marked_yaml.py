"""YAML that remembers the place of each part."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from estgw.config import marked_yaml
from estgw.config.marked_yaml import MarkedYAML
from estgw.errors import ConfigError


def read(directory: Path, text: str) -> MarkedYAML:
    path = directory / "conf.yaml"
    path.write_text(text)
    return marked_yaml.read(path)


def faults(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        read(directory, text)
    return [fault.removeprefix(str(directory)) for fault in refusal.value.faults]


TEXT = """\
a: 1
group:
  key: "value"
  list: [one, two,
         three]
  map: {x: {y: yes}}
"""


def test_a_file_is_read_as_plain_data(tmp_path):
    assert read(tmp_path, TEXT).data == {
        "a": 1,
        "group": {"key": "value", "list": ["one", "two", "three"], "map": {"x": {"y": True}}},
    }


@pytest.mark.parametrize(
    ("loc", "where"),
    [
        ((), "1:1: what"),
        (("a",), "1:1: a: what"),
        (("group",), "2:1: group: what"),
        (("group", "key"), "3:3: group.key: what"),
        (("group", "list", 0), "4:10: group.list.0: what"),
        (("group", "list", 2), "5:10: group.list.2: what"),
        (("group", "map", "x", "y"), "6:13: group.map.x.y: what"),
        (("group", "missing"), "2:1: group.missing: what"),
        (("group", "missing", "below"), "2:1: group.missing.below: what"),
        (("group", "list", 9), "4:3: group.list.9: what"),
        (("a", "below"), "1:1: a.below: what"),
        (("nothing",), "1:1: nothing: what"),
    ],
)
def test_a_fault_names_line_column_and_path_of_its_key(tmp_path, loc, where):
    assert read(tmp_path, TEXT).fault(loc, "what") == f"{tmp_path}/conf.yaml:{where}"


@pytest.mark.parametrize("key", ["a\\nb", "a\\eb", "a\u202eb", "\\u2028"])
def test_a_fault_is_one_printable_line_whatever_it_quotes(tmp_path, key):
    (fault,) = faults(tmp_path, f'"{key}": 1\n"{key}": 2\n')
    assert fault.isprintable()
    assert fault.startswith("/conf.yaml:2:1: ")
    marked = read(tmp_path, f'"{key}": 1\n')
    assert marked.fault(tuple(marked.data), "no such key here").isprintable()


@pytest.mark.parametrize(("key", "kind"), [("8", "an int"), ("on", "a bool"), ("1.2", "a float"), ("~", "a null")])
def test_a_key_that_is_not_text_is_refused_with_quotes(tmp_path, key, kind):
    expected = f'/conf.yaml:2:3: {key}: YAML reads this key as {kind}; quote it: "{key}"'
    assert faults(tmp_path, f"group:\n  {key}: x\n") == [expected]
    assert read(tmp_path, f'group:\n  "{key}": x\n').data == {"group": {key: "x"}}


def test_merge_keys_are_read(tmp_path):
    assert read(tmp_path, "a: &a {x: 1}\nb: {<<: *a, y: 2}\n").data["b"] == {"x": 1, "y": 2}


def test_a_fault_of_a_merged_key_has_the_position_of_what_counts(tmp_path):
    found = read(tmp_path, "a: &a {x: 1, y: 1}\nb: {<<: *a, y: 2}\n")
    assert found.data["b"] == {"x": 1, "y": 2}
    assert found.fault(("b", "x"), "wrong").endswith(":1:8: b.x: wrong")
    assert found.fault(("b", "y"), "wrong").endswith(":2:13: b.y: wrong")


@pytest.mark.parametrize(
    ("loc", "text"),
    [
        (("a",), "1"),
        (("group", "key"), None),
        (("group", "list", 1), "two"),
        (("group", "list"), None),
        (("group", "map", "x", "y"), "yes"),
        (("nothing",), None),
    ],
)
def test_plain_scalar_returns_the_unquoted_text_of_a_value(tmp_path, loc, text):
    assert read(tmp_path, TEXT).plain_scalar(loc) == text


def test_an_empty_file_has_no_data_and_faults_at_its_start(tmp_path):
    marked = read(tmp_path, "# nothing\n")
    assert marked.data is None
    assert marked.fault(("a",), "what") == f"{tmp_path}/conf.yaml:1:1: a: what"
    assert marked.plain_scalar(()) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", ["/conf.yaml:3:1: a: stands here twice"]),
        (
            "a: {x: 1, x: 2, x: 3}\nb:\n  - {y: 1,\n     y: 2}\n",
            ["/conf.yaml:1:11: x: stands here twice", "/conf.yaml:1:17: x: stands here twice", "/conf.yaml:4:6: y: "],
        ),
        ('"a": 1\na: 2\n', ["/conf.yaml:2:1: a: stands here twice"]),
        ("a: &x {k: 1, k: 2}\nb: *x\n", ["/conf.yaml:1:14: k: stands here twice"]),
    ],
)
def test_a_duplicate_key_is_reported_at_its_second_place(tmp_path, text, expected):
    found = sorted(faults(tmp_path, text))
    assert len(found) == len(expected)
    assert all(fault.startswith(start) for fault, start in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: b: c\n", "/conf.yaml:1:5: mapping values are not allowed here"),
        ("a: [1, 2\nb: 3\n", "/conf.yaml:2:"),
        ("a:\n\t- x\n", "/conf.yaml:2:1: found character '\\t'"),
        ('a: "open\n', "/conf.yaml:2:1: found unexpected end of stream"),
        ("a: *nobody\n", "/conf.yaml:1:4: found undefined alias"),
        ("--- 1\n--- 2\n", "/conf.yaml:2:1: but found another document"),
        ("a: !!python/object:os.system x\n", "/conf.yaml:1:4: could not determine a constructor"),
        ("a: !secret x\n", "/conf.yaml:1:4: could not determine a constructor"),
        ("? [a]\n: b\n", "/conf.yaml:1:3: found unhashable key"),
        ("{{a: 1}: 2}\n", "/conf.yaml:1:2: found unhashable key"),
        ("a: 2026-99-99\n", "/conf.yaml:1:1: not YAML: month must be in 1..12"),
        ("b: 1\na: \x07\n", "/conf.yaml:2:4: not YAML: unacceptable character #x0007"),
        ("[" * 600, "/conf.yaml:1:1: not YAML: maximum recursion depth"),
        ("{" * 600, "/conf.yaml:1:1: not YAML: maximum recursion depth"),
    ],
)
def test_invalid_yaml_is_reported_with_line_and_column(tmp_path, text, fault):
    (found,) = faults(tmp_path, text)
    assert found.startswith(fault), found


# Plain data, which may come from anywhere.


def plain(text: str) -> MarkedYAML:
    return marked_yaml.parse(Path("x"), text, plain=True)


def not_plain(text: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        plain(text)
    return [fault.removeprefix("x:") for fault in refusal.value.faults]


def test_plain_data_is_read():
    data = plain('- text\n- "NO"\n- {a: 5, b: -12, c: 0, d: }\n- [x, [y]]\n- |\n  lines\n').data
    assert data == ["text", "NO", {"a": 5, "b": -12, "c": 0, "d": None}, ["x", ["y"]], "lines\n"]
    assert plain("# nothing\n").data is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("- NO", '1:3: YAML reads NO as a bool; quote it: "NO"'),
        ("- 2.10", '1:3: YAML reads 2.10 as a float; quote it: "2.10"'),
        ("- 0123", '1:3: YAML reads 0123 as a number that is written otherwise; quote it: "0123"'),
        ("- 1:30", '1:3: YAML reads 1:30 as a number that is written otherwise; quote it: "1:30"'),
        ("- 2026-01-01", '1:3: YAML reads 2026-01-01 as a timestamp; quote it: "2026-01-01"'),
        ("a: &a [x]\nb: *a", "1:4: a part with this anchor (&) is used again as an alias (*); write it out there"),
        ("a: {x: 1}\nb: {<<: {y: 1}}", "2:5: a merge (<<) is not accepted here; write it out"),
        ("- !mine [x]", "1:3: a tag (!mine) that has no meaning here"),
        ("- !!python/name:os.system x", "1:3: YAML reads x as a os.system"),
        ("{5: x}", '1:2: 5: YAML reads this key as an int; quote it: "5"'),
        ("{!mine k: x}", '1:2: YAML reads k as a !mine; quote it: "k"'),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(text, fault):
    (found,) = not_plain(text)
    assert found.startswith(fault), found


def test_faults_are_reported_once_for_each_place_in_file_order():
    found = not_plain("- NO\n- 5: {1.5: on, a: 1, a: 2.5}\n- 0x1\n")
    assert [fault.split(": ")[0] for fault in found] == ["1:3", "2:3", "2:7", "2:12", "2:22", "2:25", "3:3"]


@pytest.mark.parametrize("text", ["- NO", "- 2.10", "- 0123", "a: &a [x]\nb: *a", "a: &a {x: 1}\nb: {<<: *a}"])
def test_conf_yaml_may_have_more_than_plain_data(tmp_path, text):
    assert read(tmp_path, text).data


# Writing.


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (["a", {"b": "c"}], "- a\n- b: c\n"),
        ([{"key": ["x", "y"]}], "- key: [x, y]\n"),
        ([{"key": ["x", {"y": "z"}]}], "- key:\n    - x\n    - y: z\n"),
        ([{"z": "1", "a": None}], "- z: '1'\n  a:\n"),
        ([{"a": {"b": {"c": 5}}}], "- a:\n    b:\n      c: 5\n"),
        ([], "[]\n"),
        (["NO", "2.10", "", "Zoë"], "- 'NO'\n- '2.10'\n- ''\n- Zoë\n"),
    ],
)
def test_data_is_written_in_the_expected_form(data, text):
    assert marked_yaml.dump(data) == text
    assert plain(text).data == data


def test_shared_data_is_written_without_aliases():
    same = ["x", {"y": "z"}]
    assert "&" not in marked_yaml.dump([{"a": same}, {"b": same}])


_DATA = st.recursive(
    st.text(max_size=10) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.lists(_DATA, max_size=3))
@example(["\x85", "a\u2028b", "\u2029", "\ufeff", "\r\n", "\n x", "\t", "\x1b", "\U0001f600", "\x85 " * 100])
@example([{"\x85": ["\x85"]}])
def test_any_data_survives_writing_and_reading(data):
    assert plain(marked_yaml.dump(data)).data == data


def test_unreadable_files_are_reported_with_the_reason(tmp_path):
    with pytest.raises(ConfigError, match=r"conf\.yaml: can't be read: No such file or directory"):
        marked_yaml.read(tmp_path / "conf.yaml")
    with pytest.raises(ConfigError, match="can't be read: Is a directory"):
        marked_yaml.read(tmp_path)
    (tmp_path / "latin").write_bytes(b"name: Zo\xeb\n")
    with pytest.raises(ConfigError, match="latin: can't be read: 'utf-8' codec can't decode byte 0xeb"):
        marked_yaml.read(tmp_path / "latin")


def test_a_file_with_nested_aliases_is_read(tmp_path):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    assert read(tmp_path, "a0: &a0 [1]\n" + levels).data["a1"] == [[1]] * 10


def test_a_list_that_contains_itself_is_read(tmp_path):
    marked = read(tmp_path, "a: &a [*a, 2]\n")
    assert marked.fault(("a", 0, 0, 1), "what").endswith(":1:12: a.0.0.1: what")


@given(st.text("ab: -[]{}&*!|>'\"%#,?\n1~.", max_size=40))
@example("&a [*a]")
@example("? ? a")
@example("a: !!set {x}")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused_with_a_place(tmp_path, text):
    try:
        marked = read(tmp_path, text)
    except ConfigError as refusal:
        for fault in refusal.faults:
            assert fault.startswith(f"{tmp_path}/conf.yaml:")
    else:
        assert marked.fault(("a", 0), "what")
