"""What is done in a participant's own directory, as the participant: laying it out, and other names.

It runs as a process of its own, with a JSON object on standard input.  So whatever lies in such a directory is touched
with the rights of its owner alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from estgw.auth import users
from estgw.config.shipped import template
from estgw.errors import Malformed
from estgw.est import certs, hostnames
from estgw.workshop.fault import WorkshopError
from estgw.workshop.plan import write

DONE = Path(".estgw/workshop")
"""Made last: a directory without it is one that `init` has not finished."""
TOKENS = "page.tokens"


def main() -> int:
    """Do what standard input asks for; the exit status is 1 with a sentence on standard error if that fails."""
    order = json.load(sys.stdin)
    try:
        {"lay_out": lay_out, "rename": rename}[order["do"]](Path(), order)
    except (WorkshopError, OSError, ValueError) as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def lay_out(folder: Path, order: Mapping[str, Any]) -> None:
    """Complete a workspace that `estgw init` has made: its CA, its users, its tokens, and conf.yaml."""
    _create_ca(folder, order["names"])
    users.set_passwords(folder / "users.htpasswd", order["users"])
    write(folder / TOKENS, "".join(f"{token} {label}".rstrip() + "\n" for token, label in order["tokens"].items()))
    conf = folder / "conf.yaml"
    write(conf, configured(conf.read_text(encoding="utf-8"), order), 0o644)
    (folder / "records").mkdir(mode=0o700, exist_ok=True)
    (folder / DONE).touch()


def configured(text: str, order: Mapping[str, Any]) -> str:
    """The shipped conf.yaml with the addresses, names and labels of a workshop."""
    text = _line(text, r"  listen: \[.*?\]", f"  listen: [{json.dumps(order['listen'])}]")
    text = _line(text, r"  # name: \S+ *", f"  name: {order['name']}  ")
    # The pool's warm process has 34 MB, which is much for twenty; without it a script in Python takes 0.2 s more.
    text = _line(text, r"    runner: pool ", "    runner: exec ")
    labels = "".join(
        f"  {label}:\n    handlers: {label}/handlers/openssl\n    authorize: {label}/handlers/openssl/authorize\n"
        for label in order["labels"]
    )
    if labels:
        text = _line(text, r"labels:[^\n]*\n", f"labels:\n{labels}")
    page = {
        "listen": order["page"],
        "public": True,
        "hosts": hosts(order["names"]),
        "tokens": TOKENS,
        "hand": True,
        **({} if order["labels"] else {"edit": "handlers"}),
    }
    rows = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in page.items())
    return f"{text}\nrecord: {{keep: {order['keep']}, dir: records, files: 2000}}\npage:\n{rows}"


def hosts(names: Sequence[str]) -> list[str]:
    """Those of these names that are host names; the page knows its own addresses by itself."""
    return [name for name in names if not re.fullmatch(r"[0-9.]+|.*:.*", name) and "*" not in name]


def _line(text: str, pattern: str, line: str) -> str:
    made, number = re.subn(f"^{pattern}", lambda _: line, text, count=1, flags=re.MULTILINE)
    if number == 0:
        raise WorkshopError(f"conf.yaml has no line like {line.strip()!r} to change; write it there by hand")
    return made


def rename(folder: Path, order: Mapping[str, Any]) -> None:
    """Have the CA make a server certificate for these names, unless it is for them; conf.yaml gets them as well."""
    names = order["names"]
    conf = folder / "conf.yaml"
    text = _line(conf.read_text(encoding="utf-8"), r"  name: \S+", f"  name: {order['name']}")
    write(conf, _line(text, r"  hosts: \[.*\]", f"  hosts: {json.dumps(hosts(names))}"), 0o644)
    if order["anew"] or not _is_for(folder / "openssl-ca/server.pem", names):
        _create_ca(folder, names, "--server-only")


def _is_for(file: Path, names: Sequence[str]) -> bool:
    try:
        certificate = certs.load_pem(file.read_bytes())[0]
    except (OSError, Malformed, IndexError):
        return False
    return all(hostnames.matches(certificate, name) for name in names)


def _create_ca(folder: Path, names: Sequence[str], *options: str) -> None:
    arguments = [*options, *(part for name in names for part in ("--name", name))]
    # The shipped script: the participant's may have been edited.
    command = [str(template() / "openssl-ca/create-ca"), "--dir", str(folder / "openssl-ca"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorkshopError(f"create-ca failed: {done.stderr.strip()}")
