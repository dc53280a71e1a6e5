"""Memory of a process with many threads: glibc gives threads heaps of their own, up to eight a core, and what is freed in one is of no use to another."""

import ctypes
import os
import sys

FEW = 2
_M_ARENA_MAX = -8  # glibc's malloc.h


def keep_few() -> bool:
    """Whether the C library was told; MALLOC_ARENA_MAX, where it is set, and other libraries than glibc are left alone.

    Uploads pass through a thread pool in pieces of a megabyte: without this resident memory goes up for hours, though no object stays.
    """
    if not sys.platform.startswith("linux") or "MALLOC_ARENA_MAX" in os.environ:
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(tell is not None and tell(_M_ARENA_MAX, FEW))
