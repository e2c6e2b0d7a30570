"""What is odd about a configuration and no error: it may be right by the time it is needed."""

from collections.abc import Iterator
from pathlib import Path

from exporter.config.document import KeyPath, Problem
from exporter.config.files import read_file, why_unreadable
from exporter.config.load import Loaded

_SPACES = "white space at its ends is left out"


def find_warnings(loaded: Loaded) -> list[str]:
    """One line each, with its place. Reads the files of secrets, and shows nothing of them."""
    return loaded.document.describe(_find(loaded), kind="warning: ")


def _find(loaded: Loaded) -> Iterator[Problem]:
    for i, project in enumerate(loaded.config.projects):
        path: KeyPath = ("projects", i, "auth")
        for name, value in project.auth:
            is_file = name.endswith("_file") and isinstance(value, Path)
            if is_file and (fault := _secret_fault(value)) is not None:
                yield Problem((*path, name), fault)
        written = loaded.tree["projects"][i].get("auth") or {}
        for name, value in written.items():
            if isinstance(value, str) and value != value.strip():
                yield Problem((*path, name), _SPACES)


def _secret_fault(path: Path) -> str | None:
    try:
        text = read_file(path).decode("utf-8-sig").strip("\r\n")
    except OSError as exc:
        return why_unreadable(path, exc)
    except UnicodeDecodeError:
        return f"{path}: it is not UTF-8 text"
    if not text.strip():
        return f"{path}: it is empty"
    if len(text.splitlines()) > 1:
        return f"{path}: it holds more than one line"
    return f"{path}: {_SPACES}" if text != text.strip() else None
