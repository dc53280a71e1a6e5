"""Why a server at which nothing could be asked hangs up: a TLS handshake without a word of Redis' after it.

A server that refuses a client's certificate says so after TLS 1.3's handshake, when redis-py has already sent its first
command: the reason is then mostly lost with the connection. Whoever waits before speaking hears it.
"""

import socket
import ssl

from shared.redis_refusals import refusal
from shared.redis_url import Node, RedisServer, Tls

_WAIT_S = 1.0
"""For the connection, and for the server's last word."""

_WRONG_SCHEME = "Redis speaks TLS at this port. Use a rediss:// (sentinels://) URL"


def tls_refusal(server: RedisServer) -> str | None:
    """What stands between us and the server as far as TLS goes; None where that is nothing, or nobody is there."""
    for node in server.nodes:
        try:
            if server.tls is not None:
                _wait_for_its_word(node, _context(server.tls))
            elif _speaks_tls(node):
                return _WRONG_SCHEME
        except OSError as exc:  # SSLError is one
            if (why := refusal(exc)) is not None:
                return why
    return None


def _wait_for_its_word(node: Node, context: ssl.SSLContext) -> None:
    with _shake_hands(node, context) as connection:
        connection.recv(1)


def _speaks_tls(node: Node) -> bool:
    try:
        _shake_hands(node, _context(Tls(verify="none"))).close()
    except OSError as exc:
        return "ALERT" in str(exc).upper()
    return True


def _shake_hands(node: Node, context: ssl.SSLContext) -> ssl.SSLSocket:
    with socket.create_connection(node, timeout=_WAIT_S) as plain:  # the wrapped one lives on
        return context.wrap_socket(plain, server_hostname=node[0])


def _context(tls: Tls) -> ssl.SSLContext:
    """As redis-py's: this machine's authorities, and the one named."""
    context = ssl.create_default_context()
    context.check_hostname = tls.verify == "full"
    context.verify_mode = ssl.CERT_NONE if tls.verify == "none" else ssl.CERT_REQUIRED
    if tls.ca is not None:
        context.load_verify_locations(tls.ca)
    if tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context
