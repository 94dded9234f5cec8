"""Clients of a gateway under fire: every issuing operation of both handler sets, over real TLS."""

from __future__ import annotations

import base64
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from estgw.cli import pending
from estgw.cmc.messages import PKIData
from estgw.cmc.requests import PKCS10Request
from estgw.cmc.status import CMCStatus
from estgw.cms import signed
from estgw.register.requests import RequestError
from tests.campaign.ledger import Ledger
from tests.cmc_service import office as cmc
from tests.e2e.test_fullcmc import TYPE, statuses
from tests.e2e.test_serverkeygen import parts
from tests.kit.connection import Response
from tests.kit.csr import csr
from tests.kit.gateway import Gateway
from tests.kit.processes import until

WAITING = "waiting"
CONFIGURATION = {
    "callouts": {"max_running": 4, "operations": {"serverkeygen": {"enabled": True}}},
    "labels": {WAITING: {"operations": {"simpleenroll": {"handler": "handlers/examples/manual-approval"}}}},
}
"""Settings that a campaign's gateway needs in addition."""

_numbers = itertools.count(1)


@dataclass
class Clients:
    """Clients with one ledger, which gets each certificate that one of them receives."""

    ledger: Ledger
    device: tuple[Path, Path]
    """Certificate and key of CN=device-1, to be renewed."""

    def __post_init__(self) -> None:
        self.statuses: list[int] = []
        """The statuses of all answers, in their order."""

    @property
    def operations(self) -> dict[str, Callable[[Gateway], bool]]:
        """A client's operations. Each returns whether it got a certificate; a closed connection raises OSError."""
        sets = {"openssl": "", "python": "python/"}
        found: dict[str, Callable[[Gateway], bool]] = {}
        for name, label in sets.items():
            for operation in (self._enroll, self._reenroll, self._keygen, self._fullcmc):
                found[f"{name} {operation.__name__.strip('_')}"] = self._bound(operation, label)
        found["pending"] = self._pending
        return found

    @staticmethod
    def _bound(operation: Callable[[Gateway, str], bool], label: str) -> Callable[[Gateway], bool]:
        return lambda gateway: operation(gateway, label)

    def wait(self, count: int) -> None:
        """Wait until `count` more answers have come."""
        before = len(self.statuses)
        until(lambda: len(self.statuses) >= before + count)

    def _given(self, answer: Response, certificate: Callable[[], x509.Certificate], request: object = None) -> bool:
        self.statuses.append(answer.status)
        if answer.status == 200:
            self.ledger.hold(certificate(), request)
        return answer.status == 200

    def _enroll(self, gateway: Gateway, label: str) -> bool:
        answer = gateway.post(f"{label}simpleenroll", csr(f"client-{next(_numbers)}"))
        return self._given(answer, lambda: answer.certificate)

    def _reenroll(self, gateway: Gateway, label: str) -> bool:
        """The same request each time: the Python set answers it with the same certificate for a while."""
        request = csr()
        answer = gateway.post(f"{label}simplereenroll", request, login=None, certificate=self.device)
        again = x509.load_der_x509_csr(request).tbs_certrequest_bytes if label else None
        return self._given(answer, lambda: answer.certificate, again)

    def _keygen(self, gateway: Gateway, label: str) -> bool:
        answer = gateway.post(f"{label}serverkeygen", csr(f"client-{next(_numbers)}"))
        return self._given(answer, lambda: parts(answer)[2])

    def _fullcmc(self, gateway: Gateway, label: str) -> bool:
        key = cmc.new_key()
        asked = PKCS10Request(17, csr(f"client-{next(_numbers)}", key=key))
        body = base64.encodebytes(cmc.message(PKIData(tuple(cmc.fresh()), (asked,)), cmc.Person(key)))
        answer = gateway.post(f"{label}fullcmc", body, headers={"Content-Type": TYPE})

        def certificate() -> x509.Certificate:
            assert [each.status for each in statuses(answer)] == [CMCStatus.SUCCESS]
            bag = signed.parse(answer.der).bag
            return next(each for each in bag if each.public_key() == key.public_key())

        return self._given(answer, certificate)

    def _pending(self, gateway: Gateway) -> bool:
        """A request waits, all pending requests are approved, and the client comes back once."""
        request = csr(f"client-{next(_numbers)}")
        answer = gateway.post(f"{WAITING}/simpleenroll", request)
        self.statuses.append(answer.status)
        if answer.status != 202:
            return False
        folders = [gateway.lab.ca / "pending"]
        for entry in pending.requests(folders):
            with contextlib.suppress(RequestError, OSError):
                pending.approve(folders, entry.id)
        answer = gateway.post(f"{WAITING}/simpleenroll", request)
        return self._given(answer, lambda: answer.certificate)


@contextlib.contextmanager
def busy(clients: Clients, gateway: Gateway, count: int) -> Iterator[None]:
    """Keep `count` clients at work, each with all operations in turn, until the block ends."""
    end, faults = threading.Event(), list[BaseException]()

    def work(number: int) -> None:
        operations = list(clients.operations.values())
        for operation in itertools.islice(itertools.cycle(operations), number * 2, None):
            if end.is_set():
                return
            try:
                operation(gateway)
            except OSError:
                end.wait(0.05)  # the gateway is not running, or was killed
            except AssertionError as fault:
                if "the connection ended" not in str(fault):
                    faults.append(fault)
                    return

    threads = [threading.Thread(target=work, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert not faults, faults
