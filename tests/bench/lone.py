"""Lone jobs taken in for later (`Prefer: respond-async`), by one API process and by several; and the bytes each takes."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from bench.caller import BODY
from bench.cpu import Cpu, ours_ms, parts_ms
from bench.load import load
from bench.report import Budget, Finding
from bench.section import Size, fleet
from support.stack import Stack, free_port

MOST = 3
CALLERS = (16, 64)


@contextmanager
def _apis(stack: Stack, count: int) -> Iterator[tuple[list[int], list[int]]]:
    """(ports, pids) of the stack's API and more beside it, on ports of their own."""
    first, port = stack.api, stack.port
    assert first is not None
    ports, processes = [port], [first]
    try:
        for _ in range(count - 1):
            other = free_port()
            stack.env["SERVER_PORT"], stack.url = str(other), f"http://127.0.0.1:{other}"
            stack.start_api()
            assert stack.api is not None
            ports.append(other)
            processes.append(stack.api)
        yield ports, [process.pid for process in processes]
    finally:
        for process in processes[1:]:
            _end(process)
        stack.api, stack.env["SERVER_PORT"], stack.url = first, str(port), f"http://127.0.0.1:{port}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _bytes(stack: Stack) -> float:
    with stack.valkey.client() as redis:
        info = redis.info("memory")
        assert isinstance(info, dict)
        return float(info["used_memory"])


def _places(stack: Stack) -> str:
    """Where a queued job's bytes are, by kind of key."""
    sums: Counter[str] = Counter()
    jobs = 0
    with stack.valkey.client() as redis:
        for key in redis.scan_iter("le:*", count=1000):
            kind = key.decode().split(":")[1:]
            jobs += kind[0] == "j"
            sums[":".join(kind[: 2 if kind[0] == "lone" else 1])] += redis.memory_usage(key, samples=0)
    return ", ".join(f"`{kind}` {taken / jobs:,.0f}" for kind, taken in sums.most_common(4))


def run(size: Size) -> Finding:
    rows: list[list[str]] = []
    rates: dict[int, float] = {}
    stored, places = 0.0, ""
    for processes in range(1, MOST + 1):
        for callers in CALLERS:
            with fleet(workers=0) as stack, _apis(stack, processes) as (ports, pids):
                load(ports, 4, 1.0, "async")
                before = _bytes(stack)
                cpu = Cpu(api=pids, valkey=[stack.valkey.pid])
                found = load(ports, callers, size.seconds(5), "async")
                spent = cpu.spent()
                stored = (_bytes(stack) - before) / found.count
                places = _places(stack)
            rates[processes] = max(rates.get(processes, 0.0), found.per_s)
            rows.append(
                [
                    f"{processes} x {callers}",
                    f"{found.per_s:,.0f}",
                    f"{found.ms(0.5):.1f}",
                    f"{found.ms(0.99):.1f}",
                    f"{ours_ms(spent, found.count):.2f}",
                    parts_ms(spent, found.count),
                    f"{1000 * found.client_s / found.count:.2f}",
                ]
            )
    best = max(rates.values())
    return Finding(
        title="Lone submits, `Prefer: respond-async`",
        columns=[
            "API processes x callers each",
            "submits/s",
            "P50 ms",
            "P99 ms",
            "CPU ms each",
            "of which",
            "client's own",
        ],
        rows=rows,
        budgets=[
            Budget("one API process", ">= 1,000/s", f"{rates[1]:,.0f}/s", rates[1] >= 1000),
            Budget(
                "from as many processes as it takes (cores as well)",
                "5,000/s",
                f"{best:,.0f}/s here",
                True if best >= 5000 else None,
            ),
            Budget(
                "Redis a queued lone job",
                "<= its body + 200 bytes",
                f"{stored:,.0f} bytes",
                stored <= len(BODY) + 200,
            ),
        ],
        notes=[f"The body has {len(BODY)} bytes. Of a queued job's, by kind of key: {places}."],
        figures={"per_s": {str(n): rate for n, rate in rates.items()}, "bytes": stored},
    )
