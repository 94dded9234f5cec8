"""The meter.  There is one for the whole process, as there is one log: every module may count, and none reads counts.

prometheus-client is imported when the meter is switched on, not before.  Several gateway processes each write to a file
of their own in a shared directory.  The file is named after the worker slot, not the pid, so a worker that replaces a
dead one continues its counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from estgw.metrics.table import ISSUED, REQUEST_SECONDS, REQUESTS, Kind, Metric

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The variable from which prometheus-client takes the directory, in the environment of a process that writes there."""

_NOTHING = contextlib.nullcontext()


class Meter:
    """Counters, gauges and histograms.  They count nothing until `switch_on`, and then only the metrics given there."""

    def __init__(self) -> None:
        self._made: dict[str, Any] | None = None
        self._registry: Any = None
        self._library: Any = None

    def switch_on(self, metrics: Iterable[Metric], *, place: int | None = None, view: Path | None = None) -> None:
        """Begin to count `metrics`, from 0.

        `place` is the index of this process's worker slot, if there are several; `DIRECTORY_VARIABLE` must then be set.
        `view` is the same directory, in the process that serves the counts of the others.
        """
        import prometheus_client
        import prometheus_client.multiprocess
        import prometheus_client.values

        self._library = library = cast(Any, prometheus_client)  # half of the functions used have no types
        library.disable_created_metrics()
        # Set here, regardless of the environment in which the gateway was started.
        values = library.values
        values.ValueClass = values.MutexValue if place is None else values.MultiProcessValue(lambda: place)
        self._registry = library.CollectorRegistry()
        if view is not None:
            library.multiprocess.MultiProcessCollector(self._registry, str(view))
        self._made = {metric.name: self._make(library, metric) for metric in metrics}

    @contextlib.contextmanager
    def switched_on(self, metrics: Iterable[Metric], *, view: Path | None = None) -> Iterator[None]:
        """Count `metrics` while the context lasts."""
        self.switch_on(metrics, view=view)
        try:
            yield
        finally:
            self._made = self._registry = None

    def _make(self, library: Any, metric: Metric) -> Any:
        common = {"labelnames": metric.labels, "registry": self._registry}
        match metric.kind:
            case Kind.COUNTER:
                return library.Counter(metric.name, metric.help, **common)
            case Kind.GAUGE:
                return library.Gauge(metric.name, metric.help, multiprocess_mode="livesum", **common)
            case Kind.HISTOGRAM:
                return library.Histogram(metric.name, metric.help, buckets=metric.buckets, **common)

    def add(self, metric: Metric, *labels: str) -> None:
        """Increase a counter by one."""
        if self._made is not None:
            self._of(metric, labels).inc()

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        if self._made is not None:
            self._of(metric, labels).set(value)

    def clear(self, metric: Metric) -> None:
        """Forget all values of a metric.

        It is made anew, as the library's own `clear` goes by the environment, where another program may have left
        `DIRECTORY_VARIABLE`.
        """
        if self._made is not None:
            self._registry.unregister(self._of(metric, ()))
            self._made[metric.name] = self._make(self._library, metric)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """Add a duration in seconds to a histogram."""
        if self._made is not None:
            self._of(metric, labels).observe(seconds)

    def held(self, metric: Metric) -> contextlib.AbstractContextManager[Any]:
        """Increase a gauge by one while the context lasts."""
        if self._made is None:
            return _NOTHING
        held: contextlib.AbstractContextManager[Any] = self._of(metric, ()).track_inprogress()
        return held

    def answered(self, entry: Mapping[str, Any], status: int, seconds: float) -> None:
        """Count a request that was answered after `seconds`; `entry` is its access line."""
        if self._made is None:
            return
        # Both are names in the configuration: the access line has them only after the path was found to be served.
        operation, label = entry.get("operation", "other"), entry.get("label", "")
        self.add(REQUESTS, operation, label, str(status))
        self.observe(REQUEST_SECONDS, seconds, operation)
        if "serial" in entry:
            self.add(ISSUED, operation, label)

    def forget(self, view: Path, place: int) -> None:
        """Remove the gauges of a dead process from `view`; `place` is the index of its worker slot."""
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(place, str(view))  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """Return the body of /metrics."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        assert self._made is not None
        made = self._made[metric.name]
        return made.labels(*labels) if labels else made


meter = Meter()
