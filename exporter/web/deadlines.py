"""How long whoever asks is willing to wait."""

import math

from starlette.requests import Request

from exporter.config.schema import ScrapeConfig

_SCRAPE_TIMEOUT = "x-prometheus-scrape-timeout-seconds"
_REFRESH_INTERVAL = "x-prometheus-refresh-interval-seconds"  # of http_sd_configs: its time-out too


def scrape_seconds(header: str | None, config: ScrapeConfig) -> float:
    """How long a scrape may take: as Prometheus names less the offset, within `scrape.timeout`."""
    try:
        named = float(header) if header is not None else math.inf
    except ValueError:
        named = math.inf
    if not named > 0:  # zero, negative, or no number
        named = math.inf
    return max(0.0, min(named - config.timeout_offset, config.timeout))


def seconds_of_scrape(request: Request, config: ScrapeConfig) -> float:
    return scrape_seconds(request.headers.get(_SCRAPE_TIMEOUT), config)


def seconds_of_refresh(request: Request, config: ScrapeConfig) -> float:
    return scrape_seconds(request.headers.get(_REFRESH_INTERVAL), config)
