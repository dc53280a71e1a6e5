"""How the long forms of the fault suite are marked."""

import pytest

full = (pytest.mark.faults, pytest.mark.timeout(400))
"""For `pytest.param(..., marks=full)`: only `make faults` runs it."""

each_pool = pytest.mark.parametrize("pool", ["gevent", pytest.param("threads", marks=full)])
"""The short forms run on gevent, the whole suite on both."""
