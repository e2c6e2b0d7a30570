"""What the documentation leaves open, and what may differ from one cloud to another."""

import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

Order = Literal[
    "begin_asc",
    "begin_desc",
    "end_asc",
    "end_desc",
    "id",
    "shuffled_stable",
    "shuffled_each_request",
]
Bounds = Literal["inclusive", "exclusive", "half_open"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`limit` requests in each `seconds` of a project; more get a 429."""

    limit: int
    seconds: float
    retry_after: Literal["none", "seconds", "date"] = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """What the documentation leaves open, and what may differ from one cloud to another."""

    order: Order = "begin_desc"
    filter_meaning: Literal["begin", "end", "overlap"] = "begin"
    running_under_end_filter: Literal["by_begin", "always", "hidden"] = "by_begin"
    bounds: Bounds = "inclusive"
    hide_running: bool = False
    time_offset: int = 480  # minutes east of Greenwich, of the times in the rows
    time_form: Literal["basic", "colon", "zulu"] = "basic"  # +0800, +08:00, or UTC with a Z
    show_empty_end_as: Literal["null", "empty", "missing"] = "null"
    total_count: Literal["true", "missing", "null", "lie", "negative", "string", "float"] = "true"
    total_count_lie: int = 1  # added to the true one
    page_limit_allowed: tuple[int, ...] = (10, 20, 50)
    parameter_error_form: Literal["service", "gateway"] = "service"
    unknown_instance_status: Literal[404, 403] = 404
    unknown_project_status: Literal[401, 404] = 401  # at the login
    require_project_header: bool = False  # X-Project-Id with a signature
    echo_refused_signature: bool = True  # the canonical request in the error, headers and all
    date: Literal["true", "missing"] = "true"  # the header of that name
    latency_seconds: float = 0.0
    rate_limit: RateLimit | None = None
    token_lifetime_seconds: float = 86_400.0
    max_clock_skew_seconds: float = 900.0
    failures_until_locked: int = 5
    login_lock_seconds: float = 900.0
    key_lock_seconds: float = 300.0
    v31_available: bool = True
    metadata_token_status: Literal[200, 404, 405, 503] = 200
    agency_key_seconds: float = 3_600.0
    agency_key_overlap_seconds: float = 600.0
    pod_key_seconds: float = 3_600.0
    # How long the keys of agencies live, whatever is asked for; None: as long as is asked for.
    issued_key_seconds: float | None = None
    pod_key_spelling: Literal["plain", "camel", "snake"] = "plain"
    # A longer time between two ends of incremental backups ends what can be restored to.
    chain_breaks_after_seconds: float = 900.0
    restore_times: Literal["true", "split", "empty", "missing", "inverted", "text", "seconds"] = (
        "true"
    )
    restore_time_status: Literal[200, 403, 404] = 200
    full_backups_status: Literal[200, 403, 404] = 200

    def __post_init__(self) -> None:
        for name, allowed in _allowed_values().items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"knob {name}: {getattr(self, name)!r} is none of {allowed}")


@functools.cache
def _allowed_values() -> dict[str, tuple[Any, ...]]:
    hints = get_type_hints(Knobs)
    return {name: get_args(hint) for name, hint in hints.items() if get_origin(hint) is Literal}
