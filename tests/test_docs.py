"""The documents say what the program does: compared with it, not with each other."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import yaml

from exporter.cli import main
from exporter.command.flags import build_parser
from exporter.config.auth import (
    ONE_OF,
    AkskAuth,
    AssumeAgency,
    EcsAgencyAuth,
    EnvAuth,
    OidcAuth,
    PasswordAuth,
    PodIdentityAuth,
    ProfileAuth,
    StaticTokenAuth,
)
from exporter.config.load import parse_config
from exporter.config.regions import KNOWN_REGIONS
from exporter.config.schema import (
    ApiConfig,
    Config,
    Defaults,
    DiscoveryConfig,
    InstanceConfig,
    ProjectConfig,
    ScrapeConfig,
)
from exporter.config.section import Section
from exporter.errors import Reason
from exporter.exposition.metrics import OwnMetrics, SnapshotCollector
from exporter.transport.permissions import (
    LIST_BACKUPS,
    LIST_INSTANCES,
    SHOW_RESTORE_TIME,
    Permission,
)
from tests.exposition.test_metrics import SNAPSHOT
from tests.support.paths import ROOT

EXAMPLE = (ROOT / "config.example.yaml").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()

# The headings of docs/configuration.md, and the least that makes a valid section.
SECTIONS: Mapping[str, tuple[type[Section], Mapping[str, Any]]] = {
    "`defaults`": (Defaults, {}),
    "`api`": (ApiConfig, {}),
    "`scrape`": (ScrapeConfig, {}),
    "`projects[]`": (ProjectConfig, {"id": "p"}),
    "`projects[].instances[]`": (InstanceConfig, {"id": "i"}),
    "`projects[].discovery`": (DiscoveryConfig, {}),
    "`projects[].auth`, type `password`": (
        PasswordAuth,
        {"type": "password", "domain": "d", "username": "u"},
    ),
    "`projects[].auth`, type `aksk`": (AkskAuth, {"type": "aksk", "access_key": "a"}),
    "`projects[].auth`, type `ecs-agency`": (EcsAgencyAuth, {"type": "ecs-agency"}),
    "`projects[].auth`, type `pod-identity`": (PodIdentityAuth, {"type": "pod-identity"}),
    "`projects[].auth`, type `oidc`": (OidcAuth, {"type": "oidc"}),
    "`projects[].auth`, type `profile`": (ProfileAuth, {"type": "profile"}),
    "`projects[].auth`, type `token`": (StaticTokenAuth, {"type": "token"}),
    "`projects[].auth`, type `env`": (EnvAuth, {}),
    "`projects[].auth.assume_agency`": (AssumeAgency, {}),
}
# Sections and lists of them: where their own tables begin.
CONTAINERS = {
    "projects",
    "auth",
    "assume_agency",
    "instances",
    "discovery",
    "defaults",
    "api",
    "scrape",
}


def sections_of(text: str) -> dict[str, str]:
    """What stands under each `###` heading."""
    parts = re.split(r"^(#{2,3}) (.+)\n", text, flags=re.MULTILINE)
    return {parts[i + 1]: parts[i + 2] for i in range(1, len(parts), 3)}


def rows_of(text: str) -> Iterator[list[str]]:
    """The cells of the rows of all Markdown tables in `text`, without their headings."""
    lines = text.splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("| `") or (line.startswith("| ") and before.startswith("| ---")):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


ROWS = [
    pytest.param(heading, row, id=f"{heading} {row[0]}")
    for heading, body in sections_of(CONFIGURATION).items()
    if heading in SECTIONS
    for row in rows_of(body)
]


# docs/configuration.md ------------------------------------------------------------------------


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_is_documented_and_every_documented_key_exists(heading: str) -> None:
    model, _ = SECTIONS[heading]
    documented = [row[0].strip("`") for row in rows_of(sections_of(CONFIGURATION)[heading])]
    assert sorted(documented) == sorted(model.model_fields)


def test_no_section_of_the_configuration_is_forgotten() -> None:
    known = {model for model, _ in SECTIONS.values()}
    seen: set[type[Section]] = set()

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, Section):
            seen.add(annotation)
            for field in annotation.model_fields.values():
                visit(field.annotation)
        for argument in get_args(annotation):
            visit(argument)

    visit(Config)
    assert seen == known | {Config}


@pytest.mark.parametrize(("heading", "row"), ROWS)
def test_documented_defaults_are_the_real_ones(heading: str, row: list[str]) -> None:
    model, minimal = SECTIONS[heading]
    key, default = row[0].strip("`"), row[2]
    if default == "required":
        assert model.model_fields[key].is_required()
    elif default == "":
        assert model.model_fields[key].get_default() is None
    elif default == "the region's":
        project = parse_config("projects: [{id: p, region: cn-north-4, instances: [i]}]")
        assert getattr(project.projects[0], key).endswith(".cn-north-4.myhuaweicloud.com")
    elif default == "type `env`":
        assert isinstance(model.model_fields[key].get_default(), EnvAuth)
    else:
        written = re.fullmatch(r"`([^`]*)`", default)
        assert written, default
        given = model.model_validate({**minimal, key: yaml.safe_load(written[1])})
        assert given == model.model_validate(dict(minimal))


@pytest.mark.parametrize(("heading", "row"), [row for row in ROWS if "` to `" in str(row.values)])
def test_documented_bounds_are_the_real_ones(heading: str, row: list[str]) -> None:
    model, minimal = SECTIONS[heading]
    key, kind = row[0].strip("`"), row[1]
    bounds = re.fullmatch(r"`([^`]+)` to `([^`]+)`", row[3])
    assert bounds
    low, high = bounds.groups()
    for bound in (low, high):
        model.model_validate({**minimal, key: yaml.safe_load(bound)})
    beyond = ["1ms", "9999d"] if kind == "duration" else [int(low) - 1, int(high) + 1]
    for value in beyond:
        if value == low or (value == "1ms" and low == "0s"):
            continue
        with pytest.raises(ValueError, match=f"from {low} to {high}"):
            model.model_validate({**minimal, key: value})


def test_the_regions_with_a_default_are_named() -> None:
    named = re.search(r"Regions with default endpoints: (.*?)\.", CONFIGURATION, re.DOTALL)
    assert named
    assert named[1].replace("\n", " ").split(", ") == list(KNOWN_REGIONS)


def test_the_documented_help_is_the_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    block = re.search(r"## Command line\n\n```\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert block
    # Lines are broken differently by other versions of Python.
    assert block[1].split() == build_parser().format_help().split()


# config.example.yaml --------------------------------------------------------------------------


def test_the_example_loads_without_any_environment() -> None:
    config = parse_config(EXAMPLE, environment={})
    assert {type(project.auth) for project in config.projects} == {
        PasswordAuth,
        AkskAuth,
        EcsAgencyAuth,
        PodIdentityAuth,
        OidcAuth,
        ProfileAuth,
        StaticTokenAuth,
        EnvAuth,
    }


def test_the_examples_alternatives_in_comments_load_as_well() -> None:
    """Each `# password: ...` in place of the line of the file that it is the alternative of."""
    text = EXAMPLE
    for inline, file in ONE_OF.values():
        text, replaced = re.subn(rf"^ +{file}: /run/.*\n", "", text, flags=re.MULTILINE)
        assert replaced == 1, file
        text, uncommented = re.subn(rf"# ({inline}: )", r"\1", text)
        assert uncommented == 1, inline
    text = text.replace("# security_token: ", "security_token: ")
    names = re.findall(r"\$\{(GAUSSDB_\w+)\}", text)
    assert len(names) == 4
    config = parse_config(text, environment={name: f"a-{name}" for name in names})
    auth = config.projects[1].auth
    assert isinstance(auth, AkskAuth)
    assert auth.security_token is not None
    assert auth.security_token.get_secret_value() == "a-GAUSSDB_SECURITY_TOKEN"


def test_the_example_names_every_key() -> None:
    tree = yaml.safe_load(EXAMPLE)
    named: dict[str, set[str]] = {"": set(tree)}
    for name in ("defaults", "api", "scrape"):
        named[f"`{name}`"] = set(tree[name])
    for project in tree["projects"]:
        auth = f"`projects[].auth`, type `{project['auth']['type']}`"
        named.setdefault("`projects[]`", set()).update(project)
        named.setdefault(auth, set()).update(project["auth"])
        agency = project["auth"].get("assume_agency", {})
        named.setdefault("`projects[].auth.assume_agency`", set()).update(agency)
        named.setdefault("`projects[].discovery`", set()).update(project["discovery"])
        for instance in project.get("instances", []):
            if isinstance(instance, dict):
                named.setdefault("`projects[].instances[]`", set()).update(instance)
    named["`projects[].auth`, type `password`"].add("password")
    named["`projects[].auth`, type `aksk`"] |= {"secret_key", "security_token"}
    named["`projects[].auth`, type `token`"].add("token")
    named["`projects[].auth.assume_agency`"].add("domain_id")
    for type_ in ("pod-identity", "oidc", "profile", "env"):
        named[f"`projects[].auth`, type `{type_}`"].add("assume_agency")
    wanted = {heading: set(model.model_fields) for heading, (model, _) in SECTIONS.items()}
    assert named == {"": set(Config.model_fields), **wanted}


def test_the_examples_defaults_are_the_real_ones() -> None:
    """The sections at the top may be left out without a difference."""
    tree = yaml.safe_load(EXAMPLE)
    shortened = yaml.safe_dump({"projects": tree["projects"]})
    assert parse_config(EXAMPLE) == parse_config(shortened)


@pytest.mark.parametrize(
    "path", ["README.md", "docs/configuration.md", "docs/operations.md", "CONTRIBUTING.md"]
)
def test_configurations_in_the_documents_load(path: str) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)
    for block in blocks:
        if block.startswith("projects:"):
            parse_config(block, environment={})


# docs/metrics.md ------------------------------------------------------------------------------

METRIC_ROWS = [row for row in rows_of(METRICS) if len(row) == 5]


def published() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels of every metric by the name that Prometheus shows."""
    found = {}
    own = OwnMetrics()
    for collector in (SnapshotCollector(SNAPSHOT), own.registry):
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels}
            found[name] = (family.type, frozenset(labels - {"le"}))
    return found


def test_every_metric_is_documented_with_its_type_and_labels() -> None:
    documented = {
        row[0].strip("`"): (row[1], frozenset(re.findall(r"`(\w+)`", row[2])))
        for row in METRIC_ROWS
    }
    assert documented == published()


def test_no_metric_is_documented_twice_or_without_a_value() -> None:
    names = [row[0] for row in METRIC_ROWS]
    assert len(set(names)) == len(names)
    assert all(row[3] for row in METRIC_ROWS)


def test_every_reason_is_documented() -> None:
    reasons = [row[0].strip("`") for row in rows_of(METRICS) if len(row) == 2]
    assert reasons == [reason.value for reason in Reason]


def test_the_readmes_metrics_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"gaussdb_mysql_[a-z_]+[a-z]", readme))
    assert named
    assert named <= set(published())


POLICY = re.compile(r"```json\n(\{.*?\})\n```", re.DOTALL)


def test_policies_name_actions_of_their_own_grammar() -> None:
    """The two do not mix: a policy of version 1.1 with `gaussdbformysql:` actions is refused."""
    policies = [json.loads(text) for text in POLICY.findall((ROOT / "README.md").read_text())]
    granted = {
        policy["Version"]: {action for each in policy["Statement"] for action in each["Action"]}
        for policy in policies
        if "Statement" in policy
    }
    needed = [LIST_BACKUPS, LIST_INSTANCES, SHOW_RESTORE_TIME]
    assert granted == {
        "1.1": {action for permission in needed for action in permission.custom},
        "5.0": {permission.identity for permission in needed},
    }


@pytest.mark.parametrize("permission", [LIST_BACKUPS, LIST_INSTANCES, SHOW_RESTORE_TIME])
def test_every_permission_is_in_the_documents_in_both_grammars(permission: Permission) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for action in (permission.identity, *permission.custom):
        assert f"`{action}`" in text


def test_the_readme_shows_what_once_prints_on_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    def shown(text: str) -> list[list[str]]:
        """The verdict, the counts, the headings, and of each row the state and the name."""
        lines = text[text.index("4 of 6 instances") :].splitlines()
        verdict, _, counts, _, headings, *rows = lines[:11]
        cells = [re.split(r" {2,}", row)[:2] for row in rows]
        return [[verdict, counts], re.split(r" {2,}", headings), *cells]

    assert main(["--demo", "--once", "--output", "table", "--log.level", "error"]) == 1
    assert shown((ROOT / "README.md").read_text()) == shown(capsys.readouterr().out)
