"""One HTTP exchange at a time over a connection that has passed its checks.

http.client with `auto_open = 0` writes and parses HTTP/1.1 and never opens a connection by itself, so nothing is sent
over a connection that has not been checked.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message

from estgw.client.faults import ClientError, Dropped, InvalidAnswer, NoConnection, clean
from estgw.client.transport.tls import Connected
from estgw.est.operations import essence

MAXIMUM_BODY = 2 * 1024 * 1024
"""Bytes of an answer's body: the base64 of 1 MiB with line breaks fits, which is more than any CA's bag."""
MAXIMUM_ANSWER = MAXIMUM_BODY + 256 * 1024
"""Bytes on the wire, with head, interim answers and chunk framing."""

Observer = Callable[["Exchange"], None]


@dataclass(frozen=True)
class Answer:
    """A complete response."""

    status: int
    reason: str
    headers: Message
    body: bytes = field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters; empty when there is none."""
        return essence(self.headers.get("Content-Type"))

    @property
    def words(self) -> str:
        """The server's reason for a human reader, cleaned; empty when the body is not text (RFC 7030 4.2.3).

        No Content-Type means plain text (RFC 8951 5.1).
        """
        is_text = self.content_type in ("", "application/problem+json", "application/json")
        if not is_text and not self.content_type.startswith("text/"):
            return ""
        return clean(self.body.decode("utf-8", "replace")).strip()


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, for an observer such as `--trace`, which is called before and after an exchange."""

    connected: Connected
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    answer: Answer | None = None
    """None before the request is sent."""


class Link:
    """A checked connection with HTTP on it."""

    def __init__(self, connected: Connected) -> None:
        self.connected = connected
        self._http = http.client.HTTPConnection(connected.place.host, connected.place.port)
        self._http.auto_open = 0
        # It has the methods of a socket that http.client calls: sendall, makefile, close.
        self._http.sock = connected.stream
        self._is_open = True
        self.answered = 0
        """Exchanges that have been completed."""

    def close(self) -> None:
        """Close the connection; more than once does no harm."""
        self._is_open = False
        self._http.close()
        self.connected.stream.close()

    def is_usable(self) -> bool:
        """Whether another request can be sent: still open, and the server sent nothing unasked."""
        return self._is_open and self.connected.stream.is_quiet()

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> Answer:
        """Send a request and read the whole answer within `timeout` seconds.

        Raises `Dropped` when the server goes away before it has answered anything, `NoConnection` when it stays
        silent, `InvalidAnswer` for an answer that is cut off, endless or no HTTP, `Untrusted` for a TLS alert.
        """
        stream = self.connected.stream
        stream.start_clock(timeout, MAXIMUM_ANSWER)
        try:
            self._http.request(method, target, body=body, headers=self._with_host(headers))
            answer = self._read()
            self.answered += 1
            return answer
        except ClientError:
            self.close()
            raise
        except TimeoutError:
            self.close()
            if stream.received:
                raise InvalidAnswer(f"the answer was not complete after {timeout:g} s") from None
            raise NoConnection(f"no answer within {timeout:g} s") from None
        except (ConnectionError, OSError) as fault:
            self.close()
            if not stream.received:
                raise Dropped("the server closed the connection without an answer") from None
            if isinstance(fault, http.client.RemoteDisconnected):  # after an interim answer
                raise NoConnection("the server closed the connection without an answer") from None
            raise InvalidAnswer("the connection broke off in the middle of the answer") from None
        except (http.client.HTTPException, ValueError) as fault:
            self.close()
            raise InvalidAnswer(f"not an HTTP answer: {clean(_describe(fault), 200)}") from None

    def _with_host(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {"Host": self.connected.place.authority, **headers}

    def _read(self) -> Answer:
        with self._http.getresponse() as response:
            declared = response.length
            if declared is not None and declared > MAXIMUM_BODY:
                raise InvalidAnswer(f"an answer of {declared} bytes; {MAXIMUM_BODY} is the maximum")
            body = response.read(MAXIMUM_BODY + 1)
            if len(body) > MAXIMUM_BODY:
                raise InvalidAnswer(f"the server's answer does not end: more than {MAXIMUM_BODY} bytes")
            if declared is not None and len(body) != declared:
                raise InvalidAnswer(f"the answer is cut off: {len(body)} of {declared} bytes")
            coding = response.headers.get("Content-Encoding", "identity").strip().lower()
            if coding != "identity":
                raise InvalidAnswer(
                    f"an answer in content coding {clean(coding, 50)!r}, which the request did not ask for"
                )
            answer = Answer(response.status, clean(response.reason, 200), response.headers, body)
            closes = response.will_close
        if closes:
            self.close()
        return answer


def _describe(fault: Exception) -> str:
    if isinstance(fault, http.client.IncompleteRead):
        return "it is cut off"
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__


def parameter(headers: Message, name: str) -> str | None:
    """A parameter of the Content-Type, if it has that one.

    Raises `InvalidAnswer` for a very long header: the standard library takes the square of its length.
    """
    if len(headers.get("Content-Type", "")) > _LONGEST_TYPE:
        raise InvalidAnswer(f"a Content-Type of more than {_LONGEST_TYPE} characters")
    found = headers.get_param(name)
    return found if isinstance(found, str) else None


_LONGEST_TYPE = 4096


def values(headers: Message, name: str) -> Sequence[str]:
    """All values of a header, in order."""
    return [str(value) for value in headers.get_all(name, [])]
