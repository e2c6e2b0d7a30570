"""The configuration as a user meets it: what is accepted, and what is said of the rest."""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.load import load_config, parse_config
from exporter.config.schema import (
    AkskAuth,
    Config,
    EcsAgencyAuth,
    EnvAuth,
    PasswordAuth,
    StaticTokenAuth,
)
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

REGIONS = (
    "af-south-1, ap-southeast-1, ap-southeast-2, ap-southeast-3, ap-southeast-4, cn-east-3,"
    " cn-east-5, cn-north-11, cn-north-2, cn-north-4, cn-north-9, cn-south-1, cn-south-4,"
    " cn-southwest-2, cn-southwest-3, la-north-2, me-east-1, ru-northwest-2, sa-brazil-1, tr-west-1"
)
TEXT = "must be text; put it in quotes if it looks like a number or a truth value"
DURATION = "must be a duration such as 500ms, 30s, 5m, 1h30m or 7d,"
ID = "must be 1 to 64 letters, digits, '-' or '_'"
URL = "must be a URL like https://host or https://host:port, without a path"
PROXY = "must be a URL like http://host:port or http://user:password@host:port"
HEADER = "must be printable ASCII characters without spaces"
NOT_SET = "the environment variable NOT_SET_ANYWHERE is not set ($$ is a dollar)"
DOLLAR = "write ${NAME} for an environment variable, $$ for a dollar"
SETTINGS = "lookback, stale_after, offsite, restore_window, full_backups, full_stale_after"

PROBLEMS: Mapping[str, tuple[str, ...]] = {
    # The whole
    "empty": ("the configuration is empty: at least one project is needed",),
    "not_a_mapping": ("the configuration must be a mapping with the key projects",),
    "not_yaml": (
        "line 2, column 1: while parsing a flow node: did not find expected node content",
    ),
    "tab": (
        "line 2, column 1: while scanning for the next token: found character that cannot start"
        " any token; indent with spaces, and put a value that begins with @, ` or % in quotes",
    ),
    "duplicate_key": ("line 3, column 3: 'lookback' is there twice (first on line 2, column 3)",),
    "no_projects": ("projects: is required",),
    "projects_without_value": ("projects: is required",),
    "projects_empty": ("projects: needs at least one entry",),
    "projects_no_list": ("projects: must be a list",),
    "project_no_mapping": ("projects[0]: must be a mapping",),
    "section_no_mapping": ("api: must be a mapping",),
    # Unknown keys
    "unknown_section": ("scraping: unknown key; allowed here: defaults, api, scrape, projects",),
    "unknown_key_in_defaults": (f"defaults.lokback: unknown key; allowed here: {SETTINGS}",),
    "unknown_key_in_project": (
        f"projects[0].instance: unknown key; allowed here: {SETTINGS}, id, name,"
        " region, endpoint, iam_endpoint, auth, instances, discovery",
    ),
    "unknown_key_in_instance": (
        f"projects[0].instances[0].tags: unknown key; allowed here: {SETTINGS}, id, name",
    ),
    "unknown_key_in_discovery": (
        "projects[0].discovery.tag: unknown key; allowed here: enabled, refresh_interval, name,"
        " tags, exclude",
    ),
    "unknown_key_in_auth": (
        "projects[0].auth.pasword: unknown key; allowed for auth type token: type, token,"
        " token_file",
    ),
    "unknown_key_without_value": (
        "projects[0].auth: unknown key without a value (it is not shown); allowed for auth type"
        " token: type, token, token_file",
    ),
    "unknown_key_that_is_no_word": (
        "projects[0].auth.(not shown): unknown key; allowed for auth type token: type, token,"
        " token_file",
    ),
    "env_with_keys": (
        "projects[0].auth.access_key: unknown key; allowed for auth type env: type",
        "projects[0].auth.secret_key: unknown key; allowed for auth type env: type",
    ),
    # Ids
    "project_id_missing": ("projects[0].id: is required",),
    "project_id_with_slash": (f"projects[0].id: {ID}",),
    "instance_id_missing": ("projects[0].instances[0].id: is required",),
    "instance_id_number": (f"projects[0].instances[0].id: {TEXT}",),
    "instance_id_with_space": (f"projects[0].instances[0].id: {ID}",),
    "instance_id_too_long": (f"projects[0].instances[0].id: {ID}",),
    "duplicate_project": ("projects[2]: project p1 is listed twice, first as projects[0]",),
    "duplicate_instance": (
        "projects[0].instances[2]: instance i1 is listed twice, first as projects[0].instances[0]",
    ),
    # Instances and discovery
    "instances_no_list": ("projects[0].instances: must be a list",),
    "neither_instances_nor_discovery": ("projects[0]: needs instances, discovery, or both",),
    "discovery_disabled_and_no_instances": (
        "projects[0]: needs instances: discovery is not enabled",
    ),
    "discovery_tags_number": (f"projects[0].discovery.tags.tier: {TEXT}",),
    "discovery_exclude_no_list": ("projects[0].discovery.exclude: must be a list",),
    "discovery_interval_too_long": (
        "projects[0].discovery.refresh_interval: must be from 1s to 7d",
    ),
    # Regions and endpoints
    "region_missing": (
        "projects[0].region: is required, unless endpoint is set"
        f" (regions with a default: {REGIONS})",
    ),
    "region_missing_with_password": (
        "projects[0].region: is required, unless endpoint and iam_endpoint are set"
        f" (regions with a default: {REGIONS})",
    ),
    "region_unknown": (
        "projects[0].region: no default is known for eu-de-1: set endpoint"
        f" (regions with a default: {REGIONS})",
    ),
    "region_unknown_with_password": (
        "projects[0].region: no default is known for eu-de-1: set endpoint and iam_endpoint"
        f" (regions with a default: {REGIONS})",
    ),
    "region_without_database_endpoint": (
        "projects[0].region: no default is known for eu-west-101: set endpoint"
        f" (regions with a default: {REGIONS})",
    ),
    "iam_endpoint_missing": (
        "projects[0].region: is required, unless iam_endpoint is set"
        f" (regions with a default: {REGIONS})",
    ),
    "endpoint_without_scheme": (f"projects[0].endpoint: {URL}",),
    "endpoint_with_path": (f"projects[0].endpoint: {URL}",),
    "endpoint_with_password": (f"projects[0].endpoint: {URL}",),
    # Auth
    "auth_no_mapping": ("projects[0].auth: must be a mapping",),
    "auth_type_unknown": (
        "projects[0].auth.type: must be one of password, aksk, ecs-agency, token, env",
    ),
    "password_incomplete": (
        "projects[0].auth: needs one of password and password_file",
        "projects[0].auth.domain: is required",
        "projects[0].auth.username: is required",
    ),
    "password_and_file": ("projects[0].auth: needs one of password and password_file, not both",),
    "password_number": (f"projects[0].auth.password: {TEXT}",),
    "password_empty": ("projects[0].auth.password: must not be empty",),
    "password_of_two_lines": (
        "projects[0].auth.password: must be one line: it holds a line break",
    ),
    "aksk_incomplete": (
        "projects[0].auth: needs one of secret_key and secret_key_file",
        "projects[0].auth.access_key: is required",
    ),
    "aksk_secret_twice": (
        "projects[0].auth: needs one of secret_key and secret_key_file, not both",
    ),
    "aksk_access_key_with_space": (f"projects[0].auth.access_key: {HEADER}",),
    "token_missing": ("projects[0].auth: needs one of token and token_file",),
    "token_with_space": (f"projects[0].auth.token: {HEADER}",),
    "token_file_empty": ("projects[0].auth.token_file: must be the path of a file",),
    "metadata_endpoint_with_path": (f"projects[0].auth.metadata_endpoint: {URL}",),
    # Values
    "lookback_too_short": ("defaults.lookback: must be from 5m to 732d",),
    "lookback_too_long": ("projects[0].lookback: must be from 5m to 732d",),
    "lookback_without_unit": (
        f"defaults.lookback: {DURATION} from 5m to 732d (a unit is missing)",
    ),
    "lookback_in_words": (f"projects[0].instances[0].lookback: {DURATION} from 5m to 732d",),
    "stale_after_zero": ("defaults.stale_after: must be from 1s to 732d",),
    "offsite_number": ("defaults.offsite: must be true or false",),
    "timeout_fraction": (f"api.timeout: {DURATION} from 1ms to 10m",),
    "retries_negative": ("api.retries: must be a whole number from 0 to 10",),
    "retries_fraction": ("api.retries: must be a whole number from 0 to 10",),
    "retries_truth_value": ("api.retries: must be a whole number from 0 to 10",),
    "max_connections_zero": ("api.max_connections: must be a whole number from 1 to 10000",),
    "rate_limit_negative": ("api.rate_limit: must be a number from 0 to 100000",),
    "rate_limit_infinite": ("api.rate_limit: must be a number from 0 to 100000",),
    "proxy_url_without_scheme": (f"api.proxy_url: {PROXY}",),
    "proxy_url_socks": (f"api.proxy_url: {PROXY}",),
    "scrape_timeout_too_long": ("scrape.timeout: must be from 1ms to 1h",),
    # Variables
    "variable_unset": (f"projects[0].auth.token: {NOT_SET}",),
    "variable_unset_in_region": (f"projects[0].region: {NOT_SET}",),
    "variable_unset_in_auth_type": (f"projects[0].auth.type: {NOT_SET}",),
    "variable_unset_in_lower_case": (
        "projects[0].auth.token: the environment variable that is named here is not set"
        " ($$ is a dollar)",
    ),
    "variable_unclosed": (f"projects[0].auth.token: {DOLLAR}",),
    "variable_without_name": (f"projects[0].name: {DOLLAR}",),
    # All in one go, in the order of the text
    "several": (
        "defaults.lookback: must be from 5m to 732d",
        f"defaults.ofsite: unknown key; allowed here: {SETTINGS}",
        "api.retries: must be a whole number from 0 to 10",
        "api.timeout: must be from 1ms to 10m",
        f"projects[0].id: {ID}",
        "projects[0].region: no default is known: set endpoint"
        f" (regions with a default: {REGIONS})",
        f"projects[0].stale_after: {DURATION} from 1s to 732d",
        "projects[0].auth: needs one of secret_key and secret_key_file, not both",
        "projects[0].auth.access_key: is required",
        "projects[0].instances[0].lookback: must be from 5m to 732d",
        "projects[0].instances[1]: instance i1 is listed twice, first as projects[0].instances[0]",
        "projects[1]: needs instances, discovery, or both",
        f"projects[1].name: {TEXT}",
        f"projects[1].region: {NOT_SET}",
    ),
}


def problems_of(text: str, **environment: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, environment=environment)
    return raised.value.problems


def project(text: str = "", **environment: str) -> Any:
    """The first project of the minimal configuration with `text` (its further keys) added."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return parse_config(MINIMAL + lines, environment=environment).projects[0]


# What is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_mistake_is_named_with_its_path_and_what_is_allowed(name: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(MISTAKES / f"{name}.yaml", environment={})
    assert raised.value.problems == PROBLEMS[name]


def test_every_file_of_a_mistake_is_in_the_table() -> None:
    assert {path.stem for path in MISTAKES.glob("*.yaml")} == set(PROBLEMS)


def test_a_problem_is_one_line_each() -> None:
    assert not [text for problems in PROBLEMS.values() for text in problems if "\n" in text]


def test_a_missing_file_is_told_with_the_flag_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "absent.yaml")
    assert raised.value.problems == (
        f"cannot read {tmp_path}/absent.yaml: No such file or directory; name it with"
        " --config.file",
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path)
    assert raised.value.problems == (
        f"cannot read {tmp_path}: Is a directory; name it with --config.file",
    )


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("projects: # für".encode("latin-1"))
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert raised.value.problems == (f"{path} is not UTF-8 text (byte 13)",)


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
    "id_", ["", "a b", "ä", "a.b", "a/b", "..", "%2e", "a\\n", "a?b", "a" * 65]
)
def test_nothing_else_becomes_a_part_of_a_path(id_: str) -> None:
    text = f'projects: [{{id: "{id_}", region: cn-north-4, instances: ["{id_}"]}}]'
    assert problems_of(text) == (f"projects[0].id: {ID}", f"projects[0].instances[0].id: {ID}")


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
    "endpoint",
    [
        "https://",
        "ftp://host",
        "https://host/path",
        "https://host?query",
        "https://host#fragment",
        "https://user:hunter2@host",
        "https://host:0",
        "https://host:99999",
        "https://host:port",
        "https://ho st",
        "https://ho\\nst",
        "https://[::1",
        "https://bücher.example",
        "//host",
        "host",
        "",
    ],
)
def test_what_is_no_endpoint_is_refused_without_being_shown(endpoint: str) -> None:
    text = f'projects: [{{id: p, region: cn-north-4, endpoint: "{endpoint}", instances: [i]}}]'
    assert problems_of(text) == (f"projects[0].endpoint: {URL}",)


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
        "(not shown): unknown key; allowed here: defaults, api, scrape, projects",
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
@settings(max_examples=150, deadline=None)
def test_any_tree_is_accepted_or_refused_in_words(tree: Any) -> None:
    accept_or_refuse(yaml.safe_dump(tree, allow_unicode=True))


@given(_project_shaped())
@settings(max_examples=150, deadline=None)
def test_any_tree_of_projects_is_accepted_or_refused_in_words(tree: Any) -> None:
    accept_or_refuse(yaml.safe_dump(tree, allow_unicode=True))


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text_is_accepted_or_refused_in_words(text: str) -> None:
    accept_or_refuse(text)


@given(st.data())
@settings(max_examples=100, deadline=None)
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
@settings(max_examples=150, deadline=None)
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
@settings(max_examples=100, deadline=None)
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
