"""What a soak has shown: pure, from counts and samples to lines and faults."""

from collections.abc import Mapping, Sequence

from soak.gauges import MIB, Sample, Store, level, slope_an_hour

MOST_GROWTH_MIB = 2.0
"""Of a process' resident memory in an hour, after the warm-up."""

TELLING_S = 1800.0
"""Over a shorter time, memory that goes up and down looks like growth: it is shown, and not judged."""

SPARE = 8
"""Descriptors, threads and connections go up and down by so many with what is under way."""


def of_processes(samples: Mapping[str, Sequence[Sample]], warm_up_s: float) -> tuple[list[str], list[str]]:
    """Lines for people, and faults."""
    lines, faults = [], []
    for name, all_of_it in samples.items():
        rows = [s for s in all_of_it if s.at >= warm_up_s]
        if len(rows) < 3:
            continue
        growth = slope_an_hour([(s.at, s.rss / MIB) for s in rows])
        spans = {what: _span([getattr(s, what) for s in rows]) for what in ("descriptors", "threads")}
        shown = ", ".join(f"{what} {a:.0f} to {b:.0f}" for what, (a, b) in spans.items())
        lines.append(f"{name}: {rows[-1].rss / MIB:.0f} MiB, {growth:+.2f} MiB an hour; {shown}")
        if growth > MOST_GROWTH_MIB and rows[-1].at - rows[0].at >= TELLING_S:
            faults.append(f"{name} grows by {growth:.2f} MiB an hour")
        faults += [
            f"{name}: {what} grew from {a:.0f} to {b:.0f}" for what, (a, b) in spans.items() if b > a + SPARE
        ]
    return lines, faults


def of_store(samples: Sequence[Store], warm_up_s: float) -> tuple[list[str], list[str]]:
    rows = [s for s in samples if s.at >= warm_up_s]
    if len(rows) < 3:
        return [], []
    kept, connections = _span([s.kept for s in rows]), _span([s.connections for s in rows])
    memory = rows[-1].used_bytes / MIB
    line = (
        f"redis: {rows[-1].keys:,} keys, of which {kept[1]:.0f} without expiry (before: {kept[0]:.0f});"
        f" {connections[0]:.0f} to {connections[1]:.0f} connections; {memory:.0f} MiB"
    )
    return [line], [
        f"redis: {what} grew from {a:.0f} to {b:.0f}"
        for what, (a, b), spare in (
            ("connections", connections, 4 * SPARE),
            ("keys without expiry", kept, 200),
        )
        if b > a + spare
    ]


def _span(values: Sequence[float]) -> tuple[float, float]:
    return level(values, late=False), level(values, late=True)
