"""`llm-edge demo`: the main job, end to end, on a stack of its own that is gone afterwards."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from api.cli import corpus, figures, journey
from api.cli.bound import bound, tariffs_of
from api.cli.client import Client
from api.cli.demo_providers import MODEL, Real, choose_real, model_of
from api.cli.demo_stack import DemoStack, prepare
from api.cli.demo_text import example_lines, price_lines, summary_table
from api.cli.fetch import Targets
from api.cli.journey import Polling, Submission
from api.cli.outcome import CommandError, Exit, exit_of
from api.cli.progress import progress_on
from api.cli.up import say
from api.cli.view import BatchView, batch_view
from api.cli.words import count
from api.up.folder import Folder
from shared.errors import EdgeError

_POLLING = Polling(first_s=0.1, most_s=0.5, patience_s=60.0)


def demo(
    jobs: Annotated[int, typer.Option(min=1, max=50_000, help="Jobs of the batch.")] = 1000,
    real: Annotated[
        bool,
        typer.Option(
            "--real",
            help="Ask the providers of the providers file, else OpenAI with OPENAI_API_KEY. Costs money.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --real: spend the money without asking.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Default: the first that the providers file names, else gpt-4o-mini.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="File for the answers.")
    ] = Path("demo-output.jsonl"),
    folder: Annotated[
        Path, typer.Option("--dir", help="Folder of the demo's own stack; its data are wiped.")
    ] = Path(".llm-edge/demo"),
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes. Default: one per core.")
    ] = None,
) -> None:
    """Summarise 1,000 functions of Python's standard library: one batch on a stack that is started for it and stopped again.

    Answers are simulated unless --real is given; then it says what it can cost at most, and asks.

    Exit codes: 0 every job completed; 1 some failed, or the stack did not start; 2 wrong usage; 3 the batch failed
    validation or expired; 130 interrupted.
    """
    try:
        with _signals_as_interrupts():
            code = _Demo(jobs, output, folder, workers).run(model, real=real, yes=yes)
    except EdgeError as exc:
        print(f"llm-edge demo: {exc.message}", file=sys.stderr, flush=True)
        raise typer.Exit(exc.exit if isinstance(exc, CommandError) else Exit.REFUSED) from exc
    except KeyboardInterrupt as exc:
        print("llm-edge demo: interrupted; nothing is left running.", file=sys.stderr, flush=True)
        raise typer.Exit(Exit.INTERRUPTED) from exc
    raise typer.Exit(code)


class _Demo:
    """The story, step by step."""

    def __init__(self, jobs: int, output: Path, folder: Path, workers: int | None) -> None:
        self._jobs = jobs
        self._folder = folder
        self._workers = workers
        self._output = output
        self._targets = Targets(output)
        self._targets.check()

    def run(self, model: str | None, *, real: bool, yes: bool) -> Exit:
        folder = prepare(self._folder, say)
        chosen = choose_real(os.environ, folder.path) if real else None
        name = model_of(chosen, model) if chosen else model or MODEL
        say(f"reading the docstrings of Python {sys.version.split()[0]}'s standard library ...")
        source = folder.path / "demo-input.jsonl"
        written = corpus.write(source, self._jobs, name)
        if chosen is not None:
            _agree(chosen, name, written, yes=yes)
        else:
            say(
                "answers will be SIMULATED: made up on this machine, nothing is sent anywhere, nothing costs money"
            )
        batch = self._on_a_stack(folder, source, chosen)
        code = exit_of(batch)
        say("done" if code is Exit.COMPLETED else f"the batch ended as {batch.status}, {batch.progress}")
        return code

    def _on_a_stack(self, folder: Folder, source: Path, chosen: Real | None) -> BatchView:
        stack = DemoStack(folder, os.environ, chosen.file if chosen else None, self._workers)
        simulator = "" if chosen else ", three simulated providers"
        try:
            say(f"starting Valkey, the API, workers{simulator} in {folder.path} ...")
            url = stack.start(say)
            client = Client(url, say=say)
            say(f"submitting {count(self._jobs, 'job')} to {url} over HTTP")
            batch = self._submit_and_wait(client, source)
            self._show(client, batch)
            client.close()
            return batch
        finally:
            stack.stop(say)

    def _submit_and_wait(self, client: Client, source: Path) -> BatchView:
        with progress_on(sys.stdout, os.environ) as progress:
            raw = journey.submit(client, Submission(source), progress)
            return batch_view(journey.wait_for_end(client, batch_view(raw).id, progress, _POLLING))

    def _show(self, client: Client, batch: BatchView) -> None:
        """Fetch the answers, and sum them up."""
        for fault in batch.faults:
            say(fault)
        _, errors = self._targets.fetch(client, batch)
        with self._output.open("rb") as lines:
            reading = figures.read(lines)
        summary_table(batch, figures.rows(batch, reading))
        for line in example_lines(reading, self._output, errors):
            say(line)


def _agree(chosen: Real, model: str, written: corpus.Written, *, yes: bool) -> None:
    """Say what it can cost, and get a yes. Raises CommandError where there is none."""
    limit = bound(written.jobs, written.prompt_bytes, corpus.MAX_TOKENS, tariffs_of(chosen.catalogue, model))
    for line in price_lines(chosen, model, written.jobs, limit):
        say(line)
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(
            "--real spends money, and there is no terminal to ask on: nothing was sent. --yes agrees."
        )
    if not typer.confirm("Send them?", default=False):
        raise CommandError("nothing was sent.")


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """SIGTERM and SIGHUP end the demo as Ctrl-C does: with the stack stopped. What is ignored (nohup) stays so."""
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
