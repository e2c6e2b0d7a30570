"""The memory of what was refused, so that no account gets locked: five failed logins do that."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import structlog

from exporter.config.durations import format_duration
from exporter.credentials.trust import KEYS_LAST_SECONDS, Trust
from exporter.credentials.turns import Turn
from exporter.errors import AuthError, Reason
from exporter.transport.backoff import doubled

log = structlog.get_logger(__name__)

_BACKOFF_SECONDS = 60.0
_BACKOFF_CAP_SECONDS = 900.0
# Longer than a scrape interval, so that a project that was refused less often gets its turn.
_COURTESY_SECONDS = 75.0
_ASKED_SECONDS = 600.0
_STRANGERS = 2
_REMEMBERED = 1_000


class NotAskedError(AuthError):
    """Nobody was asked: what was refused before is not shown again yet."""


@dataclass(slots=True)
class _BackOff:
    """Refusals in a row."""

    until: float = float("-inf")
    refused: int = 0
    error: AuthError | None = None


class Refusals:
    """The memory of what was refused. One for each account or access key, shared by projects.

    Each secret has its own back-off: one that changed is tried at once, and where two projects
    name different secrets, the right one does not clear the wrong one. A refusal holds for all
    projects with the same secret, but not where it is known to be the project's own trouble.
    """

    def __init__(self, what: str) -> None:
        self.what = what  # for logs
        self._back_offs: dict[tuple[str, str], _BackOff] = {}  # by secret, and "" or a project
        self._accepted: dict[str, set[str]] = {}  # the projects a secret has served, by secret
        # By secret, when projects were refused that it has not served. That may be the trouble of
        # one; where it is that of two, nobody else finds out for a minute but whom it has served.
        self._strangers: dict[str, dict[str, tuple[float, AuthError]]] = {}
        self._refused_to: Counter[tuple[str, str]] = Counter()  # by secret and project
        self._asked: dict[tuple[str, str], float] = {}  # when last, by the same
        self._dead: dict[object, None] = {}  # temporary keys that were refused
        self.logins = Turn()  # one at a time
        self.trust = Trust(KEYS_LAST_SECONDS)  # in an access key, of all projects that sign with it

    def check(self, secret: str, project: str) -> None:
        """NotAskedError while the back-off lasts."""
        now = asyncio.get_running_loop().time()
        self._asked[secret, project] = now
        for scope in ("", project):
            back_off = self._back_offs.get((secret, scope))
            if back_off is None or back_off.error is None:
                continue
            wait = back_off.until - now
            if not scope:
                wait += self._courtesy(secret, project, now)
            if wait > 0:
                raise _not_asked(back_off.error, wait)
        strangers = [
            (at + _BACKOFF_SECONDS - now, error)
            for at, error in self._strangers.get(secret, {}).values()
            if at + _BACKOFF_SECONDS > now
        ]
        if len(strangers) >= _STRANGERS and project not in self._accepted.get(secret, {project}):
            wait, error = strangers[-1]
            raise _not_asked(error, wait)

    def _courtesy(self, secret: str, project: str, now: float) -> float:
        """How much longer a project waits that was refused more often than another that waits:
        the trouble may be its own, and then the other ends the back-off."""
        fewest = min(
            self._refused_to[key]
            for key, asked in self._asked.items()
            if key[0] == secret and now - asked < _ASKED_SECONDS
        )
        return _COURTESY_SECONDS if self._refused_to[secret, project] > fewest else 0.0

    def is_doubted(self, secret: str) -> bool:
        """Whether it was refused, and not let in since."""
        return (secret, "") in self._back_offs

    def accept(self, secret: str, project: str) -> None:
        """A request of the project was let in with what the secret gave."""
        for scope in ("", project):
            self._back_offs.pop((secret, scope), None)
        self._refused_to.pop((secret, project), None)
        self._strangers.get(secret, {}).pop(project, None)
        self._accepted.setdefault(secret, set()).add(project)

    def refuse(
        self, secret: str, project: str, error: AuthError, *, own: bool = False, who: str = ""
    ) -> None:
        """Back off. `own`: the refusal says nothing about the secret. `who` it was, for logs."""
        now = asyncio.get_running_loop().time()
        served = self._accepted.get(secret, set())
        if own or (served and project not in served):
            scope = project
            if not own:
                strangers = self._strangers.setdefault(secret, {})
                strangers.pop(project, None)  # the newest is last
                strangers[project] = now, error
        else:
            # What has served this project does no more.
            scope = ""
            self._accepted.pop(secret, None)
        back_off = self._back_offs.setdefault((secret, scope), _BackOff())
        self._forget_the_oldest()
        # Of several that were on their way together each counts, as if one had waited for the
        # other.
        back_off.refused += 1
        begun = max(now, back_off.until)
        wait = doubled(_BACKOFF_SECONDS, back_off.refused, cap=_BACKOFF_CAP_SECONDS)
        wait = min(begun + wait - now, _BACKOFF_CAP_SECONDS)
        back_off.until, back_off.error = now + wait, error
        self._refused_to[secret, project] += 1
        log.warning(
            "login failed",
            who=who or self.what,
            project=project,
            error=error.message,
            hint=error.hint,
            next_try_seconds=round(wait),
        )

    def bury(self, value: object) -> None:
        """What was given out and refused: whoever else holds it need not show it again."""
        self._dead[value] = None

    def revive(self, value: object) -> None:
        """It was given out anew, or let in."""
        self._dead.pop(value, None)

    def is_dead(self, value: object) -> bool:
        return value in self._dead

    def _forget_the_oldest(self) -> None:
        memories: list[dict[Any, Any]] = [self._back_offs, self._accepted, self._refused_to]
        memories.append(self._strangers)
        for memory in (*memories, self._asked, self._dead):
            while len(memory) > _REMEMBERED:
                del memory[next(iter(memory))]


def _not_asked(error: AuthError, wait_seconds: float) -> NotAskedError:
    return NotAskedError(
        f"{error.message} (tried again in {format_duration(max(1, round(wait_seconds)))})",
        reason=Reason.AUTH,
        hint=error.hint,
        **error.facts,
    )
