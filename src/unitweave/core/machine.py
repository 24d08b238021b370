"""What the machine has to offer."""

import os


def usable_cores() -> int:
    """Cores that this process may run on, which in a container or under a batch system are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
