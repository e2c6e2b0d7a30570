"""The releases of Prometheus that people run: Debian 12's 2.42, and a 3 where Go could build it."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import require

# Of 3: left-open ranges, names in UTF-8, other protocols, stricter about what it reads.
RELEASES = ("2", "3")


@dataclass(frozen=True, slots=True)
class Release:
    """Where the programs of one release are."""

    major: str
    prometheus: str
    promtool: str


def find_release(major: str) -> Release:
    """Fails the test where .ci/run should have brought the programs; 3 is left out without Go."""
    if major == "2":
        return Release(major, require("prometheus"), require("promtool"))
    folder = os.environ.get("PROMETHEUS_3", "")
    if not folder:
        pytest.skip("no Prometheus 3: PROMETHEUS_3 is empty (.ci/prometheus3 builds it with Go)")
    programs = [Path(folder, name) for name in ("prometheus", "promtool")]
    for program in programs:
        assert os.access(program, os.X_OK), f"PROMETHEUS_3: there is no {program}"
    return Release(major, *map(str, programs))


def find_newest() -> Release:
    return find_release("3" if os.environ.get("PROMETHEUS_3") else "2")
