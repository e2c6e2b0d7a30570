"""How long the searches are that try drawn examples."""

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings

LONG = "LONG_SEARCHES" in os.environ


def extent(count: int) -> int:
    """So many examples, instances or rounds of a long test in `make check`, which sets
    LONG_SEARCHES; a third of them in `make test`."""
    return count if LONG else max(1, count // 3)


def search(count: int, *, divisor: int = 1, **more: Any) -> settings:
    """The settings of a property that `make fuzz` goes on with.

    FUZZ_EXAMPLES: so many, in place of `count`; of an example that takes longer the `divisor`th
    part. FUZZ_NEW: other ones each time; without it every run tries the same, and a change is not
    blamed for what it did not break.
    """
    usual: dict[str, Any] = {
        "phases": [Phase.explicit, Phase.generate, Phase.shrink],
        "report_multiple_bugs": False,
        "suppress_health_check": [
            HealthCheck.too_slow,
            HealthCheck.large_base_example,
            HealthCheck.data_too_large,
        ],
    }
    return settings(
        max_examples=max(1, int(os.environ.get("FUZZ_EXAMPLES", count)) // divisor),
        derandomize="FUZZ_NEW" not in os.environ,
        print_blob=True,
        **usual | more,
    )
