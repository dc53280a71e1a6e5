"""Flame graphs of the API and a worker under load, by py-spy: where a completion's CPU goes."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.load import Mode, load
from bench.prompts import rows
from bench.report import Finding
from bench.section import Size, batch, fleet, wait_for_status, warm
from bench.svg import LEAST, shrunk, top
from bench.tools import BIN, ROOT
from support.stack import Stack

FOLDER = ROOT / "ops" / "docs" / "flames"
RATE = 100
"""Samples a second: py-spy stops the process for each."""
_NAMES: dict[Mode, str] = {"wait": "interactive", "async": "submit"}


def run(size: Size) -> Finding:
    FOLDER.mkdir(parents=True, exist_ok=True)
    seconds = size.seconds(8)
    faults: list[str] = []
    with fleet() as stack:
        warm(stack)
        _batch(stack, seconds, faults)
        _lone(stack, seconds, faults)
    found = {path.stem: top(path.read_text()) for path in sorted(FOLDER.glob("*.svg"))}
    return Finding(
        title="Where the CPU goes",
        columns=["flame graph", "most in (with all it calls, % of the process' samples)"],
        rows=[[f"[{name}](flames/{name}.svg)", ", ".join(most)] for name, most in found.items()],
        notes=[
            (
                f"py-spy, {RATE} samples a second of what holds the GIL, so that system calls (sending, above all) are not in"
                f" it; frames below {LEAST} % are left out of the files."
            ),
            *faults,
        ],
        figures={"top": found},
    )


def _batch(stack: Stack, seconds: float, faults: list[str]) -> None:
    """A batch that lasts while py-spy looks: the worker's share of it."""
    batch_id = batch(stack, rows(int(2500 * (seconds + 2)))).id
    wait_for_status(stack, batch_id, "in_progress", "completed")
    with _recorded(stack.workers[0].pid, "worker-batch", seconds, faults):
        pass
    wait_for_status(stack, batch_id, "completed")


def _lone(stack: Stack, seconds: float, faults: list[str]) -> None:
    assert stack.api is not None
    for mode, name in _NAMES.items():
        found = [(stack.api.pid, f"api-{name}")]
        if mode == "wait":
            found.append((stack.workers[0].pid, "worker-interactive"))
        for pid, title in found:
            with _recorded(pid, title, seconds, faults):
                load([stack.port], 64, seconds + 1, mode)


@contextmanager
def _recorded(pid: int, name: str, seconds: float, faults: list[str]) -> Iterator[None]:
    """py-spy beside the block. Where the machine forbids it to look at other processes, a fault says so."""
    path = FOLDER / f"{name}.svg"
    command = [
        *(str(BIN / "py-spy"), "record", "--format", "flamegraph", "--function", "--rate", str(RATE)),
        "--gil",  # or threads that only wait pass for work
        *("--duration", str(int(seconds)), "--output", str(path), "--pid", str(pid)),
    ]
    spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
        _, said = spy.communicate(timeout=seconds + 60)
    finally:
        if spy.poll() is None:
            spy.kill()
            spy.wait()
    if spy.returncode:
        faults.append(f"{name} was not taken: py-spy needs root, or ptrace_scope=0 ({said.decode().strip()})")
        return
    path.write_text(shrunk(path.read_text(), name))
