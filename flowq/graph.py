"""The graph of a workflow: its jobs, and the edges that `needs`, `blocks` and results declare.

An edge runs from a blocker, which comes first, to the future job that waits for it. It may be
declared at the later job (`needs`), at the earlier one (`blocks`), or by an argument that uses a
result (`${{ jobs.x.result }}`). It is one edge even if all three declare it. A name that no job has
makes no edge; `flowq.checks` reports it.

Only this module imports networkx, and no other module sees a networkx object. It is needed to
describe cycles. It is imported if there is a cycle, because the import takes half of a command's
start.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from flowq.branches import Condition, Conditions, find_branches
from flowq.errors import CycleError
from flowq.expressions import References, as_template, find_references, needs_success
from flowq.expressions.places import find_texts
from flowq.spec import PASS_ON, Defaults, JobSpec, Path, Workflow

if TYPE_CHECKING:
    from networkx import DiGraph

Name = str
Cycle = tuple[Name, ...]
Uses = tuple[tuple[Path, References], ...]


@dataclass(frozen=True, slots=True)
class Saying:
    """One of the places where an edge is declared, as a path into the document.

    Shape: `policy` is the policy for a failed blocker that is declared there, or None. The path of
    a `blocks` is written as for a list; `find_place` returns the path as it was spelt.
    """

    blocker: Name
    future: Name
    path: Path
    policy: Literal["ignore"] | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One blocker in front of one future job. Shape: `said` is never empty."""

    blocker: Name
    future: Name
    on_failure: Literal["ignore"] | None = None
    said: tuple[Saying, ...] = ()


@dataclass(frozen=True)
class Graph:
    """The jobs of a workflow and the edges between them.

    Shape: jobs by name in the order of declaration, with the workflow's defaults; edges ordered by
    their future job, then by their blocker. Of two jobs with one name, the first counts. The graph
    may have cycles, which `find_cycles` finds; orders and levels then raise `CycleError`.
    `dangling` has the declarations that name no job. `uses_by_name` has the references in each text
    of a job, with the path of the text, for jobs with expressions. `branches` has the conditions of
    jobs that belong to a branch, which are no part of their own `if`. Jobs that are `left_out` are
    skipped, whatever happens; their edges remain.
    """

    workflow: Workflow
    job_by_name: Mapping[Name, JobSpec]
    edges: tuple[Edge, ...]
    dangling: tuple[Saying, ...] = ()
    uses_by_name: Mapping[Name, Uses] = field(default_factory=dict)
    branches: Mapping[Name, Conditions] = field(default_factory=dict)
    left_out: frozenset[Name] = frozenset()

    def __iter__(self) -> Iterator[JobSpec]:
        return iter(self.job_by_name.values())

    def __len__(self) -> int:
        return len(self.job_by_name)

    def get_edge(self, blocker: Name, future: Name) -> Edge:
        """Return the edge between two jobs. Errors: KeyError."""
        edge = next((e for e in self._outgoing[blocker] if e.future == future), None)
        if edge is None:
            raise KeyError(blocker, future)
        return edge

    def predecessors(self, name: Name) -> tuple[Name, ...]:
        """Return the jobs that must run directly before this one, as declared."""
        return tuple(edge.blocker for edge in self._incoming[name])

    def outgoing(self, name: Name) -> tuple[Edge, ...]:
        """Return the edges out of a job, ordered by future job."""
        return tuple(self._outgoing[name])

    def is_future(self, name: Name) -> bool:
        """Whether the job is submitted as a future job: it has a predecessor, or no edges."""
        return bool(self._incoming[name]) or not self._outgoing[name]

    @cached_property
    def topological_order(self) -> tuple[Name, ...]:
        """Every job after its predecessors, otherwise in the order of declaration.

        Errors: CycleError.
        """
        if not self._is_acyclic():
            raise CycleError(next(_cycles(self._as_digraph())))
        return self._runnable

    @cached_property
    def level_by_name(self) -> Mapping[Name, int]:
        """The number of edges on the longest path to each job, in topological order.

        Errors: CycleError.
        """
        levels: dict[Name, int] = {}
        for name in self.topological_order:
            levels[name] = max((levels[e.blocker] + 1 for e in self._incoming[name]), default=0)
        return levels

    def find_cycles(self, limit: int = 20) -> tuple[Cycle, ...]:
        """Return cycles such that removing the last edge of each leaves no other cycle.

        Shape: at most `limit`, each with its first job repeated at the end. Leaves out jobs that
        wait for themselves.
        """
        if self._is_acyclic():
            return ()
        found: list[Cycle] = []
        rest = self._as_digraph()
        rest.remove_edges_from([(name, name) for name in self.job_by_name])
        while len(found) < limit and (batch := list(islice(_cycles(rest), limit - len(found)))):
            found += batch
            rest.remove_edges_from((cycle[-2], cycle[-1]) for cycle in batch)
        return tuple(found)

    def _is_acyclic(self) -> bool:
        return len(self._runnable) == len(self)

    @cached_property
    def _runnable(self) -> tuple[Name, ...]:
        """The jobs that are in no cycle and behind none, in topological order."""
        names = tuple(self.job_by_name)
        index = {name: position for position, name in enumerate(names)}
        after = [[index[edge.future] for edge in edges] for edges in self._outgoing.values()]
        return tuple(names[position] for position in sort_by_edges(after))

    @cached_property
    def _incoming(self) -> Mapping[Name, list[Edge]]:
        edges: dict[Name, list[Edge]] = {name: [] for name in self.job_by_name}
        for edge in self.edges:
            edges[edge.future].append(edge)
        return edges

    @cached_property
    def _outgoing(self) -> Mapping[Name, list[Edge]]:
        edges: dict[Name, list[Edge]] = {name: [] for name in self.job_by_name}
        for edge in self.edges:
            edges[edge.blocker].append(edge)
        return edges

    def _as_digraph(self) -> DiGraph[Name]:
        from networkx import DiGraph  # noqa: PLC0415 - as the module says

        dag: DiGraph[Name] = DiGraph()
        dag.add_nodes_from(self.job_by_name)
        dag.add_edges_from((edge.blocker, edge.future) for edge in self.edges)
        return dag


def sort_by_edges(after: Sequence[Iterable[int]]) -> list[int]:
    """Return indexes so that each comes before those in `after[index]`, otherwise the lowest first.

    Leaves out indexes in a cycle, and those that come after one.
    """
    waits_for = [0] * len(after)
    for others in after:
        for other in others:
            waits_for[other] += 1
    ready = [index for index, count in enumerate(waits_for) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for other in after[index]:
            waits_for[other] -= 1
            if not waits_for[other]:
                heapq.heappush(ready, other)
    return order


LEFT_OUT = "left out of this run"
_NEVER = (Condition("false", LEFT_OUT, ()),)


def build_graph(workflow: Workflow, left_out: frozenset[Name] = frozenset()) -> Graph:
    """Return the graph of a workflow, in linear time.

    The jobs that are `left_out` (`flowq.selecting`) ask and decide nothing.
    """
    job_by_name: dict[Name, JobSpec] = {}
    said = workflow.defaults
    if find_references(said.cwd).jobs:  # refused, and no edge
        said = replace(said, cwd=None)
    defaults = None if said == Defaults(said.queue, said.timeout_s, said.retries) else said
    for job in workflow.jobs:
        job_by_name.setdefault(job.name, _with_defaults(job, defaults) if defaults else job)
    uses_by_name = {
        job.name: uses
        for job in job_by_name.values()
        if (
            uses := tuple(
                (("jobs", job.name, *path), find_references(text)) for path, text in find_texts(job)
            )
        )
    }
    sayings: dict[Name, dict[Name, list[Saying]]] = {name: {} for name in job_by_name}
    dangling: list[Saying] = []
    for saying in _sayings(job_by_name.values(), uses_by_name):
        if saying.blocker in job_by_name and saying.future in job_by_name:
            sayings[saying.future].setdefault(saying.blocker, []).append(saying)
        else:
            dangling.append(saying)
    branches = _find_branches(job_by_name, sayings, left_out)
    for saying in _branch_sayings(branches):
        sayings[saying.future].setdefault(saying.blocker, []).append(saying)
    for name, conditions in branches.items():
        asked = find_references([as_template(each.source) for each in conditions])
        own: Path = ("jobs", name, "if")
        uses_by_name[name] = (*uses_by_name.get(name, ()), (own, asked))
    for saying in _last_sayings(job_by_name.values(), sayings):
        sayings[saying.future].setdefault(saying.blocker, []).append(saying)
    for name in left_out:
        job_by_name[name] = _as_left_out(job_by_name[name])
    branches = {**branches, **dict.fromkeys(left_out, _NEVER)} if left_out else branches
    index = {name: position for position, name in enumerate(job_by_name)}
    edges = tuple(
        _edge(job_by_name[blocker], job_by_name[future], said_by_blocker[blocker])
        for future, said_by_blocker in sayings.items()
        for blocker in sorted(said_by_blocker, key=index.__getitem__)
    )
    return Graph(workflow, job_by_name, edges, tuple(dangling), uses_by_name, branches, left_out)


def _as_left_out(job: JobSpec) -> JobSpec:
    """Return a job without all that it would ask, wait for, need or evaluate."""
    each = job.for_each and replace(job.for_each, items=(), key=None, more=None, stop_when=None)
    return replace(
        job,
        with_={},
        env={},
        cwd=None,
        queue=None,
        if_=None,
        for_each=each,
        sleep=None if job.sleep is None else "0s",
        poll=None,
        approval=None,
        expires_s=None,
        on_blocker_failure=None,
        settings={},
    )


def _with_defaults(job: JobSpec, defaults: Defaults) -> JobSpec:
    """Return a job with the defaults of its workflow that apply to this kind of job.

    The planner adds queue, timeout and retries: for a job that is a workflow, the defaults apply to
    the jobs that start and end it, not to the workflow as a whole.
    """
    asks = job.if_ is not None and not needs_success(as_template(job.if_))
    shared: dict[str, Any] = {name: getattr(defaults, name) for name in _SHARED}
    if job.workflow:
        shared |= {"secret_results": None, "cwd": None}
    if asks or job.start_when is not None:
        shared["on_blocker_failure"] = None
    unsaid = {
        key: value
        for key, value in shared.items()
        if getattr(job, key) is None and key not in job.settings
    }
    if (run := job.run) is not None:
        shell = defaults.shell if run.shell is None and isinstance(run.command, str) else run.shell
        unsaid["run"] = replace(run, shell=shell, result=run.result or defaults.result)
    if (each := job.for_each) is not None:
        unsaid["for_each"] = replace(each, max_items=each.max_items or defaults.max_items)
    return replace(job, **unsaid)


_OF_THE_PLANNER = {"queue", "timeout_s", "retries"}
_SHARED = tuple(
    each.name
    for each in fields(Defaults)
    if each.name not in _OF_THE_PLANNER and each.name in {own.name for own in fields(JobSpec)}
)
"""The fields that `Defaults` and `JobSpec` have in common, but for those of the planner."""


def _sayings(jobs: Iterable[JobSpec], uses_by_name: Mapping[Name, Uses]) -> Iterator[Saying]:
    for job in jobs:
        path = ("jobs", job.name)
        for index, name in enumerate(job.needs):
            yield Saying(name, job.name, (*path, "needs", index))
        for index, block in enumerate(job.blocks):
            yield Saying(job.name, block.name, (*path, "blocks", index), block.on_failure)
        for index, name in enumerate(job.else_):
            if name != PASS_ON:
                yield Saying(job.name, name, (*path, "else", index))
        for place, uses in uses_by_name.get(job.name, ()):
            for name in dict.fromkeys(name for name, _ in uses.jobs):
                yield Saying(name, job.name, place)


def _find_branches(
    job_by_name: Mapping[Name, JobSpec],
    sayings: Mapping[Name, Mapping[Name, Sequence[Saying]]],
    left_out: frozenset[Name],
) -> Mapping[Name, Conditions]:
    if not any(job.else_ for job in job_by_name.values()):
        return {}
    names = tuple(job_by_name)
    index = {name: position for position, name in enumerate(names)}
    after: list[list[int]] = [[] for _ in names]
    for future, said in sayings.items():
        for blocker in said:
            after[index[blocker]].append(index[future])
    blockers = {
        future: [
            blocker
            for blocker, places in said.items()
            if any(each.path[2] != "else" for each in places)
        ]
        for future, said in sayings.items()
    }
    order = [names[at] for at in sort_by_edges(after)]
    if left_out:
        blockers = _without(left_out, order, blockers)
        order = [name for name in order if name not in left_out]
        job_by_name = {name: job for name, job in job_by_name.items() if name not in left_out}
    return find_branches(order, job_by_name, blockers)


def _without(
    left_out: frozenset[Name], order: Iterable[Name], blockers: Mapping[Name, Iterable[Name]]
) -> dict[Name, list[Name]]:
    """Return blockers with those of a job that is left out in its place."""
    found: dict[Name, list[Name]] = {}
    for name in order:
        direct = ([each] if each not in left_out else found[each] for each in blockers[name])
        found[name] = [*dict.fromkeys(each for some in direct for each in some)]
    return found


def _branch_sayings(branches: Mapping[Name, Conditions]) -> Iterator[Saying]:
    """Yield the edges to a job from the jobs that the conditions of its branch ask about."""
    for name, conditions in branches.items():
        for blocker in dict.fromkeys(each for one in conditions for each in one.names):
            yield Saying(blocker, name, ("jobs", name, "if"))


def _edge(blocker: JobSpec, future: JobSpec, said: list[Saying]) -> Edge:
    policies = [saying.policy for saying in said if saying.policy]
    # A job under `finally` runs however the others ended, even if it reads their results.
    if future.is_final and not blocker.is_final:
        policies = ["ignore"]
    return Edge(blocker.name, future.name, policies[0] if policies else None, tuple(said))


def _last_sayings(
    jobs: Iterable[JobSpec], said: Mapping[Name, Mapping[Name, object]]
) -> Iterator[Saying]:
    """Yield edges from the last ordinary jobs to the first jobs under `finally`.

    The planner makes these wait for all other jobs; the edges here are enough for the order.
    """
    final = {job.name for job in jobs if job.is_final}
    is_wrong = any(not job.is_final and not final.isdisjoint(said[job.name]) for job in jobs)
    if not final or is_wrong:  # an ordinary job waits for a final one: the checks report it
        return
    has_followers = {
        blocker for future, blockers in said.items() if future not in final for blocker in blockers
    }
    for future in final_first(jobs, said):
        for job in jobs:
            if not job.is_final and job.name not in has_followers:
                yield Saying(job.name, future, ("jobs", future, "finally"))


def final_first(jobs: Iterable[JobSpec], said: Mapping[Name, Iterable[Name]]) -> Iterator[Name]:
    """Yield the jobs under `finally` that wait for no other job under `finally`."""
    final = {job.name for job in jobs if job.is_final}
    return (job.name for job in jobs if job.is_final and final.isdisjoint(said[job.name]))


def find_place(workflow: Workflow, saying: Saying) -> Path:
    """Return the path of a declared edge as it was written.

    `blocks` may be a name, a list or a map, and may be spelt `blocked_by`.
    """
    path, places = saying.path, workflow.places.where_by_path
    if path[2] != "blocks":
        return path
    spellings = [(*path[:2], key) for key in ("blocks", "blocked_by")]
    spelt = [(*key, part) for key in spellings for part in (path[3], saying.future)]
    return next((each for each in [*spelt, *spellings] if each in places), path)


def _cycles(dag: DiGraph[Name]) -> Iterator[Cycle]:
    """Yield one short cycle of each strongly connected component, in node order."""
    from networkx import strongly_connected_components  # noqa: PLC0415 - as the module says

    position = {name: index for index, name in enumerate(dag)}
    firsts = []
    for component in strongly_connected_components(dag):
        first = min(component, key=position.__getitem__)
        if len(component) > 1 or dag.has_edge(first, first):
            firsts.append(first)
    for first in sorted(firsts, key=position.__getitem__):
        yield _shortest_cycle(dag, first)


def _shortest_cycle(dag: DiGraph[Name], start: Name) -> Cycle:
    """Return a shortest cycle through `start`, which must be in one."""
    came_from: dict[Name, Name] = {}
    queue = deque([start])
    while start not in came_from:
        name = queue.popleft()
        for after in dag.succ[name]:
            if after not in came_from:
                came_from[after] = name
                queue.append(after)
    cycle = [start, came_from[start]]
    while cycle[-1] != start:
        cycle.append(came_from[cycle[-1]])
    return tuple(reversed(cycle))
