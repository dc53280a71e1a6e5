"""One soak: a warm-up, a rest, the load and the disturbances that are judged, and a rest again."""

import os
import random
import sys
import time

import redis
from soak import keys, verdict
from soak.acts import Acts, configure
from soak.asking import Asking
from soak.disturb import Disturber
from soak.gauges import Gauges
from soak.load import Load
from soak.rest import Rest, rest
from support.stack import Stack, running_stack

WARM_UP_S = 600.0
TELLING_S = 1800.0
"""Over a shorter DURATION memory that goes up and down looks like growth: it is shown, and not judged."""

RESTS_S = 180.0
"""Of a shorter DURATION the warm-up has no rest of its own."""

LOOK_S = 5.0
TELL_S = 60.0
MOST_LOG_BYTES = 64 * 1024 * 1024
RETENTION_S = 60
KEYS_S = 90
"""An idempotency key's."""

MOST_FAULTS = 50
ENV = {
    "LLM_EDGE_LEASE_S": "3",
    "LLM_EDGE_CONCURRENCY": "32",
    "LLM_EDGE_RETENTION_S": str(RETENTION_S),
    "LLM_EDGE_JOB_RETENTION_S": str(RETENTION_S),
    "LLM_EDGE_DELIVERED_RETENTION_S": str(RETENTION_S),
    "LLM_EDGE_IDEMPOTENCY_S": str(KEYS_S),
    "LLM_EDGE_WAIT_S": "30",
}
SIMULATOR = ("--persona", "one:latency_s=0.05", "--persona", "two:latency_s=0.05", "--log-size", "1000")


class Soak:
    """`run` gives the exit code; `found` are the faults."""

    def __init__(self, duration_s: float, seed: int, pool: str = "gevent", clients: int = 12) -> None:
        self._duration_s = duration_s
        self._warm_up_s = min(WARM_UP_S, duration_s / 3)
        self._seed = seed
        self._pool = pool
        self._clients = clients
        self.found: list[str] = []

    def run(self) -> int:
        say(
            f"seed {self._seed}, {self._duration_s:.0f} s of load, of which {self._warm_up_s:.0f} s are warm-up; pool {self._pool}"
        )
        with (
            running_stack(
                *SIMULATOR,
                workers=2,
                aof="always",
                part_env=None,
                configure=configure,
                LLM_EDGE_POOL=self._pool,
                **ENV,
            ) as stack,
            stack.valkey.client() as client,
        ):
            self._soak(stack, client)
        for fault in self.found[:MOST_FAULTS]:
            say(f"FAULT {fault}")
        say("soak: failed" if self.found else "soak: passed")
        return 1 if self.found else 0

    def _soak(self, stack: Stack, client: "redis.Redis") -> None:
        rng = random.Random(self._seed)
        second = stack.start_another_api()
        acts = Acts(stack, second, rng)
        gauges = Gauges(client)
        disturber = Disturber(acts, rng, lambda text: say(f"{gauges.now:.0f} s: {text}"))
        load = Load(Asking([stack.base_url, second]), self._seed, clients=self._clients)
        phases = _Phases(stack, client, acts, disturber, load, gauges)

        phases.loaded(self._warm_up_s, store_too=True)
        first = phases.rested() if self._duration_s >= RESTS_S else Rest()
        began = gauges.now
        phases.loaded(self._duration_s - self._warm_up_s, store_too=False)
        ended = gauges.now
        last = phases.rested()

        gauges.processes = {
            name: [s for s in rows if s.at <= ended] for name, rows in gauges.processes.items()
        }
        gauges.store = [s for s in gauges.store if s.at <= ended]
        judged = self._duration_s >= TELLING_S
        self._tell(
            verdict.of_processes(gauges.processes, began, judged=judged),
            verdict.of_store(gauges.store, began, judged=judged),
            verdict.at_rest(first.samples, last.samples),
            (
                ["keys at rest:", *keys.lines(first.kinds, last.kinds)],
                keys.faults(first.kinds, last.kinds, acts.worker_starts),
            ),
            (
                [f"disturbances: {dict(sorted(disturber.counts.items()))}"],
                [f"could not be done: {text}" for text in disturber.failed],
            ),
            _of_jobs(load.asking),
            ([], [*first.faults, *last.faults]),
        )

    def _tell(self, *parts: verdict.Found) -> None:
        for lines, faults in parts:
            self.found += faults
            for line in lines:
                say(line)


class _Phases:
    """The stack under load, and at rest."""

    def __init__(
        self,
        stack: Stack,
        client: "redis.Redis",
        acts: Acts,
        disturber: Disturber,
        load: Load,
        gauges: Gauges,
    ) -> None:
        self._stack = stack
        self._client = client
        self._acts = acts
        self._disturber = disturber
        self._load = load
        self._gauges = gauges

    @property
    def _kept(self) -> dict[str, int]:
        """Those that nobody ends. Valkey is only killed in the warm-up."""
        assert self._stack.api is not None
        return {
            "api": self._stack.api.pid,
            "worker": self._stack.workers[0].pid,
            "valkey": self._stack.valkey.pid,
        }

    def loaded(self, lasts_s: float, *, store_too: bool) -> None:
        self._load.start()
        self._disturber.start(self._acts.all(store_too=store_too))
        try:
            self._watch(lasts_s, looks=not store_too)
        except BaseException:
            self._disturber.abandon()
            self._load.abandon()
            raise
        self._disturber.end()
        self._load.end()

    def _watch(self, lasts_s: float, *, looks: bool) -> None:
        ends = time.monotonic() + lasts_s
        told = time.monotonic()
        while (left := ends - time.monotonic()) > 0:
            if looks:
                self._gauges.look(self._kept)
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                self._say_so_far()
                _cut_logs(self._stack)
            time.sleep(min(LOOK_S, left))

    def rested(self) -> Rest:
        say(f"{self._gauges.now:.0f} s: at rest")
        over_s = RETENTION_S + KEYS_S + 30.0
        found = rest(
            self._stack,
            self._client,
            self._gauges,
            self._kept,
            worker_starts=self._acts.worker_starts,
            over_s=over_s,
        )
        say(f"{self._gauges.now:.0f} s: rested")
        return found

    def _say_so_far(self) -> None:
        counts = self._load.asking.counts
        shown = {name: counts[name] for name in ("accepted", "ended", "batches", "lost", "doubled", "faults")}
        memory = {name: f"{rows[-1].rss / 2**20:.1f}" for name, rows in self._gauges.processes.items()}
        say(
            f"{self._gauges.now:.0f} s: {shown}, disturbed {self._disturber.counts.total()} times; MiB {memory}"
        )


def _of_jobs(asking: Asking) -> verdict.Found:
    counts = asking.counts
    lines = [
        f"accepted {counts['accepted']:,}, ended {counts['ended']:,}, lost {counts['lost']}, doubled {counts['doubled']}",
        f"load: {dict(sorted(counts.items()))}",
    ]
    missing = counts["accepted"] - counts["ended"]
    return lines, [
        *asking.faults,
        *([f"{missing} of those accepted were not seen to end"] if missing else []),
    ]


def _cut_logs(stack: Stack) -> None:
    """A day's logs would fill a disk. The processes append, so they go on at the new end."""
    for path in stack.folder.glob("*.log"):
        if path.stat().st_size > MOST_LOG_BYTES:
            os.truncate(path, 0)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
