"""What a large request does not do: keep all other callers waiting while it is looked at."""

import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from api.parts import Parts
from api.routes.completions import LARGE_BYTES, _Asked, _new_job
from shared.catalogue import Catalogue
from shared.config import load_settings
from shared.errors import NotFoundError, RequestError

CHAT = "/v1/chat/completions"
FLEET = {
    "providers": [
        {"id": "p", "endpoint": "http://h/v1", "models": {"m": "m"}, "cost_per_1k_tokens": 1, "max_tokens": 9}
    ],
    "owners": {"alice": {"max_cost": 1_000_000}},
}


class Watched(Catalogue):
    """Remembers who has asked it."""

    def serves(self, model: str) -> bool:
        asked_by.append(threading.get_ident())
        return super().serves(model)


asked_by: list[int] = []


def taken_in(model: str, text: str) -> Any:
    parts = cast(
        "Parts",
        SimpleNamespace(
            catalogue=Watched.model_validate(FLEET),
            settings=load_settings({}),
            desk=SimpleNamespace(name="d"),
        ),
    )
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()
    asked = _Asked("alice", CHAT, body, None, repeated=False, waits=True)
    asked_by.clear()
    return anyio.run(_new_job, asked, parts)


@pytest.mark.parametrize(("size", "elsewhere"), [(100, False), (LARGE_BYTES + 1, True)])
def test_a_large_body_is_looked_at_in_a_thread_of_its_own(size: int, elsewhere: bool) -> None:
    job = taken_in("m", "x" * size)
    assert (job.spec.model, job.spec.owner) == ("m", "alice")
    assert asked_by
    assert all((each != threading.get_ident()) == elsewhere for each in asked_by)


def test_what_is_wrong_with_it_is_said_all_the_same() -> None:
    with pytest.raises(NotFoundError, match="No enabled provider"):
        taken_in("other", "x" * LARGE_BYTES)
    with pytest.raises(RequestError):
        taken_in("", "")
