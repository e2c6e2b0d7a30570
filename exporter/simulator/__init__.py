"""The cloud's IAM, GaussDB(for MySQL) and metadata APIs as one ASGI application.

A stranger to the exporter: it shares no code with it, so that no mistake can hide on both sides.
It keeps to what is documented, and what is not documented can be turned by `Knobs`.
"""

from exporter.simulator.access import TemporaryKey
from exporter.simulator.agencies import SERVER, SimulatedAgency
from exporter.simulator.app import Simulator
from exporter.simulator.cloud import SimulatedInstance, SimulatedProject
from exporter.simulator.demo import (
    DEMO_ACCESS_KEY,
    DEMO_BUSY,
    DEMO_DOMAIN,
    DEMO_EMPTY,
    DEMO_FAILING,
    DEMO_HEALTHY,
    DEMO_HOLE,
    DEMO_INSTANCES,
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
    DEMO_PROJECT_NAME,
    DEMO_REGION,
    DEMO_SECRET_KEY,
    DEMO_STALE,
    DEMO_USER,
    DemoInstance,
    build_cloud,
    build_demo,
)
from exporter.simulator.faults import ROW_SPOILERS, DroppedConnectionError, Fault
from exporter.simulator.full_backups import FullSchedule, SimulatedFullBackup
from exporter.simulator.gateway import RecordedRequest
from exporter.simulator.knobs import Knobs, RateLimit
from exporter.simulator.schedule import Schedule, SimulatedBackup
from exporter.simulator.serving import serve

__all__ = [
    "DEMO_ACCESS_KEY",
    "DEMO_BUSY",
    "DEMO_DOMAIN",
    "DEMO_EMPTY",
    "DEMO_FAILING",
    "DEMO_HEALTHY",
    "DEMO_HOLE",
    "DEMO_INSTANCES",
    "DEMO_PASSWORD",
    "DEMO_PROJECT_ID",
    "DEMO_PROJECT_NAME",
    "DEMO_REGION",
    "DEMO_SECRET_KEY",
    "DEMO_STALE",
    "DEMO_USER",
    "ROW_SPOILERS",
    "SERVER",
    "DemoInstance",
    "DroppedConnectionError",
    "Fault",
    "FullSchedule",
    "Knobs",
    "RateLimit",
    "RecordedRequest",
    "Schedule",
    "SimulatedAgency",
    "SimulatedBackup",
    "SimulatedFullBackup",
    "SimulatedInstance",
    "SimulatedProject",
    "Simulator",
    "TemporaryKey",
    "build_cloud",
    "build_demo",
    "serve",
]
