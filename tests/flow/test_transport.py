"""The transport against servers that misbehave, over real sockets; under threads, and under gevent in a process of its own."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shared.catalogue import Provider
from shared.errors import (
    KeyRefusedError,
    ModelRefusedError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    ProviderUnreachableError,
)
from workers.transport import Transport

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
GOOD = b'{"choices": [{"index": 0}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
Serve = Callable[[socket.socket], None]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    return head.encode() + b"\r\n\r\n" + body


class Server:
    """Answers each request as told, and counts connections and requests."""

    def __init__(self, serve: Serve) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._serve = serve
        self.connections = 0
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while request := _request(connection):
                self.requests.append(request)
                self._serve(connection)

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # a thread in accept() would keep the port open
        self._listener.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(BODY):
        part = connection.recv(65536)
        if not part:
            return b""
        data += part
    return data


@contextmanager
def serving(serve: Serve) -> Iterator[Server]:
    server = Server(serve)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(concurrency=4)
    yield made
    made.close()


def provider(url: str, **changes: object) -> Provider:
    timeouts = {"connect_s": 1, "read_s": 2, "total_s": 3}
    return Provider.model_validate({"id": "p", "endpoint": url, "timeouts": timeouts, **changes})


def test_an_answer_and_the_connection_used_again(transport: Transport) -> None:
    with serving(lambda c: c.sendall(answer(GOOD, "200 OK", "X-Request-Id: r1"))) as server:
        for _ in range(5):
            found = transport.call(provider(server.url), "/v1/chat/completions", BODY)
        assert (found.body, found.request_id, found.usage.prompt_tokens) == (GOOD, "r1", 3)
        assert server.connections == 1
        head = server.requests[0].split(b"\r\n\r\n")[0]
        assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"application/json" in head


def test_an_error_leaves_the_connection_usable(transport: Transport) -> None:
    with serving(lambda c: c.sendall(answer(b'{"error": "no"}', "500 Oops", "Retry-After: 3"))) as server:
        for _ in range(3):
            with pytest.raises(ProviderFailedError) as caught:
                transport.call(provider(server.url), "/v1/completions", BODY)
        assert caught.value.retry_after_s == 3
        assert server.connections == 1


def _drip(head: bytes, piece: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(100):
            connection.sendall(piece)
            time.sleep(0.05)  # a server's slowness, not a test's patience

    return serve


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n", b" "),
    ],
    ids=["header", "body", "body without a length"],
)
def test_the_total_deadline_holds_against_a_server_that_drips(
    transport: Transport, head: bytes, piece: bytes
) -> None:
    with serving(_drip(head, piece)) as server:
        limits = {"connect_s": 1, "read_s": 1, "total_s": 0.5}
        started = time.monotonic()
        with pytest.raises(ProviderTimeoutError, match=r"within 0\.5 s"):
            transport.call(provider(server.url, timeouts=limits), "/v1/chat/completions", BODY)
        assert 0.4 < time.monotonic() - started < 1.5


def test_silence_is_a_timeout(transport: Transport) -> None:
    with serving(lambda _: time.sleep(2)) as server:
        limits = {"connect_s": 1, "read_s": 0.3, "total_s": 5}
        with pytest.raises(ProviderTimeoutError, match=r"silent for 0\.3 s"):
            transport.call(provider(server.url, timeouts=limits), "/v1/chat/completions", BODY)


@pytest.mark.parametrize(
    "serve",
    [
        lambda c: c.close(),
        lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"), c.close()),
    ],
    ids=["at once", "in mid-answer"],
)
def test_a_dropped_connection_is_unreachable(transport: Transport, serve: Serve) -> None:
    with serving(serve) as server, pytest.raises(ProviderUnreachableError, match="closed the connection"):
        transport.call(provider(server.url), "/v1/chat/completions", BODY)


def test_nobody_there(transport: Transport) -> None:
    with serving(lambda _: None) as server:
        url = server.url
    with pytest.raises(ProviderUnreachableError, match="refused"):
        transport.call(provider(url), "/v1/chat/completions", BODY)


def test_a_redirect_is_never_followed(transport: Transport) -> None:
    with serving(lambda c: c.sendall(answer(GOOD))) as other:
        location = f"Location: {other.url}/chat/completions"
        with serving(lambda c: c.sendall(answer(b"", "307 Elsewhere", location))) as server:
            with pytest.raises(ModelRefusedError, match="never followed"):
                transport.call(provider(server.url), "/v1/chat/completions", BODY)
            assert other.requests == []


@pytest.mark.parametrize("length", [True, False])
def test_an_endless_answer_is_cut(transport: Transport, length: bool) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(
            b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 99999999\r\n" if length else b"") + b"\r\n"
        )
        while True:
            connection.sendall(b" " * 65536)

    with serving(serve) as server, pytest.raises(ProviderFailedError, match="max_response_bytes"):
        transport.call(provider(server.url, max_response_bytes=100_000), "/v1/chat/completions", BODY)


def test_a_200_that_is_none(transport: Transport) -> None:
    with (
        serving(lambda c: c.sendall(answer(b"<html>hello</html>"))) as server,
        pytest.raises(ProviderFailedError),
    ):
        transport.call(provider(server.url), "/v1/chat/completions", BODY)


def test_keys(transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(lambda c: c.sendall(answer(GOOD))) as server:
        with pytest.raises(KeyRefusedError, match="NO_SUCH_KEY is not set"):
            transport.call(provider(server.url, api_key_env="NO_SUCH_KEY"), "/v1/completions", BODY)
        monkeypatch.setenv("SPLIT", "abc\r\nX-Evil: 1")
        with pytest.raises(KeyRefusedError, match="SPLIT") as caught:
            transport.call(provider(server.url, api_key_env="SPLIT"), "/v1/completions", BODY)
        assert "abc" not in str(caught.value)
        key = tmp_path / "key"
        key.write_text("from-a-file\n")
        transport.call(provider(server.url, api_key_file=key), "/v1/completions", BODY)
        assert b"Authorization: Bearer from-a-file\r\n" in server.requests[-1]


def test_no_error_names_the_address_or_the_key(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_FOR_TEST", "sk-verysecretkey")
    with serving(lambda c: c.sendall(answer(b'{"error": "bad key sk-verysecretkey"}', "401 No"))) as server:
        with pytest.raises(ProviderError) as caught:
            transport.call(provider(server.url, api_key_env="KEY_FOR_TEST"), "/v1/completions", BODY)
        assert "verysecret" not in str(caught.value) + repr(caught.value.body)


def test_all_of_it_under_gevent() -> None:
    """The same tests in a process that gevent has patched, as a worker's is."""
    program = "import sys; from gevent import monkey; monkey.patch_all(); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        program,
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "default",
        "-k",
        "not under_gevent",
        __file__,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
