"""The vendor's own SDK and OpenStack's keystoneauth1 believe the simulator, over real HTTP."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException
from huaweicloudsdkcore.region.region import Region
from huaweicloudsdkgaussdb.v3 import (
    GaussDBClient,
    ListGaussMySqlInstancesRequest,
    ListGaussMySqlInstancesUnifyStatusRequest,
    ShowBackupRestoreTimeRequest,
    ShowGaussMySqlBackupListRequest,
    ShowGaussMySqlIncrementalBackupListRequest,
)
from keystoneauth1.exceptions import Unauthorized
from keystoneauth1.identity import v3
from keystoneauth1.session import Session

from exporter.simulator import (
    DEMO_ACCESS_KEY,
    DEMO_BUSY,
    DEMO_DOMAIN,
    DEMO_FAILING,
    DEMO_HEALTHY,
    DEMO_HOLE,
    DEMO_INSTANCES,
    DEMO_PASSWORD,
    DEMO_PROJECT_ID,
    DEMO_REGION,
    DEMO_SECRET_KEY,
    DEMO_USER,
    Simulator,
    build_demo,
    serve,
)

pytestmark = [
    # huaweicloudsdkcore asks for the time in the way that Python 3.12 deprecates.
    pytest.mark.filterwarnings("ignore:.*utcnow.*:DeprecationWarning"),
]

Answer = TypeVar("Answer")


async def ask(simulator: Simulator, question: Callable[[str], Answer]) -> Answer:
    """What a blocking client makes of the simulator at a real address."""
    async with serve(simulator) as address:
        return await asyncio.to_thread(question, address)


def make_client(
    address: str, *, secret_key: str = DEMO_SECRET_KEY, project_id: str | None = DEMO_PROJECT_ID
) -> GaussDBClient:
    credentials = BasicCredentials(DEMO_ACCESS_KEY, secret_key, project_id)
    credentials.iam_endpoint = address
    builder = GaussDBClient.new_builder().with_credentials(credentials)
    return builder.with_region(Region(DEMO_REGION, address)).build()


def make_session(address: str, password: str = DEMO_PASSWORD) -> Session:
    return Session(
        v3.Password(
            auth_url=f"{address}/v3",
            username=DEMO_USER,
            password=password,
            user_domain_name=DEMO_DOMAIN,
            project_id=DEMO_PROJECT_ID,
        )
    )


async def test_vendor_sdk_lists_the_instances() -> None:
    def question(address: str) -> list[tuple[str, str]]:
        request = ListGaussMySqlInstancesUnifyStatusRequest(limit=100, offset=0)
        answer = make_client(address).list_gauss_my_sql_instances_unify_status(request)
        return [(instance.id, instance.name) for instance in answer.instances]

    found = await ask(build_demo(), question)

    assert found == [(demo.id, demo.name) for demo in DEMO_INSTANCES]


@pytest.mark.filterwarnings("ignore:.*of GaussDBClient is deprecated:DeprecationWarning")
async def test_vendor_sdk_lists_the_instances_by_the_older_api_too() -> None:
    def question(address: str) -> tuple[int, int]:
        request = ListGaussMySqlInstancesRequest(limit=1, offset=5)
        answer = make_client(address).list_gauss_my_sql_instances(request)
        return len(answer.instances), answer.total_count

    assert await ask(build_demo(), question) == (1, 6)


async def test_vendor_sdk_reads_the_restorable_ranges() -> None:
    now = int(time.time())  # the SDK signs with the machine's clock
    simulator = build_demo(lambda: float(now))

    def question(address: str) -> list[tuple[int, int]]:
        request = ShowBackupRestoreTimeRequest(instance_id=DEMO_HOLE.id)
        answer = make_client(address).show_backup_restore_time(request)
        return [(found.start_time, found.end_time) for found in answer.restore_times]

    found = await ask(simulator, question)

    truth = simulator.restorable_ranges(DEMO_PROJECT_ID, DEMO_HOLE.id)
    assert found == [(start * 1000, end * 1000) for start, end in truth]
    assert len(found) == 2


async def test_vendor_sdk_reads_every_page_of_the_projects_full_backups() -> None:
    now = int(time.time())
    simulator = build_demo(lambda: float(now))

    def question(address: str) -> tuple[int, list[tuple[str, str, str, float]]]:
        client, rows = make_client(address), list[tuple[str, str, str, float]]()
        while True:
            request = ShowGaussMySqlBackupListRequest(offset=len(rows), limit=20)
            page = client.show_gauss_my_sql_backup_list(request)
            if not page.backups:
                return page.total_count, rows
            rows += [(row.id, row.instance_id, row.status, row.size) for row in page.backups]

    total, rows = await ask(simulator, question)

    truth = {
        (full.id, id_, full.status, full.megabytes)
        for id_ in simulator.projects[DEMO_PROJECT_ID].instances
        for full in simulator.full_backups(DEMO_PROJECT_ID, id_)
    }
    assert total == len(rows) == len(truth) > 60
    assert set(rows) == truth


async def test_vendor_sdk_reads_every_page_of_a_window() -> None:
    end = int(time.time())  # the SDK signs with the machine's clock, so the cloud starts there
    begin = end - 86_400
    simulator = build_demo(lambda: float(end))

    def zoned(moment: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(moment))

    def question(address: str) -> tuple[int, list[str]]:
        client, ids = make_client(address), list[str]()
        while True:
            request = ShowGaussMySqlIncrementalBackupListRequest(
                instance_id=DEMO_BUSY.id,
                offset=str(len(ids)),
                limit="50",
                begin_time=zoned(begin),
                end_time=zoned(end),
            )
            page = client.show_gauss_my_sql_incremental_backup_list(request)
            if not page.backups:
                return page.total_count, ids
            ids += [row.id for row in page.backups]

    total, ids = await ask(simulator, question)

    truth = simulator.backups_between(DEMO_PROJECT_ID, DEMO_BUSY.id, begin, end)
    assert sorted(ids) == sorted(backup.id for backup in truth)
    assert total == len(ids) >= 286


async def test_vendor_sdk_finds_the_project_by_its_region() -> None:
    def question(address: str) -> int:
        client = make_client(address, project_id=None)
        request = ShowGaussMySqlIncrementalBackupListRequest(instance_id=DEMO_HEALTHY.id)
        return len(client.show_gauss_my_sql_incremental_backup_list(request).backups)

    BasicCredentials._CACHE.clear()  # the SDK remembers projects for the process's life

    assert await ask(build_demo(), question) == 10


async def test_vendor_sdk_understands_the_errors_of_the_service_and_of_the_gateway() -> None:
    def question(address: str) -> tuple[tuple[int, str], tuple[int, str]]:
        request = ShowGaussMySqlIncrementalBackupListRequest(instance_id=DEMO_FAILING.id)
        known, unknown = make_client(address), make_client(address, secret_key="wrong")
        with pytest.raises(ServerResponseException) as broken:
            known.show_gauss_my_sql_incremental_backup_list(request)
        with pytest.raises(ClientRequestException) as refused:
            unknown.show_gauss_my_sql_incremental_backup_list(request)
        return (
            (broken.value.status_code, broken.value.error_code),
            (refused.value.status_code, refused.value.error_code),
        )

    assert await ask(build_demo(), question) == ((500, "DBS.200412"), (401, "APIGW.0301"))


async def test_keystoneauth_logs_in_and_its_token_opens_the_api() -> None:
    def question(address: str) -> int:
        url = f"{address}/v3/{DEMO_PROJECT_ID}/instances"
        return int(make_session(address).get(url).json()["total_count"])

    assert await ask(build_demo(), question) == 6


async def test_keystoneauth_finds_the_service_in_the_catalogue() -> None:
    def question(address: str) -> bool:
        found = make_session(address).get_endpoint(service_type="gaussdb", region_name=DEMO_REGION)
        return bool(found == f"{address}/v3/{DEMO_PROJECT_ID}")

    assert await ask(build_demo(), question)


async def test_keystoneauth_reports_a_wrong_password_as_unauthorized() -> None:
    def question(address: str) -> str:
        with pytest.raises(Unauthorized) as refused:
            make_session(address, "wrong").get_token()
        return str(refused.value)

    assert "The username or password is wrong." in await ask(build_demo(), question)
