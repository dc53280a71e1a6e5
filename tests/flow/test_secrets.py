"""A provider that says again what it was sent, the fleet's key and the prompt: who gets to see it, and who does not."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from support.batches import line, submit
from support.bus import task_events
from support.owners import ADMIN, BOB, bearer, running_with_keys
from support.stack import Stack
from support.upstream import Upstream, answer, serving
from support.waiting import wait_for

KEY = "Zq9plainsecretkey77"  # of no vendor's form
PROMPT = "Dear diary, nobody must know"
STATUSES = (200, 400, 401, 403, 404, 429, 500)
"""Each has a provider of its own, and a model."""


@contextmanager
def echo() -> Iterator[Upstream]:
    """Answers with the status that stands in the path."""

    def serve(connection: socket.socket) -> None:
        head, _, body = server.requests[-1].decode().partition("\r\n\r\n")
        status = head.split("/", 2)[1]
        key = head.partition("Bearer ")[2].split()[0]
        prompt = json.loads(body)["messages"][0]["content"]
        error = {"message": f"{key} is wrong for: {prompt}", "code": f"bad {key} {prompt}", "type": key}
        connection.sendall(answer(json.dumps({"error": error}).encode(), f"{status} {key}"))

    with serving(serve, ending=b"}") as server:
        yield server


@contextmanager
def echoing_stack() -> Iterator[Stack]:
    with echo() as server, running_with_keys(workers=0, PLAIN_KEY=KEY, LOG_LEVEL="debug") as stack:
        stack.kill_api()
        stack.configure(
            [
                {
                    "id": f"p{status}",
                    "endpoint": f"http://127.0.0.1:{server.port}/{status}/v1",
                    "models": {f"m{status}": f"m{status}"},
                    "api_key_env": "PLAIN_KEY",
                }
                for status in STATUSES
            ],
            breaker={"failure_threshold": 2, "reset_timeout_s": 60},
        )
        stack.start_api()
        stack.start_worker("--concurrency", "1")  # the provider goes by the request that came last
        yield stack


def get(stack: Stack, path: str, key: str) -> requests.Response:
    found = requests.get(f"{stack.base_url}{path}", headers=bearer(key), timeout=10)
    found.raise_for_status()
    return found


def command(stack: Stack, key: str, *args: str) -> str:
    argv = [sys.executable, "-m", "api.cli.main", *args]
    env = {**stack.env, "LLM_EDGE_API_KEY": key}
    found = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
    return found.stdout + found.stderr


def told(stack: Stack) -> dict[str, Any]:
    """By provider, once each of those that should be out of service or fail is known to."""
    found = {each["id"]: each for each in get(stack, "/providers", ADMIN).json()["data"]}
    failing = all(found[name]["state"] == "open" for name in ("p200", "p500"))
    refused = all(found[name]["out_of_service"] for name in ("p401", "p403"))
    return found if failing and refused else {}


def test_only_the_jobs_own_result_tells_what_the_provider_said_and_nothing_tells_the_key() -> None:
    with echoing_stack() as stack, task_events(stack) as events:
        rows = [line(f"of-{status}", PROMPT, model=f"m{status}") for status in STATUSES]
        batch = submit(stack.client_of(BOB), rows)
        providers = wait_for(lambda: told(stack), 30, "every provider to be found out")
        assert providers is not None
        jobs = [get(stack, f"/batches/{batch.id}/explain?line={n + 1}", BOB) for n in range(len(rows))]
        assert {t["code"] for each in jobs for t in each.json()["job"]["tries"]} >= {
            "error_in_answer",
            "provider_failed",
            "provider_key_refused",
        }
        body = {"model": "m400", "messages": [{"role": "user", "content": PROMPT}]}
        own = requests.post(f"{stack.base_url}/chat/completions", json=body, headers=bearer(BOB), timeout=30)
        assert (own.status_code, own.json()["error"]["code"]) == (400, "request_refused")
        assert own.json()["error"]["message"] == f"[API_KEY_REDACTED] is wrong for: {PROMPT}"
        seen = {
            "providers": json.dumps(providers),
            "explain": "".join(each.text for each in jobs),
            "table": command(stack, ADMIN, "providers"),
            "json": command(stack, ADMIN, "providers", "--json"),
            "explain, printed": command(stack, BOB, "batch", "explain", batch.id, "--line", "1"),
            "metrics": requests.get(f"{stack.url}/metrics", headers=bearer(ADMIN), timeout=10).text,
            "events": repr(events),
            **{name: (stack.folder / f"{name}.log").read_text() for name in ("worker-1", "api")},
        }
        assert "attempt_failed" in seen["worker-1"]
        assert "p500 answered 500." in seen["providers"]
        assert [name for name, text in seen.items() if PROMPT in text or "nobody must know" in text] == []
        assert [name for name, text in {**seen, "own": own.text}.items() if KEY in text] == []
