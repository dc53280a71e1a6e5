"""One address for several servers: a connection goes, byte by byte, to the next of them that takes it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Balancer:
    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._turn = 0
        self._pairs: list[threading.Thread] = []
        self._open = True
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.listener.settimeout(0.1)  # a listener that is closed in `accept` would go on listening

    def run(self) -> None:
        while self._open:
            with suppress(TimeoutError):
                client, _ = self.listener.accept()
                client.settimeout(None)
                self._pairs.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                self._pairs[-1].start()

    def close(self) -> None:
        self._open = False

    def join(self) -> None:
        for pair in self._pairs:
            pair.join(20)

    def _serve(self, client: socket.socket) -> None:
        server = self._server()
        with client:
            if server is None:
                return
            with server:
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()

    def _server(self) -> socket.socket | None:
        self._turn += 1
        for n in range(len(self._ports)):
            with suppress(OSError):
                return socket.create_connection(
                    ("127.0.0.1", self._ports[(self._turn + n) % len(self._ports)])
                )
        return None


def _copy(one: socket.socket, other: socket.socket) -> None:
    """Until either side ends, which is then told to both."""
    with suppress(OSError):
        while part := one.recv(65536):
            other.sendall(part)
    for each in (one, other):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@contextmanager
def balancing(ports: list[int]) -> Iterator[str]:
    """In front of the servers at these ports: its base URL. Clients are to be closed before its end."""
    balancer = _Balancer(ports)
    thread = threading.Thread(target=balancer.run)
    thread.start()
    try:
        yield f"http://127.0.0.1:{balancer.listener.getsockname()[1]}/v1"
    finally:
        balancer.close()
        thread.join()
        balancer.listener.close()
        balancer.join()
