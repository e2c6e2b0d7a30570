from exporter.demo import build_demo_config, describe_demo
from exporter.simulator import DEMO_INSTANCES, DEMO_PASSWORD, build_demo

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


def test_the_demo_says_what_there_is_and_where_to_look() -> None:
    lines = list(describe_demo("http://127.0.0.1:10042", "/numbers"))
    text = "\n".join(lines)
    assert len(lines) == 8
    for instance in DEMO_INSTANCES:
        assert any(instance.name in line and instance.what in line for line in lines)
    assert "http://127.0.0.1:10042/ " in text
    assert "http://127.0.0.1:10042/numbers" in text
    assert DEMO_PASSWORD not in text
