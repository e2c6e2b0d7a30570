"""How much may be asked of the cloud, and when: connections, rate limits, back-off, deadlines."""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.errors import DeadlineError, RateLimitedError
from exporter.transport.backoff import Jitter, backoff_seconds
from exporter.transport.query import Query, Rank, Share

_THROTTLE_BASE_SECONDS = 1.0
_THROTTLE_CAP_SECONDS = 60.0
# No answer may silence a project for longer, whatever it announces.
_COOLDOWN_CAP_SECONDS = 900.0


_Waiter = tuple[Rank, int, Query, "asyncio.Future[Permit]"]


@dataclass(slots=True, eq=False)
class Permit:
    """Leave to send one request. `round` tells before which throttling it was given."""

    limiter: "RateLimiter"
    share: Share
    round: int
    since: float  # in the loop's time
    bound: asyncio.Timeout | None = None  # of the request that is sent
    is_given_up: bool = False

    def age(self, *, at_most: float) -> float:
        seconds = asyncio.get_running_loop().time() - self.since
        return min(at_most, round(seconds, 1))

    def give_up(self) -> None:
        """End the request: others wait for its connection."""
        if self.bound is not None and not self.bound.expired():
            self.is_given_up = True
            self.bound.reschedule(asyncio.get_running_loop().time())


# All connections are in use, and what is new waits: a request without an answer for so long, and
# for so many times as long as the slowest of the last answers took, gives its connection to it.
_PATIENCE_SECONDS = 2.0
_PATIENCE_FACTOR = 4.0
_ANSWERS_REMEMBERED = 50
_ANSWERS_NEEDED = 10


class ConnectionPool:
    """At most `max_connections` requests at once, given round robin to the projects.

    Half of them are kept for projects that have few under way, in equal parts: one that hangs
    leaves the others enough. So do, within a project too, the instances that did not answer last
    time, and what has time.
    """

    def __init__(self, max_connections: int, *, behind: float = 0.8) -> None:
        """`behind`: the part of them that may be held by what has time."""
        self.max_connections = max_connections
        self.in_flight = 0
        self.caps: Mapping[Share, int] = {
            Share.NEW: max_connections,
            Share.UNANSWERED: max(1, max_connections // 5),
            Share.BEHIND: max(1, int(max_connections * behind)),
        }
        self._held = dict.fromkeys(Share, 0)
        # The requests for what is new that are under way, oldest first.
        self._new: dict[Permit, None] = {}
        self._answer_seconds: deque[float] = deque(maxlen=_ANSWERS_REMEMBERED)
        self._relief: asyncio.TimerHandle | None = None
        self._ready: deque[RateLimiter] = deque()
        self._limiters: set[RateLimiter] = set()

    def add(self, limiter: "RateLimiter") -> None:
        self._limiters.add(limiter)

    def remove(self, limiter: "RateLimiter") -> None:
        self._limiters.discard(limiter)

    def admits(self, limiter: "RateLimiter") -> bool:
        """Whether there is a free slot, and one that is not kept for others."""
        free = self.max_connections - self.in_flight
        if free <= 0 or len(self._limiters) < 2:
            return free > 0
        share = self.max_connections // (2 * len(self._limiters))
        if limiter.in_flight < share:
            return True
        kept = sum(max(0, share - other.in_flight) for other in self._limiters)
        return free > kept

    def has_room(self, share: Share) -> bool:
        held = self._held[share]
        if share is Share.BEHIND:  # those that may hang leave it what is left of its own
            held += self._held[Share.UNANSWERED]
        return self.in_flight < self.max_connections and held < self.caps[share]

    def take(self, permit: Permit) -> None:
        self.in_flight += 1
        self._held[permit.share] += 1
        if permit.share is Share.NEW:
            self._new[permit] = None

    def give_back(self, share: Share) -> None:
        self.in_flight -= 1
        self._held[share] -= 1

    def ended(self, permit: Permit, *, answered: bool) -> None:
        """The request was answered, or failed."""
        self._new.pop(permit, None)
        if answered:
            self._answer_seconds.append(asyncio.get_running_loop().time() - permit.since)

    def _relieve(self) -> None:
        """Where all connections are in use and what is new waits, end the request that has waited
        longest for its answer, if it is far longer than others take."""
        self._relief = None
        oldest = next(iter(self._new), None)
        is_needed = self.in_flight >= self.max_connections and any(
            limiter.waits_for_new for limiter in self._ready
        )
        if oldest is None or not is_needed or len(self._answer_seconds) < _ANSWERS_NEEDED:
            return
        loop = asyncio.get_running_loop()
        patience = max(_PATIENCE_SECONDS, _PATIENCE_FACTOR * max(self._answer_seconds))
        if oldest.since + patience > loop.time():
            self._relief = loop.call_at(oldest.since + patience, self._relieve)
            return
        del self._new[oldest]
        oldest.give_up()

    def enqueue(self, limiter: "RateLimiter") -> None:
        if not limiter.queued:
            limiter.queued = True
            self._ready.append(limiter)

    def give_out(self) -> None:
        """Let requests go as long as there are free connections, those that have time last."""
        ready, held_back = self._ready, []
        for share in Share:
            later = []
            while ready and self.in_flight < self.max_connections:
                limiter = ready.popleft()
                limiter.queued = False
                if not self.admits(limiter):
                    held_back.append(limiter)
                elif limiter.first_share > share:
                    later.append(limiter)
                elif limiter.release_next():
                    self.enqueue(limiter)
                elif limiter.lacks_connections:
                    held_back.append(limiter)
            for limiter in later:
                self.enqueue(limiter)
        for limiter in held_back:
            self.enqueue(limiter)
        if self._relief is None and self.in_flight >= self.max_connections:
            self._relieve()


class RateLimiter:
    """One project's rate limit, and its silence after a 429.

    After a silence one request goes first; the rest follow when it is answered without a 429,
    so that a project's instances do not each find out anew.
    """

    def __init__(
        self, pool: ConnectionPool, *, rate_limit: float, jitter: Jitter = random.uniform
    ) -> None:
        self._pool = pool
        self._rate_limit = rate_limit
        # No second, wherever it begins, sees more than the limit: remember the last ones sent. A
        # tenth of them may go at once, the others spread: what the network delays by a little
        # meets no more than that of the next second where the cloud counts.
        count = max(1, int(rate_limit))
        self._sent: deque[float] | None = deque(maxlen=count) if rate_limit > 0 else None
        self._sent_period = max(1.0, count / rate_limit) if rate_limit > 0 else 0.0
        self._burst = max(1, count // 10)
        self._burst_period = self._sent_period * self._burst / count
        self._jitter = jitter
        self._silent_until = float("-inf")
        self._throttled_in_a_row = 0
        self._throttled = ""  # by what, for people
        self._round = 0
        self.in_flight = 0
        self._waiters: dict[Share, list[_Waiter]] = {share: [] for share in Share}
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        self.queued = False
        pool.add(self)

    async def acquire(self, query: Query) -> Permit:
        """Wait for leave to send one request; `release` gives it back.

        Raises DeadlineError when the query's deadline comes first, RateLimitedError when the
        project's silence is known to outlast it.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._silent_until > now and self._silent_until >= query.deadline:
            raise self._silence(now)
        # One that comes after its deadline still goes if nothing keeps it waiting.
        if (
            not self._has_waiters()
            and self._pool.admits(self)
            and self._pool.has_room(query.share)
            and self._ready_at() <= now
            and self._may_follow()
        ):
            return self._send(query.share, now)
        if now >= query.deadline:
            raise DeadlineError(self._obstacle(query))
        future: asyncio.Future[Permit] = loop.create_future()
        waiter = (query.rank, next(self._order), query, future)
        heapq.heappush(self._waiters[query.share], waiter)
        self._pool.enqueue(self)
        self._pool.give_out()
        try:
            permit = await query.wait(future, lambda: self._obstacle(query))
        except BaseException:
            # Cancelled just after the slot was given: pass it on.
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(query.share)
            del future, waiter  # they hold the error, whose frames would hold them
            raise
        if permit.round != self._round:
            # A 429 came between the leave and us.
            self.release(query.share)
            return await self.acquire(query)
        return permit

    def release(self, share: Share = Share.NEW) -> None:
        self.in_flight -= 1
        self._pool.give_back(share)
        if self._has_waiters():
            self._pool.enqueue(self)
        self._pool.give_out()

    def ended(self, permit: Permit, *, answered: bool) -> None:
        """The request was answered, or failed."""
        self._pool.ended(permit, answered=answered)

    @property
    def waits_for_new(self) -> bool:
        """Whether what is new of an instance waits."""
        return bool(self._waiters[Share.NEW])

    def succeeded(self, permit: Permit) -> None:
        """The request was answered with anything but a 429."""
        if self._throttled_in_a_row and permit.round == self._round:
            self._throttled_in_a_row = 0
            if self._has_waiters():
                self._pool.enqueue(self)

    def throttled(
        self, permit: Permit, *, retry_after: float | None, hint: float | None, by: str = ""
    ) -> float:
        """The request was answered with a 429, `by` somebody else than the cloud: the project
        falls silent. Returns for how long."""
        now = asyncio.get_running_loop().time()
        self._throttled = f"a 429 of {by}" if by else "a 429"
        if permit.round != self._round:
            # Sent before the silence began: it says nothing new, but may name a longer time.
            seconds = retry_after or 0.0
        else:
            self._round += 1
            step = backoff_seconds(
                self._throttled_in_a_row,
                base=_THROTTLE_BASE_SECONDS,
                # Only 429s in a row make the whole period of a policy worth waiting for.
                cap=max(_THROTTLE_CAP_SECONDS, hint or 0.0),
                jitter=self._jitter,
            )
            # An answer that names no time, or one gone by, does not end the back-off.
            seconds = max(step, retry_after or 0.0)
            self._throttled_in_a_row += 1
        self._silent_until = max(self._silent_until, now + min(seconds, _COOLDOWN_CAP_SECONDS))
        for _, _, query, future in itertools.chain(*self._waiters.values()):
            if not future.done() and self._silent_until >= query.deadline:
                future.set_exception(self._silence(now))
        return max(0.0, self._silent_until - now)

    def _silence(self, now: float) -> RateLimitedError:
        seconds = self._silent_until - now
        return RateLimitedError(
            f"not asked: the project backs off for another {seconds:.0f} s after {self._throttled}",
            retry_after=seconds,
            hint="lower api.rate_limit or scrape less often",
        )

    def _has_waiters(self) -> bool:
        return any(self._waiters.values())

    def _may_follow(self) -> bool:
        """After a silence the first answer decides about the others."""
        return not (self._throttled_in_a_row and self.in_flight)

    def _obstacle(self, query: Query) -> str:
        """What keeps a request of `query` from being sent, for people."""
        now = asyncio.get_running_loop().time()
        pool = self._pool
        if self._silent_until > now:
            return f"the end of the silence after a 429, in {self._silent_until - now:.0f} s"
        if not self._may_follow():
            return "the first answer after a 429"
        if query.share is Share.UNANSWERED and pool.in_flight < pool.max_connections:
            return (
                f"one of the {pool.caps[Share.UNANSWERED]} connections for instances that did not"
                " answer last time"
            )
        if not pool.has_room(query.share) or not pool.admits(self):
            return f"a free one of the {pool.max_connections} connections (api.max_connections)"
        return f"its turn, {self._rate_limit:g} requests a second (api.rate_limit)"

    def _ready_at(self) -> float:
        """When the next request may go."""
        ready = self._silent_until
        if self._sent is not None:
            if len(self._sent) == self._sent.maxlen:
                ready = max(ready, self._sent[0] + self._sent_period)
            if len(self._sent) >= self._burst:
                ready = max(ready, self._sent[-self._burst] + self._burst_period)
        return ready

    def _send(self, share: Share, now: float) -> Permit:
        if self._sent is not None:
            self._sent.append(now)
        self.in_flight += 1
        permit = Permit(self, share, self._round, now)
        self._pool.take(permit)
        return permit

    def release_next(self) -> bool:
        """Let the next waiter go if it may; whether another could follow at once."""
        share = self._next_share()
        if share is None or not self._may_follow():
            return False
        now = asyncio.get_running_loop().time()
        ready = self._ready_at()
        if ready > now:
            self._wake_at(ready)
            return False
        future = heapq.heappop(self._waiters[share])[3]
        future.set_result(self._send(share, now))
        return self._has_waiters()

    @property
    def first_share(self) -> Share:
        """The share of whoever may go next."""
        share = self._next_share()
        return Share.NEW if share is None else share

    @property
    def lacks_connections(self) -> bool:
        """Whether those that wait have no connection left that is theirs."""
        return self._has_waiters() and self._next_share() is None

    def _next_share(self) -> Share | None:
        self._drop_gone()
        return next((s for s in Share if self._waiters[s] and self._pool.has_room(s)), None)

    def _drop_gone(self) -> None:
        """Forget who waits no longer."""
        for waiters in self._waiters.values():
            while waiters and waiters[0][3].done():
                heapq.heappop(waiters)

    def _wake_at(self, when: float) -> None:
        if self._timer is not None and self._timer_at <= when:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self._pool.enqueue(self)
        self._pool.give_out()

    def close(self) -> None:
        self._pool.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
