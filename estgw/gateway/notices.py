"""What the log and the metrics say of the configuration in use, at the start and on each reload."""

from __future__ import annotations

from pathlib import Path

from estgw.config import routes
from estgw.config.model import Config
from estgw.gateway import advice, openness
from estgw.gateway.labels import Snapshot
from estgw.gateway.reload import needs_restart
from estgw.gateway.validity import Watch
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import LABELS_OUT_OF_SERVICE


class Notices:
    """Said once for a gateway, by its only process or by the supervisor."""

    def __init__(self, config_file: Path, started: Config) -> None:
        """`started` is the configuration that the gateway was started with."""
        self._folder = config_file.absolute().parent
        self._started = started
        self._watch = Watch()

    def adopt(self, snapshot: Snapshot) -> None:
        """Say all there is to say of a configuration that is in use from now on; an event loop must run."""
        settings = snapshot.settings
        for label, service in routes.build(settings).items():
            if faults := snapshot.faults.get(label):
                log.error(
                    "label out of service",
                    label=label or "",
                    faults=faults,
                    text="its requests get a 503; mend the faults, then reload (SIGHUP)",
                )
            else:
                open_to = [row.sentence for row in openness.rows_of(service, settings, self._folder)]
                log.info("label", label=label or "", operations=open_to)
        meter.set(LABELS_OUT_OF_SERVICE, len(snapshot.faults))
        for sentence in advice.advice(settings):
            log.warning("advice", text=sentence)
        if changed := needs_restart(self._started, settings):
            log.warning("not changed by a reload", settings=changed, text="restart the gateway for these")
        self._watch.adopt(settings)

    def close(self) -> None:
        """End watching dates."""
        self._watch.close()
