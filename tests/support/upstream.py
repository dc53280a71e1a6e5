"""A provider's side of a connection over real sockets, as well or as badly behaved as a test wants it."""

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.catalogue import Provider

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
GOOD = b'{"choices": [{"index": 0}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
Serve = Callable[[socket.socket], object]

# for 127.0.0.1 only, trusted by nobody but these tests
CERTIFICATE = """-----BEGIN CERTIFICATE-----
MIIBbDCCARKgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAkxMjcuMC4w
LjEwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CTEyNy4wLjAuMTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJfodtGo/lydBzSe
JBHVWpiZKMe4LULVUDrgmG6UpxF7GmGVlZ+Xm5fA8uWZSiE+C46+eIrqTD7f+bw1
bXXplCyjUzBRMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMB0GA1Ud
DgQWBBTmKi653d49c3SMPqqZXKK7lia4VDAPBgNVHREECDAGhwR/AAABMAoGCCqG
SM49BAMCA0gAMEUCIQCRkVFhrOOa8COUjQ6zaZgPHViDyGLqSVakqgCM5C6AvAIg
L+QS53KPAGmvWsAP+L7ZgMGxLLzjtUrKwfCOxdCq01c=
-----END CERTIFICATE-----
"""
_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg1+wOvNs8fKAZDSLO
8O3kRi+Tw2QZIe///ivwynbLdwKhRANCAASX6HbRqP5cnQc0niQR1VqYmSjHuC1C
1VA64JhulKcRexphlZWfl5uXwPLlmUohPguOvniK6kw+3/m8NW116ZQs
-----END PRIVATE KEY-----
"""


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


def good(connection: socket.socket) -> None:
    connection.sendall(answer(GOOD))


def provider(url: str, **changes: object) -> Provider:
    timeouts = {"connect_s": 1, "read_s": 2, "total_s": 3}
    return Provider.model_validate({"id": "p", "endpoint": url, "timeouts": timeouts, **changes})


class Upstream:
    """Answers each request as told, and keeps connections and requests.

    A request has come when it ends in `ending`, or with its first bytes where that is empty; `pause_s` goes by before
    more than the first bytes are taken.
    """

    def __init__(self, serve: Serve, *, tls: bool = False, ending: bytes = BODY, pause_s: float = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)  # a listener that is closed in `accept` would go on listening
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}/v1"
        self._serve, self._ending, self._pause_s = serve, ending, pause_s
        self._tls = _context() if tls else None
        self._open = True
        self.connections: list[socket.socket] = []
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while self._open:
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                connection.settimeout(20)
                self.connections.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            talked = connection if self._tls is None else self._tls.wrap_socket(connection, server_side=True)
            with talked:
                while request := self._request(talked):
                    self.requests.append(request)
                    self._serve(talked)

    def _request(self, connection: socket.socket) -> bytes:
        data = bytearray()
        while not (data and data.endswith(self._ending)):
            part = connection.recv(65536)
            if not part:
                return b""
            data += part
            if len(data) == len(part):
                time.sleep(self._pause_s)  # a server's slowness, not a test's patience
        return bytes(data)

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "both.pem")
        file.write_text(_KEY + CERTIFICATE)
        context.load_cert_chain(file)
    return context


@contextmanager
def serving(
    serve: Serve, *, tls: bool = False, ending: bytes = BODY, pause_s: float = 0
) -> Iterator[Upstream]:
    server = Upstream(serve, tls=tls, ending=ending, pause_s=pause_s)
    try:
        yield server
    finally:
        server.close()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    return port
