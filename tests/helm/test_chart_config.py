"""The configuration and the secrets that the chart mounts."""

import base64
import json
import re
from pathlib import Path

import helm_python as helm
import pytest
import yaml

from exporter.cli import main
from exporter.command.flags import parse_arguments
from exporter.config.auth import (
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
from exporter.config.durations import parse_duration
from exporter.config.schema import (
    ApiConfig,
    Config,
    Defaults,
    DiscoveryConfig,
    InstanceConfig,
    ProjectConfig,
    ScrapeConfig,
)
from exporter.web.web_config import parse_web_config
from tests.helm.charts import (
    CASES,
    CHART,
    FOLDER,
    NAME,
    WAYS_IN,
    Render,
    Values,
    config_of,
    container_of,
    kinds,
    notes_of,
    pod_of,
    refusal,
    secret_file,
    values_of,
    with_values,
)
from tests.support.certificates import Authority

# Configuration and secrets ----------------------------------------------------------------------


def test_configuration_arrives_unchanged(render: Render) -> None:
    config = values_of("everything")["config"]
    by_name = config.pop("projectsByName")
    config["projects"] += [
        {"name": "archive", **by_name["archive"]},
        {**by_name["staging"], "name": "databases-staging"},
    ]

    assert yaml.safe_load(config_of(render(values_of("everything")))) == config


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("minimal", "config OK: 1 projects, 1 instances"),
        ("everything", "config OK: 7 projects, 3 instances"),
        ("everything_off", "config OK: 1 projects, 0 instances"),
        ("own_secrets", "config OK: 1 projects, 1 instances"),
        ("tls_alone", "config OK: 1 projects, 0 instances"),
        *(
            (case, f"config OK: {2 if case == 'assume-agency' else 1} projects, 0 instances")
            for case in WAYS_IN
        ),
    ],
)
def test_mounted_configuration_passes_the_exporter_s_check(
    render: Render,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
    said: str,
) -> None:
    manifests = render(values_of(case))
    (config,) = (item for item in manifests if "config.yaml" in item.get("data", {}))
    # The one file that has to be there when the configuration is checked.
    authority = Authority(tmp_path)
    text = config["data"]["config.yaml"].replace("/etc/own-ca/ca.crt", str(authority.cert_file))
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    for variable in container_of(manifests).get("env", []):
        monkeypatch.setenv(variable["name"], "made-up")

    code = main(["--config.check", "--config.file", str(file)])

    shown = capsys.readouterr()
    assert (code, shown.out.strip()) == (0, said), shown.err


def test_flags_of_the_pod_are_flags_of_the_exporter(render: Render) -> None:
    arguments = container_of(render(values_of("everything")))["args"]
    numbered = [argument.replace("$(POD_INDEX)", "2") for argument in arguments]
    options = parse_arguments(numbered)

    assert (options.shard, options.total_shards) == (2, 3)
    assert options.listen_addresses == (":9999", ":10000")
    assert options.external_url == "https://backups.internal"
    assert options.telemetry_path == "/metrics/backups"
    assert options.enable_lifecycle


def test_schema_knows_exactly_the_keys_of_the_configuration() -> None:
    definitions = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))[
        "definitions"
    ]
    config = definitions["config"]["properties"]
    auth = {
        condition["if"]["properties"]["type"]["const"]: set(condition["then"]["properties"])
        for condition in definitions["auth"]["allOf"]
        if "properties" in condition["if"]
    }

    assert set(config) - {"projectsByName"} == set(Config.model_fields)
    assert set(config["defaults"]["properties"]) == set(Defaults.model_fields)
    assert set(config["api"]["properties"]) == set(ApiConfig.model_fields)
    assert set(config["scrape"]["properties"]) == set(ScrapeConfig.model_fields)
    assert set(definitions["project"]["properties"]) == set(ProjectConfig.model_fields)
    assert set(definitions["instance"]["else"]["properties"]) == set(InstanceConfig.model_fields)
    assert set(definitions["discovery"]["properties"]) == set(DiscoveryConfig.model_fields)
    assert set(definitions["auth"]["properties"]) == set().union(*auth.values())
    assert auth == {
        "password": set(PasswordAuth.model_fields),
        "aksk": set(AkskAuth.model_fields),
        "ecs-agency": set(EcsAgencyAuth.model_fields),
        "pod-identity": set(PodIdentityAuth.model_fields),
        "oidc": set(OidcAuth.model_fields),
        "profile": set(ProfileAuth.model_fields),
        "token": set(StaticTokenAuth.model_fields),
        "env": set(EnvAuth.model_fields),
    }
    assert set(definitions["assumeAgency"]["properties"]) == set(AssumeAgency.model_fields)


@pytest.mark.parametrize(
    ("duration", "legal"),
    [
        ("0", True),
        ("500ms", True),
        ("30s", True),
        ("1h30m", True),
        ("1y2w3d4h5m6s7ms", True),
        ("", False),
        ("30", False),
        ("1.5h", False),
        ("-5m", False),
        ("5m 1s", False),
        ("30m1h", False),
        ("1h1h", False),
        ("1H", False),
    ],
)
def test_schema_and_exporter_agree_on_durations(
    chart: helm.Chart, duration: str, legal: bool
) -> None:
    try:
        parse_duration(duration)
        accepted = True
    except ValueError:
        accepted = False
    values = with_values("minimal", {"config": {"scrape": {"min_interval": duration}}})
    try:
        chart.render(values, name="backups")
        rendered = True
    except helm.HelmError:
        rendered = False

    assert (accepted, rendered) == (legal, legal)


def test_numbers_of_the_configuration_stay_numbers(render: Render) -> None:
    # Helm reads every number as a float; 1e+06 would be a text to the exporter.
    api = {"max_connections": 10_000, "rate_limit": 100_000}
    text = config_of(render(with_values("minimal", {"config": {"api": api}})))

    assert yaml.safe_load(text)["api"] == api


def test_checksum_follows_the_configuration_and_nothing_else(render: Render) -> None:
    def checksum(changes: Values) -> str:
        pod = pod_of(render(with_values("minimal", changes)))
        text: str = pod["metadata"]["annotations"]["checksum/config"]
        return text

    assert re.fullmatch("[0-9a-f]{64}", checksum({}))
    assert checksum({"config": {"defaults": {"stale_after": "2h"}}}) != checksum({})
    assert checksum({"service": {"port": 1234}, "credentials": {"data": {"a": "b"}}}) == checksum(
        {}
    )


@pytest.mark.parametrize("case", CASES)
def test_no_secret_is_anywhere_but_in_secrets(render: Render, case: str) -> None:
    values = values_of(case)
    secrets = [*values.get("credentials", {}).get("data", {}).values()]
    secrets += values.get("web", {}).get("basicAuth", {}).get("users", {}).values()
    secrets += [base64.b64encode(secret.encode()).decode() for secret in secrets]

    for manifest in render(values):
        if manifest["kind"] != "Secret":
            text = json.dumps(manifest)
            assert [secret for secret in secrets if secret in text] == []


def test_notes_repeat_no_secret(chart: helm.Chart) -> None:
    notes = notes_of(chart, values_of("everything"))

    assert "helm test backups --namespace databases" in notes
    assert "made-up" not in notes
    assert "$2b$" not in notes


def test_credentials_become_files_of_a_secret(render: Render) -> None:
    manifests = render(values_of("everything"))

    assert secret_file(manifests, f"{NAME}-credentials", "password") == "made-up-password"
    assert secret_file(manifests, f"{NAME}-credentials", "token") == "made-up-token"


def test_existing_secrets_are_used_and_none_is_made(render: Render) -> None:
    manifests = render(values_of("own_secrets"))
    volumes = pod_of(manifests)["spec"]["volumes"]

    assert "Secret" not in kinds(manifests)
    assert [v["secret"]["secretName"] for v in volumes if "secret" in v] == [
        "gaussdb",
        "exporter-web",
    ]
    assert container_of(manifests)["volumeMounts"][1]["mountPath"] == "/run/own"


def auth_with(**auth: str) -> Values:
    project = {"id": "p", "region": "cn-north-4", "auth": auth, "discovery": {"enabled": True}}
    return {"config": {"projects": [project]}}


@pytest.mark.parametrize(
    ("auth", "path", "advice"),
    [
        (
            {"type": "password", "domain": "d", "username": "u", "password": "hunter2"},
            "config.projects[0].auth.password",
            f"password_file: {FOLDER}/secrets/KEY",
        ),
        (
            {"type": "aksk", "access_key": "AK", "secret_key": "hunter2"},
            "config.projects[0].auth.secret_key",
            f"secret_key_file: {FOLDER}/secrets/KEY",
        ),
        (
            {
                "type": "aksk",
                "access_key": "AK",
                "secret_key_file": "/k",
                "security_token": "hunter2",
            },
            "config.projects[0].auth.security_token",
            "extraEnv",
        ),
        ({"type": "token", "token": "hunter2"}, "config.projects[0].auth.token", "token_file"),
        # A variable with a text around it is a secret in part.
        (
            {"type": "token", "token": "hunter2${REST}"},
            "config.projects[0].auth.token",
            "token_file",
        ),
    ],
)
def test_secret_in_the_configuration_is_refused_with_advice(
    chart: helm.Chart, auth: dict[str, str], path: str, advice: str
) -> None:
    message = refusal(chart, auth_with(**auth))

    assert f"{path} holds a secret, and a ConfigMap is no place for one" in message
    assert advice in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("proxy_url", "refused"),
    [
        ("http://user:hunter2@proxy:3128", True),
        ("http://user:${A}hunter2@proxy:3128", True),
        ("http://user:hunt:er2@proxy:3128", True),
        ("http://user:${PROXY_PASSWORD}@proxy:3128", False),
        ("http://proxy:3128", False),
        ("${PROXY_URL}", False),
    ],
)
def test_password_of_a_proxy_is_refused_unless_from_the_environment(
    chart: helm.Chart, render: Render, proxy_url: str, refused: bool
) -> None:
    values = with_values("minimal", {"config": {"api": {"proxy_url": proxy_url}}})

    if refused:
        message = refusal(chart, values)
        assert "config.api.proxy_url holds a password" in message
        assert "hunt" not in message
    else:
        assert yaml.safe_load(config_of(render(values)))["api"]["proxy_url"] == proxy_url


def test_web_configuration_is_written_as_the_toolkit_has_it(render: Render) -> None:
    values = values_of("everything")
    written = yaml.safe_load(secret_file(render(values), f"{NAME}-web-config", "web-config.yaml"))

    assert written == {
        "tls_server_config": {
            "cert_file": f"{FOLDER}/tls/tls.crt",
            "key_file": f"{FOLDER}/tls/tls.key",
            "client_ca_file": f"{FOLDER}/tls/ca.crt",
            "client_auth_type": "RequireAndVerifyClientCert",
            "min_version": "TLS13",
        },
        "basic_auth_users": values["web"]["basicAuth"]["users"],
    }


def test_web_configuration_is_one_that_the_exporter_takes(render: Render) -> None:
    text = secret_file(render(values_of("everything")), f"{NAME}-web-config", "web-config.yaml")
    parsed = parse_web_config(text)

    assert parsed.users == values_of("everything")["web"]["basicAuth"]["users"]
    assert parsed.tls_server_config is not None
    assert parsed.tls_server_config.client_auth_type == "RequireAndVerifyClientCert"


def test_clear_password_in_place_of_a_hash_is_refused_and_not_repeated(chart: helm.Chart) -> None:
    web = {"basicAuth": {"enabled": True, "users": {"prometheus": "hunter2"}}}
    message = refusal(chart, with_values("minimal", {"web": web}))

    assert "web.basicAuth.users.prometheus is no bcrypt hash" in message
    assert "hunter2" not in message
