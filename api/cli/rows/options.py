"""The options of `llm-edge batch run` that turn rows into requests."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.outcome import UsageError

_PANEL = "Rows (FILE is .csv, .tsv, .jsonl or .parquet)"

_REQUESTS_ONLY = {
    "errors": "with --prompt errors are a column of OUT",
    "endpoint": "with --prompt it is always /v1/chat/completions",
    "max_cost": "with --prompt several batches may be sent; set a quota for their owner in the providers file instead",
}
_ROWS_ONLY = frozenset(
    {
        "model",
        "system",
        "limit",
        "max_tokens",
        "temperature",
        "param",
        "id_column",
        "prefix",
        "delimiter",
        "encoding",
        "batch_rows",
        "yes",
        "partial",
    }
)

Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|@FILE",
        help="Ask this of every row; {column} stands for the row's value, {{ and }} for braces.",
        rich_help_panel=_PANEL,
    ),
]
Model = Annotated[
    str | None, typer.Option(help="The model that is asked. Needed with --prompt.", rich_help_panel=_PANEL)
]
System = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT|@FILE", help="A system prompt, with columns as in --prompt.", rich_help_panel=_PANEL
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Only the first N rows. Try 20 first, then all.", rich_help_panel=_PANEL
    ),
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens that an answer may have.", rich_help_panel=_PANEL)
]
Temperature = Annotated[float | None, typer.Option(min=0.0, max=2.0, rich_help_panel=_PANEL)]
Params = Annotated[
    list[str],
    typer.Option(
        "--param",
        metavar="KEY=JSON",
        help="Anything else of the request's body; may be given several times.",
        rich_help_panel=_PANEL,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A column that tells rows apart, for rows with equal prompts. Default: the first of them is the first.",
        rich_help_panel=_PANEL,
    ),
]
Prefix = Annotated[
    str,
    typer.Option(
        help="Before the names of the new columns, should FILE have some already.", rich_help_panel=_PANEL
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Of CSV. Default: what the header line has most of: , ; tab |", rich_help_panel=_PANEL),
]
Encoding = Annotated[str, typer.Option(help="Of CSV and JSON lines.", rich_help_panel=_PANEL)]
BatchRows = Annotated[
    int,
    typer.Option(
        min=1,
        max=50_000,
        help="Rows in one batch; more go one batch after the other.",
        rich_help_panel=_PANEL,
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        "-y",
        help="Send without asking. Without a terminal nothing is asked.",
        rich_help_panel=_PANEL,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial", help="Send nothing; write the answers that are already here.", rich_help_panel=_PANEL
    ),
]


def check(ctx: typer.Context, file: Path) -> None:
    """Raises UsageError for options of the other kind of FILE."""
    given = {
        name for name in ctx.params if (source := ctx.get_parameter_source(name)) and source.name != "DEFAULT"
    }
    prompted = ctx.params["prompt"] is not None
    if prompted:
        if ctx.params["model"] is None:
            raise UsageError("--prompt needs --model: which model is to be asked?")
        if wrong := sorted(given & _REQUESTS_ONLY.keys()):
            name = wrong[0]
            raise UsageError(f"--{name.replace('_', '-')} is for a FILE of requests; {_REQUESTS_ONLY[name]}.")
        return
    if wrong := sorted(given & _ROWS_ONLY):
        raise UsageError(f"--{wrong[0].replace('_', '-')} needs --prompt: FILE is then a table of rows.")
    if file.suffix.lower() in {".csv", ".tsv", ".parquet"}:
        raise UsageError(
            f"{file} is a table, not a file of requests: say what to ask with --prompt, such as 'Summarise {{text}}'."
        )
