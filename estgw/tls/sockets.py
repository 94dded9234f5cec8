"""Make listening sockets: the gateway or the supervisor owns them, `listener` accepts from them; and close a server."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

from estgw.errors import ConfigError


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound to an IP address and a port and does not listen yet.

    For port 0 the kernel chooses one.  `shared` is for several sockets on one port, among which the kernel distributes
    connections once they listen; all must be bound with it, by the same user.  Raises `OSError` with the address in its
    text.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST)
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Otherwise [::] would take the IPv4 port as well, or fail because another socket has it.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as fault:
        sock.close()
        raise _with_address(fault, (host, port)) from fault
    return sock


def inherited(descriptor: int) -> socket.socket:
    """Return a listening TCP socket that another program has opened for this one, such as systemd.

    Raises `ConfigError` if it is another kind of socket, or takes IPv4 connections on an IPv6 socket: rules and the
    throttle would see their clients as `::ffff:192.0.2.1`, all of one IPv6 network.
    """
    try:
        sock = socket.socket(fileno=descriptor)
        is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as fault:
        raise ConfigError([f"descriptor {descriptor} of LISTEN_FDS: {os.strerror(fault.errno or 0)}"]) from None
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM or not is_listening:
        sock.close()
        raise ConfigError([f"descriptor {descriptor} of LISTEN_FDS: a TCP socket that listens is expected"])
    if sock.family == socket.AF_INET6 and not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        name = endpoint(sock.getsockname())
        sock.close()
        raise ConfigError([f"{name} takes IPv4 connections, too: write BindIPv6Only=ipv6-only in the socket unit"])
    return sock


def listen(sock: socket.socket) -> None:
    """Make a socket listen, if it does not already.  Raises `OSError` with the address in its text."""
    try:
        sock.listen(socket.SOMAXCONN)
    except OSError as fault:  # another process has bound the port too, and listens already
        raise _with_address(fault, sock.getsockname()) from fault


async def close(server: asyncio.Server) -> None:
    """Close a server of asyncio.  Each connection that it has accepted has its protocol then, which can end it.

    A server forgets what it accepted in the turn of the loop in which its own `close` is called: the socket stays open,
    and its client waits (python/cpython#109564).
    """
    for sock in server.sockets:
        server.get_loop().remove_reader(sock)
    for _ in range(2):  # asyncio makes the transport in the next turn, and tells the protocol in the one after
        await asyncio.sleep(0)
    server.close()


def endpoint(address: tuple[Any, ...]) -> str:
    """The text of an address, such as `127.0.0.1:8443` or `[::1]:8443`."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _with_address(fault: OSError, address: tuple[Any, ...]) -> OSError:
    return OSError(fault.errno, f"can't listen on {endpoint(address)}: {fault.strerror}")
