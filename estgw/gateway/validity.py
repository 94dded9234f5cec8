"""Dates: when the certificates and CRLs that the gateway depends on begin and end to be valid, and what to do then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

from cryptography import x509

from estgw.config import routes
from estgw.config.model import Config
from estgw.est import certs, names
from estgw.est.printable import printable
from estgw.logs import log
from estgw.metrics.meter import meter
from estgw.metrics.table import VALID_FROM, VALID_UNTIL

SOON = timedelta(days=30)
"""A certificate that ends within this time is warned of."""
LAST_PART = 4
"""A CRL is warned of in the last quarter of its life, as its life may be a week or a year."""
DAY = 86400.0
"""Seconds between two warnings of the same date."""
LONGEST_NAME = 100
"""Characters of a name in a sentence and in a label of the metrics."""
MOST = 500
"""Certificates and CRLs that are looked at, so that a large file of anchors does not make a large /metrics."""
CA_FILES = ("issuer.pem", "cacert.pem", "chain.pem")
"""What signs, the root, and the rest of what /cacerts hands out, in a directory that openssl-ca/create-ca has made."""


class Kind(Enum):
    """What a date is of: the value is the label in the metrics."""

    SERVER = "server"
    SERVER_CHAIN = "server-chain"
    EXPLICIT = "explicit-anchor"
    IMPLICIT = "implicit-anchor"
    ISSUER = "issuing-ca"
    CRL = "crl"


@dataclass(frozen=True)
class _Words:
    what: str
    effect: str
    """What is the case as long as it is not valid."""
    remedy: str


_WORDS = {
    Kind.SERVER: _Words("server certificate", "clients refuse the gateway", "replace it, and reload"),
    Kind.SERVER_CHAIN: _Words("chain certificate", "clients may refuse the gateway", "replace it, and reload"),
    Kind.EXPLICIT: _Words(
        "explicit anchor",
        "client certificates below it are refused",
        "openssl-ca/rollover makes the next one; then reload",
    ),
    Kind.IMPLICIT: _Words(
        "implicit anchor",
        "client certificates below it are refused",
        "replace it, or take it out of client_auth.implicit, and reload",
    ),
    Kind.ISSUER: _Words("issuing CA", "nobody accepts what it has issued", "openssl-ca/rollover makes the next one"),
    Kind.CRL: _Words(
        "CRL of", "every client certificate of this CA is refused", "make a new one (openssl-ca/crl), and reload"
    ),
}


@dataclass(frozen=True)
class Period:
    """When one certificate or CRL is valid."""

    kind: Kind
    name: str
    file: Path
    begins: datetime
    ends: datetime | None
    """None for a CRL without nextUpdate."""

    @property
    def warned_from(self) -> datetime | None:
        """When its end is near."""
        if self.ends is None:
            return None
        return self.ends - ((self.ends - self.begins) / LAST_PART if self.kind is Kind.CRL else SOON)

    @property
    def moments(self) -> Iterator[datetime]:
        """When its sentence changes."""
        yield from (moment for moment in (self.begins, self.warned_from, self.ends) if moment is not None)

    def sentence(self, now: datetime) -> str | None:
        """What there is to say of it: it is over, not yet valid, or near its end; None when all is well."""
        words = _WORDS[self.kind]
        subject = f"the {words.what} {self.name} ({self.file})"
        if self.ends is not None and now > self.ends:
            return f"{subject} is over since {_text(self.ends)}: {words.effect}; {words.remedy}"
        if now < self.begins:
            return f"{subject} is not valid before {_text(self.begins)}: until then {words.effect}; is the clock right?"
        if self.ends is not None and self.warned_from is not None and now >= self.warned_from:
            left = _left(self.ends - now)
            return f"{subject} ends at {_text(self.ends)}, in {left}: then {words.effect}; {words.remedy}"
        return None


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _left(span: timedelta) -> str:
    """A rounded span; the end of a sentence."""
    hours = int(span.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours"


def periods(settings: Config) -> list[Period]:
    """All that the gateway depends on."""
    return [*loaded(settings), *issuing(settings)][:MOST]


def sentences(settings: Config) -> list[str]:
    """What there is to say now of all of them."""
    now = datetime.now(UTC)
    return [sentence for period in periods(settings) if (sentence := period.sentence(now))]


def loaded(settings: Config) -> list[Period]:
    """What a gateway reads at its start and on reload: a newer file counts for nothing until then."""
    known = settings.client_auth
    own = _of_certificates(Kind.SERVER, settings.tls.certificate)
    return [
        *own[:1],
        *_of_certificates(Kind.SERVER_CHAIN, settings.tls.certificate)[1:],
        *(period for path in known.explicit for period in _of_certificates(Kind.EXPLICIT, path)),
        *(period for path in known.implicit for period in _of_certificates(Kind.IMPLICIT, path)),
        *(period for path in known.crls for period in _of_crls(path)),
    ]


def issuing(settings: Config) -> list[Period]:
    """The certificates of the CAs behind the scripts, which read them for each request."""
    folders = sorted({route.ca_dir for route in routes.routes(routes.build(settings))})
    found = [
        period for folder in folders for name in CA_FILES for period in _of_certificates(Kind.ISSUER, folder / name)
    ]
    # The root of a CA without a sub-CA is in two files.
    return list({(period.name, period.begins, period.ends): period for period in reversed(found)}.values())[::-1]


def _of_certificates(kind: Kind, path: Path) -> list[Period]:
    """Those of a file; none of one that can't be read, as that is a fault elsewhere or another layout of a CA."""
    try:
        return [
            Period(kind, _name(each.subject, path), path, each.not_valid_before_utc, each.not_valid_after_utc)
            for each in certs.load_pem(path.read_bytes())
        ]
    except (OSError, *certs.UNREADABLE):
        return []


def _of_crls(path: Path) -> list[Period]:
    try:
        return [
            Period(Kind.CRL, _name(each.issuer, path), path, each.last_update_utc, each.next_update_utc)
            for each in certs.load_crls_pem(path.read_bytes())
        ]
    except (OSError, *certs.UNREADABLE):
        return []


def _name(name: x509.Name, path: Path) -> str:
    return printable(names.dn_text(name), LONGEST_NAME) or path.name


def expose(found: Iterable[Period]) -> None:
    """Show the dates in the metrics; of several under one name, that which is valid for the shortest time."""
    begins: dict[tuple[str, str], datetime] = {}
    ends: dict[tuple[str, str], datetime] = {}
    for period in found:
        key = (period.kind.value, period.name)
        begins[key] = max(begins.get(key, period.begins), period.begins)
        if period.ends is not None:
            ends[key] = min(ends.get(key, period.ends), period.ends)
    for metric, moments in ((VALID_FROM, begins), (VALID_UNTIL, ends)):
        meter.clear(metric)
        for key, moment in moments.items():
            meter.set(metric, moment.timestamp(), *key)


class Watch:
    """Warns in the log and sets the gauges: at the start, on reload, once a day, and when a date is reached."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._loaded: list[Period] = []

    def adopt(self, settings: Config) -> None:
        """Watch what this configuration names; an event loop must run."""
        self._loaded = loaded(settings)
        self._look(settings)

    def close(self) -> None:
        """End watching."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, settings: Config) -> None:
        self.close()
        found, now = [*self._loaded, *issuing(settings)][:MOST], datetime.now(UTC)
        expose(found)
        for period in found:
            if sentence := period.sentence(now):
                log.warning("date", text=sentence, kind=period.kind.value, name=period.name)
        self._timer = asyncio.get_running_loop().call_later(_pause(found), self._look, settings)


def _pause(found: Iterable[Period]) -> float:
    """Seconds until a sentence changes, at most a day."""
    now = time.time()
    changes = (moment.timestamp() + 1 - now for period in found for moment in period.moments)
    return min((DAY, *(seconds for seconds in changes if seconds > 0)))
