"""The table of a run from its counts: what `progress` shows, without a look at each job.

The notes of jobs that have not ended are shorter here: why a job is held stands in its events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from flowq.render.lines import Line
from flowq.render.progress import headline_of, rows
from flowq.runtime.counts import SHOWN, Counted, Single, Tally
from flowq.status import ASKING, ENDED, LIST, TOLERATED, JobStatus, group_state

_ENDED = ENDED | {TOLERATED}


def table(counted: Counted, now: datetime, width: int, *, unicode: bool = True) -> list[Line]:
    """Return a headline and a line for each declaration."""
    status, prefix = counted.status, f"{counted.status.run_id}-"
    tallies = {tally.job_id.removeprefix(prefix): tally for tally in counted.tallies}
    for name in sorted(counted.groups):  # an empty matrix has no job at all
        tallies.setdefault(name, Tally(prefix + name))
    shown = [_row(name, tally, name in counted.groups) for name, tally in tallies.items()]
    totals = [_count(tally) for tally in tallies.values()]
    ended, total = (sum(each) for each in zip(*totals, strict=True)) if totals else (0, 0)
    headline = headline_of(status, ended, total, now, width)
    return [headline, *rows(shown, now, width, unicode=unicode)]


def _count(tally: Tally) -> tuple[int, int]:
    """Return how many jobs have ended, and how many there are, as `RunStatus.declared` has them."""
    states, single = tally.by_state("item", "inside"), tally.single
    for state, count in tally.by_state("list").items():
        if state != "finished":  # it stands for what it has still to list
            states[state] = states.get(state, 0) + count
    ended, total = sum(n for state, n in states.items() if state in _ENDED), sum(states.values())
    if single is not None and single.name.endswith(LIST):
        stands = not total and single.state != "finished"
    else:
        stands = single is not None
    return ended + (stands and single is not None and single.state in ENDED), total + stands


def _row(name: str, tally: Tally, is_group: bool) -> JobStatus:
    single = tally.single
    if single is not None and not is_group and not tally.counts:
        return _alone(tally.job_id, single)
    counted = tally.by_state("item" if is_group else "inside")
    others = tally.by_state("start", "list", *(("inside",) if is_group else ()))
    live = [SHOWN.get(state, state) for state in others if state not in _ENDED]
    own = SHOWN.get(single.state, single.state) if single is not None else "finished"
    states = [state if state == TOLERATED else SHOWN.get(state, state) for state in counted]
    if is_group:
        state = group_state([*states, *live], own)
    elif own in ENDED:
        state = own
    else:
        state = group_state([*(each for each in states if each not in _ENDED), *live, own])
    ended = sum(count for each, count in counted.items() if each in _ENDED)
    has_failed = not is_group and own in ("failed", "canceled") and single is not None
    return JobStatus(
        f"{name} {ended}/{sum(counted.values())}" if counted or is_group else name,
        tally.job_id,
        state,
        single.reason if has_failed and single is not None else _reason(counted, single),
        attempts=1,
        started_at=min(_find(tally.began_at, single.started_at if single else None), default=None),
        ended_at=max(_find(tally.ended_at, single.ended_at if single else None), default=None)
        if state in ENDED
        else None,
    )


def _alone(job_id: str, single: Single) -> JobStatus:
    return JobStatus(
        single.name,
        job_id,
        SHOWN.get(single.state, single.state),
        ASKING if single.state == "asking" else single.reason,
        single.worker,
        single.attempts,
        started_at=single.started_at,
        ended_at=single.ended_at,
    )


def _reason(counts: Mapping[str, int], single: Single | None) -> str:
    said = [
        f"{count} {state}"
        for state, count in counts.items()
        if state in _ENDED and state != "finished"
    ]
    return ", ".join(said) or (single.reason if single is not None else "")


def _find(*instants: datetime | None) -> list[datetime]:
    return [each for each in instants if each is not None]
