"""Records as HAR 1.2, which browsers' developer tools and HTTP debuggers read.

A failed handshake has no request, which an entry must have; it is left out, and a comment counts those.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from estgw import __version__
from estgw.record.ring import Record


def head() -> dict[str, Any]:
    """Return `log` without its entries."""
    return {"version": "1.2", "creator": {"name": "estgw", "version": __version__}}


def entry(record: Record, base_url: str) -> dict[str, Any] | None:
    """Return the entry of a record, or None for one without a request; `base_url` is the gateway's."""
    request, response = record.get("request"), record.get("response")
    if not request or not response:
        return None
    connection, tls = record.get("connection") or {}, record.get("tls") or {}
    took = _ms(record.get("ms"))
    reading = min(took, _ms(request.get("ms")))
    # Only a connection's first request pays for its handshake.
    handshake = _ms(tls.get("handshake_ms")) if connection.get("request") == 1 else -1
    return {
        "startedDateTime": record["at"],
        "time": took + max(0, handshake),
        "request": _request(request, base_url),
        "response": _response(response),
        "cache": {},
        "timings": {
            "blocked": -1,
            "dns": -1,
            # HAR 1.2 counts `ssl` in `connect` too.
            "connect": handshake,
            "ssl": handshake,
            "send": reading,
            "wait": max(0, took - reading),
            "receive": 0,
        },
        "connection": str(connection.get("number", "")),
        "comment": _comment(record),
        "_estgw": {key: record.get(key) for key in ("id", "kind", "of", "label", "operation", "outcome", "gates")},
    }


def _request(request: Mapping[str, Any], base_url: str) -> dict[str, Any]:
    method, _, rest = str(request.get("line", "")).partition(" ")
    target, _, version = rest.rpartition(" ")
    url = base_url + target
    headers = request.get("headers") or []
    made: dict[str, Any] = {
        "method": method,
        "url": url,
        "httpVersion": version,
        "cookies": [],
        "headers": _headers(headers),
        "queryString": [{"name": name, "value": value} for name, value in _query(url)],
        "headersSize": -1,
        "bodySize": request.get("length", 0),
    }
    if request.get("body"):
        text, coding = _text(request["body"])
        made["postData"] = {"mimeType": _of(headers, "content-type"), "params": [], "text": text}
        if coding:  # HAR 1.2 knows an encoding for answers only
            made["postData"]["_encoding"] = made["postData"]["comment"] = coding
    return made


def _response(response: Mapping[str, Any]) -> dict[str, Any]:
    headers = response.get("headers") or []
    content: dict[str, Any] = {"size": response.get("length", 0), "mimeType": _of(headers, "content-type")}
    if response.get("body"):
        content["text"], coding = _text(response["body"])
        if coding:
            content["encoding"] = coding
    return {
        "status": response.get("status", 0),
        "statusText": response.get("reason", ""),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _headers(headers),
        "content": content,
        "redirectURL": _of(headers, "location"),
        "headersSize": -1,
        "bodySize": response.get("length", 0),
    }


def _text(body: str) -> tuple[str, str | None]:
    """A body as text, or as base64 if it is not UTF-8; what stands for a removed one is a text."""
    try:
        return base64.b64decode(body, validate=True).decode(), None
    except UnicodeDecodeError:
        return body, "base64"
    except binascii.Error:
        return body, None


def _query(url: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=1000)
    except ValueError:  # the peer's target is no URL, or has more fields than any query of ours
        return []


def _headers(headers: list[list[str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in headers]


def _of(headers: list[list[str]], wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


def _ms(value: float | None) -> float:
    return float(value) if value else 0.0


def _comment(record: Record) -> str:
    outcome = record.get("outcome") or {}
    told = [f"a replay of {record.get('of')}"] if record.get("kind") == "replay" else []
    told += [f"{outcome['gate']}: {outcome.get('reason') or 'refused'}"] if outcome.get("gate") else []
    return "; ".join(told)
