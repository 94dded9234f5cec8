"""Convert csrattrs.yaml to CSR attributes, and back.  `estgw.est.csrattrs_data` defines the language."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from estgw.config import marked_yaml
from estgw.errors import ConfigError, Malformed
from estgw.est import csrattrs_data
from estgw.est.csrattrs import CsrAttrs
from estgw.est.csrattrs_values import MOST_FAULTS, Unfit
from estgw.est.template_check import TemplateCheck

MOST_BYTES = 64 * 1024
"""The largest file, in bytes.  A complete template has a few hundred; this size parses in under a second."""
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\s]")
_PEM = re.compile(rb"^-----BEGIN ", re.MULTILINE)


def is_yaml(output: bytes) -> bool:
    """Whether the output is neither DER, base64 nor PEM.  A list of wishes never looks like one of these.

    DER begins with a SEQUENCE's tag 0x30, the digit 0, and base64 has no dashes.
    """
    return bool(_NOT_BASE64.search(output)) and not output.startswith(b"\x30") and not _PEM.search(output)


def to_der(output: bytes) -> bytes:
    """Return a handler's YAML as CsrAttrs in DER, or empty if it has no wish.  Other output is returned as it is.

    Raises `Malformed` with the faults, each as `stdout:line:column: fault`.
    """
    if not is_yaml(output):
        return output
    try:
        return _to_der(output)
    except ConfigError as refusal:
        faults = "; ".join(refusal.faults[:MOST_FAULTS])
        raise Malformed(f"printed neither DER, base64, PEM nor good csrattrs YAML: {faults}") from None


@functools.lru_cache(maxsize=64)
def _to_der(output: bytes) -> bytes:
    # Results are kept, since most handlers print the same text each time, and parsing YAML takes milliseconds.
    attrs = read(output, Path("stdout"))
    return b"" if attrs is None else attrs.encode()


def load_template_check(path: Path) -> TemplateCheck:
    """Return the check of a `csr_template` file.  Raises `ConfigError`."""
    return template_check(template_content(path), path)


def template_content(path: Path) -> bytes:
    """Return the content of a `csr_template` file, up to one byte more than is allowed.  Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as fault:
        raise ConfigError([f"{path}: {fault.strerror}"]) from None


def template_check(content: bytes, path: Path) -> TemplateCheck:
    """What this content insists on, as if it stood in `path`; raises `ConfigError`."""
    wanted = read(content, path, alternatives=True)
    if wanted is None:
        raise ConfigError([f"{path}:1:1: there is nothing in it to insist on"])
    try:
        return TemplateCheck.of(wanted)
    except Malformed as fault:
        raise ConfigError([f"{path}:1:1: nothing can be compared with this: {fault}"]) from None


load_insistence = load_template_check  # the name in workspaces of earlier versions, as in estgw/__init__.py


def read(content: bytes, path: Path, *, alternatives: bool = False) -> CsrAttrs | None:
    """Return CSR attributes from YAML in UTF-8, or None if all of it is comments.

    Raises `ConfigError` with lines that name `path` as the file.
    """
    if len(content) > MOST_BYTES:
        raise ConfigError([f"{path}:1:1: longer than {MOST_BYTES} bytes"])
    try:
        marked = marked_yaml.parse(path, content.decode("utf-8"), plain=True)
    except UnicodeDecodeError:
        raise ConfigError([f"{path}:1:1: not UTF-8"]) from None
    if marked.data is None:
        return None
    try:
        return csrattrs_data.read(marked.data, alternatives=alternatives)
    except Unfit as fault:
        raise ConfigError([marked.fault(loc, what) for loc, what in fault.faults]) from None
    except Malformed as fault:
        raise ConfigError([marked.fault((), str(fault))]) from None


def write(attrs: CsrAttrs) -> str:
    """Return YAML from which `read` makes the same CSR attributes."""
    return marked_yaml.dump(csrattrs_data.write(attrs))
