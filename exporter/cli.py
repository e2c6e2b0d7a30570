"""The command line: flags, exit codes, and the one place that starts everything."""

import argparse
import asyncio
import contextlib
import gc
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import structlog
import uvloop

from exporter.assembly import Exporter
from exporter.config.load import Loaded, read_config
from exporter.config.schema import Config
from exporter.config.warnings import find_warnings
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics, Registries, SnapshotCollector, render
from exporter.flags import parse_arguments
from exporter.models import Snapshot
from exporter.once import Report, build_report, render_json
from exporter.reporting import logs
from exporter.reporting.redaction import SecretRegistry
from exporter.shipped import read_dashboard, read_rules
from exporter.web.app import create_app
from exporter.web.listener import bind, parse_listen_address, raise_open_files_limit
from exporter.web.live_config import LoadedWebConfig
from exporter.web.server import serve

log = structlog.get_logger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def entry_point() -> NoReturn:
    """What the console script calls."""
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = parse_arguments(arguments)
    if options.print_rules or options.print_dashboard:
        return print_shipped(options)
    registry = SecretRegistry()
    logging = logs.logging_to(
        None, level=options.log_level, log_format=options.log_format, registry=registry
    )
    try:
        with logging:
            if options.config_check:
                return check(options)
            calm_garbage_collection()
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(run(options, registry))
    except ConfigError as exc:
        for problem in exc.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - this is what the program was asked for
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_FAILED if options.once else EXIT_OK


def print_shipped(options: argparse.Namespace) -> int:
    """`--print-rules`, `--print-dashboard`."""
    return print_out(read_rules(options.external_url) if options.print_rules else read_dashboard())


def print_out(text: str) -> int:
    """What the program was asked to print; the exit code tells whether it could."""
    try:
        write_stdout(text.encode())
    except OSError as exc:
        problem = f"cannot write to standard output: {exc.strerror}"
        print(problem, file=sys.stderr)  # noqa: T201 - nothing else was asked for
        return EXIT_FAILED
    return EXIT_OK


def write_stdout(data: bytes) -> None:
    """OSError where it cannot be written: a pipe's reader that went away, a full disk."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError:
        # What is left in the buffer would be tried once more at the exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def calm_garbage_collection() -> None:
    """Look for cycles less often than by default, and not among what start-up has made.

    What is known of thousands of instances is many objects that stay, looked through again and
    again while nothing else runs; cycles that only the collector frees are few.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def check(options: argparse.Namespace) -> int:
    """`--config.check`: what would keep serving from starting, one a line, or that all is well."""
    problems: list[str] = []
    for look in (
        lambda: read_configuration(options),
        lambda: load_web_configuration(options),
        lambda: parse_listen_address(options.listen_address),
    ):
        try:
            look()
        except ConfigError as exc:
            problems += exc.problems
    if problems:
        raise ConfigError(problems)
    loaded = read_configuration(options)
    for warning in find_warnings(loaded):
        print(warning, file=sys.stderr)  # noqa: T201 - this is what the program was asked for
    projects = len(loaded.config.projects)
    instances = len(loaded.config.configured_instances())
    return print_out(f"config OK: {projects} projects, {instances} instances\n")


def read_configuration(options: argparse.Namespace) -> Loaded:
    is_default = "config_file" not in options.given
    hint = " (the default; another one is named with --config.file)" if is_default else ""
    return read_config(options.config_file, hint=hint)


def load_web_configuration(options: argparse.Namespace) -> LoadedWebConfig | None:
    path = options.web_config_file
    return LoadedWebConfig(path) if path is not None else None


async def run(options: argparse.Namespace, registry: SecretRegistry) -> int:
    """Serve, or scrape once, until done."""
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
            return await scrape_once(exporter, options)
        await serve_exporter(exporter, options)
    log.info("stopped")
    return EXIT_OK


def _loader(options: argparse.Namespace) -> Callable[[], Config]:
    def load() -> Config:
        loaded = read_configuration(options)
        for warning in find_warnings(loaded):
            log.warning("configuration odd", problem=warning)
        return loaded.config

    return load


async def serve_exporter(exporter: Exporter, options: argparse.Namespace) -> None:
    raise_open_files_limit()
    web_config = load_web_configuration(options)
    sockets = bind(parse_listen_address(options.listen_address))
    app = create_app(
        exporter,
        telemetry_path=options.telemetry_path,
        enable_lifecycle=options.enable_lifecycle,
    )

    def stop() -> None:
        exporter.stopping = True

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
            print(line, file=sys.stderr)  # noqa: T201 - tells a person where to look
    # No Prometheus need come before the demo's page shows something.
    seconds = exporter.scraper.config.scrape.timeout
    first = asyncio.create_task(exporter.scraper.scrape(seconds)) if options.demo else None
    await serve(app, sockets=sockets, web_config=web_config, on_reload=reload, stopping=stop)
    if first is not None:
        first.cancel()


async def scrape_once(exporter: Exporter, options: argparse.Namespace) -> int:
    """`--once`: the result on stdout; progress on stderr where that is a terminal."""
    scraper = exporter.scraper
    scraping = asyncio.create_task(scraper.scrape(scraper.config.scrape.timeout))
    if sys.stderr.isatty():
        await show_progress(exporter, scraping)
    snapshot = await scraping
    report = build_report(snapshot, now=exporter.clock())
    try:
        write_stdout(render_report(exporter, report, options))
    except OSError as exc:
        log.error("cannot write the result", cause=exc.strerror)
        return EXIT_FAILED
    return EXIT_FAILED if report.is_failed else EXIT_OK


def render_report(exporter: Exporter, report: Report, options: argparse.Namespace) -> bytes:
    is_terminal = sys.stdout.isatty()
    output = options.output
    if output == "auto":
        output = "table" if is_terminal else "metrics"
    if output == "metrics":
        collector = Registries(SnapshotCollector(report.snapshot), exporter.own.registry)
        return render(collector).body
    if output == "json":
        return render_json(report).encode()
    # What draws it is loaded where it is asked for, and not at every start.
    from exporter.table import WIDTH, render_table, wants_colours

    text = render_table(
        report,
        width=shutil.get_terminal_size((WIDTH, 24)).columns if is_terminal else WIDTH,
        has_colours=wants_colours(is_terminal=is_terminal),
        external_url=options.external_url or "",
    )
    return text.encode(sys.stdout.encoding, "replace")


async def show_progress(exporter: Exporter, scraping: "asyncio.Task[Snapshot]") -> None:
    """A line that says how many instances are done, until all are."""
    total = len(exporter.scraper.instances)
    while not scraping.done():
        await asyncio.wait([scraping], timeout=0.2)
        done, pages = exporter.scraper.progress()
        sys.stderr.write(f"\r{done} of {total} instances, {pages} pages read ")
        sys.stderr.flush()
    sys.stderr.write("\n")
