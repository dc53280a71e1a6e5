"""The memory twin of `redis_idempotency`, shared by the memory twins of the stores that make things."""

from shared.clock import Clock
from shared.idempotency import Kept, Once, earlier


class MemoryIdempotency:
    """The contract: `shared.idempotency.Idempotency`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, str], tuple[Kept, float]] = {}

    def find(self, owner: str, name: str) -> Kept | None:
        kept, until = self._kept.get((owner, name), (None, 0.0))
        return kept if until > self._clock.now() else None

    def earlier(self, once: Once | None) -> str | None:
        """As `shared.idempotency.earlier`; what has no key is always to be made."""
        return None if once is None else earlier(self.find(once.owner, once.name), once)

    def keep(self, once: Once | None, made: str) -> None:
        if once is not None:
            until = self._clock.now() + once.keep_s
            self._kept[once.owner, once.name] = (Kept(once.fingerprint, made), until)
