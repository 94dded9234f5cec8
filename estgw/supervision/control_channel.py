"""The control channel between the supervisor and a worker, and the orders that a worker starts with.

The channel is a pair of connected sockets that preserve packets.  A packet is a list in JSON, whose first word is

    from a worker          ready             connections are accepted
                           prepared          another configuration has been read, and could be used
                           refused, faults   a configuration can't be used: the one it was started with, or another
                           pong              the event loop turns
    from the supervisor    prepare           read another configuration: the file that comes with the packet
                           adopt             use the prepared configuration
                           abandon           drop the prepared configuration
                           ping              answer with pong

When the channel closes, the other side has ended.  A worker whose supervisor has ended drains and ends.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

PACKET = 64 * 1024


@dataclass(frozen=True)
class Orders:
    """The orders that a worker starts with.  Numbers are descriptors, except for `slot` and `of`."""

    slot: int
    of: int
    directory: str
    config_file: str
    config: int
    log_format: str
    log_level: str
    metrics: bool
    channel: int = -1
    sockets: Sequence[int] = ()

    def text(self) -> str:
        """As an argument of the command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Orders:
        """From an argument of the command line."""
        return cls(**json.loads(text))


def say(channel: socket.socket, word: str, faults: Sequence[str] = (), *, descriptors: Sequence[int] = ()) -> None:
    """Send one word, with as many faults as a packet holds.

    Raises OSError if the other side has ended or does not read.
    """
    room = PACKET - len(json.dumps([word, []]))
    ends = itertools.accumulate(len(json.dumps(fault)) + len(", ") for fault in faults)
    kept = faults[: sum(end - len(", ") <= room for end in ends)]
    socket.send_fds(channel, [json.dumps([word, kept]).encode()], descriptors)


def hear(channel: socket.socket) -> tuple[str, list[str], list[int]] | None:
    """The next word, its faults and descriptors; None at the end.  Raises BlockingIOError if there is no packet."""
    try:
        packet, descriptors, _, _ = socket.recv_fds(channel, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        # It ended with a packet of ours unread.  Linux reports that once, before the packets that are still queued.
        packet, descriptors, _, _ = socket.recv_fds(channel, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
    if not packet:
        return None
    word, faults = json.loads(packet)
    return word, faults, descriptors


def content(descriptor: int) -> str:
    """The text of a file that came with a packet.

    Closes the descriptor; the file's offset is not used, as all share it.
    """
    with os.fdopen(descriptor, "rb") as file:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
