"""The total deadline against servers that drip, on real sockets, plain and TLS; under threads, and under gevent in a process of its own."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from support.upstream import BODY, CERTIFICATE, GOOD, Serve, answer, good, provider, serving
from support.waiting import wait_for

from shared.errors import ProviderError, ProviderTimeoutError, ProviderUnreachableError
from workers.adapter import Adapter
from workers.deadline import Watchdog
from workers.transport import Transport

CHAT = "/v1/chat/completions"
LIMITS = {"connect_s": 1, "read_s": 1, "total_s": 0.5}


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Transport]:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(CERTIFICATE)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    made = Transport(concurrency=8)
    yield made
    made.close()


def drip(head: bytes, piece: bytes) -> Serve:
    def serve(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(60):
            connection.sendall(piece)
            time.sleep(0.05)  # a server's slowness, not a test's patience

    return serve


def times_out(transport: Transport, url: str) -> None:
    started = time.monotonic()
    with pytest.raises(ProviderTimeoutError, match=r"did not finish its answer within 0\.5 s"):
        transport.call(provider(url, timeouts=LIMITS), CHAT, BODY)
    assert 0.4 < time.monotonic() - started < 1.5


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n" + GOOD, b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
    ids=["header", "body", "body without a length", "chunks"],
)
def test_dripping(transport: Transport, head: bytes, piece: bytes, tls: bool) -> None:
    with serving(drip(head, piece), tls=tls) as server:
        times_out(transport, server.url)


def test_dripping_through_a_proxy(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(drip(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a")) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        times_out(transport, "http://far.invalid/v1")


def test_a_handshake_that_drips(transport: Transport) -> None:
    """A TLS record that never ends: each byte comes well within the connect timeout."""
    with serving(drip(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb", b"\x00"), ending=b"") as server:
        times_out(transport, server.url.replace("http://", "https://"))


def test_tls_works_and_its_connection_is_used_again(transport: Transport) -> None:
    with serving(good, tls=True) as server:
        for _ in range(3):
            assert transport.call(provider(server.url), CHAT, BODY).body == GOOD
        assert len(server.connections) == 1


def test_a_certificate_that_nobody_vouches_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    transport = Transport(concurrency=1)
    with (
        serving(good, tls=True) as server,
        pytest.raises(ProviderUnreachableError, match="certificate is not trusted"),
    ):
        transport.call(provider(server.url), CHAT, BODY)
    transport.close()


def test_a_server_that_takes_no_body(transport: Transport) -> None:
    body = b'{"model": "m", "x": "' + b"x" * 30_000_000 + b'"}'
    with serving(lambda _: time.sleep(1), ending=b"") as server:
        started = time.monotonic()
        with pytest.raises(ProviderTimeoutError):
            transport.call(provider(server.url, timeouts=LIMITS), CHAT, body)
        assert time.monotonic() - started < 1.5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how full queues refuse differs")
def test_a_host_that_does_not_accept(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        place = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(place)
        limits = {"connect_s": 0.3, "read_s": 1, "total_s": 5}
        with pytest.raises(ProviderTimeoutError, match=r"could not be connected to within 0\.3 s"):
            transport.call(provider(f"http://127.0.0.1:{place[1]}/v1", timeouts=limits), CHAT, BODY)
        for one in waiting:
            one.close()


def test_a_connection_that_was_given_back_is_out_of_the_deadlines_reach() -> None:
    adapter, watchdog = Adapter(concurrency=1), Watchdog()
    with serving(good) as server:
        request = requests.PreparedRequest()
        request.method, request.url, request.body = "POST", f"{server.url}/chat/completions", BODY
        request.headers = CaseInsensitiveDict({"Content-Length": str(len(BODY))})
        for _ in range(2):
            call = watchdog.watch(0.1, 1)
            answered = adapter.send_under(call, request, timeout=1, verify=True, proxies={})
            assert answered.raw.read() == GOOD
            wait_for(lambda call=call: call.left_s() < -0.05, 5, "the deadline")  # type: ignore[misc]
            assert not call.over
        assert len(server.connections) == 1
    adapter.close()
    watchdog.stop()


def test_a_deadline_never_cuts_another_call(transport: Transport) -> None:
    """Answers come just when the deadline does; the connections go from call to call, and calls with time enough all succeed."""

    def serve(connection: socket.socket) -> None:
        time.sleep(0.02)  # the calls' deadline
        connection.sendall(answer(GOOD))

    wrong: list[object] = []
    cut: list[int] = []
    with serving(serve) as server:
        hasty = provider(server.url, timeouts={"connect_s": 1, "read_s": 1, "total_s": 0.0215})
        patient = provider(server.url, timeouts={"connect_s": 2, "read_s": 5, "total_s": 10})

        def callers(upstream: object, times: int) -> None:
            for _ in range(times):
                try:
                    transport.call(upstream, CHAT, BODY)  # type: ignore[arg-type]
                except ProviderTimeoutError:
                    cut.append(1) if upstream is hasty else wrong.append("a patient call timed out")
                except ProviderError as exc:
                    wrong.append(exc.message)

        threads = [threading.Thread(target=callers, args=(one, 60)) for one in (hasty, patient) * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(cut) > 0


def test_all_of_it_under_gevent() -> None:
    """The same tests in a process that gevent has patched, as a worker's is."""
    program = "import sys; from gevent import monkey; monkey.patch_all(); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    here = Path(__file__)
    command = [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", "-W", "default"]
    command += ["-k", "not under_gevent", __file__, str(here.with_name("test_transport.py"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
