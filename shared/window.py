"""How many calls at a time a provider bears, found by trying: additive increase, multiplicative decrease (Chiu and Jain, 1989). Pure.

There is no window while nothing speaks against a provider. The first 429 or timeout begins one that only counts; the next,
a mean latency later, cuts it to a share of what is in flight in the whole fleet. Being used it grows by one for each window
of answers, and is forgotten when it has grown beyond what the fleet would use by itself. `lua/_window.lua` is the same.
"""

import msgspec

CUT = 0.7
SLOW_CUT = 0.9
"""After a 429 or a timeout; and where answers have become slow while it was nearly full."""

SLOW = 2.0
"""Slow is an answer that takes so many times as long as the best of late."""

BEST_DRIFT = 1.0005
"""The best latency is forgotten by so much with each answer: it doubles in some 1,400."""

NEARLY_FULL = 0.8
GENEROUS = 64
"""Calls at a time for each sender: a window of so many is none."""

COUNTING_S = 60.0
"""A window that has only counted for so long is forgotten."""

LEAST_S = 0.05
RECENTLY_S = 1.0
TIMEOUTS = frozenset({"request_timeout"})


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """`size` is 0 while it only counts. `cut_at`: when it began, or was cut last; `best_s`: the best mean latency of late."""

    cut_at: float
    size: float = 0.0
    best_s: float = 0.0


def scope_of(target: str) -> str:
    """Where its calls in flight are counted."""
    return f"w:{target}"


def is_full(w: Window | None, in_flight: int) -> bool:
    """One call at a time always may."""
    return w is not None and w.size > 0 and in_flight >= 1 and in_flight + 1 > w.size


def cut(w: Window | None, *, at: float, in_flight: int, latency_s: float) -> Window:
    """After a 429 or a timeout; at most once in a mean latency, since those that were called before the cut end until then.

    `latency_s` is 0 before the first answer ever: a fleet that begins with a burst is refused many times before it.
    """
    if w is None:
        return Window(cut_at=at)
    if at - w.cut_at < max(latency_s or RECENTLY_S, LEAST_S):
        return w
    base = min(w.size, in_flight) if w.size else in_flight
    return msgspec.structs.replace(w, size=max(1.0, base * CUT), cut_at=at)


def answered(w: Window, *, at: float, in_flight: int, senders: int, latency_s: float) -> Window | None:
    """After an answer; None where there need be no window any more."""
    if not w.size:
        return w if at - w.cut_at < COUNTING_S else None
    if in_flight < NEARLY_FULL * w.size:
        return w
    best_s = min(w.best_s * BEST_DRIFT, latency_s) if w.best_s else latency_s
    if latency_s > SLOW * best_s and at - w.cut_at >= max(latency_s, RECENTLY_S):
        return Window(size=max(1.0, w.size * SLOW_CUT), cut_at=at, best_s=best_s)
    size = w.size + 1.0 / w.size
    return None if size >= GENEROUS * senders else Window(size=size, cut_at=w.cut_at, best_s=best_s)


def bears(w: Window | None, *, at: float, answered_at: float, latency_s: float) -> bool:
    """Whether a 429 is met by a smaller window alone: others are answered, and it can be smaller. Else the provider cools down."""
    return at - answered_at <= max(2 * latency_s, RECENTLY_S) and (w is None or not w.size or w.size > 1)
