"""The transport over real sockets: what goes out, what comes back, and what each failure becomes."""

import gzip
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.upstream import BODY, GOOD, Serve, answer, free_port, good, provider, serving
from support.waiting import wait_for

from shared.errors import (
    ConfigError,
    KeyRefusedError,
    ModelRefusedError,
    ProviderError,
    ProviderFailedError,
    ProviderTimeoutError,
    ProviderUnreachableError,
    RateLimitedError,
)
from workers.transport import Transport

CHAT = "/v1/chat/completions"


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(concurrency=4)
    yield made
    made.close()


def test_an_answer_and_the_connection_used_again(transport: Transport) -> None:
    with serving(lambda c: c.sendall(answer(GOOD, "200 OK", "X-Request-Id: r1"))) as server:
        for _ in range(5):
            found = transport.call(provider(server.url), CHAT, BODY)
            assert (found.body, found.request_id, found.usage.prompt_tokens) == (GOOD, "r1", 3)
            assert (found.status, found.model) == (200, "m")
        assert len(server.connections) == 1


def test_what_goes_out(transport: Transport) -> None:
    with serving(good) as server:
        transport.call(provider(server.url), CHAT, BODY)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first == "POST /v1/chat/completions HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in lines)
    agent = headers.pop("User-Agent")
    assert agent.startswith("llm-edge-agent/")
    assert headers == {
        "Host": f"127.0.0.1:{server.port}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Content-Length": str(len(BODY)),
    }
    assert body == BODY


def test_an_error_leaves_the_connection_usable(transport: Transport) -> None:
    with serving(lambda c: c.sendall(answer(b'{"error": "no"}', "500 Oops", "Retry-After: 3"))) as server:
        for _ in range(3):
            with pytest.raises(ProviderFailedError) as caught:
                transport.call(provider(server.url), "/v1/completions", BODY)
        assert caught.value.retry_after_s == 3
        assert len(server.connections) == 1


def test_the_status_counts_even_where_the_rest_is_missing(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 999\r\n\r\n{")
        connection.close()

    with serving(serve) as server, pytest.raises(RateLimitedError) as caught:
        transport.call(provider(server.url), CHAT, BODY)
    assert caught.value.retry_after_s == 7


def test_a_kept_connection_that_was_closed_while_idle_is_replaced(transport: Transport) -> None:
    def serve(connection: socket.socket) -> None:
        good(connection)
        connection.shutdown(socket.SHUT_RDWR)

    with serving(serve) as server:
        for _ in range(3):
            assert transport.call(provider(server.url), CHAT, BODY).body == GOOD
            wait_for(lambda: server.connections[-1].fileno() == -1, 5, "the server to close its side")
        assert (len(server.connections), len(server.requests)) == (3, 3)


def test_a_connection_that_breaks_after_the_request_is_not_tried_again(transport: Transport) -> None:
    with serving(lambda c: good(c) if len(server.requests) == 1 else c.close()) as server:
        transport.call(provider(server.url), CHAT, BODY)
        with pytest.raises(ProviderUnreachableError, match="closed the connection without an answer"):
            transport.call(provider(server.url), CHAT, BODY)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("serve", "kind", "words"),
    [
        (lambda c: c.close(), ProviderUnreachableError, "without an answer"),
        (
            lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"), c.close()),
            ProviderUnreachableError,
            "in mid-answer",
        ),
        (
            lambda c: (c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"), c.close()),
            ProviderUnreachableError,
            "in mid-answer",
        ),
        (lambda c: (c.sendall(b"220 smtp ready\r\n\r\n"), c.close()), ProviderFailedError, "not HTTP"),
        (
            lambda c: c.sendall(answer(b"no gzip", "200 OK", "Content-Encoding: gzip")),
            ProviderFailedError,
            "decompressed",
        ),
        (lambda c: c.sendall(answer(b"<html>hello</html>")), ProviderFailedError, "no JSON"),
        (lambda c: c.sendall(b"HTTP/1.1 204 None\r\n\r\n"), ProviderFailedError, "204"),
    ],
    ids=["at once", "in mid-body", "in mid-chunk", "not HTTP", "not gzip", "not JSON", "nothing"],
)
def test_an_answer_that_is_none(
    transport: Transport, serve: Serve, kind: type[ProviderError], words: str
) -> None:
    with serving(serve) as server, pytest.raises(kind, match=words):
        transport.call(provider(server.url), CHAT, BODY)


def test_nobody_there(transport: Transport) -> None:
    with pytest.raises(ProviderUnreachableError, match="connection refused"):
        transport.call(provider(f"http://127.0.0.1:{free_port()}/v1"), CHAT, BODY)


def test_what_was_handled_before_the_call_is_not_taken_for_its_failure(transport: Transport) -> None:
    try:
        raise TimeoutError  # noqa: TRY301  what is handled must be raised
    except TimeoutError:
        with pytest.raises(ProviderUnreachableError, match="connection refused"):
            transport.call(provider(f"http://127.0.0.1:{free_port()}/v1"), CHAT, BODY)


def test_a_name_that_is_none(transport: Transport) -> None:
    with pytest.raises(ProviderUnreachableError, match="could not be resolved"):
        transport.call(provider("http://nowhere.invalid/v1"), CHAT, BODY)


def test_silence_is_a_timeout(transport: Transport) -> None:
    with serving(lambda c: c.recv(1)) as server:
        limits = {"connect_s": 1, "read_s": 0.3, "total_s": 5}
        with pytest.raises(ProviderTimeoutError, match=r"silent for 0\.3 s"):
            transport.call(provider(server.url, timeouts=limits), CHAT, BODY)


def test_a_long_body_has_longer_than_the_connect_timeout(transport: Transport) -> None:
    body = b'{"model": "m", "messages": [], "x": "' + b"x" * 12_000_000 + b'"}'
    with serving(good, ending=body[-100:], pause_s=0.4) as server:
        limits = {"connect_s": 0.1, "read_s": 5, "total_s": 20}
        assert transport.call(provider(server.url, timeouts=limits), CHAT, body).body == GOOD


def test_gzip_and_its_bound(transport: Transport) -> None:
    with serving(
        lambda c: c.sendall(answer(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"))
    ) as server:
        assert transport.call(provider(server.url), CHAT, BODY).body == GOOD
    bomb = gzip.compress(b" " * 50_000_000)
    with (
        serving(lambda c: c.sendall(answer(bomb, "200 OK", "Content-Encoding: gzip"))) as server,
        pytest.raises(ProviderFailedError, match="max_response_bytes"),
    ):
        transport.call(provider(server.url, max_response_bytes=100_000), CHAT, BODY)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", ProviderFailedError),
        (b"HTTP/1.1 200 OK\r\n\r\n", ProviderFailedError),
        (b"HTTP/1.1 429 Slow\r\n\r\n", RateLimitedError),
    ],
    ids=["length", "no length", "refusal"],
)
def test_an_endless_answer_is_cut(transport: Transport, head: bytes, kind: type[ProviderError]) -> None:
    sent = [0]

    def endless(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b" " * 65536)
            sent[0] += 1

    with serving(endless) as server, pytest.raises(kind):
        transport.call(provider(server.url, max_response_bytes=100_000), CHAT, BODY)
    assert sent[0] < 500  # what socket buffers hold, no more


@pytest.mark.parametrize("place", ["http://{}/x", "http://[", "", "/v2/x"])
def test_a_redirect_is_never_followed(transport: Transport, place: str) -> None:
    with serving(good) as other:
        location = "Location: " + place.format(f"127.0.0.1:{other.port}")
        with serving(lambda c: c.sendall(answer(b"", "307 Elsewhere", location))) as server:
            with pytest.raises(ModelRefusedError, match="never followed") as caught:
                transport.call(provider(server.url), CHAT, BODY)
            assert caught.value.code == "redirect_refused"
        assert other.requests == []


def test_keys(transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with serving(good) as server:
        with pytest.raises(KeyRefusedError, match="NO_SUCH_KEY is not set"):
            transport.call(provider(server.url, api_key_env="NO_SUCH_KEY"), CHAT, BODY)
        monkeypatch.setenv("SPLIT", "abc\r\nX-Evil: 1")
        with pytest.raises(KeyRefusedError, match="SPLIT") as caught:
            transport.call(provider(server.url, api_key_env="SPLIT"), CHAT, BODY)
        assert "abc" not in str(caught.value)
        key = tmp_path / "key"
        for content, words in (
            (b"\n", "is empty"),
            (b"\xff\xfe", "characters"),
            ("ключ".encode(), "characters"),
        ):
            key.write_bytes(content)
            with pytest.raises(KeyRefusedError, match=words):
                transport.call(provider(server.url, api_key_file=key), CHAT, BODY)
        assert server.requests == []
        key.write_text("from-a-file\n")
        transport.call(provider(server.url, api_key_file=key), CHAT, BODY)
        assert b"Authorization: Bearer from-a-file\r\n" in server.requests[-1]


def test_a_key_is_not_sent_to_an_endpoint_that_took_the_others_place(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRST_KEY", "first")
    monkeypatch.setenv("SECOND_KEY", "second")
    with serving(good) as one, serving(good) as other:
        transport.call(provider(one.url, api_key_env="FIRST_KEY"), CHAT, BODY)
        transport.call(provider(other.url, api_key_env="SECOND_KEY"), CHAT, BODY)
    assert b"Bearer first\r\n" in one.requests[0]
    assert b"Bearer second\r\n" in other.requests[0]


def test_no_error_names_the_key(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_FOR_TEST", "sk-verysecretkey")
    with serving(lambda c: c.sendall(answer(b'{"error": "bad key sk-verysecretkey"}', "401 No"))) as server:
        with pytest.raises(KeyRefusedError) as caught:
            transport.call(provider(server.url, api_key_env="KEY_FOR_TEST"), CHAT, BODY)
        assert "verysecret" not in str(caught.value) + repr(caught.value.body)


def test_a_proxy_is_used_but_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(good) as proxy, serving(good) as here:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:pass@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        transport = Transport(concurrency=1)
        assert transport.call(provider("http://far.invalid/v1"), CHAT, BODY).body == GOOD
        transport.call(provider(here.url), CHAT, BODY)
        transport.close()
    assert proxy.requests[0].startswith(b"POST http://far.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in proxy.requests[0]
    assert (len(proxy.requests), len(here.requests)) == (1, 1)
    assert b"Proxy-Authorization" not in here.requests[0]


def test_a_proxy_that_is_away_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:hunter22@127.0.0.1:{free_port()}")
    transport = Transport(concurrency=1)
    with pytest.raises(ProviderUnreachableError, match="the proxy on the way") as caught:
        transport.call(provider("http://far.invalid/v1"), CHAT, BODY)
    transport.close()
    assert "hunter" not in str(caught.value)


def test_a_ca_bundle_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    with pytest.raises(ConfigError, match="REQUESTS_CA_BUNDLE"):
        Transport(concurrency=1)


def test_closing_ends_idle_connections_and_late_calls_still_work(transport: Transport) -> None:
    with serving(good) as server:
        transport.call(provider(server.url), CHAT, BODY)
        transport.close()
        wait_for(lambda: server.connections[0].fileno() == -1, 5, "the connection to be closed")
        assert transport.call(provider(server.url), CHAT, BODY).body == GOOD
        transport.close()


def test_many_headers_are_refused(transport: Transport) -> None:
    lines = b"".join(b"X-%d: 1\r\n" % n for n in range(http.client._MAXHEADERS + 1))  # type: ignore[attr-defined]
    head = b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n"
    with serving(lambda c: c.sendall(head)) as server, pytest.raises(ProviderFailedError, match="not HTTP"):
        transport.call(provider(server.url), CHAT, BODY)
