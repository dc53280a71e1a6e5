"""The ledger and Celery's broker behind three sentinels: the master dies in mid-batch, and the work goes on.

With TLS on every connection, the servers' own included, it needs a server that has TLS: the wheel's is built without.
"""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support.batches import lines, outcomes, submit, wait_for_end
from support.edge import edge
from support.stack import Stack, running_stack
from support.waiting import wait_for
from support.watched import SENTINEL_WORD, WORDS, Watched, running_watched

from shared.redis_acl import API_USER, WORKER_USER

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]


@pytest.fixture(params=["plain", "tls"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    with running_watched(tmp_path if request.param == "tls" else None) as found:
        yield found


def answered(stack: Stack, text: str) -> bool:
    try:
        with stack.client as client:
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], timeout=5)
    except openai.OpenAIError:
        return False
    return True


def test_the_master_dies_in_mid_batch_and_the_replica_takes_over(watched: Watched) -> None:
    parts = {"api": watched.env(API_USER), "worker": watched.env(WORKER_USER)}
    with running_stack(part_env=parts, LLM_EDGE_CONCURRENCY="16") as stack, stack.client as client:
        stack.simulator.patch(latency_s=0.1)
        wait_for(lambda: answered(stack, "before"), 30, "a lone job's answer")
        batch = submit(client, lines(2000))
        wait_for(lambda: len(stack.simulator.calls()) > 400, 60, "a part of the batch to be done")
        watched.processes[watched.data[0]].kill()
        wait_for(lambda: watched.master() == watched.data[1], 30, "the replica's promotion")
        wait_for(lambda: answered(stack, "after"), 30, "lone jobs to be served again")
        ended = wait_for_end(client, batch.id, 120)
        assert ended.status == "completed"
        assert all(row["error"] is None for row in outcomes(client, ended).values())
        again = submit(client, lines(50, "anew"))
        assert wait_for_end(client, again.id).status == "completed"
        assert all(worker.poll() is None for worker in stack.workers)
        stack.stop()
        for log in stack.folder.glob("*.log"):
            assert not any(word in log.read_text() for word in (SENTINEL_WORD, *WORDS.values()))


def test_what_can_be_wrong_about_sentinels_is_said(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "providers.yaml").write_text("providers: [{id: a, endpoint: 'http://127.0.0.1:1/v1'}]")
    env = watched.env(WORKER_USER)
    url = env["REDIS_URL"]
    cases = (
        ({"REDIS_SENTINEL_PASSWORD": "hush"}, "A sentinel refuses the password. Set REDIS_SENTINEL_PASSWORD"),
        ({"REDIS_PASSWORD": "hush"}, "Redis refuses the user name or password"),
        ({"REDIS_URL": url.replace("ours", "theirs")}, "the master's name is misspelt"),
        ({"REDIS_URL": url.partition("?")[0]}, "add ?master=NAME"),
    )
    for changes, words in cases:
        command = edge(tmp_path, "config", "check", env={"PATH": "/usr/bin:/bin", **env, **changes})
        said = command.out + command.err
        assert command.process.returncode == 1, said
        assert words in said
        assert "hush" not in said
        assert not any(word in said for word in WORDS.values())
