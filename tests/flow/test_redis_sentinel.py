"""The ledger and Celery's broker behind three sentinels: the master dies in mid-batch, and the work goes on.

With TLS on every connection, the servers' own included, it needs a server that has TLS: the wheel's is built without.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import openai
import pytest
import redis
from support.authority import Authority, Signed
from support.batches import lines, outcomes, submit, wait_for_end
from support.edge import edge
from support.servers import Process, running_server, system_server
from support.stack import Stack, free_port, running_stack
from support.waiting import wait_for

from shared.redis_acl import API_USER, WORKER_USER, acl_lines

pytestmark = [pytest.mark.verify, pytest.mark.timeout(300)]

SENTINEL_WORD = "words-of-the-sentinels"
WORDS = {name: f"words-of-{name}" for name in (API_USER, WORKER_USER, "sentinel", "replica", "admin")}

SERVERS_USERS = """
user sentinel on {sentinel} &* +multi +slaveof +ping +exec +subscribe +config|rewrite +role +publish +info +client|setname +client|kill +script|kill
user replica on {replica} +psync +replconf +ping
user admin on {admin} ~* &* +@all
"""
"""Redis' own words for what its servers need of each other, as ops/docs/redis.md has them."""


@dataclass
class Watched:
    """A master, a replica and three sentinels, all with passwords."""

    ca: Path | None = None
    signed: Signed | None = None
    data: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    sentinels: tuple[int, ...] = field(default_factory=lambda: (free_port(), free_port(), free_port()))
    processes: dict[int, Process] = field(default_factory=dict)

    def env(self, user: str) -> dict[str, str]:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return {
            "REDIS_URL": f"sentinel{'s' if self.ca else ''}://{hosts}/0?master=ours",
            "REDIS_USERNAME": user,
            "REDIS_PASSWORD": WORDS[user],
            "REDIS_SENTINEL_PASSWORD": SENTINEL_WORD,
            **({"REDIS_TLS_CA": str(self.ca)} if self.ca else {}),
        }

    def client(self, port: int) -> "redis.Redis":
        user = None if port in self.sentinels else "admin"
        return redis.Redis(
            host="127.0.0.1",
            port=port,
            username=user,
            password=WORDS[user] if user else SENTINEL_WORD,
            decode_responses=True,
            socket_timeout=2,
            ssl=bool(self.ca),
            ssl_ca_certs=str(self.ca),
        )

    def port_lines(self, port: int) -> list[str]:
        if self.signed is None:
            return [f"port {port}"]
        return [
            *("port 0", f"tls-port {port}", "tls-replication yes", "tls-auth-clients no"),
            *(
                f"tls-cert-file {self.signed.cert}",
                f"tls-key-file {self.signed.key}",
                f"tls-ca-cert-file {self.ca}",
            ),
        ]

    def server_lines(self, port: int) -> list[str]:
        hashes = {name: f"#{hashlib.sha256(word.encode()).hexdigest()}" for name, word in WORDS.items()}
        return [
            *self.port_lines(port),
            *("appendonly yes", "masteruser replica", f"masterauth {WORDS['replica']}"),
            *acl_lines(prefix="le", db=0, passwords=hashes),
            *SERVERS_USERS.format_map(hashes).splitlines(),
            *([f"replicaof 127.0.0.1 {self.data[0]}"] if port == self.data[1] else []),
        ]

    def sentinel_lines(self, port: int) -> list[str]:
        return [
            *(
                *self.port_lines(port),
                f"requirepass {SENTINEL_WORD}",
                f"sentinel sentinel-pass {SENTINEL_WORD}",
            ),
            *(f"sentinel monitor ours 127.0.0.1 {self.data[0]} 2", "sentinel auth-user ours sentinel"),
            f"sentinel auth-pass ours {WORDS['sentinel']}",
            *("sentinel down-after-milliseconds ours 1000", "sentinel failover-timeout ours 5000"),
        ]

    def master(self) -> int:
        with self.client(self.sentinels[-1]) as asked:
            return int(asked.sentinel_get_master_addr_by_name("ours")[1])

    def ready(self) -> bool:
        """Every sentinel knows the two others and the replica, and that is in step."""
        for port in self.sentinels:
            with self.client(port) as asked:
                known = asked.sentinel_master("ours")
                if (known["num-slaves"], known["num-other-sentinels"]) != (1, 2):
                    return False
        with self.client(self.data[0]) as asked:
            return any("online" in str(value) for value in asked.info("replication").values())


@pytest.fixture(params=["plain", "tls"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    found, program = Watched(), None
    if request.param == "tls":
        authority, program = Authority(tmp_path), system_server()
        found = Watched(authority.ca, authority.sign("server", "127.0.0.1"))
    with ExitStack() as processes:
        for port in (*found.data, *found.sentinels):
            guard = port in found.sentinels
            configuration = found.sentinel_lines(port) if guard else found.server_lines(port)
            running = running_server(
                f"redis-{port}",
                configuration,
                client=partial(found.client, port),
                program=program,
                sentinel=guard,
            )
            found.processes[port] = processes.enter_context(running)
        wait_for(found.ready, 30, "the sentinels to know each other")
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
