"""Batch completions a second and what each costs, beside the rivals in the same run, in turns."""

from statistics import median

from bench.cpu import ours_ms, parts_ms
from bench.prompts import rows
from bench.report import Budget, Finding
from bench.rival import Rival, Speed, measure
from bench.section import IN_FLIGHT, Size, cpu_of, fleet, run_batch, warm

WORKERS = 2
OURS = "LLM Edge Agent"
NAIVE = "naive Celery"
_FAST, _SLOW = 10_000, 3000
"""Jobs of a rival, by how fast it is."""
_CELERY = ["celery", "-A", "celery_prefork", "worker", "-l", "error", "--without-gossip", "--without-mingle"]


def _celery(name: str, how: str, processes: int, **env: str) -> Rival:
    commands = [[*_CELERY, "-c", str(processes), "-n", f"w{n}@bench"] for n in range(WORKERS)]
    return Rival(name, "celery_prefork", commands, how, _SLOW, env)


def rivals(latency_s: float) -> list[Rival]:
    """Each as it is best run: processes for as many calls as are in flight, but no more than help at 0 ms."""
    processes = 1 if latency_s == 0 else IN_FLIGHT
    prefork = f"{WORKERS} workers, prefork {processes}, prefetch 4, acks late, JSON, results in Redis"
    count, flight = str(WORKERS), str(IN_FLIGHT)
    taskiq = ["taskiq", "worker", "taskiq_streams:broker", "--workers", count, "--max-async-tasks", flight]
    dramatiq = ["dramatiq", "dramatiq_threads", "--processes", count, "--threads", flight]
    return [
        _celery(NAIVE, f"{prefork}, `requests.post`", processes),
        _celery("Celery, kept session", f"{prefork}, `requests.Session`", processes, SESSION="1"),
        Rival(
            "taskiq, streams",
            "taskiq_streams",
            [[*taskiq, "--max-prefetch", flight, "--log-level", "ERROR"]],
            f"{count} processes, {flight} coroutines each, prefetch {flight}, uvloop, aiohttp session, acks and results in Redis",
            _FAST,
        ),
        Rival(
            "dramatiq",
            "dramatiq_threads",
            [dramatiq],
            f"{count} processes, {flight} threads each, prefetch {2 * IN_FLIGHT}, `requests.Session` a thread,"
            " results in Redis",
            _FAST,
        ),
    ]


def ours(jobs: int, latency_s: float) -> Speed:
    """From the upload's first byte to the batch's end: validation and the output file are in it."""
    with fleet(latency_s, WORKERS) as stack:
        warm(stack)
        data = rows(jobs)
        cpu = cpu_of(stack)
        wall_s = run_batch(stack, data)
        return Speed(jobs, jobs / wall_s, cpu.spent())


def _at(latency_s: float, size: Size) -> Finding:
    found: dict[str, list[Speed]] = {}
    live: dict[str, Speed] = {}
    rivalry = rivals(latency_s)
    for turn in range(size.rounds):
        found.setdefault(OURS, []).append(ours(size.jobs(20_000), latency_s))
        for rival in rivalry:
            found.setdefault(rival.name, []).append(measure(rival, size.jobs(rival.jobs), latency_s))
            if turn == 0:
                live[rival.name] = measure(rival, size.jobs(rival.jobs), latency_s, filled=False)
    how = {rival.name: rival.how for rival in rivalry}
    how[OURS] = f"{WORKERS} workers, gevent, {IN_FLIGHT} batch calls in flight each, all defaults on"
    return _finding(latency_s, found, live, how)


def _finding(
    latency_s: float, found: dict[str, list[Speed]], live: dict[str, Speed], how: dict[str, str]
) -> Finding:
    mid = {name: sorted(speeds, key=lambda s: s.per_s)[len(speeds) // 2] for name, speeds in found.items()}
    cost = {name: median(ours_ms(s.cpu, s.jobs) for s in speeds) for name, speeds in found.items()}
    us, cpu_us = mid[OURS].per_s, cost[OURS]
    most = WORKERS * IN_FLIGHT / latency_s if latency_s else 0.0
    bound = [f"With {WORKERS * IN_FLIGHT} calls in flight nobody gets beyond {most:,.0f}/s."] if most else []
    table = []
    for name, speed in mid.items():
        rates = [s.per_s for s in found[name]]
        table.append(
            [
                name,
                f"{speed.per_s:,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
                f"{live[name].per_s:,.0f}" if name in live else "the same",
                f"{us / speed.per_s:.2f} x",
                f"{cost[name]:.2f}",
                parts_ms(speed.cpu, speed.jobs),
                f"{speed.send_ms:.2f}" if name in live else "in it",
                f"{cost[name] / cpu_us:.2f} x",
            ]
        )
    return Finding(
        title=f"Batch completions, provider answering after {1000 * latency_s:.0f} ms",
        columns=[
            "",
            "completions/s (least to most)",
            "from first submit",
            "ours to it",
            "CPU ms each",
            "of which",
            "sending, CPU ms",
            "its CPU to ours",
        ],
        rows=table,
        budgets=[] if latency_s else _budgets(mid, cost),
        notes=["\n".join(f"* {name}: {words}." for name, words in how.items()), *bound],
        figures={name: [vars(s) for s in speeds] for name, speeds in found.items()},
    )


def _budgets(mid: dict[str, Speed], cost: dict[str, float]) -> list[Budget]:
    """They are for an instant provider: with a slow one the calls in flight bound everybody alike."""
    us = mid[OURS].per_s
    best, name = max((s.per_s, name) for name, s in mid.items() if name.startswith(("taskiq", "dramatiq")))
    ratio = us / mid[NAIVE].per_s
    return [
        Budget("completions/s to naive Celery's", ">= 4 x", f"{ratio:.2f} x", ratio >= 4),
        Budget("ahead of taskiq and dramatiq", "> 1 x", f"{us / best:.2f} x {name}", us > best),
        Budget(
            "CPU a completion, all processes but the provider",
            "<= 0.8 ms",
            f"{cost[OURS]:.2f} ms",
            cost[OURS] <= 0.8,
        ),
    ]


def instant(size: Size) -> Finding:
    return _at(0.0, size)


def distant(size: Size) -> Finding:
    return _at(0.05, size)
