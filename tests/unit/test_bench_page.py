"""What the bench writes into the documentation: pages with markers, tables, flame graphs made small, a picture drawn."""

from xml.etree import ElementTree as ET

import pytest
from bench.plot import picture
from bench.report import Budget, Finding, markdown, put
from bench.svg import shrunk, top
from support.adaptive import Run, Second, by_second

PAGE = "# Page\n<!-- bench: a -->\nold\n<!-- end -->\nbetween\n<!-- bench: b -->\nstays\n<!-- end -->\n"


def test_a_section_is_written_between_its_markers_and_nowhere_else() -> None:
    assert put(PAGE, "a", r"new \1") == PAGE.replace("old", r"new \1")
    assert put(put(PAGE, "a", "x"), "a", "old") == PAGE


def test_a_section_without_a_place_is_told() -> None:
    with pytest.raises(SystemExit, match="no place for the section c"):
        put(PAGE, "c", "text")


def test_a_finding_as_markdown() -> None:
    finding = Finding(
        "Title",
        ["", "per s"],
        [["one | two", "3"]],
        [Budget("speed", ">= 2", "3", met=True), Budget("cost", "<= 1", "2", met=False)],
        ["A note."],
    )
    text = markdown(finding, "today", "make bench ONLY=a")
    assert text.startswith("Taken today, with `make bench ONLY=a`.\n\n|  | per s |\n| --- | --- |\n")
    assert "| one \\| two | 3 |" in text
    assert "| speed | >= 2 | 3 | met |" in text
    assert "| cost | <= 1 | 2 | NOT MET |" in text
    assert text.endswith("A note.")


def _frame(what: str, percent: float) -> str:
    return f'<g><title>{what} (7 samples, {percent}%)</title><rect x="0"/><text x="1">t</text></g>'


def test_narrow_frames_and_paths_of_this_machine_are_left_out() -> None:
    svg = f'<svg><text id="title" x="5">/home/me/py-spy record</text>{_frame("wide (x.py)", 50)}{_frame("narrow (x.py)", 0.2)}</svg>'
    small = shrunk(svg, "worker")
    assert "narrow" not in small
    assert "/home/me" not in small
    assert small.endswith("</g></svg>")
    assert "wide" in small
    assert '<text id="title" x="5">worker<' in small


def test_the_projects_own_functions_stand_on_top() -> None:
    svg = (
        _frame("send (requests/adapters.py)", 60)
        + _frame("call (workers/transport.py)", 61.4)
        + _frame("call (workers/transport.py)", 2)
        + _frame("&lt;lambda&gt; (api/app.py)", 70)
    )
    assert top(svg) == ["`<lambda> (api/app.py)` 70 %", "`call (workers/transport.py)` 61 %"]


def test_a_second_counts_calls_by_the_time_that_they_take() -> None:
    calls = [
        {"received_at": 10.0, "ended_at": 11.5, "status": 200},
        {"received_at": 10.5, "ended_at": 11.0, "status": 200},
        {"received_at": 11.2, "ended_at": 11.2, "status": 429},
    ]
    assert by_second(calls) == [Second(1.5, 0, 0), Second(0.5, 2, 1)]


def test_the_picture_has_a_point_for_each_second_and_a_bar_for_each_with_429s() -> None:
    seconds = [Second(30.0, 10, 12), Second(12.0, 10, 0), Second(13.0, 11, 1)]
    svg = ET.fromstring(picture([Run(12, 31, 0, seconds), Run(40, 31, 0, seconds)]))  # noqa: S314  our own
    lines, bars = (svg.findall(f"{{*}}{what}[@class='{kind}']") for what, kind in _DRAWN)
    assert [len(line.attrib["points"].split()) for line in lines] == [3, 3]
    assert len(bars) == 4
    high = float(svg.attrib["viewBox"].split()[3])
    assert all(
        0 <= float(point.split(",")[1]) <= high for line in lines for point in line.attrib["points"].split()
    )


_DRAWN = (("polyline", "calls"), ("rect", "refused"))
