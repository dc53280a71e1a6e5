"""What a fleet offers, for tests of the lines that are checked against it."""

from shared.jobs import Fault
from shared.routing_asked import RoutingAsked, WrongRouting


class Serves:
    """One model, and any routing."""

    def __init__(self, model: str) -> None:
        self._model = model

    def serves(self, model: str) -> bool:
        return model == self._model

    def wrong(self, asked: RoutingAsked, model: str) -> WrongRouting | None:  # noqa: ARG002
        return None

    def beyond(self, body: bytes, model: str, asked: RoutingAsked | None) -> Fault | None:  # noqa: ARG002
        return None
