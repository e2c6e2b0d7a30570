"""The web configuration of a running server, read again when a file of it changes."""

import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from exporter.errors import ConfigError
from exporter.web.tls_context import TlsContexts, TlsError, load_tls_contexts
from exporter.web.web_config import LoadedText, TlsServerConfig, WebConfig, read_web_config

log = structlog.get_logger(__name__)

_Fingerprint = tuple[int, ...] | None
# Whoever writes a file anew empties it first. So long it may stay empty before it is believed.
_HALF_WRITTEN_SECONDS = 1.0


class LoadedWebConfig:
    """What a server asks for at each connection and each request.

    Making one is what `--config.check` does: it loads all of it, certificates and keys too, raises
    ConfigError with the problems, and warns of what is odd and yet allowed.
    `refresh` is cheap enough for that: a stat of up to four files. A new version that is broken
    leaves the old one in force, whole, and is logged once. TLS itself is switched on or off by a
    restart only; a version that tries is logged and otherwise followed.
    """

    def __init__(self, path: Path) -> None:
        """Reads the files; raises ConfigError."""
        self._path = path
        self._seen: Mapping[Path, _Fingerprint] = {}
        loaded = self._load()
        self.config = loaded.config
        self.users = self.config.users
        self.tls = None if self.config.tls is None else _load_tls_contexts(loaded)
        self._warn()

    def refresh(self) -> None:
        """Takes over what has changed on disk; never raises."""
        if all(_fingerprint(path) == seen for path, seen in self._seen.items()):
            return
        if self._is_half_written():
            return
        had_users = bool(self.users)
        try:
            config, contexts = self._follow(self._load())
        except ConfigError as exc:
            log.error(
                "web config not reloaded, the old one stays in force",
                path=str(self._path),
                problems=list(exc.problems),
            )
            return
        self.config, self.users, self.tls = config, config.users, contexts
        log.info("web config reloaded", path=str(self._path))
        if had_users and not self.users:
            log.warning("passwords are no longer asked for", path=str(self._path))
        self._warn()

    def _is_half_written(self) -> bool:
        try:
            stat = self._path.stat()
        except OSError:
            return False
        return stat.st_size == 0 and 0 <= time.time() - stat.st_mtime < _HALF_WRITTEN_SECONDS

    def _warn(self) -> None:
        tls = self.config.tls_server_config
        if not tls.is_enabled and tls != TlsServerConfig():
            log.warning(
                "tls_server_config names no certificate: plain HTTP is spoken", path=str(self._path)
            )
        if tls.verifies_clients and tls.client_ca_file is None and tls.client_ca is None:
            log.warning(
                "tls_server_config names no client CA: a certificate of any CA that the system"
                " trusts lets a client in",
                path=str(self._path),
            )

    def _load(self) -> LoadedText:
        # Each file is looked at before it is read: what changes in between is seen next time. The
        # files of a version that turns out broken are watched too, for it may be mended there.
        self._seen = {self._path: _fingerprint(self._path)}
        loaded = read_web_config(self._path)
        files = loaded.config.tls_server_config.files
        self._seen = {**self._seen, **{file: _fingerprint(file) for file in files}}
        return loaded

    def _follow(self, loaded: LoadedText) -> tuple[WebConfig, TlsContexts | None]:
        config, tls = loaded.config, loaded.config.tls
        if tls is not None and self.tls is not None:
            return config, _load_tls_contexts(loaded)
        if tls is not None or self.tls is not None:
            log.warning(
                "restart needed to switch TLS on or off",
                path=str(self._path),
                tls_is_on=self.tls is not None,
            )
        kept = {"tls_server_config": self.config.tls_server_config}
        return config.model_copy(update=kept), self.tls


def _load_tls_contexts(loaded: LoadedText) -> TlsContexts:
    try:
        return load_tls_contexts(loaded.config.tls_server_config)
    except TlsError as exc:
        raise loaded.document.error(exc.problems) from None


def _fingerprint(path: Path) -> _Fingerprint:
    """Differs when a file was written, replaced, or is now another behind a symbolic link."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
