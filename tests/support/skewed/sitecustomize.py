"""With this folder on PYTHONPATH a process' wall clock is off by SKEW_S seconds, from its start.

What is shifted: `time.time`, `time.time_ns`, `time.gmtime` and `time.localtime` of now, `datetime.now` and `datetime.utcnow`.
What is not: the monotonic clock, times of files, and whatever asks the system from C by itself.
"""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

SKEW_S = float(os.environ.get("SKEW_S", "0"))


def _shift_time() -> None:
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + SKEW_S
    time.time_ns = lambda: now_ns() + int(SKEW_S * 1e9)
    for name in ("gmtime", "localtime"):
        given: Callable[[float], time.struct_time] = getattr(time, name)
        setattr(
            time, name, lambda seconds=None, given=given: given(time.time() if seconds is None else seconds)
        )


def _shift_datetime() -> None:
    """A class of C takes no new attributes; its dictionary does."""
    members: dict[str, Any] = gc.get_referents(datetime.__dict__)[0]
    for name in ("now", "utcnow"):
        given = members[name]

        def shifted(cls: type[datetime], /, *args: Any, given: Any = given, **kwargs: Any) -> datetime:
            found: datetime = given.__get__(None, cls)(*args, **kwargs)
            return found + timedelta(seconds=SKEW_S)

        members[name] = classmethod(shifted)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


if SKEW_S:
    _shift_time()
    _shift_datetime()
