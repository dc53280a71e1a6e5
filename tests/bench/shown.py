"""A section's table on the terminal: `python -m tests.bench.SECTION [small|full]`."""

import sys
from collections.abc import Callable

from bench.table import Table
from rich.console import Console
from rich.table import Table as Drawn


def show(rows: Callable[[str], Table]) -> None:
    """Run one section at the size that the command line names (small where it names none), and print it."""
    size = sys.argv[1] if len(sys.argv) > 1 else "small"
    if size not in {"small", "full"}:
        sys.exit(f"a section runs small or full, not {size!r}")
    found = rows(size)
    drawn = Drawn(title=found.name, caption=found.notes)
    for column in found.head:
        drawn.add_column(column)
    for row in found.rows:
        drawn.add_row(*row)
    Console().print(drawn)
