"""Where a process' time goes, from py-spy's folded stacks (`--format raw`: `outer (file:line);inner (file:line) samples`). Pure.

A sample is an area's own where the innermost frame that any area claims is the area's, so that what the standard library
does counts for whom it does it, and the own shares add up to one. It is within an area where any of its frames is.
"""

import re
from collections import Counter
from collections.abc import Iterable

import msgspec

ELSE = "the rest"
_ENTRY = (
    "api/cli/",
    "api/server.py",
    "uvicorn/server.py",
    "uvicorn/_compat.py",
    "celery/bin/",
    "celery/__main__.py",
)
_AREAS = {
    "our api": ("api/",),
    "our workers": ("workers/",),
    "our shared": ("shared/",),
    "requests call": ("requests/", "urllib3/", "http/client.py", "http/cookiejar.py"),
    "Celery and kombu": ("celery/", "kombu/", "amqp/", "vine/", "billiard/"),
    "Redis client": ("redis/",),
    "FastAPI and uvicorn": ("fastapi/", "starlette/", "uvicorn/", "anyio/", "python_multipart/"),
    "JSON and validation": ("json/", "msgspec/", "pydantic/"),
    "logs and metrics": ("structlog/", "logging/", "prometheus_client/"),
}  # fmt: skip
_FRAME = re.compile(r"\((?P<path>[^()]*?)(?::\d+)?\)$")
_MACHINE = re.compile(
    r"(?<![\w:/.~-])/(?:[^\s:;()<>\"']*/)?(?P<anchor>site-packages/|lib(?:64)?/python3[^/\s]*/)"
)


class Cost(msgspec.Struct, frozen=True):
    """Shares from 0 to 1 of all samples: what is the area's own, and what is within it, all that it calls included."""

    area: str
    own: float
    within: float


def costs(folded: Iterable[str]) -> list[Cost]:
    """By area, the greatest own share first. No samples, no costs."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, samples in map(_parsed, folded):
        areas = [area for area in map(area_of, stack) if area is not None] or [ELSE]
        own[areas[-1]] += samples
        for area in set(areas):
            within[area] += samples
    total = own.total()
    found = [Cost(area, own[area] / total, within[area] / total) for area in within]
    return sorted(found, key=lambda cost: (-cost.own, -cost.within, cost.area))


def area_of(frame: str) -> str | None:
    """The area that claims a frame; None for the standard library, gevent, and the way into a program, which is in every stack."""
    found = _FRAME.search(frame)
    if found is None:
        return None
    path = found["path"]
    if path.startswith(_ENTRY):
        return None
    return next((area for area, starts in _AREAS.items() if path.startswith(starts)), None)


def _parsed(line: str) -> tuple[list[str], int]:
    stack, _, samples = line.rstrip().rpartition(" ")
    return stack.split(";"), int(samples)


def nameless(text: str, home: str) -> str:
    """The text without this machine's folders: paths become relative to the project (`home`), site-packages or the standard library."""
    return _MACHINE.sub("", text).replace(f"{home.rstrip('/')}/", "")


def titled(svg: str, title: str) -> str:
    """py-spy writes its own command, paths and all, as the picture's title; this puts a title of ours there."""
    return re.sub(r'(<text id="title"[^>]*>)[^<]*', lambda found: found[1] + title, svg, count=1)
