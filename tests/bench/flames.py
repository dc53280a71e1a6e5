"""`python -m tests.bench.flames [small|full]`: where the API's and a worker's time goes, as flame graphs and by area.

`full` writes ops/docs/flames/*.svg, `small` .bench/flames/*.svg. py-spy is installed into .bench/venv on first use.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.accept import corpus
from bench.folded import costs, nameless, titled
from bench.load import load
from bench.lone import api_pid
from bench.shown import show
from bench.table import Table
from support.batches import submit, wait_for_end
from support.stack import Stack, running_stack

PY_SPY = "py-spy==0.4.3"
ROOT = Path(__file__).parents[2]
SECONDS = {"small": 2, "full": 10}
FOLDERS = {"small": ROOT / ".bench" / "flames", "full": ROOT / "ops" / "docs" / "flames"}
WORKERS = 2
CALLERS = 64
_RATE = 200
_BATCH = {"small": 2000, "full": 10_000}
_FEEDERS = 2
_LEAST = 0.01
_HEAD = ["process", "area", "own %", "with all it calls %", "samples"]


class NoLookError(Exception):
    """py-spy could not look into the process; says why, in its words."""


def rows(size: str) -> Table:
    found: list[list[str]] = []
    notes = (
        f"py-spy, {_RATE} samples a second for {SECONDS[size]} s, of threads that hold the interpreter's lock: the kernel's time, "
        f"which releases it, is not seen. Lone: {CALLERS} callers; batch: {_FEEDERS} of {_BATCH[size]:,} jobs at a time. {WORKERS} workers."
    )
    try:
        spy = py_spy()
        for load_name, loaded in (("lone", lone_load), ("batch", batch_load)):
            with running_stack(workers=WORKERS, LLM_EDGE_LEASE_S="15", LLM_EDGE_TICK_S="0.5") as stack:
                pids = {"api": api_pid(stack), "worker": stack.workers[0].pid}
                with loaded(stack, size):
                    for process, pid in pids.items():
                        found += drawn(spy, f"{process}-{load_name}", pid, size)
    except NoLookError as exc:
        notes = f"nothing recorded: {exc}"
    return Table(name="where the time of a process goes", head=_HEAD, rows=found, notes=notes)


def py_spy() -> Path:
    """The program, installed on first use into an environment of its own."""
    home = ROOT / ".bench" / "venv"
    program = home / "bin" / "py-spy"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        if subprocess.run([*pip, PY_SPY], check=False).returncode:
            raise NoLookError(f"{PY_SPY} could not be installed into {home}; pip says why above")
    return program


def drawn(spy: Path, kind: str, pid: int, size: str) -> list[list[str]]:
    """Record the process twice, as a picture and as stacks; gives the rows of its areas."""
    FOLDERS[size].mkdir(parents=True, exist_ok=True)
    svg = _recorded(spy, "flamegraph", pid, SECONDS[size])
    picture = titled(nameless(svg, str(ROOT)), kind)
    (FOLDERS[size] / f"{kind}.svg").write_text(picture, encoding="utf-8")
    folded = _recorded(spy, "raw", pid, SECONDS[size]).splitlines()
    samples = sum(int(line.rpartition(" ")[2]) for line in folded)
    return [
        [kind, cost.area, f"{100 * cost.own:.0f}", f"{100 * cost.within:.0f}", str(samples)]
        for cost in costs(folded)
        if cost.within >= _LEAST
    ]


def _recorded(spy: Path, form: str, pid: int, seconds: int) -> str:
    out = ROOT / ".bench" / f"recorded-{pid}"
    how = ["--format", form, "--rate", str(_RATE), "--duration", str(seconds), "--gil", "--nolineno"]
    done = subprocess.run(
        [spy, "record", *how, "--pid", str(pid), "--output", out],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    try:
        if done.returncode or not out.exists():
            why = " ".join(done.stderr.partition("Stack backtrace:")[0].split())
            raise NoLookError(f"py-spy ended with {done.returncode}: {why}")
        return out.read_text(encoding="utf-8")
    finally:
        out.unlink(missing_ok=True)


@contextmanager
def lone_load(stack: Stack, size: str) -> Iterator[None]:
    """Callers that wait for their completions: long enough for two recordings of two processes, again if need be."""
    seconds = 4.0 * (SECONDS[size] + 2)
    with _over_and_over(lambda: load([stack.base_url], CALLERS, seconds), 1):
        yield


@contextmanager
def batch_load(stack: Stack, size: str) -> Iterator[None]:
    """Batches, one after another from each feeder, until the block ends."""
    data = corpus(_BATCH[size])

    def one() -> None:
        with stack.client as client:
            wait_for_end(client, submit(client, data).id)

    with _over_and_over(one, _FEEDERS):
        yield


@contextmanager
def _over_and_over(act: Callable[[], object], threads: int) -> Iterator[None]:
    enough = threading.Event()

    def loop() -> None:
        while not enough.is_set():
            act()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(loop) for _ in range(threads)]
        try:
            yield
        finally:
            enough.set()
    for loaded in running:
        loaded.result()  # a load that failed makes the figures worthless


if __name__ == "__main__":
    show(rows)
