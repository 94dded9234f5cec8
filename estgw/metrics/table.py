"""The table of all metrics.  /metrics shows the names and the help texts, which are the documentation too.

Labels take their values from the configuration, from a handler's end or from a short list, never from a client: a
request for an operation that is not served counts as the operation `other`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The types of metric in Prometheus: a count that grows, a value that goes up and down, or counts in buckets."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric; its name follows the conventions of Prometheus, `buckets` are upper bounds in seconds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# From an answer without a callout to the default `callouts.timeout`.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

REQUESTS = Metric(
    "estgw_requests_total",
    Kind.COUNTER,
    "Requests answered, by operation (or other), CA label and HTTP status.",
    ("operation", "label", "status"),
)
REQUEST_SECONDS = Metric(
    "estgw_request_seconds",
    Kind.HISTOGRAM,
    "Seconds from a request's head to its answer.",
    ("operation",),
    SECONDS,
)
ISSUED = Metric(
    "estgw_certificates_issued_total",
    Kind.COUNTER,
    "Certificates handed to a client.",
    ("operation", "label"),
)
CALLOUTS = Metric(
    "estgw_callouts_total",
    Kind.COUNTER,
    "Scripts run, by runner and by end: an exit status, signal-N, timeout, flood, not-started or unknown.",
    ("handler", "runner", "end"),
)
CALLOUT_SECONDS = Metric(
    "estgw_callout_seconds",
    Kind.HISTOGRAM,
    "Seconds that a script ran, without its wait to be started.",
    ("handler",),
    SECONDS,
)
CALLOUTS_RUNNING = Metric("estgw_callouts_running", Kind.GAUGE, "Scripts that run now.")
CALLOUTS_WAITING = Metric("estgw_callouts_waiting", Kind.GAUGE, "Callouts that wait to be started or for a lock.")
CONNECTIONS = Metric("estgw_connections", Kind.GAUGE, "Open connections, those in their TLS handshake included.")
HANDSHAKE_FAILURES = Metric(
    "estgw_handshake_failures_total",
    Kind.COUNTER,
    "Connections that failed before a request: failed handshakes, and those above max_connections.",
)

BUILD = Metric("estgw_build_info", Kind.GAUGE, "1, labelled with the version.", ("version",))
CONFIGURED = Metric(
    "estgw_config_loaded_timestamp_seconds",
    Kind.GAUGE,
    "When the configuration in use was read, in seconds since 1970.",
)
RELOADS = Metric("estgw_reloads_total", Kind.COUNTER, "Reloads of the configuration: done or refused.", ("result",))
LABELS_OUT_OF_SERVICE = Metric(
    "estgw_labels_out_of_service", Kind.GAUGE, "CA labels that answer 503, because their configuration has a fault."
)
VALID_FROM = Metric(
    "estgw_valid_from_timestamp_seconds",
    Kind.GAUGE,
    "When certificates or CRLs of this kind and name begin to be valid, in seconds since 1970; the last of several.",
    ("kind", "name"),
)
VALID_UNTIL = Metric(
    "estgw_valid_until_timestamp_seconds",
    Kind.GAUGE,
    "When certificates or CRLs of this kind and name end to be valid, in seconds since 1970; the first of several.",
    ("kind", "name"),
)
WORKERS = Metric("estgw_workers", Kind.GAUGE, "Gateway processes that accept connections.")
RESTARTS = Metric("estgw_worker_restarts_total", Kind.COUNTER, "Gateway processes started to replace another.")

OF_WORKERS = (
    REQUESTS, REQUEST_SECONDS, ISSUED, CALLOUTS, CALLOUT_SECONDS, CALLOUTS_RUNNING, CALLOUTS_WAITING, CONNECTIONS,
    HANDSHAKE_FAILURES,
)  # fmt: skip
"""Counted by each gateway process; /metrics shows the sum."""
OF_ALL = (BUILD, CONFIGURED, RELOADS, LABELS_OUT_OF_SERVICE, VALID_FROM, VALID_UNTIL, WORKERS, RESTARTS)
"""Counted once, by the only process or by the supervisor."""
