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
from collections.abc import Iterable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

from api.cli.up import say
from api.up import stack
from api.up.guard import Guard
from api.up.janitor import Group
from api.up.parts import Part, Role
from api.up.plan import Stack, parts_of
from shared.config import load_settings
from shared.errors import EdgeError


def stand_ins(plan: Stack) -> list[Part]:
    """The real plan, its programs replaced; the server stays real."""
    return [part if part.role is Role.SERVER else _stand_in(part) for part in parts_of(plan)]


def _stand_in(part: Part) -> Part:
    kind = part.role.name.lower()
    return replace(part, argv=(sys.executable, "-P", __file__, kind, part.name), answers=None)


def run_up(words: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--grace", type=float, default=5.0)
    asked = parser.parse_args(words)
    options = stack.Options(asked.dir, "127.0.0.1", asked.port, asked.workers, grace_s=asked.grace)
    os.environ["STANDIN_WORKERS"] = str(asked.workers)
    if name := os.environ.get("STANDIN_DIE_AT_GATE"):
        _die_at_gate_of(name)
    try:
        stack.bring_up(options, load_settings(), os.environ, say, stand_ins)
    except EdgeError as exc:
        say(exc.message)
        return 1
    return 0


def _die_at_gate_of(name: str) -> None:
    """The part runs, up to its gate, and `up` is about to tell the janitor: that is when it dies."""

    class Doomed(Guard):
        def publish(self, groups: Iterable[Group]) -> None:
            known = list(groups)
            if any(group.name == name for group in known):
                os.kill(os.getpid(), signal.SIGKILL)
            super().publish(known)

    setattr(stack, "Guard", Doomed)  # noqa: B010  a deliberate accident, which mypy would refuse


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            beats = len(client.keys("beat:*"))
        workers = (
            beats if beats >= int(os.environ["STANDIN_WORKERS"]) else 0
        )  # so that tests find all of them
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
