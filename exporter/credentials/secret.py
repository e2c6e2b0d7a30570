"""One secret of the configuration, whichever way it is given."""

from pathlib import Path

from exporter.errors import AuthError, Reason
from exporter.reporting.redaction import SecretRegistry


class SecretSource:
    """A secret from the configuration, or from a file that is read again when it changes."""

    def __init__(
        self,
        registry: SecretRegistry,
        owner: str,
        *,
        value: str | None = None,
        file: Path | None = None,
    ) -> None:
        self._registry = registry
        self._owner = owner
        self._value = value
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        if value is not None:
            registry.update(owner, [value])

    def read(self) -> str:
        """The secret; AuthError where its file cannot be read."""
        if self._file is not None:
            self._read_file(self._file)
        assert self._value is not None
        return self._value

    def _read_file(self, file: Path) -> None:
        try:
            status = file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            value = file.read_text(encoding="utf-8-sig").strip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise AuthError(
                f"cannot read the secret in {file}: {what}",
                reason=Reason.AUTH,
                hint="check the path and the permissions of the file",
            ) from exc
        if not value:
            raise AuthError(
                f"the secret in {file} is empty",
                reason=Reason.AUTH,
                hint="write the secret into the file; no reload is needed",
            )
        self._registry.update(self._owner, [value])
        self._value, self._seen = value, seen
