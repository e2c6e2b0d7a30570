"""Small makers of what tests need, with telling defaults."""

import asyncio
import functools
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp

from exporter.assembly import Exporter
from exporter.config.schema import Config
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting.redaction import SecretRegistry
from exporter.simulator import (
    Knobs,
    SimulatedBackup,
    SimulatedInstance,
    SimulatedProject,
    Simulator,
)
from exporter.web.app import create_app
from tests.support.faults import StreamingTransport
from tests.support.virtual_time import HOUR, NOON, Clock

PROJECT = "97b026aa9cc4417888c14c84a1ad9860"
OTHER_PROJECT = "0483b6b16e954cb88930a360d2c4e663"
ORDERS = "61a4ea66210545909d74a05c27a7179ein07"
BILLING = "24a4ea66210545909d74a05c27a7179ein07"
TOKEN = "a-static-token"
DOMAIN, USER, PASSWORD = "my-account", "backup-reader", "a right password"
ACCESS_KEY, SECRET_KEY = "AKEXAMPLEEXAMPLE0001", "a right secret key"
ENDPOINT = "https://gaussdb.example"
IAM_ENDPOINT = "https://iam.example"

# The cloud -------------------------------------------------------------------------------------

_numbers = iter(range(10**9))


def instance_id(number: int) -> str:
    """A well-formed id."""
    return f"{number:032x}in07"


def make_backup(
    *,
    age_hours: float = 1.0,
    lasting_seconds: float = 60.0,
    size: float | None = 1024.0,
    now: float = NOON,
    id: str = "",
    running: bool = False,
    **more: Any,
) -> SimulatedBackup:
    """A backup that ended `age_hours` before noon; one that runs began then."""
    moment = now - age_hours * HOUR
    begin = moment if running else moment - lasting_seconds
    return SimulatedBackup(
        id=id or f"{next(_numbers):032x}br07",
        begin=begin,
        end=None if running else moment,
        size=size,
        **more,
    )


def make_instance(
    *backups: SimulatedBackup,
    id: str = ORDERS,
    name: str = "",
    **more: Any,
) -> SimulatedInstance:
    return SimulatedInstance(id, name, list(backups), **more)


def make_project(
    *instances: SimulatedInstance,
    id: str = PROJECT,
    **more: Any,
) -> SimulatedProject:
    """It lets in the static token, the password and the access key."""
    return SimulatedProject(
        id,
        users={(DOMAIN, USER): PASSWORD},
        access_keys={ACCESS_KEY: SECRET_KEY},
        instances={instance.id: instance for instance in instances},
        tokens={f"{TOKEN}-{id}"},
        **more,
    )


def make_simulator(
    *contents: SimulatedInstance | SimulatedProject, clock: Clock, seed: int = 0, **knobs: Any
) -> Simulator:
    """A cloud of projects; instances that are named alone are of one project.

    Rows are taken to be in order of time unless `order` says otherwise.
    """
    projects = [item for item in contents if isinstance(item, SimulatedProject)]
    instances = [item for item in contents if isinstance(item, SimulatedInstance)]
    if instances or not projects:
        projects.insert(0, make_project(*instances))
    return Simulator(
        projects, clock=clock, knobs=Knobs(**{"filter_meaning": "end", **knobs}), seed=seed
    )


def fill(
    instance: SimulatedInstance,
    *,
    count: int,
    every_seconds: float = 300.0,
    until: float = NOON,
    size: float | None = 1024.0,
) -> SimulatedInstance:
    """Adds `count` finished backups, one every so often; the last ended at `until`."""
    for number in range(count):
        end = until - number * every_seconds
        instance.backups.append(
            SimulatedBackup(f"{instance.id[:6]}{number:026x}br07", end - 60.0, end, size)
        )
    return instance


# The exporter ----------------------------------------------------------------------------------

AUTH: Mapping[str, Mapping[str, str]] = {
    "password": {
        "type": "password",
        "domain": DOMAIN,
        "username": USER,
        "password": PASSWORD,
    },
    "aksk": {"type": "aksk", "access_key": ACCESS_KEY, "secret_key": SECRET_KEY},
}


def make_project_settings(
    *instances: str | Mapping[str, Any],
    id: str = PROJECT,
    auth: str | Mapping[str, Any] = "token",
    **more: Any,
) -> dict[str, Any]:
    """A project of the configuration. `auth` is a type, or the whole section."""
    if isinstance(auth, str):
        auth = AUTH.get(auth, {"type": "token", "token": f"{TOKEN}-{id}"})
    return {
        "id": id,
        "region": "cn-north-4",
        "endpoint": ENDPOINT,
        "iam_endpoint": IAM_ENDPOINT,
        "auth": dict(auth),
        "instances": list(instances),
        **more,
    }


def make_config(
    *instances: str | Mapping[str, Any],
    projects: Iterable[Mapping[str, Any]] = (),
    auth: str | Mapping[str, Any] = "token",
    folder: Path | None = None,
    **sections: Any,
) -> Config:
    """One project with these instances (else ORDERS), or the `projects` given.

    Sections (`defaults`, `api`, `scrape`) as in the YAML text.
    """
    projects = list(projects) or [make_project_settings(*(instances or (ORDERS,)), auth=auth)]
    return Config.model_validate({"projects": projects, **sections}, context={"folder": folder})


def full_jitter(low: float, high: float) -> float:
    """The longest wait that a random back-off may take: for tests that need to know it."""
    return high


async def make_exporter(
    simulator: Simulator,
    config: Config | Callable[[], Config] | None = None,
    *,
    clock: Callable[[], float] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    connect: Callable[[], httpx.AsyncBaseTransport] | None = None,
    jitter: Callable[[float, float], float] = full_jitter,
    registry: SecretRegistry | None = None,
) -> Exporter:
    """A started exporter of the simulated cloud. Its caller closes it (`running_exporter` does).

    `config` may be a function that is asked again at each reload. Without one: every instance.
    `connect` is called for each new pool of connections, where one `transport` would not do.
    """
    if config is None:
        config = make_config(
            projects=[
                make_project_settings(*project.instances, id=project.id)
                for project in simulator.projects.values()
            ]
        )
    load = config if callable(config) else (lambda: config)
    exporter = Exporter(
        load,
        own=OwnMetrics(clock=clock or simulator.clock),
        registry=registry or SecretRegistry(),
        transport=connect or (lambda: transport or StreamingTransport(simulator)),
        clock=clock or simulator.clock,
        jitter=jitter,
    )
    await exporter.reload()
    return exporter


@asynccontextmanager
async def running_exporter(
    simulator: Simulator, config: Config | Callable[[], Config] | None = None, **more: Any
) -> AsyncIterator[Exporter]:
    """`make_exporter`, closed at the end of the block."""
    exporter = await make_exporter(simulator, config, **more)
    try:
        yield exporter
    finally:
        await exporter.aclose()


# What it publishes -----------------------------------------------------------------------------

LabelSet = tuple[tuple[str, str], ...]

# Present only where the query of the instance succeeded (docs: the table of metrics).
BACKUP_GAUGES: Sequence[str] = (
    "incremental_backups",
    "incremental_backups_size_kilobytes",
    "incremental_backups_size_bytes",
    "incremental_backup_latest_end_timestamp_seconds",
    "incremental_backup_latest_size_bytes",
    "incremental_backup_oldest_end_timestamp_seconds",
    "incremental_backup_max_interval_seconds",
    "incremental_backups_running",
    "incremental_backups_listing_complete",
)
REASONS: Sequence[str] = (
    "auth",
    "forbidden",
    "not_found",
    "bad_request",
    "throttled",
    "server",
    "timeout",
    "network",
    "bad_response",
    "deadline",
)


class Samples(dict[tuple[str, LabelSet], float]):
    """An exposition: values by name and sorted labels."""

    @functools.cached_property
    def _series(self) -> dict[tuple[str, str], list[tuple[LabelSet, float]]]:
        """Those of a name and an instance, and with "" all of a name."""
        found = defaultdict(list)
        for (name, pairs), value in self.items():
            for instance in {dict(pairs).get("instance", ""), ""}:
                found[name, instance].append((pairs, value))
        return found

    def of(self, name: str, instance: str = ORDERS, **labels: str) -> float | None:
        """The value of an instance's metric, named without the common prefix; None if absent.

        With `instance=""` the metric is the exporter's or a project's own.
        """
        wanted = labels.items()
        found = [
            value
            for pairs, value in self._series.get((f"gaussdb_mysql_{name}", instance), ())
            if wanted <= set(pairs)
        ]
        assert len(found) <= 1, f"{name} {instance} {labels}: {len(found)} series"
        return found[0] if found else None

    def by_instance(self, name: str) -> dict[str, float]:
        """An instance metric of all instances."""
        return {
            dict(pairs)["instance"]: value
            for (other, pairs), value in self.items()
            if other == f"gaussdb_mysql_{name}"
        }

    def backup_gauges(self, instance: str = ORDERS) -> dict[str, float]:
        """The backup gauges that the instance has."""
        values = {name: self.of(name, instance) for name in BACKUP_GAUGES}
        return {name: value for name, value in values.items() if value is not None}

    def errors(self, instance: str = ORDERS) -> dict[str, float]:
        """The error counters that are not zero, by reason."""
        return {
            dict(pairs)["reason"]: value
            for (name, pairs), value in self.items()
            if name == "gaussdb_mysql_api_errors_total"
            and ("instance", instance) in pairs
            and value
        }


@dataclass(frozen=True, slots=True)
class Scrape:
    """One GET /metrics: what came, and how long it took in the loop's time."""

    status: int
    text: str
    seconds: float

    @property
    def samples(self) -> Samples:
        return parse_samples(self.text)


def parse_samples(text: str) -> Samples:
    """The samples of an exposition in the classic format."""
    samples = Samples()
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            key = _parse_series(series)
            assert key not in samples, f"{key} twice"
            samples[key] = float(value)
    return samples


@functools.cache  # a test scrapes the same series over and over
def _parse_series(text: str) -> tuple[str, LabelSet]:
    (family,) = text_string_to_metric_families(f"{text} 0\n")
    (sample,) = family.samples
    return sample.name, tuple(sorted(sample.labels.items()))


async def fetch_metrics(
    exporter: Exporter,
    *,
    timeout: float | None = None,
    app: ASGIApp | None = None,
    path: str = "/metrics",
) -> Scrape:
    """A scrape as Prometheus makes it; `timeout` is what it names in its header."""
    headers = {"Accept-Encoding": "identity"}
    if timeout is not None:
        headers["X-Prometheus-Scrape-Timeout-Seconds"] = str(timeout)
    loop = asyncio.get_running_loop()
    started = loop.time()
    transport = httpx.ASGITransport(app or create_app(exporter))
    async with httpx.AsyncClient(transport=transport, base_url="http://exporter") as client:
        response = await client.get(path, headers=headers)
    return Scrape(response.status_code, response.text, loop.time() - started)


async def scrape_success(exporter: Exporter) -> dict[str, float]:
    """Of each instance whether it succeeded; where tests scrape often, nothing is rendered."""
    snapshot = await exporter.scraper.scrape(30.0)
    return {each.instance.id: float(each.reading is not None) for each in snapshot.results}


async def samples(exporter: Exporter, **more: Any) -> Samples:
    """What a scrape publishes."""
    scrape = await fetch_metrics(exporter, **more)
    assert scrape.status == 200, scrape.text
    return scrape.samples
