"""What the demo says: the price before, the table after."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from api.cli.bound import Bound
from api.cli.demo_providers import Real
from api.cli.figures import Reading, Row
from api.cli.view import BatchView
from api.cli.words import count, duration, printable, usd

_WIDTH = 100
"""Where the output is no terminal."""


def price_lines(real: Real, model: str, jobs: int, limit: Bound) -> list[str]:
    """To whom how much goes, and what it costs at most."""
    asked = ", ".join(f"{provider.id} ({provider.endpoint})" for provider in real.serving(model))
    lines = [
        f"REAL providers: {count(jobs, 'request')} for {model} go to {asked}",
        f"at most {limit.input_tokens:,} tokens in (bytes / 2) and {limit.output_tokens:,} out (max_tokens)",
    ]
    if limit.usd is None:
        lines.append(
            f"cost: unknown, because a provider has no price; give cost_per_1k_tokens or prices in {real.file}"
        )
    else:
        lists = " and the vendors' price lists" if limit.listed else ""
        lines.append(
            f"cost: at most {usd(limit.usd)}, at the dearest price in {real.file}{lists};"
            " a call that is repeated after a failure may be charged again"
        )
    return lines


def summary_table(batch: BatchView, rows: Sequence[Row], console: Console | None = None) -> None:
    """Print the table: a row a provider, and the total."""
    screen = console or Console()
    if not screen.is_terminal:
        screen = Console(file=screen.file, width=max(screen.width, _WIDTH))
    took = f" in {duration(batch.ended_at - batch.created_at)}" if batch.ended_at else ""
    table = Table(title=f"{batch.id}: {batch.status}{took}", title_justify="left")
    table.add_column("provider")
    for name in ("completed", "failed", "tokens in", "tokens out", "cost", "P50", "P95"):
        table.add_column(name, justify="right")
    for number, row in enumerate(rows, 1):
        table.add_row(*_cells(row), end_section=number == len(rows) - 1)
    screen.print(table)


def _cells(row: Row) -> list[str]:
    figures = [row.completed, row.failed, row.input_tokens, row.output_tokens]
    latencies = [duration(seconds) if seconds is not None else "" for seconds in (row.p50_s, row.p95_s)]
    return [row.name, *(f"{figure:,}" for figure in figures), usd(row.cost_usd), *latencies]


def example_lines(reading: Reading, output: Path, errors: Path | None) -> list[str]:
    """Where the answers are, one of them, and that they are made up where they are."""
    lines = [f"answers: {output}", *([f"errors:  {errors}"] if errors else [])]
    if reading.example is not None:
        custom_id, answer = reading.example
        lines.append(f'example: {printable(custom_id, 100)}: "{printable(answer, 300)}"')
    if reading.simulated:
        lines.append(
            f"{count(reading.simulated, 'answer')} SIMULATED, cost included: no model was asked."
            " `make run PROVIDERS=real` asks one (it says the price first)."
        )
    return lines
