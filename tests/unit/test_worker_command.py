import subprocess
import sys
from itertools import pairwise

import pytest

from shared.errors import ConfigError
from shared.worker_command import worker_command


@pytest.mark.parametrize("pool", ["prefork", "solo", "eventlet"])
def test_other_pools_are_refused_with_the_right_command(pool: str) -> None:
    with pytest.raises(ConfigError, match="llm-edge worker --pool gevent"):
        worker_command(name=None, pool=pool)


def test_a_worker_is_plain_celery() -> None:
    command = worker_command(name="w@host-1", pool="gevent")
    assert command[3:6] == ["-A", "workers.app", "worker"]
    assert ("-n", "w@host-1") in pairwise(command)


def test_what_it_becomes_imports_celery_and_it_does_not() -> None:
    program = (
        "import sys\n"
        "from shared.config import load_settings\n"
        "from shared.worker_command import worker_command\n"
        "worker_command(name=None, pool=load_settings({}).pool)\n"
        "assert not {'celery', 'kombu', 'redis'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
