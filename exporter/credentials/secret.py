"""One secret of the configuration, whichever way it is given."""

from pathlib import Path

from exporter.errors import AuthError, Reason
from exporter.reporting.redaction import SecretRegistry


class SecretSource:
    """A secret from the configuration, or from a file that is read again when it changes.

    White space at its ends is no part of it, whichever way it is given.
    """

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
            self._value = value.strip()
            registry.update(owner, [self._value])

    def forget(self) -> None:
        """Read the file once more, even if it looks the same: clocks of file systems are coarse."""
        self._seen = None

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
            value = clean(file.read_text(encoding="utf-8-sig"), f"the secret in {file}")
        except (OSError, UnicodeDecodeError) as exc:
            what = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise AuthError(
                f"cannot read the secret in {file}: {what}",
                reason=Reason.AUTH,
                hint="check the path and the permissions of the file",
            ) from exc
        self._registry.update(self._owner, [value])
        self._value, self._seen = value, seen


def clean(text: str, what: str) -> str:
    """A secret as it is used: without the white space around it. AuthError if it is none."""
    value = text.strip()
    if not value:
        problem = "is empty"
    elif "\n" in value or "\r" in value:
        problem = "has more than one line"
    elif any("\ud800" <= char <= "\udfff" for char in value):
        problem = "is not UTF-8 text"  # out of the environment, which may hold any bytes
    else:
        return value
    raise AuthError(
        f"{what} {problem}",
        reason=Reason.AUTH,
        hint="it must be the secret and nothing else; a file is read again without a reload",
    )
