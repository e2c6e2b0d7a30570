"""Ways in without a secret, and those with one: the chart's own examples in ci/."""

import helm_python as helm
import pytest

from tests.helm.charts import (
    Render,
    Values,
    container_of,
    find,
    notes_of,
    pod_of,
    refusal,
    values_of,
    with_values,
)


@pytest.mark.parametrize("case", ["oidc", "identity-provider"])
def test_a_token_of_the_service_account_is_where_the_exporter_looks_for_it(
    render: Render, case: str
) -> None:
    manifests = render(values_of(case))
    spec, container = pod_of(manifests)["spec"], container_of(manifests)
    (volume,) = (item for item in spec["volumes"] if item["name"] == "identity-token")
    (mount,) = (item for item in container["volumeMounts"] if item["name"] == "identity-token")
    variables = {item["name"]: item.get("value") for item in container["env"]}

    assert volume["projected"]["sources"] == [
        {
            "serviceAccountToken": {
                "path": "token",
                "audience": "my-client-id",
                "expirationSeconds": 3600,
            }
        }
    ]
    token_file = f"{mount['mountPath']}/token"
    assert variables["HUAWEICLOUD_OIDC_TOKEN_FILE"] == token_file
    assert variables.get("HUAWEICLOUD_SDK_ID_TOKEN_FILE", token_file) == token_file
    assert spec["automountServiceAccountToken"] is False


def test_the_service_account_may_have_annotations_and_a_name(render: Render) -> None:
    account = {"name": "reader", "annotations": {"example.com/agency": "backup-reader"}}
    manifests = render(with_values("pod-identity", {"serviceAccount": account}))

    made = find(manifests, "ServiceAccount")
    assert made["metadata"]["name"] == "reader"
    assert made["metadata"]["annotations"] == {"example.com/agency": "backup-reader"}
    assert pod_of(manifests)["spec"]["serviceAccountName"] == "reader"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("pod-identity", "service account backup-exporter of the namespace databases"),
        ("oidc", "system:serviceaccount:databases:backup-exporter and the audience my-client-id"),
        ("ecs-agency", "The nodes that the pods run on need an agency"),
    ],
)
def test_notes_say_that_no_secret_is_needed_and_what_is(
    chart: helm.Chart, case: str, said: str
) -> None:
    notes = notes_of(chart, values_of(case))

    assert said in notes
    assert "No secret is needed" in notes


@pytest.mark.parametrize(
    "case", ["password", "aksk", "profile", "token", "env", "identity-provider"]
)
def test_notes_do_not_promise_it_where_a_secret_is_needed(chart: helm.Chart, case: str) -> None:
    notes = notes_of(chart, values_of(case))

    assert "No secret is needed" not in notes


@pytest.mark.parametrize(
    ("case", "changes", "advice"),
    [
        ("oidc", {"identityToken": {"audience": ""}}, "needs identityToken.audience"),
        (
            "oidc",
            {"identityToken": {"enabled": False}},
            "config.projects[0].auth: type oidc has no token to show: set identityToken.enabled",
        ),
    ],
)
def test_an_identity_token_that_is_not_whole_is_refused(
    chart: helm.Chart, case: str, changes: Values, advice: str
) -> None:
    assert advice in refusal(chart, with_values(case, changes))


def test_the_network_policy_lets_a_pod_ask_for_its_keys(render: Render) -> None:
    def blocks(case: str) -> list[str]:
        policy = find(render(values_of(case)), "NetworkPolicy")
        return [
            to["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for to in rule.get("to", [])
        ]

    assert blocks("pod-identity") == ["169.254.0.0/16"]
    assert blocks("ecs-agency") == ["169.254.169.254/32"]
