"""Retries in the form that jobs carry: RQ's numbers, and a policy for `lua/retries.lua`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from flowq.declare.retries import say_policy
from flowq.durations import write_duration
from flowq.runtime.rq import make_retry

if TYPE_CHECKING:
    from rq.job import Retry as RQRetry

    from flowq.spec import Retry

MAX_PAUSES = 20
"""The most pauses in RQ's list, for a worker that does not know the policy."""

MOST_S = 86_400.0
"""The longest pause without a `max_backoff`, unless the first one is longer."""


@lru_cache  # equal retries give the same object, so that one job can be a copy of another
def to_rq_retry(retries: Retry | None) -> RQRetry | None:
    """Return retries as RQ's object, with the policy beyond RQ's options."""
    if retries is None:
        return None
    return make_retry(retries.max, _list_pauses(retries), write_policy(retries))


def write_policy(retries: Retry) -> str:
    """Return the part of the policy that RQ has no options for, as JSON; empty for nothing."""
    if retries.is_plain:
        return ""
    policy = {"max": retries.max, "backoff": retries.backoff_s, **say_policy(retries)}
    policy["max_backoff"] = _find_most(retries)
    if retries.within_s is not None:
        policy["within_words"] = str(write_duration(retries.within_s))
    return json.dumps(policy)


def _find_most(retries: Retry) -> float:
    most_s = retries.max_backoff_s
    return max(MOST_S, retries.backoff_s) if most_s is None else most_s


def _list_pauses(retries: Retry) -> Sequence[float]:
    """Return the pauses without their random part.

    If the list has as many pauses as there are retries, RQ begins with the first. It repeats the
    first of a shorter list.
    """
    if retries.factor == 1:
        return [retries.backoff_s]
    pauses, pause_s, most_s = [], float(retries.backoff_s), _find_most(retries)
    for _ in range(min(retries.max, MAX_PAUSES)):
        pauses.append(min(pause_s, most_s))
        pause_s = min(pause_s * retries.factor, most_s)
    return pauses or [retries.backoff_s]
