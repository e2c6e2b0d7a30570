"""The configuration: its sections, their keys and defaults.

docs/configuration.md lists every key.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from exporter.config.auth import AuthConfig, EnvAuth
from exporter.config.regions import default_endpoint, default_iam_endpoint
from exporter.config.scalars import (
    Boolean,
    Endpoint,
    FilePath,
    Id,
    Lookback,
    StaleAfter,
    Text,
    check_proxy,
    duration_between,
    number_between,
)
from exporter.config.section import Section
from exporter.models import Instance


class Overrides(Section):
    lookback: Lookback | None = None
    stale_after: StaleAfter | None = None
    offsite: Boolean | None = None
    restore_window: Boolean | None = None
    full_backups: Boolean | None = None
    full_stale_after: StaleAfter | None = None


class Defaults(Section):
    lookback: Lookback = 86_400.0
    stale_after: StaleAfter = 3_600.0
    offsite: Boolean = False
    restore_window: Boolean = False
    full_backups: Boolean = False
    full_stale_after: StaleAfter = 691_200.0


class ApiConfig(Section):
    timeout: Annotated[float, duration_between("1ms", "10m")] = 10.0
    retries: Annotated[int, number_between(0, 10, whole=True)] = 2
    max_connections: Annotated[int, number_between(1, 10_000, whole=True)] = 50
    rate_limit: Annotated[float, number_between(0, 100_000, whole=False)] = 50.0
    resync_interval: Annotated[float, duration_between("1s", "732d")] = 21_600.0
    restore_window_interval: Annotated[float, duration_between("1s", "7d")] = 300.0
    full_backups_interval: Annotated[float, duration_between("1s", "7d")] = 600.0
    ca_file: FilePath | None = None
    proxy_url: Annotated[SecretStr, AfterValidator(check_proxy)] | None = None


class ScrapeConfig(Section):
    timeout: Annotated[float, duration_between("1ms", "1h")] = 30.0
    timeout_offset: Annotated[float, duration_between("0s", "1h")] = 0.5
    min_interval: Annotated[float, duration_between("0s", "1d")] = 0.0


class InstanceConfig(Overrides):
    id: Id
    name: str = ""


def _id_alone(value: object) -> object:
    return {"id": value} if isinstance(value, (str, int, float)) else value


class DiscoveryConfig(Section):
    enabled: Boolean = True
    refresh_interval: Annotated[float, duration_between("1s", "7d")] = 600.0
    name: Text | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    exclude: list[Text] = Field(default_factory=list)

    def wants(self, *, name: str, tags: Mapping[str, str]) -> bool:
        """Whether an instance of this name and these tags passes the filters."""
        return (self.name is None or fnmatchcase(name, self.name)) and all(
            tags.get(key) == value for key, value in self.tags.items()
        )

    def excludes(self, *, instance_id: str, name: str) -> bool:
        return any(instance_id == item or fnmatchcase(name, item) for item in self.exclude)


class ProjectConfig(Overrides):
    id: Id
    name: str = ""
    region: str = ""
    endpoint: Endpoint = ""
    iam_endpoint: Endpoint = ""
    auth: AuthConfig = EnvAuth()
    instances: list[Annotated[InstanceConfig, BeforeValidator(_id_alone)]] = Field(
        default_factory=list
    )
    discovery: DiscoveryConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_endpoints(cls, value: object) -> object:
        """The known regions' endpoints, where none is given."""
        if not isinstance(value, dict):
            return value
        region = value.get("region")
        if not isinstance(region, str):
            return value
        filled = dict(value)
        if filled.get("endpoint") is None and (endpoint := default_endpoint(region)):
            filled["endpoint"] = endpoint
        if filled.get("iam_endpoint") is None and (iam := default_iam_endpoint(region)):
            filled["iam_endpoint"] = iam
        return filled

    @property
    def discovers(self) -> bool:
        return self.discovery is not None and self.discovery.enabled


class Config(Section):
    defaults: Defaults = Defaults()
    api: ApiConfig = ApiConfig()
    scrape: ScrapeConfig = ScrapeConfig()
    projects: Annotated[list[ProjectConfig], Field(min_length=1)]

    def instance(self, project: ProjectConfig, instance: InstanceConfig) -> Instance:
        """An instance with what it, its project and the defaults say of it, in that order."""

        def setting(name: str) -> Any:
            for section in (instance, project):
                if (value := getattr(section, name)) is not None:
                    return value
            return getattr(self.defaults, name)

        return Instance(
            project_id=project.id,
            id=instance.id,
            project_name=project.name,
            name=instance.name,
            region=project.region,
            lookback_seconds=setting("lookback"),
            stale_after_seconds=setting("stale_after"),
            offsite=setting("offsite"),
            restore_window=setting("restore_window"),
            full_backups=setting("full_backups"),
            full_stale_after_seconds=setting("full_stale_after"),
        )

    def discovered_instance(self, project: ProjectConfig, instance_id: str, name: str) -> Instance:
        """An instance that discovery found, with its project's settings."""
        return self.instance(project, InstanceConfig(id=instance_id, name=name))

    def configured_instances(self) -> list[Instance]:
        """All instances that are named, in the order of the text."""
        return [
            self.instance(project, instance)
            for project in self.projects
            for instance in project.instances
        ]
