"""Counting.  Like the log there is one for the whole process, anybody may write to it, and nothing reads it inside.

prometheus-client is imported when the meter is switched on, and not before.  Several gateway processes each write to a
file of their own in a directory that they share.  The file is named after a process's place and not its number, so
whoever takes the place of one that died goes on counting where that one stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from estgw.metrics.table import ISSUED, REQUEST_SECONDS, REQUESTS, Kind, Metric

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus-client looks for the directory; in the environment of a process that writes there."""

_NOTHING = contextlib.nullcontext()


class Meter:
    """Counts nothing until it is switched on; then every metric must be one of those that it was switched on with."""

    def __init__(self) -> None:
        self._made: dict[str, Any] | None = None
        self._registry: Any = None

    def switch_on(self, metrics: Iterable[Metric], *, place: int | None = None, view: Path | None = None) -> None:
        """Begin to count `metrics`, from 0.

        `place` is which of several processes this one is; `DIRECTORY_VARIABLE` must be set then.  `view` is the same
        directory in the process that shows what the others have counted.
        """
        import prometheus_client
        import prometheus_client.multiprocess
        import prometheus_client.values

        library: Any = prometheus_client  # half of what we use of it has no types
        library.disable_created_metrics()
        # Decided here, whatever the environment that we were started in says.
        values = library.values
        values.ValueClass = values.MutexValue if place is None else values.MultiProcessValue(lambda: place)
        self._registry = library.CollectorRegistry()
        if view is not None:
            library.multiprocess.MultiProcessCollector(self._registry, str(view))
        self._made = {metric.name: self._make(library, metric) for metric in metrics}

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
        """One more."""
        if self._made is not None:
            self._of(metric, labels).inc()

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """So many now."""
        if self._made is not None:
            self._of(metric, labels).set(value)

    def observe(self, metric: Metric, seconds: float, *labels: str) -> None:
        """It took so long."""
        if self._made is not None:
            self._of(metric, labels).observe(seconds)

    def held(self, metric: Metric) -> contextlib.AbstractContextManager[Any]:
        """One more for as long as the context lasts."""
        if self._made is None:
            return _NOTHING
        held: contextlib.AbstractContextManager[Any] = self._of(metric, ()).track_inprogress()
        return held

    def answered(self, entry: Mapping[str, Any], status: int, seconds: float) -> None:
        """A request was answered; `entry` is its access line."""
        if self._made is None:
            return
        # These two are names of the configuration's: they are noted once the path is known to lead there.
        operation, label = entry.get("operation", "other"), entry.get("label", "")
        self.add(REQUESTS, operation, label, str(status))
        self.observe(REQUEST_SECONDS, seconds, operation)
        if "serial" in entry:
            self.add(ISSUED, operation, label)

    def forget(self, view: Path, place: int) -> None:
        """The process of that place is dead: what it had open, or was at, is no more."""
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(place, str(view))  # type: ignore[no-untyped-call]

    def text(self) -> bytes:
        """What /metrics shows."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        assert self._made is not None
        made = self._made[metric.name]
        return made.labels(*labels) if labels else made


meter = Meter()
