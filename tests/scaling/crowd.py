"""Does what a job, or a worker that waits for one, costs grow with the number of workers?"""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from bench.report import Finding
from bench.tools import ROOT
from scaling.costs import Cost, Meter
from scaling.filling import Filler
from scaling.life import fill
from scaling.queued import cpu_us
from scaling.scene import Scene, scene
from scaling.working import TOGETHER, Crew, Phases
from support.stores import really_wait
from support.waiting import wait_for

WATCH_S = 5.0
ROUND = 5_000
ROUNDS = 4
_PLENTY = 1_000_000
_IDLING = Path(__file__).with_name("idling.py")


def crowds(workers: int) -> list[int]:
    return sorted({1, min(10, workers), min(100, workers), workers, 2 * workers})


@dataclass
class Side:
    """A server with so many workers, and what was measured there: CPU in µs, and a second of their idleness."""

    count: int
    scene: Scene
    crew: Crew
    limited: Crew
    rounds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    idle: Cost = field(default_factory=Cost)
    beside: Phases = field(default_factory=Phases)

    @classmethod
    def of(cls, count: int, scene: Scene) -> "Side":
        fill(scene, Filler(scene), ROUND * (ROUNDS + 1), Phases())
        return cls(count, scene, Crew(scene, count), Crew(scene, count, limit=_PLENTY, name="l"))

    def work(self) -> None:
        self.crew.beat(ROUND)
        found = Phases()
        self.crew.work(ROUND, found)
        self.rounds["job"].append(sum(found.per_job(name).cpu_us for name in found.costs))
        self.rounds["beat"].append(cpu_us(self.scene, self.crew.workers[0].beat))
        for name, crew in (("exchange", self.crew), ("limited", self.limited)):
            for one in crew.workers:  # each of them has calls in flight
                one.call(TOGETHER, 0)
            self.rounds[name].append(cpu_us(self.scene, partial(crew.workers[0].call, TOGETHER, TOGETHER)))

    def idle_and_work(self) -> None:
        with idle_workers(self.scene, self.count):
            self.idle = watched(self.scene)
            self.crew.beat(ROUND)
            self.crew.work(ROUND, self.beside)

    def us(self, name: str) -> float:
        return median(self.rounds[name])

    def row(self) -> list[str]:
        each, beside = self.idle.per(self.count), self.beside
        return [
            f"{self.count:,}",
            f"{self.us('job'):.1f}",
            *(
                f"{beside.ms(name, 0.5):.2f} / {beside.ms(name, 0.99):.2f}"
                for name in ("claim", "finish", "gate")
            ),
            *(f"{self.us(name):.0f}" for name in ("beat", "exchange", "limited")),
            f"{each.scripts:.2f} + {each.commands:.1f}",
            f"{each.bytes_in:,.0f} + {each.bytes_out:,.0f}",
            f"{each.cpu_us:,.0f}",
            f"{100 * self.idle.cpu_s:.1f} %",
        ]


def run(workers: int) -> Finding:
    with ExitStack() as servers:
        sides = [Side.of(count, servers.enter_context(scene())) for count in crowds(workers)]
        for _ in range(ROUNDS):
            for side in sides:
                side.work()
        for side in sides:
            side.idle_and_work()
        rows = [side.row() for side in sides]
    return Finding(
        title="Workers, and what each costs Redis",
        columns=[
            "workers",
            "CPU µs a job",
            "a claim beside the others, P50 / P99 ms",
            "a finish",
            "an exchange",
            "CPU µs: a beat",
            f"an exchange of {TOGETHER}",
            "the same under a limit of calls",
            "an idle worker, each second: scripts + commands",
            "bytes to Redis + from it",
            "CPU µs",
            "all of them idle: of a core",
        ],
        rows=rows,
        notes=[
            (
                f"A server each; {ROUNDS} rounds on each in turn, medians. Without the broker's part. The idle ones are played by one"
                " process, `idling.py`; where it is not starved each of them comes to 4.7 scripts a second. The leader's reaping, and the"
                " server's own housekeeping, are in the figures of few workers."
            )
        ],
        figures={
            str(side.count): {f"{name}_us": side.us(name) for name in side.rounds}
            | {"idle_us": side.idle.cpu_us}
            for side in sides
        },
    )


def watched(scene: Scene) -> Cost:
    """A second of what happens."""
    meter = Meter(scene.client, count_info=True)
    really_wait(WATCH_S)
    spent = meter.spent()
    return spent.per(spent.wall_s)


@contextmanager
def idle_workers(scene: Scene, count: int) -> Iterator[None]:
    """All of them have been heard of when this begins."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    process = subprocess.Popen([sys.executable, str(_IDLING), scene.url, str(count)], env=env)
    try:
        wait_for(lambda: len(scene.ledger.workers()) >= count, 30, f"{count} idle workers")
        yield
        assert process.poll() is None, "the idle workers' process has ended"
    finally:
        process.kill()
        process.wait()
