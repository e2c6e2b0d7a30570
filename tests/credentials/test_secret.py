import os
from pathlib import Path

import pytest

from exporter.credentials.secret import SecretSource
from exporter.errors import AuthError, Reason
from exporter.reporting.redaction import SecretRegistry


def write(file: Path, text: str, *, changed: int) -> None:
    """The file with another time of change, whatever the clock of the file system knows."""
    file.write_text(text)
    os.utime(file, ns=(changed, changed))


def test_a_secret_file_is_read_again_only_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    write(file, "first", changed=1)
    secret = SecretSource(SecretRegistry(), "owner", file=file)
    assert secret.read() == "first"
    write(file, "FIRST", changed=1)  # the same size and time, in the same file
    assert secret.read() == "first"
    write(file, "second", changed=2)
    assert secret.read() == "second"


def test_a_secret_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    """As Kubernetes does it: another file under the same name, of the same size and time."""
    file, new = tmp_path / "secret", tmp_path / "new"
    write(file, "first", changed=1)
    secret = SecretSource(SecretRegistry(), "owner", file=file)
    assert secret.read() == "first"
    write(new, "other", changed=1)
    new.rename(file)
    assert secret.read() == "other"


def test_white_space_at_its_ends_is_no_part_of_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b" \tpass word \r\n\n")
    assert SecretSource(SecretRegistry(), "owner", file=file).read() == "pass word"
    assert SecretSource(SecretRegistry(), "owner", value=" pass word\t").read() == "pass word"


def test_a_secret_file_that_looks_the_same_is_read_again_where_it_was_refused(
    tmp_path: Path,
) -> None:
    """Some file systems tell the time to the second."""
    file = tmp_path / "secret"
    write(file, "first", changed=1)
    secret = SecretSource(SecretRegistry(), "owner", file=file)
    assert secret.read() == "first"
    write(file, "other", changed=1)
    assert secret.read() == "first"
    secret.forget()
    assert secret.read() == "other"


def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfpassword\r\n")
    assert SecretSource(SecretRegistry(), "owner", file=file).read() == "password"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the secret in .*/secret: No such file or directory"),
        (b"\xff\xfe", "cannot read the secret in .*/secret: it is not UTF-8 text"),
        (b" \n", "the secret in .*/secret is empty"),
        (b"one\ntwo\n", "the secret in .*/secret has more than one line"),
        (b"x" * 1024 * 1024 + b"y", "cannot read the secret in .*/secret: larger than 1024 KiB"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_told(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AuthError, match=message) as caught:
        SecretSource(SecretRegistry(), "owner", file=file).read()
    assert caught.value.reason is Reason.AUTH
    assert caught.value.hint


@pytest.mark.parametrize(("name", "what"), [("pipe", "a pipe"), ("zero", "a device")])
def test_what_is_no_file_holds_nobody_up(tmp_path: Path, name: str, what: str) -> None:
    """A pipe that nobody writes to never opens, and a device never ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises(AuthError, match=f"{name}: {what}, not a file"):
        SecretSource(SecretRegistry(), "owner", file=tmp_path / name).read()


def test_secrets_are_made_known_to_those_who_hide_them(tmp_path: Path) -> None:
    registry = SecretRegistry()
    SecretSource(registry, "one", value="hunter2-of-the-config")
    file = tmp_path / "secret"
    file.write_text("hunter2-of-the-file")
    SecretSource(registry, "two", file=file).read()
    text = registry.redact("hunter2-of-the-config and hunter2-of-the-file")
    assert text == "[redacted] and [redacted]"
