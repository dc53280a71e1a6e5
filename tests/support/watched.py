"""A master, a replica and three sentinels, all with passwords, and with TLS where asked for."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis
from support.authority import Authority, Signed
from support.servers import Process, running_server, system_server
from support.stack import free_port
from support.waiting import wait_for

from shared.redis_acl import API_USER, WORKER_USER, acl_lines

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


@contextmanager
def running_watched(tls_folder: Path | None = None) -> Iterator[Watched]:
    """Once the sentinels know each other and the replica is in step. With a folder for its certificates: over TLS."""
    found, program = Watched(), None
    if tls_folder is not None:
        authority, program = Authority(tls_folder), system_server()
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
