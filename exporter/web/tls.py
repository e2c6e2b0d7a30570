"""The TLS context of the web configuration, read again when a file of it changes."""

import ssl
import warnings
from collections.abc import Mapping
from pathlib import Path

import structlog

from exporter.errors import ConfigError
from exporter.web.web_config import (
    CIPHER_SUITES,
    TLS_VERSIONS,
    TlsServerConfig,
    WebConfig,
    load_web_config,
)

log = structlog.get_logger(__name__)

_Fingerprint = tuple[int, ...] | None


def load_tls_context(tls: TlsServerConfig) -> ssl.SSLContext:
    """A server's context made of the files that `tls` names; raises ConfigError."""
    for key in ("cert_file", "key_file", "client_ca_file"):
        # OpenSSL does not say which file it could not read.
        path = getattr(tls, key)
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as exc:
            raise ConfigError(
                [f"tls_server_config.{key}: {path} cannot be read: {exc.strerror}"]
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    _set_versions(context, tls)
    _load_certificate(context, tls)
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(cafile=tls.client_ca_file)
        except ssl.SSLError:
            raise ConfigError(
                [f"tls_server_config.client_ca_file: no PEM certificate in {tls.client_ca_file}"]
            ) from None
        required = tls.client_auth_type == "RequireAndVerifyClientCert"
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    return context


def _set_versions(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    suites = [CIPHER_SUITES[name] for name in tls.cipher_suites if name in CIPHER_SUITES]
    if tls.min_version in ("TLS10", "TLS11"):
        # OpenSSL 3 speaks these at security level 0 only. Who asks for them gets them.
        suites = [*(suites or ["DEFAULT"]), "@SECLEVEL=0"]
    if suites:
        context.set_ciphers(":".join(suites))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = TLS_VERSIONS[tls.min_version]
        context.maximum_version = TLS_VERSIONS[tls.max_version]


def _load_certificate(context: ssl.SSLContext, tls: TlsServerConfig) -> None:
    def refuse_encrypted_key() -> str:
        raise ConfigError([f"tls_server_config.key_file: {tls.key_file} asks for a passphrase"])

    assert tls.cert_file is not None
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file, refuse_encrypted_key)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            problem = f"key_file: {tls.key_file} does not belong to cert_file {tls.cert_file}"
        else:
            problem = (
                f"cert_file: no PEM certificate in {tls.cert_file}, or no PEM key in"
                f" {tls.key_file} ({exc.reason or 'unreadable'})"
            )
        raise ConfigError([f"tls_server_config.{problem}"]) from None


class LoadedWebConfig:
    """The web configuration of a running server, read again when a file of it has changed.

    `refresh` is cheap enough for each connection and each request: a stat of up to four files. A
    new version that is broken leaves the old one in force, whole, and is logged once. TLS itself is
    switched on or off by a restart only; a version that tries is logged and otherwise followed.
    A version without `basic_auth_users` counts as broken where passwords are on, for that is what a
    half-written file looks like; `basic_auth_users: {}` switches them off.
    """

    def __init__(self, path: Path) -> None:
        """Reads the files; raises ConfigError."""
        self._path = path
        self._seen: Mapping[Path, _Fingerprint] = {}
        config = self._load_config()
        tls = config.tls_server_config
        self.config = config
        self.users = config.users
        self.tls_context = None if tls is None else self._load_tls_context(tls)

    def refresh(self) -> None:
        """Takes over what has changed on disk; never raises."""
        if all(_fingerprint(path) == seen for path, seen in self._seen.items()):
            return
        try:
            config, tls_context = self._follow(self._load_config())
        except ConfigError as exc:
            log.error(
                "web config not reloaded, the old one stays in force",
                path=str(self._path),
                problems=list(exc.problems),
            )
            return
        self.config, self.users, self.tls_context = config, config.users, tls_context
        log.info("web config reloaded", path=str(self._path))

    def _load_config(self) -> WebConfig:
        # Each file is looked at before it is read: what changes in between is seen next time. The
        # files of a version that turns out broken are watched too, for it may be mended there.
        self._seen = {self._path: _fingerprint(self._path)}
        config = load_web_config(self._path)
        if config.tls_server_config is not None:
            files = config.tls_server_config.files
            self._seen = {**self._seen, **{file: _fingerprint(file) for file in files}}
        return config

    def _follow(self, config: WebConfig) -> tuple[WebConfig, ssl.SSLContext | None]:
        if self.users and config.basic_auth_users is None:
            raise ConfigError(
                [
                    f"{self._path}: basic_auth_users: gone; to switch passwords off, write"
                    " basic_auth_users: {}"
                ]
            )
        tls = config.tls_server_config
        if tls is not None and self.tls_context is not None:
            return config, self._load_tls_context(tls)
        if tls is not None or self.tls_context is not None:
            log.warning(
                "restart needed to switch TLS on or off",
                path=str(self._path),
                tls_is_on=self.tls_context is not None,
            )
        kept = {"tls_server_config": self.config.tls_server_config}
        return config.model_copy(update=kept), self.tls_context

    def _load_tls_context(self, tls: TlsServerConfig) -> ssl.SSLContext:
        try:
            return load_tls_context(tls)
        except ConfigError as exc:
            raise ConfigError([f"{self._path}: {problem}" for problem in exc.problems]) from None


def _fingerprint(path: Path) -> _Fingerprint:
    """Differs when a file was written, replaced, or is now another behind a symbolic link."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
