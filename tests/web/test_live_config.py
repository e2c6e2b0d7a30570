"""A web configuration that changes while it is in force."""

import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.errors import ConfigError
from exporter.web.live_config import LoadedWebConfig
from tests.support.certificates import Authority

ALICE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"


def write(path: Path, text: str) -> Path:
    """Replaces the file as editors and Kubernetes do: never half written, always another inode."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
    return path


def users_file(*names: str) -> str:
    return "basic_auth_users:\n" + "".join(f"  {name}: {ALICE}\n" for name in names)


def test_users_of_a_changed_file_are_taken_over(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    write(path, users_file("alice", "bob"))
    loaded.refresh()
    assert loaded.users.keys() == {"alice", "bob"}


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    loaded = LoadedWebConfig(write(tmp_path / "web.yml", users_file("alice")))
    with capture_logs() as logs:
        loaded.refresh()
    assert logs == []


@pytest.mark.parametrize("broken", ["a: [", "unknown: 1", users_file("a:b"), None])
def test_a_broken_file_keeps_the_old_one_and_is_logged_once(
    tmp_path: Path, broken: str | None
) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    if broken is None:
        path.unlink()
    else:
        write(path, broken)
    with capture_logs() as logs:
        loaded.refresh()
        loaded.refresh()
    assert loaded.users.keys() == {"alice"}
    assert [entry["event"] for entry in logs] == [
        "web config not reloaded, the old one stays in force"
    ]
    write(path, users_file("bob"))
    loaded.refresh()
    assert loaded.users.keys() == {"bob"}


def test_a_file_that_is_being_written_does_not_switch_passwords_off(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    path.write_text("")
    loaded.refresh()
    assert loaded.users.keys() == {"alice"}
    path.write_text(users_file("bob"))
    loaded.refresh()
    assert loaded.users.keys() == {"bob"}


def test_a_file_that_stays_empty_is_believed(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    path.write_text("")
    loaded.refresh()
    os.utime(path, (0, time.time() - 2))
    loaded.refresh()
    assert loaded.users == {}


@pytest.mark.parametrize(
    "without", ["basic_auth_users: {}", "basic_auth_users:", "http_server_config: {}", "# none"]
)
def test_users_that_are_deleted_are_no_users(tmp_path: Path, without: str) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    write(path, without)
    with capture_logs() as logs:
        loaded.refresh()
    assert loaded.users == {}
    assert logs[-1]["event"] == "passwords are no longer asked for"
    write(path, users_file("bob"))
    loaded.refresh()
    assert loaded.users.keys() == {"bob"}


TLS_FILE = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"


def test_certificates_and_keys_that_cannot_be_used_are_problems_of_the_check(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "web.yml", TLS_FILE)
    with pytest.raises(ConfigError) as raised:
        LoadedWebConfig(path)
    assert raised.value.problems == tuple(
        f"{path}:1:{column}: tls_server_config.{key}: {tmp_path}/server.{end}:"
        " there is no such file"
        for column, key, end in ((21, "cert_file", "crt"), (44, "key_file", "key"))
    )


@pytest.mark.parametrize(
    ("tls", "said"),
    [
        ("{min_version: TLS13, cert_file: '', key_file: ''}", "plain HTTP is spoken"),
        (
            "{cert_file: server.crt, key_file: server.key,"
            " client_auth_type: RequireAndVerifyClientCert}",
            "a certificate of any CA that the system trusts lets a client in",
        ),
    ],
)
def test_what_is_allowed_and_odd_is_a_warning_of_the_check(
    authority: Authority, tmp_path: Path, tls: str, said: str
) -> None:
    authority.issue("server")
    with capture_logs() as logs:
        LoadedWebConfig(write(tmp_path / "web.yml", f"tls_server_config: {tls}"))
    (entry,) = logs
    assert entry["log_level"] == "warning"
    assert entry["event"].endswith(said)


def test_a_changed_certificate_makes_a_new_context(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server")
    loaded = LoadedWebConfig(write(tmp_path / "web.yml", TLS_FILE))
    before = loaded.tls
    authority.issue("server")
    loaded.refresh()
    assert loaded.tls is not None
    assert loaded.tls is not before


def test_a_certificate_replaced_before_its_key_is_taken_over_with_the_key(
    authority: Authority, tmp_path: Path
) -> None:
    server = authority.issue("server")
    loaded = LoadedWebConfig(write(tmp_path / "web.yml", TLS_FILE))
    before = loaded.tls
    new = authority.issue("new")
    os.replace(new.cert_file, server.cert_file)
    loaded.refresh()
    assert loaded.tls is before
    os.replace(new.key_file, server.key_file)
    loaded.refresh()
    assert loaded.tls is not before


def test_a_new_version_whose_certificate_comes_later_is_taken_over_then(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server")
    path = write(tmp_path / "web.yml", TLS_FILE)
    loaded = LoadedWebConfig(path)
    write(path, TLS_FILE.replace("server.", "late.") + users_file("alice"))
    loaded.refresh()
    assert loaded.users == {}
    authority.issue("late")
    loaded.refresh()
    assert loaded.users.keys() == {"alice"}


@pytest.mark.parametrize(
    ("before", "after", "tls_is_on"), [(TLS_FILE, "", True), ("", TLS_FILE, False)]
)
def test_tls_is_not_switched_by_a_reload_but_the_users_are(
    authority: Authority, tmp_path: Path, before: str, after: str, tls_is_on: bool
) -> None:
    authority.issue("server")
    path = write(tmp_path / "web.yml", before + users_file("alice"))
    loaded = LoadedWebConfig(path)
    write(path, after + users_file("bob"))
    with capture_logs() as logs:
        loaded.refresh()
    assert (loaded.tls is not None) is tls_is_on
    assert loaded.users.keys() == {"bob"}
    assert logs[0]["event"] == "restart needed to switch TLS on or off"
    assert logs[0]["tls_is_on"] is tls_is_on
