"""Failures that have one cause, said once: three hundred instances with one wrong password.

The cause is the project, the reason, and the message less what differs from instance to instance.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from exporter.errors import Reason
from exporter.models import Failure, Instance, InstanceResult

_DIFFERS = "…"
_NAMED = 3

# Ids as the cloud makes them: hexadecimal digits and perhaps a suffix, UUIDs, what is called an id.
_ID = re.compile(
    r"\b[0-9a-fA-F]{16,}(?:[a-z]{2}\d{2})?\b"
    r"|\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"
    r"|(?<=request id )[\w-]+|(?<=request_id=)[\w-]+"
)
# What is added where the same refusal is told again.
_NEXT_TRY = re.compile(r" \(tried again in [^)]{1,20}\)$")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?")
_DURATION = re.compile(
    r"(?<![\w.:])\d+(?:\.\d+)?\s?(?:ms|s|seconds?|min|minutes?|h|hours?|d|days?)\b"
)
# Counts, pages, bytes; neither a status (`503`) nor a part of a code, an address, a version.
_NUMBER = re.compile(r"(?<![\w.:/-])(?![1-5]\d\d(?![\d.,]))\d[\d,]*(?:\.\d+)?(?![\w:/-])")


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause of failure and the instances that fail for it, in the order in which they came."""

    failure: Failure  # of the first one; the message without what differs where there are more
    results: Sequence[InstanceResult]

    @property
    def instances(self) -> Sequence[Instance]:
        return [result.instance for result in self.results]

    @property
    def reason(self) -> Reason:
        return self.failure.reason

    @property
    def names(self) -> str:
        """The first names and how many more: `orders, billing, ledger and 297 more`."""
        return name_first(self.instances)


def group_causes(results: Iterable[InstanceResult]) -> list[Cause]:
    """The failures among `results` by their cause, those that concern most instances first."""
    groups: dict[tuple[str, Reason, str], list[InstanceResult]] = {}
    for result in results:
        if result.failure is not None:
            key = (
                result.instance.project_id,
                result.failure.reason,
                generalize(result.failure.message, result.instance),
            )
            groups.setdefault(key, []).append(result)
    causes = []
    for (_, _, message), members in groups.items():
        failures = [each.failure for each in members if each.failure is not None]
        first = next((each for each in failures if each.evidence), failures[0])
        failure = replace(first, message=_shared([each.message for each in failures], message))
        causes.append(Cause(failure, members))
    return sorted(causes, key=lambda cause: -len(cause.results))


def _shared(messages: Sequence[str], generalized: str) -> str:
    """The words that all messages have in the same places, `…` for the others."""
    if len(set(messages)) == 1:
        return messages[0]
    words = [message.split() for message in messages]
    if len({len(each) for each in words}) > 1:
        return generalized
    return " ".join(
        same[0] if len(set(same)) == 1 else _DIFFERS for same in zip(*words, strict=True)
    )


def generalize(message: str, instance: Instance) -> str:
    """The message with `…` for what is this instance's or this moment's: ids, times, counts."""
    for own in (instance.id, instance.name):
        if own and own in message:
            message = re.sub(rf"(?<!\w){re.escape(own)}(?!\w)", _DIFFERS, message)
    return _generalize(message)


# Thousands of instances fail for few causes.
@lru_cache(maxsize=1_024)
def _generalize(message: str) -> str:
    message = _NEXT_TRY.sub("", message)
    for pattern in (_TIME, _ID, _DURATION, _NUMBER):
        message = pattern.sub(_DIFFERS, message)
    return message


def name_first(instances: Sequence[Instance], limit: int = _NAMED) -> str:
    """The first names and how many more there are; one more is named rather than counted."""
    shown = limit if len(instances) > limit + 1 else len(instances)
    names = ", ".join(instance.name or instance.id for instance in instances[:shown])
    left_out = len(instances) - shown
    return f"{names} and {left_out:,} more" if left_out else names
