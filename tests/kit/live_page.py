"""The live page of a running gateway: its link, and what it answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from tests.kit.gateway import Gateway, running_gateway
from tests.kit.processes import DEADLINE, until
from tests.kit.workspace import Workspace

LINK = re.compile(r"page (https?://[^ ]+/)#([0-9a-f]{32})\n")
ON = {"record": {"keep": 50}, "page": {"listen": "127.0.0.1:0"}}


class Link:
    """The page of a gateway, by the line that it printed."""

    def __init__(self, line: str) -> None:
        found = LINK.fullmatch(line)
        assert found, line
        self.base, self.token = found[1], found[2]

    def connect(self) -> http.client.HTTPConnection:
        place = urlsplit(self.base)
        if place.scheme == "http":
            return http.client.HTTPConnection(place.hostname or "", place.port, timeout=DEADLINE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(place.hostname or "", place.port, context=context, timeout=DEADLINE)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> Any:
        if connection is None:
            with contextlib.closing(self.connect()) as own:
                return self.get(path, own)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200
        return json.loads(body)

    def rows(self, number: int) -> list[dict[str, Any]]:
        """The rows, once there are so many."""

        def found() -> list[dict[str, Any]] | None:
            rows: list[dict[str, Any]] = self.get("/api/records")["rows"]
            return rows if len(rows) >= number else None

        return until(found)


@contextlib.contextmanager
def paged(lab: Workspace, overrides: Mapping[str, Any] | None = None) -> Iterator[tuple[Gateway, Link]]:
    with running_gateway(lab, overrides or ON) as gateway:
        assert gateway.process.stdout is not None
        yield gateway, Link(gateway.process.stdout.readline())
