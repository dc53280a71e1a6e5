"""Does what a job costs grow with the jobs that are queued? The ledger is filled in stages, and at each some are worked off."""

from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

from bench.report import Finding
from scaling.costs import Meter
from scaling.filling import MOST, Filler
from scaling.life import ACCEPTING, fill
from scaling.scene import Scene
from scaling.working import Crew, Phases
from support.ledgers import worker

from shared.redis_room import room_reader

ROUND = 5_000
ROUNDS = 4
SAMPLE = ROUND * ROUNDS
WORK = ("hand out", "claim", "read its line", "gate", "finish", "release", "roll up")
_TIMES = 200
_LEADER_S = 3.0


def stages(jobs: int) -> list[int]:
    """100,000, a million and five, where five million are asked for; the first bears the sample."""
    return sorted({max(SAMPLE, n // MOST * MOST or n) for n in (jobs // 50, jobs // 5, jobs)})


def run(scene: Scene, filler: Filler, jobs: int, workers: int) -> Finding:
    crew, queued = Crew(scene, workers), 0
    rows: list[list[str]] = []
    figures: dict[str, list[float]] = {"goals": [], "cpu_us": [], "bytes": [], "commands": []}
    for goal in stages(jobs):
        meter, accepting = Meter(scene.client), Phases()
        fill(scene, filler, goal - queued, accepting)
        added = goal - queued
        held, own = meter.spent().memory / added, _own_bytes(scene)
        rounds = []
        for _ in range(ROUNDS):
            crew.beat(ROUND)
            rounds.append(Phases())
            crew.work(ROUND, rounds[-1])
        queued = goal - sum(found.jobs["finish"] for found in rounds)
        each = [median(found.per_job(name).cpu_us for found in rounds) for name in WORK]
        commands = [sum(found.per_job(name).commands for name in WORK) for found in rounds]
        for name, value in zip(figures, (goal, sum(each), held, median(commands)), strict=True):
            figures[name].append(value)
        rows.append(
            [
                f"{goal:,}",
                f"{sum(accepting.per_job(name).cpu_us for name in ACCEPTING):.2f}",
                f"{held - own:.0f} + {own:.1f}",
                *(f"{us:.1f}" for us in each),
                f"{sum(each):.1f}",
                f"{median(commands):.1f}",
                *(_latency(rounds, name) for name in ("claim", "finish")),
            ]
        )
    return Finding(
        title=f"Jobs queued, and what one more costs; Redis CPU in µs a job, {workers} workers",
        columns=[
            *("queued", "accepting", "bytes a job: body + ledger", *WORK, "in all", "commands a job"),
            *("a claim, P50 / P99 ms", "a finish"),
        ],
        rows=rows,
        notes=[
            (
                f"At each stage {ROUNDS} x {ROUND:,} jobs were worked off, medians; lines of {filler.line_bytes:.0f} bytes, in batches"
                f" of {MOST:,}."
            )
        ],
        figures=figures,
    )


def _own_bytes(scene: Scene) -> float:
    """What the ledger itself keeps of a job of the newest batch, by MEMORY USAGE."""
    keys = scene.keys
    newest: Any = scene.client.zrevrangebylex(keys.batches("default"), "+", "-", start=0, num=1)
    name = newest[0].decode()
    total = int(scene.ledger.get(name).total)  # type: ignore[union-attr]
    mine = (keys.batch(name), keys.index(name), keys.states(name))
    return sum(int(scene.client.memory_usage(key) or 0) for key in mine) / total


def _latency(rounds: list[Phases], name: str) -> str:
    whole = Phases(took={name: [took for found in rounds for took in found.took[name]]})
    return f"{whole.ms(name, 0.5):.2f} / {whole.ms(name, 0.99):.2f}"


def per_call(scene: Scene) -> dict[str, float]:
    """Redis CPU in µs of what is asked again and again, whatever is queued."""
    room = room_reader(scene.client, "le", least_answer_bytes=2048)
    told = room_reader(scene.client)
    asks: dict[str, Callable[[], object]] = {
        "beat": partial(scene.ledger.beat, worker("w0")),
        "lead": partial(scene.ledger.lead, "w0", _LEADER_S),
        "take_chore": partial(scene.ledger.take_chore, 1.0),
        "reap": partial(scene.ledger.reap, most=100),
        "lone_reap": partial(scene.lone.reap, most=100),
        "room, as a worker asks": told,
        "room, as an API process asks": room,
    }
    return {name: cpu_us(scene, ask) for name, ask in asks.items()}


def cpu_us(scene: Scene, ask: Callable[[], object], times: int = _TIMES) -> float:
    ask()
    meter = Meter(scene.client)
    for _ in range(times):
        ask()
    return meter.spent().cpu_us / times


def periodic(scene: Scene) -> Finding:
    """To be asked while many batches are queued."""
    found = per_call(scene)
    batches = scene.client.zcard("le:windows")
    return Finding(
        title=f"What is asked at intervals, with {batches:,} batches running",
        columns=["", "Redis CPU, µs a call"],
        rows=[[name, f"{us:.0f}"] for name, us in found.items()],
        figures={"batches": batches, **found},
    )
