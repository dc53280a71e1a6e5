"""Callers who wait for their answer: added latency, and the CPU of all processes."""

from bench.cpu import PROVIDER, ours_ms, parts_ms
from bench.load import load
from bench.report import Budget, Finding
from bench.section import Size, cpu_of, fleet

CALLERS = (1, 64)


def run(size: Size) -> Finding:
    rows: list[list[str]] = []
    added: dict[int, float] = {}
    cost: dict[int, float] = {}
    with fleet() as stack:
        provider = int(stack.simulator.url.rsplit(":", 1)[1])
        load([stack.port], 8, 2.0)
        for callers in CALLERS:
            direct = load([provider], callers, size.seconds(3))
            cpu = cpu_of(stack)
            found = load([stack.port], callers, size.seconds(10))
            spent = cpu.spent()
            added[callers] = found.ms(0.5) - direct.ms(0.5)
            cost[callers] = ours_ms(spent, found.count)
            parts = {name: seconds for name, seconds in spent.items() if name != PROVIDER}
            rows.append(
                [
                    str(callers),
                    f"{found.per_s:,.0f}",
                    f"{found.ms(0.5):.2f}",
                    f"{found.ms(0.99):.2f}",
                    f"{direct.ms(0.5):.2f}",
                    f"{cost[callers]:.2f}",
                    parts_ms(parts, found.count),
                ]
            )
    return Finding(
        title="Interactive, provider answering at once",
        columns=["callers", "answers/s", "P50 ms", "P99 ms", "P50 ms without us", "CPU ms each", "of which"],
        rows=rows,
        budgets=[
            Budget("latency added for one caller, P50", "<= 6 ms", f"{added[1]:.2f} ms", added[1] <= 6),
            Budget("CPU, 64 callers", "<= 2 ms", f"{cost[64]:.2f} ms", cost[64] <= 2),
        ],
        figures={"added_p50_ms": added, "cpu_ms": cost},
    )
