"""Real processes with ledger and broker on a server each: what an idle one asks of either, and what a batch job does."""

from bench.prompts import rows as prompts
from bench.report import Finding
from bench.section import IN_FLIGHT, batch, fleet, wait_for_status, warm
from redis import Redis
from scaling.costs import COLUMNS, Cost, Meter
from support.stack import Stack
from support.stores import really_wait
from support.valkey import running_valkey

JOBS = 5_000
LATENCY_S = 0.05
WATCH_S = 20.0
SETTLE_S = 5.0
WORKERS = 2
SERVERS = ("ledger", "broker")


class Pair:
    """Both servers' counters."""

    def __init__(self, clients: "list[Redis]") -> None:
        self._clients = clients
        self._meters: list[Meter] = []

    def begin(self) -> None:
        self._meters = [Meter(client, count_info=True) for client in self._clients]

    def spent(self) -> list[Cost]:
        return [meter.spent() for meter in self._meters]

    def a_second(self) -> list[Cost]:
        self.begin()
        really_wait(WATCH_S)
        return [cost.per(cost.wall_s) for cost in self.spent()]


def run(jobs: int = JOBS) -> Finding:
    with (
        running_valkey() as broker,
        fleet(LATENCY_S, workers=0, BROKER_URL=broker.url) as stack,
        stack.valkey.client() as ledger_client,
        broker.client() as broker_client,
    ):
        pair = Pair([ledger_client, broker_client])
        really_wait(SETTLE_S)  # each process loads its scripts
        api = pair.a_second()
        for _ in range(WORKERS):
            stack.start_worker()
        warm(stack)
        both = pair.a_second()
        busy = _busy(stack, pair, jobs)
    rows = []
    figures: dict[str, object] = {}
    idle = [(after - before).per(WORKERS) for before, after in zip(api, both, strict=True)]
    for what, found in (
        ("an idle API process, a second", api),
        ("an idle worker, a second", idle),
        ("a batch job", busy),
    ):
        whole = found[0] + found[1]
        for server, cost in zip(SERVERS, found, strict=True):
            rows.append([f"{what}: {server}", *cost.cells(), f"{100 * cost.cpu_s / whole.cpu_s:.0f} %"])
            figures[f"{what}: {server}"] = {"cpu_us": cost.cpu_us, "commands": cost.commands + cost.scripts}
    return Finding(
        title=f"Ledger and broker apart: real processes, {WORKERS} workers, {IN_FLIGHT} calls in flight each",
        columns=["", *COLUMNS, "of both servers' CPU"],
        rows=rows,
        notes=[
            (
                f"{jobs:,} jobs, provider at {1000 * LATENCY_S:.0f} ms; what the processes ask anyway is in it, and so are task events."
                " The servers' own housekeeping, and the reaping, are in the API's lines, which are those of a fleet without workers."
            )
        ],
        figures=figures,
    )


def _busy(stack: Stack, pair: Pair, jobs: int) -> list[Cost]:
    data = prompts(jobs)
    pair.begin()
    wait_for_status(stack, batch(stack, data).id, "completed")
    return [cost.per(jobs) for cost in pair.spent()]
