"""The command line: flags, exit codes, and the one place that starts everything."""

import argparse
import asyncio
import contextlib
import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import structlog
import uvloop

from exporter import __version__
from exporter.assembly import Exporter, check_certificates, missing_secrets
from exporter.config.load import load_config
from exporter.config.schema import Config
from exporter.errors import ConfigError
from exporter.exposition.metrics import OwnMetrics, Registries, SnapshotCollector, render
from exporter.models import Snapshot
from exporter.reporting import logs
from exporter.reporting.redaction import SecretRegistry
from exporter.shipped import read_dashboard, read_rules
from exporter.web.app import create_app
from exporter.web.listener import bind, parse_listen_address, raise_open_files_limit
from exporter.web.server import serve
from exporter.web.tls import LoadedWebConfig
from exporter.web.web_config import load_web_config

log = structlog.get_logger(__name__)

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
PROGRAM = "gaussdb-mysql-backup-exporter"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Prometheus exporter for the incremental backups of Huawei Cloud"
        " GaussDB(for MySQL), sold as TaurusDB.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--config.file",
        dest="config_file",
        metavar="PATH",
        type=Path,
        default=Path("config.yaml"),
        help="configuration (default: %(default)s)",
    )
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="validate the configuration, print what is wrong with it, and exit",
    )
    add(
        "--once",
        action="store_true",
        help="one scrape: the exposition on stdout, logs on stderr; exit 1 if an instance failed",
    )
    add(
        "--print-rules",
        dest="print_rules",
        action="store_true",
        help="print the shipped alert rules and exit",
    )
    add(
        "--print-dashboard",
        dest="print_dashboard",
        action="store_true",
        help="print the shipped Grafana dashboard and exit",
    )
    add(
        "--demo",
        action="store_true",
        help="run on the built-in simulator: no account and no configuration needed",
    )
    add(
        "--web.listen-address",
        dest="listen_address",
        metavar="ADDR",
        default=":10042",
        help="host:port, [v6]:port or :port; port 0 picks a free one (default: %(default)s)",
    )
    add(
        "--web.external-url",
        dest="external_url",
        metavar="URL",
        type=_external_url,
        help="where people reach the exporter: absolute links begin with it",
    )
    add(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        default="/metrics",
        type=_telemetry_path,
        help="path of the metrics (default: %(default)s)",
    )
    add(
        "--web.config.file",
        dest="web_config_file",
        metavar="PATH",
        type=Path,
        help="TLS and basic auth, in the format of Prometheus' exporter-toolkit",
    )
    add(
        "--web.enable-lifecycle",
        dest="enable_lifecycle",
        action="store_true",
        help="allow POST /-/reload",
    )
    add(
        "--shard",
        metavar="N",
        type=int,
        default=0,
        help="serve only this shard's instances, from 0 (default: %(default)s)",
    )
    add(
        "--total-shards",
        dest="total_shards",
        metavar="M",
        type=int,
        default=1,
        help="number of shards (default: %(default)s)",
    )
    add(
        "--log.level",
        dest="log_level",
        choices=logs.LEVELS,
        default="info",
        help="least severe level that is logged (default: %(default)s)",
    )
    add(
        "--log.format",
        dest="log_format",
        choices=logs.FORMATS,
        default="logfmt",
        help="form of the log (default: %(default)s)",
    )
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


_RESERVED_PATHS = ("/", "/probe", "/sd", "/-/healthy", "/-/ready", "/-/reload")


def _telemetry_path(text: str) -> str:
    if not text.startswith("/") or text in _RESERVED_PATHS or set(text) & set("{}?# "):
        raise argparse.ArgumentTypeError(
            f"{text!r} must be a path like /metrics, and none of {', '.join(_RESERVED_PATHS)}"
        )
    return text


def _external_url(text: str) -> str:
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        usable = False
    if not usable or not text.isprintable() or set(text) & set("?#@ \"'"):
        raise argparse.ArgumentTypeError(
            "must be a URL like https://host/path, without a user, a query or a fragment"
        )
    return text.rstrip("/")


# What the program can be asked to do instead of serving.
_ACTIONS = ("--config.check", "--once", "--print-rules", "--print-dashboard")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    options = parser.parse_args(arguments)
    asked = [flag for flag in _ACTIONS if getattr(options, re.sub("[.-]", "_", flag[2:]))]
    if len(asked) > 1:
        parser.error(f"{' and '.join(asked)} exclude each other: give one of them")
    if options.config_check and options.demo:
        parser.error("--config.check checks a configuration, and --demo has none")
    if options.total_shards < 1:
        parser.error("--total-shards must be at least 1")
    if not 0 <= options.shard < options.total_shards:
        parser.error(
            f"--shard must be from 0 to {options.total_shards - 1} (--total-shards less one)"
        )
    return options


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
                return check(options.config_file, options.web_config_file)
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
    text = read_rules(options.external_url) if options.print_rules else read_dashboard()
    try:
        write_stdout(text.encode())
    except OSError as exc:
        print(f"cannot write to standard output: {exc.strerror}", file=sys.stderr)  # noqa: T201
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


def check(path: Path, web_config_path: Path | None) -> int:
    """`--config.check`: what is wrong, one a line, or that nothing is."""
    problems: list[str] = []
    try:
        config = load_config(path)
        check_certificates(config.api)
    except ConfigError as exc:
        problems += exc.problems
    try:
        if web_config_path is not None:
            load_web_config(web_config_path)
    except ConfigError as exc:
        problems += exc.problems
    if problems:
        raise ConfigError(problems)
    for missing in missing_secrets(config):
        log.warning("secret not there yet", problem=missing)
    projects, instances = len(config.projects), len(config.configured_instances())
    print(f"config OK: {projects} projects, {instances} instances")  # noqa: T201 - as above
    return EXIT_OK


async def run(options: argparse.Namespace, registry: SecretRegistry) -> int:
    """Serve, or scrape once, until done."""
    async with contextlib.AsyncExitStack() as stack:
        if options.demo:
            # The simulator is loaded where it is asked for, and not at every start.
            from exporter.demo import run_demo

            load = await stack.enter_async_context(run_demo())
        else:
            load = _loader(options.config_file)
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
            return await scrape_once(exporter)
        await serve_exporter(exporter, options)
    log.info("stopped")
    return EXIT_OK


def _loader(path: Path) -> Callable[[], Config]:
    def load() -> Config:
        config = load_config(path)
        for missing in missing_secrets(config):
            log.warning("secret not there yet", problem=missing)
        return config

    return load


async def serve_exporter(exporter: Exporter, options: argparse.Namespace) -> None:
    raise_open_files_limit()
    web_config = (
        LoadedWebConfig(options.web_config_file) if options.web_config_file is not None else None
    )
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
        scheme = "https" if web_config is not None and web_config.tls_context else "http"
        for line in describe_demo(f"{scheme}://{host}:{port}", options.telemetry_path):
            print(line, file=sys.stderr)  # noqa: T201 - tells a person where to look
    await serve(app, sockets=sockets, web_config=web_config, on_reload=reload, stopping=stop)


async def scrape_once(exporter: Exporter) -> int:
    """`--once`: the exposition on stdout; progress on stderr where that is a terminal."""
    scraper = exporter.scraper
    scraping = asyncio.create_task(scraper.scrape(scraper.config.scrape.timeout))
    if sys.stderr.isatty():
        await show_progress(exporter, scraping)
    snapshot = await scraping
    collector = Registries(SnapshotCollector(snapshot), exporter.own.registry)
    try:
        write_stdout(render(collector).body)
    except OSError as exc:
        log.error("cannot write the exposition", cause=exc.strerror)
        return EXIT_FAILED
    failed = any(result.failure is not None for result in snapshot.results)
    unknown = any(project.discovery_success is False for project in snapshot.projects)
    return EXIT_FAILED if failed or unknown else EXIT_OK


async def show_progress(exporter: Exporter, scraping: "asyncio.Task[Snapshot]") -> None:
    """A line that says how many instances are done, until all are."""
    total = len(exporter.scraper.instances)
    while not scraping.done():
        await asyncio.wait([scraping], timeout=0.2)
        done, pages = exporter.scraper.progress()
        sys.stderr.write(f"\r{done} of {total} instances, {pages} pages read ")
        sys.stderr.flush()
    sys.stderr.write("\n")
