"""What a soak has shown of processes and of Redis: pure, from samples to lines and faults."""

from collections.abc import Mapping, Sequence

from soak.gauges import MIB, Sample, Store, by_minute, level, slope

MOST_GROWTH_MIB = 2.0
"""Of a process' resident memory in an hour, after the warm-up."""

SPARE = 8
"""Descriptors and threads go up and down by so many with what is under way, connections of all processes by more."""

MOST_SOCKETS = {"api": 100, "worker": 160, "valkey": 400}
"""What pools may keep open at rest: 64 connections to Redis and a few of the broker's, and 32 to each provider; in Valkey, of all."""

Found = tuple[list[str], list[str]]
"""Lines for people, and faults."""


def of_processes(samples: Mapping[str, Sequence[Sample]], since_s: float, *, judged: bool) -> Found:
    """Of those that nobody ended, from `since_s` on. `judged`: whether it was long enough to judge memory, and what is under way."""
    lines, faults = [], []
    for name, all_of_it in samples.items():
        rows = [s for s in all_of_it if s.at >= since_s]
        if not rows:
            continue
        grows = slope(by_minute([(s.at, s.rss / MIB) for s in rows]))
        spans = {what: _span([getattr(s, what) for s in rows]) for what in _COUNTS}
        shown = ", ".join(f"{what} {a:.0f} to {b:.0f}" for what, (a, b) in spans.items())
        lines.append(
            f"{name}: {rows[0].rss / MIB:.1f} to {rows[-1].rss / MIB:.1f} MiB, {grows.an_hour:+.2f} MiB an hour"
            f" (standard error {grows.error:.2f}{'' if judged else '; too short a time, not judged'}); {shown}"
        )
        if not judged:
            continue
        if grows.an_hour > MOST_GROWTH_MIB:
            faults.append(f"{name} grows by {grows.an_hour:.2f} MiB an hour")
        faults += [
            f"{name}: {what} grew from {a:.0f} to {b:.0f}"
            for what, (a, b) in spans.items()
            if what in _FLAT and b > a + SPARE
        ]
    return lines, faults


def of_store(samples: Sequence[Store], since_s: float, *, judged: bool) -> Found:
    rows = [s for s in samples if s.at >= since_s]
    if not rows:
        return [], []
    keys, connections = _span([s.keys for s in rows]), _span([s.connections for s in rows])
    data = slope(by_minute([(s.at, s.used_bytes / MIB) for s in rows]))
    line = (
        f"redis under load: {keys[0]:,.0f} to {keys[1]:,.0f} keys, {connections[0]:.0f} to {connections[1]:.0f}"
        f" connections, {rows[-1].used_bytes / MIB:.1f} MiB of data ({data.an_hour:+.2f} MiB an hour, standard error"
        f" {data.error:.2f})"
    )
    a, b = connections
    return [line], (
        [f"redis: connections grew from {a:.0f} to {b:.0f}"] if judged and b > a + 4 * SPARE else []
    )


def at_rest(before: Mapping[str, Sample], after: Mapping[str, Sample]) -> Found:
    """The same processes, idle, after the warm-up (where it had a rest) and at the end."""
    lines = []
    faults = [
        f"{name} at rest: {now.sockets} sockets, and pools keep at most {MOST_SOCKETS[name]}"
        for name, now in after.items()
        if now.sockets > MOST_SOCKETS[name]
    ]
    for name, now in after.items():
        was = before.get(name)
        if was is None:
            continue
        spans = {what: (getattr(was, what), getattr(now, what)) for what in _COUNTS}
        lines.append(f"{name} at rest: " + ", ".join(f"{what} {a} to {b}" for what, (a, b) in spans.items()))
        faults += [
            f"{name} at rest: {what} grew from {a} to {b}"
            for what, (a, b) in spans.items()
            if what in _FLAT and b > a + SPARE
        ]
    return lines, faults


_FLAT = ("descriptors", "threads")
_COUNTS = (*_FLAT, "sockets")


def _span(values: Sequence[float]) -> tuple[float, float]:
    return level(values, late=False), level(values, late=True)
