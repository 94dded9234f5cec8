"""What all requests without a client share: scripts on a copy of the CA, and nothing usable is shown."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from estgw.callout import cgi, shortage
from estgw.callout.call import Call, HTTPFacts
from estgw.callout.process import CouldNotStart, Outcome
from estgw.errors import Malformed, Unavailable, spread
from estgw.est import certs, zeroing
from estgw.est.operations import Body
from estgw.gateway.pipeline import Pipeline
from estgw.gateway.request import Found
from estgw.gateway.state import State
from estgw.logs import stderr_lines


class Offline(Pipeline):
    """A request whose facts come from elsewhere than a connection."""

    def __init__(self, gateway: State, directory: Path, copy: Path | None) -> None:
        """`directory` is what the scripts share (0700).

        With a `copy` of the CA's directory the scripts work on that, and the signature of each certificate that they
        print is zeroed.
        """
        super().__init__(gateway)
        self.directory = directory
        self.copy = copy
        self.stderr: list[str] = []
        """What the scripts have said."""
        self.made: list[x509.Certificate] = []
        """The certificates in the answer that were not in the CA's own files before."""

    def find_route(self, http: HTTPFacts) -> Found:
        """The route; its CA is the copy, if there is one, and its register is in there, too."""
        found = super().find_route(http)
        if self.copy is None:
            return found
        return replace(found, route=replace(found.route, ca_dir=self.copy, register=None))

    async def decide(self, call: Call) -> None:
        """Ask a decision script."""
        self.state.caller.judge_decision(call, await self.run(call))

    async def handle(self, call: Call) -> cgi.Output:
        """Run the handler; an answer that is kept is not asked for."""
        known = known_certificates(call.route.ca_dir)
        output = self.state.caller.judge_handler(call, await self.run(call))
        if call.route.operation.body in OF_THE_CA:
            return output
        found = zeroing.certificates(output.body)
        self.made = [each for each in found if each.public_bytes(Encoding.DER) not in known]
        return output if self.copy is None else replace(output, body=zeroing.without_signatures(output.body, known))

    async def run(self, call: Call) -> Outcome:
        """Run one script to its end."""
        try:
            outcome = await self.state.caller.run(call)
        except CouldNotStart as fault:
            patience = spread(self.state.config.callouts.retry_after)
            raise Unavailable(shortage.PUBLIC, retry_after=patience, log=shortage.words(fault) or "") from None
        self.stderr += stderr_lines(outcome.stderr, truncated=outcome.stderr_truncated)
        return outcome


OF_THE_CA = (Body.CA_CERTS, Body.CSRATTRS)
"""Answers without an issued certificate."""


def known_certificates(ca_dir: Path) -> set[bytes]:
    """The DER of the certificates that lie in the CA's directory itself: its own, and those of its server."""
    found = set()
    for path in itertools.islice(sorted(ca_dir.glob("*.pem")), _MOST_FILES):
        with contextlib.suppress(OSError, Malformed):
            if path.is_file():
                with path.open("rb") as file:
                    found |= {each.public_bytes(Encoding.DER) for each in certs.load_pem(file.read(_MOST_BYTES))}
    return found


_MOST_FILES, _MOST_BYTES = 100, 1 << 20
