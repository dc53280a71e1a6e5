"""Real text to complete: docstrings of Python's standard library."""

from functools import cache
from itertools import islice
from typing import Any

from support.batches import jsonl, line

from api.cli.corpus import functions

DIFFERENT = 4000


@cache
def _prompts() -> list[str]:
    return [function.prompt for function in islice(functions(), DIFFERENT)]


def row(n: int) -> dict[str, Any]:
    """The batch line of job `n`; beyond the text that there is, the same with another number."""
    found = _prompts()
    return line(f"job-{n}", f"{n}: {found[n % len(found)]}")


def rows(count: int) -> bytes:
    return jsonl([row(n) for n in range(count)])


def bodies(count: int) -> bytes:
    """The same prompts as the bare bodies that a rival's task sends."""
    return jsonl([row(n)["body"] for n in range(count)])
