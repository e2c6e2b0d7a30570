"""What is kept of an exposition must never show: the text is that of the encoder by itself."""

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from exporter.exposition.lines import LastExpositions, Table
from exporter.exposition.metrics import OwnMetrics, render
from tests.support.searches import extent

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8"
FORMATS = ["", OPENMETRICS, PROMETHEUS_3, "text/plain;version=1.0.0"]

Instances = dict[tuple[str, str], float]


class Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def make_metric(values: Instances, *, type: str = "gauge") -> Table:
    return Table(
        "gaussdb_mysql_" + type,
        "Some help.",
        type,
        label_names=("project", "instance"),
        labels=list(values),
        values=list(values.values()),
    )


def encode(accept: str, collector: Collector) -> bytes:
    """What prometheus-client makes of it, and nothing of ours."""
    encoder, _ = choose_encoder(accept)
    return encoder(collector)


# Whatever a name in the console may be, above all what ends a line or a label. A few that come
# again and again, since a line is of interest the second time.
LABEL = st.sampled_from(["a", "a b ", '"', "\\", "\n", "# x", "é\u2028"]) | st.text(
    st.sampled_from('ab"\\\n\r#\u2028é ') | st.characters(codec="utf-8"), max_size=6
)
# No -0.0: it equals 0.0, whose line it would get.
VALUE = st.sampled_from([0.0, 1.0, 1234567.0]) | st.floats().map(lambda value: value + 0.0)
SCRAPE = st.dictionaries(st.tuples(LABEL, LABEL), VALUE, max_size=5)


@settings(max_examples=extent(200), deadline=None)
@given(scrapes=st.lists(st.tuples(SCRAPE, SCRAPE), max_size=4), accept=st.sampled_from(FORMATS))
def test_every_exposition_is_what_the_encoder_makes_of_it(
    scrapes: list[tuple[Instances, Instances]], accept: str
) -> None:
    last = LastExpositions()
    for gauges, counters in scrapes:
        collector = Given([make_metric(gauges), make_metric(counters, type="counter")])

        exposition = render(collector, accept=accept, last=last)

        assert exposition.body == encode(accept, collector)


def test_samples_of_a_table_have_its_labels_its_values_and_a_counters_suffix() -> None:
    gauge, counter = (make_metric({("p", "a"): 1.5}, type=type) for type in ("gauge", "counter"))
    labels = {"project": "p", "instance": "a"}

    assert gauge.samples == [Sample("gaussdb_mysql_gauge", labels, 1.5)]
    assert counter.samples == [Sample("gaussdb_mysql_counter_total", labels, 1.5)]


@pytest.mark.parametrize("accept", FORMATS)
def test_instances_that_go_and_come_back_have_their_own_numbers(accept: str) -> None:
    last = LastExpositions()
    a, b, c = ("p", "a"), ("p", "b"), ("p", "c")
    for values in (
        {a: 1.0, b: 2.0, c: 3.0},
        {a: 1.0, c: 3.0},
        {c: 3.0, a: 1.5},
        {a: 1.5, b: 2.0, c: 4.0},
        {},
        {b: 2.0},
    ):
        collector = Given([make_metric(values)])

        assert render(collector, accept=accept, last=last).body == encode(accept, collector)


def test_formats_are_kept_apart_however_many_are_asked_for() -> None:
    last = LastExpositions()
    for value in (1.0, 2.0):
        for accept in [*FORMATS, "text/plain;version=1.0.0;escaping=dots"]:
            collector = Given([make_metric({("p", "a"): value}, type="counter")])

            assert render(collector, accept=accept, last=last).body == encode(accept, collector)


def test_of_the_formats_asked_for_the_last_two_are_remembered() -> None:
    """Who asks may make up versions of a format without end."""
    last = LastExpositions()
    first, second = last.of("a"), last.of("b")
    assert (last.of("a"), last.of("b")) == (first, second)
    last.of("c")
    assert last.of("b") is second
    assert last.of("a") is not first


def test_a_label_with_spaces_keeps_them_when_the_value_changes() -> None:
    last = LastExpositions()
    for value in (1.0, 2.0, 1e300):
        collector = Given([make_metric({("my project", 'a "b" c'): value})])

        assert render(collector, last=last).body == encode("", collector)


def test_only_what_is_new_goes_through_the_encoder() -> None:
    encoder, _ = choose_encoder("")
    encoded: list[list[str]] = []

    def recorded(collector: Collector) -> bytes:
        samples = [sample for metric in collector.collect() for sample in metric.samples]
        encoded.append([sample.labels["instance"] for sample in samples])
        return encoder(collector)

    last = LastExpositions().of("")
    scrapes: list[tuple[Instances, list[list[str]]]] = [
        ({("p", "a"): 1.0, ("p", "b"): 2.0}, [["a", "b"]]),
        ({("p", "a"): 1.0, ("p", "b"): 2.0}, []),
        ({("p", "a"): 1.5, ("p", "b"): 2.0}, []),  # a known line with another value
        ({("p", "b"): 2.0, ("p", "c"): 3.0, ("p", "a"): 1.5}, [["c"]]),
        ({("p", "c"): 3.0}, []),
    ]
    for values, expected in scrapes:
        collector = Given([make_metric(values)])
        assert b"".join(last.encode(collector, recorded)) == encoder(collector)
        assert [instances for instances in encoded if instances] == expected
        encoded.clear()


@pytest.mark.parametrize("accept", FORMATS)
def test_metrics_of_the_exporter_itself_are_kept_as_they_change(accept: str) -> None:
    last, registry = LastExpositions(), CollectorRegistry()
    OwnMetrics()  # switches the `_created` series off
    histogram = Histogram("h", "Some help.", ["operation"], registry=registry)
    counter = Counter("c", "Some help.", registry=registry)
    for seconds in (0.01, 0.01, 7.0):
        histogram.labels("list").observe(seconds)
        counter.inc()

        assert render(registry, accept=accept, last=last).body == encode(accept, registry)


@pytest.mark.parametrize("accept", FORMATS)
def test_exposition_of_the_program_is_what_the_encoder_makes_of_it_by_default(accept: str) -> None:
    collector = Given([make_metric({("p", "né\nw"): 1e9}), make_metric({}, type="counter")])

    assert render(collector, accept=accept).body == encode(accept, collector)
