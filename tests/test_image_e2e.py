"""The image, built and run for real by `.ci/image`. The linters need no more than Python."""

import subprocess
import sys
from pathlib import Path

import pytest

import exporter
from tests.support.paths import ROOT

TOOLS = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["hadolint", "Dockerfile"], *(["shellcheck", f".ci/{n}"] for n in ("image", "prometheus3"))],
    ids=["Dockerfile", "image", "prometheus3"],
)
def test_linter_has_nothing_to_say(command: list[str]) -> None:
    program, file = command
    ran = subprocess.run(
        [TOOLS / program, ROOT / file], capture_output=True, text=True, check=False, timeout=60
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_only_what_the_dockerfile_copies_gets_into_the_build() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in ignored if line and not line.startswith("#")]
    allowed = {line.removeprefix("!").removesuffix("/**") for line in rules if line.startswith("!")}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = {
        source
        for line in dockerfile
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }

    assert rules[0] == "*"
    assert allowed == copied


@pytest.mark.e2e
def test_image_is_built_and_does_what_it_promises() -> None:
    ran = subprocess.run(
        [ROOT / ".ci" / "image"], capture_output=True, text=True, check=False, timeout=1800
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.splitlines() == [
        "ok: the image builds from the locked requirements",
        "ok: its user is a number and not root",
        "ok: its labels tell version, revision and time",
        "ok: all that it adds to its base is in /opt/exporter",
        "ok: no layer holds pip, its settings or a secret of the build",
        "ok: nothing in it that does not run",
        "ok: it adds at most 70 MB to its base",
        f"ok: --version tells {exporter.__version__}",
        "ok: --print-rules prints the shipped rules",
        "ok: --demo is scraped from outside",
        "ok: it runs on a read-only root without capabilities",
        "ok: its health check passes on the port that was asked for",
        "ok: SIGTERM ends it with exit code 0",
        "image OK",
    ]
