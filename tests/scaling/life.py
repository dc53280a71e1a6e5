"""A job's whole life, phase by phase: what each costs Redis."""

from functools import partial
from statistics import median

from bench.report import Finding
from scaling.costs import COLUMNS, Cost
from scaling.filling import Filler
from scaling.scene import Scene, scene
from scaling.working import TOGETHER, Crew, Phases, delete, end_batches

ROUND = 10_000
ROUNDS = 5
ORDER = [
    "upload", "create", "validate", "hand out", "claim", "read its line", "gate", "finish", "release", "roll up", "end",
    "delete",
]  # fmt: skip
ACCEPTING = ("upload", "create", "validate")


def fill(scene: Scene, filler: Filler, jobs: int, into: Phases) -> None:
    end_batches(scene, Phases())  # what has been worked off before would else stand before the new ones
    for made, chunks in filler.inputs(jobs):
        into.run(scene, "upload", made.lines, iter([partial(filler.upload, made, chunks)]))
        into.run(scene, "create", made.lines, iter([partial(filler.create, made)]))
        into.run(scene, "validate", made.lines, iter([partial(filler.start, made)]))


def live(scene: Scene, filler: Filler, jobs: int, workers: int) -> tuple[Phases, list[str]]:
    """All that is queued is worked off, and its batches end; gives their ids. Nothing is deleted yet."""
    phases, crew = Phases(), Crew(scene, workers)
    fill(scene, filler, jobs, phases)
    crew.beat(ROUND)
    done = 0
    while found := crew.work(ROUND, phases):
        done += found
    assert done == jobs, f"{done} jobs of {jobs} were handed out"
    return phases, end_batches(scene, phases)


def run(scene: Scene, filler: Filler, jobs: int, workers: int) -> Finding:
    phases, ended = live(scene, filler, jobs, workers)
    delete(scene, ended, phases)
    rows, sum_ = [], Cost()
    for name in ORDER:
        each = phases.per_job(name)
        sum_ += each
        rows.append([name, *each.cells(), _latency(phases, name)])
    rows.append(["in all", *sum_.cells(), ""])
    return Finding(
        title=f"A batch job's way, each phase: {jobs:,} jobs, {workers} workers; per job",
        columns=["phase", *COLUMNS, "a call of it, P50 / P99 ms"],
        rows=rows,
        notes=[
            (
                f"Lines of {filler.line_bytes:.0f} bytes, answers of 1 kB, shards of 50; {TOGETHER} calls share an exchange with the"
                f" gate, {TOGETHER} outcomes a finish. `commands` are those that scripts run inside Redis and those sent without one."
            )
        ],
        figures={
            "cpu_us": sum_.cpu_us,
            "bytes": sum_.bytes_in + sum_.bytes_out,
            "phases": {name: phases.per_job(name).cpu_us for name in ORDER},
        },
    )


def with_aof(workers: int) -> Finding:
    """The same with and without the append-only file, in turn on two servers."""
    with scene() as without, scene(aof=True) as with_:
        sides = [(made, Filler(made, most=ROUND)) for made in (without, with_)]
        found: list[list[Phases]] = [[] for _ in sides]
        for _ in range(ROUNDS):
            for n, (made, filler) in enumerate(sides):
                phases, ended = live(made, filler, ROUND, workers)
                delete(made, ended, phases)
                found[n].append(phases)
    each = [{name: median(p.per_job(name).cpu_us for p in rounds) for name in ORDER} for rounds in found]
    rows = [[name, *(f"{side[name]:.1f}" for side in each)] for name in ORDER]
    sums = [sum(side.values()) for side in each]
    return Finding(
        title="The append-only file; Redis CPU in µs a job",
        columns=["phase", "without it", "with it, every second"],
        rows=[*rows, ["in all", *(f"{us:.1f}" for us in sums)]],
        notes=[f"{ROUNDS} rounds of {ROUND:,} jobs on each server in turn, medians."],
        figures={"without_us": sums[0], "with_us": sums[1]},
    )


def _latency(phases: Phases, name: str) -> str:
    return f"{phases.ms(name, 0.5):.2f} / {phases.ms(name, 0.99):.2f}"
