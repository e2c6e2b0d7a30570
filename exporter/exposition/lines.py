"""The text of metrics, of which only what has changed is encoded anew."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import ne

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

Encoder = Callable[[Collector], bytes]
Labels = Sequence[tuple[str, ...]]  # the values of each sample's


class Table(Metric):
    """A metric of many instances. Its samples are made when someone asks for them.

    They are told apart by their labels, and have no timestamp and no exemplar.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        type: str,
        *,
        label_names: Sequence[str],
        labels: Labels,
        values: Sequence[float],
    ) -> None:
        super().__init__(name, documentation, type)
        self.label_names = label_names
        self.labels = labels
        self.values = values

    @property
    def samples(self) -> list[Sample]:
        name = self.name + ("_total" if self.type == "counter" else "")
        return [
            Sample(name, dict(zip(self.label_names, labels, strict=True)), value)
            for labels, value in zip(self.labels, self.values, strict=True)
        ]

    @samples.setter
    def samples(self, samples: list[Sample]) -> None:
        """What Metric begins with: an empty list."""

    def at(self, places: Iterable[int]) -> "Table":
        """The same with a part of the samples."""
        places = list(places)
        return Table(
            self.name,
            self.documentation,
            self.type,
            label_names=self.label_names,
            labels=[self.labels[i] for i in places],
            values=[self.values[i] for i in places],
        )


class LastExpositions:
    """The last exposition in each format. May be used from several threads at once."""

    def __init__(self) -> None:
        # Two: for Prometheus, and for a person. Who asks may make up versions of a format.
        self.of = functools.lru_cache(maxsize=2)(lambda content_type: LastLines())


@dataclass(frozen=True, slots=True)
class _Lines:
    """A table's text, and the samples that it is of."""

    head: bytes
    labels: Labels
    values: Sequence[float | None]
    lines: list[bytes]


class LastLines:
    """The lines of one exposition, to be used again for the next one.

    Of the 28 samples of an instance four or five differ from those of a minute ago, and the
    encoder is slow. The text is its own, line for line: where a value has changed, so has what
    follows the last space.
    """

    def __init__(self) -> None:
        self._tables: dict[str, _Lines] = {}

    def encode(self, collector: Collector, encoder: Encoder) -> Iterator[bytes]:
        """The exposition in pieces."""
        end = encoder(_Given([]))  # of the format
        tables: dict[str, _Lines] = {}
        for metric in collector.collect():
            if not isinstance(metric, Table):
                yield encoder(_Given([metric])).removesuffix(end)
                continue
            known = self._tables.get(metric.name)
            if known is None:
                lines = _encode(metric, encoder, end)
            else:
                lines = _renew(_align(known, metric.labels), metric, encoder, end)
            tables[metric.name] = lines
            yield lines.head
            yield b"".join(lines.lines)
        self._tables = tables
        yield end


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


def _renew(known: _Lines, table: Table, encoder: Encoder, end: bytes) -> _Lines:
    """The lines with new values, and with those of new samples."""
    changed = [i for i, differs in enumerate(map(ne, table.values, known.values)) if differs]
    if not changed:
        return known
    lines = known.lines.copy()
    new = []
    for i in changed:
        line = lines[i]
        if line:
            value: str = floatToGoString(table.values[i])  # type: ignore[no-untyped-call]
            lines[i] = b"%b %b\n" % (line[: line.rindex(b" ")], value.encode())
        else:
            new.append(i)
    if new:
        for i, line in zip(new, _encode(table.at(new), encoder, end).lines, strict=True):
            lines[i] = line
    return _Lines(known.head, known.labels, table.values, lines)


def _encode(table: Table, encoder: Encoder, end: bytes) -> _Lines:
    # A line ends with \n and nothing else: a label may have whatever else ends lines elsewhere.
    text = encoder(_Given([table])).removesuffix(end)
    lines = [line + b"\n" for line in text.split(b"\n")[:-1]]
    return _Lines(
        b"".join(line for line in lines if line.startswith(b"#")),
        table.labels,
        table.values,
        [line for line in lines if not line.startswith(b"#")],
    )
