import os
from pathlib import Path

import pytest

from exporter.credentials.profile import Profile, ProfileFile, parse_profile, profile_path
from exporter.credentials.values import Keys
from exporter.errors import AuthError


def test_keys_are_read_as_the_sdk_reads_them() -> None:
    text = "[basic]\nak = AK1\nsk = se%cret=\nsecurity_token = t\nproject_id = p\n"
    profile = parse_profile(text, "basic", "FILE")
    assert profile.keys == Keys("AK1", "se%cret=", "t")
    assert "se%cret" not in repr(profile)


def test_an_identity_provider_goes_before_keys() -> None:
    text = (
        "[basic]\nidp_id=idp\nid_token_file=token\nak=AK1\nsk=s\n"
        "iam_endpoint = https://iam.example/\n"
    )
    profile = parse_profile(text, "basic", "FILE")
    assert (profile.idp_id, profile.id_token_file) == ("idp", "token")
    assert profile.iam_endpoint == "https://iam.example"


def test_half_an_identity_provider_beside_keys_is_none() -> None:
    assert parse_profile("[basic]\nak=AK1\nsk=s\nidp_id=i\n", "basic", "FILE").idp_id == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"FILE has no section \[basic\]; its sections: none"),
        ("[global]\nak=a\nsk=hunter2\n", r"no section \[basic\]; its sections: global"),
        ("ak=hunter2\n", r"FILE is no INI file \(line 1\)"),
        ("[basic]\nhunter2\n", "FILE is no INI file"),
        ("[basic]\nsk=hunter2\nsk=hunter2\n", r"FILE is no INI file \(line 3\)"),
        ("[basic]\n", "has neither ak and sk nor idp_id and id_token_file$"),
        ("[basic]\nak=AK1\n", r"\(it has ak alone\)"),
        ("[basic]\nak=AK1\nsk=\n", r"\(it has ak alone\)"),
        ("[basic]\nidp_id=i\nsk=hunter2\n", r"\(it has idp_id and sk alone\)"),
    ],
)
def test_a_file_that_lacks_something_is_told_without_showing_it(text: str, message: str) -> None:
    with pytest.raises(AuthError, match=message) as caught:
        parse_profile(text, "basic", "FILE")
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_the_file_is_the_configurations_the_environments_or_the_homes() -> None:
    environment = {"HUAWEICLOUD_SDK_CREDENTIALS_FILE": "/named", "HOME": "/home/me"}
    assert profile_path(Path("/given"), environment) == Path("/given")
    assert profile_path(None, environment) == Path("/named")
    del environment["HUAWEICLOUD_SDK_CREDENTIALS_FILE"]
    assert profile_path(None, environment) == Path("/home/me/.huaweicloud/credentials")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text("[basic]\nak=AK1\nsk=first\n")
    file = ProfileFile(path, "basic")
    assert file.read() == Profile("AK1", "first")
    path.write_text("[basic]\nak=AK2\nsk=other\n")
    os.utime(path, ns=(7, 7))
    assert file.read() == Profile("AK2", "other")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match=r"cannot read the file .*/nowhere: No such file"):
        ProfileFile(tmp_path / "nowhere", "basic").read()
