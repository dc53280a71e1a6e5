"""A tiny real HTTP server that speaks just enough of Files and Batches for the command line's tests, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BATCH_ID = "batch_1"


def batch(
    status: str = "completed", total: int = 3, completed: int = 3, failed: int = 0, **more: Any
) -> dict[str, Any]:
    """A batch object; files where there would be some."""
    ended = status in {"completed", "expired", "cancelled"}
    return {
        "id": BATCH_ID,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "status": status,
        "request_counts": {"total": total, "completed": completed, "failed": failed},
        "output_file_id": "file-out" if ended and completed else None,
        "error_file_id": "file-err" if ended and (failed or completed < total) else None,
        "created_at": 1_750_000_000,
        f"{status}_at": 1_750_000_012,
        "usage": {"input_tokens": 30, "output_tokens": 15},
        "providers": [],
        "cost_usd": "0.03",
        **more,
    }


@dataclass(frozen=True)
class Answer:
    """One scripted answer. `cut`: the connection ends this many bytes before the promised length.

    `act` is done first, while the client waits.
    """

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    hang_up: bool = False
    act: Callable[[], None] = lambda: None


def refusal(status: int, message: str, code: str, **headers: str) -> Answer:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps({"error": error}).encode(), named)


@dataclass
class Contract:
    """What the server knows, and what it is to do next."""

    url: str = ""
    looks: list[dict[str, Any]] = field(default_factory=lambda: [batch()])
    """What successive looks at the batch find; the last stays."""
    files: dict[str, bytes] = field(
        default_factory=lambda: {"file-out": b'{"custom_id": "1"}\n', "file-err": b"{}\n"}
    )
    odd: dict[str, list[Answer]] = field(default_factory=dict)
    """`METHOD /path` -> answers to give first, instead of the right one."""
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """`METHOD /path`, headers, body of every request."""

    def requests(self, what: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for seen, headers, body in self.seen if seen == what]

    def answer(self, what: str) -> Answer:
        if self.odd.get(what):
            return self.odd[what].pop(0)
        if what.endswith("/content"):
            file_id = what.split("/")[-2]
            return (
                Answer(body=self.files[file_id])
                if file_id in self.files
                else refusal(404, "No such File", "no")
            )
        if what.startswith("GET /v1/batches/") or what.endswith("/cancel"):
            if BATCH_ID not in what:
                return refusal(404, "No batch found with id 'x'.", "batch_not_found")
            return _json(self.looks.pop(0) if len(self.looks) > 1 else self.looks[0])
        made: dict[str, Any] = {
            "POST /v1/files": {"id": "file-in", "object": "file"},
            "POST /v1/batches": batch("validating", total=0, completed=0),
            "GET /v1/batches": {"object": "list", "data": [batch()], "has_more": True},
            "DELETE /v1/files/file-in": {"id": "file-in", "deleted": True},
        }
        return _json(made[what]) if what in made else refusal(404, "Not Found", "not_found")


def _json(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    contract: Contract

    def _serve(self) -> None:
        what = f"{self.command} {self.path.partition('?')[0]}"
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.contract.seen.append((what, {k.lower(): v for k, v in self.headers.items()}, body))
        answer = self.contract.answer(what)
        answer.act()
        if answer.hang_up:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) - answer.cut])
        self.close_connection = self.close_connection or answer.cut > 0

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class' name
        """Nothing on stderr."""


@contextmanager
def contract_server() -> Iterator[Contract]:
    contract = Contract()
    handler = type("Handler", (_Handler,), {"contract": contract})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        contract.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield contract
        finally:
            server.shutdown()
            thread.join()
