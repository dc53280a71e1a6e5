"""How a command shows that a batch moves on: bars on a terminal, plain lines elsewhere."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from api.cli.view import BatchView
from api.cli.words import duration, size, usd

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_WINDOW_S = 10.0
LINE_EVERY_S = 5.0


class Pace:
    """Jobs a second over the last ten seconds, and what that means for the rest."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, done: int) -> None:
        self._samples.append((now_s, done))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - _WINDOW_S:  # noqa: PLR2004  two make a slope
            self._samples.popleft()

    @property
    def per_s(self) -> float | None:
        """None as long as nothing can be said."""
        if not self._samples:
            return None
        (then_s, before), (now_s, done) = self._samples[0], self._samples[-1]
        return (done - before) / (now_s - then_s) if now_s > then_s and done > before else None

    def left_s(self, left: int) -> int | None:
        """Whole seconds until so many more jobs are done."""
        return math.ceil(left / self.per_s) if self.per_s else None


class Progress:
    """Shows nothing; the base of those that do. A context manager: `close` ends the display."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def uploading(self, sent: int, total: int) -> None:
        """So many of so many bytes of the input file are on their way."""

    def update(self, batch: BatchView) -> None:
        """The batch as it is now."""

    def note(self, text: str) -> None:
        """Something worth knowing that is no error."""

    def close(self) -> None:
        """No more is to come."""


class Lines(Progress):
    """One line when the status changes, and at most one every five seconds while only the counts do."""

    def __init__(self, write: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._now = now
        self._pace = Pace()
        self._status = ""
        self._done = 0
        self._last_s = now()

    def uploading(self, sent: int, total: int) -> None:
        now_s = self._now()
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            self._write(f"uploaded {size(sent)} of {size(total)}")

    def update(self, batch: BatchView) -> None:
        now_s = self._now()
        self._pace.add(now_s, batch.done)
        moved = batch.done != self._done and now_s - self._last_s >= LINE_EVERY_S
        if batch.status == self._status and not moved:
            return
        self._status, self._done, self._last_s = batch.status, batch.done, now_s
        self._write(line_of(batch, self._pace))

    def note(self, text: str) -> None:
        self._write(text)


def line_of(batch: BatchView, pace: Pace) -> str:
    """`batch_1: in_progress, 612 of 1,000 jobs done, 143/s, about 3 s left`."""
    words = [f"{batch.id}: {batch.status}", batch.progress]
    if batch.done < batch.total and not batch.ended and (rate := pace.per_s):
        words.append(_rate(rate))
        if left_s := pace.left_s(batch.total - batch.done):
            words.append(f"about {duration(left_s)} left")
    return ", ".join(words)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}/s" if per_s >= 1 else f"one every {duration(1 / per_s)}"


class Bars(Progress):
    """A live display on a terminal: the bar, the rate, the time left, and each provider's share."""

    def __init__(self, console: "Console", now: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live  # noqa: PLC0415  only a terminal needs it

        self._now = now
        self._pace = Pace()
        self._batch: BatchView | None = None
        self._sent = (0, 0)
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=8, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def uploading(self, sent: int, total: int) -> None:
        self._sent = (sent, total)

    def update(self, batch: BatchView) -> None:
        self._pace.add(self._now(), batch.done)
        self._batch = batch

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._live.stop()

    def _render(self) -> "RenderableType":
        if self._batch is not None:
            return picture(self._batch, self._pace)
        sent, total = self._sent
        return bar_row("uploading", sent, total, f"{size(sent)} of {size(total)}") if total else ""


def bar_row(what: str, done: int, total: int, words: str) -> "RenderableType":
    from rich.progress_bar import ProgressBar  # noqa: PLC0415  only a terminal needs it
    from rich.table import Table  # noqa: PLC0415  as above

    row = Table.grid(padding=(0, 2, 0, 0))
    bar = ProgressBar(total=total or None, completed=done, width=20, pulse=not total)
    row.add_row(what, bar, words)
    return row


def picture(batch: BatchView, pace: Pace) -> "RenderableType":
    """The display of a batch at one moment."""
    from rich.console import Group  # noqa: PLC0415  only a terminal needs it
    from rich.table import Table  # noqa: PLC0415  as above

    words = [f"{batch.done:,}/{batch.total:,}"] if batch.total else []
    if batch.failed:
        words.append(f"{batch.failed:,} failed")
    if batch.done < batch.total and not batch.ended and (rate := pace.per_s):
        words.append(_rate(rate))
        if left_s := pace.left_s(batch.total - batch.done):
            words.append(f"{duration(left_s)} left")
    shares = Table.grid(padding=(0, 2, 0, 0))
    for provider in batch.providers:
        shares.add_row(
            f"  {provider.id}",
            f"{provider.completed:,} done",
            f"{provider.failed:,} failed" if provider.failed else "",
            usd(provider.cost_usd) if provider.cost_usd is not None else "",
            style="dim",
        )
    return Group(bar_row(batch.status, batch.done, batch.total, "  ".join(words)), shares)


def progress_on(stream: TextIO, environ: Mapping[str, str], *, quiet: bool = False) -> Progress:
    """The display that fits the stream. `quiet` (for `--json`): bars on a terminal, nothing elsewhere."""
    if stream.isatty() and environ.get("TERM", "dumb") != "dumb":
        from rich.console import Console  # noqa: PLC0415  only a terminal needs it

        return Bars(Console(file=stream, highlight=False))
    if quiet:
        return Progress()
    return Lines(lambda line: print(line, file=stream, flush=True))
