"""What a picture shows: the jobs and edges of a graph, with states where there is a run.

Every format is made from this value, so that a workflow and a run look alike in all of them. It
can be written as plain data and read again, because a run outlives the text of its workflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal

from flowq.durations import utc_time
from flowq.graph import LEFT_OUT, Graph, build_graph, sort_by_edges
from flowq.render.json import write_instant
from flowq.render.lines import OPEN, count, find_mark, format_duration
from flowq.spec import PASS_ON, BlockerPolicy, JobSpec, StartWhen, Workflow
from flowq.status import ASKING, DONE, TOLERATED

Kind = Literal["call", "run", "workflow", "sleep", ""]
"""What a job does; empty where that is not known, or where a box stands for several jobs."""

FINALLY = "finally"

_WORD_BY_POLICY: Mapping[str | None, str] = {
    "run": "runs if blockers fail",
    "wait": "waits if blockers fail",
}
_WORD_BY_START: Mapping[str | None, str] = {
    "one_success": "at the first success",
    "one_failed": "at the first failure",
}


@dataclass(frozen=True, slots=True)
class Box:
    """One job, or several that are drawn as one.

    Shape: `level` counts from 0; `is_future` is true of a job that is submitted as a future job,
    `is_open` of one that is declared `deferred`; `condition` is its `if`, and `else_of`
    the job whose `else` names it; `inside` is the workflow that the job runs. In a run: `state`;
    `how_far` says how many items of a group are done, `3/12`; `note` is said beside that, and
    `reason` is why it is so.

    A box that stands for several jobs has those as `members`, and says in `summary` how many they
    are; with `is_level` they are all the jobs of a level, or of several. Such a box, and a group in
    a run, says in `counts` how many are in which state.
    """

    name: str
    level: int = 0
    kind: Kind = "call"
    group: Literal["", "for each", "matrix"] = ""
    is_future: bool = False
    is_open: bool = False
    is_final: bool = False
    approval: bool = False
    polls: bool = False
    condition: str = ""
    else_of: str = ""
    policy: BlockerPolicy | None = None
    start_when: StartWhen | None = None
    description: str = ""
    state: str = ""
    how_far: str = ""
    note: str = ""
    reason: str = ""
    inside: Picture | None = None
    members: tuple[Box, ...] = ()
    is_level: bool = False
    summary: str = ""
    counts: tuple[tuple[str, int], ...] = ()

    def __len__(self) -> int:
        """The number of declared jobs that the box stands for."""
        return len(self.members) or 1

    @property
    def is_stack(self) -> bool:
        """Whether there are several jobs of one kind behind it."""
        return bool(self.group) or (bool(self.members) and not self.is_level)

    @property
    def may_grow(self) -> bool:
        """Whether running jobs may still add blockers."""
        return self.is_open and self.state in ("", "deferred")

    @property
    def words(self) -> tuple[str, ...]:
        """What is said beside the name, in every format."""
        state = " ".join(filter(None, (self.state, self.how_far)))
        states = dict(self.counts)
        counts = [f"{number:,} {state}" for state, number in self.counts]
        return tuple(
            filter(
                None,
                (
                    self.summary,
                    *(
                        [state]
                        if self.how_far and set(states) <= {self.state} & DONE
                        else counts or [state]
                    ),
                    self.note,
                    self.group,
                    self._kind,
                    "if" if self.condition else "",
                    f"else of {self.else_of}" if self.else_of else "",
                    "approval" if self.approval and ASKING not in self.note else "",
                    "polls" if self.polls and not self.note else "",
                    OPEN if self.may_grow else "",
                    FINALLY if self.is_final else "",
                    _WORD_BY_POLICY.get(self.policy, ""),
                    _WORD_BY_START.get(self.start_when, ""),
                ),
            )
        )

    @property
    def _kind(self) -> str:
        if self.inside is not None:
            return f"workflow of {count(len(self.inside), 'job')}"
        return self.kind if self.kind != "call" else ""

    def mark(self, unicode: bool = True) -> str:
        """Return the one character for its state."""
        state = TOLERATED if self.is_tolerated else self.state
        return find_mark(state or (OPEN if self.is_open else ""), unicode)

    @property
    def is_tolerated(self) -> bool:
        """Whether it failed, and that counts as a success."""
        return self.state == "failed" and self.note == TOLERATED

    @property
    def look(self) -> str:
        """Its state, for colours: a tolerated failure does not look like others."""
        return TOLERATED if self.is_tolerated else self.state


@dataclass(frozen=True, slots=True)
class Arrow:
    """One edge, from the blocker to the future job; to one under `finally` if it `is_last`."""

    blocker: str
    future: str
    on_failure: Literal["ignore"] | None = None
    is_last: bool = False

    @property
    def word(self) -> str:
        """What the edge says about a blocker that fails; empty for the usual."""
        return FINALLY if self.is_last else self.on_failure or ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's content.

    Shape: boxes in topological order with unique names, arrows ordered by their future job.
    `is_by_level` if the boxes are levels rather than jobs. Of a run: its `run_id`, when it began
    and ended, and its `state`; in a nested workflow of a run, `job` is the job that runs it.
    """

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    state: str = ""
    is_by_level: bool = False
    job: str = ""
    run_id: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def heading(self) -> str:
        """What it is a picture of: `gallery, run k3v9x0q2m5ab`."""
        return f"{self.title}, run {self.run_id}" if self.run_id else self.title

    @property
    def about(self) -> str:
        """What is said about the whole, below the heading: state, times and size."""
        said = [self.state]
        if self.started_at is not None:
            said.append(f"started {utc_time(self.started_at)}")
            if self.ended_at is not None:
                took_s = (self.ended_at - self.started_at).total_seconds()
                said.append(f"took {format_duration(took_s)}")
        said += [count(len(self), "job"), count(len(self.arrows), "edge")]
        return ", ".join(filter(None, said))

    def __len__(self) -> int:
        """The number of declared jobs that it stands for, without those of nested workflows."""
        return sum(map(len, self.boxes))

    def blockers_by_name(self) -> dict[str, list[str]]:
        """Return the blockers of every box, ordered as the arrows are; empty lists included."""
        blockers: dict[str, list[str]] = {box.name: [] for box in self.boxes}
        for arrow in self.arrows:
            blockers[arrow.future].append(arrow.blocker)
        return blockers

    def nested(self) -> Iterator[Picture]:
        """Yield the pictures of nested workflows, each once, the outer ones first."""
        seen: set[int] = set()
        waiting = [box.inside for box in self.boxes]
        for picture in waiting:
            if picture is not None and id(picture) not in seen:
                seen.add(id(picture))
                yield picture
                waiting += [box.inside for box in picture.boxes]


def draw(graph: Graph, seen: dict[int, Picture] | None = None) -> Picture:
    """Return the picture of a graph. Errors: CycleError for one that has not been checked.

    `seen` has the nested workflows that are drawn already: several jobs may run the same one.
    """
    seen = {} if seen is None else seen
    else_of = {name: job.name for job in graph for name in job.else_ if name != PASS_ON}
    boxes = tuple(_box(graph, name, else_of, seen) for name in graph.topological_order)
    final = {job.name for job in graph if job.is_final}
    arrows = tuple(
        Arrow(
            edge.blocker,
            edge.future,
            edge.on_failure,
            edge.future in final and edge.blocker not in final,
        )
        for edge in graph.edges
    )
    return Picture(graph.workflow.name, boxes, arrows)


def in_order(picture: Picture, box_by_name: Mapping[str, Box], arrows: Sequence[Arrow]) -> Picture:
    """Return the picture with other boxes and arrows, in topological order, with their levels.

    Jobs that running code has added can block each other in both directions as declarations, though
    not as jobs. What is in such a cycle, or comes after one, is last, and an arrow that leads back
    in this order is left out.
    """
    index = {name: at for at, name in enumerate(box_by_name)}
    after: list[list[int]] = [[] for _ in index]
    for arrow in arrows:
        after[index[arrow.blocker]].append(index[arrow.future])
    boxes = list(box_by_name.values())
    levels = [0] * len(boxes)
    order = sort_by_edges(after)
    order += sorted(set(range(len(boxes))) - set(order))
    place = {boxes[at].name: position for position, at in enumerate(order)}
    forward = [each for each in arrows if place[each.blocker] < place[each.future]]
    for at in order:
        for later in after[at]:
            if place[boxes[at].name] < place[boxes[later].name]:
                levels[later] = max(levels[later], levels[at] + 1)
    return replace(
        picture,
        boxes=tuple(replace(boxes[at], level=levels[at]) for at in order),
        arrows=tuple(sorted(forward, key=lambda each: (place[each.future], place[each.blocker]))),
    )


def _kind(job: JobSpec) -> Kind:
    if job.workflow:
        return "workflow"
    return "sleep" if job.sleep is not None else "run" if job.run else "call"


def _box(graph: Graph, name: str, else_of: Mapping[str, str], seen: dict[int, Picture]) -> Box:
    job, is_left_out = graph.job_by_name[name], name in graph.left_out
    return Box(
        name,
        graph.level_by_name[name],
        _kind(job),
        "for each" if job.for_each else "matrix" if job.matrix else "",
        is_future=graph.is_future(name),
        is_open=job.deferred,
        is_final=job.is_final,
        approval=job.approval is not None,
        polls=job.poll is not None,
        condition=job.if_ or "",
        else_of=else_of.get(name, ""),
        policy=job.on_blocker_failure,
        start_when=job.start_when,
        description=job.description,
        state="skipped" if is_left_out else "",
        reason=LEFT_OUT if is_left_out else "",
        inside=_inside(graph.workflow, job, seen),
    )


def _inside(workflow: Workflow, job: JobSpec, seen: dict[int, Picture]) -> Picture | None:
    nested = workflow.workflows.get(job.workflow) if job.workflow else None
    if nested is None:
        return None
    if id(nested) not in seen:
        seen[id(nested)] = draw(build_graph(nested), seen)
    return seen[id(nested)]


def to_document(picture: Picture) -> dict[str, Any]:
    """Return the picture as plain data: a contract, of which keys may be left out by default.

    Shape: the jobs are in topological order. `workflows` has each nested workflow once, and a job
    that runs one names its place there in `inside`.
    """
    nested = list(picture.nested())
    place = {id(each): index for index, each in enumerate(nested)}
    document = _to_document(picture, place)
    if nested:
        document["workflows"] = [_to_document(each, place) for each in nested]
    return document


def _to_document(picture: Picture, place: Mapping[int, int]) -> dict[str, Any]:
    return {
        "workflow": picture.title,
        **({"job": picture.job} if picture.job else {}),
        "status": picture.state or None,
        **(_times(picture) if picture.run_id else {}),
        "jobs": [_box_document(box, place) for box in picture.boxes],
        "edges": edge_documents(picture.arrows),
    }


def _times(picture: Picture) -> dict[str, Any]:
    duration_s = None
    if picture.started_at is not None and picture.ended_at is not None:
        duration_s = (picture.ended_at - picture.started_at).total_seconds()
    return {
        "run": picture.run_id,
        "started_at": write_instant(picture.started_at),
        "ended_at": write_instant(picture.ended_at),
        "duration_s": duration_s,
    }


def edge_documents(arrows: Iterable[Arrow]) -> list[dict[str, Any]]:
    """Return edges as plain data."""
    return [
        {"blocker": arrow.blocker, "future": arrow.future, "on_failure": arrow.on_failure}
        for arrow in arrows
    ]


_KEY_BY_FIELD = {
    "name": "name",
    "level": "level",
    "kind": "kind",
    "is_future": "future",
    "is_open": "open",
    "group": "group",
    "condition": "if",
    "else_of": "else_of",
    "approval": "approval",
    "polls": "polls",
    "policy": "on_blocker_failure",
    "start_when": "start_when",
    "is_final": "finally",
    "description": "description",
    "state": "status",
    "how_far": "ended",
    "note": "note",
    "reason": "reason",
}
_ALWAYS_SAID = {"name", "level", "kind", "is_future", "is_open"}
_WRITTEN = [
    (field, key, object() if field in _ALWAYS_SAID else getattr(Box(""), field))
    for field, key in _KEY_BY_FIELD.items()
]
"""The fields, their keys, and the values that are left out."""


def _box_document(box: Box, place: Mapping[int, int]) -> dict[str, Any]:
    document = {
        key: value
        for field, key, left_out in _WRITTEN
        if (value := getattr(box, field)) != left_out
    }
    if box.counts:
        document["counts"] = dict(box.counts)
    return document if box.inside is None else {**document, "inside": place[id(box.inside)]}


def from_document(document: Mapping[str, Any]) -> Picture:
    """Return the picture that `to_document` wrote. Keys that are missing have their defaults."""
    drawn: dict[int, Picture] = {}
    nested = document.get("workflows", ())

    def read(written: Mapping[str, Any]) -> Picture:
        boxes = tuple(read_box(job) for job in written["jobs"])
        final = {box.name for box in boxes if box.is_final}
        arrows = tuple(
            Arrow(
                edge["blocker"],
                edge["future"],
                edge.get("on_failure"),
                edge["future"] in final and edge["blocker"] not in final,
            )
            for edge in written["edges"]
        )
        state, outer = written.get("status") or "", written.get("job", "")
        times = (_read_instant(written.get(key)) for key in ("started_at", "ended_at"))
        run_id = written.get("run", "")
        return Picture(written["workflow"], boxes, arrows, state, False, outer, run_id, *times)

    def read_box(job: Mapping[str, Any]) -> Box:
        known = {field: job[key] for field, key in _KEY_BY_FIELD.items() if key in job}
        at = job.get("inside")
        if at is not None and at not in drawn:
            drawn[at] = read(nested[at])
        counts = tuple(job.get("counts", {}).items())
        return Box(**known, counts=counts, inside=None if at is None else drawn[at])

    return read(document)


def _read_instant(written: str | None) -> datetime | None:
    return datetime.fromisoformat(written) if written else None


assert set(_KEY_BY_FIELD) <= {field.name for field in fields(Box)}
