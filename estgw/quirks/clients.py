"""Clients as templates: a command for each step of a trial, with placeholders; no shell ever sees it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from estgw.client.faults import clean
from estgw.quirks.faults import UsageError
from estgw.quirks.seen import OPERATION_OF

PLACEHOLDERS: Mapping[str, str] = {
    "base": "https://HOST:PORT of the quirk",
    "host": "the host alone",
    "port": "the port alone",
    "label": "the quirk's label, such as quirk-wrong-key",
    "url": "base, a slash, and the label",
    "ca": "a file with the CA's certificate, PEM",
    "user": "the user",
    "password": "the password",
    "cn": "the common name to ask for",
    "csr.pem": "a file with a CSR, PEM",
    "csr.der": "the same, DER",
    "csr.b64": "the same, base64",
    "out": "a file for the certificate",
    "key": "a file for a key that the client makes or gets",
    "dir": "the directory of these two; all new files in it count",
    "aes": "a file with an AES key that the server knows",
    "aes-id": "the server's name for it",
    "python": "the Python that runs estgw",
}
"""All placeholders, and what takes their place."""

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_MAXIMUM_FILE = 256 * 1024


@dataclass(frozen=True)
class Client:
    """A client: its name, and its command for each step as a list of words with placeholders."""

    name: str
    commands: Mapping[str, tuple[str, ...]]

    def command(self, step: str, values: Mapping[str, str]) -> list[str]:
        """The words of a command with values in the place of all placeholders."""
        return [_PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in self.commands[step]]


def client_of(text: str) -> Client:
    """The client that `--client` names: a shipped template, a file of commands, or one command.

    Raises `UsageError`.
    """
    shipped = _shipped()
    if text in shipped:
        return _client(text, shipped[text])
    if text.endswith((".yaml", ".yml")):
        name, data = next(iter(_file(Path(text)).items()))
        return _client(name, data)
    if len(text.split()) < 2:
        raise UsageError(
            f"no client {clean(text, 100)!r}; there are {', '.join(shipped)}.  Or give a file NAME.yaml, "
            "or a command in quotes: 'PROGRAM … {url} … {out}'"
        )
    return Client(clean(text.split()[0], 100), {"enroll": _words("enroll", text)})


def names() -> list[str]:
    """The shipped clients."""
    return list(_shipped())


def _shipped() -> Mapping[str, Any]:
    text = resources.files("estgw.quirks").joinpath("clients.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def _file(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            loaded = yaml.safe_load(file.read(_MAXIMUM_FILE))
    except OSError as fault:
        raise UsageError(f"{path}: {fault.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UsageError(f"{path}: not YAML") from None
    if not isinstance(loaded, dict) or len(loaded) != 1:
        raise UsageError(f"{path}: one client is wanted, as NAME: {{commands: {{enroll: '…'}}}}")
    return loaded


def _client(name: Any, data: Any) -> Client:
    commands = data.get("commands") if isinstance(data, dict) else None
    if not isinstance(commands, dict) or "enroll" not in commands:
        raise UsageError(f"{clean(str(name), 100)}: a client has commands, and one of them is enroll")
    return Client(clean(str(name), 100), dict(_commands(commands)))


def _commands(commands: Mapping[Any, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for step, text in commands.items():
        if step not in OPERATION_OF:
            raise UsageError(f"no step {clean(str(step), 100)!r}; there are {', '.join(OPERATION_OF)}")
        if not isinstance(text, str):
            raise UsageError(f"{step}: a command is a text")
        yield step, _words(step, text)


def _words(step: str, text: str) -> tuple[str, ...]:
    """Split a command as a shell would, and check its placeholders."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as fault:
        raise UsageError(f"{step}: the command can't be split into words: {fault}") from None
    if not words:
        raise UsageError(f"{step}: the command is empty")
    unknown = [found for word in words for found in _PLACEHOLDER.findall(word) if found not in PLACEHOLDERS]
    if unknown:
        raise UsageError(
            f"{step}: no placeholder {{{clean(unknown[0], 50)}}}; there are "
            + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        )
    return words
