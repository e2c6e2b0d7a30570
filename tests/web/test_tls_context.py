"""Certificates, keys and curves: how they are read and what is wrong with them."""

import os
import ssl
from pathlib import Path

import pytest

from exporter.config.document import write_path
from exporter.web.tls_context import TlsError, load_tls_contexts
from exporter.web.web_config import TlsServerConfig
from tests.support.certificates import Authority


def make_tls(tmp_path: Path, **changed: object) -> TlsServerConfig:
    files = {"cert_file": str(tmp_path / "server.crt"), "key_file": str(tmp_path / "server.key")}
    return TlsServerConfig.model_validate({**files, **changed})


def problems_of(tls: TlsServerConfig) -> tuple[str, ...]:
    with pytest.raises(TlsError) as raised:
        load_tls_contexts(tls)
    return tuple(f"{write_path(path)}: {message}" for path, message, _ in raised.value.problems)


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
        f"tls_server_config.{key}: {tmp_path}/absent: there is no such file",
    )


def test_a_pipe_is_no_certificate_file_and_holds_nobody_up(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server")
    os.mkfifo(tmp_path / "pipe")
    assert problems_of(make_tls(tmp_path, key_file=str(tmp_path / "pipe"))) == (
        f"tls_server_config.key_file: {tmp_path}/pipe: a pipe, not a file",
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
    context = load_tls_contexts(
        make_tls(tmp_path, cipher_suites=[suite], prefer_server_cipher_suites=False)
    ).choose()
    tls12 = [c["name"] for c in context.get_ciphers() if c["protocol"] == "TLSv1.2"]
    assert tls12 == ["ECDHE-ECDSA-AES256-GCM-SHA384"]
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_the_first_preference_that_the_client_has_is_chosen(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server")
    contexts = load_tls_contexts(
        make_tls(tmp_path, curve_preferences=["CurveP384", "X25519", "CurveP256"])
    )
    p384, x25519, p256 = contexts.by_group.values()
    assert contexts.needs_groups
    assert contexts.choose([29, 23, 24]) is p384
    assert contexts.choose([23, 29]) is x25519
    assert contexts.choose([23]) is p256
    assert contexts.choose([30]) is p384  # OpenSSL refuses it, and says why


def test_suites_of_tls_13_alone_leave_tls_13_alone(authority: Authority, tmp_path: Path) -> None:
    authority.issue("server")
    context = load_tls_contexts(
        make_tls(tmp_path, cipher_suites=["TLS_AES_128_GCM_SHA256"])
    ).choose()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"cert": "no PEM"}, "cert: no PEM certificate in it, or no PEM key in key"),
        ({"key": "no PEM"}, "cert: no PEM certificate in it, or no PEM key in key"),
        (
            {"client_ca": "no PEM", "client_auth_type": "RequireAndVerifyClientCert"},
            "client_ca: no PEM certificate in it",
        ),
    ],
)
def test_pem_in_the_file_that_is_none_is_not_shown(
    authority: Authority, tmp_path: Path, given: dict[str, str], problem: str
) -> None:
    server = authority.issue("server")
    inline = {"cert": server.cert_file.read_text(), "key": server.key_file.read_text()}
    (found,) = problems_of(TlsServerConfig.model_validate({**inline, **given}))
    assert found.startswith(f"tls_server_config.{problem}")
    assert "BEGIN" not in found


def test_an_inline_key_of_another_certificate_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    server, other = authority.issue("server"), authority.issue("other")
    tls = TlsServerConfig.model_validate(
        {"cert_file": str(server.cert_file), "key": other.key_file.read_text()}
    )
    assert problems_of(tls) == (
        f"tls_server_config.key: the key does not belong to cert_file {server.cert_file}",
    )


def test_a_file_goes_before_what_stands_in_the_configuration(
    authority: Authority, tmp_path: Path
) -> None:
    authority.issue("server")
    load_tls_contexts(make_tls(tmp_path, cert="not looked at", key="not looked at"))
