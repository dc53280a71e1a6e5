"""`make soak DURATION=1h`: a stack under load and disturbed at random, by a seed; exit code 1 where anything was lost, doubled, or grew.

What is printed at the end: what was accepted and what became of it, what befell the stack, what its processes and Redis
took. `SEED=N` repeats the disturbances of an earlier run.
"""

import argparse
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak import verdict
from soak.disturb import Disturber, reachable
from soak.gauges import Gauges
from soak.load import Load
from support.stack import Stack, running_stack
from support.waiting import wait_for

WARM_UP_S = 600.0
LOOK_S = 5.0
SETTLE_S = 120.0
_UNITS = {"s": 1, "m": 60, "h": 3600}
_ENV = {
    "LLM_EDGE_LEASE_S": "3",
    "LLM_EDGE_CONCURRENCY": "32",
    "LLM_EDGE_RETENTION_S": "60",
    "LLM_EDGE_JOB_RETENTION_S": "60",
    "LLM_EDGE_DELIVERED_RETENTION_S": "60",
    "LLM_EDGE_WAIT_S": "30",
}


def main() -> int:
    asked = _asked()
    duration_s = seconds(asked.duration)
    say(f"seed {asked.seed}, {duration_s:.0f} s, pool {asked.pool}")
    with running_stack(
        workers=2, aof=True, part_env=None, configure=Stack.configure, LLM_EDGE_POOL=asked.pool, **_ENV
    ) as stack:
        stack.simulator.patch(latency_s=0.05)
        second = _Second(stack)
        load = Load([stack.base_url, second.url], asked.seed, clients=asked.clients)
        disturber = Disturber(stack, second.replace, asked.seed)
        with stack.valkey.client() as client:
            gauges = Gauges(client)
            _run(stack, load, disturber, gauges, duration_s)
            reachable(client)
            say("the load ends")
            load.end()
            faults = [*load.faults, *(f"could not be done: {text}" for text in disturber.failed)]
            faults += _settled(stack)
        return _tell(load, disturber, gauges, min(WARM_UP_S, duration_s / 6), faults)


def _run(stack: Stack, load: Load, disturber: Disturber, gauges: Gauges, duration_s: float) -> None:
    assert stack.api is not None
    kept = {"api": stack.api.pid, "worker": stack.workers[0].pid, "valkey": stack.valkey.pid}
    load.start()
    disturber.start()
    ends = time.monotonic() + duration_s
    told = time.monotonic()
    while (left := ends - time.monotonic()) > 0:
        gauges.look(kept)
        if time.monotonic() - told > 60:
            told = time.monotonic()
            say(f"{gauges.now:.0f} s: {dict(load.counts)}, disturbed {sum(disturber.counts.values())} times")
        time.sleep(min(LOOK_S, left))
    disturber.end()


class _Second:
    """A second API process, which may be killed."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.url = stack.start_another_api()

    def replace(self) -> None:
        self._stack.kill_another_api()
        self._stack.start_another_api(self.url)


def _settled(stack: Stack) -> list[str]:
    """Nothing is left under way, and a canary runs soon."""
    faults = []
    with stack.valkey.client() as client:

        def empty() -> bool:
            sets = [client.zcard(f"le:{name}") for name in ("leases", "hints", "lone:leases")]
            return not any(sets)

        try:
            wait_for(empty, SETTLE_S, "leases and hints to be gone")
        except AssertionError as exc:
            faults.append(str(exc))
    started = time.monotonic()
    with stack.client as api:
        api.chat.completions.create(model="m", messages=[{"role": "user", "content": "canary"}], max_tokens=5)
    took_s = time.monotonic() - started
    say(f"a canary took {took_s:.2f} s")
    return [*faults, *([f"a canary took {took_s:.1f} s"] if took_s > 2 else [])]


def _tell(load: Load, disturber: Disturber, gauges: Gauges, warm_up_s: float, faults: list[str]) -> int:
    processes = verdict.of_processes(gauges.processes, warm_up_s)
    store = verdict.of_store(gauges.store, warm_up_s)
    counts = load.counts
    say(
        f"accepted {counts['accepted']:,}, ended {counts['ended']:,}, lost {counts['lost']}, doubled {counts['doubled']}"
    )
    say(f"load: {dict(sorted(counts.items()))}")
    say(f"disturbances: {dict(sorted(disturber.counts.items()))}")
    for line in (*processes[0], *store[0]):
        say(line)
    found = [*faults, *processes[1], *store[1]]
    if counts["accepted"] != counts["ended"]:
        found.append(f"{counts['accepted'] - counts['ended']} of those accepted were not seen to end")
    for fault in found[:50]:
        say(f"FAULT {fault}")
    say("soak: failed" if found else "soak: passed")
    return 1 if found else 0


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise SystemExit(f"DURATION must be a number and s, m or h, such as 1h; it is {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--duration", default="1h", help="a number and s, m or h")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pool", choices=["gevent", "threads"], default="gevent")
    parser.add_argument("--clients", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
