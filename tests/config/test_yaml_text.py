import re
from collections.abc import Sequence

import pytest

from exporter.config.yaml_text import load_yaml
from exporter.errors import ConfigError


def load(text: str) -> object:
    return load_yaml(text, "x.yaml").value


def problems_of(text: str) -> Sequence[str]:
    with pytest.raises(ConfigError) as raised:
        load(text)
    return raised.value.problems


def test_mappings_lists_and_scalars_become_plain_values() -> None:
    text = "a: [1, 1.5, true, null, text]\nb:\n  - c: d\n"
    assert load(text) == {"a": [1, 1.5, True, None, "text"], "b": [{"c": "d"}]}


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n"])
def test_a_text_without_a_document_is_none(text: str) -> None:
    assert load(text) is None


def test_dates_stay_text_even_impossible_ones() -> None:
    assert load("a: 2024-01-01\nb: 2024-13-45") == {"a": "2024-01-01", "b": "2024-13-45"}


def test_a_lone_equals_sign_is_text() -> None:
    assert load("password: =") == {"password": "="}


def test_a_string_tag_keeps_a_number_as_text() -> None:
    assert load("id: !!str 123") == {"id": "123"}


def test_aliases_and_merge_keys_work_and_own_keys_win() -> None:
    text = (
        "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\nc: {d: &d {<<: *a, x: 4}}\ne: {<<: *d, x: 5}\n"
    )
    assert load(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"d": {"x": 4, "y": 2}},
        "e": {"x": 5, "y": 2},
    }


def test_every_duplicate_key_is_reported_with_both_places() -> None:
    assert problems_of("a: 1\nb:\n  c: 1\n  'c': 2\na: 2\n") == (
        "x.yaml:4:3: c is there twice (first on line 3, column 3)",
        "x.yaml:5:1: a is there twice (first on line 1, column 1)",
    )


def test_a_duplicate_behind_an_alias_is_reported_once() -> None:
    assert problems_of("a: &a {x: 1, x: 2}\nb: *a\nc: *a\n") == (
        "x.yaml:1:14: x is there twice (first on line 1, column 8)",
    )


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: b: c", "x.yaml:1:5: a second colon in one line: put a value that holds ': '"),
        ("a: 1\nb: [1, 2\n", "x.yaml:3:1: the list that is opened with '[' goes on without"),
        ("a:\n\tb: 1", "x.yaml:2:1: there is a tab: YAML is indented with spaces"),
        ('a: "x', "x.yaml:1:4: the quote that is opened here is never closed"),
        ("a: 1\n---\nb: 1\n", "x.yaml:2:1: a second document begins here: remove the line '---'"),
        ("? [a]\n: b", "x.yaml:1:3: while constructing a mapping: found unhashable key"),
        ("<<: 3", "x.yaml:1:5: while constructing a mapping: expected a mapping"),
        ("a: \x00", "x.yaml: not readable as YAML: unacceptable character #x0000"),
        ("a: \udc80", "x.yaml: not readable as YAML: "),
        ("a: " + "1" * 5000, "x.yaml: not readable as YAML: unreadable value"),
    ],
)
def test_what_is_no_yaml_is_one_line_with_its_place(text: str, start: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(start)
    assert "\n" not in problem


@pytest.mark.parametrize(
    "text",
    [
        "password: *hunter2",
        "password: !hunter2 x",
        "password: !hunter2!x y",
        "password: !!hunter2 x",
        "password: @hunter2",
        "password: %hunter2",
        "password: `hunter2",
        "password: 'hunter2",
        "password: hunter2: x",
        "password: &hunter2 &hunter2 x",
        "password: [hunter2",
    ],
)
def test_a_value_is_never_quoted_in_a_problem(text: str) -> None:
    (problem,) = problems_of(text)
    assert "hunter2" not in problem
    assert re.match(r"x\.yaml:[12]:\d+: ", problem)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!binary", "!!int", "!own"])
def test_tags_are_refused(tag: str) -> None:
    assert problems_of(f"a: {tag} x") == (
        "x.yaml:1:4: tags are not supported; put a value that begins with '!' in quotes",
    )


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert problems_of("a: &a [1, *a]") == (
        "x.yaml:1:11: an alias without a finished anchor;"
        " put a value that begins with '*' in quotes",
    )


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert problems_of("\n".join(lines)) == ("x.yaml:6:55: aliases grow to over 1000000 values",)


def test_aliases_in_the_last_child_of_each_level_count_too() -> None:
    text = "a: &a [" + ", ".join(["x"] * 1000) + "]\nb: &b [" + ", ".join(["*a"] * 600) + "]\n"
    assert "aliases grow to over 1000000 values" in problems_of(text + "c: [x, [*b]]")[0]


def test_merge_keys_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 20)]
    assert "aliases grow to over 1000000 values" in problems_of("\n".join(lines))[0]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 500_000,
        "a: " + "[" * 99 + "]" * 99,
        "a: &a " + "[" * 60 + "]" * 60 + "\nb: " + "[" * 60 + "*a" + "]" * 60,
    ],
)
def test_nesting_without_end_is_refused(text: str) -> None:
    assert "nested over 100 levels deep" in problems_of(text)[0]


def test_a_deep_but_sane_document_is_read() -> None:
    value = load("[" * 98 + "]" * 98)
    depth = 0
    while isinstance(value, list) and value:
        (value,) = value
        depth += 1
    assert depth == 97


def test_a_text_over_one_mebibyte_is_refused_and_one_of_that_size_read() -> None:
    assert load("#" * (1024 * 1024)) is None
    assert problems_of("#" * (1024 * 1024 + 1)) == (
        "x.yaml: the file is larger than 1 MiB: split it, or discover the instances",
    )
