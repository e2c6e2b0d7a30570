"""Serving, or scraping once, until done."""

import argparse
import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable

import structlog
import uvloop

from exporter.assembly import Exporter
from exporter.command.checking import find_all_warnings, load_web_configuration, read_configuration
from exporter.config.schema import Config
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics
from exporter.reporting import logs
from exporter.reporting.redaction import SecretRegistry
from exporter.reporting.streams import LastResort, complain
from exporter.web.app import create_app
from exporter.web.listener import bind_all, parse_listen_addresses, raise_open_files_limit
from exporter.web.server import GRACE_SECONDS, serve

log = structlog.get_logger(__name__)

# For what is open to be closed, when all that was asked for is done.
_CLOSING_SECONDS = 5.0


def run(options: argparse.Namespace) -> bool:
    """Whether all went well; raises ConfigError."""
    registry = SecretRegistry()
    with logs.logging_to(
        None, level=options.log_level, log_format=options.log_format, registry=registry
    ):
        calm_garbage_collection()
        last_resort = LastResort()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(_run(options, registry, last_resort))
        finally:
            last_resort.disarm()


def calm_garbage_collection() -> None:
    """Look for cycles less often than by default, and not among what start-up has made.

    What is known of thousands of instances is many objects that stay, looked through again and
    again while nothing else runs; cycles that only the collector frees are few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


async def _run(
    options: argparse.Namespace, registry: SecretRegistry, last_resort: LastResort
) -> bool:
    async with contextlib.AsyncExitStack() as stack:
        if options.demo:
            # The simulator is loaded where it is asked for, and not at every start.
            from exporter.demo import run_demo

            load = await stack.enter_async_context(run_demo())
        else:
            load = _loader(options)
        exporter = Exporter(
            load,
            own=OwnMetrics(revision=os.environ.get("REVISION", "")),
            registry=registry,
            shard=options.shard,
            total_shards=options.total_shards,
        )
        stack.push_async_callback(exporter.aclose)
        await exporter.reload()
        if options.once:
            from exporter.command.once import scrape_once

            succeeded = await scrape_once(exporter, options)
            last_resort.arm(_CLOSING_SECONDS, 0 if succeeded else 1)
            return succeeded
        await serve_exporter(exporter, options, last_resort)
    log.info("stopped")
    return True


def _loader(options: argparse.Namespace) -> Callable[[], Config]:
    def load() -> Config:
        loaded = read_configuration(options)
        for warning in find_all_warnings(loaded):
            log.warning("configuration odd", problem=warning)
        return loaded.config

    return load


async def serve_exporter(
    exporter: Exporter, options: argparse.Namespace, last_resort: LastResort
) -> None:
    raise_open_files_limit()
    web_config = load_web_configuration(options)
    sockets = _listen(options)
    app = create_app(
        exporter,
        telemetry_path=options.telemetry_path,
        enable_lifecycle=options.enable_lifecycle,
        external_url=options.external_url or "",
    )

    def stop() -> None:
        exporter.stopping = True
        last_resort.arm(GRACE_SECONDS + _CLOSING_SECONDS, 0)

    async def reload() -> None:
        try:
            await exporter.reload()
        except ConfigError as exc:
            log.error("reload failed, the old configuration stays", problems=list(exc.problems))

    if options.demo:
        from exporter.demo import describe_demo

        host, port = sockets[0].getsockname()[:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(host, host)  # noqa: S104 - looked up
        host = f"[{host}]" if ":" in host else host
        scheme = "https" if web_config is not None and web_config.tls else "http"
        for line in describe_demo(f"{scheme}://{host}:{port}", options.telemetry_path):
            complain(line)
    # No Prometheus need come before the demo's page shows something.
    seconds = exporter.scraper.config.scrape.timeout
    first = asyncio.create_task(exporter.scraper.scrape(seconds)) if options.demo else None
    await serve(app, sockets=sockets, web_config=web_config, on_reload=reload, stopping=stop)
    if first is not None:
        first.cancel()


def _listen(options: argparse.Namespace) -> list[socket.socket]:
    addresses = parse_listen_addresses(options.listen_addresses)
    try:
        return bind_all(addresses)
    except ConfigError as exc:
        if not options.demo or "port is taken" not in str(exc):
            raise
        address = addresses[0]
        other = (
            f"make demo PORT={address[1] + 1}, or --web.listen-address 127.0.0.1:{address[1] + 1}"
        )
        raise ConfigError([f"{problem}: {other}" for problem in exc.problems]) from None
