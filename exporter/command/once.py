"""`--once`: one scrape, printed for a person, a script, or Prometheus' textfile collector."""

import argparse
import asyncio
import shutil
import sys

import structlog

from exporter.assembly import Exporter
from exporter.command.report import Report, build_report, render_json
from exporter.command.table import WIDTH, render_table, wants_colours
from exporter.exposition.metrics import Registries, SnapshotCollector, render
from exporter.models import Snapshot
from exporter.reporting.streams import write_stdout

log = structlog.get_logger(__name__)


async def scrape_once(exporter: Exporter, options: argparse.Namespace) -> bool:
    """The result on stdout, progress on stderr where that is a terminal; whether all succeeded."""
    scraper = exporter.scraper
    scraping = asyncio.create_task(scraper.scrape(scraper.config.scrape.timeout, patient=True))
    if sys.stderr.isatty():
        await show_progress(exporter, scraping)
    snapshot = await scraping
    report = build_report(snapshot, now=exporter.clock())
    try:
        write_stdout(render_report(exporter, report, options))
    except OSError as exc:
        log.error("cannot write the result", cause=exc.strerror)
        return False
    return not report.is_failed


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
