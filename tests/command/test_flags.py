"""The flags: what is taken, and what is said of what is not."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter import __version__
from exporter.cli import main
from exporter.command.flags import parse_arguments


def test_the_defaults_are_prometheus_like() -> None:
    assert vars(parse_arguments([])) == {
        "given": set(),
        "config_file": Path("config.yaml"),
        "config_check": False,
        "once": False,
        "output": "auto",
        "print_rules": False,
        "print_dashboard": False,
        "demo": False,
        "listen_addresses": (":10042",),
        "external_url": None,
        "telemetry_path": "/metrics",
        "web_config_file": None,
        "enable_lifecycle": False,
        "shard": 0,
        "total_shards": 1,
        "log_level": "info",
        "log_format": "logfmt",
    }


def test_every_flag_is_taken() -> None:
    options = vars(
        parse_arguments(
            [
                *("--config.file", "a.yaml", "--once", "--output", "json", "--demo"),
                *("--web.listen-address", "[::1]:0", "--web.telemetry-path=/m"),
                *("--web.config.file", "web.yaml", "--web.enable-lifecycle"),
                *("--web.external-url", "https://dba.example/backups/"),
                *("--shard", "2", "--total-shards", "3"),
                *("--log.level", "debug", "--log.format", "json"),
            ]
        )
    )
    given = options.pop("given")
    assert given == {name for name in options if options[name] is not False}
    assert options == {
        "config_file": Path("a.yaml"),
        "config_check": False,
        "once": True,
        "output": "json",
        "print_rules": False,
        "print_dashboard": False,
        "demo": True,
        "listen_addresses": ("[::1]:0",),
        "external_url": "https://dba.example/backups",
        "telemetry_path": "/m",
        "web_config_file": Path("web.yaml"),
        "enable_lifecycle": True,
        "shard": 2,
        "total_shards": 3,
        "log_level": "debug",
        "log_format": "json",
    }


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_levels_and_forms_of_the_log_are_prometheus_own(level: str, form: str) -> None:
    options = parse_arguments(["--log.level", level, "--log.format", form])
    assert (options.log_level, options.log_format) == (level, form)


def test_the_version_is_told_with_the_revision_that_the_image_carries(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVISION", "0a1b2c3")
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    python = ".".join(map(str, sys.version_info[:3]))
    assert capsys.readouterr().out == (
        f"gaussdb-mysql-backup-exporter {__version__} (revision 0a1b2c3, Python {python})\n"
    )


def test_help_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--help"])
    assert exited.value.code == 0
    assert "--web.listen-address ADDR" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--config.fle", "x"], "--config.fle x; did you mean --config.file?"),
        (["--config-file=x"], "--config-file=x; did you mean --config.file?"),
        (["--web.listen-adress=:1"], "did you mean --web.listen-address?"),
        (["-config.file", "x"], "did you mean --config.file?"),
        (["config.yaml"], "config.yaml; did you mean --config.file config.yaml?"),
        (["--log", "x"], "unrecognized arguments: --log x"),  # no abbreviations
        (["--config.file", "a", "--config.file=b"], "--config.file is given twice"),
        (["--once", "--once"], "--once is given twice"),
        (["--once", "--output", "xml"], "argument --output: invalid choice: 'xml'"),
        (["--output", "json"], "--output says what --once prints: give --once too"),
        (["--config.file"], "argument --config.file: expected one argument"),
        (["--log.level", "trace"], "argument --log.level: invalid choice: 'trace'"),
        (["--log.format", "xml"], "argument --log.format: invalid choice: 'xml'"),
        (
            ["--config.check", "--demo"],
            "--config.check checks a configuration, and --demo has none",
        ),
        (["--shard", "x"], "argument --shard: invalid int value: 'x'"),
        (["--shard", "1"], "--shard must be from 0 to 0 (--total-shards less one)"),
        (["--shard=-1"], "--shard must be from 0 to 0 (--total-shards less one)"),
        (["--shard", "3", "--total-shards", "3"], "--shard must be from 0 to 2"),
        (["--total-shards", "0"], "--total-shards must be at least 1"),
        (["--web.telemetry-path", "metrics"], "'metrics' must be a path like /metrics"),
        (["--web.telemetry-path", "/"], "'/' must be a path like /metrics, and none of /, /probe"),
        (["--web.telemetry-path", "/probe"], "'/probe' must be a path like /metrics"),
        (["--web.telemetry-path", "/{a}"], "'/{a}' must be a path like /metrics"),
        (["--web.telemetry-path", "/a?b"], "'/a?b' must be a path like /metrics"),
        (["--once", "--config.check"], "--config.check and --once exclude each other"),
        (["--print-rules", "--print-dashboard"], "--print-rules and --print-dashboard exclude"),
        *(
            (["--web.external-url", url], "must be a URL like https://host/path")
            for url in (
                *("dba.example", "ftp://host", "https://", "https://host:0", "https://host:x"),
                *("https://[::1", "https://u:p@host", "https://host/?q", "https://host/#f"),
                *("https://ho st", "https://host/\n"),
            )
        ),
    ],
)
def test_bad_usage_is_2_and_said(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
