"""Failures of one cause are one group, and two causes are two."""

from dataclasses import replace

import pytest

from exporter.errors import Reason
from exporter.models import Failure, InstanceResult
from exporter.page.causes import generalize, group_causes, name_first
from tests.page.making import make_ok, make_result

ID = "61a4ea66210545909d74a05c27a7179ein07"


def failing(
    number: int,
    message: str = "the login was refused",
    reason: Reason = Reason.AUTH,
    project_id: str = "p1",
) -> InstanceResult:
    return make_result(
        f"db-{number:03}",
        None,
        Failure(reason, message, "check the password"),
        instance_id=f"{number:032x}in07",
        project_id=project_id,
    )


def test_three_hundred_instances_of_one_cause_are_one_group() -> None:
    (cause,) = group_causes([failing(number) for number in range(300)])
    assert len(cause.instances) == 300
    assert cause.names == "db-000, db-001, db-002 and 297 more"
    assert cause.failure == Failure(Reason.AUTH, "the login was refused", "check the password")


def test_project_reason_and_message_each_make_another_cause() -> None:
    causes = group_causes(
        [
            failing(1),
            failing(2, project_id="p2"),
            failing(3, reason=Reason.SERVER),
            failing(4, "the login was refused for a locked account"),
            failing(5),
            make_ok(),
        ]
    )
    assert [[instance.name for instance in cause.instances] for cause in causes] == [
        ["db-001", "db-005"],
        ["db-002"],
        ["db-003"],
        ["db-004"],
    ]


def test_what_differs_is_left_out_of_the_message() -> None:
    results = [
        failing(
            number,
            f"project 97b026aa9cc4417888c14c84a1ad9860: no answer for {number:032x}in07"
            f" within {number}.5 s, HTTP 503",
            Reason.SERVER,
        )
        for number in (1, 2)
    ]
    (cause,) = group_causes(results)
    assert cause.failure.message == (
        "project 97b026aa9cc4417888c14c84a1ad9860: no answer for … within … s, HTTP 503"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"instance {ID} is gone", "instance 24a4ea66210545909d74a05c27a7179ein07 is gone"),
        ("request id 3f9cab12", "request id req-77"),
        ("no answer within 10 s, tried 2 times", "no answer within 9.4 s, tried 3 times"),
        ("after 500ms", "after 10s"),
        ("page 3 of 41", "page 12 of 1,024"),
        ("since 2026-07-05 10:13:07Z", "since 2026-07-05T10:14:00Z"),
        (
            "id 1b4e28ba-2fa1-11d2-883f-0016d3cca427",
            "id 6fa459ea-ee8a-3ca4-894e-db77e160355e",
        ),
    ],
)
def test_ids_times_and_counts_do_not_part_a_cause(one: str, other: str) -> None:
    assert len(group_causes([failing(1, one), failing(2, other)])) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HTTP 500", "HTTP 503"),
        ("DBS.200010 refused", "DBS.200011 refused"),
        ("no answer from gaussdb.cn-north-4.example", "no answer from gaussdb.cn-north-1.example"),
        (
            "no answer from proxy-of-the-internal-net-1",
            "no answer from proxy-of-the-internal-net-2",
        ),
        ("refused by 10.0.0.1:8443", "refused by 10.0.0.2:8443"),
        ("refused by host:8443", "refused by host:9443"),
    ],
)
def test_statuses_codes_and_addresses_part_causes(one: str, other: str) -> None:
    assert len(group_causes([failing(1, one), failing(2, other)])) == 2


def test_own_id_and_name_are_left_out_whatever_they_look_like() -> None:
    instance = replace(make_ok().instance, id="db1", name="orders")
    assert generalize("orders (db1): no", instance) == "… (…): no"
    assert generalize("reorders db12", instance) == "reorders db12"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "db-000"),
        (4, "db-000, db-001, db-002, db-003"),
        (5, "db-000, db-001, db-002 and 2 more"),
        (1_003, "db-000, db-001, db-002 and 1,000 more"),
    ],
)
def test_first_names_are_told_and_the_rest_counted(count: int, text: str) -> None:
    assert name_first([failing(number).instance for number in range(count)]) == text
