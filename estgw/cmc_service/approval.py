"""Requests that wait for a person, in the CA's register.  `estgw pending` shows and decides them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Self

from cryptography import x509

from estgw.cmc.status import CMCFailInfo
from estgw.cmc_service.answer import Refused
from estgw.cmc_service.ca import CA
from estgw.cmc_service.state import BOUNDS, State
from estgw.est import certs
from estgw.register import requests, takeover
from estgw.register.engine import Engine
from estgw.register.requests import RequestError, Requests, Room

ROOM = Room(BOUNDS["pending"].each, 1000, timedelta(days=30))


class Verdict(contextlib.ExitStack):
    """Whether a certificate may be issued.  As a context manager it spans the issuing.

    For an approved request that is the transaction that enters the certificate and closes the request, alone.
    """

    def __init__(
        self,
        approved: tuple[Engine, str] | None = None,
        *,
        waits: bool = False,
        certificate: x509.Certificate | None = None,
    ) -> None:
        super().__init__()
        self._approved, self.waits, self.certificate = approved, waits, certificate

    def __enter__(self) -> Self:
        if self._approved is not None:
            register, pending_id = self._approved
            # An approval is rare, so others may wait for its signature.
            self.enter_context(register.exclusive(f"request {pending_id}"))
        return self

    def issued(self, certificate: x509.Certificate) -> None:
        """The certificate is in the register.  Repeats of the request get the same.

        Raises `Refused`, which undoes it, if another process was faster or a person has refused meanwhile.
        """
        if self._approved is not None:
            register, pending_id = self._approved
            if not Requests(register).close(pending_id, certs.serial_hex(certificate)):
                raise Refused(CMCFailInfo.TRY_LATER, "it was issued or refused at this moment")


def verdict(ca: CA, env: Mapping[str, str], state: State, owner: str) -> Verdict:
    """What a person has decided about the request that `env` describes; a new request begins to wait.

    Raises `Refused` for a no or where too many requests wait, and `Full` where too many of this `owner` do, as all
    clients share the room.
    """
    known, pending_id = Requests(state.register), env["EST_PENDING_ID"]
    takeover.take_over_request(ca.directory / "pending", pending_id, state.register)
    request = known.find(pending_id)
    if request is None:
        state.require_room("pending", owner)
        made = requests.new(env, Path(env["EST_CSR_FILE"]).read_text())
        try:
            known.put(made, owner, replace(ROOM, each=BOUNDS["pending"].each))
        except RequestError as full:
            raise Refused(CMCFailInfo.TRY_LATER, str(full)) from None
        return Verdict(waits=True)
    match request.state:
        case "refused":
            raise Refused(CMCFailInfo.BAD_REQUEST, request.reason or "refused")
        case "issued" if request.can_be_given:
            return Verdict(certificate=request.certificate)
        case "issued":
            known.wait_again(pending_id)
            return Verdict(waits=True)
        case "waiting":
            known.touch(pending_id)
            return Verdict(waits=True)
    return Verdict((state.register, pending_id))
