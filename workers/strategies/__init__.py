"""The routing strategies by name. Another one is a file here and a line in this dictionary, or a user's own: `custom`."""

from workers.strategies.cost_optimized import cost_optimized
from workers.strategies.failover import failover
from workers.strategies.least_latency import least_latency
from workers.strategies.records import Strategy
from workers.strategies.round_robin import round_robin

STRATEGIES: dict[str, Strategy] = {
    "round_robin": round_robin,
    "failover": failover,
    "least_latency": least_latency,
    "cost_optimized": cost_optimized,
}
