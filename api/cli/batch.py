"""`llm-edge batch`: hand in a batch, watch it, fetch its answers, over HTTP, to any server that speaks OpenAI's Batch API."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli import journey, report
from api.cli.client import DEFAULT_URL, Client
from api.cli.fetch import STDOUT, Targets
from api.cli.journey import Submission
from api.cli.outcome import (
    ANSWER_CODES,
    ESTIMATE_CODES,
    EXIT_CODES,
    CommandError,
    Exit,
    InterruptedCommandError,
    RefusedError,
    UsageError,
    exit_of,
)
from api.cli.progress import Progress, progress_on
from api.cli.rows import options
from api.cli.view import batch_view

app = typer.Typer(help="Submit batches, watch them, fetch their answers.", no_args_is_help=True)

File = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        readable=True,
        help="Requests, one JSON object a line (OpenAI's batch format).",
    ),
]
FileOrTable = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="Requests, one JSON object a line (OpenAI's batch format); with --prompt a table.",
    ),
]
BatchId = Annotated[str, typer.Argument(help="The batch's id, batch_...")]
Window = Annotated[str, typer.Option(help="Time the batch may take: a number and s, m, h or d, up to 7d.")]
Metadata = Annotated[
    list[str], typer.Option(metavar="KEY=VALUE", help="Kept with the batch; may be given several times.")
]
Endpoint = Annotated[str | None, typer.Option(help="Default: the `url` of the file's first line.")]
MaxCost = Annotated[
    str | None,
    typer.Option(
        metavar="DOLLARS",
        help="The batch ends before it could cost more. Needs prices, and max_tokens in the requests.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, and nothing else there.")
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="OUT", help="File for the answers; - is standard output.")
]
OutputMaybe = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="OUT", help="File for the answers; - is standard output."),
]
Errors = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File for the jobs that failed. Default: OUT with .errors.jsonl."),
]


@dataclass(frozen=True)
class Server:
    """Which server the commands speak to, and how to name it again on a command line."""

    url: str
    api_key: str | None
    command: str


@app.callback()
def _group(
    ctx: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="LLM_EDGE_URL", help="The server. A key is read from LLM_EDGE_API_KEY.")
    ] = DEFAULT_URL,
) -> None:
    """Submit batches, watch them, fetch their answers."""
    source = ctx.get_parameter_source("url")
    typed = source is not None and source.name == "COMMANDLINE"
    command = f"llm-edge batch --url {shlex.quote(url)}" if typed else "llm-edge batch"
    ctx.obj = Server(url, os.environ.get("LLM_EDGE_API_KEY"), command)


@app.command(epilog=EXIT_CODES)
def run(  # noqa: PLR0913, PLR0917  each is an option of the command line
    ctx: typer.Context,
    file: FileOrTable,
    output: Output,
    errors: Errors = None,
    window: Window = "24h",
    endpoint: Endpoint = None,
    metadata: Metadata = [],  # noqa: B006  typer copies it
    max_cost: MaxCost = None,
    as_json: AsJson = False,
    prompt: options.Prompt = None,
    model: options.Model = None,
    system: options.System = None,
    limit: options.Limit = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    param: options.Params = [],  # noqa: B006  typer copies it
    id_column: options.IdColumn = None,
    prefix: options.Prefix = "",
    delimiter: options.Delimiter = None,
    encoding: options.Encoding = "utf-8",
    batch_rows: options.BatchRows = 50_000,
    yes: options.Yes = False,
    partial: options.Partial = False,
) -> None:
    """Submit FILE, wait for the end, write answers and errors. Ctrl-C leaves the batch running and says how to come back.

    With --prompt, FILE is a table: every row is asked, and OUT is the table with the answers joined on.
    Run it again as often as you like: what is answered is not asked again.
    """
    with _session(ctx, as_json=as_json) as session:
        options.check(ctx, file)
        if prompt is not None:
            from api.cli.rows import command  # noqa: PLC0415  only rows need it

            command.run(ctx.params, session)
        targets = _targets(output, errors, as_json=as_json)
        targets.check(file)
        wanted = Submission(file, window, endpoint, journey.metadata_of(metadata), max_cost)
        with session.progress as progress:
            raw = session.hand_in(wanted)
            batch = batch_view(raw)
            session.goes_on(batch.id, output)
            progress.note(f"{batch.id} created from {file}")
            raw = journey.wait_for_end(session.client, batch.id, progress)
        session.finish(raw, targets)


@app.command(epilog=ANSWER_CODES)
def submit(
    ctx: typer.Context,
    file: File,
    window: Window = "24h",
    endpoint: Endpoint = None,
    metadata: Metadata = [],  # noqa: B006  typer copies it
    max_cost: MaxCost = None,
    as_json: AsJson = False,
) -> None:
    """Submit FILE and print the batch's id."""
    with _session(ctx, as_json=as_json) as session:
        wanted = Submission(file, window, endpoint, journey.metadata_of(metadata), max_cost)
        with session.progress:
            raw = session.hand_in(wanted)
        session.print(raw, [batch_view(raw).id])


@app.command(epilog=ESTIMATE_CODES)
def estimate(
    ctx: typer.Context,
    file: File,
    model: Annotated[
        str | None, typer.Option(metavar="M", help="As if every request asked for this model.")
    ] = None,
    endpoint: Endpoint = None,
    as_json: AsJson = False,
) -> None:
    """Say what FILE would take, without sending it: tokens, and cost and time at each provider of the providers file.

    Needs no server; where there is one, it goes by what that has learned from its answers. FILE is checked as `submit`
    would have it checked.
    """
    with _session(ctx, as_json=as_json) as session:
        from api.cli import estimate_command, estimate_text  # noqa: PLC0415  only this command needs the providers file

        found = estimate_command.run(file, endpoint, model, os.environ, session.client)
        session.print(estimate_text.document(str(file), found), estimate_text.lines(str(file), found))
        if found.faults:
            raise typer.Exit(Exit.NOT_RUN)


@app.command(
    epilog=f"Without --watch: {ANSWER_CODES[0].lower()}{ANSWER_CODES[1:]} With it: {EXIT_CODES[0].lower()}{EXIT_CODES[1:]}"
)
def status(
    ctx: typer.Context,
    batch_id: BatchId,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end, showing progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how a batch stands."""
    with _session(ctx, as_json=as_json) as session:
        raw = session.client.batch(batch_id)
        if watch:
            session.goes_on(batch_id, None)
            with session.progress as progress:
                raw = journey.wait_for_end(session.client, batch_id, progress)
        batch = batch_view(raw)
        session.print(raw, report.description(batch))
        if watch:
            raise typer.Exit(exit_of(batch))


@app.command(epilog=ANSWER_CODES)
def explain(
    ctx: typer.Context,
    batch_id: BatchId,
    line: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tell of the N-th request of the input file, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say why a batch is not further: where its jobs are, what they wait for, and until when."""
    with _session(ctx, as_json=as_json) as session:
        raw = session.client.explain(batch_id, line)
        session.print(raw, report.explanation(raw))


@app.command(epilog=EXIT_CODES)
def results(
    ctx: typer.Context,
    batch_id: BatchId,
    output: OutputMaybe = None,
    errors: Errors = None,
    as_json: AsJson = False,
) -> None:
    """Write the answers and errors of a batch that has ended."""
    with _session(ctx, as_json=as_json) as session:
        if output is None and errors is None:
            raise UsageError("Name a file with -o OUT (- is standard output), or with --errors FILE.")
        targets = _targets(output, errors, as_json=as_json)
        targets.check()
        raw = session.client.batch(batch_id)
        batch = batch_view(raw)
        if not batch.ended:
            raise RefusedError(
                f"{batch_id} has not ended yet: {batch.status}, {batch.progress}."
                f" Wait for it with `{session.server.command} status {batch_id} --watch`.",
                http_status=200,
                error={"code": "batch_not_ended"},
            )
        session.finish(raw, targets)


@app.command(epilog=ANSWER_CODES)
def cancel(ctx: typer.Context, batch_id: BatchId, as_json: AsJson = False) -> None:
    """Cancel a batch: running calls end, what is finished is kept."""
    with _session(ctx, as_json=as_json) as session:
        raw = session.client.cancel(batch_id)
        batch = batch_view(raw)
        session.print(raw, [f"{batch.id}  {batch.status}, {batch.progress}"])


@app.command("list", epilog=ANSWER_CODES)
def list_batches(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Batches on one page.")] = 20,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Begin behind this batch.")] = None,
    as_json: AsJson = False,
) -> None:
    """List batches, newest first."""
    with _session(ctx, as_json=as_json) as session:
        page = session.client.batches(limit, after)
        found = [batch for batch in page.get("data") or [] if isinstance(batch, Mapping)]
        session.print(page, report.table(found) if found else ["no batches"])
        if page.get("has_more") and found and not as_json:
            say(f"more: {session.server.command} list --limit {limit} --after {batch_view(found[-1]).id}")


def _targets(output: Path | None, errors: Path | None, *, as_json: bool) -> Targets:
    if as_json and STDOUT in {output, errors}:
        raise UsageError("--json needs standard output for itself; name files with -o and --errors.")
    return Targets(output, errors)


class _Session:
    """One command's talk with the server. `way_back`: what a user should know who has to leave it now, and of which batch."""

    def __init__(self, server: Server, progress: Progress, *, as_json: bool) -> None:
        self.server = server
        self.progress = progress
        self.client = Client(server.url, server.api_key, say=progress.note)
        self.way_back: list[str] = []
        self.batch_id: str | None = None
        self._as_json = as_json

    @property
    def command(self) -> str:
        return self.server.command

    def hand_in(self, wanted: Submission) -> dict[str, Any]:
        """Submit; the batch object."""
        try:
            return journey.submit(self.client, wanted, self.progress)
        except KeyboardInterrupt:
            self.way_back = [f"`{self.server.command} list` shows whether a batch was created."]
            raise

    def goes_on(self, batch_id: str, output: Path | None) -> None:
        """From now on there is a batch that runs whether or not anyone waits for it."""
        self.batch_id = batch_id
        self.way_back = report.way_back(batch_id, self.server.command, output)

    def print(self, document: Mapping[str, Any], lines: list[str]) -> None:
        """The result on standard output."""
        print(json.dumps(document, indent=2) if self._as_json else "\n".join(lines), flush=True)

    def finish(self, raw: Mapping[str, Any], targets: Targets) -> None:
        """Fetch the files of an ended batch, say how it went, and end with its exit code."""
        batch = batch_view(raw)
        self.way_back = [
            f"{batch.id} has ended; fetch it with `{self.server.command} results {batch.id} -o OUT`."
        ]
        output, errors = targets.fetch(self.client, batch) if batch.total else (None, None)
        lines = report.summary(batch, output, errors)
        if batch.error_file_id and errors is None:
            lines.append(f"  errors   {self.server.command} results {batch.id} --errors FILE")
        if STDOUT in {output, errors}:
            say("\n".join(lines))
        else:
            shown = {"output": str(output) if output else None, "errors": str(errors) if errors else None}
            self.print({"batch": raw, **shown}, lines)
        raise typer.Exit(exit_of(batch))


@contextmanager
def _session(ctx: typer.Context, *, as_json: bool) -> Iterator[_Session]:
    """Turns whatever goes wrong into one message (or, with --json, one document) and the exit code."""
    server = ctx.obj
    assert isinstance(server, Server)  # noqa: S101  set by the group
    progress = progress_on(sys.stderr, os.environ, quiet=as_json)
    try:
        session = _Session(server, progress, as_json=as_json)
    except UsageError as exc:  # no URL, no session
        raise _ended(exc, None, as_json=as_json) from exc
    try:
        yield session
    except KeyboardInterrupt as exc:
        raise _ended(InterruptedCommandError("interrupted."), session, as_json=as_json) from exc
    except CommandError as exc:
        raise _ended(exc, session, as_json=as_json) from exc
    finally:
        session.client.close()


def _ended(exc: CommandError, session: _Session | None, *, as_json: bool) -> typer.Exit:
    """Says what ended the command: a message, or, with --json, a document."""
    if as_json:
        known = {"batch_id": session.batch_id} if session is not None and session.batch_id else {}
        print(json.dumps({**exc.document(), **known}, indent=2), flush=True)
    else:
        way_back = [] if session is None or isinstance(exc, RefusedError) else session.way_back
        say("\n".join([f"llm-edge batch: {exc.message}", *way_back]))
    return typer.Exit(exc.exit)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
