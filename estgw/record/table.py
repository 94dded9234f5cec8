"""The keys of a record, as a table: `docs/records.md` is compared with it, and so are the records of the tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

KEYS: tuple[tuple[str, str, str], ...] = (
    ("format", "whole", "1; a reader ignores keys that it does not know, and refuses other formats"),
    ("id", "text", "the request id of the log, 10 hex digits; failed handshakes and replays have one of their own"),
    ("at", "time", "when the request began: UTC, ISO 8601, milliseconds"),
    ("kind", "text", "`request`, `handshake` (one that failed) or `replay`"),
    ("of", "text?", "replay only: the id of the record that it repeats"),
    ("label", "text?", "the CA label"),
    ("operation", "text?", "its name; null for a path without one"),
    ("profile", "text?", "`rfc` or `draft`; null if the path was refused"),
    ("connection", "object", "the client's connection"),
    ("connection.number", "whole", "of all connections of this process, from 1; 0: refused before TLS began"),
    ("connection.request", "whole", "of the requests on it, from 1; 0: the handshake failed"),
    ("connection.peer", "text", "the client's IP address"),
    ("connection.port", "whole", "its port"),
    ("connection.at", "time", "when the connection began"),
    ("tls", "object", "empty for a failed handshake"),
    ("tls.version", "text", "`TLSv1.2` or `TLSv1.3`"),
    ("tls.cipher", "text", "the cipher suite"),
    ("tls.server_name", "text?", "the host name that the client asked for (SNI)"),
    ("tls.handshake_ms", "number?", "milliseconds of the handshake"),
    ("tls.certificate", "text?", "the client's certificate, PEM"),
    ("tls.chain", "texts", "the other certificates that it sent, PEM"),
    ("tls.subject", "text?", "the subject of its certificate"),
    ("tls.verify", "text", "`SUCCESS`, `NONE` or `FAILED:reason`"),
    ("tls.trust", "text", "`explicit`, `implicit` or `none`"),
    ("tls.is_ra", "flag", "whether it is an RA's"),
    ("tls.bindings", "texts by name", "all channel bindings of the connection by type, base64"),
    ("binding", "object?", "null for a failed handshake"),
    ("binding.type", "text?", "`tls-unique`, `tls-exporter` or `tls13-finished`: the one that counts here"),
    ("binding.expected", "text?", "its value in base64"),
    ("binding.found", "text?", "the text in the CSR; removed if it may be a password"),
    ("binding.attribute", "text?", "the attribute of the CSR that has it"),
    ("binding.required", "flag", "whether this client must link the CSR to the connection"),
    ("binding.result", "text?", "`linked`, `absent`, `waived` or `refused`; null if it was not asked"),
    ("auth", "object?", "null for a failed handshake"),
    ("auth.requires", "text?", "what the operation requires; null if the path was refused"),
    ("auth.scheme", "text?", "of the Authorization header: `Basic`, `Digest` or another known word"),
    ("auth.user", "text?", "the user name, verified or claimed"),
    ("auth.verified", "flag?", "true, false (refused), or null: nothing was verified"),
    ("auth.digest", "texts by name?", "with Digest only: its public parameters, without the response"),
    ("auth.challenges", "texts", "the challenges of a 401"),
    ("auth.methods", "text", "`tls`, `http`, `tls+http` or empty: how the client is authenticated"),
    ("request", "object?", "null for a failed handshake and for what is not HTTP"),
    ("request.line", "text", "the request line"),
    ("request.headers", "pairs", "pairs of name and value, in the order they came"),
    ("request.body", "base64?", "all of it, or its beginning; removed if it holds a secret"),
    ("request.length", "whole", "bytes of the body"),
    ("request.cut", "flag", "whether the body is cut off here, after 256 KiB"),
    ("request.ms", "number?", "milliseconds until all of it had arrived"),
    ("request.csr", "object?", "null without a CSR that can be read"),
    ("request.csr.subject", "text", "the subject it asks for"),
    ("request.csr.names", "texts", "the alternative names it asks for, such as `DNS:host.example`"),
    ("request.csr.key", "text", "the kind of key, such as `EC P-256`"),
    ("request.csr.signature", "text", "the signature algorithm"),
    ("request.csr.sha256", "text", "of its DER, in hex"),
    ("request.csr.pem", "text", "the CSR"),
    ("response", "object?", "null if no answer was sent"),
    ("response.status", "whole", "the HTTP status"),
    ("response.reason", "text", "its words"),
    ("response.headers", "pairs", "pairs of name and value"),
    ("response.body", "base64?", "all of it, or its beginning"),
    ("response.length", "whole", "bytes of the body"),
    ("response.cut", "flag", "whether it is cut off here, after 256 KiB"),
    ("gates", "objects", "the eight gates of the README, in their order"),
    ("gates[].name", "text", "`TLS`, `path`, `password`, `requires`, `CSR`, `linking`, `authorize`, `handler`"),
    ("gates[].result", "text", "`pass`, `refuse`, or `skip`: not reached, or nothing to decide"),
    ("gates[].reason", "text", "why it refused, or empty"),
    ("gates[].ms", "number", "milliseconds"),
    ("callouts", "objects", "the scripts that ran, in their order"),
    ("callouts[].kind", "text", "`authenticate`, `authorize` or `handler`"),
    ("callouts[].script", "text", "its path, from the folder of conf.yaml if it lies there"),
    ("callouts[].sha256", "text?", "of the script as it ran, in hex; null if it was changed at that moment"),
    ("callouts[].runner", "text", "`exec`, `fork` or `pool`"),
    ("callouts[].environment", "texts by name", "its variables"),
    ("callouts[].exit", "whole?", "the exit status"),
    ("callouts[].signal", "whole?", "the signal that ended it"),
    ("callouts[].timed_out", "flag", "whether it was killed for taking too long"),
    ("callouts[].flooded", "flag", "whether it was killed for printing too much"),
    ("callouts[].stdout", "text", "what it printed, as text"),
    ("callouts[].stdout_length", "whole", "bytes of that"),
    ("callouts[].stdout_cut", "flag", "whether it is cut off here, after 256 KiB"),
    ("callouts[].stderr", "text", "what it said, or why it could not start"),
    ("callouts[].waited_ms", "number", "milliseconds until a slot was free"),
    ("callouts[].ran_ms", "number", "milliseconds from there to its end"),
    ("callouts[].cached", "flag", "whether a kept answer took its place (`X-EST-Cache`)"),
    ("outcome", "object", "the answer in short"),
    ("outcome.status", "whole?", "the HTTP status, or null: no answer was sent"),
    ("outcome.gate", "text?", "the gate that refused"),
    ("outcome.reason", "text", "why, in the words of the log, or empty"),
    ("outcome.hint", "text?", "what to do next"),
    ("issued", "object?", "null if the answer has no certificate for the client"),
    ("issued.serial", "text", "in hex"),
    ("issued.subject", "text", "the subject"),
    ("issued.names", "texts", "the alternative names"),
    ("issued.not_after", "time", "the end of its validity"),
    ("issued.pem", "text", "the certificate"),
    ("ms", "number", "milliseconds from the request's beginning to the answer"),
)
"""Key, kind, and what it holds.  A kind with a question mark may be null, or missing."""

_WORDS = {
    "whole": "whole number",
    "flag": "true or false",
    "pairs": "list of pairs of texts",
    "texts": "list of texts",
    "objects": "list of objects",
}
"""Kinds in words, where the name of the kind is not enough."""

FREE = ("tls.bindings", "auth.digest", "callouts[].environment")
"""Mappings whose own keys are not listed."""


def markdown() -> str:
    """The table for `docs/records.md`."""
    rows = "".join(f"| `{key}` | {words(kind)} | {holds} |\n" for key, kind, holds in KEYS)
    return f"| key | kind | holds |\n| --- | --- | --- |\n{rows}"


def words(kind: str) -> str:
    """A kind as a person reads it, such as `text or null`."""
    name = kind.removesuffix("?")
    return f"{_WORDS.get(name, name)}{' or null' if kind.endswith('?') else ''}"


_MARKED = re.compile(r"(?<=<!-- keys -->\n).*?(?=<!-- end -->)", re.DOTALL)


def fill(page: str) -> str:
    """Replace what stands between the markers `<!-- keys -->` and `<!-- end -->`."""
    return _MARKED.sub(lambda _: markdown(), page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        Path(name).write_text(fill(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
