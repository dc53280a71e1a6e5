"""`llm-edge up` with a real Valkey, but with small stand-ins for API, simulator and workers: for tests of the supervision.

Run as a program: `up_standin.py up --dir D --port P [--workers N]`, and by itself as `api`, `simulator` and `worker NAME`.
The environment makes it misbehave: STANDIN_BROKEN=api ends at once, STANDIN_STUBBORN=1 makes workers ignore SIGTERM,
STANDIN_DIE_AT_GATE=NAME has `up` killed after that part's start and before anyone is told of it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

from api.cli.up import say
from api.up import process
from api.up.janitor import Group
from api.up.parts import Part, Role
from api.up.plan import Stack, parts_of
from api.up.stack import Options, bring_up
from shared.config import load_settings
from shared.errors import EdgeError


def stand_ins(stack: Stack) -> list[Part]:
    """The real plan, its programs replaced; the server stays real."""
    return [part if part.role is Role.SERVER else _stand_in(part) for part in parts_of(stack)]


def _stand_in(part: Part) -> Part:
    kind = part.role.name.lower()
    return replace(part, argv=(sys.executable, __file__, kind, part.name))


def run_up(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--grace", type=float, default=5.0)
    asked = parser.parse_args(words)
    options = Options(asked.dir, "127.0.0.1", asked.port, asked.workers, grace_s=asked.grace)
    if name := os.environ.get("STANDIN_DIE_AT_GATE"):
        _die_at_gate_of(name)
    try:
        bring_up(options, load_settings(), os.environ, say, stand_ins)
    except EdgeError as exc:
        print(exc.message, file=sys.stderr)
        return 1
    return 0


def _die_at_gate_of(name: str) -> None:
    """`up` asks for a process' birth between its start and its registration: that is when it dies."""

    def group(self: process.Process) -> Group | None:
        if self.running and self.part.name == name:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self)

    read = process.Process.group.fget
    assert read is not None
    plain = read
    process.Process.group = property(group)  # type: ignore[method-assign,assignment]  a deliberate accident


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802  the base class' name
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            workers = len(client.keys("beat:*"))
        body = json.dumps({"status": "ready", "redis": "ok", "workers": workers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def run_part(kind: str, name: str) -> None:
    if os.environ.get("STANDIN_BROKEN") == kind:
        sys.exit(f"{name} has no luck today")
    if kind == "api":
        with ThreadingHTTPServer(("127.0.0.1", int(os.environ["SERVER_PORT"])), _Ready) as server:
            server.serve_forever()
    if kind == "worker":
        if os.environ.get("STANDIN_STUBBORN"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["sleep", "600"])  # a child of its own, which must not outlive it
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            client.set(f"beat:{name}", 1, px=60_000)
    signal.pause()


if __name__ == "__main__":
    if sys.argv[1] == "up":
        sys.exit(run_up(sys.argv[2:]))
    run_part(sys.argv[1], sys.argv[2])
