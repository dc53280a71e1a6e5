"""Sockets to listen on, bound before anything else is started: who finds an address taken is told what to do."""

import errno
import socket

from shared.errors import ConfigError

_ABSENT = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def listen(host: str, port: int, variables: str) -> list[socket.socket]:
    """A socket for each address that `host` stands for, as asyncio would bind them; port 0 picks a free one.

    `variables` is the first word of their settings, `SERVER` or `METRICS`. Raises ConfigError.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ConfigError([f"{variables}_HOST={host}: no such address ({exc.strerror})"]) from exc
    bound: list[socket.socket] = []
    absent: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            bound.append(_bind(family, kind, protocol, address))
        except OSError as exc:
            if exc.errno in _ABSENT:  # `localhost` names an IPv6 address even where there is no IPv6
                absent = exc
                continue
            for sock in bound:
                sock.close()
            raise ConfigError([_why(exc, host, port, variables)]) from exc
    if not bound:
        raise ConfigError([f"{variables}_HOST={host}: not an address of this machine"]) from absent
    return bound


def _bind(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _why(exc: OSError, host: str, port: int, variables: str) -> str:
    place = f"{variables}_PORT={port} on {host}"
    if exc.errno == errno.EADDRINUSE:
        return (
            f"{place} is taken by another program. Several API processes on one machine each need a {variables}_PORT"
            " of their own; 0 picks a free one."
        )
    if exc.errno == errno.EACCES:
        return f"{place}: this user may not listen there; take a port above 1023"
    return f"{place}: {exc.strerror}"
