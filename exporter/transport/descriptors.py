"""How many connections the system lets this process have (`ulimit -n`)."""

import contextlib
import resource

import structlog

log = structlog.get_logger(__name__)

# For the listening sockets and their clients, the log, the files that secrets are read from.
_RESERVED_FILES = 32
# Two addresses of a name may be tried at once, for each connection that is made.
_FILES_PER_CONNECTION = 1.5


def most_connections(configured: int) -> int:
    """As many as configured, where the process may open as many files; raises its limit to that,
    as far as it may."""
    needed = _RESERVED_FILES + round(configured * _FILES_PER_CONNECTION)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        wanted = needed if hard == unlimited else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == unlimited or soft >= needed:
        return configured
    possible = max(1, int((soft - _RESERVED_FILES) / _FILES_PER_CONNECTION))
    log.warning(
        "fewer connections than configured",
        max_connections=configured,
        possible=possible,
        open_files_limit=soft,
        hint="raise the limit of open files (ulimit -n, LimitNOFILE=)",
    )
    return possible
