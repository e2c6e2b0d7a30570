import pytest

from exporter.credentials.environment import keys_from_environment
from exporter.credentials.values import Keys
from exporter.errors import AuthError


def test_the_environments_keys_are_those_of_the_vendors_sdk() -> None:
    both = {"HUAWEICLOUD_SDK_AK": "AK1", "HUAWEICLOUD_SDK_SK": "secret"}
    assert keys_from_environment(both) == Keys("AK1", "secret", None)
    assert keys_from_environment({**both, "HUAWEICLOUD_SDK_SECURITY_TOKEN": "t"}) == Keys(
        "AK1", "secret", "t"
    )
    assert keys_from_environment({**both, "HUAWEICLOUD_SDK_SECURITY_TOKEN": ""}) == Keys(
        "AK1", "secret", None
    )


@pytest.mark.parametrize(
    ("environment", "unset"),
    [
        ({}, "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK are"),
        ({"HUAWEICLOUD_SDK_AK": "AK1"}, "HUAWEICLOUD_SDK_SK is"),
        ({"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": "s"}, "HUAWEICLOUD_SDK_AK is"),
    ],
)
def test_an_environment_without_keys_is_told(environment: dict[str, str], unset: str) -> None:
    with pytest.raises(AuthError, match=f"^{unset} not set in the environment$") as caught:
        keys_from_environment(environment)
    assert "auth section" in caught.value.hint


def test_the_programs_own_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "AK1")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "secret")
    assert keys_from_environment() == Keys("AK1", "secret")


def test_white_space_around_a_variable_is_no_part_of_it() -> None:
    environment = {"HUAWEICLOUD_SDK_AK": " AK1\n", "HUAWEICLOUD_SDK_SK": "secret "}
    assert keys_from_environment(environment) == Keys("AK1", "secret")


def test_bytes_that_are_no_text_are_told_and_not_shown() -> None:
    environment = {"HUAWEICLOUD_SDK_AK": "AK1", "HUAWEICLOUD_SDK_SK": "sec\udcffret"}
    with pytest.raises(AuthError, match="HUAWEICLOUD_SDK_SK is not UTF-8 text") as caught:
        keys_from_environment(environment)
    assert "ret" not in caught.value.message
