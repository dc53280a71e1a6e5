"""What the commands say about a batch, as lines. Pure."""

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from api.cli.view import BatchView, batch_view
from api.cli.words import count, duration, printable, usd

_MOST_FAULTS = 10


def summary(batch: BatchView, output: Path | None, errors: Path | None) -> list[str]:
    """The end of a batch whose files have been fetched."""
    lines = [*description(batch)]
    if output is not None:
        lines.append(row("answers", f"{output} ({count(batch.completed, 'line')})"))
    if errors is not None:
        lines.append(row("errors", str(errors)))
    return lines


def description(batch: BatchView) -> list[str]:
    """A batch as it stands."""
    took = f" after {duration(batch.ended_at - batch.created_at)}" if batch.ended_at else ""
    lines = [f"{batch.id}  {batch.status}{took}", row("jobs", batch.progress)]
    if batch.input_tokens or batch.output_tokens:
        lines.append(row("tokens", f"{batch.input_tokens:,} in, {batch.output_tokens:,} out"))
    if batch.done:
        lines.append(row("cost", usd(batch.cost_usd)))
    for provider in batch.providers:
        failed = f", {provider.failed:,} failed" if provider.failed else ""
        cost = usd(provider.cost_usd) if provider.cost_usd is not None else "cost unknown"
        lines.append(row("provider", f"{provider.id}: {provider.completed:,} completed{failed}, {cost}"))
    if not batch.ended and batch.expires_at:
        lines.append(row("ends by", when(batch.expires_at)))
    return [*lines, *fault_rows(batch.faults)]


def fault_rows(faults: Sequence[str]) -> list[str]:
    """What is wrong with an input file."""
    rows = [row("fault", fault) for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        rows.append(row("", f"and {len(faults) - _MOST_FAULTS} more; `--json` lists them all"))
    return rows


def row(what: str, value: str) -> str:
    return f"  {what:<9}{value}"


def table(batches: Iterable[Mapping[str, Any]]) -> list[str]:
    """The list of batches, one line each."""
    rows = [("ID", "STATUS", "JOBS", "DONE", "FAILED", "CREATED")]
    for batch in map(batch_view, batches):
        figures = (f"{batch.total:,}", f"{batch.done:,}", f"{batch.failed:,}")
        rows.append((batch.id, batch.status, *figures, when(batch.created_at)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def when(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def way_back(batch_id: str, command: str, output: Path | None) -> list[str]:
    """How to come back to a batch that goes on by itself. `command`: `llm-edge batch`, with its options."""
    target = shlex.quote(str(output)) if output is not None else "answers.jsonl"
    return [
        f"{batch_id} goes on by itself. To come back to it:",
        f"  {command} status {batch_id} --watch",
        f"  {command} results {batch_id} -o {target}",
        f"  {command} cancel {batch_id}",
    ]


def explanation(raw: Mapping[str, Any]) -> list[str]:
    """Why a batch is not further, from the API's explanation."""
    lines = [printable(str(raw.get("summary") or "no reason was given"), 1000)]
    for entry in raw.get("waiting") or []:
        since, until = (_clock(entry.get(name)) for name in ("since", "until"))
        jobs, reason = entry.get("jobs", 0), printable(str(entry.get("reason")), 40)
        where = printable(str(entry.get("provider") or "-"), 64)
        lines.append(f"  {jobs:>8,}  {reason:<22}  {where:<16}  since {since}, next try {until}")
    job = raw.get("job")
    return [*lines, *_calls(job)] if isinstance(job, Mapping) else lines


def _calls(job: Mapping[str, Any]) -> list[str]:
    """One job, and the calls so far that brought no answer."""
    status = printable(str(job.get("status")), 20)
    lines = [f"line {job.get('line', '?')}  {status}, {count(job.get('attempts', 0), 'attempt')} charged"]
    if deaths := job.get("recoveries"):
        lines.append(f"  its worker has died {count(deaths, 'time')} while it had it")
    for call in job.get("tries") or []:
        said = printable(f"{call.get('status') or '-'} {call.get('code')}", 60)
        where = printable(str(call.get("provider")), 64)
        charged = "charged" if call.get("charged") else "not charged"
        lines.append(
            f"  {_clock(call.get('at'))}  {where:<16}  {said:<30}  {call.get('duration_s', 0):.2f} s, {charged}"
        )
    return lines


def _clock(seconds: Any) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds)) if isinstance(seconds, int) else "-"
