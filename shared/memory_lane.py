"""The memory twin of the suspects' lane (`lua/_lane.lua`): who waits, who is out, and which workers were heard of."""

from collections.abc import Callable
from typing import Protocol

from shared.clock import Clock
from shared.suspects import SILENT_S


class HasSuspects(Protocol):
    """A store whose shards, or lone jobs, may stand in the lane."""

    def is_out(self, name: str) -> bool:
        """Whether it is in somebody's hands as a suspect."""
        ...

    def in_lane(self, name: str) -> bool:
        """Whether it still waits for its turn."""
        ...


class MemoryLane:
    """Which the ledger of batches and that of lone jobs have in common."""

    def __init__(self, clock: Clock) -> None:
        self._now: Callable[[], float] = clock.now
        self._stores: list[HasSuspects] = []
        self._out = ""
        self._counted: set[str] = set()
        self.holder = ""
        self.deaths = 0
        self.waiting: dict[str, float] = {}
        self.heard: dict[str, float] = {}
        self.left: set[str] = set()

    def join(self, store: HasSuspects) -> None:
        self._stores.append(store)

    def died(self, holder: str) -> bool:
        heard = self.heard.get(holder)
        if heard is not None and heard >= self._now() - SILENT_S:
            return False
        return holder not in self.left

    def note_death(self, holder: str) -> None:
        """Before what it held has left it."""
        if holder not in self._counted:
            self._counted.add(holder)
            self.deaths += not (self._taken and self.holder == holder)

    @property
    def _taken(self) -> bool:
        return any(store.is_out(self._out) for store in self._stores)

    def next(self) -> str | None:
        """The suspect that may run now."""
        if self._taken:
            return None
        for name, due in sorted(self.waiting.items(), key=lambda item: (item[1], item[0])):
            if due > self._now():
                break
            if any(store.in_lane(name) for store in self._stores):
                return name
            del self.waiting[name]
        return None

    def next_of(self, store: HasSuspects) -> str | None:
        """The same, where it is that store's."""
        name = self.next()
        return name if name is not None and store.in_lane(name) else None

    def take(self, name: str) -> None:
        del self.waiting[name]
        self._out = name
