"""Whom to ask: the providers that may serve a job, and why the others may not; ordered by a strategy."""

from collections.abc import Mapping, Sequence

from shared.catalogue import Provider
from shared.fitness import Unfit, unfit
from workers.strategies.records import UNKNOWN, WARM_UP, RoutedJob, Strategy, View, call_s


def eligible(job: RoutedJob, providers: Sequence[Provider]) -> tuple[list[Provider], dict[str, Unfit]]:
    """Those that may serve the job, in their order; and of the others, by id, why not."""
    fit: list[Provider] = []
    why: dict[str, Unfit] = {}
    for provider in providers:
        reason = unfit(provider, job.model, job)
        if reason is None:
            fit.append(provider)
        else:
            why[provider.id] = reason
    return fit, why


def in_time(job: RoutedJob, fit: Sequence[Provider], views: Mapping[str, View]) -> Sequence[Provider]:
    """Those that are expected to answer before the job's window ends.

    All of them where nobody would who can be called now and has not failed the job: better late than never, for calls that
    are under way when a batch's window ends are waited for, and the estimate may be wrong.
    """
    left_s = job.left_s
    if left_s is None or len(fit) <= 1 or all(left_s >= p.timeouts.total_s for p in fit):
        return fit
    known = [views.get(p.id, UNKNOWN) for p in fit]
    tokens = job.expected_output_tokens or 0
    kept = [n for n, view in enumerate(known) if view.answers < WARM_UP or call_s(view, tokens) <= left_s]
    fresh = any(known[n].serving and fit[n].id not in job.tried for n in kept)
    return [fit[n] for n in kept] if fresh else fit


def rank(
    strategy: Strategy, job: RoutedJob, providers: Sequence[Provider], views: Mapping[str, View], now: float
) -> list[Provider]:
    """Whom to ask, best first: the strategy's order, with those that failed this job last (the latest failure at the very end).

    Those that would be too late for its deadline are left out (`in_time`).

    `views` by provider id, `now` in Unix seconds.
    """
    return ordered(strategy, job, eligible(job, providers)[0], views, now)


def ordered(
    strategy: Strategy, job: RoutedJob, fit: Sequence[Provider], views: Mapping[str, View], now: float
) -> list[Provider]:
    """The same of those that are known to be eligible, without those that would be too late."""
    fit = in_time(job, fit, views)
    if len(fit) <= 1:
        return list(fit)
    order = strategy(job, fit, views, now)
    if not job.tried:
        return order
    failed = {provider_id: n for n, provider_id in enumerate(job.tried)}
    return sorted(order, key=lambda p: failed.get(p.id, -1))
