"""`llm-edge keys new`: an API key for an owner. Nothing is stored: the key is shown once, its hash goes into the environment."""

import json
import sys
from typing import Annotated

import typer

from api.keyring import entry_of, new_key
from shared.errors import ConfigError

app = typer.Typer(help="Make API keys for those who may call.", no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """Make API keys for those who may call."""


@app.command("new")
def new(
    owner: Annotated[str, typer.Argument(help="Whose key it is: files, batches and jobs belong to owners.")],
    admin: Annotated[
        bool, typer.Option("--admin", help="It may look at the fleet as a whole, too: workers, metrics.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help='Print {"key": ..., "entry": ...}.')] = False,
) -> None:
    """Make a key, and print it with the entry that lets it in. The key is kept nowhere: it is shown this once."""
    key = new_key()
    try:
        entry = entry_of(owner, key, admin=admin)
    except ConfigError as exc:
        print(f"llm-edge keys new: {exc.message}", file=sys.stderr, flush=True)
        raise typer.Exit(2) from exc
    if as_json:
        print(json.dumps({"key": key, "entry": entry}), flush=True)
        return
    print(f"key    {key}\nentry  {entry}", flush=True)
    print(
        f"Give the key to {owner}, who sets LLM_EDGE_API_KEY or an SDK's api_key; it is not shown again.\n"
        "Add the entry to LLM_EDGE_API_KEYS (comma-separated) or a line to LLM_EDGE_API_KEYS_FILE, and restart the API.",
        file=sys.stderr,
        flush=True,
    )
