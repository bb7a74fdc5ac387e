"""What the drained jobs do; light to import, because RQ's worker imports it for each job."""

import time


def nothing() -> None:
    """Do nothing."""


def get_time() -> float:
    """Return when this started."""
    return time.time()
