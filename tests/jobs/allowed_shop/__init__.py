"""What a worker with `--allow 'allowed_shop.*'` may run."""

import os
import subprocess as processes
from functools import lru_cache, partial

import forbidden_marks

from allowed_shop import models, tasks

__all__ = ["cached", "forbidden_marks", "models", "of_five", "os", "processes", "tasks"]


@lru_cache
def cached() -> int:
    """A decorated function, whose wrapper says where it was defined."""
    return 7


of_five = partial(tasks.charge, 5)
