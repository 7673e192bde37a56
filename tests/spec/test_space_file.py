"""The reader: YAML 1.2 with places, and what it refuses."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import BadInput
from tuner.spec.space_file import MAX_BYTES, MAX_DEPTH, Table, plain, read, read_text


def value_of(text: str) -> object:
    tree, problems = read(f"key: {text}", "f")
    assert not problems
    assert isinstance(tree, Table)
    return plain(tree.entries["key"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1.0e-4", 1e-4), (".5", 0.5), ("017", 17), ("0x1F", 31), ("-3", -3), ("true", True), ("~", None)]
    + [(word, word) for word in ("off", "on", "yes", "no", "None", "1_000", "2001-01-01", "1:30", "0.5.1", "=")]
    + [("'1'", "1"), ('"true"', "true"), ("[1, a]", [1, "a"]), ("{a: null}", {"a": None})],
)
def test_values_are_yaml_1_2(text: str, value: object) -> None:
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_keys_and_values_know_their_place() -> None:
    tree, _ = read("a: 1\nb:\n  - x\n  - {c: 2}\n", "f.yaml")
    assert isinstance(tree, Table)
    assert str(tree.keys["b"].problem("here")) == "f.yaml:2:1: here"
    inner = tree.entries["b"].items[1]  # type: ignore[union-attr]
    assert (inner.keys["c"].line, inner.keys["c"].column) == (4, 6)  # type: ignore[union-attr]
    assert (inner.entries["c"].place.line, inner.entries["c"].place.column) == (4, 9)  # type: ignore[union-attr]


def test_aliases_and_merges_are_text_written_twice() -> None:
    tree, problems = read("a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, y: 3}\nd: {<<: [*a, {z: 4, x: 0}]}\n", "f")
    assert not problems
    assert plain(tree) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
    }


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a: [1, 2", "1:9", "not valid YAML"),
        ("a: b: c", "1:5", "mapping values are not allowed here"),
        ("a:\n\tb: 1", "2:1", "YAML indents with spaces only"),
        ("a: &a [*a]", "1:8", "*a stands inside itself"),
        ("a: *b", "1:4", "*b: nothing before it is marked &b"),
        ("a: !!python/object/apply:os.system [ls]", "1:4", "tags such as"),
        ("a: !!int 3", "1:4", "tags such as"),
        ("--- 1\n--- 2", "2:1", "a second document"),
        ("", "1:1", "the file is empty"),
        ("? [a]\n: 1", "1:3", "a key must be a word"),
        ("a: {<<: 3}", "1:9", "<<: merges mappings"),
        ('a: "\x01"', "1:5", "a control character"),
        ("[" * 100, f"1:{MAX_DEPTH + 1}", "nested deeper"),
    ],
)
def test_refuses_with_the_place(text: str, place: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(text, "f")
    assert str(caught.value).startswith(f"f:{place}: ")
    assert message in str(caught.value)


def test_keys_given_twice_and_infinities_are_all_reported() -> None:
    _, problems = read("a: 1\na: .inf\nb: -1e999\nc: .nan\n", "f")
    assert [(p.line, p.message.partition(":")[0]) for p in problems] == [
        (2, ".inf"),
        (2, "a"),
        (3, "-1e999"),
        (4, ".nan"),
    ]


@pytest.mark.parametrize("inner", ["[*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]", "{x: *a, y: *a, z: *a, u: *a, v: *a}"])
def test_an_alias_bomb_is_refused_before_it_is_expanded(inner: str) -> None:
    names = "abcdefghijklmnop"
    lines = ["a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    lines += [f"{new}: &{new} {inner.replace('*a', f'*{old}')}" for old, new in itertools.pairwise(names)]
    with pytest.raises(BadInput, match="values, aliases written out"):
        read("\n".join(lines), "f")


def test_aliases_do_not_nest_deeper_than_the_cap() -> None:
    deep = "[" * 30 + "1" + "]" * 30
    with pytest.raises(BadInput, match="nested deeper"):
        read(f"a: &a {deep}\nb: {deep.replace('1', '*a')}", "f")


def test_files_are_utf8_of_at_most_a_megabyte(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "f.yaml"
    for content, message in [(b"a" * (MAX_BYTES + 1), "larger than 1 MB"), (b"a: 1\nb: \xff", "f.yaml:2:1: not UTF-8")]:
        file.write_bytes(content)
        with pytest.raises(BadInput, match=message):
            read_text(file)
    with pytest.raises(BadInput, match="cannot be read"):
        read_text(tmp_path / "none.yaml")
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert plain(read(read_text(file), "f")[0]) == {"a": 1}


@given(st.text(alphabet="ab:- \n[]{}&*<!\"'#,?|>1.%\t", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text, "f")
    except BadInput as error:
        assert error.problems[0].line >= 1
