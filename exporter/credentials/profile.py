"""The file in which the vendor's SDK and tools keep keys: `~/.huaweicloud/credentials`.

Source of its form: huaweicloudsdkcore 3.1.219, `auth/provider.py`.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from exporter.credentials.secret import TextFile, clean
from exporter.credentials.values import Keys
from exporter.errors import AuthError, Reason

FILE_VARIABLE = "HUAWEICLOUD_SDK_CREDENTIALS_FILE"


@dataclass(frozen=True, slots=True)
class Profile:
    """One section of the file: keys, or how to get them by an identity provider's token."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    security_token: str | None = field(default=None, repr=False)
    iam_endpoint: str = ""
    idp_id: str = ""
    id_token_file: str = ""

    @property
    def keys(self) -> Keys:
        return Keys(self.access_key, self.secret_key, self.security_token)


def profile_path(file: Path | None, environment: Mapping[str, str]) -> Path:
    """The file that is named in the configuration, or the one that the SDK reads."""
    if file is not None:
        return file
    if named := environment.get(FILE_VARIABLE, "").strip():
        return Path(named)
    home = environment.get("HOME") or os.path.expanduser("~")
    return Path(home) / ".huaweicloud" / "credentials"


class ProfileFile:
    """A section of such a file, read again when the file changes."""

    def __init__(self, path: Path, section: str) -> None:
        self._file = TextFile(path)
        self._section = section
        self._text: str | None = None
        self._profile = Profile()

    def read(self) -> Profile:
        """AuthError where the file cannot be read, or lacks something."""
        text = self._file.read()
        if text is not self._text:
            self._profile = parse_profile(text, self._section, str(self._file.path))
            self._text = text
        return self._profile

    def forget(self) -> None:
        self._file.forget()


def parse_profile(text: str, section: str, where: str) -> Profile:
    """AuthError, which shows nothing of the text, if it is no such file."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as exc:
        line = getattr(exc, "lineno", None)
        at = f" (line {line})" if isinstance(line, int) else ""
        raise _fault(f"{where} is no INI file{at}") from None
    if not parser.has_section(section):
        known = ", ".join(parser.sections()[:10]) or "none"
        raise _fault(f"{where} has no section [{section}]; its sections: {known}")
    values = {
        name: clean(value, f"{name} of [{section}] in {where}")
        for name, value in parser.items(section)
        if value.strip()
    }
    ways = (("idp_id", "id_token_file"), ("ak", "sk"))
    if not any(all(name in values for name in way) for way in ways):
        half = [name for way in ways for name in way if name in values]
        alone = f" (it has {' and '.join(half)} alone)" if half else ""
        raise _fault(
            f"[{section}] of {where} has neither ak and sk nor idp_id and id_token_file{alone}"
        )
    if not ("idp_id" in values and "id_token_file" in values):
        values.pop("idp_id", None)
    return Profile(
        access_key=values.get("ak", ""),
        secret_key=values.get("sk", ""),
        security_token=values.get("security_token"),
        iam_endpoint=values.get("iam_endpoint", "").rstrip("/"),
        idp_id=values.get("idp_id", ""),
        id_token_file=values.get("id_token_file", ""),
    )


def _fault(message: str) -> AuthError:
    return AuthError(
        message,
        reason=Reason.AUTH,
        hint="write it as the vendor's SDK reads it: [basic], then ak = ... and sk = ...",
    )
