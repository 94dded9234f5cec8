"""The keys of a record, as a table: `docs/records.md` is compared with it, and so are the records of the tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

KEYS: tuple[tuple[str, str], ...] = (
    ("format", "1; a reader ignores keys that it does not know, and refuses other formats"),
    ("id", "the request id of the log, 10 hex digits; failed handshakes and replays have one of their own"),
    ("at", "when the request began: UTC, ISO 8601, milliseconds"),
    ("kind", "`request`, `handshake` (one that failed) or `replay`"),
    ("of", "replay only: the id of the record that it repeats"),
    ("label", "the CA label, or null"),
    ("operation", "its name, or null for a path without one"),
    ("profile", "`rfc` or `draft`; null if the path was refused"),
    ("connection.number", "of all connections of this process, from 1; 0: refused before TLS began"),
    ("connection.request", "of the requests on it, from 1; 0: the handshake failed"),
    ("connection.peer", "the client's IP address"),
    ("connection.port", "its port"),
    ("connection.at", "when the connection began"),
    ("tls", "empty for a failed handshake"),
    ("tls.version", "`TLSv1.2` or `TLSv1.3`"),
    ("tls.cipher", "the cipher suite"),
    ("tls.server_name", "the host name that the client asked for (SNI), or null"),
    ("tls.handshake_ms", "milliseconds of the handshake, or null"),
    ("tls.certificate", "the client's certificate, PEM, or null"),
    ("tls.chain", "the other certificates that it sent, PEM"),
    ("tls.subject", "the subject of its certificate, or null"),
    ("tls.verify", "`SUCCESS`, `NONE` or `FAILED:reason`"),
    ("tls.trust", "`explicit`, `implicit` or `none`"),
    ("tls.is_ra", "whether it is an RA's"),
    ("tls.bindings", "all channel bindings of the connection by type, base64"),
    ("binding", "null for a failed handshake"),
    ("binding.type", "`tls-unique`, `tls-exporter` or `tls13-finished`: the one that counts here; or null"),
    ("binding.expected", "its value, base64, or null"),
    ("binding.found", "the text in the CSR, or null; removed if it may be a password"),
    ("binding.attribute", "the attribute of the CSR that has it, or null"),
    ("binding.required", "whether this client must link the CSR to the connection"),
    ("binding.result", "`linked`, `absent`, `waived` or `refused`; null if it was not asked"),
    ("auth", "null for a failed handshake"),
    ("auth.requires", "what the operation requires; null if the path was refused"),
    ("auth.scheme", "of the Authorization header: `Basic`, `Digest` or another known word; or null"),
    ("auth.user", "the user name, verified or claimed, or null"),
    ("auth.verified", "true, false (refused), or null: nothing was verified"),
    ("auth.digest", "with Digest only: its public parameters, without the response"),
    ("auth.challenges", "the challenges of a 401"),
    ("auth.methods", "`tls`, `http`, `tls+http` or empty: how the client is authenticated"),
    ("request", "null for a failed handshake and for what is not HTTP"),
    ("request.line", "the request line"),
    ("request.headers", "pairs of name and value, in the order they came"),
    ("request.body", "base64, or null"),
    ("request.length", "bytes of the body"),
    ("request.cut", "whether the body is cut off here, after 256 KiB"),
    ("request.ms", "milliseconds until all of it had arrived"),
    ("request.csr", "null without a CSR that can be read"),
    ("request.csr.subject", "the subject it asks for"),
    ("request.csr.names", "the alternative names it asks for, such as `DNS:host.example`"),
    ("request.csr.key", "the kind of key, such as `EC P-256`"),
    ("request.csr.signature", "the signature algorithm"),
    ("request.csr.sha256", "of its DER, in hex"),
    ("request.csr.pem", "the CSR"),
    ("response", "null if no answer was sent"),
    ("response.status", "the HTTP status"),
    ("response.reason", "its words"),
    ("response.headers", "pairs of name and value"),
    ("response.body", "base64, or null"),
    ("response.length", "bytes of the body"),
    ("response.cut", "whether it is cut off here, after 256 KiB"),
    ("gates", "the eight gates of the README, in their order"),
    ("gates[].name", "`TLS`, `path`, `password`, `requires`, `CSR`, `linking`, `authorize`, `handler`"),
    ("gates[].result", "`pass`, `refuse`, or `skip`: not reached, or nothing to decide"),
    ("gates[].reason", "why it refused, or empty"),
    ("gates[].ms", "milliseconds"),
    ("callouts", "the scripts that ran, in their order"),
    ("callouts[].kind", "`authenticate`, `authorize` or `handler`"),
    ("callouts[].script", "its path, from the folder of conf.yaml if it lies there"),
    ("callouts[].sha256", "of the script as it ran, in hex; null if it was changed at that moment"),
    ("callouts[].runner", "`exec`, `fork` or `pool`"),
    ("callouts[].environment", "its variables"),
    ("callouts[].exit", "the exit status, or null"),
    ("callouts[].signal", "the signal that ended it, or null"),
    ("callouts[].timed_out", "whether it was killed for taking too long"),
    ("callouts[].flooded", "whether it was killed for printing too much"),
    ("callouts[].stdout", "what it printed, as text"),
    ("callouts[].stdout_length", "bytes of that"),
    ("callouts[].stdout_cut", "whether it is cut off here, after 256 KiB"),
    ("callouts[].stderr", "what it said, or why it could not start"),
    ("callouts[].waited_ms", "milliseconds until a slot was free"),
    ("callouts[].ran_ms", "milliseconds from there to its end"),
    ("callouts[].cached", "whether a kept answer took its place (`X-EST-Cache`)"),
    ("outcome.status", "the HTTP status, or null: no answer was sent"),
    ("outcome.gate", "the gate that refused, or null"),
    ("outcome.reason", "why, in the words of the log, or empty"),
    ("outcome.hint", "what to do next, or null"),
    ("issued", "null if the answer has no certificate for the client"),
    ("issued.serial", "in hex"),
    ("issued.subject", "the subject"),
    ("issued.names", "the alternative names"),
    ("issued.not_after", "the end of its validity"),
    ("issued.pem", "the certificate"),
    ("ms", "milliseconds from the request's beginning to the answer"),
)

FREE = ("tls.bindings", "auth.digest", "callouts[].environment")
"""Mappings whose own keys are not listed."""


def markdown() -> str:
    """The table for `docs/records.md`."""
    rows = "".join(f"| `{key}` | {holds} |\n" for key, holds in KEYS)
    return f"| key | holds |\n| --- | --- |\n{rows}"


_MARKED = re.compile(r"(?<=<!-- keys -->\n).*?(?=<!-- end -->)", re.DOTALL)


def fill(page: str) -> str:
    """Replace what stands between the markers `<!-- keys -->` and `<!-- end -->`."""
    return _MARKED.sub(lambda _: markdown(), page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(fill(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
