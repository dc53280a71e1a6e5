"""Unit tests are many and run at every turn: the whole tier takes less than ten seconds."""

import structlog

# by default structlog draws every exception in colour, which takes longer than the tests that provoke one
structlog.configure(
    logger_factory=structlog.ReturnLoggerFactory(), processors=[structlog.processors.KeyValueRenderer()]
)
