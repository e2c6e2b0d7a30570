"""The pool of connections follows the limit of open files."""

import resource

import pytest
import structlog

from exporter.transport.descriptors import most_connections


class Limits:
    """The process's limit of open files, as the system would keep it."""

    def __init__(self, soft: int, hard: int) -> None:
        self.soft, self.hard = soft, hard

    def get(self, what: int) -> tuple[int, int]:
        assert what == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def set(self, what: int, limits: tuple[int, int]) -> None:
        assert self.hard == resource.RLIM_INFINITY or limits[0] <= self.hard
        assert limits[1] == self.hard
        self.soft = limits[0]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    given = Limits(1024, 1024)
    monkeypatch.setattr(resource, "getrlimit", given.get)
    monkeypatch.setattr(resource, "setrlimit", given.set)
    return given


@pytest.mark.parametrize(
    ("soft", "hard", "configured", "possible", "raised"),
    [
        (1024, 1024, 50, 50, 1024),
        (64, 64, 50, 21, 64),  # 32 are for the rest, the others two thirds
        (64, 4096, 50, 50, 107),
        (64, 80, 50, 32, 80),
        (256, 256, 500, 149, 256),
        (16, 16, 50, 1, 16),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 500, 500, resource.RLIM_INFINITY),
        (64, resource.RLIM_INFINITY, 50, 50, 107),
    ],
)
def test_there_are_as_many_connections_as_files_may_be_open(
    limits: Limits, soft: int, hard: int, configured: int, possible: int, raised: int
) -> None:
    limits.soft, limits.hard = soft, hard
    with structlog.testing.capture_logs() as logs:
        assert most_connections(configured) == possible
    assert limits.soft == raised
    assert [line["event"] for line in logs] == (
        ["fewer connections than configured"] if possible < configured else []
    )
