"""`make soak DURATION=1h`: a stack under load and disturbed at random, by a seed; exit code 1 where anything was lost, doubled, or grew.

What is printed at the end: what was accepted and what became of it, what befell the stack, what its processes and Redis
took. `SEED=N` repeats the order of the disturbances of an earlier run. ops/docs/soak.md says what is judged.
"""

import argparse
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from soak.soak import Soak

_UNITS = {"s": 1, "m": 60, "h": 3600}


def main() -> int:
    asked = _asked()
    return Soak(seconds(asked.duration), asked.seed, asked.pool, asked.clients).run()


def seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None:
        raise SystemExit(f"DURATION must be a number and s, m or h, such as 1h; it is {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--duration", default="1h", help="a number and s, m or h")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pool", choices=["gevent", "threads"], default="gevent")
    parser.add_argument("--clients", type=int, default=12)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
