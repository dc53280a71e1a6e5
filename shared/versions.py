"""The version of the records that a process must understand to run a job, or to do a batch's chores.

It stands as `v` in the hash of a batch and of a lone job, outside their JSON, written at creation; without it, it is 1. It is raised
only where an older process would do something wrong with what it finds: a new field that may be ignored raises nothing. What is
newer than a process reads is left for others (ops/docs/ledger.md, "Records and versions").
"""

VERSION = 1
"""What this release writes, and the newest that it reads."""

LOOK_AGAIN_S = 1.0
"""What a worker had to leave is hinted at again after so long: in a mixed fleet the next one may read it."""

MOST_LEFT = 1000
"""So many lone jobs one claim puts aside at most."""
