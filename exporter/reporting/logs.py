"""Logging for operators: one line an event, logfmt or JSON, on stderr, free of secrets."""

import contextlib
import logging
import logging.handlers
import queue
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from traceback import walk_tb
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, WrappedLogger

from exporter.reporting import streams
from exporter.reporting.redaction import RedactSecrets, SecretRegistry

# How long to wait at the end for what is still to be written.
_LAST_WORDS_SECONDS = 2.0
# What may wait to be written while nobody reads the log.
_MOST_RECORDS = 10_000
_OURS = str(Path(__file__).parents[1])


class _Listener(logging.handlers.QueueListener):
    """Writes in a thread of its own; its end does not depend on somebody reading the log."""

    def stop(self) -> None:
        if (thread := self._thread) is None:
            return
        with contextlib.suppress(queue.Full):
            self.enqueue_sentinel()
        thread.join(_LAST_WORDS_SECONDS)
        self._thread = None
        if thread.is_alive():
            streams.give_up()


class _Queue(logging.handlers.QueueHandler):
    """Hands records over as they are: formatting and redacting are for the thread that writes.

    Those that find no room are counted, and the next one that does is told how many they were.
    """

    _lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                self.queue.put_nowait(_lost_records(self._lost))
                self._lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


def _lost_records(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log lines were lost, nobody read them",
            "lines": count,
        }
    )


@contextlib.contextmanager
def logging_to(
    stream: TextIO | None,
    *,
    level: str,
    log_format: Literal["logfmt", "json"],
    registry: SecretRegistry,
) -> Iterator[None]:
    """Send our own events and the libraries' warnings to `stream` (None: stderr) in one form.

    They are written by a thread of their own: a thousand instances that start to fail at once
    must not delay the answer of the scrape. All that was logged is written when the block ends,
    unless nobody reads it.
    """
    number = logging.WARNING if level == "warn" else logging.getLevelNamesMapping()[level.upper()]
    records: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_RECORDS)
    writer = logging.StreamHandler(stream or sys.stderr)
    writer.setFormatter(_formatter(log_format, registry))
    listener = _Listener(records, writer)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = [_Queue(records)]
    root.handlers[0].addFilter(_is_news)
    root.setLevel(number)
    # httpx logs every URL at INFO, and the others speak of what operators cannot act upon.
    for name in ("httpx", "httpcore", "aiohttp", "asyncio", "uvicorn"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            _hold_exception,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers[:], root.level = before
        structlog.reset_defaults()


def _is_news(record: logging.LogRecord) -> bool:
    """Not what uvloop meets by itself, which nobody can act upon: bytes of a connection that is
    closed already (https://github.com/MagicStack/uvloop/issues/506), and a handshake that fails
    when whoever wanted it has given up. Where this program is on the way to it, it is ours."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name != "asyncio" or error is None or _is_on_the_way_to(error):
        return True
    is_closed = isinstance(error, RuntimeError) and "the handler is closed" in str(error)
    is_given_up = isinstance(error, ssl.SSLError) and "never retrieved" in record.getMessage()
    return not (is_closed or is_given_up)


def _is_on_the_way_to(error: BaseException) -> bool:
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    return any(frame.f_code.co_filename.startswith(_OURS) for frame in frames)


def _shared_processors() -> list[structlog.typing.Processor]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.EventRenamer("msg"),
    ]


def _hold_exception(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """The thread that writes does not know which exception is being handled here."""
    if event_dict.get("exc_info") is True:
        event_dict["exc_info"] = sys.exc_info()
    return event_dict


def _stamp(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """When it was logged, which may be a while before it is written."""
    created = datetime.fromtimestamp(event_dict["_record"].created, UTC)
    event_dict["ts"] = created.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event_dict


def _formatter(
    log_format: Literal["logfmt", "json"], registry: SecretRegistry
) -> structlog.stdlib.ProcessorFormatter:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.LogfmtRenderer(
            key_order=["ts", "level", "msg"], drop_missing=True, bool_as_flag=False
        )
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared_processors(),
        processors=[
            _stamp,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            RedactSecrets(registry),  # formats exceptions too
            renderer,
        ],
    )
