"""What the rivals' senders have in common: `python RIVAL.py URL BODIES COUNT` sends that many tasks and says what it cost."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path


def bodies() -> tuple[str, list[dict[str, object]]]:
    """The provider's URL, and the bodies to send to it."""
    url, path, count = sys.argv[1:]
    found = [json.loads(line) for line in Path(path).read_bytes().splitlines()]
    return url, list(islice(cycle(found), int(count)))


@contextmanager
def report() -> Iterator[None]:
    """Prints when sending began (Unix seconds), and how long it took in seconds and CPU seconds."""
    began, cpu = time.time(), time.process_time()
    yield
    took = {"began": began, "wall_s": time.time() - began, "cpu_s": time.process_time() - cpu}
    sys.stdout.write(json.dumps(took) + "\n")


def fill(send: Callable[[str, dict[str, object]], object]) -> None:
    url, found = bodies()
    with report():
        for body in found:
            send(url, body)
