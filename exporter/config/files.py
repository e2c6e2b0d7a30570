"""Files that the configuration names, and in words why one cannot be used.

What is named may be no file at all. A pipe that nobody writes to, or a device without an end, must
hold nobody up: all of it is read here, and no further than it may go.
"""

import contextlib
import errno
import grp
import os
import pwd
import select
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from exporter.config.document import write_problem
from exporter.config.names import nearest
from exporter.errors import ConfigError

MAX_TEXT_BYTES = 1024 * 1024
TOO_LARGE = "the file is larger than 1 MiB: split it, or discover the instances"
_PIPE_SECONDS = 5.0


def check_file(path: Path) -> None:
    """OSError if it cannot be read, or is no file: what is read again may not be a pipe."""
    with _opened(path) as descriptor:
        _refuse_others(path, os.fstat(descriptor).st_mode)


def read_file(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """What a file holds; OSError where `check_file` raises it, and if it holds more than that."""
    with _opened(path) as descriptor:
        _refuse_others(path, os.fstat(descriptor).st_mode)
        data = _read(descriptor, most_bytes + 1)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"larger than {most_bytes // 1024} KiB", str(path))
    return data


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    # Without O_NONBLOCK a pipe is not even opened before somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_others(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise OSError(errno.EINVAL, f"{what}, not a file", str(path))


def _read(descriptor: int, most_bytes: int) -> bytes:
    data = bytearray()
    while len(data) < most_bytes and (more := os.read(descriptor, most_bytes - len(data))):
        data += more
    return bytes(data)


def _read_whatever(path: Path, most_bytes: int) -> bytes:
    """Like `_read`, of a file or of a pipe in its place, which may take a while; OSError."""
    with _opened(path) as descriptor:
        if stat.S_ISDIR(mode := os.fstat(descriptor).st_mode):
            _refuse_others(path, mode)
        if stat.S_ISREG(mode):
            return _read(descriptor, most_bytes)
        data, until = bytearray(), time.monotonic() + _PIPE_SECONDS
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        while len(data) < most_bytes:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                silent = f"a pipe that did not end within {_PIPE_SECONDS:.0f} s"
                raise OSError(errno.ETIMEDOUT, silent, str(path))
            more = os.read(descriptor, most_bytes - len(data))
            if not more:
                break
            data += more
        return bytes(data)


def read_text(path: Path, *, hint: str = "") -> str:
    """The text of a file that a person writes; ConfigError, with the line where it is no text."""
    try:
        data = _read_whatever(path, MAX_TEXT_BYTES + 1)
    except OSError as exc:
        raise ConfigError([why_unreadable(path, exc) + hint]) from exc
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError([write_problem(str(path), None, TOO_LARGE)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line_start = data.rfind(b"\n", 0, exc.start) + 1
        place = data.count(b"\n", 0, exc.start) + 1, len(data[line_start : exc.start].decode()) + 1
        wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
        what = "UTF-16 text" if wide else f"not UTF-8 text (byte 0x{data[exc.start]:02x})"
        problem = write_problem(str(path), place, f"{what}: save the file as UTF-8")
        raise ConfigError([problem]) from None


def why_unreadable(path: Path, cause: OSError) -> str:
    """What is the matter with a file whose reading failed so, behind its name."""
    if isinstance(cause, FileNotFoundError):
        if path.is_symlink():
            return f"{path}: a link to {os.readlink(path)}, which is not there"
        return f"{path}: there is no such file{_nearest_file(path)}"
    if isinstance(cause, IsADirectoryError):
        return f"{path}: a folder, not a file"
    if isinstance(cause, PermissionError):
        return f"{path}: this user ({_user(os.geteuid())}) may not {_locked_at(path)}"
    return f"{path}: {cause.strerror or type(cause).__name__}"


def certificate_fault(path: Path) -> str | None:
    """Why the certificates in a file cannot be trusted; None where they can."""
    try:
        check_file(path)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return f"{path}: it holds no PEM certificate"
    except OSError as exc:
        return why_unreadable(path, exc)
    return None


def _nearest_file(path: Path) -> str:
    """The file beside it whose name is nearly this, or the folder that is missing too."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())[:1_000]
    except FileNotFoundError:
        return f", nor a folder {path.parent}"
    except OSError:
        return ""
    near = nearest(path.name, names)
    return f"; there is {near} beside it" if near is not None else ""


def _locked_at(path: Path) -> str:
    """The folder on the way that may not be entered, or else the file itself."""
    for folder in reversed(path.absolute().parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return f"enter the folder {folder}{_owner_and_mode(folder)}"
    return f"read it{_owner_and_mode(path)}"


def _owner_and_mode(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    owner, group = _user(status.st_uid), _group(status.st_gid)
    return f": owner {owner}, group {group}, mode {stat.S_IMODE(status.st_mode):04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
