"""A picture of how a fleet finds what a provider bears: lines over time, as SVG by hand, for light pages and dark ones."""

from collections.abc import Iterator, Sequence
from html import escape

from support.adaptive import REFUSES_AT, Run

WIDTH = 860
_LEFT, _RIGHT, _TOP = 56, 16, 34
_LINES, _BARS, _GAP = 150, 40, 46
_PANEL = _TOP + _LINES + _BARS + _GAP
_EVERY_S = 10

_STYLE = """
rect.page { fill: #ffffff } text { fill: #1f2328; font: 12px sans-serif } .title { font-weight: bold }
.axis { stroke: #d1d9e0 } .calls { stroke: #0969da; fill: none; stroke-width: 2 }
.bears { stroke: #1a7f37; stroke-dasharray: 6 4 } .refuses { stroke: #cf222e; stroke-dasharray: 2 4 }
.refused { fill: #cf222e } text.bears { fill: #1a7f37; stroke: none } text.refuses { fill: #cf222e; stroke: none }
@media (prefers-color-scheme: dark) {
rect.page { fill: #0d1117 } text { fill: #f0f6fc } .axis { stroke: #3d444d } .calls { stroke: #4493f8 }
.bears { stroke: #3fb950 } .refuses { stroke: #f85149 } .refused { fill: #f85149 }
text.bears { fill: #3fb950 } text.refuses { fill: #f85149 }
}
"""


def picture(runs: Sequence[Run]) -> str:
    height = _PANEL * len(runs) + 10
    parts = [panel for n, run in enumerate(runs) for panel in _panel(run, n * _PANEL)]
    said = "; ".join(run.in_words for run in runs)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(said)}</title><style>{_STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _panel(run: Run, top: float) -> Iterator[str]:
    """Calls in flight over what the provider bears, and below them the 429s of each second, on a scale of their own."""
    refuses = run.capacity * REFUSES_AT
    most = 1.15 * max(refuses, *(s.in_flight for s in run.seconds))
    floor, ground = top + _TOP + _LINES, top + _TOP + _LINES + 6 + _BARS
    step = (WIDTH - _LEFT - _RIGHT) / len(run.seconds)

    def y(calls: float) -> float:
        return floor - _LINES * calls / most

    title = (
        f"calls in flight at a provider that bears {run.capacity} (green) and refuses above {refuses:g} (red)"
    )
    yield _text(_LEFT, top + 20, title, "title")
    for kind, calls in (("refuses", refuses), ("bears", float(run.capacity))):
        yield _line(kind, y(calls))
        yield _text(_LEFT - 6, y(calls) + 4, f"{calls:g}", kind, end=True)
    points = " ".join(
        f"{_LEFT + (n + 0.5) * step:.1f},{y(s.in_flight):.1f}" for n, s in enumerate(run.seconds)
    )
    yield f'<polyline class="calls" points="{points}"/>'
    yield _line("axis", floor)
    worst = max(s.refused for s in run.seconds)
    for n, second in enumerate(run.seconds):
        if second.refused:
            high = max(1.5, _BARS * second.refused / worst)
            yield (
                f'<rect class="refused" x="{_LEFT + n * step:.1f}" y="{ground - high:.1f}"'
                f' width="{step * 0.8:.1f}" height="{high:.1f}"/>'
            )
    yield _line("axis", ground)
    yield _text(_LEFT - 6, ground - _BARS + 10, f"{worst}", "refuses", end=True)
    yield _text(_LEFT - 6, ground, "429/s", "refuses", end=True)
    for at_s in range(0, len(run.seconds), _EVERY_S):
        yield _text(_LEFT + at_s * step, ground + 16, f"{at_s} s")


def _line(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str = "", *, end: bool = False) -> str:
    anchor = ' text-anchor="end"' if end else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}"{anchor}>{escape(text)}</text>'
