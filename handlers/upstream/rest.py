"""A CA with an API of JSON over HTTPS, for the handlers beside this file.  Not a program."""

import http.client
import json
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import upstream

from estgw import __version__

MOST = 1 << 20  # bytes of an answer
WORDS = ("detail", "message", "error_description", "error_message", "error")  # where APIs have their reasons


@dataclass(frozen=True)
class Answer:
    """What a CA has answered, whatever it was."""

    url: str
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body; what is not JSON ends the handler."""
        try:
            return json.loads(self.body)
        except ValueError:
            upstream.unavailable(f"{self.url}: HTTP {self.status}, and the body is not JSON")

    def get(self, *path: str) -> Any:
        """What stands in the body at this path; an answer without it ends the handler."""
        found = self.json
        for key in path:
            if not isinstance(found, dict) or key not in found:
                upstream.unavailable(f"{self.url}: the answer has no {'.'.join(path)}")
            found = found[key]
        return found

    @property
    def words(self) -> str:
        """The reasons in the body of a refusal, if they stand where many APIs have them."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return ""
        each = (found.get("errors") or found) if isinstance(found, dict) else found
        return "; ".join(filter(None, map(_text, each if isinstance(each, list) else [each])))


def _text(reason: Any) -> str:
    if isinstance(reason, dict):
        return next((value for key in WORDS if isinstance(value := reason.get(key), str)), "")
    return reason if isinstance(reason, str) else ""


class Server:
    """A CA at a URL, whose certificate must lead to `anchors`, a file in the CA's directory; None: the system's."""

    def __init__(self, url: str, anchors: str | None = None) -> None:
        self.url = url
        self.started = time.monotonic()
        try:
            file = None if anchors is None else Path(os.environ["EST_CA_DIR"], anchors)
            self.context = ssl.create_default_context(cafile=file)
        except OSError as fault:
            upstream.fail(f"{file}: {fault.strerror or fault}")

    def get(self, path: str, *, missing: str | None = None) -> Answer:
        """Ask for what anybody may know, such as the CA's certificate; also in a dry run.

        `missing` are words for the client, if there is nothing at this path.
        """
        answer = self.exchange("GET", path)
        if missing is not None and answer.status == 404:
            upstream.refuse(missing)
        return self._require_yes(answer)

    def post(
        self, path: str, question: object, *, harmless: bool = False, ours: str | None = None, **headers: str
    ) -> Answer:
        """Ask for something, in a dry run only for what is `harmless`: what issues nothing.  A no ends the handler.

        `ours` are words in which the CA blames this gateway, though its status blames the client.
        """
        answer = self.exchange("POST", path, json.dumps(question).encode(), harmless=harmless, **headers)
        return self._require_yes(answer, ours)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, *, harmless: bool = False, **headers: str
    ) -> Answer:
        """One request and its answer, whatever that is.  `Content_Type` becomes Content-Type."""
        if method != "GET" and not harmless:
            upstream.require_for_real()
        url = urljoin(self.url, path)
        place = urlsplit(url)
        sent = {"User-Agent": f"estgw/{__version__}", "Accept": "application/json, */*"}
        sent |= {"Content-Type": "application/json"} if body is not None else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection = self._connection(place.scheme, place.hostname or "", place.port)
            try:
                connection.request(method, f"{place.path}?{place.query}" if place.query else place.path, body, sent)
                socket = connection.sock  # which the connection forgets when the answer is the last
                answer = connection.getresponse()
                return Answer(url, answer.status, answer.headers, self._read(socket, answer))
            finally:
                connection.close()
        except TimeoutError:
            upstream.unavailable(f"{url}: no answer in {upstream.seconds():g} s; it may have issued what nobody gets")
        except (OSError, http.client.HTTPException, ValueError) as fault:
            upstream.unavailable(f"{url}: {fault or type(fault).__name__}")

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._left(), context=self.context)
        if scheme != "http" or not (host in ("localhost", "::1") or host.startswith("127.")):
            upstream.fail(f"{self.url}: only https, as secrets are sent; http is for this machine alone")
        return http.client.HTTPConnection(host, port, timeout=self._left())

    def _left(self) -> float:
        left = upstream.seconds() - (time.monotonic() - self.started)
        if left <= 0:
            raise TimeoutError
        return left

    def _read(self, socket: Any, answer: http.client.HTTPResponse) -> bytes:
        body = b""
        while len(body) <= MOST:
            left = self._left()
            if socket.fileno() >= 0:  # else all of it has come
                socket.settimeout(left)
            part = answer.read1(1 << 16)
            if not part:
                return body
            body += part
        raise ValueError(f"more than {MOST} bytes")

    @staticmethod
    def _require_yes(answer: Answer, ours: str | None = None) -> Answer:
        upstream.answered(answer.status, answer.words, answer.url, ours)
        return answer
