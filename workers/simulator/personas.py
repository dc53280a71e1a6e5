"""The providers that one simulator plays, each with its own behaviour, limits and counters."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from shared.errors import ConfigError
from workers.simulator.behaviour import NAME, Behaviour, changed
from workers.simulator.limits import Limits

DEFAULT = "default"
EVERY = "*"
MOST_PERSONAS = 1000


class Counters(msgspec.Struct):
    """What a persona has done since the start or the last reset. Tokens are those of the answers sent."""

    calls: int = 0
    by_status: dict[str, int] = {}
    prompt_tokens: int = 0
    completion_tokens: int = 0
    in_flight: int = 0
    max_in_flight: int = 0

    def enter(self) -> None:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1

    def ended(self, status: int | str) -> None:
        key = str(status)
        self.by_status[key] = self.by_status.get(key, 0) + 1


class Repeats:
    """How often each body has come. Remembers the last `size` different bodies at least, twice as many at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def next(self, body_sha: bytes) -> int:
        """1 for a body's first call, 2 for its second."""
        nth = (self._young.get(body_sha) or self._old.get(body_sha, 0)) + 1
        self._young[body_sha] = nth
        if len(self._young) >= self._size:
            self._old, self._young = self._young, {}
        return nth


class Persona:
    """One simulated provider. `on_switch` holds what to tell when its behaviour changes: the calls that hang."""

    def __init__(self, name: str, behaviour: Behaviour, memory: int, now: float) -> None:
        self.name = name
        self.on_switch: set[Callable[[], None]] = set()
        self._memory = memory
        self.reset(behaviour, now)

    def reset(self, behaviour: Behaviour, now: float) -> None:
        """As new. Calls still running keep counting where they began, in counters that nobody reads any more."""
        self.behaviour = behaviour
        self.limits = Limits.of(behaviour, now)
        self.counters = Counters()
        self.repeats = Repeats(self._memory)
        self._tell()

    def switch(self, behaviour: Behaviour, now: float) -> None:
        """Behave so from now on. Limits that stay the same keep what is left of them."""
        before, self.behaviour = self.behaviour, behaviour
        if _limits(before) != _limits(behaviour):
            self.limits = Limits.of(behaviour, now)
        self._tell()

    def _tell(self) -> None:
        for reconsider in list(self.on_switch):
            reconsider()


class Personas:
    """All of them by name; an unknown one comes to life at its first mention, with the behaviour of the start."""

    def __init__(self, start: Mapping[str, Behaviour], memory: int, now: float) -> None:
        self._start = dict(start)
        self._memory = memory
        self._base = start[DEFAULT]
        self._by_name = {name: Persona(name, found, memory, now) for name, found in start.items()}

    def reset(self, now: float) -> None:
        """Every persona as at the start."""
        self._base = self._start[DEFAULT]
        for persona in self._by_name.values():
            persona.reset(self._start.get(persona.name, self._base), now)

    def get(self, name: str, now: float) -> Persona:
        """Raises ConfigError for a name that cannot be one, or one too many."""
        persona = self._by_name.get(name)
        if persona is None:
            if not NAME.fullmatch(name):
                raise ConfigError([f"persona {name[:64]!r}: use up to 64 letters, digits and . _ -"])
            if len(self._by_name) >= MOST_PERSONAS:
                raise ConfigError(
                    [f"persona {name}: there are {MOST_PERSONAS} personas already, the most there can be"]
                )
            persona = self._by_name[name] = Persona(name, self._base, self._memory, now)
        return persona

    def patch(self, name: str, settings: Mapping[str, Any], now: float) -> Behaviour:
        """Change some settings of one persona, or with `*` of every one, those to come included.

        All of it or, raising ConfigError with every fault, nothing.
        """
        if name != EVERY:
            persona = self.get(name, now)
            persona.switch(changed(persona.behaviour, settings, f"persona {name}"), now)
            return persona.behaviour
        base = changed(self._base, settings, "every persona")
        found = [(p, changed(p.behaviour, settings, f"persona {p.name}")) for p in self._by_name.values()]
        self._base = base
        for persona, behaviour in found:
            persona.switch(behaviour, now)
        return self.get(DEFAULT, now).behaviour

    def counters(self) -> dict[str, Counters]:
        return {name: persona.counters for name, persona in self._by_name.items()}


def _limits(behaviour: Behaviour) -> tuple[int | None, ...]:
    return behaviour.rpm, behaviour.tpm, behaviour.concurrency
