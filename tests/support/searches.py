"""How long the searches are that try drawn examples."""

import os

LONG = "LONG_SEARCHES" in os.environ


def examples(count: int) -> int:
    """So many in `make check`, which sets LONG_SEARCHES, and a third of them in `make test`."""
    return count if LONG else max(1, count // 3)
