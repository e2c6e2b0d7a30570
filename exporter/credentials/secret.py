"""One secret of the configuration, whichever way it is given."""

from pathlib import Path

from exporter.config.files import read_file
from exporter.errors import AuthError, Reason
from exporter.reporting.redaction import SecretRegistry


class TextFile:
    """A file that is read again when it changes."""

    def __init__(self, path: Path, what: str = "the file") -> None:
        self.path = path
        self._what = what
        self._seen: tuple[int, int, int] | None = None
        self._text = ""

    def read(self) -> str:
        """Its text; AuthError where it cannot be read."""
        try:
            status = self.path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                self._text = read_file(self.path).decode("utf-8-sig").replace("\r\n", "\n")
                self._seen = seen
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            raise AuthError(
                f"cannot read {self._what} {self.path}: {why}",
                reason=Reason.AUTH,
                hint="check the path and the permissions of the file",
            ) from exc
        return self._text

    def forget(self) -> None:
        """Read it once more, even if it looks the same: clocks of file systems are coarse."""
        self._seen = None


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
        self._value = ""
        self._file = TextFile(file, "the secret in") if file is not None else None
        self._text: str | None = None
        if value is not None:
            self._value = value.strip()
            registry.update(owner, [self._value])

    def forget(self) -> None:
        if self._file is not None:
            self._file.forget()

    def read(self) -> str:
        """The secret; AuthError where its file cannot be read."""
        if self._file is not None:
            text = self._file.read()
            if text is not self._text:
                self._value = clean(text, f"the secret in {self._file.path}")
                self._registry.update(self._owner, [self._value])
                self._text = text
        return self._value


class FileSecret:
    """A secret in a file that is named elsewhere, and may be named anew."""

    def __init__(self, registry: SecretRegistry, owner: str) -> None:
        self._registry = registry
        self._owner = owner
        self._path: Path | None = None
        self._source: SecretSource | None = None

    def read(self, path: Path) -> str:
        """The secret; AuthError where the file cannot be read."""
        if self._source is None or path != self._path:
            self._source = SecretSource(self._registry, self._owner, file=path)
            self._path = path
        return self._source.read()

    def forget(self) -> None:
        self._source = None


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
