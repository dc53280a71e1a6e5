"""The providers and their condition: one view, the same from every process. For administration."""

from collections.abc import Sequence

from fastapi import APIRouter

from api.caller import AdminCaller
from api.parts import FromApp, Parts
from api.provider_limits import in_use
from api.provider_schema import ConfigObject, ProviderList, ProviderObject
from api.schema import ERRORS
from shared.catalogue import Provider
from shared.errors import NotFoundError
from shared.gate import Action
from shared.jobs import WorkerRecord

router = APIRouter(prefix="/v1/providers", tags=["Providers"], responses=ERRORS)


@router.get("")
def list_providers(parts: FromApp, _caller: AdminCaller) -> ProviderList:
    """All providers of the file: breakers, health, limits in use, what keeps them out of service; and which file each process has in force."""
    workers = parts.ledger.workers()
    return ProviderList(
        data=_seen(parts, parts.catalogue.providers, workers),
        config=[
            *(ConfigObject.of(record, "api") for record in parts.presence.all()),
            *(ConfigObject.of(record, "worker") for record in workers),
        ],
    )


@router.get("/{provider_id}")
def retrieve_provider(provider_id: str, parts: FromApp, _caller: AdminCaller) -> ProviderObject:
    return _seen(parts, [_find(parts, provider_id)], parts.ledger.workers())[0]


@router.post("/{provider_id}/enable")
def enable_provider(provider_id: str, parts: FromApp, _caller: AdminCaller) -> ProviderObject:
    """Let it serve again: what kept it out of service is forgotten, an open breaker probes at once, and what waits for it comes back."""
    return _change(parts, provider_id, "enable")


@router.post("/{provider_id}/disable")
def disable_provider(provider_id: str, parts: FromApp, _caller: AdminCaller) -> ProviderObject:
    """No more calls begin there, from any process, until it is enabled. Calls under way end as they would have."""
    return _change(parts, provider_id, "disable")


@router.post("/{provider_id}/drain")
def drain_provider(provider_id: str, parts: FromApp, _caller: AdminCaller) -> ProviderObject:
    """The same as disable, until it is enabled; and `drain` tells when the calls under way have ended, from all processes."""
    return _change(parts, provider_id, "drain")


def _change(parts: Parts, provider_id: str, action: Action) -> ProviderObject:
    provider = _find(parts, provider_id)
    parts.gate.change(provider.id, action, settings=parts.catalogue.breaker)
    return _seen(parts, [provider], parts.ledger.workers())[0]


def _find(parts: Parts, provider_id: str) -> Provider:
    for provider in parts.catalogue.providers:
        if provider.id == provider_id:
            return provider
    raise NotFoundError(
        f"No provider found with id '{provider_id[:100]}'.", param="id", code="provider_not_found"
    )


def _seen(
    parts: Parts, providers: Sequence[Provider], workers: Sequence[WorkerRecord]
) -> list[ProviderObject]:
    now, seen = parts.gate.look([provider.id for provider in providers])
    catalogue = parts.catalogue
    uses = in_use(parts.gate, catalogue, providers, [each.condition for each in seen])
    return [
        ProviderObject.of(provider, each, workers, now, settings=catalogue.breaker, use=use)
        for provider, each, use in zip(providers, seen, uses, strict=True)
    ]
