"""Does what a job, or a worker that waits for one, costs grow with the number of workers?"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Finding
from bench.tools import ROOT
from scaling.costs import Cost, Meter
from scaling.filling import Filler
from scaling.life import ROUND, fill
from scaling.queued import cpu_us
from scaling.scene import Scene
from scaling.working import Crew, Phases
from support.stores import really_wait
from support.waiting import wait_for

WATCH_S = 5.0
_PLENTY = 1_000_000
_IDLING = Path(__file__).with_name("idling.py")


def crowds(workers: int) -> list[int]:
    return sorted({1, min(10, workers), min(100, workers), workers, 2 * workers})


def run(scene: Scene, filler: Filler, workers: int) -> Finding:
    fill(scene, filler, 2 * ROUND * len(crowds(workers)), Phases())
    rows, figures = [], {}
    for count in crowds(workers):
        crew = Crew(scene, count)
        crew.beat(ROUND)
        beat_us = cpu_us(scene, crew.workers[0].beat)
        plain_us, limited_us = exchange_us(scene, count, 0), exchange_us(scene, count, _PLENTY)
        crew.beat(ROUND)
        alone, beside = Phases(), Phases()
        crew.work(ROUND, alone)
        with idle_workers(scene, count):
            idle = watched(scene)
            crew.beat(ROUND)
            crew.work(ROUND, beside)
        job_us = sum(alone.per_job(name).cpu_us for name in alone.costs)
        rows.append(
            [
                f"{count:,}",
                f"{job_us:.1f}",
                *(
                    f"{beside.ms(name, 0.5):.2f} / {beside.ms(name, 0.99):.2f}"
                    for name in ("claim", "finish", "gate")
                ),
                f"{beat_us:.0f}",
                f"{plain_us:.0f}",
                f"{limited_us:.0f}",
                f"{idle.per(count).scripts:.2f} + {idle.per(count).commands:.1f}",
                f"{idle.per(count).bytes_in:,.0f} + {idle.per(count).bytes_out:,.0f}",
                f"{idle.per(count).cpu_us:,.0f}",
                f"{100 * idle.cpu_s:.1f} %",
            ]
        )
        figures[str(count)] = {
            "job_us": job_us,
            "beat_us": beat_us,
            "limited_us": limited_us,
            "idle_us": idle.cpu_us,
        }
        for one in crew.workers:
            scene.ledger.retire(one.name)
    return Finding(
        title="Workers, and what each costs Redis",
        columns=[
            "workers",
            "CPU µs a job",
            "a claim beside the others, P50 / P99 ms",
            "a finish",
            "an exchange",
            "CPU µs: a beat",
            "an exchange of 8",
            "the same under a limit of calls",
            "an idle worker, each second: scripts + commands",
            "bytes to Redis + from it",
            "CPU µs",
            "all of them idle: of a core",
        ],
        rows=rows,
        notes=[
            (
                "Without the broker's part. The idle ones are played by one process, `idling.py`; where it is not starved each of them"
                " comes to 4.7 scripts a second. The leader's reaping is in the figures of few workers."
            )
        ],
        figures=figures,
    )


def exchange_us(scene: Scene, count: int, limit: float) -> float:
    """One worker's, each of the others having calls in flight."""
    crew = Crew(scene, count, limit=limit)
    for one in crew.workers:
        one.call(8, 0)
    return cpu_us(scene, lambda: crew.workers[0].call(8, 8))


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
