"""`estgw csrattrs`: CSR attributes from YAML to base64, and back."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from estgw.cli import arguments as shared
from estgw.commandline.table import Command, Option
from estgw.config import csrattrs_yaml
from estgw.est import encoding
from estgw.est.csrattrs import CsrAttrs, decode_csrattrs


def explain(arguments: Namespace) -> int:
    """Print CSR attributes as YAML."""
    attrs = decode_csrattrs(encoding.decode(shared.content(arguments.file), ()))
    sys.stdout.write(csrattrs_yaml.write(attrs))
    return 0


def encode(arguments: Namespace) -> int:
    """Print the base64 of CSR attributes in YAML, as the gateway would send it."""
    attrs = csrattrs_yaml.read(shared.content(arguments.file), arguments.file) or CsrAttrs()
    sys.stdout.write(encoding.encode_base64(attrs.encode()).decode())
    return 0


COMMANDS = (
    Command(
        name="csrattrs",
        summary="Convert CSR attributes from YAML to base64, and from base64 or DER to YAML.",
        run=None,
        example="csrattrs explain answer.b64",
    ),
    Command(
        name="csrattrs explain",
        summary="Print CSR attributes as YAML.",
        run=explain,
        options=[Option("file", "base64, DER or PEM; - is standard input", "FILE", type=Path)],
        example="csrattrs explain answer.b64",
    ),
    Command(
        name="csrattrs encode",
        summary="Print the base64 of csrattrs.yaml, as the gateway sends it.",
        run=encode,
        options=[Option("file", "YAML; - is standard input", "FILE", type=Path)],
        example="csrattrs encode handlers/openssl/csrattrs.yaml",
    ),
)
