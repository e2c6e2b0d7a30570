import subprocess
import sys
from pathlib import Path

from exporter.demo import build_demo_config, describe_demo
from exporter.simulator import DEMO_INSTANCES, DEMO_PASSWORD, DEMO_PROJECT_ID, build_demo

ADDRESS = "http://127.0.0.1:41027"


def test_the_demo_names_exactly_the_instances_of_the_simulator() -> None:
    config = build_demo_config(ADDRESS)
    (simulated,) = build_demo(lambda: 1_690_545_600.0).projects.values()
    (project,) = config.projects
    assert project.id == simulated.id
    assert project.region == simulated.region
    assert len(project.instances) == 6
    assert {i.id: i.name for i in project.instances} == {
        i.id: i.name for i in simulated.instances.values()
    }


def test_the_demo_asks_nobody_but_the_simulator() -> None:
    (project,) = build_demo_config(ADDRESS).projects
    assert (project.endpoint, project.iam_endpoint) == (ADDRESS, ADDRESS)
    assert project.discovery is None


def test_the_demo_looks_back_as_far_as_its_instances_are_described() -> None:
    lookbacks = {
        i.name: i.lookback_seconds for i in build_demo_config(ADDRESS).configured_instances()
    }
    assert lookbacks == {i.name: i.lookback_seconds for i in DEMO_INSTANCES}
    assert lookbacks["billing"] == 7 * 86_400


def test_the_demo_asks_for_restores_too() -> None:
    instances = build_demo_config(ADDRESS).configured_instances()
    assert all(each.restore_window and each.full_backups for each in instances)


def test_the_demo_says_what_there_is_and_where_to_look() -> None:
    lines = list(describe_demo("http://127.0.0.1:10042", "/numbers"))
    text = "\n".join(lines)
    assert len(lines) == 8
    for instance in DEMO_INSTANCES:
        assert any(instance.name in line and instance.what in line for line in lines)
    assert "http://127.0.0.1:10042/ " in text
    assert "http://127.0.0.1:10042/numbers" in text
    assert DEMO_PASSWORD not in text


START = """
import contextlib, sys
from exporter.cli import main
for arguments in (["--help"], ["--version"], ["--once", "--config.file", sys.argv[1]]):
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        main(arguments)
loaded = sorted(name for name in sys.modules if name.startswith("exporter."))
print("exporter.web.app" in loaded, [n for n in loaded if "simulator" in n or "demo" in n])
"""


def test_the_simulator_is_loaded_for_the_demo_alone(tmp_path: Path) -> None:
    """What serves production neither loads a cloud to practise on nor waits for it."""
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
api: {{retries: 0}}
projects:
  - id: {DEMO_PROJECT_ID}
    region: cn-north-4
    endpoint: http://127.0.0.1:9
    auth: {{type: token, token: nobody-asks-for-it}}
    instances: [{DEMO_INSTANCES[0].id}]
"""
    )
    started = subprocess.run(
        [sys.executable, "-c", START, config], capture_output=True, text=True, check=True
    )
    assert started.stdout == "True []\n"
    assert "gaussdb_mysql_scrape_success{" in started.stderr  # it did scrape
