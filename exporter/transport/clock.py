"""The cloud's clock, by the `Date` of its answers.

A machine whose clock is wrong would ask for the wrong hours, take fresh backups for old ones, and
sign for a time that the gateway refuses until the key is locked.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from statistics import median

import structlog

from exporter.config.durations import format_duration

log = structlog.get_logger(__name__)

# Within a minute the machine's clock is good enough. Back to it a little earlier than away from
# it, so that a clock near the limit does not move to and fro.
_TOLERANCE_SECONDS = 60.0
_BACK_SECONDS = 55.0
# A `Date` is told to the second; the rest is for machines of the cloud that differ.
_DATE_SECONDS = 1.0
_LEEWAY_SECONDS = 2.0
# An answer that took longer says too little of the moment it was given.
_SLOWEST_SECONDS = 60.0
# More is a reason to ask again what was asked for by the clock as it was before.
_MOVE_SECONDS = 10.0
_REMEMBERED = 5
# No machine of the cloud can mean another time.
_EARLIEST = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()


@lru_cache(16)  # all answers within a second tell the same
def parse_date(text: str | None) -> float | None:
    """Seconds since the epoch of a `Date` header (RFC 9110, 5.6.7); None for nonsense."""
    if not text:
        return None
    try:
        moment = parsedate_to_datetime(text)
        seconds = moment.timestamp() if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
    return seconds if seconds is not None and _EARLIEST <= seconds < _LATEST else None


# It goes on while the machine sleeps: by this name on Linux, by the other on macOS.
_SLEEPLESS: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady_time() -> float:
    """What passes evenly, whatever the machine's clock is set to.

    The loop's time stands still while the machine sleeps. For the cloud that time has passed.
    """
    return asyncio.get_running_loop().time() + slept_seconds()


def slept_seconds() -> float:
    """How long the machine has slept since it was started (clock_gettime(2), CLOCK_BOOTTIME).

    To a tenth: between the readings of the two clocks a little time passes.
    """
    return round(time.clock_gettime(_SLEEPLESS) - time.monotonic(), 1)


class CloudClock:
    """What time it is for one project: the machine's, or the cloud's where they differ.

    One answer with a strange `Date` moves nothing: it takes a second one, or the machine's clock,
    to agree with it. Only the very first is believed at once.
    """

    def __init__(
        self,
        machine: Callable[[], float] = time.time,
        *,
        steady: Callable[[], float] = steady_time,
        tell: "Callable[[CloudClock], None]" = lambda clock: None,
    ) -> None:
        """`tell` is called after each answer that was learned from."""
        self._machine = machine
        self._steady = steady
        self._tell = tell
        # The cloud's time is the steady time plus this; samples of it, the newest last.
        self._offset: float | None = None
        self._samples: deque[float] = deque(maxlen=_REMEMBERED)
        self._suspect: float | None = None
        self._date = ""  # the last that was told, and the steady time when it first was
        self._date_at = 0.0
        self._dates = 0
        self._is_off = False
        # Grows where the time has moved, or may have, under those that have asked with it.
        self.moves = 0

    def __call__(self) -> float:
        machine = self._machine()
        return machine - self._ahead(machine)

    @property
    def skew(self) -> float | None:
        """The machine's clock less the cloud's; None before the first answer."""
        return self._machine() - self._cloud() if self._offset is not None else None

    @property
    def ahead(self) -> float:
        """What is taken off the machine's clock; 0 where that is good enough."""
        return self._ahead(self._machine())

    def _cloud(self) -> float:
        assert self._offset is not None
        return self._steady() + self._offset

    def _ahead(self, machine: float) -> float:
        if self._offset is None:
            return 0.0
        skew = machine - self._cloud()
        self._is_off = abs(skew) > (_BACK_SECONDS if self._is_off else _TOLERANCE_SECONDS)
        return skew if self._is_off else 0.0

    def observe(self, date: str | None, *, sent: float, received: float) -> None:
        """Learn from the `Date` of an answer, of which the steady times are known."""
        seconds = parse_date(date)
        took = received - sent
        if date is None or seconds is None or not 0 <= took <= _SLOWEST_SECONDS:
            return
        if self._stands_still(date, sent, received):
            return
        sample = seconds + _DATE_SECONDS / 2 - (sent + received) / 2
        slack = (_DATE_SECONDS + took) / 2 + _LEEWAY_SECONDS
        before = self()
        if self._offset is None or abs(sample - self._offset) <= slack:
            self._samples.append(sample)
        elif self._is_confirmed(sample, slack):
            self._samples.clear()
            self._samples.append(sample)
        else:
            self._suspect = sample
            self.moves += 1
            return
        self._suspect = None
        self._offset = median(self._samples)
        if abs(self() - before) > _MOVE_SECONDS:
            self.moves += 1
        self._tell(self)

    def _stands_still(self, date: str, sent: float, received: float) -> bool:
        """Whether the same was told before, though time has passed: it is out of some memory."""
        if date != self._date:
            self._date, self._date_at = date, received
            self._dates += 1
            return False
        if sent - self._date_at <= _DATE_SECONDS:
            return False
        if self._dates == 1 and self._offset is not None:  # all that was learned is from it
            self._offset = self._suspect = None
            self._samples.clear()
            self.moves += 1
        return True

    def _is_confirmed(self, sample: float, slack: float) -> bool:
        """Whether something else agrees that the cloud's clock is not where it was thought."""
        if abs(self._machine() - self._steady() - sample) <= _TOLERANCE_SECONDS:
            return True
        return self._suspect is not None and abs(sample - self._suspect) <= slack


class CloudClocks:
    """One clock for each project at each endpoint. They outlive a reload."""

    def __init__(
        self, machine: Callable[[], float], *, steady: Callable[[], float] = steady_time
    ) -> None:
        self._machine = machine
        self._steady = steady
        self._clocks: dict[tuple[str, str], CloudClock] = {}
        self._told = False

    def of(self, project: str, endpoint: str) -> CloudClock:
        key = project, endpoint
        if key not in self._clocks:
            self._clocks[key] = CloudClock(self._machine, steady=self._steady, tell=self._tell)
        return self._clocks[key]

    def keep(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget those of projects and endpoints that are configured no more."""
        self._clocks = {key: clock for key, clock in self._clocks.items() if key in keys}

    def _tell(self, _: CloudClock) -> None:
        """Say once that the clocks differ, and once that they no longer do: it is one machine."""
        off = {key: clock for key, clock in self._clocks.items() if clock.ahead}
        if bool(off) == self._told:
            return
        self._told = bool(off)
        if off:
            project, clock = next(iter(off.items()))
            log.warning(
                "this machine's clock differs from the cloud's",
                project=project[0],
                skew_seconds=round(clock.ahead),
                error=f"it is {describe_skew(clock.ahead)} the cloud's, whose time is used instead",
                hint="set this machine's clock, by NTP",
            )
        else:
            log.info("this machine's clock agrees with the cloud's again")


def describe_skew(seconds: float) -> str:
    """For people: `2h ahead of`, `5m behind`."""
    return f"{format_duration(round(abs(seconds)))} {'ahead of' if seconds > 0 else 'behind'}"
