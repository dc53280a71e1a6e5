"""A user's own strategy: named in the providers file by dotted path, and nowhere else; imported, looked at, and held to its word."""

import importlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from shared.catalogue import Provider, Routing
from shared.errors import ConfigError
from shared.logs import get_logger
from workers.strategies import STRATEGIES
from workers.strategies.failover import failover
from workers.strategies.records import RoutedJob, Strategy, View

SLOW_S = 1.0
REST_S = 60.0
"""A strategy that took longer than SLOW_S is not asked for so long: the worker's calls would all wait for it."""

_log = get_logger(__name__)


def load_strategies(routing: Routing) -> dict[str, Strategy]:
    """The four and the user's own, by name. Raises ConfigError with every fault at once."""
    found, faults = dict(STRATEGIES), []
    found["failover"] = partial(failover, slow_start_s=routing.slow_start_s)
    for name, path in routing.strategies.items():
        try:
            found[name] = load(path)
        except ConfigError as exc:
            faults += [f"routing.strategies.{name}: {fault}" for fault in exc.faults]
    if faults:
        raise ConfigError(faults)
    return found


def strategy_of(routing: Routing, name: str) -> Strategy:
    """The one of this name; the providers file's own where the name is no longer there. Raises ConfigError where it cannot be used."""
    if name not in routing.names:
        name = routing.strategy
    if name in routing.strategies:
        return load(routing.strategies[name])
    return partial(failover, slow_start_s=routing.slow_start_s) if name == "failover" else STRATEGIES[name]


@lru_cache(maxsize=64)
def load(path: str) -> Strategy:
    """`package.module:function`, guarded. Raises ConfigError where it cannot be imported, or not be called as a strategy."""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as exc:
        what = f"{type(exc).__name__}: {exc}"
        hint = "install it where the workers run, or put its folder on PYTHONPATH"
        raise ConfigError([f"{path}: {module_name} cannot be imported ({what}); {hint}"]) from exc
    try:
        function = getattr(module, name)
    except AttributeError as exc:
        raise ConfigError([f"{path}: {module_name} has no `{name}`"]) from exc
    if fault := _unfit(function):
        raise ConfigError([f"{path}: {fault}; a strategy is called with (job, providers, views, now)"])
    return Guarded(path, function)


def _unfit(function: object) -> str | None:
    """What keeps it from being called with four arguments and giving a list."""
    if not callable(function):
        return f"is {type(function).__name__}, which cannot be called"
    if inspect.iscoroutinefunction(function):
        return "is a coroutine function (`async def`)"
    try:
        inspect.signature(function).bind(None, (), {}, 0.0)
    except TypeError as exc:
        return f"cannot be called with 4 arguments ({exc})"
    except ValueError:  # written in C, and tells no signature
        return None
    return None


class Guarded:
    """A user's strategy whose mistakes lose no job: whom it forgets comes last, and where it raises or is slow, failover decides."""

    def __init__(self, path: str, function: Callable[..., Any]) -> None:
        self.path = path
        self._function = function
        self._told: set[str] = set()
        self._rests_until = 0.0

    def __call__(
        self, job: RoutedJob, providers: Sequence[Provider], views: Mapping[str, View], now: float
    ) -> list[Provider]:
        began = time.monotonic()
        if began < self._rests_until:
            return failover(job, providers, views, now)
        try:
            return self._ordered(job, tuple(providers), views, now)
        except BaseException as exc:  # noqa: BLE001  an edge: somebody else's code, whose sys.exit() would end a caller's thread
            self._tell("strategy_raised", exc)
            return failover(job, providers, views, now)
        finally:
            ended = time.monotonic()
            if ended - began > SLOW_S:
                self._rests_until = ended + REST_S
                self._tell("strategy_slow", None)

    def _ordered(
        self, job: RoutedJob, providers: tuple[Provider, ...], views: Mapping[str, View], now: float
    ) -> list[Provider]:
        known = {p.id: p for p in providers}
        given = self._function(job, providers, views, now)
        order = [p.id for p in islice(given, 2 * len(known))]  # what it gives may have no end
        if len(order) != len(known) or set(order) != set(known):
            self._tell("strategy_incomplete", None)
        return [known[name] for name in dict.fromkeys([*order, *known]) if name in known]

    def _tell(self, event: str, exc: BaseException | None) -> None:
        """Once for each kind of mistake: it would be said for every job."""
        kind = f"{event} {type(exc).__name__}"
        if kind not in self._told:
            self._told.add(kind)
            _log.warning(event, strategy=self.path, exc_info=exc)
