"""Process 1 of a container inherits what jobs leave behind, and has to wait for it when it ends.

Elsewhere the system's own process 1 does that. A container whose process 1 does not would fill up
with zombies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

INIT = 1
PER_CALL = 1_000


def reap_orphans(own: Iterable[int]) -> None:
    """Wait for orphans that have ended, if this is process 1. Does not block.

    `own`: children that somebody else here waits for. Those in the process group of this process
    are left alone too: what a program starts beside its worker is its own.
    """
    if os.getpid() != INIT or not hasattr(os, "waitid"):
        return
    kept, group = set(own), os.getpgrp()
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(OSError):  # there is no child, or it is gone
        for _ in range(PER_CALL):
            found = os.waitid(os.P_ALL, 0, look)
            # One of ours is found again and again, until it is waited for; the others come then.
            if found is None or found.si_pid in kept or os.getpgid(found.si_pid) == group:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
