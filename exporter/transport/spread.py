"""When something is due again, so that not all of it is due at once. Pure."""

import hashlib
import math
from collections.abc import Iterable


def next_due(key: Iterable[str], now: float, interval: float) -> float:
    """The next moment after `now`, once in each interval. A hash of `key` says where in it."""
    digest = hashlib.blake2b("/".join(key).encode(), digest_size=8).digest()
    phase = int.from_bytes(digest) / 2**64
    when = (math.floor(now / interval - phase) + 1 + phase) * interval
    return when if when > now else when + interval
