"""Pictures of large graphs: fewer boxes, each for several jobs, before anything is laid out.

No layout is readable, or quick, with hundreds of boxes or with hundreds of arrows at one. So twins
(jobs with the same blockers and the same future jobs) and chains become one box each; where that
is not enough, each level does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from flowq.errors import UsageError
from flowq.nearest import did_you_mean
from flowq.pictures.picture import Arrow, Box, Picture, in_order
from flowq.render.lines import count
from flowq.status import BAD, group_state

MAX_ARROWS_AT_ONE_BOX = 40
"""Above this the effort of a layout grows out of bounds, and nobody can follow an arrow."""

MAX_ARROWS = 400

WANTED_BOXES = 60
"""Above this many boxes a drawing is folded."""

MAX_BOXES = 150
"""Above this many, after folding, a drawing shows levels."""

MAX_LEVELS = 40

"""The states that a reader looks for first."""

_NAMES = 4

_MAX_DEPTH = 5
"""How deep the names of nested workflows are looked at for a hint."""

FEW = 3
"""That many twins, or jobs in a row, are drawn one by one."""

Parts = Iterable[tuple[Box, Sequence[Box]]]
"""The boxes of a new picture, each with those of an old one that it stands for."""


def fold(picture: Picture, wanted: int, at_most: int) -> Picture:
    """Return a picture that can be drawn: the same one, one with fewer boxes, or levels.

    Args:
        wanted: up to this many boxes all jobs are drawn one by one.
        at_most: above this many, after folding, levels are drawn.
    """
    if picture.is_by_level:
        return _with_names(picture)
    folded = picture
    for fold_some in (_fold_twins, _fold_chains, _fold_twins):
        if fits(folded, wanted):
            return folded
        folded = fold_some(folded)
    return folded if fits(folded, at_most) else _with_names(by_level(picture, MAX_LEVELS))


def fits(picture: Picture, at_most: int) -> bool:
    """Whether a picture can be drawn with each of its boxes and arrows."""
    at_box = Counter(arrow.blocker for arrow in picture.arrows)
    at_box.update(arrow.future for arrow in picture.arrows)
    return (
        len(picture.boxes) <= at_most
        and len(picture.arrows) <= MAX_ARROWS
        and max(at_box.values(), default=0) <= MAX_ARROWS_AT_ONE_BOX
    )


def _fold_twins(picture: Picture) -> Picture:
    """Draw jobs that have the same edges, and look alike, as one."""
    edges: dict[str, list[tuple[str, str, str]]] = {box.name: [] for box in picture.boxes}
    for arrow in picture.arrows:
        edges[arrow.future].append(("after", arrow.blocker, arrow.word))
        edges[arrow.blocker].append(("before", arrow.future, arrow.word))
    twins: dict[object, list[Box]] = {}
    for box in picture.boxes:
        marks = (box.is_open, box.approval, box.polls, box.start_when)
        looks = (box.kind, box.group, *marks, box.else_of)
        twins.setdefault(
            (looks, not box.condition, not box.members, frozenset(edges[box.name])), []
        ).append(box)
    return merge(picture, _stacks(twins.values(), "{first} and {others:,} more", "{jobs}"))


def _fold_chains(picture: Picture) -> Picture:
    """Draw jobs that come one after the other as one, but for the first and the last."""
    before, after = picture.blockers_by_name(), _futures_by_name(picture)
    inner = {name for name in before if len(before[name]) == 1 and len(after[name]) == 1}
    chain_by_name: dict[str, list[Box]] = {}
    chains: list[list[Box]] = []
    for box in picture.boxes:  # each comes after its blockers
        blocker = before[box.name][0] if box.name in inner else ""
        if blocker in inner:
            chain_by_name[box.name] = chain_by_name[blocker]
        else:
            chain_by_name[box.name] = []
            chains.append(chain_by_name[box.name])
        chain_by_name[box.name].append(box)
    return merge(picture, _stacks(chains, "{first} … {last}", "{jobs} in a row"))


def _stacks(groups: Iterable[Sequence[Box]], name: str, summary: str) -> Parts:
    """Yield one box for each group that is not small, and the boxes of the others."""
    for group in groups:
        if len(group) <= FEW:
            yield from ((box, [box]) for box in group)
        else:
            first, last = group[0].name, group[-1].name
            jobs = count(sum(map(len, group)), "job")
            title = name.format(first=first, last=last, others=len(group) - 1)
            yield stand_for(group, title, summary.format(jobs=jobs)), group


def stand_for(boxes: Sequence[Box], name: str, summary: str) -> Box:
    """Return one box for several: it looks as all of them do, where they look alike."""
    states: Counter[str] = Counter()
    for box in boxes:
        states.update(dict(box.counts) if box.members else {box.state: 1})
    has_states = set(states) != {""}
    first = boxes[0]
    return Box(
        name,
        first.level,
        first.kind if all(box.kind == first.kind for box in boxes) else "",
        first.group if all(box.group == first.group for box in boxes) else "",
        is_future=all(box.is_future for box in boxes),
        is_open=all(box.is_open for box in boxes),
        is_final=all(box.is_final for box in boxes),
        approval=all(box.approval for box in boxes),
        polls=all(box.polls for box in boxes),
        start_when=first.start_when
        if all(box.start_when == first.start_when for box in boxes)
        else None,
        condition=first.condition if all(box.condition for box in boxes) else "",
        state=group_state(states) if has_states else "",
        members=tuple(job for box in boxes for job in box.members or (box,)),
        summary=summary,
        counts=sort_counts(states) if has_states else (),
    )


def sort_counts(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Return the numbers of jobs by state, the states first that a reader looks for first."""
    return tuple(sorted(counts.items(), key=lambda each: each[0] not in BAD))


def merge(picture: Picture, parts: Parts) -> Picture:
    """Return the picture with new boxes for old ones; arrows within one are left out."""
    box_by_name: dict[str, Box] = {}
    new_by_old: dict[str, str] = {}
    for box, group in parts:
        box_by_name[box.name] = box
        new_by_old |= {old.name: box.name for old in group}
    by_ends: dict[tuple[str, str], dict[str, Arrow]] = {}
    for arrow in picture.arrows:
        blocker, future = new_by_old.get(arrow.blocker), new_by_old.get(arrow.future)
        if blocker and future and blocker != future:
            by_ends.setdefault((blocker, future), {})[arrow.word] = arrow
    arrows = [
        replace(next(iter(merged.values())), blocker=blocker, future=future)
        if len(merged) == 1
        else Arrow(blocker, future)
        for (blocker, future), merged in by_ends.items()
    ]
    return in_order(picture, box_by_name, arrows)


def by_level(picture: Picture, at_most: int) -> Picture:
    """Return a picture with one box for each level, or for several where there are too many."""
    if picture.is_by_level or not picture.boxes:
        return picture
    levels: list[Box] = []
    for name, boxes in _find_levels(picture, at_most):
        all_jobs = stand_for(boxes, name, count(sum(map(len, boxes)), "job"))
        level = Box(
            name,
            len(levels),
            "",
            state=all_jobs.state,
            members=all_jobs.members,
            summary=all_jobs.summary,
            counts=all_jobs.counts,
            is_level=True,
        )
        levels.append(level)
    names = [level.name for level in levels]
    arrows = tuple(map(Arrow, names, names[1:]))
    return replace(picture, boxes=tuple(levels), arrows=arrows, is_by_level=True)


def _with_names(levels: Picture) -> Picture:
    """Return levels whose boxes say which jobs they have, as far as there is room."""

    def say(box: Box) -> str:
        names = ", ".join(job.name for job in box.members[:_NAMES])
        return f"{box.summary}: {names}{', …' if len(box.members) > _NAMES else ''}"

    boxes = tuple(replace(box, summary=say(box)) for box in levels.boxes)
    return replace(levels, boxes=boxes)


def _find_levels(picture: Picture, at_most: int) -> Iterator[tuple[str, list[Box]]]:
    """Yield the boxes of each level, or of several, with a name. The first level is 1 there."""
    number = 1 + max((box.level for box in picture.boxes), default=-1)
    step = -(-number // at_most)
    parts: list[list[Box]] = [[] for _ in range(0, number, max(step, 1))]
    for box in picture.boxes:
        parts[box.level // step].append(box)
    for at, boxes in enumerate(parts):
        first, last = at * step + 1, min((at + 1) * step, number)
        yield (f"level {first}" if first == last else f"levels {first}–{last}"), boxes


def focus(picture: Picture, name: str, steps: int = 2, outer: str = "") -> Picture:
    """Return one job with what is at most so many edges before and after it.

    What is further away on a side is one box. The name of a job of a nested workflow begins with
    that of the job that runs it, `deploy.build`; that of an item stands for its group. `outer` is
    what stood before the name, for errors.
    Errors: UsageError for an unknown job.
    """
    first, _, rest = without_items(name).partition(".")
    box = next((box for box in picture.boxes if box.name == (first if rest else name)), None)
    if box is None and name != first and not rest:
        return focus(picture, first, steps, outer)
    if rest and box is not None and box.inside:
        return focus(box.inside, rest, steps, f"{outer}{first}.")
    if rest or box is None:
        hint = did_you_mean(outer + name, _names(picture, outer))
        raise UsageError(f"{picture.title} has no job {outer + name!r}; {hint}")
    before, after = picture.blockers_by_name(), _futures_by_name(picture)
    earlier, later = _distances(name, before), _distances(name, after)
    parts: list[tuple[Box, list[Box]]] = []
    far_before, far_after = (
        [box for box in picture.boxes if found.get(box.name, 0) > steps]
        for found in (earlier, later)
    )
    for box in picture.boxes:
        if min(earlier.get(box.name, steps + 1), later.get(box.name, steps + 1)) <= steps:
            parts.append((box, [box]))
    for side, boxes in (("before", far_before), ("after", far_after)):
        if len(boxes) > 1:
            number = count(sum(map(len, boxes)), "job")
            parts.append((stand_for(boxes, f"{number} further {side}", ""), boxes))
        else:
            parts += [(box, [box]) for box in boxes]
    # An arrow back from what is shown to what is far would close a circle.
    names_before, names_after = ({box.name for box in far} for far in (far_before, far_after))
    arrows = tuple(
        arrow
        for arrow in picture.arrows
        if arrow.future not in names_before and arrow.blocker not in names_after
    )
    return merge(replace(picture, arrows=arrows), parts)


def without_items(name: str) -> str:
    """Return the declarations in a name: `deploy.build` for `deploy[3].build[1]`."""
    return re.sub(r"\[[^\]]*\]|\((?:list|start)\)", "", name)


def _names(picture: Picture, outer: str = "") -> Iterator[str]:
    """Yield the names of all jobs, and of those in nested workflows."""
    for box in picture.boxes:
        yield outer + box.name
        if box.inside and outer.count(".") < _MAX_DEPTH:
            yield from _names(box.inside, f"{outer}{box.name}.")


def _distances(name: str, neighbours: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return how many edges away each job is that can be reached."""
    found = {name: 0}
    waiting = [name]
    for each in waiting:
        for other in neighbours[each]:
            if other not in found:
                found[other] = found[each] + 1
                waiting.append(other)
    return found


def _futures_by_name(picture: Picture) -> dict[str, list[str]]:
    futures: dict[str, list[str]] = {box.name: [] for box in picture.boxes}
    for arrow in picture.arrows:
        futures[arrow.blocker].append(arrow.future)
    return futures
