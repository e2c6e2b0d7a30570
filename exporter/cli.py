"""The command line: what the program was asked to do, and its exit code.

What serves is loaded by the one who asks for it: `--version` needs none of it.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from exporter.command.flags import parse_arguments
from exporter.errors import ConfigError
from exporter.reporting.streams import complain, leave, open_closed, print_out
from exporter.shipped import read_dashboard, read_rules

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def entry_point() -> NoReturn:
    """What the console script calls."""
    open_closed()
    leave(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    options = parse_arguments(arguments)
    try:
        return EXIT_OK if _do(options) else EXIT_FAILED
    except ConfigError as exc:
        for problem in exc.problems:
            complain(problem)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_FAILED if options.once else EXIT_OK


def _do(options: argparse.Namespace) -> bool:
    """What was asked for; whether all went well. Raises ConfigError."""
    if options.print_rules:
        return print_out(read_rules(options.external_url))
    if options.print_dashboard:
        return print_out(read_dashboard())
    if options.config_check:
        from exporter.command.checking import check

        checked = check(options)
        for warning in checked.warnings:
            complain(warning)
        return print_out("".join(f"{line}\n" for line in (checked.summary, *checked.ways_in)))
    from exporter.command.running import run

    return run(options)
