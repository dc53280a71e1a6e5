"""Unit tests are many and run at every turn: the whole tier takes less than ten seconds.

`make verify` runs it once more with `--hypothesis-profile=thorough`.
"""

import pytest
import structlog
from hypothesis import settings

settings.register_profile("unit", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=1000, deadline=None)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile(config.getoption("hypothesis_profile") or "unit")


# by default structlog draws every exception in colour, which takes longer than the tests that provoke one
structlog.configure(
    logger_factory=structlog.ReturnLoggerFactory(), processors=[structlog.processors.KeyValueRenderer()]
)
