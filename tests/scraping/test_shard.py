import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.models import InstanceKey
from exporter.scraping.shard import shard_of

KEYS = [InstanceKey(f"project-{n % 7}", f"{n:032x}in07") for n in range(6_000)]


def jump(key: int, buckets: int) -> int:
    """The listing of Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm"."""
    b, j = -1, 0
    while j < buckets:
        b = j
        key = (key * 2862933555777941757 + 1) & 0xFFFFFFFFFFFFFFFF
        j = int((b + 1) * (float(1 << 31) / float((key >> 33) + 1)))
    return b


@pytest.mark.parametrize(
    ("key", "buckets", "bucket"),
    # As published with the Go package dgryski/go-jump.
    [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_the_tests_own_hash_is_the_published_one(key: int, buckets: int, bucket: int) -> None:
    assert jump(key, buckets) == bucket


@given(project=st.text(max_size=20), instance=st.text(max_size=40), total=st.integers(1, 500))
def test_a_shard_is_the_published_hash_of_the_instance(
    project: str, instance: str, total: int
) -> None:
    try:
        text = f"{project}/{instance}".encode()
    except UnicodeEncodeError:
        return  # ids are ASCII
    key = int(hashlib.sha256(text).hexdigest()[:16], 16)
    assert shard_of(InstanceKey(project, instance), total) == jump(key, total)


def test_shards_stay_as_they_are() -> None:
    """Releases of different age share the work during an upgrade: these may never change."""
    assert [shard_of(key, 4) for key in KEYS[:12]] == [0, 3, 0, 0, 0, 0, 1, 3, 0, 0, 3, 2]


def test_one_shard_serves_everything() -> None:
    assert {shard_of(key, 1) for key in KEYS} == {0}


@pytest.mark.parametrize("total", [2, 3, 10])
def test_shards_are_about_even(total: int) -> None:
    counts = Counter(shard_of(key, total) for key in KEYS)
    assert sorted(counts) == list(range(total))
    share = len(KEYS) / total
    assert all(0.85 * share < count < 1.15 * share for count in counts.values())


@pytest.mark.parametrize("total", [1, 2, 5, 9])
def test_a_shard_more_takes_its_share_and_moves_nothing_else(total: int) -> None:
    moved = 0
    for key in KEYS:
        before, after = shard_of(key, total), shard_of(key, total + 1)
        if before != after:
            assert after == total
            moved += 1
    share = len(KEYS) / (total + 1)
    assert 0.85 * share < moved < 1.15 * share


def test_the_project_counts_as_well_as_the_instance() -> None:
    shards = {shard_of(InstanceKey(f"project-{n}", "same"), 8) for n in range(100)}
    assert shards == set(range(8))
