"""The picture of a run: the stored picture of its workflow, with states, and what was added since.

The stored picture (`flowq.pictures.stored`) has what was declared, nested workflows included. The
states come from the run's status. Jobs that running code added, and all jobs of a run that an older
version submitted, come from their records; those say which future jobs they block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from flowq.pictures.folding import sort_counts, stand_for
from flowq.pictures.picture import Arrow, Box, Picture, in_order
from flowq.render.groups import Declared, by_declaration, jobs_inside
from flowq.render.lines import count
from flowq.render.tally import TALLIED_DONE, Part
from flowq.status import (
    ASKING,
    DONE,
    REJECTED,
    TOLERATED,
    JobRecord,
    JobStatus,
    RunStatus,
    group_state,
)

MAX_ADDED = 2_000
"""More jobs than this that are not in the stored picture become one box."""

MAX_REASON = 300


def find_added(status: RunStatus, picture: Picture | None) -> list[JobStatus]:
    """Return the jobs whose records `draw_run` needs: those that are not in the stored picture."""
    known = {box.name for box in picture.boxes} if picture else set()
    return [job for job in status.jobs.values() if job.declared_as not in known]


def draw_run(
    status: RunStatus,
    picture: Picture | None = None,
    record_by_name: Mapping[str, JobRecord] | None = None,
) -> Picture:
    """Return the picture of a run.

    Args:
        status: the run and its jobs.
        picture: what was stored with the run; None for runs that have none.
        record_by_name: the records of the jobs that `find_added` returns.
    """
    records = record_by_name or {}
    drawn = _with_states(picture or Picture(status.workflow, (), ()), [status], "")
    drawn = replace(
        drawn,
        state=status.state,
        run_id=status.run_id,
        started_at=status.started_at,
        ended_at=status.ended_at,
    )
    known = {box.name for box in drawn.boxes}
    added = [each for name, each in by_declaration(status).items() if name not in known]
    if not added:
        return drawn
    boxes = [_added_box(each, records) for each in added]
    if len(boxes) > MAX_ADDED:
        rest = boxes[MAX_ADDED:]
        more = stand_for(rest, f"{count(len(rest), 'job')} more", "")
        boxes = [*boxes[:MAX_ADDED], more]
    box_by_name = {box.name: box for box in (*drawn.boxes, *boxes)}
    new = [
        arrow
        for arrow in _arrows(status, records)
        if arrow.blocker in box_by_name and arrow.future in box_by_name
    ]
    return in_order(drawn, box_by_name, [*drawn.arrows, *new])


def find_edges(
    status: RunStatus, picture: Picture | None, record_by_name: Mapping[str, JobRecord]
) -> list[Arrow]:
    """Return the edges between a run's declarations without drawing it; arguments as `draw_run`."""
    names = [job.name for job in find_added(status, picture)]
    records = {name: record_by_name[name] for name in names if name in record_by_name}
    known = {(arrow.blocker, arrow.future) for arrow in picture.arrows} if picture else set()
    new = (each for each in _arrows(status, records) if (each.blocker, each.future) not in known)
    return [*(picture.arrows if picture else ()), *new]


def _with_states(picture: Picture, statuses: Sequence[RunStatus], job: str) -> Picture:
    """Return a workflow's picture with the states of one execution of it, or of several.

    There are several inside of a group: then each box counts in which state it is how often.
    `job` is the name of the job that runs this workflow, empty for that of the run.
    """
    groups = frozenset(box.name for box in picture.boxes if box.group)
    declared = [by_declaration(replace(each, groups=each.groups | groups)) for each in statuses]
    boxes = []
    for box in picture.boxes:
        found = [by_name[box.name] for by_name in declared if box.name in by_name]
        states = [each.state for each in found]
        if len(found) == 1:
            box = _with_state(box, found[0])  # noqa: PLW2901 - the same box
        elif found:
            counts = sort_counts(Counter(states))
            box = replace(box, state=group_state(states), counts=counts)  # noqa: PLW2901
        if box.inside and (inner := [each for some in found for each in _find_inner(some)]):
            name = f"{job}.{box.name}" if job else box.name
            inside = replace(_with_states(box.inside, inner, name), job=name, state=box.state)
            box = replace(box, inside=inside)  # noqa: PLW2901
        boxes.append(box)
    return replace(picture, boxes=tuple(boxes))


def _with_state(box: Box, declared: Declared) -> Box:
    counted = declared.items if declared.is_group else declared.inside
    done = sum(job.state in DONE for job in counted)
    box = replace(
        box,
        state=declared.state,
        how_far=f"{done}/{len(counted)}" if counted or declared.is_group else "",
        note=_note(declared),
    )
    if declared.is_group:
        states = (
            TOLERATED if job.is_tolerated else job.state for job in declared.items
        )  # in the words of the table of a run
        return replace(box, counts=sort_counts(Counter(states)))
    return replace(box, reason=declared.items[0].reason[:MAX_REASON]) if declared.items else box


def _note(declared: Declared) -> str:
    """Return what the state alone does not say."""
    if any(job.is_asking for job in (*declared.items, *declared.helpers)):
        return ASKING
    if declared.is_group or not declared.items:
        return ""
    job = declared.items[0]
    if job.is_tolerated:
        return TOLERATED
    if job.is_rejected:
        return REJECTED
    return f"attempt {job.attempts}" if job.attempts > 1 else ""


def _find_inner(declared: Declared) -> Iterator[RunStatus]:
    """Yield the executions of the workflow that a job runs: of a group, those of its items."""
    id_by_outer = {job.name: job.job_id for job in declared.items}
    for outer, jobs in jobs_inside(declared).items():
        yield RunStatus(id_by_outer.get(outer, ""), outer, "running", jobs)


def _added_box(declared: Declared, records: Mapping[str, JobRecord]) -> Box:
    own = [records[job.name] for job in declared.own if job.name in records]
    box = Box(
        declared.name,
        kind="workflow" if declared.inside and not declared.is_group else "",
        group="for each" if declared.is_group else "",
        is_open=any(record.is_open for record in own),
        approval=any(record.needs_approval for record in own),
        description=own[0].description if len(own) == 1 else "",
    )
    box = _with_state(box, declared)
    return replace(box, note=", ".join(filter(None, [box.note, box.description])))


def _arrows(status: RunStatus, records: Mapping[str, JobRecord]) -> Iterator[Arrow]:
    """Yield the edges that start at jobs with records, each once, between declarations."""
    declared_by_id = {job.job_id: job.declared_as for job in status.jobs.values()}
    arrows: dict[tuple[str, str], Arrow] = {}
    for record in records.values():
        blocker = declared_by_id[record.job_id]
        for word in record.blocks:
            future = declared_by_id.get(word.removesuffix("!"), blocker)
            if future != blocker:
                arrow = Arrow(blocker, future, "ignore" if word.endswith("!") else None)
                arrows.setdefault((blocker, future), arrow)
    yield from arrows.values()


def draw_counted(picture: Picture, parts: Mapping[str, Part]) -> Picture:
    """Return the picture of a run with what is counted of its groups instead of their items.

    `picture` was drawn from a status without these items; `parts` are those of the run's tally.
    """
    boxes = []
    for box in picture.boxes:
        part = parts.get(box.name)
        if part is None or not part.is_group or not part.states:
            boxes.append(box)
            continue
        states = part.states
        done = sum(states[each] for each in TALLIED_DONE)
        how_far = f"{done}/{states.total()}"
        counts = sort_counts(+states)
        boxes.append(replace(box, state=part.state, how_far=how_far, counts=counts))
    return replace(picture, boxes=tuple(boxes))
