"""The output of scripts, and the files of the operator."""

from __future__ import annotations

import functools
from collections.abc import Callable

from cryptography.hazmat.primitives.serialization import Encoding

from estgw.auth import digest, users
from estgw.auth.pop_rules import Rules
from estgw.callout import cgi
from estgw.config import loading, routes
from estgw.errors import ConfigError, HandlerFailed, Malformed
from estgw.est import answers, certs
from estgw.est import csr as csrs
from estgw.est.operations import Body, Profile
from estgw.gateway import reply
from tests.callout import calls
from tests.fuzz import checks
from tests.fuzz.checks import DIRECTORY, LONGEST_YAML, only, placed, written
from tests.kit.processes import ROOT

TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {}
_target = functools.partial(checks.target, TARGETS)

_SERVICE = routes.build(loading.load(ROOT / "conf.yaml"))[None]


# Output of scripts.


@_target(Malformed, HandlerFailed)
def stdout(data: bytes) -> None:
    words = cgi.words(data)
    assert len(words) <= cgi.WORDS
    assert all(char.isprintable() or char == "\n" for char in words)
    output = cgi.read(data)
    for kind in Body:
        with only(Malformed):
            answers.to_wire(kind, output.body, columns=64)
    for operation, route in _SERVICE.routes.items():
        call = calls.plain(DIRECTORY, operation, pop_required=True, csr=csrs.parse(calls.CSR), route=route)
        with only(HandlerFailed):
            made = reply.to_wire(call, output, columns=None, linking_attribute="challengePassword")
            answer = reply.success(route.operation, Profile.RFC, output, made)
            assert 200 <= answer.status <= 599
            for name, value in answer.headers.items():
                assert (name + value).isprintable()
                assert (name + value).isascii()


# Files of the operator.


@_target(ConfigError)
def conf(data: bytes) -> None:
    with written(data[:LONGEST_YAML]) as file, placed(file, r"(:\d+:\d+|: can't be read): "):
        found = loading.load(file)
    list(routes.routes(routes.build(found)))
    rules = Rules(found.pop.rules, found.pop.default)
    rules.announces(calls.KNOWN, None)
    rules.linking(calls.KNOWN, "simpleenroll", None)


@_target(ConfigError)
def htpasswd(data: bytes) -> None:
    with written(data) as file, placed(file, r"(:\d+:\d+)?: "):
        users.load(file)


@_target(ConfigError)
def htdigest(data: bytes) -> None:
    with written(data) as file, placed(file, r"(:\d+:\d+)?: "):
        digest.load(file, "estrealm")


@_target(Malformed)
def anchors(data: bytes) -> None:
    for found in certs.load_pem(data):
        found.public_bytes(Encoding.PEM)
