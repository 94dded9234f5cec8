"""The line between the supervisor and a worker: what is said on it, and what a worker knows when it starts.

The line is a pair of connected sockets that keep packets apart.  A packet is a list in JSON, the first word of which is

    from a worker          ready             connections are accepted
                           prepared          another configuration has been read, and could be used
                           refused, faults   a configuration can't be used: the one it was started with, or another
    from the supervisor    prepare           read another configuration, which is the file that comes with the packet
                           adopt             use what was prepared
                           abandon           forget what was prepared

The line's end is the other side's: a worker whose supervisor is gone drains and leaves.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PACKET = 64 * 1024


@dataclass(frozen=True)
class Orders:
    """What a worker is told at its start; numbers are descriptors, but for its place among all workers."""

    slot: int
    of: int
    directory: str
    config_file: str
    config: int
    log_format: str
    log_level: str
    metrics: bool
    line: int = -1
    sockets: Sequence[int] = ()

    def text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Orders:
        """From the command line."""
        return cls(**json.loads(text))


def say(line: socket.socket, word: str, faults: Sequence[str] = (), *, descriptors: Sequence[int] = ()) -> None:
    """Say one word; of faults as many as a packet holds.  Raises OSError when the other side is gone, or deaf."""
    faults = list(faults)
    while len(packet := json.dumps([word, faults]).encode()) > PACKET:
        faults.pop()
    socket.send_fds(line, [packet], descriptors)


def hear(line: socket.socket) -> tuple[str, list[str], list[int]] | None:
    """The next word, its faults and its descriptors; None at the end.  Raises BlockingIOError when nothing was said."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(line, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        # It left with something of ours unread, which Linux says once, and before it hands out its last words.
        packet, descriptors, _, _ = socket.recv_fds(line, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    if not packet:
        return None
    word, faults = json.loads(packet)
    return word, faults, descriptors


def content(descriptor: int) -> str:
    """The text of a file that came along, whoever else reads it; the descriptor is closed."""
    with os.fdopen(descriptor, "rb") as file:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
