"""One project as a scrape sees it: its client, what discovery finds in it, what is told of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from exporter.backups import listing as backups
from exporter.cloud.discovery import Discovery
from exporter.config.schema import ProjectConfig
from exporter.models import ProjectResult
from exporter.restores import listing as full_backups
from exporter.restores import window
from exporter.scraping.failures import failure_of
from exporter.transport.clock import CloudClock

# What proves who we are. Another password of the same user changes nothing that is read.
_PROOFS = {"password", "password_file", "secret_key", "secret_key_file", "security_token"}


def origin_of(config: ProjectConfig) -> object:
    """Where and as whom a project is read: what is known of it is known of that alone."""
    return config.endpoint, config.iam_endpoint, config.auth.model_dump(exclude=_PROOFS)


class Client(backups.Client, window.Client, full_backups.Client, Protocol):
    """What a scrape needs of the API's client."""


@dataclass(slots=True, eq=False)
class Project:
    """One project: its configuration, its client, and what discovery finds in it."""

    config: ProjectConfig
    client: Client
    token_expiry: Callable[[], float | None]
    discovery: Discovery | None = None
    clock: CloudClock | None = None

    def result(self, redact: Callable[[str], str]) -> ProjectResult:
        """What is known of the project now."""
        discovery = self.discovery
        known = ProjectResult(
            id=self.config.id,
            name=self.config.name,
            region=self.config.region,
            token_expiry=self.token_expiry(),
            clock_skew_seconds=self.clock.skew if self.clock is not None else None,
            clock_ahead_seconds=self.clock.ahead if self.clock is not None else 0.0,
        )
        if discovery is None:
            return known
        error = discovery.error
        known = replace(
            known,
            discovery_success=bool(discovery.success),
            discovery_failure=failure_of(error, redact) if error is not None else None,
        )
        if not discovery.known:
            return known
        found = discovery.found
        configured = {instance.id for instance in self.config.instances}
        return replace(
            known,
            found_instances=len(found.instances),
            discovered_instances=len(found.monitored),
            unmonitored_instances=len(found.unmonitored - configured),
            unusable_ids=tuple(map(redact, found.unusable)),
        )
