"""Flame graphs as py-spy draws them: made small enough to keep, and read for what is most in them."""

import re
from html import unescape

LEAST = 0.5
"""Percent of the samples below which a frame is left out."""
_OURS = ("api/", "workers/", "shared/")
_WHOLE = 90.0
"""What has more than this is the process itself, and tells nothing."""

_FRAME = re.compile(
    r"<g><title>(?P<what>[^<]*?) \([\d,]+ samples?, (?P<percent>[\d.]+)%\)</title>.*?</g>", re.DOTALL
)
_TITLE = re.compile(r'(<text id="title"[^>]*>)[^<]*')


def shrunk(svg: str, title: str) -> str:
    """The same picture without its narrowest frames, and without this machine's paths in its title."""
    kept = _FRAME.sub(lambda frame: frame[0] if float(frame["percent"]) >= LEAST else "", svg)
    return _TITLE.sub(lambda found: found[1] + title, kept)


def top(svg: str, most: int = 8) -> list[str]:
    """The functions of this project with most samples below them: `name (file) percent %`."""
    found: dict[str, float] = {}
    for frame in _FRAME.finditer(svg):
        what = unescape(frame["what"])
        percent = float(frame["percent"])
        if percent <= _WHOLE and any(f"({folder}" in what for folder in _OURS):
            found[what] = max(found.get(what, 0.0), percent)
    ranked = sorted(found.items(), key=lambda entry: -entry[1])[:most]
    return [f"`{what}` {percent:.0f} %" for what, percent in ranked]
