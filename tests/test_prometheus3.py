"""What .ci/prometheus3 does where there is Go, an old one, another module, or none."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SUM = "h1:f1GRFerhTMKQma+awCoC9T820ecWeGSdF+xAlMHzZzM="
BUILDS = 'mkdir -p "$GOBIN"; for n in prometheus promtool; do cp /bin/true "$GOBIN/$n"; done'
TOO_OLD = "echo 'go: module requires go >= 1.26.7 (running go 1.24; GOTOOLCHAIN=local)' >&2; exit 1"


def fake_go(folder: Path, *, checksum: str = SUM, install: str = BUILDS) -> None:
    folder.mkdir()
    program = folder / "go"
    program.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f'mod) echo \'\t"Sum": "{checksum}",\' ;;\n'
        "env) echo go1.24 ;;\n"
        f"install) {install} ;;\n"
        "esac\n"
    )
    program.chmod(0o755)


def run(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """On a machine whose only Go is `folder/bin/go`, and whose cache is empty at first."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("sh", "mkdir", "mktemp", "rm", "grep", "cat", "mv", "cp"):
        link = folder / "bin" / name
        if not link.exists():
            link.symlink_to(Path("/bin") / name)
    known = {"PATH": str(folder / "bin"), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [ROOT / ".ci/prometheus3"],
        env=known | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_where_go_is_it_builds_once_and_prints_the_folder(tmp_path: Path) -> None:
    fake_go(tmp_path / "bin")
    first = run(tmp_path)
    assert (first.returncode, first.stderr.count("\n")) == (0, 1)
    folder = Path(first.stdout.strip())
    assert all(os.access(folder / name, os.X_OK) for name in ("prometheus", "promtool"))
    assert list(folder.parent.iterdir()) == [folder]
    again = run(tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")


def test_without_go_it_says_so_and_names_no_folder(tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == (
        "prometheus3: no Go here: the end-to-end tests run on Debian's Prometheus alone\n"
    )


def test_a_go_that_is_too_old_is_as_none(tmp_path: Path) -> None:
    fake_go(tmp_path / "bin", install=TOO_OLD)
    ran = run(tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "it requires go >= 1.26.7, here is go1.24" in ran.stderr


@pytest.mark.parametrize(
    ("go", "said"),
    [
        ({"checksum": "h1:other="}, "the module is not the one that is pinned"),
        ({"install": "echo 'no route to host' >&2; exit 1"}, "no route to host"),
    ],
)
def test_a_build_that_fails_is_no_silence(tmp_path: Path, go: dict[str, str], said: str) -> None:
    fake_go(tmp_path / "bin", **go)
    ran = run(tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert said in ran.stderr
    assert list((tmp_path / "cache/gaussdb-mysql-backup-exporter").iterdir()) == []


@pytest.mark.parametrize("folder", ["", "/opt/prometheus"])
def test_the_environment_goes_before(tmp_path: Path, folder: str) -> None:
    fake_go(tmp_path / "bin")
    ran = run(tmp_path, PROMETHEUS_3=folder)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{folder}\n", "")
