"""Devices that enrol behind a load balancer until they have a certificate, and repeat a request that got no answer."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from estgw.est.certs import serial_hex
from tests.kit.connection import Connection
from tests.kit.csr import csr
from tests.kit.gateway import LOGIN
from tests.kit.haproxy import HAProxy
from tests.kit.processes import until

PAUSE = 0.1
"""Seconds before a repeat; a device would wait for Retry-After."""
_numbers = itertools.count(1)


@dataclass
class Fleet:
    """What the devices have seen."""

    front: HAProxy
    path: str
    held: dict[str, str] = field(default_factory=dict)
    """The serial number that each device holds, by its name."""
    answers: Counter[int] = field(default_factory=Counter)
    """How often each status came; 0 is a connection that ended without an answer."""
    arrivals: list[float] = field(default_factory=list)
    """When certificates came, by time.monotonic()."""

    @property
    def gap(self) -> float:
        """The longest time without a certificate for any device, in seconds."""
        return max(later - before for before, later in itertools.pairwise(self.arrivals))

    def wait(self, count: int) -> None:
        """Wait for that many more certificates."""
        wanted = len(self.arrivals) + count
        until(lambda: len(self.arrivals) >= wanted)

    def enrol(self) -> None:
        """Be one device: the same request until it is answered with a certificate."""
        name = f"device-{next(_numbers)}"
        request = csr(name)
        while True:
            try:
                with Connection(self.front) as connection:
                    answer = connection.ask("POST", self.path, request, login=LOGIN)
            except (OSError, AssertionError) as fault:
                if isinstance(fault, AssertionError) and "the connection ended" not in str(fault):
                    raise
                self.answers[0] += 1
            else:
                self.answers[answer.status] += 1
                if answer.status == 200:
                    self.held[name] = serial_hex(answer.certificate)
                    self.arrivals.append(time.monotonic())
                    return
                assert answer.status == 503, answer
            time.sleep(PAUSE)


@contextlib.contextmanager
def busy(fleet: Fleet, count: int) -> Iterator[None]:
    """Keep `count` devices enrolling; when the block ends, each gets its last certificate."""
    end, faults = threading.Event(), list[BaseException]()

    def work() -> None:
        try:
            while not end.is_set():
                fleet.enrol()
        except BaseException as fault:  # noqa: BLE001 - the test reports it
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert not faults, faults
