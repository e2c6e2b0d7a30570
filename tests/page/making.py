"""Results as a scrape gives them, and the page made of them."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from exporter.errors import Reason
from exporter.models import (
    BackupState,
    ConfigurationState,
    Failure,
    FullBackup,
    FullBackups,
    Instance,
    InstanceResult,
    Progress,
    ProjectResult,
    Reading,
    RestoreWindow,
    SourceResult,
    TimeRange,
    View,
)
from exporter.page.status import render_status
from tests.page.parsing import Element, parse

NOW = 1_783_246_387.0  # 2026-07-05 10:13:07 UTC
MINUTE = 60.0
HOUR = 3_600.0
DAY = 86_400.0


def make_reading(
    end_ages: Iterable[float] = (5 * MINUTE,),
    *,
    at: float = NOW,
    lookback: float = DAY,
    latest_age: float | None = None,
    kilobytes: float = 1_024.0,
    running: int = 0,
    listing_complete: bool = True,
) -> Reading:
    """A reading of backups that ended so many seconds before `NOW`; `latest_age`: before them."""
    known = sorted(NOW - age for age in end_ages)
    ends = array("d", [end for end in known if at - lookback <= end <= at])
    outside = NOW - latest_age if latest_age is not None else None
    latest = ends[-1] if ends else outside
    return Reading(
        at=at,
        count=len(ends) + running,
        size_kilobytes=kilobytes * len(ends),
        running=running,
        listing_complete=listing_complete,
        latest_end=latest,
        latest_size_kilobytes=kilobytes if latest is not None else None,
        oldest_end=ends[0] if ends else None,
        max_interval_seconds=max((b - a for a, b in pairwise(ends)), default=None),
        ends=ends,
    )


def make_result(
    name: str = "orders",
    reading: Reading | None = None,
    failure: Failure | None = None,
    *,
    instance_id: str = "",
    project_id: str = "97b026aa9cc4417888c14c84a1ad9860",
    project_name: str = "production",
    region: str = "cn-north-4",
    lookback: float = DAY,
    stale_after: float = HOUR,
    last_success: float | None = None,
    progress: Progress | None = None,
) -> InstanceResult:
    return InstanceResult(
        instance=Instance(
            project_id=project_id,
            id=instance_id or f"{name}-id",
            project_name=project_name,
            name=name,
            region=region,
            lookback_seconds=lookback,
            stale_after_seconds=stale_after,
        ),
        reading=reading,
        failure=failure,
        duration_seconds=2.0,
        api_requests=3,
        api_errors=1 if failure else 0,
        api_requests_total=40,
        api_errors_total={reason: 0 for reason in Reason},
        last_success=last_success,
        progress=progress,
    )


def make_failure(reason: Reason = Reason.FORBIDDEN, message: str = "refused") -> Failure:
    return Failure(reason, message, "give the account the permission")


def make_ok(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading())


def make_failing(name: str = "orders", reason: Reason = Reason.FORBIDDEN) -> InstanceResult:
    return make_result(name, None, make_failure(reason))


def make_stale(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([3 * HOUR]))


def make_empty(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([]))


def make_listing(name: str = "orders") -> InstanceResult:
    failure = make_failure(Reason.DEADLINE)
    return make_result(name, None, failure, progress=Progress(pages_done=12, pages_total=41))


def make_partly_listed(name: str = "orders") -> InstanceResult:
    """After a start: the latest backup is known, the window is still being listed."""
    reading = replace(
        make_reading(listing_complete=False),
        count=None,
        size_kilobytes=None,
        running=None,
        oldest_end=None,
        max_interval_seconds=None,
    )
    return make_result(name, reading, progress=Progress(pages_done=12, pages_total=41))


def make_with_hole(name: str = "orders") -> InstanceResult:
    return make_result(name, make_reading([5 * HOUR, 3 * HOUR, 2.5 * HOUR, *minutes(150, 5)]))


def minutes(start: int, stop: int, step: int = 5) -> list[float]:
    return [age * MINUTE for age in range(start, stop - 1, -step)]


def make_window(*ages: tuple[float, float]) -> RestoreWindow:
    """Ranges from so many seconds ago to so many seconds ago, the oldest first."""
    return RestoreWindow(NOW - 9, [TimeRange(NOW - start, NOW - end) for start, end in ages])


def make_full(
    age: float, state: BackupState = BackupState.USABLE, backup_type: str = "auto"
) -> FullBackup:
    end = None if state is BackupState.RUNNING else NOW - age
    return FullBackup(f"id-{age}", "orders-id", backup_type, state, NOW - age - 600, end, 512.0)


def make_full_backups(*backups: FullBackup) -> FullBackups:
    """Ascending by their end."""
    usable = [each for each in backups if each.state is BackupState.USABLE]
    ended = [each for each in backups if each.state is not BackupState.RUNNING]
    return FullBackups(
        NOW - 9,
        backups,
        usable={kind: sum(b.backup_type == kind for b in usable) for kind in ("auto", "manual")},
        latest={each.backup_type: each for each in usable},
        oldest_end=usable[0].end if usable else None,
        latest_failed=ended[-1].state is BackupState.FAILED if ended else None,
    )


def with_sources(
    result: InstanceResult,
    window: RestoreWindow | None = None,
    full_backups: FullBackups | None = None,
    *,
    status: str = "",
) -> InstanceResult:
    return replace(
        result,
        instance=replace(result.instance, status=status),
        restore_window=SourceResult(window, None, NOW - 9),
        full_backups=SourceResult(full_backups, None, NOW - 9),
    )


def make_view(
    results: Sequence[InstanceResult],
    projects: Sequence[ProjectResult] = (),
    *,
    finished: float | None = NOW - 8,
) -> View:
    """`finished`: the end of the last scrape, None before the first."""
    return View(results, projects, finished - 2 if finished is not None else None, finished)


def render(
    *results: InstanceResult,
    query: str = "",
    state: str = "",
    page: str = "1",
    refresh: str = "",
    projects: Sequence[ProjectResult] = (),
    configuration: ConfigurationState | None = None,
) -> Element:
    return parse(
        render_status(
            make_view(results, projects),
            now=NOW,
            version="1.0.0",
            query=query,
            state=state,
            page=page,
            refresh=refresh,
            configuration=configuration,
        )
    )


def instance_rows(page: Element) -> list[Element]:
    """What each instance has of the table: one body of one or two lines."""
    sections = [each for each in page.all("section") if each.attributes.get("id") == "instances"]
    return [body for section in sections for body in section.all("tbody")]


def names(page: Element) -> list[str]:
    return [row.one("bdi", "name").text for row in instance_rows(page)]


def row_of(result: InstanceResult) -> Element:
    (row,) = instance_rows(render(result))
    return row
