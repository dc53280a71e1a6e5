"""The simulator by itself: what it can do at most, so that a reader sees it bounds nobody."""

from bench.cpu import Cpu
from bench.load import load
from bench.report import Finding
from bench.section import Size
from support.simulator import running_simulator


def run(size: Size) -> Finding:
    with running_simulator() as simulator:
        port = int(simulator.url.rsplit(":", 1)[1])
        load([port], 8, 1.0)
        cpu = Cpu(provider=[simulator.pid])
        found = load([port], 40, size.seconds(5))
        each_ms = 1000 * cpu.spent()["provider"] / found.count
    return Finding(
        title="The provider simulator alone, 40 callers",
        columns=["answers/s", "its CPU ms each", "the client's"],
        rows=[[f"{found.per_s:,.0f}", f"{each_ms:.3f}", f"{1000 * found.client_s / found.count:.3f}"]],
        notes=[
            "A core of its own would give that many a second; on the bench's machine it shares the cores with all others."
        ],
        figures={"per_s": found.per_s, "cpu_ms": each_ms},
    )
