"""What every test starts from: a clean environment, plain logging, and time that can be owned.

A test that asks for the fixture `clock` runs on an event loop with virtual time.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Mapping

import hypothesis
import pytest
import structlog
import uvloop

from tests.support.lost_exceptions import no_lost_exceptions
from tests.support.prometheus import RELEASES, Release, find_release
from tests.support.searches import extent
from tests.support.virtual_time import CarefulVirtualTimeLoop, Clock

hypothesis.settings.register_profile(
    "default",
    max_examples=extent(100),
    deadline=None,
    print_blob=True,
    derandomize=False,
    database=None,
)
hypothesis.settings.load_profile("default")

_VARIABLES = (
    "HUAWEICLOUD_SDK_AK",
    "HUAWEICLOUD_SDK_SK",
    "HUAWEICLOUD_SDK_SECURITY_TOKEN",
    "HUAWEICLOUD_SDK_IAM_ENDPOINT",
    "HUAWEICLOUD_SDK_STS_ENDPOINT",
    "HUAWEICLOUD_SDK_CREDENTIALS_FILE",
    "HUAWEICLOUD_SDK_IDP_ID",
    "HUAWEICLOUD_SDK_ID_TOKEN_FILE",
    "HUAWEICLOUD_OIDC_PROVIDER_URN",
    "HUAWEICLOUD_OIDC_AGENCY_URN",
    "HUAWEICLOUD_OIDC_TOKEN_FILE",
    "HUAWEICLOUD_OIDC_SESSION_NAME",
    "HUAWEICLOUD_OIDC_DURATION_SECONDS",
    "HC_CONTAINER_CREDENTIALS_FULL_URI",
    "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REVISION",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if "clock" in getattr(item, "fixturenames", ()):
        return {"virtual": CarefulVirtualTimeLoop}
    if item.path.parent.name == "web":
        return {"uvloop": uvloop.new_event_loop}  # what serves in production
    return {"real": asyncio.new_event_loop}


@pytest.fixture
def clock() -> Clock:
    """Noon of a day in 2023, and then as the test's virtual time."""
    return Clock()


@pytest.fixture(scope="session", params=RELEASES, ids=lambda major: f"prometheus{major}")
def release(request: pytest.FixtureRequest) -> Release:
    """Each release of Prometheus in turn."""
    return find_release(request.param)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _plain_logging() -> Iterator[None]:
    """Whatever a test sets up for logging ends with it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in _NAMED_LOGGERS}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


_NAMED_LOGGERS = ("httpx", "httpcore", "aiohttp", "asyncio", "uvicorn", "uvicorn.error")


@pytest.fixture(autouse=True)
def _no_lost_exceptions(request: pytest.FixtureRequest) -> Iterator[None]:
    """ "Task exception was never retrieved" fails the test on a real loop as well."""
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    with no_lost_exceptions():
        yield


def pytest_collection_finish() -> None:
    """All that is imported by now stays: no collection of garbage need look at it.

    Nor need one begin so often: what a test leaves is little.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)
