"""How a run over rows ended, for people and for programs. Pure."""

from pathlib import Path
from typing import Any

from api.cli.rows.run import Ended
from api.cli.words import count, usd
from shared.money import format_usd


def summary(ended: Ended, output: Path) -> list[str]:
    """The end of a run, for people."""
    joined = ended.joined
    asides = [
        (joined.answered, "answered"),
        (joined.failed, "failed"),
        (joined.blank, "with nothing to ask"),
        (joined.not_run, "not run"),
    ]
    words = ", ".join(f"{number:,} {what}" for number, what in asides if number)
    lines = [f"{output}: {count(joined.rows, 'row')}{': ' if words else ''}{words}"]
    if joined.input_tokens or joined.output_tokens:
        lines.append(f"  tokens   {joined.input_tokens:,} in, {joined.output_tokens:,} out")
        lines.append(f"  cost     {usd(joined.cost_usd)}")
    lines.append(f"  sent     {count(ended.sent, 'row')} by this command")
    if ended.stopped_by is not None:
        lines.append(f"  stopped  {ended.stopped_by.id} {ended.stopped_by.status}")
        lines.extend(f"  fault    {fault}" for fault in ended.stopped_by.faults[:10])
    if joined.failed or joined.not_run:
        lines.append("  The same command sends only what has no answer yet.")
    return lines


def document(ended: Ended, output: Path, state: Path) -> dict[str, Any]:
    """What `--json` prints."""
    joined = ended.joined
    return {
        "rows": joined.rows,
        "answered": joined.answered,
        "failed": joined.failed,
        "blank": joined.blank,
        "not_run": joined.not_run,
        "sent": ended.sent,
        "batches": ended.batches,
        "input_tokens": joined.input_tokens,
        "output_tokens": joined.output_tokens,
        "cost_usd": None if joined.cost_usd is None else format_usd(joined.cost_usd),
        "output": str(output),
        "state": str(state),
    }


def way_back(batch_id: str, command: str) -> list[str]:
    """What a user should know who leaves while a batch is on its way."""
    return [
        f"{batch_id} goes on by itself. Run the same command again to go on with it: nothing is sent twice.",
        f"  {command} cancel {batch_id}   would cancel it",
        "  the same command with --partial   writes the answers that are already here",
    ]
