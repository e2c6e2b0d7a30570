"""Agencies: who may act as one, which projects its keys open, and the keys given out so far."""

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

SERVER = "the server's agency"


@dataclass(slots=True, kw_only=True)
class SimulatedAgency:
    """An agency of an account.

    `trusted` are the access keys, the URNs of other agencies, and SERVER, that may assume it;
    `oidc` the pairs of a provider's URN and a token, `id_tokens` those of a provider's id and a
    token. Without `projects` its keys open all of them.
    """

    name: str
    account_id: str = "0a1b2c3d4e5f"
    account_name: str = "my-account"
    projects: set[str] | None = None
    trusted: set[str] = field(default_factory=set)
    pod_tokens: set[str] = field(default_factory=set)
    oidc: set[tuple[str, str]] = field(default_factory=set)
    id_tokens: set[tuple[str, str]] = field(default_factory=set)
    longest_seconds: int = 43_200

    @property
    def urn(self) -> str:
        return f"iam::{self.account_id}:agency:{self.name}"


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """Keys of an agency, good until `expires`."""

    agency: SimulatedAgency
    access: str
    secret: str
    security_token: str
    expires: float


class Agencies:
    """All agencies, and what was given out for them."""

    def __init__(self, agencies: Iterable[SimulatedAgency], seed: int) -> None:
        self.all = list(agencies)
        self._seed = seed
        self._numbers = itertools.count(1)
        self._issued: OrderedDict[str, IssuedKey] = OrderedDict()

    def issue(self, agency: SimulatedAgency, now: float, seconds: float) -> IssuedKey:
        """New keys of the agency."""
        made = hashlib.sha256(f"issued:{self._seed}:{next(self._numbers)}".encode()).hexdigest()
        key = IssuedKey(
            agency,
            access=f"HST{made[:17].upper()}",
            secret=f"simulated{made[17:48]}",
            security_token=f"simulated-security-token-{made[48:]}+/==",
            expires=now + seconds,
        )
        self._issued[key.access] = key
        while len(self._issued) > 10_000:
            self._issued.popitem(last=False)
        return key

    def find_key(self, access: str, security_token: str, now: float) -> IssuedKey | None:
        """The key that was given out, while it is good."""
        key = self._issued.get(access)
        if key is None or key.security_token != security_token or key.expires <= now:
            return None
        return key

    def end_keys(self) -> None:
        """Makes every key given out so far worthless."""
        self._issued.clear()
