"""What the API process counts: every metric it exports is registered here. No label ever names an owner, a key or an id."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder


class Metrics:
    """One per process, with a registry of its own."""

    def __init__(self) -> None:
        # `_created` would add a series to each counter and histogram
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        self._connections = Gauge(
            "llm_active_connections",
            "Open connections of clients to this API process, idle ones included",
            registry=self._registry,
        )

    def watch_connections(self, count: Callable[[], int]) -> None:
        """`count` is asked at each scrape, so that connections cost nothing in between."""
        self._connections.set_function(count)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it, and its content type: Prometheus' text format, or OpenMetrics for who accepts it."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
