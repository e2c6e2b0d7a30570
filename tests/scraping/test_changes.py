"""What the log tells of instances that fail and recover: one line for each cause."""

from exporter.simulator import Fault, Simulator
from tests.reporting.test_logs import logging_into
from tests.support.factories import (
    DOMAIN,
    PROJECT,
    USER,
    fetch_metrics,
    instance_id,
    make_backup,
    make_config,
    make_instance,
    make_project_settings,
    make_simulator,
    running_exporter,
)
from tests.support.virtual_time import Clock

IDS = [instance_id(number) for number in range(300)]


def make_many(clock: Clock, count: int = 300) -> Simulator:
    return make_simulator(
        *(make_instance(make_backup(), id=id_) for id_ in IDS[:count]), clock=clock
    )


async def test_three_hundred_instances_with_one_wrong_password_are_one_line(clock: Clock) -> None:
    """They were 301 warnings."""
    auth = {"type": "password", "domain": DOMAIN, "username": USER, "password": "a wrong one"}
    named = {"id": IDS[0], "name": "orders"}
    config = make_config(projects=[make_project_settings(named, *IDS[1:], auth=auth)])
    with logging_into() as written:
        async with running_exporter(make_many(clock), config) as exporter:
            for _ in range(3):
                await fetch_metrics(exporter)
    warnings = [event for event in written.events if event["level"] == "warning"]
    (failing,) = [event for event in warnings if event["msg"] == "instances failing"]
    assert len(warnings) == 2  # and the login
    assert (failing["project"], failing["reason"]) == (PROJECT, "auth")
    assert failing["instances"] == 300
    assert failing["names"] == f"orders, {IDS[1]}, {IDS[2]} and 297 more"
    assert failing["hint"]


async def test_each_of_them_is_to_be_found_at_debug(clock: Clock) -> None:
    simulator = make_many(clock, 5)
    simulator.add_fault(Fault(status=403), "list_backups", times=None)
    with logging_into("json", "debug") as written:
        async with running_exporter(simulator) as exporter:
            await fetch_metrics(exporter)
    found = [event["instance"] for event in written.named("instance failing")]
    assert sorted(found) == IDS[:5]


async def test_each_cause_is_a_line_with_its_evidence(clock: Clock) -> None:
    simulator = make_many(clock, 10)
    for id_ in IDS[:6]:
        simulator.add_fault(Fault(status=403, code="DBS.200010"), "list_backups", id_, times=None)
    for id_ in IDS[6:9]:
        simulator.add_fault(Fault(status=404, code="DBS.201028"), "list_backups", id_, times=None)
    simulator.add_fault(Fault(status=400, code="DBS.280404"), "list_backups", IDS[9], times=None)
    with logging_into() as written:
        async with running_exporter(simulator) as exporter:
            await fetch_metrics(exporter)
    told = [(event["reason"], event["instances"]) for event in written.named("instances failing")]
    assert told == [("forbidden", 6), ("not_found", 3)]
    (forbidden, _) = written.named("instances failing")
    assert (forbidden["status"], forbidden["error_code"]) == (403, "DBS.200010")
    assert (forbidden["operation"], forbidden["host"]) == ("list_backups", "gaussdb.example")
    assert len(forbidden["request_id"]) == 32
    (alone,) = written.named("instance failing")
    assert (alone["reason"], alone["instance"]) == ("bad_request", IDS[9])


async def test_those_that_recover_together_are_one_line_for_what_they_failed_for(
    clock: Clock,
) -> None:
    simulator = make_many(clock, 9)
    for id_ in IDS[:5]:
        simulator.add_fault(Fault(status=403), "list_backups", id_, times=None)
    for id_ in IDS[5:8]:
        simulator.add_fault(Fault(status=404), "list_backups", id_, times=None)
    with logging_into() as written:
        async with running_exporter(simulator) as exporter:
            await fetch_metrics(exporter)
            simulator.clear_faults()
            await clock.advance(120)
            for _ in range(3):
                await fetch_metrics(exporter)
    told = [
        (event["reason"], event["instances"], event["names"], event["failed_seconds"])
        for event in written.named("instances recovered")
    ]
    assert told == [
        ("forbidden", 5, f"{IDS[0]}, {IDS[1]}, {IDS[2]} and 2 more", 120),
        ("not_found", 3, f"{IDS[5]}, {IDS[6]}, {IDS[7]}", 120),
    ]
