"""A replica of a stack's Valkey, whose link can be cut."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from support.servers import Process, running_server
from support.stack import free_port
from support.valkey import Valkey
from support.waiting import wait_for


class Replica:
    """One replica in step with its master."""

    def __init__(self, master: Valkey, port: int, process: Process) -> None:
        self.port = port
        self._master = master
        self._process = process

    def client(self) -> "redis.Redis":
        return redis.Redis(port=self.port, password=self._master.password)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Within it the replica hears nothing and says nothing: its link is cut, and it is stopped."""
        stop_listening(self._process, self._master.client())
        try:
            yield
        finally:
            self._process.go_on()


def stop_listening(replica: Process, master: "redis.Redis") -> None:
    """What the master writes from now on does not even lie in the replica's socket. Closes `master`."""
    replica.halt()
    with master:
        master.execute_command("CLIENT", "KILL", "TYPE", "replica")  # type: ignore[no-untyped-call]


def in_step(master: "redis.Redis") -> bool:
    """Whether a replica has acknowledged a write. Closes `master`."""
    with master:
        master.set("in-step", 1, ex=60)
        return int(master.wait(1, 500)) >= 1


@contextmanager
def running_replica(master: Valkey) -> Iterator[Replica]:
    port = free_port()
    configuration = [
        f"port {port}",
        f"replicaof 127.0.0.1 {master.port}",
        f"masterauth {master.password}",
        f"requirepass {master.password}",
    ]

    def client() -> "redis.Redis":
        return redis.Redis(port=port, password=master.password)

    with running_server(f"replica-{port}", configuration, client=client) as process:
        wait_for(lambda: in_step(master.client()), 30, "the replica to be in step")
        yield Replica(master, port, process)
