"""Paths and methods that are there, and those that are not."""

import pytest
from starlette.types import Message

from exporter.config.schema import Config
from exporter.simulator import Simulator
from exporter.web.routing import Elsewhere
from tests.support.clients import client_on

Named = tuple[Simulator, Config]


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/probe", "GET, HEAD, OPTIONS"),
        ("/sd", "GET, HEAD, OPTIONS"),
        ("/", "GET, HEAD, OPTIONS"),
        ("/-/healthy", "GET, HEAD, OPTIONS"),
        ("/-/ready", "GET, HEAD, OPTIONS"),
        ("/-/reload", "POST, OPTIONS"),
    ],
)
async def test_each_path_tells_its_methods(two_named: Named, path: str, allow: str) -> None:
    simulator, config = two_named
    async with client_on(simulator, config, enable_lifecycle=True) as client:
        told = await client.options(path)
        assert (told.status_code, told.headers["allow"], told.content) == (204, allow, b"")
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"} - set(allow.split(", ")):
            refused = await client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    assert not simulator.requests


async def test_the_server_as_a_whole_tells_its_methods() -> None:
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": "OPTIONS", "path": "*", "query_string": b""}
    await Elsewhere([])(scope, receive, send)
    assert said[0]["status"] == 204
    assert (b"allow", b"GET, HEAD, POST, OPTIONS") in said[0]["headers"]


@pytest.mark.parametrize(
    ("telemetry_path", "path", "location"),
    [
        ("/metrics", "/metrics/", "../metrics"),
        ("/metrics", "/sd/?a=b&c", "../sd?a=b&c"),
        ("/metrics", "/-/healthy/", "../healthy"),
        ("/metrics/", "/metrics", "./metrics/"),
        ("/a%20b", "/a%20b/", "../a%20b"),
    ],
)
async def test_a_slash_too_many_or_too_few_leads_to_the_path_wherever_it_is_mounted(
    two_named: Named, telemetry_path: str, path: str, location: str
) -> None:
    simulator, config = two_named
    telemetry_path = telemetry_path.replace("%20", " ")
    async with client_on(simulator, config, telemetry_path=telemetry_path) as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, location)
        assert str(answer.next_request.url).startswith("http://exporter.example:10042/")  # type: ignore[union-attr]
        assert (await client.send(answer.next_request)).status_code == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["/metrics//", "//", "/x/", "//evil.example/", "/%2f", "/metrics%0d%0a/", "/sd/x"]
)
async def test_a_path_that_is_nowhere_is_404(two_named: Named, path: str) -> None:
    async with client_on(*two_named) as client:
        assert (await client.get(f"http://exporter.example:10042{path}")).status_code == 404


PREFIXED = "https://monitoring.example/backups/exporter/"


@pytest.mark.parametrize("path", ["/metrics", "/", "/sd", "/-/healthy", "/?q=a"])
async def test_what_is_below_the_external_path_is_found_there_and_at_the_root(
    two_named: Named, path: str
) -> None:
    async with client_on(*two_named, external_url=PREFIXED) as client:
        for prefix in ("", "/backups/exporter"):
            assert (await client.get(prefix + path)).status_code == 200
        for elsewhere in ("/backups", "/backups/exporter2", "/backups/exporter/nowhere"):
            assert (await client.get(elsewhere)).status_code == 404


async def test_the_external_path_without_its_slash_leads_to_the_page(two_named: Named) -> None:
    async with client_on(*two_named, external_url=PREFIXED) as client:
        answer = await client.get("/backups/exporter")
        assert (answer.status_code, answer.headers["location"]) == (307, "./exporter/")
        slashed = await client.get("/backups/exporter/metrics/")
        assert slashed.headers["location"] == "../metrics"


async def test_targets_are_probed_below_the_path_that_they_were_asked_for(
    two_named: Named,
) -> None:
    async with client_on(*two_named, external_url=PREFIXED) as client:
        for prefix in ("", "/backups/exporter"):
            groups = (await client.get(f"{prefix}/sd")).json()
            assert {group["labels"]["__metrics_path__"] for group in groups} == {f"{prefix}/probe"}


async def test_an_external_url_without_a_path_changes_nothing(two_named: Named) -> None:
    async with client_on(*two_named, external_url="https://monitoring.example") as client:
        assert (await client.get("/metrics")).status_code == 200


async def test_a_page_below_the_external_url_may_reload(two_named: Named) -> None:
    """A proxy names another host to the exporter than the browser has asked."""
    simulator, config = two_named
    options = {"enable_lifecycle": True, "external_url": PREFIXED}
    async with client_on(simulator, config, **options) as client:
        for origin, status in (("https://monitoring.example", 200), ("https://evil.example", 403)):
            answer = await client.post("/-/reload", headers={"Origin": origin})
            assert answer.status_code == status
