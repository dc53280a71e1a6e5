"""Progress: few plain lines, a live display on a terminal, and honest figures in both."""

import io
import json

from rich.console import Console
from support.contract_server import batch

from api.cli.progress import Bars, Lines, Pace, Progress, line_of, picture, progress_on
from api.cli.view import BatchView, batch_view


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Watch:
    """A stopwatch moved by hand, and the lines written meanwhile."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lines: list[str] = []
        self.progress = Lines(self.lines.append, lambda: self.now_s)

    def look(self, after_s: float, status: str, done: int, total: int = 1000, failed: int = 0) -> None:
        self.now_s += after_s
        self.progress.update(batch_view(batch(status, total, done - failed, failed)))


def test_plain_lines_come_at_changes_and_at_most_every_five_seconds() -> None:
    watch = Watch()
    watch.look(0.2, "validating", 0, 0)
    watch.look(0.2, "validating", 0, 0)
    watch.look(0.2, "in_progress", 0)
    for _ in range(30):
        watch.look(0.5, "in_progress", 0)  # nothing moves, nothing is said
    for step in range(1, 21):
        watch.look(0.5, "in_progress", 50 * step, failed=2)
    watch.look(0.5, "finalizing", 1000, failed=2)
    watch.look(0.5, "completed", 1000, failed=2)
    watch.look(60, "completed", 1000, failed=2)
    assert watch.lines == [
        "batch_1: validating, jobs not counted yet",
        "batch_1: in_progress, 0 of 1,000 jobs done",
        "batch_1: in_progress, 50 of 1,000 jobs done, 2 of them failed, 5/s, about 3 min 10 s left",
        "batch_1: in_progress, 550 of 1,000 jobs done, 2 of them failed, 55/s, about 9 s left",
        "batch_1: finalizing, 1,000 of 1,000 jobs done, 2 of them failed",
        "batch_1: completed, 1,000 of 1,000 jobs done, 2 of them failed",
    ]


def test_a_long_upload_is_told_now_and_then() -> None:
    watch = Watch()
    for sent in range(1, 101):
        watch.now_s += 0.11
        watch.progress.uploading(sent * 2**20, 100 * 2**20)
    assert watch.lines == ["uploaded 46.0 MiB of 100.0 MiB", "uploaded 92.0 MiB of 100.0 MiB"]
    watch.progress.note("a note")
    assert watch.lines[-1] == "a note"


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    pace = Pace()
    assert pace.left_s(5) is None
    pace.add(0.0, 0)
    assert pace.left_s(5) is None
    for second in range(1, 21):
        pace.add(float(second), 100 if second <= 10 else 100 + 10 * (second - 10))
    assert pace.per_s == 10
    assert pace.left_s(95) == 10


def test_a_slow_pace_is_told_the_other_way_round() -> None:
    pace = Pace()
    pace.add(0.0, 0)
    pace.add(8.0, 2)
    line = line_of(batch_view(batch("in_progress", 10, 2)), pace)
    assert line == "batch_1: in_progress, 2 of 10 jobs done, one every 4 s, about 32 s left"


def view(status: str = "in_progress") -> BatchView:
    providers = [
        {"id": "fast", "completed": 600, "failed": 2, "cost_usd": "0.5"},
        {"id": "slow", "completed": 10},
    ]
    return batch_view(batch(status, 1000, 610, 2, providers=providers))


def test_the_picture_shows_counts_rate_and_providers() -> None:
    pace = Pace()
    pace.add(0.0, 0)
    pace.add(4.0, 612)
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(picture(view(), pace))
    text = console.export_text()
    for words in ("in_progress", "━━", "612/1,000  2 failed  153/s  3 s left"):
        assert words in text
    assert "fast  600 done  2 failed  $0.50" in text
    assert "slow  10 done" in text


def test_a_terminal_gets_a_live_display() -> None:
    out = Terminal()
    with Bars(Console(file=out, force_terminal=True, width=100)) as bars:
        bars.uploading(5 * 2**20, 10 * 2**20)
        bars.note("a [bold]note[/bold]")
        bars.update(view())
        bars.update(view("completed"))
    shown = out.getvalue()
    assert "a [bold]note[/bold]" in shown
    assert "completed" in shown.rpartition("note")[2]
    assert "\x1b[?25h" in shown  # the cursor is visible again


def test_the_display_fits_the_stream() -> None:
    assert isinstance(progress_on(Terminal(), {"TERM": "xterm"}), Bars)
    assert isinstance(progress_on(Terminal(), {"TERM": "dumb"}), Lines)
    plain = io.StringIO()
    with progress_on(plain, {}) as lines:
        lines.update(view())
    assert plain.getvalue().startswith("batch_1: in_progress, 612 of")
    quiet = io.StringIO()
    with progress_on(quiet, {}, quiet=True) as silent:
        silent.update(view())
        silent.note("x")
        silent.uploading(1, 2)
    assert type(silent) is Progress
    assert quiet.getvalue() == ""


def test_json_objects_are_all_it_takes() -> None:
    assert batch_view(json.loads(json.dumps(batch()))).done == 3
