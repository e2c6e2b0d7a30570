"""How much may be asked of the cloud, and when: connections, rate limits, back-off, deadlines."""

import asyncio
import email.utils
import heapq
import itertools
import random
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from exporter.errors import ApiError, DeadlineError, RateLimitedError, Reason

Jitter = Callable[[float, float], float]
_Rank = tuple[bool, bool, int]  # of a query among those that wait: lower goes first
T = TypeVar("T")

_RETRY_BASE_SECONDS = 0.5
_RETRY_CAP_SECONDS = 10.0
_THROTTLE_BASE_SECONDS = 1.0
_THROTTLE_CAP_SECONDS = 60.0
# No answer may silence a project for longer, whatever it announces.
_COOLDOWN_CAP_SECONDS = 900.0


def backoff_seconds(attempt: int, *, base: float, cap: float, jitter: Jitter) -> float:
    """Full jitter: anything up to base x 2^attempt, at most `cap`."""
    return jitter(0.0, min(cap, base * 2.0 ** min(attempt, 32)))


def retry_seconds(attempt: int, retry_after: float | None, *, jitter: Jitter) -> float:
    """How long to wait before try `attempt` + 1: what the answer names, else a random back-off."""
    if retry_after is not None:
        return retry_after
    return backoff_seconds(attempt, base=_RETRY_BASE_SECONDS, cap=_RETRY_CAP_SECONDS, jitter=jitter)


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3), else None."""
    if not value:
        return None
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


_POLICY = re.compile(r"time:\s*([0-9]{1,4})\s*(second|minute|hour)", re.IGNORECASE)
_POLICY_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0}


def parse_policy_hint(message: str) -> float | None:
    """The period in a throttling message, as users report it: `limit:200,time:5 minute`."""
    match = _POLICY.search(message)
    return float(match[1]) * _POLICY_SECONDS[match[2].lower()] if match else None


@dataclass(slots=True)
class Meter:
    """What the queries of one instance cost since the exporter knows it."""

    requests: int = 0
    errors: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))

    def count_error(self, reason: Reason) -> None:
        self.errors[reason] += 1

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


@dataclass(slots=True, eq=False)
class Query:
    """One query of an instance, or another errand, on its way through the limits.

    `deadline` is in the event loop's time. Waiting ends there; a request that was sent goes on.
    The first request of each query goes before the further ones of all. Then lower `priority`
    goes first: all pages of one instance before those of the next. What is in the `background`
    goes after all that is not.
    """

    deadline: float = float("inf")
    priority: int = 0
    background: bool = False
    requests: int = 0  # that were sent
    meter: Meter = field(default_factory=Meter)
    trouble: ApiError | None = None  # of the request of it that failed last
    _waits: set["asyncio.Future[Any]"] = field(default_factory=set)

    @property
    def rank(self) -> _Rank:
        return self.background, self.requests > 0, self.priority

    async def wait(self, future: "asyncio.Future[T]") -> T:
        """Wait for `future`; DeadlineError when `expire` is called first."""
        self._waits.add(future)
        try:
            return await future
        finally:
            self._waits.discard(future)

    async def sleep(self, seconds: float) -> None:
        """Sleep, which must fit before the deadline."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        timer = loop.call_later(seconds, _wake, future)
        try:
            await self.wait(future)
        finally:
            timer.cancel()

    def has_time_for(self, seconds: float) -> bool:
        return asyncio.get_running_loop().time() + seconds < self.deadline

    def expire(self) -> None:
        """End all waiting: the deadline has come."""
        for future in self._waits:
            if not future.done():
                future.set_exception(DeadlineError("the deadline came before a free slot"))


def _wake(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to send one request. `round` tells before which throttling it was given."""

    limiter: "RateLimiter"
    round: int


class ConnectionPool:
    """At most `max_connections` requests at once, given round robin to the projects.

    Half of them are kept for projects that have few under way, in equal parts: one that hangs
    leaves the others enough.
    """

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self.in_flight = 0
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

    def enqueue(self, limiter: "RateLimiter") -> None:
        if not limiter.queued:
            limiter.queued = True
            self._ready.append(limiter)

    def give_out(self) -> None:
        """Let requests go as long as there are free connections, the background's last."""
        ready, held_back = self._ready, []
        for background in (False, True):
            later = []
            while ready and self.in_flight < self.max_connections:
                limiter = ready.popleft()
                limiter.queued = False
                if not self.admits(limiter):
                    held_back.append(limiter)
                elif limiter.waits_in_background and not background:
                    later.append(limiter)
                elif limiter.release_next():
                    self.enqueue(limiter)
            for limiter in later:
                self.enqueue(limiter)
        for limiter in held_back:
            self.enqueue(limiter)


class RateLimiter:
    """One project's rate limit, and its silence after a 429.

    After a silence one request goes first; the rest follow when it is answered without a 429,
    so that a project's instances do not each find out anew.
    """

    def __init__(
        self, pool: ConnectionPool, *, rate_limit: float, jitter: Jitter = random.uniform
    ) -> None:
        self._pool = pool
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
        self._round = 0
        self.in_flight = 0
        self._waiters: list[tuple[_Rank, int, Query, asyncio.Future[Permit]]] = []
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
            not self._waiters
            and self._pool.admits(self)
            and self._ready_at() <= now
            and self._has_room()
        ):
            return self._send(now)
        if now >= query.deadline:
            raise DeadlineError("the deadline came before a free slot")
        future: asyncio.Future[Permit] = loop.create_future()
        heapq.heappush(self._waiters, (query.rank, next(self._order), query, future))
        self._pool.enqueue(self)
        self._pool.give_out()
        try:
            permit = await query.wait(future)
        except BaseException:
            # Cancelled just after the slot was given: pass it on.
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release()
            raise
        if permit.round != self._round:
            # A 429 came between the leave and us.
            self.release()
            return await self.acquire(query)
        return permit

    def release(self) -> None:
        self.in_flight -= 1
        self._pool.in_flight -= 1
        if self._waiters:
            self._pool.enqueue(self)
        self._pool.give_out()

    @property
    def waits_in_background(self) -> bool:
        """Whether whoever is next has time: all others that wait have it too."""
        return bool(self._waiters) and self._waiters[0][2].background

    def succeeded(self, permit: Permit) -> None:
        """The request was answered with anything but a 429."""
        if self._throttled_in_a_row and permit.round == self._round:
            self._throttled_in_a_row = 0
            if self._waiters:
                self._pool.enqueue(self)

    def throttled(self, permit: Permit, *, retry_after: float | None, hint: float | None) -> float:
        """The request was answered with a 429: the project falls silent. Returns for how long."""
        now = asyncio.get_running_loop().time()
        if permit.round != self._round:
            # Sent before the silence began: it says nothing new, but may name a longer time.
            seconds = retry_after or 0.0
        else:
            self._round += 1
            seconds = (
                retry_after
                if retry_after is not None
                else backoff_seconds(
                    self._throttled_in_a_row,
                    base=_THROTTLE_BASE_SECONDS,
                    # Only 429s in a row make the whole period of a policy worth waiting for.
                    cap=max(_THROTTLE_CAP_SECONDS, hint or 0.0),
                    jitter=self._jitter,
                )
            )
            self._throttled_in_a_row += 1
        self._silent_until = max(self._silent_until, now + min(seconds, _COOLDOWN_CAP_SECONDS))
        for _, _, query, future in self._waiters:
            if not future.done() and self._silent_until >= query.deadline:
                future.set_exception(self._silence(now))
        return max(0.0, self._silent_until - now)

    def _silence(self, now: float) -> RateLimitedError:
        seconds = self._silent_until - now
        return RateLimitedError(
            f"not asked: the project backs off for another {seconds:.0f} s after a 429",
            retry_after=seconds,
            hint="lower api.rate_limit or scrape less often",
        )

    def _has_room(self) -> bool:
        return not (self._throttled_in_a_row and self.in_flight)

    def _ready_at(self) -> float:
        """When the next request may go."""
        ready = self._silent_until
        if self._sent is not None:
            if len(self._sent) == self._sent.maxlen:
                ready = max(ready, self._sent[0] + self._sent_period)
            if len(self._sent) >= self._burst:
                ready = max(ready, self._sent[-self._burst] + self._burst_period)
        return ready

    def _send(self, now: float) -> Permit:
        if self._sent is not None:
            self._sent.append(now)
        self.in_flight += 1
        self._pool.in_flight += 1
        return Permit(self, self._round)

    def release_next(self) -> bool:
        """Let the next waiter go if it may; whether another could follow at once."""
        while self._waiters and self._waiters[0][3].done():
            heapq.heappop(self._waiters)
        if not self._waiters or not self._has_room():
            return False
        now = asyncio.get_running_loop().time()
        ready = self._ready_at()
        if ready > now:
            self._wake_at(ready)
            return False
        future = heapq.heappop(self._waiters)[3]
        future.set_result(self._send(now))
        return bool(self._waiters)

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
