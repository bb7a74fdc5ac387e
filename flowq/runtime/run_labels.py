"""The labels of a run: in its record, and in the lists of runs by label.

The script that removes a run takes it out of these lists (lua/lifecycle.lua). Versions without
labels leave it there, so `keys.LABELED` has every run with labels, by the time of the next look at
whether it is still there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowq.labels import add_labels
from flowq.runtime import keys
from flowq.runtime.variables import RUN

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

LOOK_AGAIN_S = 86_400


def inherit_labels(labels: Mapping[str, str], connection: Redis) -> dict[str, str]:
    """Return the labels of a run that this process submits; in a job, with those of its run."""
    outer = os.environ.get(RUN)
    inherited = connection.hget(keys.run(outer), "labels") if outer else None
    return add_labels(json.loads(inherited) if inherited else {}, labels)


def list_labeled(
    run_id: str, labels: Mapping[str, str], now_s: float, look_s: float, pipeline: Pipeline
) -> None:
    """Enter a new run, whose record gets its labels, into the lists of runs by label."""
    if not labels:
        return
    written = json.dumps(labels)
    pipeline.hset(keys.run(run_id), "labels", written)
    pipeline.zadd(keys.LABELED, {f"{run_id} {written}": look_s})
    for label in labels.items():
        pipeline.zadd(keys.runs_with(*label), {run_id: now_s})


def look_at_labeled(entry: str, now_s: float, connection: Redis) -> None:
    """Take a run that is gone out of the lists of runs by label; look at another one later."""
    run_id, written = entry.split(" ", 1)
    if connection.exists(keys.run(run_id)):
        connection.zadd(keys.LABELED, {entry: now_s + LOOK_AGAIN_S}, xx=True)
        return
    with connection.pipeline() as pipeline:
        for label in json.loads(written).items():
            pipeline.zrem(keys.runs_with(*label), run_id)
        pipeline.zrem(keys.LABELED, entry)
        pipeline.execute()
