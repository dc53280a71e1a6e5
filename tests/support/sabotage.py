"""A copy of the product with a fault built in, so that a test can be seen to fail. The product itself has no such switch."""

import shutil
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("api", "shared", "workers")


@dataclass(frozen=True)
class Fault:
    """`good` stands once in `file`, and `bad` in its place."""

    file: str
    good: str
    bad: str


SECOND_OUTCOMES = Fault(
    "shared/lua/finish.lua",
    "job, job) == 'p' then\n    local segment",
    "job, job) ~= '' then\n    local segment",
)
"""A job's outcome is written and counted however often it comes."""

NO_REAPING = Fault("shared/lua/reap.lua", "each('leases', function(ref) to_ready(ref, 'leased') end)", "0")
"""What a dead worker holds is never taken from it."""


def faulty_build(folder: Path, *faults: Fault) -> str:
    """The packages in `folder`, faulty: the PYTHONPATH that runs them. Raises AssertionError where the source has moved on."""
    for package in _PACKAGES:
        shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for fault in faults:
        path = folder / fault.file
        text = path.read_text("utf-8")
        assert text.count(fault.good) == 1, f"{fault.file} does not have, once: {fault.good}"
        path.write_text(text.replace(fault.good, fault.bad), "utf-8")
    return str(folder)
