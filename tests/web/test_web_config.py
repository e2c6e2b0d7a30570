"""What the file says, and what is wrong with it."""

import os
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.web.web_config import parse_web_config, read_web_config
from tests.support.paths import TESTDATA

TESTDATA = TESTDATA / "webconfig"
ALICE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"
BOB = "$2a$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m"


def write(path: Path, text: str) -> Path:
    """Replaces the file as editors and Kubernetes do: never half written, always another inode."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
    return path


@pytest.mark.parametrize("bad", sorted(TESTDATA.glob("bad-*.yml")), ids=lambda path: path.stem)
def test_every_problem_of_a_bad_file_is_reported_at_once(bad: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_web_config(bad.read_text(), name=bad.name)
    assert list(raised.value.problems) == bad.with_suffix(".txt").read_text().splitlines()


@pytest.mark.parametrize("bad", sorted(TESTDATA.glob("bad-*.yml")), ids=lambda path: path.stem)
def test_neither_hashes_nor_passwords_are_in_a_problem(bad: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_web_config(bad.read_text())
    assert "secret-password" not in str(raised.value)
    assert "mDwo" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "# nothing", "tls_server_config: {}\nhttp_server_config:\nbasic_auth_users:\n"],
)
def test_an_empty_file_asks_for_nothing(text: str) -> None:
    config = parse_web_config(text)
    assert config.tls is None
    assert config.users == {}
    assert config.response_headers == []


def test_hashes_are_not_in_the_representation() -> None:
    assert "mDwo" not in repr(parse_web_config(f"basic_auth_users: {{alice: {ALICE}}}"))


def test_everything_that_is_supported_is_read() -> None:
    config = read_web_config(TESTDATA / "everything.yml").config
    assert config.users == {"alice": ALICE, "bob": BOB}
    assert config.response_headers == [
        (b"content-security-policy", b"default-src 'none'; img-src 'self'"),
        (b"strict-transport-security", b"max-age=31536000"),
        (b"x-frame-options", b"deny"),
        (b"x-xss-protection", b"1"),
    ]
    tls = config.tls
    assert tls is not None
    assert tls.client_auth_type == "RequireAndVerifyClientCert"
    assert tls.client_allowed_sans == ("prometheus.example",)
    assert tls.curve_preferences == ("X25519", "CurveP256")
    assert config.rate_limit.interval == 0


def test_paths_are_relative_to_the_folder_of_the_file() -> None:
    tls = read_web_config(TESTDATA / "everything.yml").config.tls_server_config
    assert tls.files == [
        TESTDATA / "server.crt",
        Path("/etc/tls/server.key"),
        TESTDATA / "../clients.crt",
    ]


def test_a_problem_of_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", "tls: 1")
    with pytest.raises(ConfigError) as raised:
        read_web_config(path)
    assert raised.value.problems[0].startswith(f"{path}:1:1: tls: unknown key")


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_web_config(tmp_path / "web.yml")
    assert raised.value.problems == (f"{tmp_path}/web.yml: there is no such file",)


def test_a_file_that_is_no_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-16 text"):
        read_web_config(tmp_path / "web.yml")
