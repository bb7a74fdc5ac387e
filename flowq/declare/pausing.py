"""No garbage collection while much is built that stays: it would look at all of it, over and over.

What is built here has no cycles, so nothing waits to be collected. Reading 10,000 jobs takes a
third less time.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the collector from running within this block, if it is on at all.

    What was built counts as old afterwards, so that the next small collection does not walk it.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        _age_everything()
        gc.enable()


def _age_everything() -> None:
    if gc.get_freeze_count() == 0:  # else the program has frozen something on purpose
        gc.freeze()
        gc.unfreeze()  # to the oldest generation
