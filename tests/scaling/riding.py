"""What it saves that calls share an exchange with the gate, and outcomes a finish."""

from bench.report import Finding
from scaling.filling import Filler
from scaling.life import ROUND, fill
from scaling.scene import Scene
from scaling.working import Crew, Phases

GROUPS = (1, 8, 32)


def run(scene: Scene, filler: Filler, workers: int) -> Finding:
    fill(scene, filler, ROUND * len(GROUPS), Phases())
    rows, figures = [], {}
    for together in GROUPS:
        crew, phases = Crew(scene, workers, together=together), Phases()
        crew.beat(ROUND)
        crew.work(ROUND, phases)
        each = {name: phases.per_job(name).cpu_us for name in phases.costs}
        figures[str(together)] = sum(each.values())
        rows.append(
            [str(together), f"{each['gate']:.1f}", f"{each['finish']:.1f}", f"{sum(each.values()):.1f}"]
        )
    return Finding(
        title="Riding together; Redis CPU in µs a job",
        columns=["calls an exchange, and outcomes a finish", "gate", "finish", "from hand-out to roll-up"],
        rows=rows,
        figures=figures,
    )
