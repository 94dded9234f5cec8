"""Listening sockets: made here, by whoever will hold them, and used by `listener`."""

from __future__ import annotations

import socket
from typing import Any


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to an IP address and a port, which the kernel chooses for 0; it does not listen yet.

    `shared` is for one socket of several on one port, among which the kernel spreads connections once they listen:
    every one of them must be bound so, and by the same user.  Raises `OSError` with the address in its text.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Else [::] would take the IPv4 port as well, or fail because somebody has it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as fault:
        sock.close()
        raise _with_address(fault, (host, port)) from fault
    return sock


def listen(sock: socket.socket) -> None:
    """Let connections come; no fault if they already may.  Raises `OSError` with the address in its text."""
    try:
        sock.listen(socket.SOMAXCONN)
    except OSError as fault:  # somebody else has bound the port too, and was faster
        raise _with_address(fault, sock.getsockname()) from fault


def endpoint(address: tuple[Any, ...]) -> str:
    """`127.0.0.1:8443` or `[::1]:8443`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_address(fault: OSError, address: tuple[Any, ...]) -> OSError:
    return OSError(fault.errno, f"can't listen on {endpoint(address)}: {fault.strerror}")
