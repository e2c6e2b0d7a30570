"""The configuration as a user meets it: what is accepted, and what is said of the rest."""

import re
from pathlib import Path
from typing import Any

import pytest

from exporter.config.auth import AkskAuth, EcsAgencyAuth, EnvAuth, PasswordAuth, StaticTokenAuth
from exporter.config.load import load_config, parse_config
from exporter.errors import ConfigError
from exporter.models import Instance
from tests.support.paths import TESTDATA

MISTAKES = TESTDATA / "config"

MINIMAL = """
projects:
  - id: p1
    region: cn-north-4
    instances: [i1]
"""

# Every key, each with a value that is not its default.
COMPLETE = """
defaults:
  lookback: 12h
  stale_after: 2h
  offsite: true
  restore_window: true
  full_backups: true
  full_stale_after: 3d
api:
  timeout: 5s
  retries: 4
  max_connections: 20
  rate_limit: 12.5
  resync_interval: 3h
  restore_window_interval: 90s
  full_backups_interval: 2h
  ca_file: certs/ca.pem
  proxy_url: http://proxy-user:proxy-password@proxy.example:3128
scrape:
  timeout: 20s
  timeout_offset: 250ms
  min_interval: 15s
projects:
  - id: 97b026aa9cc4417888c14c84a1ad9860
    name: production
    region: cn-north-4
    endpoint: https://gaussdb.example:8443/
    iam_endpoint: https://iam.example
    lookback: 2d
    stale_after: 45m
    offsite: false
    auth:
      type: password
      domain: my-account
      username: backup-reader
      password: ${DB_PASSWORD}
    instances:
      - 61a4ea66210545909d74a05c27a7179ein07
      - id: 24a4ea66210545909d74a05c27a7179ein07
        name: orders
        lookback: 7d
        stale_after: 30m
        offsite: true
    discovery:
      enabled: true
      refresh_interval: 5m
      name: "prod-*"
      tags: {env: prod}
      exclude: [prod-scratch, "prod-test-*"]
  - id: second_project
    region: ap-southeast-1
    auth: {type: aksk, access_key: AKEXAMPLE, secret_key_file: /run/secrets/sk, security_token: st}
    discovery: {}
  - id: third
    region: af-south-1
    auth: {type: ecs-agency, metadata_endpoint: "http://[fd00::1]:8080"}
    instances: [a]
  - id: fourth
    region: cn-north-11
    auth: {type: token, token_file: token.txt}
    instances: [a]
  - id: fifth
    region: tr-west-1
    auth: {type: env}
    instances: [a]
"""

TEXT = "must be text; put it in quotes if it looks like a number or a truth value"
URL = "must be a URL like https://host or https://host:port"
NOT_SET = "the environment variable NOT_SET_ANYWHERE is not set ($$ is a dollar)"
DOLLAR = "write ${NAME} for an environment variable, $$ for a dollar"


def problems_of(text: str, **environment: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, environment=environment)
    return tuple(re.sub(r"^config\.yaml(:\d+){0,2}: ", "", text) for text in raised.value.problems)


def project(text: str = "", **environment: str) -> Any:
    """The first project of the minimal configuration with `text` (its further keys) added."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return parse_config(MINIMAL + lines, environment=environment).projects[0]


# What is right --------------------------------------------------------------------------------


def test_all_but_one_project_may_be_left_out() -> None:
    config = parse_config(MINIMAL)
    assert (config.defaults.lookback, config.defaults.stale_after) == (86_400.0, 3_600.0)
    assert config.defaults.offsite is False
    assert (config.defaults.restore_window, config.defaults.full_backups) == (False, False)
    assert config.defaults.full_stale_after == 691_200.0
    api = config.api
    assert (api.timeout, api.retries, api.max_connections) == (10.0, 2, 50)
    assert (api.rate_limit, api.resync_interval) == (50.0, 21_600.0)
    assert (api.restore_window_interval, api.full_backups_interval) == (300.0, 600.0)
    assert (api.ca_file, api.proxy_url) == (None, None)
    scrape = config.scrape
    assert (scrape.timeout, scrape.timeout_offset, scrape.min_interval) == (30.0, 0.5, 0.0)
    only = config.projects[0]
    assert (only.id, only.name, only.region) == ("p1", "", "cn-north-4")
    assert only.endpoint == "https://gaussdb.cn-north-4.myhuaweicloud.com"
    assert only.iam_endpoint == "https://iam.cn-north-4.myhuaweicloud.com"
    assert isinstance(only.auth, EnvAuth)
    assert only.discovery is None
    assert not only.discovers


def test_every_key_is_taken() -> None:
    config = parse_config(COMPLETE, environment={"DB_PASSWORD": "s3cret"}, folder=Path("/etc/x"))
    assert config.defaults.model_dump() == {
        "lookback": 43_200.0,
        "stale_after": 7_200.0,
        "offsite": True,
        "restore_window": True,
        "full_backups": True,
        "full_stale_after": 259_200.0,
    }
    api = config.api
    assert (api.timeout, api.retries, api.max_connections) == (5.0, 4, 20)
    assert (api.rate_limit, api.resync_interval) == (12.5, 10_800.0)
    assert (api.restore_window_interval, api.full_backups_interval) == (90.0, 7_200.0)
    assert api.ca_file == Path("/etc/x/certs/ca.pem")
    assert api.proxy_url is not None
    assert api.proxy_url.get_secret_value() == "http://proxy-user:proxy-password@proxy.example:3128"
    assert config.scrape.model_dump() == {
        "timeout": 20.0,
        "timeout_offset": 0.25,
        "min_interval": 15.0,
    }
    first, second, third, fourth, fifth = config.projects
    assert (first.id, first.name) == ("97b026aa9cc4417888c14c84a1ad9860", "production")
    assert first.endpoint == "https://gaussdb.example:8443"
    assert first.iam_endpoint == "https://iam.example"
    assert isinstance(first.auth, PasswordAuth)
    assert (first.auth.domain, first.auth.username) == ("my-account", "backup-reader")
    assert first.auth.password is not None
    assert first.auth.password.get_secret_value() == "s3cret"
    assert first.discovery is not None
    assert first.discovery.model_dump() == {
        "enabled": True,
        "refresh_interval": 300.0,
        "name": "prod-*",
        "tags": {"env": "prod"},
        "exclude": ["prod-scratch", "prod-test-*"],
    }
    assert isinstance(second.auth, AkskAuth)
    assert second.auth.access_key == "AKEXAMPLE"
    assert second.auth.secret_key_file == Path("/run/secrets/sk")
    assert second.auth.security_token is not None
    assert second.auth.security_token.get_secret_value() == "st"
    assert second.discovers
    assert isinstance(third.auth, EcsAgencyAuth)
    assert third.auth.metadata_endpoint == "http://[fd00::1]:8080"
    assert isinstance(fourth.auth, StaticTokenAuth)
    assert fourth.auth.token_file == Path("/etc/x/token.txt")
    assert isinstance(fifth.auth, EnvAuth)


def test_instances_take_their_own_settings_then_their_projects_then_the_defaults() -> None:
    config = parse_config(
        """
defaults: {lookback: 1h, stale_after: 10m, offsite: true}
projects:
  - id: plain
    region: cn-north-4
    instances: [a, {id: b, lookback: 3h, stale_after: 30m, offsite: false}]
  - id: overriding
    name: Overriding
    region: cn-north-9
    lookback: 2h
    stale_after: 20m
    offsite: false
    instances: [a, {id: b, name: B, lookback: 3h, offsite: true}]
"""
    )

    def facts(instance: Instance) -> tuple[str, str, float, float, bool]:
        return (
            instance.project_id,
            instance.id,
            instance.lookback_seconds,
            instance.stale_after_seconds,
            instance.offsite,
        )

    assert [facts(instance) for instance in config.configured_instances()] == [
        ("plain", "a", 3_600.0, 600.0, True),
        ("plain", "b", 10_800.0, 1_800.0, False),
        ("overriding", "a", 7_200.0, 1_200.0, False),
        ("overriding", "b", 10_800.0, 1_200.0, True),
    ]
    last = config.configured_instances()[-1]
    assert (last.project_name, last.name, last.region) == ("Overriding", "B", "cn-north-9")


def test_what_is_asked_for_restores_is_set_for_all_a_project_or_one_instance() -> None:
    config = parse_config(
        """
defaults: {restore_window: true, full_stale_after: 2d}
projects:
  - id: plain
    region: cn-north-4
    instances: [a, {id: b, restore_window: false, full_backups: true, full_stale_after: 1d}]
  - id: overriding
    region: cn-north-9
    restore_window: false
    full_backups: true
    full_stale_after: 9d
    instances: [a, {id: b, restore_window: true, full_backups: false}]
"""
    )
    assert [
        (instance.restore_window, instance.full_backups, instance.full_stale_after_seconds)
        for instance in config.configured_instances()
    ] == [
        (True, False, 172_800.0),
        (False, True, 86_400.0),
        (False, True, 777_600.0),
        (True, False, 777_600.0),
    ]


def test_a_discovered_instance_takes_its_projects_settings() -> None:
    config = parse_config(
        "defaults: {stale_after: 10m}\n"
        "projects: [{id: p, region: cn-north-4, lookback: 2h, discovery: {}}]"
    )
    found = config.discovered_instance(config.projects[0], "x1", "orders")
    assert (found.project_id, found.id, found.name) == ("p", "x1", "orders")
    assert (found.lookback_seconds, found.stale_after_seconds) == (7_200.0, 600.0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300.0), ("732d", 63_244_800.0), ("1h30m", 5_400.0)]
)
def test_a_lookback_is_five_minutes_to_two_years(text: str, seconds: float) -> None:
    assert project(f"lookback: {text}").lookback == seconds


def test_a_zero_needs_no_unit() -> None:
    assert parse_config(f"scrape: {{timeout_offset: 0, min_interval: 0s}}{MINIMAL}").scrape == (
        parse_config(f"scrape: {{timeout_offset: 0ms}}{MINIMAL}").scrape
    )


def test_a_rate_limit_of_zero_is_allowed_and_means_none() -> None:
    assert parse_config(f"api: {{rate_limit: 0}}{MINIMAL}").api.rate_limit == 0.0


def test_a_key_without_a_value_keeps_its_default() -> None:
    config = parse_config(
        "defaults:\napi:\n  timeout:\n  ca_file: null\nscrape: ~\nprojects:\n  - id: p1\n"
        "    name:\n    region: cn-north-4\n    endpoint:\n    auth:\n    instances: [i1]\n"
        "    discovery:\n"
    )
    assert config == parse_config(MINIMAL)


def test_an_auth_section_without_a_type_takes_the_environment() -> None:
    assert isinstance(project("auth: {}").auth, EnvAuth)


def test_an_agency_asks_the_link_local_address() -> None:
    assert project("auth: {type: ecs-agency}").auth.metadata_endpoint == "http://169.254.169.254"


def test_one_instance_id_may_be_in_two_projects() -> None:
    config = parse_config(f"{MINIMAL}  - {{id: p2, region: cn-north-4, instances: [i1]}}")
    assert [instance.key for instance in config.configured_instances()] == [
        ("p1", "i1"),
        ("p2", "i1"),
    ]


@pytest.mark.parametrize("id_", ["a", "a" * 64, "A-z_09"])
def test_an_id_is_letters_digits_hyphens_and_underscores(id_: str) -> None:
    config = parse_config(f"projects: [{{id: {id_}, region: cn-north-4, instances: [{id_}]}}]")
    assert config.configured_instances()[0].key == (id_, id_)


@pytest.mark.parametrize(
    ("id_", "why"),
    [
        ("", "it is empty"),
        ("a b", "it holds a space"),
        (" a", "it begins with a space"),
        ("a\\t", "it ends with white space ('\\t')"),
        ("a\\n", "it ends with white space ('\\n')"),
        ("a\u00a0", "it ends with white space ('\\xa0')"),
        ("ä", "it holds '\\xe4'"),
        ("a.b", "it holds '.'"),
        ("a/b", "it holds '/'"),
        ("..", "it holds '.'"),
        ("%2e", "it holds '%'"),
        ("a?b", "it holds '?'"),
        ("a" * 65, "it has 65 characters"),
    ],
)
def test_nothing_else_becomes_a_part_of_a_path(id_: str, why: str) -> None:
    text = f'projects: [{{id: "{id_}", region: cn-north-4, instances: ["{id_}"]}}]'
    problem = f"must be 1 to 64 letters, digits, '-' or '_': {why}"
    assert problems_of(text) == (
        f"projects[0].id: {problem}",
        f"projects[0].instances[0].id: {problem}",
    )


# Endpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "endpoint", "iam_endpoint"),
    [
        (
            "ap-southeast-3",
            "https://gaussdb.ap-southeast-3.myhuaweicloud.com",
            "https://iam.ap-southeast-3.myhuaweicloud.com",
        ),
        (
            "tr-west-1",
            "https://gaussdbformysql.tr-west-1.myhuaweicloud.com",
            "https://iam.tr-west-1.myhuaweicloud.com",
        ),
        (
            "la-north-2",
            "https://gaussdb-mysql.la-north-2.myhuaweicloud.com",
            "https://iam.la-north-2.myhuaweicloud.com",
        ),
        (
            "cn-south-4",
            "https://gaussdb.cn-south-4.myhuaweicloud.com",
            "https://iam.myhuaweicloud.com",
        ),
    ],
)
def test_a_known_region_has_its_endpoints(region: str, endpoint: str, iam_endpoint: str) -> None:
    found = parse_config(f"projects: [{{id: p, region: {region}, instances: [i]}}]").projects[0]
    assert (found.endpoint, found.iam_endpoint) == (endpoint, iam_endpoint)


def test_the_european_iam_has_its_own_domain() -> None:
    found = parse_config(
        "projects: [{id: p, region: eu-west-101, endpoint: 'https://db.example', instances: [i]}]"
    ).projects[0]
    assert found.iam_endpoint == "https://iam.eu-west-101.myhuaweicloud.eu"


def test_an_endpoint_that_is_given_wins_over_the_regions() -> None:
    found = parse_config(
        "projects: [{id: p, region: cn-north-4, endpoint: 'http://127.0.0.1:8080',"
        " iam_endpoint: 'http://[::1]/', instances: [i]}]"
    ).projects[0]
    assert (found.endpoint, found.iam_endpoint) == ("http://127.0.0.1:8080", "http://[::1]")


@pytest.mark.parametrize(
    "auth",
    [
        "{type: aksk, access_key: a, secret_key: b}",
        "{type: ecs-agency}",
        "{type: token, token: t}",
        "{type: env}",
    ],
)
def test_only_a_login_needs_an_iam_endpoint(auth: str) -> None:
    found = parse_config(
        f"projects: [{{id: p, endpoint: 'https://db.example', auth: {auth}, instances: [i]}}]"
    ).projects[0]
    assert (found.region, found.iam_endpoint) == ("", "")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("https://", "its host or its port is not right"),
        ("ftp://host", "it does not begin with https:// or http://"),
        ("https://host/path", "it has a path"),
        ("https://host?query", "it has a query or a fragment"),
        ("https://host#fragment", "it has a query or a fragment"),
        ("https://user:hunter2@host", "it holds a user"),
        ("https://host:0", "its host or its port is not right"),
        ("https://host:99999", "its host or its port is not right"),
        ("https://host:port", "its host or its port is not right"),
        ("https://ho st", "it holds white space"),
        ("https://ho\\nst", "it holds white space"),
        ("https://[::1", "its host or its port is not right"),
        ("https://bücher.example", "its host or its port is not right"),
        ("//host", "it does not begin with https:// or http://"),
        ("host", "it does not begin with https:// or http://"),
        ("", "it does not begin with https:// or http://"),
    ],
)
def test_what_is_no_endpoint_is_refused_without_being_shown(endpoint: str, why: str) -> None:
    text = f'projects: [{{id: p, region: cn-north-4, endpoint: "{endpoint}", instances: [i]}}]'
    assert problems_of(text) == (f"projects[0].endpoint: {URL}: {why}",)


# Variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("${NAME}", "orders"),
        ("a${NAME}b${NAME}", "aordersborders"),
        ("$$", "$"),
        ("$${NAME}", "${NAME}"),
        ("$$${NAME}", "$orders"),
        ("cost: 5$", "cost: 5$"),
        ("$NAME", "$NAME"),
        ("${_empty1}", ""),
        ("${OTHER}", "${NAME}"),  # what comes out is not looked at again
    ],
)
def test_variables_are_put_into_strings(text: str, name: str) -> None:
    found = project(f"name: '{text}'", NAME="orders", _empty1="", OTHER="${NAME}")
    assert found.name == name


@pytest.mark.parametrize("text", ["${", "${}", "${1A}", "${A-B}", "${A B}", "${ NAME }", "x${NAME"])
def test_what_is_no_variable_is_refused_rather_than_kept(text: str) -> None:
    lines = f"{MINIMAL}    name: '{text}'\n"
    assert problems_of(lines, NAME="x") == (f"projects[0].name: {DOLLAR}",)


def test_variables_work_for_values_of_every_kind() -> None:
    config = parse_config(
        "defaults: {lookback: '${LOOKBACK}', offsite: '${OFFSITE}'}\n"
        "api: {retries: '${RETRIES}', rate_limit: '${RATE}'}\n"
        "projects: [{id: p, region: '${REGION}', instances: ['${INSTANCE}']}]",
        environment={
            "LOOKBACK": "3h",
            "OFFSITE": "true",
            "RETRIES": "5",
            "RATE": "2.5",
            "REGION": "cn-north-4",
            "INSTANCE": "i1",
        },
    )
    assert (config.defaults.lookback, config.defaults.offsite) == (10_800.0, True)
    assert (config.api.retries, config.api.rate_limit) == (5, 2.5)
    assert config.configured_instances()[0].key == ("p", "i1")


def test_a_variable_cannot_bring_in_structure() -> None:
    text = f"{MINIMAL}    name: '${{NAME}}'\n"
    config = parse_config(text, environment={"NAME": "x\nid: other"})
    assert (config.projects[0].id, config.projects[0].name) == ("p1", "x\nid: other")


def test_keys_are_not_expanded() -> None:
    assert problems_of(f"${{NAME}}: 1{MINIMAL}", NAME="api") == (
        "unknown key (it is not shown); allowed here: defaults, api, scrape, projects",
    )


def test_the_processes_environment_is_used_for_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GAUSSDB_TEST_NAME", "production")
    path = tmp_path / "config.yaml"
    path.write_text(f"{MINIMAL}    name: ${{GAUSSDB_TEST_NAME}}\n")
    assert load_config(path).projects[0].name == "production"


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{MINIMAL}    auth: {{type: token, token_file: secrets/token}}\n")
    auth = load_config(path).projects[0].auth
    assert isinstance(auth, StaticTokenAuth)
    assert auth.token_file == tmp_path / "secrets" / "token"


# Discovery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "name", "tags", "wanted"),
    [
        ("{}", "anything", {}, True),
        ("{name: 'prod-*'}", "prod-orders", {}, True),
        ("{name: 'prod-*'}", "test-prod-orders", {}, False),
        ("{name: 'prod-*'}", "PROD-orders", {}, False),
        ("{name: 'db-[0-9]?'}", "db-1a", {}, True),
        ("{tags: {env: prod}}", "x", {"env": "prod", "team": "a"}, True),
        ("{tags: {env: prod}}", "x", {"env": "test"}, False),
        ("{tags: {env: prod, team: a}}", "x", {"env": "prod"}, False),
        ("{name: 'a*', tags: {env: prod}}", "abc", {"env": "prod"}, True),
    ],
)
def test_discovery_filters_by_name_and_by_all_tags(
    filters: str, name: str, tags: dict[str, str], wanted: bool
) -> None:
    assert project(f"discovery: {filters}").discovery.wants(name=name, tags=tags) is wanted


@pytest.mark.parametrize(
    ("instance_id", "name", "excluded"),
    [("id1", "orders", True), ("id2", "test-1", True), ("id2", "orders", False)],
)
def test_discovery_excludes_by_id_and_by_glob(instance_id: str, name: str, excluded: bool) -> None:
    discovery = project("discovery: {exclude: [id1, 'test-*']}").discovery
    assert discovery.excludes(instance_id=instance_id, name=name) is excluded


def test_discovery_is_on_where_its_section_has_a_key_and_off_where_it_says_so() -> None:
    assert project("discovery: {name: x}").discovers
    assert not project("discovery: {enabled: false}").discovers
