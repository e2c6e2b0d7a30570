"""Keeping what is known of one instance's backups up to date: what to ask next."""

import hashlib
import math
from collections.abc import Callable

from exporter.backups.listing import Client, Lister, Listing
from exporter.backups.search import find_latest
from exporter.backups.window import (
    Sums,
    Window,
    build_window,
    increment_begin,
    listing_begin,
    merge,
    read,
    with_earlier,
)
from exporter.models import Instance, InstanceKey, Progress, Reading
from exporter.transport.limits import Query

# A listing that took longer is followed by a look at what is new since it began.
_FRESH_SECONDS = 5.0
# The pages of an unfinished listing are kept for so long; then it begins anew.
_PROGRESS_KEPT_SECONDS = 900.0
_INCOMPLETE_RETRY_SECONDS = 60.0


def next_resync(key: InstanceKey, now: float, interval: float) -> float:
    """When the instance's whole window is due next. A hash spreads the instances over time."""
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    phase = int.from_bytes(digest) / 2**64
    when = (math.floor(now / interval - phase) + 1 + phase) * interval
    return when if when > now else when + interval


class InstanceSync:
    """One instance's window, kept exact with as few requests as that takes."""

    def __init__(
        self,
        instance: Instance,
        client: Client,
        *,
        clock: Callable[[], float],
        resync_interval: float,
    ) -> None:
        self._instance = instance
        self._client = client
        self._clock = clock
        self._resync_interval = resync_interval
        self._window: Window | None = None
        self._sums: Sums | None = None
        self._listing: Listing | None = None
        self._resync_at = float("-inf")
        self._incomplete_listings = 0
        self._knows_latest = False

    @property
    def progress(self) -> Progress | None:
        """How far the listing of the whole window is, while there is one."""
        return self._listing.progress if self._listing is not None else None

    def adopt(self, previous: "InstanceSync") -> None:
        """Go on from what `previous` knows, if it was asked for the same."""
        before, now = previous._instance, self._instance
        if (before.lookback_seconds, before.offsite) != (now.lookback_seconds, now.offsite):
            return
        self._window = previous._window
        self._sums = previous._sums
        # A copy: the query of `previous` may still be reading its pages.
        self._listing = previous._listing.copy() if previous._listing is not None else None
        self._resync_at = min(
            previous._resync_at,
            next_resync(now.key, self._clock(), self._resync_interval),
        )
        self._incomplete_listings = previous._incomplete_listings
        self._knows_latest = previous._knows_latest

    async def refresh(self, query: Query, publish: Callable[[Reading], None]) -> Reading:
        """Ask the API what is new and return the numbers as of now.

        Where the whole window is due as well, the numbers as they are before it is listed go to
        `publish`: the scrape has them if the listing does not end in time.
        """
        lister = Lister(self._client, self._instance, query)
        started = self._clock()
        window = self._window
        if window is None or not window.covers(started):
            self._window = None
            return await self._relist(lister)
        reading = await self._increment(window, lister)
        if started < self._resync_at:
            return reading
        publish(reading)
        return await self._relist(lister)

    async def _increment(self, window: Window, lister: Lister) -> Reading:
        """The numbers after one look at what is new."""
        now = self._clock()
        listed, complete = await lister.list_all(Listing.since(increment_begin(window, now), now))
        window = merge(window, listed.rows.values(), now=now, complete=complete)
        return await self._read(window, complete, lister)

    async def _relist(self, lister: Lister) -> Reading:
        """The numbers after the whole window was listed."""
        now = self._clock()
        lookback = self._instance.lookback_seconds
        listing = self._listing
        if (
            listing is None
            or not listing.pages
            or not 0 <= now - listing.started < _PROGRESS_KEPT_SECONDS
        ):
            listing = Listing.since(listing_begin(now, lookback), now)
        self._listing = listing
        listed, complete = await lister.list_all(listing)
        self._listing = None
        finished = self._clock()
        window = build_window(
            listed.rows.values(),
            now=listing.started,
            lookback_seconds=lookback,
            complete=complete,
        )
        self._window, self._knows_latest = window, False
        self._schedule_resync(finished, complete)
        if finished - listing.started > _FRESH_SECONDS:
            return await self._increment(window, lister)
        return await self._read(window, complete, lister)

    def _schedule_resync(self, now: float, complete: bool) -> None:
        self._resync_at = next_resync(self._instance.key, now, self._resync_interval)
        if complete:
            self._incomplete_listings = 0
        else:
            # Worth another try soon, but not at every scrape: total_count may be wrong for good.
            wait = _INCOMPLETE_RETRY_SECONDS * 2.0 ** min(self._incomplete_listings, 16)
            self._incomplete_listings += 1
            self._resync_at = min(self._resync_at, now + wait)

    async def _read(self, window: Window, complete: bool, lister: Lister) -> Reading:
        """The numbers of `window`, with the latest backup before it where it has none."""
        now = self._clock()
        if window.latest_end(now) >= now - window.lookback_seconds:
            self._knows_latest = True  # a later one will be in a listing of what is new
        elif not self._knows_latest:
            # The day before the lookback is listed too, but a longer backup may have ended later.
            earlier, certain = await find_latest(lister, now)
            complete = complete and certain
            self._knows_latest = True
            if earlier is not None:
                window = with_earlier(window, earlier, now=now)
            now = self._clock()
        self._window = window
        reading, self._sums = read(window, now=now, complete=complete, known=self._sums)
        return reading
