"""How the participants stand: asked of their pages, whose answers are bounded and believed to be theirs alone."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import aiohttp

SECONDS = 4.0
"""How long a page may take to answer."""
MOST = 512 << 10
"""Bytes of an answer."""
STUCK_REFUSALS = 5
STUCK_SILENCE = 600.0
"""Seconds without a request, after a first one, that count as being stuck."""


class Standings:
    """Asks the pages of all participants, on connections that stay open."""

    def __init__(self, seats: Sequence[Mapping[str, Any]]) -> None:
        """`seats` are those of trainer.json."""
        self._seats = seats
        self._contexts = {seat["id"]: _context(seat["anchor"]) for seat in seats}
        self._session: aiohttp.ClientSession | None = None

    async def all(self) -> list[dict[str, Any]]:
        """The standing of each participant; `state` says in words why there is none."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS))
        return list(await asyncio.gather(*(self._one(self._session, seat) for seat in self._seats)))

    async def lower(self, name: str) -> None:
        """Lower a participant's hand; raises OSError."""
        seat = next(seat for seat in self._seats if seat["id"] == name)
        assert self._session is not None
        headers = {"Origin": _origin(seat), **_bearer(seat)}
        async with self._session.post(f"{_origin(seat)}/api/hand/down", **self._tls(name), headers=headers):
            pass

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()

    def _tls(self, name: str) -> dict[str, Any]:
        """Each server certificate has the name localhost, whatever the addresses of the workshop."""
        return {"ssl": self._contexts[name], "server_hostname": "localhost"}

    async def _one(self, session: aiohttp.ClientSession, seat: Mapping[str, Any]) -> dict[str, Any]:
        url = f"{_origin(seat)}/api/standing"
        found: dict[str, Any] = {"id": seat["id"], "state": "up"}
        try:
            async with session.get(url, **self._tls(seat["id"]), headers=_bearer(seat)) as response:
                content = b""
                async for part in response.content.iter_chunked(1 << 16):
                    content += part
                    if len(content) > MOST:
                        raise ValueError("too long")
                answer = json.loads(content) if response.status == 200 else None
                if not isinstance(answer, dict):
                    raise ValueError("no standing")
        except aiohttp.ClientConnectorCertificateError:
            found["state"] = "its certificate is of another CA"
        except (aiohttp.ClientError, TimeoutError, OSError):
            found["state"] = "down"
        except (ValueError, RecursionError):
            found["state"] = "answers nonsense"
        else:
            found |= _sound(answer)
        return found


def _sound(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What is used of an answer, each part of the type that it should have."""
    last, refusal = (answer.get(key) if isinstance(answer.get(key), dict) else None for key in ("last", "refusal"))
    labs, refusals = answer.get("labs"), answer.get("refusals")
    made = {
        "last": _brief(last),
        "refusal": _brief(refusal),
        "refusals": refusals if isinstance(refusals, int) else 0,
        "hand": answer.get("hand") is True,
        "labs": labs_done(labs if isinstance(labs, dict) else {}),
    }
    return {**made, "stuck": stuck(made)}


_TEXTS = {"at": 40, "operation": 60, "line": 120, "user": 60, "subject": 120, "gate": 40, "reason": 300, "hint": 500}


def _brief(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    texts = {key: str(row[key])[:size] if row.get(key) is not None else None for key, size in _TEXTS.items()}
    status = row.get("status")
    return {**texts, "status": status if isinstance(status, int) else None, "issued": row.get("issued") is True}


def labs_done(labs: Mapping[str, Any]) -> list[str]:
    """The numbers of the labs of which all steps are done."""
    done = (
        str(lab)[:10]
        for lab, steps in labs.items()
        if isinstance(steps, dict) and steps and all(outcome == "done" for outcome in steps.values())
    )
    return sorted(done, key=lambda lab: (len(lab), lab))[:50]


def stuck(standing: Mapping[str, Any], now: float | None = None) -> str:
    """Why a participant seems to be stuck; empty if none does."""
    if standing["refusals"] >= STUCK_REFUSALS:
        return f"{standing['refusals']} refusals in a row"
    silent = _age(standing["last"], now)
    return f"silent for {int(silent // 60)} min" if silent is not None and silent >= STUCK_SILENCE else ""


def _age(row: Mapping[str, Any] | None, now: float | None) -> float | None:
    try:
        began = datetime.fromisoformat(str((row or {}).get("at"))).timestamp()
    except ValueError:
        return None
    return (time.time() if now is None else now) - began


def _context(anchor: str) -> ssl.SSLContext:
    """Trust the participant's own CA alone, whose key no other participant has."""
    return ssl.create_default_context(cadata=anchor)


def _origin(seat: Mapping[str, Any]) -> str:
    return f"https://{seat['host']}:{seat['page_port']}"


def _bearer(seat: Mapping[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {seat['token']}"}
