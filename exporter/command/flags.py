"""The flags: what may be given, what is wrong with what was given."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from exporter import __version__
from exporter.config.names import nearest
from exporter.reporting.streams import print_out

LEVELS = ("debug", "info", "warn", "error")
FORMATS = ("logfmt", "json")
DEFAULT_ADDRESSES = (":10042",)
OUTPUTS = ("auto", "metrics", "table", "json")
PROGRAM = "gaussdb-mysql-backup-exporter"


def version_text() -> str:
    revision = os.environ.get("REVISION") or "unknown"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{PROGRAM} {__version__} (revision {revision}, Python {python})"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line: the whole usage would hide what is wrong."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            super()._print_message(message, file)
        elif not print_out(message):
            self.exit(1)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the flags)\n")


class _Once(argparse.Action):
    """A flag that may be given once: of two values neither would be the one that was meant."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.dest in namespace.given:
            parser.error(f"{option_string} is given twice")
        namespace.given.add(self.dest)
        setattr(namespace, self.dest, self.const if self.nargs == 0 else values)


class _Version(argparse.Action):
    """One line, however narrow the terminal: argparse's own would be broken at its width."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(
            option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **more
        )

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> NoReturn:
        parser._print_message(f"{version_text()}\n", sys.stdout)
        parser.exit()


class _Switch(_Once):
    """A flag without a value."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, const=True, default=False, **more)


class _Each(argparse.Action):
    """A flag that may be given more than once: the first takes the default's place."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest) if self.dest in namespace.given else ()
        namespace.given.add(self.dest)
        setattr(namespace, self.dest, (*before, values))


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Prometheus exporter for the incremental backups of Huawei Cloud"
        " GaussDB(for MySQL), sold as TaurusDB.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    parser.register("action", None, _Once)  # what no argument below says otherwise
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
        action=_Switch,
        help="validate the configuration, print what is wrong with it, and exit",
    )
    add(
        "--once",
        action=_Switch,
        help="one scrape: its result on stdout, logs on stderr; exit 1 if an instance failed",
    )
    add(
        "--output",
        metavar="FORMAT",
        choices=OUTPUTS,
        default="auto",
        help="what --once prints: metrics, table or json; auto is table on a terminal,"
        " else metrics (default: %(default)s)",
    )
    add(
        "--print-rules",
        dest="print_rules",
        action=_Switch,
        help="print the shipped alert rules and exit",
    )
    add(
        "--print-dashboard",
        dest="print_dashboard",
        action=_Switch,
        help="print the shipped Grafana dashboard and exit",
    )
    add(
        "--demo",
        action=_Switch,
        help="run on the built-in simulator: no account and no configuration needed",
    )
    add(
        "--web.listen-address",
        dest="listen_addresses",
        metavar="ADDR",
        action=_Each,
        default=DEFAULT_ADDRESSES,
        help="host:port, [v6]:port or :port; port 0 picks a free one; may be given more than once"
        f" (default: {DEFAULT_ADDRESSES[0]})",
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
        action=_Switch,
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
        choices=LEVELS,
        default="info",
        help="least severe level that is logged (default: %(default)s)",
    )
    add(
        "--log.format",
        dest="log_format",
        choices=FORMATS,
        default="logfmt",
        help="form of the log (default: %(default)s)",
    )
    add("--version", action=_Version, help="show program's version number and exit")
    return parser


_RESERVED_PATHS = ("/", "/probe", "/sd", "/runbooks", "/-/healthy", "/-/ready", "/-/reload")


def _telemetry_path(text: str) -> str:
    is_taken = text in _RESERVED_PATHS or text.startswith("/runbooks/")
    if not text.startswith("/") or is_taken or set(text) & set("{}?# "):
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


def _describe_unknown(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    first = unknown[0]
    message = f"unrecognized arguments: {' '.join(unknown)}"
    if not first.startswith("-"):
        is_file = first.endswith((".yaml", ".yml"))
        return f"{message}; did you mean --config.file {first}?" if is_file else message
    flags = [flag for action in parser._actions for flag in action.option_strings]
    near = nearest(first.partition("=")[0], flags)
    return f"{message}; did you mean {near}?" if near is not None else message


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `given` holds the names of those that were given."""
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments, argparse.Namespace(given=set()))
    if unknown:
        parser.error(_describe_unknown(parser, unknown))
    asked = [flag for flag in _ACTIONS if getattr(options, re.sub("[.-]", "_", flag[2:]))]
    if len(asked) > 1:
        parser.error(f"{' and '.join(asked)} exclude each other: give one of them")
    if "output" in options.given and not options.once:
        parser.error("--output says what --once prints: give --once too")
    if options.config_check and options.demo:
        parser.error("--config.check checks a configuration, and --demo has none")
    if options.total_shards < 1:
        parser.error("--total-shards must be at least 1")
    if not 0 <= options.shard < options.total_shards:
        parser.error(
            f"--shard must be from 0 to {options.total_shards - 1} (--total-shards less one)"
        )
    return options
