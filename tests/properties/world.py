"""A cloud and what happens to it: the values that an example consists of.

Times are the cloud's, in seconds after noon. All is shown with what differs from the defaults
alone: a failing example is for people.
"""

import zlib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from exporter.simulator import Fault, Knobs, SimulatedBackup
from tests.support.faults import RESET
from tests.support.virtual_time import HOUR, NOON


@dataclass(frozen=True, repr=False)
class Plain:
    def __repr__(self) -> str:
        return show(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def show(value: Any) -> str:
    told = []
    for item in fields(value):
        given = getattr(value, item.name)
        if item.default is MISSING or given != item.default:
            told.append(f"{item.name}={show(given) if isinstance(given, Knobs) else repr(given)}")
    return f"{type(value).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Row(Plain):
    """A backup. `end` None: it never ends."""

    begin: float
    end: float | None
    appears: float
    deleted: float | None = None
    size: float | None = 0.0
    offsite: bool = False

    def build(self, number: int) -> SimulatedBackup:
        return SimulatedBackup(
            f"{zlib.crc32(str(number).encode()):08x}{number:024x}br07",
            NOON + self.begin,
            None if self.end is None else NOON + self.end,
            self.size,
            backup_type="OffSiteLog" if self.offsite else "Log",
            appears_at=NOON + self.appears,
            deleted_at=None if self.deleted is None else NOON + self.deleted,
        )

    @property
    def duration(self) -> float:
        return 0.0 if self.end is None else self.end - self.begin


@dataclass(frozen=True, repr=False)
class Cloud(Plain):
    """An instance's backups and how it is watched. `elsewhere`: what another endpoint has of it."""

    rows: tuple[Row, ...]
    lookback: int
    offsite: bool = False
    elsewhere: tuple[Row, ...] = ()


@dataclass(frozen=True, repr=False)
class Step(Plain):
    """What happens `gap` seconds after the scrape before: an action, then a scrape."""

    gap: float
    timeout: float = 10.0
    faults: tuple[str, ...] = ()
    action: str = ""
    overlapping: float | None = None  # so much later, a second scrape at the same time
    # The machine's clock is set so many seconds ahead of the cloud's, so long after the scrape's
    # begin (or before it).
    clock: tuple[float, int] | None = None
    suspended: float = 0.0  # for so long within the gap the machine sleeps
    listings_fail: bool = False  # from here on: requests for a whole window


@dataclass(frozen=True, repr=False)
class Scenario(Plain):
    clouds: tuple[Cloud, ...]
    knobs: Knobs
    steps: tuple[Step, ...]
    resync_interval: int
    skew: int = 0  # seconds that the machine's clock is ahead of the cloud's at the start
    rate_limit: int = 50
    max_connections: int = 50


def without_a_row(document: Any) -> Any:
    """A page that lost a row: what a listing that shifts looks like."""
    return {**document, "backups": document.get("backups", [])[1:]}


def with_total(change: int) -> Callable[[Any], Any]:
    def alter(document: Any) -> Any:
        total = document.get("total_count")
        if not isinstance(total, int):
            return document
        return {**document, "total_count": max(0, total + change)}

    return alter


# By name, so that a failing example can be read. Those that change what an answer says are apart.
FAULTS: dict[str, Fault] = {
    **{f"status {status}": Fault(status=status) for status in (400, 403, 404, 409, 500, 503)},
    "bad gateway": Fault(status=502, form="html"),
    "gateway timeout": Fault(status=504, form="empty"),
    "unauthorised": Fault(status=401, form="gateway", code="APIGW.0307"),
    "throttled": Fault(status=429, form="gateway", message="limit:200,time:1 second"),
    "throttled plainly": Fault(status=429, form="gateway"),
    "throttled for minutes": Fault(status=429, form="gateway", message="limit:200,time:5 minute"),
    "retry after": Fault(status=429, form="gateway", headers={"Retry-After": "2"}),
    "unavailable for a second": Fault(status=503, headers={"Retry-After": "1"}),
    "redirect": Fault(status=302, headers={"Location": "https://elsewhere.example/"}),
    "empty body": Fault(status=200, form="empty"),
    "no content": Fault(status=204, form="empty"),
    "html": Fault(status=200, form="html"),
    "garbage": Fault(body=b"\x00\xff{]"),
    "no object": Fault(body=b"[]"),
    "empty object": Fault(body=b"{}"),
    "no backups": Fault(body=b'{"backups":null,"total_count":3}'),
    "nested": Fault(nesting=2_000),
    "reset": RESET,
    "cut at once": Fault(cut_after_bytes=0),
    "cut": Fault(cut_after_bytes=57),
    "slow": Fault(chunk_bytes=400, chunk_pause_seconds=0.25),
    "too slow": Fault(chunk_bytes=16, chunk_pause_seconds=1.0),
    "late": Fault(delay_seconds=2.0),
    "hang": Fault(hang=True),
    **{
        spoiler: Fault(rows=spoiler)
        for spoiler in (
            "unreadable_time",
            "impossible_time",
            "number_time",
            "no_zone_time",
            "unreadable_begin",
            "negative_size",
            "nan_size",
            "infinite_size",
            "string_size",
            "bool_size",
            "empty_id",
            "missing_id",
            "missing_times",
            "text_row",
            "null_row",
            "repeated",
        )
    },
}
CHANGING_FAULTS: dict[str, Fault] = {
    "repeated_changed": Fault(rows="repeated_changed"),
    "a row lost": Fault(alter=without_a_row),
    "total too high": Fault(alter=with_total(1)),
    "total too low": Fault(alter=with_total(-1)),
    "no rows": Fault(rows=lambda rows: []),
}
# The header `Date` is nonsense, or out of a proxy's cache: two hours old.
DATE_FAULTS = ("no such date", "an old date")
SPECIAL_FAULTS = ("", "revoke")

LOOKBACKS = [300, 900, 3_600, 7_200, 86_400]
# Further back than a scrape asks for what is new, as a rule.
WHOLE_SECONDS = 12 * HOUR
