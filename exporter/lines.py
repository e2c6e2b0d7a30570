"""The text of metrics, of which only what has changed is encoded anew."""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import ne

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Encoder = Callable[[Collector], bytes]
Labels = list[tuple[str, ...]]  # the values of each sample's


class LastExpositions:
    """The last exposition in each format. May be used from several threads at once."""

    def __init__(self) -> None:
        # Two: for Prometheus, and for a person. Who asks may make up versions of a format.
        self.of = functools.lru_cache(maxsize=2)(lambda content_type: LastLines())


@dataclass(frozen=True, slots=True)
class _Lines:
    """A metric's text, and the samples that it is of."""

    head: bytes
    labels: Labels
    values: list[float | None]
    lines: list[bytes]


class LastLines:
    """The lines of one exposition, to be used again for samples that are as they were.

    Of the 28 samples of an instance four or five differ from those of a minute ago, and the
    encoder is slow. The text is its own, line for line. Samples are taken to be told apart by
    their labels, or by their place; to have no timestamp and no exemplar.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, _Lines] = {}

    def encode(self, collector: Collector, encoder: Encoder) -> Iterator[bytes]:
        """The exposition in pieces."""
        metrics: dict[str, _Lines] = {}
        labels: Labels = []
        for metric in collector.collect():
            own_labels = [tuple(sample.labels.values()) for sample in metric.samples]
            # Most metrics are of the same instances: one list serves them all.
            labels = labels if own_labels == labels else own_labels
            known = self._metrics.get(metric.name)
            if known is None:
                lines = _encode(metric, labels, encoder)
            else:
                lines = _renew(_align(known, labels), metric, encoder)
            metrics[metric.name] = lines
            yield lines.head
            yield b"".join(lines.lines)
        self._metrics = metrics
        yield encoder(_Given([]))  # what ends the format


class _Given(Collector):
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _align(known: _Lines, labels: Labels) -> _Lines:
    """What is known of the samples with these labels, in their order."""
    if known.labels == labels:
        return known
    places = {key: i for i, key in enumerate(known.labels)}
    at = [places.get(key) for key in labels]
    return _Lines(
        known.head,
        labels,
        [None if i is None else known.values[i] for i in at],
        [b"" if i is None else known.lines[i] for i in at],
    )


def _renew(known: _Lines, metric: Metric, encoder: Encoder) -> _Lines:
    """The lines with those of changed values encoded anew."""
    values: list[float | None] = [sample.value for sample in metric.samples]
    changed = [i for i, differs in enumerate(map(ne, values, known.values)) if differs]
    if not changed:
        return known
    part = Metric(metric.name, metric.documentation, metric.type, metric.unit)
    part.samples = [metric.samples[i] for i in changed]
    lines = known.lines.copy()
    for i, line in zip(changed, _encode(part, [], encoder).lines, strict=True):
        lines[i] = line
    return _Lines(known.head, known.labels, values, lines)


def _encode(metric: Metric, labels: Labels, encoder: Encoder) -> _Lines:
    # A line ends with \n and nothing else: a label may have whatever else ends lines elsewhere.
    lines = [line + b"\n" for line in encoder(_Given([metric])).split(b"\n")[:-1]]
    return _Lines(
        b"".join(line for line in lines if line.startswith(b"#") and line != b"# EOF\n"),
        labels,
        [sample.value for sample in metric.samples],
        [line for line in lines if not line.startswith(b"#")],
    )
