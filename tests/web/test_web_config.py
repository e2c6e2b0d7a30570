import os
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from exporter.errors import ConfigError
from exporter.web.tls import LoadedWebConfig, load_tls_context
from exporter.web.web_config import TlsServerConfig, load_web_config, parse_web_config
from tests.support.certificates import Authority
from tests.support.paths import TESTDATA

TESTDATA = TESTDATA / "webconfig"
ALICE = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"
BOB = "$2a$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def write(path: Path, text: str) -> Path:
    """Replaces the file as editors and Kubernetes do: never half written, always another inode."""
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)
    return path


def make_tls(tmp_path: Path, **changed: object) -> TlsServerConfig:
    files = {"cert_file": str(tmp_path / "server.crt"), "key_file": str(tmp_path / "server.key")}
    return TlsServerConfig.model_validate({**files, **changed})


def problems_of(tls: TlsServerConfig) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        load_tls_context(tls)
    return raised.value.problems


# The text


@pytest.mark.parametrize("bad", sorted(TESTDATA.glob("bad-*.yml")), ids=lambda path: path.stem)
def test_every_problem_of_a_bad_file_is_reported_at_once(bad: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_web_config(bad.read_text())
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
    assert config.tls_server_config is None
    assert config.users == {}
    assert config.response_headers == []


def test_hashes_are_not_in_the_representation() -> None:
    assert "mDwo" not in repr(parse_web_config(f"basic_auth_users: {{alice: {ALICE}}}"))


def test_everything_that_is_supported_is_read() -> None:
    config = load_web_config(TESTDATA / "everything.yml")
    assert config.users == {"alice": ALICE, "bob": BOB}
    assert config.response_headers == [
        (b"strict-transport-security", b"max-age=31536000"),
        (b"x-frame-options", b"deny"),
    ]
    tls = config.tls_server_config
    assert tls is not None
    assert tls.client_auth_type == "RequireAndVerifyClientCert"
    assert tls.client_allowed_sans == ("prometheus.example",)


def test_paths_are_relative_to_the_folder_of_the_file() -> None:
    tls = load_web_config(TESTDATA / "everything.yml").tls_server_config
    assert tls is not None
    assert tls.files == [
        TESTDATA / "server.crt",
        Path("/etc/tls/server.key"),
        TESTDATA / "../clients.crt",
    ]


def test_a_problem_of_a_file_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", "tls: 1")
    with pytest.raises(ConfigError) as raised:
        load_web_config(path)
    assert raised.value.problems[0].startswith(f"{path}: tls: unknown key")


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_web_config(tmp_path / "web.yml")
    assert raised.value.problems == (
        f"{tmp_path}/web.yml: cannot be read: No such file or directory",
    )


def test_a_file_that_is_no_text_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_web_config(tmp_path / "web.yml")


# The certificate files


@pytest.mark.parametrize("key", ["cert_file", "key_file", "client_ca_file"])
def test_a_missing_certificate_file_is_named(
    authority: Authority, tmp_path: Path, key: str
) -> None:
    authority.issue("server")
    tls = make_tls(
        tmp_path,
        **{
            "client_ca_file": str(authority.cert_file),
            "client_auth_type": "RequireAndVerifyClientCert",
            key: str(tmp_path / "absent"),
        },
    )
    assert problems_of(tls) == (
        f"tls_server_config.{key}: {tmp_path}/absent cannot be read: No such file or directory",
    )


def test_a_key_of_another_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server")
    other = authority.issue("other")
    assert problems_of(make_tls(tmp_path, key_file=str(other.key_file))) == (
        f"tls_server_config.key_file: {other.key_file} does not belong to cert_file"
        f" {tmp_path}/server.crt",
    )


def test_an_encrypted_key_is_refused_and_no_terminal_asked(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server", passphrase=b"passphrase")
    assert problems_of(make_tls(tmp_path)) == (
        f"tls_server_config.key_file: {tmp_path}/server.key asks for a passphrase",
    )


def test_a_file_that_holds_no_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server").cert_file.write_text("no certificate")
    (problem,) = problems_of(make_tls(tmp_path))
    assert problem.startswith(
        f"tls_server_config.cert_file: no PEM certificate in {tmp_path}/server.crt, or no PEM key"
    )


def test_a_client_ca_file_that_holds_no_certificate_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    server = authority.issue("server")
    tls = make_tls(
        tmp_path,
        client_ca_file=str(server.key_file),
        client_auth_type="RequireAndVerifyClientCert",
    )
    assert problems_of(tls) == (
        f"tls_server_config.client_ca_file: no PEM certificate in {server.key_file}",
    )


def test_the_cipher_suites_are_those_named(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server")
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    context = load_tls_context(
        make_tls(tmp_path, cipher_suites=[suite], prefer_server_cipher_suites=False)
    )
    tls12 = [c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"]
    assert tls12 == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


# Reading again


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


@pytest.mark.parametrize("half_written", ["", "basic_auth_users:", "http_server_config: {}"])
def test_a_half_written_file_does_not_switch_passwords_off(
    tmp_path: Path, half_written: str
) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    write(path, half_written)
    loaded.refresh()
    assert loaded.users.keys() == {"alice"}


def test_passwords_are_switched_off_and_on_when_the_file_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", users_file("alice"))
    loaded = LoadedWebConfig(path)
    write(path, "basic_auth_users: {}")
    loaded.refresh()
    assert loaded.users == {}
    write(path, users_file("bob"))
    loaded.refresh()
    assert loaded.users.keys() == {"bob"}


TLS_FILE = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"


def test_a_broken_certificate_at_start_names_config_and_certificate(tmp_path: Path) -> None:
    path = write(tmp_path / "web.yml", TLS_FILE)
    with pytest.raises(ConfigError) as raised:
        LoadedWebConfig(path)
    assert raised.value.problems == (
        f"{path}: tls_server_config.cert_file: {tmp_path}/server.crt cannot be read:"
        " No such file or directory",
    )


def test_a_changed_certificate_makes_a_new_context(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server")
    loaded = LoadedWebConfig(write(tmp_path / "web.yml", TLS_FILE))
    before = loaded.tls_context
    authority.issue("server")
    loaded.refresh()
    assert loaded.tls_context is not None
    assert loaded.tls_context is not before


def test_a_certificate_replaced_before_its_key_is_taken_over_with_the_key(
    authority: Authority, tmp_path: Path
) -> None:
    server = authority.issue("server")
    loaded = LoadedWebConfig(write(tmp_path / "web.yml", TLS_FILE))
    before = loaded.tls_context
    new = authority.issue("new")
    os.replace(new.cert_file, server.cert_file)
    loaded.refresh()
    assert loaded.tls_context is before
    os.replace(new.key_file, server.key_file)
    loaded.refresh()
    assert loaded.tls_context is not before


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
    assert (loaded.tls_context is not None) is tls_is_on
    assert loaded.users.keys() == {"bob"}
    assert logs[0]["event"] == "restart needed to switch TLS on or off"
    assert logs[0]["tls_is_on"] is tls_is_on
