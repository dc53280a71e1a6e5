"""`llm-edge batch run --prompt`: from the command line's words to the run, and from its end to the exit code."""

import sys
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

import typer

from api.cli import journey
from api.cli.client import Client
from api.cli.outcome import CommandError
from api.cli.progress import Progress
from api.cli.rows import preview, report
from api.cli.rows.asked import Asked, delimiter_of, encoding_of, parameters_of, template_of
from api.cli.rows.recipe import Recipe
from api.cli.rows.run import Talk
from api.cli.rows.run import run as run_rows
from api.cli.rows.source import Reading
from api.cli.rows.state import state_beside
from api.cli.rows.survey import Survey


class Session(Protocol):
    """What the batch commands share."""

    client: Client
    progress: Progress
    way_back: list[str]
    batch_id: str | None

    @property
    def command(self) -> str:
        """How to name the commands and the server again."""

    def print(self, document: Mapping[str, Any], lines: list[str]) -> None:
        """The result on standard output."""


def run(words: Mapping[str, Any], session: Session) -> NoReturn:
    """Ends with typer.Exit. `words`: the options of `batch run`, by name. Raises CommandError of all kinds."""
    asked = asked_of(words)
    quiet = bool(words["as_json"])

    def agree(found: Survey) -> None:
        on_terminal = sys.stdin.isatty() and sys.stderr.isatty()
        if on_terminal or not quiet:
            preview.show(asked, found, sys.stderr)
        if asked.yes or not on_terminal:
            return
        if not typer.confirm(f"Send {found.to_send:,} requests to {session.client.url}?", err=True):
            raise CommandError("nothing was sent.")

    def goes_on(batch_id: str) -> None:
        session.batch_id = batch_id
        session.way_back = report.way_back(batch_id, session.command)

    session.way_back = ["Run the same command again to go on: nothing is sent twice."]
    ended = run_rows(session.client, asked, Talk(session.progress, agree, goes_on))
    session.print(
        report.document(ended, asked.output, state_beside(asked.output)), report.summary(ended, asked.output)
    )
    raise typer.Exit(ended.exit)


def asked_of(words: Mapping[str, Any]) -> Asked:
    """Raises UsageError and FileError."""
    system = words["system"]
    recipe = Recipe(
        prompt=template_of(words["prompt"], "--prompt"),
        model=words["model"],
        system=None if system is None else template_of(system, "--system"),
        parameters=parameters_of(words["max_tokens"], words["temperature"], words["param"]),
    )
    return Asked(
        file=words["file"],
        output=words["output"],
        recipe=recipe,
        reading=Reading(delimiter_of(words["delimiter"]), encoding_of(words["encoding"])),
        limit=words["limit"],
        id_column=words["id_column"],
        prefix=words["prefix"],
        part_rows=words["batch_rows"],
        window=words["window"],
        metadata=journey.metadata_of(words["metadata"]),
        yes=words["yes"],
        partial=words["partial"],
    )
