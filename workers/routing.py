"""Whom to ask: the providers that may serve a job, and why the others may not; ordered by a strategy."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from shared.catalogue import Provider
from workers.strategies.records import RoutedJob, Strategy, View


class Unfit(StrEnum):
    """Why a provider cannot serve a job, whatever its condition."""

    DISABLED = "disabled"
    NOT_ASKED_FOR = "not_asked_for"
    MODEL = "model"
    CAPABILITY = "capability"
    CONTEXT = "context"
    MAX_TOKENS = "max_tokens"


def unfit(job: RoutedJob, provider: Provider) -> Unfit | None:
    """The first reason that speaks against it; None where there is none."""
    if not provider.enabled:
        return Unfit.DISABLED
    if job.allowed is not None and provider.id not in job.allowed:
        return Unfit.NOT_ASKED_FOR
    if provider.model_for(job.model) is None:
        return Unfit.MODEL
    if provider.capabilities is not None and not job.needs.issubset(provider.capabilities):
        return Unfit.CAPABILITY
    return _too_large(job, provider)


def _too_large(job: RoutedJob, provider: Provider) -> Unfit | None:
    asked = job.max_output_tokens or 0
    if provider.context_tokens is not None and job.input_tokens + asked > provider.context_tokens:
        return Unfit.CONTEXT
    if provider.max_tokens is not None and asked > provider.max_tokens:
        return Unfit.MAX_TOKENS
    return None


def eligible(job: RoutedJob, providers: Sequence[Provider]) -> tuple[list[Provider], dict[str, Unfit]]:
    """Those that may serve the job, in their order; and of the others, by id, why not."""
    fit: list[Provider] = []
    why: dict[str, Unfit] = {}
    for provider in providers:
        reason = unfit(job, provider)
        if reason is None:
            fit.append(provider)
        else:
            why[provider.id] = reason
    return fit, why


def rank(
    strategy: Strategy, job: RoutedJob, providers: Sequence[Provider], views: Mapping[str, View], now: float
) -> list[Provider]:
    """Whom to ask, best first: the strategy's order, with those that failed this job last (the latest failure at the very end).

    `views` by provider id, `now` in Unix seconds.
    """
    return ordered(strategy, job, eligible(job, providers)[0], views, now)


def ordered(
    strategy: Strategy, job: RoutedJob, fit: Sequence[Provider], views: Mapping[str, View], now: float
) -> list[Provider]:
    """The same of those that are known to be eligible."""
    if len(fit) <= 1:
        return list(fit)
    order = strategy(job, fit, views, now)
    if not job.tried:
        return order
    failed = {provider_id: n for n, provider_id in enumerate(job.tried)}
    return sorted(order, key=lambda p: failed.get(p.id, -1))
