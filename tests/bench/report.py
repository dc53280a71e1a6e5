"""What a section finds: tables and budgets, printed, kept as JSON, or written into a page between its markers."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable


@dataclass(frozen=True)
class Budget:
    """One line of the design's budgets, and what was measured. `met` is None where this machine cannot tell."""

    what: str
    budget: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Finding:
    """One section's outcome. `rows` are as printed; `figures` the same as numbers, for whoever compares runs."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    budgets: list[Budget] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)


def show(console: Console, finding: Finding) -> None:
    table = RichTable(title=finding.title, title_justify="left")
    for column in finding.columns:
        table.add_column(column)
    for row in finding.rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for budget in finding.budgets:
        console.out(f"  {_said(budget)}: {budget.what}: {budget.measured} (budget {budget.budget})")
    for note in finding.notes:
        console.out(f"  {note}", style="dim")


def _said(budget: Budget) -> str:
    return {True: "met", False: "NOT MET", None: "open"}[budget.met]


def markdown(finding: Finding, taken: str, command: str) -> str:
    parts = [f"Taken {taken}, with `{command}`.", _table(finding.columns, finding.rows)]
    if finding.budgets:
        rows = [[b.what, b.budget, b.measured, _said(b)] for b in finding.budgets]
        parts.append(_table(["budget", "", "measured", ""], rows))
    parts += finding.notes
    return "\n\n".join(parts)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def write_json(path: Path, context: dict[str, Any], findings: dict[str, Finding]) -> None:
    found = {name: asdict(finding) for name, finding in findings.items()}
    path.write_text(json.dumps({**context, "sections": found}, indent=1) + "\n", encoding="utf-8")


def put(page: str, name: str, text: str) -> str:
    """The page with this section's text between its markers, `<!-- bench: NAME -->` and `<!-- end -->`."""
    pattern = re.compile(rf"(<!-- bench: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(
            f"the page has no place for the section {name}: add <!-- bench: {name} --> and <!-- end -->"
        )
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page)
