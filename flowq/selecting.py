"""A part of a workflow: which of its jobs a run leaves out (`--only`, `--from`, `--skip`).

A job that is left out stays in the graph, and is skipped whatever happens. So the edges through it
remain, `jobs.NAME.status` has a value, and scripts and workers know nothing of parts. What it would
have returned is missing, so `select` refuses a part in which another job reads that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flowq.errors import Excerpt, Problem, UsageError
from flowq.graph import Graph, build_graph
from flowq.nearest import did_you_mean, show_name

SHOWN = 5
_MISSING = frozenset({"result", "results", "outcomes", "by_key", "approval"})
"""What a job that is left out does not have; how it ended is known: it was skipped."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Names of jobs: those that run, those from which on all run, and those that do not.

    Without `only` and `from_`, all jobs run but those under `skip`.
    """

    only: tuple[str, ...] = ()
    from_: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether it selects anything."""
        return bool(self.only or self.from_ or self.skip)


def make_selection(
    only: str | Iterable[str] = (), from_: str | Iterable[str] = (), skip: str | Iterable[str] = ()
) -> Selection:
    """Return a selection. Shape: one name, or several."""
    return Selection(*(_names(each) for each in (only, from_, skip)))


def _names(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([given] if isinstance(given, str) else given))


def select(graph: Graph, selection: Selection | None) -> Graph:
    """Return the graph of a checked workflow with the jobs left out that are not selected.

    `from_` stands for its jobs and everything after them. Jobs under `finally` run unless they are
    under `skip`. Errors: UsageError for unknown and contradictory names, if nothing is left to run,
    and for jobs that read what a job would have returned that is left out.
    """
    if not selection:
        return graph
    for name in (*selection.only, *selection.from_, *selection.skip):
        _refuse_unknown(graph, name)
    if twice := {*selection.only, *selection.from_} & {*selection.skip}:
        raise UsageError(f"job {min(twice)} is both selected and skipped; decide on one of them")
    final = {job.name for job in graph if job.is_final}
    chosen = {*selection.only, *_downstream(graph, selection.from_), *final}
    if not (selection.only or selection.from_):
        chosen = set(graph.job_by_name)
    left_out = frozenset(graph.job_by_name) - (chosen - {*selection.skip})
    if len(left_out) == len(graph):
        raise UsageError(f"no job of workflow {graph.workflow.name} is left to run")
    if refused := list(_missing(graph, left_out)):
        more = [f"and {len(refused) - SHOWN} more"] if len(refused) > SHOWN else []
        raise UsageError("\n".join([*refused[:SHOWN], *more]))
    return build_graph(graph.workflow, left_out)


def _refuse_unknown(graph: Graph, name: str) -> None:
    if name in graph.job_by_name:
        return
    outer = name.partition(".")[0].partition("[")[0]
    if outer in graph.job_by_name:
        what = "of a nested workflow" if "." in name else "of a group"
        raise UsageError(
            f"{show_name(name)} is one job {what}, which runs as a whole; name {outer} instead"
        )
    hint = did_you_mean(name, graph.job_by_name)
    raise UsageError(f"workflow {graph.workflow.name} has no job {show_name(name)}; {hint}")


def _downstream(graph: Graph, start: Iterable[str]) -> set[str]:
    found, work = set(start), list(start)
    while work:
        after = {edge.future for edge in graph.outgoing(work.pop())} - found
        found |= after
        work += after
    return found


def _missing(graph: Graph, left_out: frozenset[str]) -> Iterator[str]:
    """Yield a sentence for each result that a job reads, and that there will not be.

    A job under `finally` has to expect that anyway: it runs however the others ended.
    """
    for job in graph:
        if job.name in left_out or job.is_final:
            continue
        seen = set()
        for path, uses in graph.uses_by_name.get(job.name, ()):
            for name, attribute in uses.jobs:
                if name not in left_out or attribute not in _MISSING or name in seen:
                    continue
                seen.add(name)
                about = Problem("", "", excerpt=Excerpt(names=("jobs", name, attribute)))
                where = next(graph.workflow.places.place(about, *path)).where
                yield (
                    f"{f'{where}: ' if where else ''}job {job.name} reads jobs.{name}.{attribute} "
                    f"in its `{path[2]}`, but {name} is left out: select {name} too, or skip "
                    f"{job.name} (`flowq retry RUN {job.name}` has the results of an earlier run)"
                )
