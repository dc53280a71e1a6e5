"""The shipped Redis users on a server whose default user is off: all that a fleet does works, and nothing beyond it."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from celery import Celery
from kombu.exceptions import OperationalError
from support.batches import line, lines, outcomes, submit, wait_for_end
from support.edge import edge
from support.servers import running_server
from support.stack import Stack, free_port, running_stack
from support.waiting import wait_for

from shared.broker import celery_settings
from shared.config import load_settings
from shared.redis_acl import API_USER, WORKER_USER, acl_lines

WORDS = {API_USER: "words-of-the-api", WORKER_USER: "words-of-the-workers", "admin": "words-of-the-test"}

WHAT_FLOWER_SHOWS = {"task-sent", "task-received", "task-succeeded", "worker-heartbeat"}


@dataclass(frozen=True)
class Guarded:
    port: int

    def client(self, user: str) -> "redis.Redis":
        return redis.Redis(port=self.port, username=user, password=WORDS[user], decode_responses=True)

    def env(self, user: str) -> dict[str, str]:
        return {
            "REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "REDIS_USERNAME": user,
            "REDIS_PASSWORD": WORDS[user],
        }

    def denied(self) -> set[tuple[str, str, str]]:
        """User, reason and object of what the server has refused, without redis-py's telling its name."""
        with self.client("admin") as admin:
            entries = admin.acl_log(1000)
        found = {(e["username"], e["reason"], e["object"]) for e in entries}
        return {entry for entry in found if entry[2] != "client|setinfo"}


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    server = Guarded(free_port())
    hashes = {user: "#" + hashlib.sha256(word.encode()).hexdigest() for user, word in WORDS.items()}
    users = [*acl_lines(prefix="le", db=0, passwords=hashes), f"user admin on {hashes['admin']} ~* &* +@all"]
    with running_server(
        "guarded",
        [f"port {server.port}", "enable-debug-command yes", *users],
        client=lambda: server.client("admin"),
    ):
        yield server


def both(guarded: Guarded) -> dict[str, dict[str, str]]:
    return {"api": guarded.env(API_USER), "worker": guarded.env(WORKER_USER)}


def assert_nothing_was_denied(stack: Stack, guarded: Guarded) -> None:
    assert guarded.denied() == set()
    for log in stack.folder.glob("*.log"):
        text = log.read_text()
        assert "NOPERM" not in text
        assert "denies" not in text
        assert not any(word in text for word in WORDS.values())


def ask(stack: Stack, text: str) -> str | None:
    messages: Any = [{"role": "user", "content": text}]
    return stack.client.chat.completions.create(model="m", messages=messages).choices[0].message.content


def ask_later(stack: Stack, text: str) -> str:
    answer = requests.post(
        f"{stack.base_url}/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": text}]},
        headers={"Prefer": "respond-async"},
        timeout=5,
    )
    assert answer.status_code == 202
    return f"{stack.base_url}/jobs/{answer.json()['id']}"


def completed(job: str) -> bool:
    found: bool = requests.get(job, timeout=5).json()["status"] == "completed"
    return found


def test_batches_run_with_both_users_on_both_pools_and_nothing_is_denied(guarded: Guarded) -> None:
    with running_stack(part_env=both(guarded), LLM_EDGE_CONCURRENCY="16") as stack:
        stack.start_worker("--pool", "threads")
        stack.simulator.patch(latency_s=0.05, rules=[{"match": "^twice", "status": 503, "times": 2}])
        with stack.client as client:
            rows = [*lines(300), *(line(f"twice-{n}", f"twice {n}") for n in range(20))]
            batch, cancelled = submit(client, rows), submit(client, lines(3000, "never"))
            client.files.delete(client.files.create(file=("a", b"{}"), purpose="batch").id)
            wait_for(lambda: len(stack.simulator.calls()) > 50, 30, "some calls")
            stack.kill_worker(stack.workers[0])
            client.batches.cancel(cancelled.id)
            stack.start_worker(wait=False)
            ended = wait_for_end(client, batch.id)
            assert ended.status == "completed"
            assert all(row["error"] is None for row in outcomes(client, ended).values())
            assert wait_for_end(client, cancelled.id).status == "cancelled"
            assert len(client.batches.list().data) == 2
            assert len(client.files.list().data) >= 2
            assert requests.get(f"{stack.url}/health/ready", timeout=5).ok
        stack.stop()
        assert_nothing_was_denied(stack, guarded)


def test_lone_jobs_run_with_both_users_on_both_pools_and_nothing_is_denied(guarded: Guarded) -> None:
    """Waited for, polled, tried again, asked for twice, cancelled, deleted, and left by a worker that died."""
    with running_stack(workers=1, part_env=both(guarded)) as stack:
        stack.start_worker("--pool", "threads")
        stack.simulator.patch(latency_s=0.2, rules=[{"match": "^twice", "status": 503, "times": 2}])
        with ThreadPoolExecutor(16) as callers:
            asked = [
                callers.submit(ask, stack, f"{word} {n}") for n in range(8) for word in ("once", "twice")
            ]
            assert all(answer.result() for answer in asked)
        polled = [ask_later(stack, "again"), ask_later(stack, "twice more")]
        for job in polled:
            wait_for(partial(completed, job), 20, "the job to end")
            assert requests.delete(job, timeout=5).json()["deleted"]
        stack.simulator.patch(latency_s=3.0)
        impatient = stack.client.with_options(
            timeout=1.2, max_retries=4
        )  # each repetition joins the same job
        assert impatient.chat.completions.create(model="m", messages=[{"role": "user", "content": "slow"}])
        with ThreadPoolExecutor(1) as callers:
            survivor = callers.submit(ask, stack, "a worker dies")
            wait_for(lambda: "a worker dies" in str(stack.simulator.calls()), 20, "the call")
            for worker in tuple(stack.workers):
                stack.kill_worker(worker)
            left = ask_later(stack, "cancelled before anybody takes it")
            assert requests.delete(left, timeout=5).ok
            stack.simulator.reset()
            stack.start_worker(wait=False)
            assert survivor.result(30)
        assert requests.get(f"{stack.base_url}/jobs", timeout=5).json()["data"]
        stack.stop()
        assert_nothing_was_denied(stack, guarded)


def test_plain_celery_its_remote_control_and_its_events_run_as_the_workers_user(guarded: Guarded) -> None:
    """`celery worker` with gossip and mingle, as the README has it; `inspect`; what Flower listens to."""
    heard: set[str] = set()
    env = guarded.env(WORKER_USER)
    with running_stack(workers=0, part_env=both(guarded)) as stack:
        command = [sys.executable, "-m", "celery", "-A", "workers.app", "worker", "-P", "gevent"]
        with (stack.folder / "celery.log").open("wb") as log:
            worker = subprocess.Popen(
                [*command, "-Q", "interactive,batch"], env={**stack.env, **env}, stdout=log, stderr=log
            )
        try:
            wait_for(stack.workers_alive, 30, "the worker to report")
            app = Celery(set_as_current=False)
            app.conf.update(celery_settings(load_settings(env), "worker"))
            with app.connection_for_read() as connection:
                assert app.control.ping(timeout=3, connection=connection)
                receiver = app.events.Receiver(connection, handlers={"*": lambda e: heard.add(e["type"])})
                with stack.client as client:
                    batch = None
                    for _ in receiver.consume(limit=None, timeout=10):
                        if heard and batch is None:  # a heartbeat: from here on nothing is missed
                            batch = submit(client, lines(20))
                        if heard >= WHAT_FLOWER_SHOWS:
                            break
                    assert batch is not None
                    assert wait_for_end(client, batch.id).status == "completed"
            worker.terminate()
            worker.wait(20)
        finally:
            worker.kill()
            worker.wait()
        assert heard >= WHAT_FLOWER_SHOWS
        assert_nothing_was_denied(stack, guarded)


def test_the_workers_user_may_put_back_what_a_dead_worker_held(guarded: Guarded) -> None:
    """kombu's own sweep, which runs once in minutes: WATCH, a lock, and messages moved back into their queue."""
    app = Celery(set_as_current=False)
    app.conf.update(celery_settings(load_settings(guarded.env(WORKER_USER)), "worker"))
    app.conf.broker_transport_options["visibility_timeout"] = 0
    with app.connection_for_write() as connection:
        app.send_task("x", queue="batch", connection=connection)
        channel: Any = connection.default_channel
        assert channel.basic_get("batch") is not None
        assert channel.basic_get("batch") is None
        channel.qos.restore_visible(interval=1)
        assert channel.basic_get("batch") is not None
    assert guarded.denied() == set()


def test_a_wrong_password_ends_both_parts_at_once_with_a_word(guarded: Guarded, tmp_path: Path) -> None:
    wrong = {**os.environ, **guarded.env(API_USER), "REDIS_PASSWORD": "hush-hush"}
    (tmp_path / "providers.yaml").write_text("providers: [{id: a, endpoint: 'http://127.0.0.1:1/v1'}]")
    for words in (("api",), ("worker",), ("config", "check"), ("up", "--port", "0")):
        command = edge(tmp_path, *words, env=wrong)
        said = command.out + command.err
        assert command.process.returncode == 1, said
        assert "Redis refuses the user name or password" in said
        assert "hush-hush" not in said
        assert API_USER not in said


def test_a_permission_taken_away_is_a_503_that_says_which(guarded: Guarded) -> None:
    with running_stack(workers=0, part_env=both(guarded)) as stack:
        with guarded.client("admin") as admin:
            admin.execute_command("ACL", "SETUSER", API_USER, "-hset")
        answer = requests.post(
            f"{stack.base_url}/files", data={"purpose": "batch"}, files={"file": ("a", b"{}")}, timeout=5
        )
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        error = answer.json()["error"]
        assert error["code"] == "store_refused"
        assert "HSET" in error["message"]
        assert "llm-edge config acl" in error["message"]
        with guarded.client("admin") as admin:  # and one that a script needs
            admin.execute_command("ACL", "SETUSER", API_USER, "+hset", "-zadd")
        answer = requests.post(
            f"{stack.base_url}/files", data={"purpose": "batch"}, files={"file": ("a", b"{}")}, timeout=5
        )
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "store_refused"
        assert API_USER not in answer.text
        assert WORDS[API_USER] not in (stack.folder / "api.log").read_text()


NEVER = (
    *(
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
    ),
    *("SHUTDOWN NOSAVE", "DEBUG SLEEP 0", "ACL LIST", "ACL SETUSER x", "REPLICAOF NO ONE", "MONITOR", "SAVE"),
    *(
        "CLIENT LIST",
        "CLIENT PAUSE 1",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "PUBSUB CHANNELS",
        "EVAL x 0",
        "MIGRATE 127.0.0.1 1 le:a 0 1",
    ),
)


@pytest.mark.parametrize("user", [API_USER, WORKER_USER])
@pytest.mark.parametrize("command", NEVER)
def test_neither_user_rules_the_server(guarded: Guarded, user: str, command: str) -> None:
    with guarded.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


@pytest.mark.parametrize("user", [API_USER, WORKER_USER])
def test_neither_user_reads_anothers_keys(guarded: Guarded, user: str) -> None:
    with guarded.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.get("another:fleet")


def test_only_the_workers_user_may_use_remote_control(guarded: Guarded) -> None:
    channel = "/0.celery.pidbox"
    with guarded.client(API_USER) as client:
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.publish(channel, "{}")
        assert client.publish("le:replies:1", "x") == 0
        assert client.publish("/0.celeryev/task.sent", "x") == 0
    for user in (API_USER, WORKER_USER):
        app = Celery(set_as_current=False)
        app.conf.update(celery_settings(load_settings(guarded.env(user)), "api"))
        with app.connection_for_write() as connection:
            refused = (redis.exceptions.NoPermissionError, OperationalError)
            with pytest.raises(refused) if user == API_USER else nullcontext():
                app.control.broadcast("shutdown", connection=connection)
    with guarded.client(WORKER_USER) as client:
        assert client.publish(channel, "{}") == 0
