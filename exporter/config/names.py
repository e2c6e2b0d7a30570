"""The name that was probably meant."""

from collections.abc import Iterable


def nearest(name: str, allowed: Iterable[str], *, cutoff: float = 0.7) -> str | None:
    """The allowed name that is nearly this one: `stale_afer`, `staleAfter`, `stale-after`."""
    from difflib import get_close_matches  # 3 ms that only a mistake needs

    plain = {_plain(choice): choice for choice in allowed}
    found = get_close_matches(_plain(name), plain, n=1, cutoff=cutoff)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(".", "")
