"""How a fleet finds out how many calls at a time a provider bears: a table, and a picture in the documentation."""

from bench.plot import picture
from bench.report import Finding
from bench.section import Size
from bench.tools import ROOT
from support.adaptive import CONCURRENCY, LATENCY_S, REFUSES_AT, WORKERS, observe

PICTURE = ROOT / "ops" / "docs" / "pictures" / "adaptive.svg"
CAPACITIES = (12, 40)


def run(size: Size) -> Finding:
    runs = [observe(capacity, size.seconds(60)) for capacity in CAPACITIES]
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture(runs), encoding="utf-8")
    return Finding(
        title="A provider that does not tell how many calls at a time it bears",
        columns=["bears", "in flight, last half", "of the best throughput", "answered 429", "jobs", "failed"],
        rows=[
            [
                f"{found.capacity}",
                f"{found.in_flight:.1f}",
                f"{found.of_best:.0%}",
                f"{found.refused:.1%}",
                f"{found.jobs:,}",
                f"{found.failed}",
            ]
            for found in runs
        ],
        notes=[
            (
                f"{WORKERS} workers of {CONCURRENCY} calls; the provider answers after {LATENCY_S:g} s, more slowly in proportion above"
                f" what it bears, and 429 above {REFUSES_AT:g} times that. [The picture](pictures/adaptive.svg) has it second by second."
            )
        ],
        figures={f"{found.capacity}": [second._asdict() for second in found.seconds] for found in runs},
    )
