"""The models that the providers serve."""

from fastapi import APIRouter

from api.job_schema import ModelList, ModelObject
from api.parts import FromApp
from api.schema import ERRORS
from shared.catalogue import Catalogue
from shared.errors import NotFoundError

router = APIRouter(prefix="/v1/models", tags=["Models"], responses=ERRORS)


@router.get("")
async def list_models(parts: FromApp) -> ModelList:
    """Names that a request may ask for. A provider that passes any name on (`*`) adds none."""
    catalogue = parts.catalogue
    return ModelList(data=[_model(catalogue, name) for name in catalogue.model_names])


@router.get("/{model:path}")
async def retrieve_model(model: str, parts: FromApp) -> ModelObject:
    catalogue = parts.catalogue
    if not catalogue.serves(model):
        raise NotFoundError(
            f"No enabled provider serves the model '{model[:100]}'.", param="model", code="model_not_found"
        )
    return _model(catalogue, model)


def _model(catalogue: Catalogue, name: str) -> ModelObject:
    owner = next(p.id for p in catalogue.providers if p.enabled and p.model_for(name) is not None)
    return ModelObject(id=name, created=0, owned_by=owner)
