"""What a person needs to point a client at the server."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from estgw.client.transport.trust import fingerprint
from estgw.quirks.material import USER
from estgw.quirks.server import QuirkServer
from estgw.quirks.table import listing


def text(server: QuirkServer, host: str, room: Path) -> str:
    """Addresses, login, quirks and ports; the CA's certificate is written to `ca.pem` in the directory `room`."""
    certificate = server.material.old.certificate
    anchor = room / "ca.pem"
    anchor.write_bytes(certificate.public_bytes(Encoding.PEM))
    ports = [f"  {port}  quirk-{name}" for name, port in server.ports.items()]
    ports += [f"  {port}  where the redirect of quirk-{name} leads" for name, port in server.aside.items()]
    base = f"https://{host}:{server.port}"
    lines = [
        f"estgw quirks ready {base}",
        f"CA      {anchor}  (SHA-256 {fingerprint(certificate)}; trust it nowhere else)",
        f"login   {USER}:{server.material.password}",
        f"scores  {base}/scores, and a page at {base}/",
        f"quirks  {base}/.well-known/est/quirk-NAME[.CLIENT]/simpleenroll",
        listing().rstrip(),
        "ports of faults of TLS",
        *sorted(ports),
    ]
    return "\n".join(lines)
