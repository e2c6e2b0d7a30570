"""What is said of each mistake: where it is, what it is, and what was probably meant."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.config import files
from exporter.config.load import load_config, parse_config, read_config
from exporter.config.warnings import find_warnings
from exporter.errors import ConfigError
from tests.support.certificates import Authority
from tests.support.paths import TESTDATA

MISTAKES = TESTDATA / "config"
MINIMAL = "projects: [{id: p1, region: cn-north-4, instances: [i1]}]\n"


def read_problems(name: str) -> list[str]:
    """What is to be said of a file of mistakes, from the text file beside it."""
    return (MISTAKES / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def problems_of(load: Callable[[], object]) -> Sequence[str]:
    with pytest.raises(ConfigError) as raised:
        load()
    return raised.value.problems


@pytest.mark.parametrize("name", sorted(path.stem for path in MISTAKES.glob("*.yaml")))
def test_a_mistake_is_named_with_its_place_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(MISTAKES)
    told = problems_of(lambda: load_config(Path(f"{name}.yaml"), environment={}))
    assert told
    assert list(told) == read_problems(name)


def test_every_golden_text_has_its_mistake() -> None:
    texts = {path.stem for path in MISTAKES.glob("*.txt")}
    assert texts == {path.stem for path in MISTAKES.glob("*.yaml")}


# The file itself ------------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def as_nobody() -> Iterator[str]:
    """As a user who may not read everything; gives the user's name."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    os.seteuid(65534)
    try:
        yield "nobody"
    finally:
        os.seteuid(0)


def test_a_file_that_is_not_there_is_told_with_the_one_that_was_probably_meant(
    tmp_path: Path,
) -> None:
    absent = tmp_path / "absent.yaml"
    assert problems_of(lambda: load_config(absent)) == (f"{absent}: there is no such file",)
    (tmp_path / "config.yml").touch()
    path = tmp_path / "config.yaml"
    assert problems_of(lambda: load_config(path)) == (
        f"{path}: there is no such file; there is config.yml beside it",
    )
    deeper = tmp_path / "etc" / "config.yaml"
    assert problems_of(lambda: load_config(deeper)) == (
        f"{deeper}: there is no such file, nor a folder {tmp_path}/etc",
    )


def test_a_link_that_leads_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.symlink_to("/run/absent")
    assert problems_of(lambda: load_config(path)) == (
        f"{path}: a link to /run/absent, which is not there",
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    assert problems_of(lambda: load_config(tmp_path)) == (f"{tmp_path}: a folder, not a file",)


def test_a_file_that_this_user_may_not_read_is_told_with_owner_and_mode(public: Path) -> None:
    path = public / "config.yaml"
    path.write_text(MINIMAL)
    path.chmod(0o600)
    with as_nobody() as user:
        told = problems_of(lambda: load_config(path))
    assert told == (
        f"{path}: this user ({user}) may not read it: owner root, group root, mode 0600",
    )


def test_a_folder_that_this_user_may_not_enter_is_told_with_owner_and_mode(public: Path) -> None:
    locked = public / "locked"
    locked.mkdir(mode=0o700)
    path = locked / "config.yaml"
    path.write_text(MINIMAL)
    with as_nobody() as user:
        told = problems_of(lambda: load_config(path))
    assert told == (
        f"{path}: this user ({user}) may not enter the folder {locked}: owner root, group root,"
        " mode 0700",
    )


def test_a_file_without_end_is_not_read_to_the_end() -> None:
    assert problems_of(lambda: load_config(Path("/dev/zero"))) == (
        "/dev/zero: the file is larger than 1 MiB: split it, or discover the instances",
    )


def test_a_mark_of_the_byte_order_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL, encoding="utf-8-sig")
    assert load_config(path).projects[0].id == "p1"


def test_a_pipe_in_its_place_is_read(tmp_path: Path) -> None:
    """As in --config.file=<(sops -d config.yaml): it is the writer who takes a while."""
    path = tmp_path / "config.yaml"
    os.mkfifo(path)

    def write() -> None:
        with path.open("w") as file:
            for line in MINIMAL.splitlines(keepends=True):
                file.write(line)
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    assert load_config(path).projects[0].id == "p1"
    writer.join()


def test_a_pipe_that_nobody_writes_to_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PIPE_SECONDS", 0.0)
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    assert problems_of(lambda: load_config(path)) == (
        f"{path}: a pipe that did not end within 0 s",
    )


# Files that it names --------------------------------------------------------------------------


def test_certificates_are_read_from_files_alone(tmp_path: Path) -> None:
    path, ca_file = tmp_path / "config.yaml", tmp_path / "ca.pem"
    path.write_text(f"api:\n  ca_file: ca.pem\n{MINIMAL}")
    os.mkfifo(ca_file)
    assert problems_of(lambda: load_config(path)) == (
        f"{path}:2:3: api.ca_file: {ca_file}: a pipe, not a file",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "there is no such file"), ("no certificate", "it holds no PEM certificate")],
)
def test_certificates_that_cannot_be_trusted_are_told_at_their_key(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path, ca_file = tmp_path / "config.yaml", tmp_path / "ca.pem"
    path.write_text(f"api:\n  ca_file: ca.pem\n{MINIMAL}")
    if text is not None:
        ca_file.write_text(text)
    assert problems_of(lambda: load_config(path)) == (
        f"{path}:2:3: api.ca_file: {ca_file}: {said}",
    )


def test_certificates_that_are_right_are_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"api: {{ca_file: {Authority(tmp_path).cert_file}}}\n{MINIMAL}")
    assert load_config(path).api.ca_file is not None


# The environment ------------------------------------------------------------------------------


def test_bytes_of_the_environment_that_are_no_text_are_told_before_they_do_harm() -> None:
    """Half a surrogate pair in a name made `/metrics` fail for everybody."""
    text = "projects: [{id: p1, region: cn-north-4, name: '${NAME}', instances: [i1]}]"
    assert problems_of(lambda: parse_config(text, environment={"NAME": "caf\udce9"})) == (
        "config.yaml:1:41: projects[0].name: the environment variable NAME holds bytes that are"
        " not UTF-8 text",
    )


# Warnings -------------------------------------------------------------------------------------


def warnings_of(tmp_path: Path, auth: str, **environment: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(
        "projects:\n  - id: p1\n    region: cn-north-4\n    instances: [i1]\n"
        f"    auth: {{{auth}}}\n"
    )
    loaded = read_config(path, environment=environment)
    return [warning.replace(f"{tmp_path}/", "") for warning in find_warnings(loaded)]


TOKEN_FILE = "type: token, token_file: secret"


@pytest.mark.parametrize(
    "content", [b"t0ken", b"t0ken\n", b"t0ken\r\n", "t0ken".encode("utf-8-sig")]
)
def test_a_secret_file_that_is_right_is_no_warning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert warnings_of(tmp_path, TOKEN_FILE) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no such file"),
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"hunter2 \n", "white space at its ends is left out"),
        (b"\thunter2", "white space at its ends is left out"),
        (b"hunter2\nhunter3\n", "it holds more than one line"),
        (b"h\xfcnter2", "it is not UTF-8 text"),
    ],
)
def test_a_secret_file_that_is_missing_or_odd_is_a_warning(
    tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert warnings_of(tmp_path, TOKEN_FILE) == [
        f"config.yaml:5:25: warning: projects[0].auth.token_file: secret: {said}"
    ]


def test_a_pipe_in_the_place_of_a_secret_file_is_a_warning(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret")
    assert warnings_of(tmp_path, TOKEN_FILE) == [
        "config.yaml:5:25: warning: projects[0].auth.token_file: secret: a pipe, not a file"
    ]


def test_a_secret_file_that_this_user_may_not_read_is_a_warning(public: Path) -> None:
    path = public / "secret"
    path.write_text("t0ken")
    path.chmod(0o600)
    (public / "config.yaml").touch()
    (public / "config.yaml").chmod(0o666)
    with as_nobody() as user:
        assert warnings_of(public, TOKEN_FILE) == [
            "config.yaml:5:25: warning: projects[0].auth.token_file: secret:"
            f" this user ({user}) may not read it: owner root, group root, mode 0600"
        ]


def test_white_space_around_a_secret_is_left_out_and_named_on_every_way_in(tmp_path: Path) -> None:
    """A variable with a line break at its end was spent as a refused signature."""
    warning = (
        "config.yaml:5:25: warning: projects[0].auth.token: white space at its ends is left out"
    )
    assert warnings_of(tmp_path, "type: token, token: ' t0ken'") == [warning]
    assert warnings_of(tmp_path, "type: token, token: '${T}'", T="t0ken\n") == [warning]
    auth = load_config(tmp_path / "config.yaml", environment={"T": " t0ken\n"}).projects[0].auth
    assert auth.token.get_secret_value() == "t0ken"  # type: ignore[union-attr]
