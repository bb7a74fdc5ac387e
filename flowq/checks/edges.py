"""The rules of edges between jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from flowq.errors import Excerpt, Problem
from flowq.expressions.places import ROOTS_BY_KEY
from flowq.graph import Edge, Graph, find_place
from flowq.nearest import did_you_mean, show_name
from flowq.problems import (
    CYCLE,
    DEFERRED_WITHOUT_BLOCKER,
    FINALLY_OUT_OF_ORDER,
    JOB_WAITS_FOR_ITSELF,
    TWO_BRANCHES,
    TWO_POLICIES,
    UNKNOWN_JOB,
)
from flowq.spec import PASS_ON, Workflow

_VERB_BY_KEY: Mapping[str | int, str] = {
    "needs": "needs",
    "blocks": "blocks",
    "blocked_by": "is blocked_by",
    "else": "has the `else`",
}
_NAMING = ("needs", "blocks", "else")
_MAX_SPELT = 20  # jobs of a circle
_MAX_COMPARED = 50_000  # names, for all problems together: each costs about 20 µs


def suggest_job(graph: Graph, name: str, owner: str) -> str:
    """Return a hint with the most similar job name, except `owner`; "" in very large workflows."""
    if len(graph) * len(graph.dangling) > _MAX_COMPARED:
        return ""
    return did_you_mean(name, (other for other in graph.job_by_name if other != owner))


def check_names_of_jobs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Every job in `needs`, `blocks`, `blocked_by` and `else` is declared."""
    for saying in graph.dangling:
        path = find_place(workflow, saying)
        owner, key = str(path[1]), path[2]
        if key in _VERB_BY_KEY:
            name = saying.blocker if key == "needs" else saying.future
            message = f"job {owner} {_VERB_BY_KEY[key]} {show_name(name)}, but no job has that name"
            where = workflow.places.find(*path)
            yield Problem(UNKNOWN_JOB, message, where, suggest_job(graph, name, owner))


def check_self_references(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """No job waits for itself."""
    for edge in graph.edges:
        if edge.blocker == edge.future:
            message = f"job {edge.future} waits for itself"
            problem = Problem(JOB_WAITS_FOR_ITSELF, message, hint="remove that reference")
            yield from _where_said(workflow, edge, problem)


def check_cycles(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """The graph has no cycle."""
    for cycle in graph.find_cycles():
        shown = list(cycle)
        if len(cycle) > _MAX_SPELT:
            half = _MAX_SPELT // 2
            left_out = f"… {len(cycle) - 2 * half:,} more …"
            shown = [*cycle[:half], left_out, *cycle[-half:]]
        message = f"these jobs wait for each other: {' → '.join(shown)}"
        hint = "each of them must run before the next: remove one of these edges"
        closing = graph.get_edge(cycle[-2], cycle[-1])
        yield from _where_said(workflow, closing, Problem(CYCLE, message, hint=hint))


def check_open_jobs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A `deferred: true` job has a blocker that can add more blockers."""
    for path in workflow.unread:  # what could not be read may be its blocker
        is_of_jobs = path[:1] in ((), ("jobs",), ("finally",))
        if is_of_jobs and (len(path) < 3 or path[2] in _VERB_BY_KEY or path[2] in ROOTS_BY_KEY):
            return
    for job in graph:
        if job.deferred and not graph.predecessors(job.name):
            message = f"job {job.name} is deferred, but no job that could add blockers blocks it"
            hint = f"write `blocks: {job.name}` at the job that adds them, or remove `deferred`"
            where = workflow.places.find("jobs", job.name, "deferred")
            yield Problem(DEFERRED_WITHOUT_BLOCKER, message, where, hint)


def check_final_jobs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """No edges connect jobs under `finally` with other jobs."""
    for edge in graph.edges:
        future, blocker = graph.job_by_name[edge.future], graph.job_by_name[edge.blocker]
        if future.is_final == blocker.is_final:
            continue
        said = [saying for saying in edge.said if future.is_final <= (saying.path[2] in _NAMING)]
        if not said:
            continue
        if future.is_final:
            message = (
                f"job {edge.future} is under `finally`, so it comes after {edge.blocker} anyway"
            )
            hint = f"remove this edge; the job may use jobs.{edge.blocker}.result and the like"
        else:
            message = f"job {edge.future} would wait for {edge.blocker}, which is under `finally`"
            hint = "jobs under `finally` run after all others: move one of the two jobs"
        path = find_place(workflow, said[0])
        yield Problem(FINALLY_OUT_OF_ORDER, message, workflow.places.find(*path), hint)


def check_branches(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """A job is the `else` of at most one job."""
    owner_by_name: dict[str, str] = {}
    for job in workflow.jobs:
        where = workflow.places.find("jobs", job.name, "else")
        if PASS_ON in job.else_ and len(job.else_) > 1:
            message = f"`else` of job {job.name} has `{PASS_ON}`, and jobs"
            hint = f"write the jobs alone: what needs only {job.name} is skipped in any case"
            yield Problem(TWO_BRANCHES, message, where, hint)
        for name in job.else_:
            owner = owner_by_name.setdefault(name, job.name)
            if name != PASS_ON and owner != job.name:
                message = f"job {name} is the `else` of {owner} and of {job.name}"
                hint = f"write `else: {PASS_ON}` at one, or give each a job of its own"
                yield Problem(TWO_BRANCHES, message, where, hint)


def check_policies(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """An edge has one policy, even if it is declared twice."""
    for edge in graph.edges:
        if len(edge.said) < 2:
            continue
        said = [saying for saying in edge.said if saying.path[2] == "blocks"]
        if len({saying.policy for saying in said}) > 1:
            message = f"the edge {edge.blocker} → {edge.future} has two policies for a failure"
            where = workflow.places.find(*find_place(workflow, said[-1]))
            yield Problem(
                TWO_POLICIES, message, where, "set `on_failure` of this edge in one place"
            )


def _where_said(workflow: Workflow, edge: Edge, problem: Problem) -> Iterator[Problem]:
    """Yield a problem at the first declaration of its edge: a name, or an expression."""
    path = find_place(workflow, edge.said[0])
    if path[2] not in _VERB_BY_KEY:
        problem = replace(problem, excerpt=Excerpt(names=("jobs", edge.blocker)))
    yield from islice(workflow.places.place(problem, *path), 1)
