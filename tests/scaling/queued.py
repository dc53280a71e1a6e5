"""Does what a job costs grow with the jobs that are queued? One server for each number of them; they are worked off in turn.

In turn, round by round, so that what else the machine does weighs on all of them alike.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from bench.report import Finding
from scaling.costs import Meter
from scaling.filling import LINE_BYTES, MOST, Filler
from scaling.life import ACCEPTING, fill
from scaling.scene import Scene, scene
from scaling.working import Crew, Phases
from support.ledgers import worker

from shared.redis_room import room_reader

ROUND = 5_000
ROUNDS = 6
SAMPLE = ROUND * ROUNDS
WORK = ("hand out", "claim", "read its line", "gate", "finish", "release", "roll up")
BATCHES = (1, 100, 1_000)
FEW = 10
_TIMES = 100
_LEADER_S = 3.0


def stages(jobs: int) -> list[int]:
    """100,000, a million and five, where five million are asked for; the first bears the sample."""
    return sorted({max(SAMPLE, n // MOST * MOST or n) for n in (jobs // 50, jobs // 5, jobs)})


@dataclass
class Stage:
    """A server with so many jobs queued, and what was measured there."""

    goal: int
    scene: Scene
    crew: Crew
    accepting: Phases
    held: float
    own: float
    rounds: list[Phases] = field(default_factory=list)

    @classmethod
    def of(cls, goal: int, scene: Scene, workers: int) -> "Stage":
        meter, accepting = Meter(scene.client), Phases()
        fill(scene, Filler(scene), goal, accepting)
        held = meter.spent().memory / goal
        return cls(goal, scene, Crew(scene, workers), accepting, held, _own_bytes(scene))

    def work(self) -> None:
        self.crew.beat(ROUND)
        self.rounds.append(Phases())
        self.crew.work(ROUND, self.rounds[-1])

    def us(self, name: str) -> float:
        """A round in which no segment became whole says nothing of rolling up."""
        return median(found.per_job(name).cpu_us for found in self.rounds if found.jobs[name])

    @property
    def all_us(self) -> float:
        return sum(self.us(name) for name in WORK)

    @property
    def commands(self) -> float:
        return sum(
            median(found.per_job(name).commands for found in self.rounds if found.jobs[name]) for name in WORK
        )

    def latency(self, name: str) -> str:
        whole = Phases(took={name: [took for found in self.rounds for took in found.took[name]]})
        return f"{whole.ms(name, 0.5):.2f} / {whole.ms(name, 0.99):.2f}"

    def row(self) -> list[str]:
        return [
            f"{self.goal:,}",
            f"{sum(self.accepting.per_job(name).cpu_us for name in ACCEPTING):.2f}",
            f"{self.held - self.own:.0f} + {self.own:.1f}",
            *(f"{self.us(name):.1f}" for name in WORK),
            f"{self.all_us:.1f}",
            f"{self.commands:.2f}",
            *(self.latency(name) for name in ("claim", "finish")),
        ]


def run(jobs: int, workers: int) -> Finding:
    with ExitStack() as servers:
        found = [Stage.of(goal, servers.enter_context(scene()), workers) for goal in stages(jobs)]
        for _ in range(ROUNDS):
            for stage in found:
                stage.work()
        rows = [stage.row() for stage in found]
    return Finding(
        title=f"Jobs queued, and what one more costs; Redis CPU in µs a job, {workers} workers",
        columns=[
            *("queued", "accepting", "bytes a job: body + ledger", *WORK, "in all", "commands a job"),
            *("a claim, P50 / P99 ms", "a finish"),
        ],
        rows=rows,
        notes=[
            (
                f"A server each; {ROUNDS} times {ROUND:,} jobs were worked off on each in turn, medians; lines of {LINE_BYTES} bytes, in"
                f" batches of {MOST:,}."
            )
        ],
        figures={
            "goals": [stage.goal for stage in found],
            "cpu_us": [stage.all_us for stage in found],
            "bytes": [stage.held for stage in found],
            "commands": [stage.commands for stage in found],
        },
    )


def _own_bytes(scene: Scene) -> float:
    """What the ledger itself keeps of a job of the newest batch, by MEMORY USAGE."""
    keys = scene.keys
    newest: Any = scene.client.zrevrangebylex(keys.batches("default"), "+", "-", start=0, num=1)
    name = newest[0].decode()
    total = int(scene.ledger.get(name).total)  # type: ignore[union-attr]
    mine = (keys.batch(name), keys.index(name), keys.states(name))
    return sum(int(scene.client.memory_usage(key) or 0) for key in mine) / total


def intervals(batches: Sequence[int] = BATCHES) -> Finding:
    """What is asked again and again, with few and with many batches running."""
    with ExitStack() as servers:
        asks = []
        for count in batches:
            made = servers.enter_context(scene())
            filler = Filler(made, most=FEW)
            fill(made, filler, FEW * count, Phases())
            asks.append((made, _asks(made)))
        found: dict[str, list[list[float]]] = {name: [[] for _ in asks] for name in asks[0][1]}
        for _ in range(ROUNDS):
            for n, (made, each) in enumerate(asks):
                for name, ask in each.items():
                    found[name][n].append(cpu_us(made, ask))
    medians = {name: [median(rounds) for rounds in each] for name, each in found.items()}
    return Finding(
        title="What is asked at intervals; Redis CPU in µs a call",
        columns=["", *(f"{count:,} batches running" for count in batches)],
        rows=[[name, *(f"{us:.0f}" for us in each)] for name, each in medians.items()],
        figures=medians,
    )


def _asks(scene: Scene) -> dict[str, Callable[[], object]]:
    return {
        "beat": partial(scene.ledger.beat, worker("w0")),
        "lead": partial(scene.ledger.lead, "w0", _LEADER_S),
        "take_chore": partial(scene.ledger.take_chore, 1.0),
        "reap": partial(scene.ledger.reap, most=100),
        "lone_reap": partial(scene.lone.reap, most=100),
        "room, as a worker asks: INFO memory": room_reader(scene.client),
        "room, as an API process asks": room_reader(scene.client, "le", least_answer_bytes=2048),
    }


def cpu_us(scene: Scene, ask: Callable[[], object], times: int = _TIMES) -> float:
    """Of one call. What an `INFO` of the call itself took is in it."""
    ask()
    meter = Meter(scene.client)
    for _ in range(times):
        ask()
    return meter.spent().cpu_us / times
