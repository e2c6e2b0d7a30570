"""What the simulated cloud holds: projects, instances, and the truth about their backups. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import floor

from exporter.simulator.faults import Fault
from exporter.simulator.full_backups import FullSchedule, SimulatedFullBackup
from exporter.simulator.schedule import OFFSITE_LOG, Schedule, SimulatedBackup


@dataclass(slots=True)
class SimulatedInstance:
    """A database instance: rows written down one by one, a schedule that makes them, or both."""

    id: str
    name: str = ""
    backups: list[SimulatedBackup] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    status: str = "normal"
    region: str = ""  # else the project's
    hidden_from_discovery: bool = False
    schedule: Schedule | None = None
    # The answer to every question about its incremental backups and its restorable ranges.
    failure: Fault | None = None
    full_backups: list[SimulatedFullBackup] = field(default_factory=list)
    full_schedule: FullSchedule | None = None
    keep_days: int = 7
    enterprise_project_id: str = "0"

    def full_backups_at(self, now: float) -> list[SimulatedFullBackup]:
        """Those that the cloud has at that time, written down or scheduled."""
        written = [full for full in self.full_backups if full.is_visible(now)]
        return written + (self.full_schedule.rows(now) if self.full_schedule is not None else [])


@dataclass(slots=True)
class SimulatedProject:
    """A project: who may ask about it, and what it holds.

    `users` maps (domain, user) to the password, `access_keys` the access key to the secret key.
    `tokens` are valid for ever. The metadata service's keys are those of an agency that reads the
    projects with `agency`.
    """

    id: str
    region: str = "cn-north-4"
    users: dict[tuple[str, str], str] = field(default_factory=dict)
    access_keys: dict[str, str] = field(default_factory=dict)
    instances: dict[str, SimulatedInstance] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    agency: bool = True
    name: str = ""  # else the region's, as the cloud's default projects are called
    # Manual full backups of instances that are gone.
    left_behind: list[SimulatedFullBackup] = field(default_factory=list)


def find_backups(
    instance: SimulatedInstance, begin: float, end: float, now: float, *, offsite: bool
) -> list[SimulatedBackup]:
    """The truth about a window: what ended in [begin, end] or, still running, began in it.

    Whole seconds, as the API shows them; sorted by begin. Independent of every knob.
    """
    rows: Iterable[SimulatedBackup] = instance.backups
    if instance.schedule is not None:
        schedule = instance.schedule
        finished, running = schedule.finished_and_running(now)
        both = range(finished.start, running.stop)
        made = (slot for part in schedule.without_pauses(both) for slot in part)
        rows = [*instance.backups, *map(schedule.row, made)]
    found = []
    for backup in rows:
        if not backup.is_visible(now) or (not offsite and backup.backup_type == OFFSITE_LOG):
            continue
        moment = backup.begin if backup.end is None or backup.end > now else backup.end
        if begin <= floor(moment) <= end:
            found.append(backup)
    return sorted(found, key=lambda backup: (backup.begin, backup.id))


def find_instance(
    projects: Mapping[str, SimulatedProject], instance_id: str, project_id: str | None = None
) -> SimulatedInstance:
    """The instance of that id (in that project, or in any); KeyError if there is none."""
    for project in projects.values():
        if project_id in (None, project.id) and instance_id in project.instances:
            return project.instances[instance_id]
    raise KeyError(instance_id)


def find_schedule(projects: Mapping[str, SimulatedProject], instance_id: str) -> Schedule:
    schedule = find_instance(projects, instance_id).schedule
    if schedule is None:
        raise KeyError(f"{instance_id} has no schedule")
    return schedule
