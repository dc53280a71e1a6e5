"""A way to the API on which answers get lost: the request arrives and is served, and the connection breaks before its answer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

_HOP = {"connection", "content-length", "transfer-encoding", "host"}


class Way:
    """`lost` is how many of the next answers get lost; `seen` are the headers of the requests that came, names in lower case."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lost = 0
        self.seen: list[dict[str, str]] = []


def _handler(way: Way, target: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            way.seen.append({name.lower(): value for name, value in self.headers.items()})
            head = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            answer = requests.post(f"{target}{self.path}", data=body, headers=head, timeout=30)
            if way.lost:
                way.lost -= 1
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *args: Any) -> None:
            """Nothing on stderr."""

    return Handler


@contextmanager
def lossy_way(target: str) -> Iterator[Way]:
    """To the server at `target`, POST only."""
    way = Way("")
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(way, target)) as server:
        server.daemon_threads = True
        way.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield way
        finally:
            server.shutdown()
            thread.join()
