"""On which of Celery's pools a test's workers run."""

import pytest

BOTH = ["gevent", pytest.param("threads", marks=pytest.mark.verify)]
"""`make test` tries gevent, `make verify` and `make faults` both."""

both_pools = pytest.mark.parametrize("pool", BOTH)
