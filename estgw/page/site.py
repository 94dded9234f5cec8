"""What all pages have in common: who asks is judged first (`guard`), then a table of routes says what there is.

A failure has an empty body: a stranger learns nothing, and the page knows its own words for each status.  A GET needs
no token for the files of the page itself, since a browser sends none with them; they are the same for everybody.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from aiohttp import hdrs, web

from estgw.logs import log
from estgw.page import guard
from estgw.page.bundle import bundled
from estgw.page.viewers import Tokens

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""The kinds of file that are served; what else lies there, such as a licence, is not."""
BODY = 128 << 10
"""Bytes of the largest body that a route takes; what is too large for the route is told in words up to here."""
BODY_SECONDS = 15.0
"""Seconds for a body."""


@dataclass(frozen=True)
class Access:
    """What a request has to bring."""

    tokens: Tokens
    hosts: frozenset[str] = frozenset()
    """Names in lower case that may stand in Host, besides those of the loopback and the listening address."""
    scheme: str = "http"


@dataclass(frozen=True)
class Asked:
    """A request that has passed the guard."""

    request: web.BaseRequest
    label: str | None
    """The only label that its viewer sees; None is all."""
    body: bytes = b""


Handler: TypeAlias = Callable[..., Awaitable[web.StreamResponse]]
"""Called with `Asked` and the groups of the pattern."""


@dataclass(frozen=True)
class Route:
    """A path of the API; the method PUT has a body, all others have none."""

    pattern: re.Pattern[str]
    method: str
    handler: Handler


class Site:
    """Answers the requests of one page; call it with each."""

    index = "/index.html"
    """The file behind `/`."""

    def __init__(self, access: Access, routes: tuple[Route, ...]) -> None:
        self._access = access
        self.files = bundled(static_files())
        """Type and content of each file by its path."""
        self._routes = routes

    def close(self) -> None:
        """End what goes on, so that the server can stop."""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._answer(request)
        except ConnectionError:
            return empty(400)  # it is not sent; raising would log a traceback
        except Exception:  # noqa: BLE001 - a fault of the page is logged, and costs this request alone
            log.exception("the page failed", path=request.rel_url.raw_path[:200])
            return empty(500)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, headers = request.rel_url.raw_path, request.headers
        local = request.transport.get_extra_info("sockname")[0] if request.transport else ""
        if not guard.is_own_host(headers.getall(hdrs.HOST, []), local, self._access.hosts):
            return _closing(403, request)
        if not request.raw_path.startswith("/"):  # a form for proxies, whose authority takes the place of Host
            return _closing(404, request)
        if _has_body(request) and not (request.method == "PUT" and path.startswith("/api/")):
            return _closing(413, request)
        if not path.startswith("/api/"):
            return self._file(request, path)
        token = guard.find_token(headers.getall(hdrs.AUTHORIZATION, []), self._access.tokens)
        if token is None:
            return _closing(403, request)
        found = [(route, match.groups()) for route in self._routes if (match := route.pattern.fullmatch(path))]
        if not found:
            return _closing(404, request)
        chosen = next((each for each in found if each[0].method == request.method), None)
        if chosen is None:
            return _closing(405, request, {hdrs.ALLOW: ", ".join(route.method for route, _ in found)})
        route, groups = chosen
        if route.method != "GET" and not self._is_from_here(request):
            return _closing(403, request)
        body = b""
        if route.method == "PUT":
            if (request.content_length or 0) > BODY or request.content_length is None:
                return _closing(413 if request.content_length else 411, request)
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await request.read()
            except TimeoutError:
                return _closing(408, request)
        return await route.handler(Asked(request, self._access.tokens[token], body), *groups)

    def _is_from_here(self, request: web.BaseRequest) -> bool:
        origins = request.headers.getall(hdrs.ORIGIN, [])
        return guard.is_own_origin(origins, request.headers[hdrs.HOST], self._access.scheme)

    def _file(self, request: web.BaseRequest, path: str) -> web.Response:
        file = self.files.get(self.index if path == "/" else path)
        if file is None:
            return empty(404)
        if request.method not in ("GET", "HEAD"):
            return empty(405, {hdrs.ALLOW: "GET, HEAD"})
        kind, content = file
        return web.Response(body=content, headers={**guard.HEADERS, hdrs.CONTENT_TYPE: kind})


def static_files() -> dict[str, tuple[str, bytes]]:
    """Return type and content of each file of the pages by its path; nothing else is ever read for a request."""
    return {
        f"/{path.relative_to(STATIC).as_posix()}": (TYPES[path.suffix], path.read_bytes())
        for path in sorted(STATIC.rglob("*"))
        if path.suffix in TYPES
    }


def empty(status: int, more: Mapping[str, str] | None = None) -> web.Response:
    """Return an answer without a body."""
    return web.Response(status=status, headers={**guard.HEADERS, **(more or {})})


def as_json(value: Mapping[str, Any]) -> web.Response:
    """Return an answer in JSON."""
    headers = {**guard.HEADERS, hdrs.CONTENT_TYPE: "application/json"}
    return web.Response(body=json.dumps(value).encode(), headers=headers)


def _closing(status: int, request: web.BaseRequest, more: Mapping[str, str] | None = None) -> web.Response:
    """A refusal; it ends the connection if a body would have to be read first."""
    refused = empty(status, more)
    if _has_body(request):
        refused.force_close()
    return refused


def _has_body(request: web.BaseRequest) -> bool:
    return bool(request.headers.get(hdrs.TRANSFER_ENCODING)) or request.headers.get(hdrs.CONTENT_LENGTH, "0") != "0"
