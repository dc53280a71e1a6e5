"""Workers that send jobs to providers as a strategy says, in simulated time: what became of each job, in order."""

import heapq
from collections.abc import Callable, Sequence
from typing import NamedTuple

from shared.catalogue import Provider
from shared.condition import Condition, answered
from workers.routing import rank
from workers.strategies.records import RoutedJob, Strategy, View

Latency = Callable[[str, int, float], float]
"""Seconds that a call takes: of the provider, its calls in flight, and the time at which the call begins."""


class Sent(NamedTuple):
    at: float
    provider: str
    turn: int


class Done(NamedTuple):
    at: float
    provider: str
    duration_s: float
    sent_before: int
    """Jobs that the fleet had sent before this answer came."""


class Fleet:
    """`workers` of `concurrency` calls each; averages are shared, and known at once; calls in flight are each one's own."""

    def __init__(
        self,
        strategy: Strategy,
        providers: Sequence[Provider],
        latency: Latency,
        *,
        workers: int,
        concurrency: int,
    ) -> None:
        self.strategy, self.providers, self.latency = strategy, providers, latency
        self.now, self.turn = 0.0, 0
        self.known = {p.id: Condition() for p in providers}
        self.latest = dict.fromkeys(self.known, 0.0)
        self.under_way: list[list[tuple[float, str]]] = [[] for _ in range(workers)]
        self.sent: list[Sent] = []
        self.done: list[Done] = []
        self._ends: list[tuple[float, int, int, float, str]] = []
        # one after another, a little apart: nothing in a fleet happens at the same instant
        self._starts = [(0.001 * n, n % workers) for n in range(workers * concurrency)]

    def run(self, jobs: int) -> None:
        """Until so many more are answered."""
        wanted = len(self.done) + jobs
        while len(self.done) < wanted:
            if self._starts and (not self._ends or self._starts[0][0] <= self._ends[0][0]):
                self.now, worker = self._starts.pop(0)
                self._send(worker)
                continue
            self.now, _, worker, began, name = heapq.heappop(self._ends)
            self.under_way[worker].remove((began, name))
            took = self.now - began
            self.known[name] = answered(self.known[name], duration_s=took, at=self.now + 1)
            self.latest[name] = took
            self.done.append(Done(self.now, name, took, len(self.sent)))
            self._send(worker)

    def _send(self, worker: int) -> None:
        job = RoutedJob("m", self.turn)
        name = rank(self.strategy, job, self.providers, self._views(worker), self.now)[0].id
        flying = sum(1 for calls in self.under_way for _, other in calls if other == name)
        self.under_way[worker].append((self.now, name))
        ends = self.now + self.latency(name, flying, self.now)
        heapq.heappush(self._ends, (ends, self.turn, worker, self.now, name))
        self.sent.append(Sent(self.now, name, self.turn))
        self.turn += 1

    def _views(self, worker: int) -> dict[str, View]:
        views = {}
        for name, condition in self.known.items():
            began = [at for at, other in self.under_way[worker] if other == name]
            views[name] = View(
                answers=condition.calls,
                latency_s=condition.latency_s,
                latest_s=self.latest[name],
                success_rate=condition.success_rate,
                in_flight=len(began),
                oldest_s=self.now - min(began, default=self.now),
            )
        return views

    def share(self, name: str, since: int, until: int | None = None) -> float:
        """Of the jobs sent from the `since`-th on."""
        sent = self.sent[since:until]
        return sum(s.provider == name for s in sent) / len(sent)
