"""Advice on a configuration that is valid but unwise: sentences for `estgw check` and for the log at the start."""

from __future__ import annotations

import ipaddress
import resource

from estgw.config import routes
from estgw.config.fields import split_address
from estgw.config.model import Config
from estgw.gateway.worker_share import ALONE, WorkerShare

OWN = 48
"""Descriptors of a gateway process at rest, with its log, its metrics and the files that a reload reads."""
PAGE = 66
"""Descriptors of the live page: its connections, as `estgw.page.serving` bounds them, and its socket."""
CALLOUT = 10
"""Descriptors of one running callout, or of a decision and a handler that run in one process."""


def advice(settings: Config) -> list[str]:
    """The sentences, none for a sound configuration."""
    found = []
    needed, (_, hard) = descriptors(settings), resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        share = WorkerShare(0, settings.server.workers)
        found.append(
            f"`ulimit -n` is {hard} at most, and a gateway process needs {needed}: "
            f"raise it, or lower server.max_connections, of which {connections(settings, share, hard)} fit in "
            f"{'each process' if share.of > 1 else 'it'}"
        )
    if settings.metrics.listen is not None:
        host, _ = split_address(settings.metrics.listen)
        if not ipaddress.ip_address(host).is_loopback:
            found.append(
                f"metrics.listen: {settings.metrics.listen} can be reached from other machines, over plain HTTP and by "
                "anybody: listen on 127.0.0.1 or [::1], and put a proxy in front"
            )
    return found


def descriptors(settings: Config, share: WorkerShare | None = None) -> int:
    """The most descriptors that one gateway process may need; by default the process with the largest share."""
    share = share or WorkerShare(0, settings.server.workers)
    return share.part(settings.server.max_connections) + _others(settings, share)


def connections(settings: Config, share: WorkerShare, limit: int) -> int:
    """The most connections that a process may accept, so that `limit` descriptors suffice for its callouts as well."""
    wanted = share.part(settings.server.max_connections)
    if limit == resource.RLIM_INFINITY:
        return wanted
    # Under a limit that is too low for that anyway, callouts have most of it, and some get a 503.
    return min(wanted, max(limit // 4, limit - _others(settings, share)))


def raise_limit(needed: int) -> int:
    """Raise our soft limit of descriptors to what is needed, if the hard one allows it; the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def _others(settings: Config, share: WorkerShare) -> int:
    """Descriptors apart from connections: the process's own, those of callouts, and those of pool workers."""
    limits, served = settings.callouts, list(routes.routes(routes.build(settings)))
    pooled = {route.handler for route in served if route.runner == "pool"}
    pooled |= {script for route in served for script in route.decisions if route.decision_runner == "pool"}
    waiting = share != ALONE and any(route.serialize for route in served)
    return (
        OWN
        + PAGE * (settings.page.listen is not None)
        + CALLOUT * share.part(limits.max_running)
        + 2 * share.part(limits.max_waiting) * waiting
        + 2 * share.part(limits.pool_size) * len(pooled)
    )
