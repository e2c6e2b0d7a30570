"""Which of several exporters serves an instance."""

import hashlib

from exporter.models import InstanceKey


def shard_of(key: InstanceKey, total_shards: int) -> int:
    """The shard of an instance, from 0: the same everywhere, whatever else is configured.

    A jump consistent hash (Lamping and Veach, 2014), as kube-state-metrics uses: of N + 1 shards
    the new one takes its share of the instances, and no instance moves between the others.
    """
    digest = hashlib.sha256("/".join(key).encode()).digest()
    state = int.from_bytes(digest[:8], "big")
    bucket, candidate = -1, 0
    while candidate < total_shards:
        bucket = candidate
        state = (state * 2862933555777941757 + 1) % 2**64
        candidate = int((bucket + 1) * (2**31 / ((state >> 33) + 1)))
    return bucket
