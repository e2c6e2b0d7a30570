"""Whatever is written, problems in words are what comes out, and never a secret."""

import json
import traceback
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.load import parse_config
from exporter.config.schema import Config
from exporter.errors import ConfigError
from tests.config.test_schema import COMPLETE, MINIMAL, problems_of
from tests.support.searches import extent

# Nothing else ever comes out ------------------------------------------------------------------

_KEYS = st.sampled_from(
    [
        *("defaults", "api", "scrape", "projects", "id", "name", "region", "endpoint", "auth"),
        *("iam_endpoint", "instances", "discovery", "type", "domain", "username", "password"),
        *("password_file", "access_key", "secret_key", "token", "token_file", "security_token"),
        *("lookback", "stale_after", "offsite", "timeout", "retries", "max_connections"),
        *("rate_limit", "resync_interval", "ca_file", "proxy_url", "timeout_offset"),
        *("restore_window", "full_backups", "full_stale_after", "restore_window_interval"),
        *("min_interval", "enabled", "refresh_interval", "tags", "exclude", "metadata_endpoint"),
    ]
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**400, max_value=10**401),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["5m", "1y", "env", "token", "password", "cn-north-4", "https://h", "${A}", "${", "p1"]
    ),
)
_TREES = st.recursive(
    _SCALARS,
    lambda children: st.one_of(
        st.lists(children, max_size=4),
        st.dictionaries(
            st.one_of(_KEYS, _SCALARS.filter(lambda key: key == key)), children, max_size=6
        ),
    ),
    max_leaves=25,
)


def _project_shaped() -> st.SearchStrategy[Any]:
    """Trees that get past the first rules, so that the later ones see them."""
    scalar_or_tree = st.one_of(_SCALARS, _TREES)
    auth = st.dictionaries(_KEYS, scalar_or_tree, max_size=5)
    one = st.fixed_dictionaries(
        {},
        optional={
            "id": _SCALARS,
            "name": _SCALARS,
            "region": _SCALARS,
            "endpoint": _SCALARS,
            "iam_endpoint": _SCALARS,
            "auth": auth,
            "instances": st.lists(scalar_or_tree, max_size=3),
            "discovery": st.dictionaries(_KEYS, scalar_or_tree, max_size=4),
        },
    )
    return st.fixed_dictionaries(
        {"projects": st.lists(one, max_size=3)},
        optional={
            name: st.dictionaries(_KEYS, scalar_or_tree, max_size=5)
            for name in ("defaults", "api", "scrape")
        },
    )


def accept_or_refuse(text: str) -> None:
    """Fails where something other than a ConfigError with lines of text comes out."""
    try:
        assert isinstance(parse_config(text, environment={"A": "x"}), Config)
        return
    except ConfigError as exc:
        problems = exc.problems
    assert problems
    assert all(problem and "\n" not in problem for problem in problems)


@given(_TREES)
@settings(max_examples=extent(150), deadline=None)
def test_any_tree_is_accepted_or_refused_in_words(tree: Any) -> None:
    accept_or_refuse(yaml.safe_dump(tree, allow_unicode=True))


@given(_project_shaped())
@settings(max_examples=extent(150), deadline=None)
def test_any_tree_of_projects_is_accepted_or_refused_in_words(tree: Any) -> None:
    accept_or_refuse(yaml.safe_dump(tree, allow_unicode=True))


@given(st.text(max_size=200))
@settings(max_examples=extent(150), deadline=None)
def test_any_text_is_accepted_or_refused_in_words(text: str) -> None:
    accept_or_refuse(text)


@given(st.data())
@settings(max_examples=extent(100), deadline=None)
def test_any_damage_to_a_good_text_is_accepted_or_refused_in_words(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(COMPLETE)))
    end = data.draw(st.integers(start, min(len(COMPLETE), start + 40)))
    accept_or_refuse(COMPLETE[:start] + data.draw(st.text(max_size=10)) + COMPLETE[end:])


# Secrets --------------------------------------------------------------------------------------


def _paths(node: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of all values in a tree, inner ones too."""
    items = (
        list(node.items())
        if isinstance(node, dict)
        else list(enumerate(node))
        if isinstance(node, list)
        else []
    )
    return [found for key, item in items for found in ((*path, key), *_paths(item, (*path, key)))]


_COMPLETE_TREE = yaml.safe_load(COMPLETE)
_SECRETS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


def check_not_told(tree: Any) -> None:
    """The secret is in no message, in no representation of the error and in nothing chained."""
    text = yaml.safe_dump(tree, allow_unicode=True)
    told = ""
    try:
        parse_config(text, environment={"DB_PASSWORD": "x"})
    except ConfigError as exc:
        told = f"{exc.problems}{exc!r}{''.join(traceback.format_exception(exc))}"
    assert "hunter2" not in told


def put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    node = copy
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return copy


@given(st.sampled_from(_paths(_COMPLETE_TREE)), _SECRETS, _SECRETS)
@settings(max_examples=extent(150), deadline=None)
def test_a_password_in_any_place_is_in_no_message(
    path: tuple[str | int, ...], before: str, after: str
) -> None:
    secret = f"{before}hunter2{after}"
    check_not_told(put(_COMPLETE_TREE, path, secret))


@given(
    st.sampled_from([path for path in _paths(_COMPLETE_TREE) if isinstance(path[-1], str)]),
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12),
    _SECRETS,
)
@settings(max_examples=extent(100), deadline=None)
def test_a_password_under_a_mistyped_key_is_in_no_message(
    path: tuple[str | int, ...], key: str, after: str
) -> None:
    secret = f"hunter2{after}"
    check_not_told(put(_COMPLETE_TREE, (*path[:-1], key), secret))


@pytest.mark.parametrize("key", ["hunter2", "password:hunter2", "hunter2!", "pass hunter2"])
def test_a_password_that_lost_its_key_is_in_no_message(key: str) -> None:
    auth = {"type": "password", "domain": "d", "username": "u", key: None}
    told = problems_of(yaml.safe_dump(put(_COMPLETE_TREE, ("projects", 0, "auth"), auth)))
    assert told
    assert not [problem for problem in told if "hunter2" in problem]


def test_no_secret_is_in_the_configurations_representation() -> None:
    text = COMPLETE.replace("security_token: st", "security_token: a-security-token")
    text += "  - id: sixth\n    region: tr-west-1\n    instances: [a]\n"
    text += "    auth: {type: token, token: an-inline-token}\n"
    config = parse_config(text, environment={"DB_PASSWORD": "s3cret-password"})
    for shown in (repr(config), str(config), config.model_dump_json(), str(config.model_dump())):
        for secret in ("s3cret-password", "a-security-token", "an-inline-token", "proxy-password"):
            assert secret not in shown


def test_ten_thousand_instances_are_a_configuration() -> None:
    text = MINIMAL.replace("[i1]", json.dumps([f"{i:032x}in07" for i in range(10_000)]))
    assert len(parse_config(text).configured_instances()) == 10_000


# Nothing but the secrets has these letters; each of them is whole in any message that shows it.
_WITH_SECRETS = COMPLETE.replace("${DB_PASSWORD}", "hunter2").replace(
    "security_token: st", "security_token: hunter2"
)


@given(st.data())
@settings(max_examples=extent(150), deadline=None)
def test_whatever_damage_a_text_has_no_message_shows_its_secrets(data: st.DataObject) -> None:
    """A quote, a bracket or a space that is missing makes something else of a password."""
    start = data.draw(st.integers(0, len(_WITH_SECRETS)))
    end = data.draw(st.integers(start, min(len(_WITH_SECRETS), start + 20)))
    inserted = data.draw(st.text(alphabet="\"'{}[]:,-&*!|>%@`#? \n\t\u00a0a", max_size=4))
    try:
        parse_config(_WITH_SECRETS[:start] + inserted + _WITH_SECRETS[end:])
    except ConfigError as exc:
        told = f"{exc.problems}{exc!r}{''.join(traceback.format_exception(exc))}"
        assert "hunter2" not in told


@pytest.mark.parametrize(
    "damage",
    ["hunter2: x", "hunter2:", "? hunter2", "hunter2: {a: b}", "hunter2: 1\n      hunter2: 1"],
)
def test_a_password_that_became_a_key_is_in_no_message(damage: str) -> None:
    told = problems_of(f"{MINIMAL}    auth:\n      type: token\n      {damage}\n")
    assert told
    assert not [problem for problem in told if "hunter2" in problem]
