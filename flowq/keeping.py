"""Which jobs of an ended run are kept by a new run that continues it with an edited workflow.

A job is kept if it has succeeded there, is declared in the same way, reads the same inputs, and
waits only for jobs that are kept too. All others run. One that was not needed there (`cancel_rest`)
is kept as long as what comes after it is. `flowq.continuing` reads what is known of the
earlier run, `flowq.runtime.keeping` takes over the ends and the results.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from flowq.errors import UsageError, Where
from flowq.expressions import References, find_references
from flowq.expressions.places import find_texts, find_workflow_texts
from flowq.graph import Graph, build_graph
from flowq.nearest import did_you_mean, show_name
from flowq.spec import JobSpec, Workflow

_WITHOUT_EFFECT = frozenset(
    {
        *("name", "description", "queue", "timeout_s", "retries", "max_parallel"),
        *("at_front", "expires_s", "on_crash", "concurrency", "rate"),
        *("needs", "blocks", "else_"),  # edges and branches are compared as such
    }
)
"""The fields that change when, where or how often a job is executed, but not its result."""

_KEYS_WITHOUT_EFFECT = frozenset(
    {"queue", "timeout", "retries", "max_parallel", "concurrency", "rate"}
)


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the run that is continued.

    Shape: `failings` says of each declared job why its end cannot be kept ("has failed"), empty if
    it can; `needless` are those that were not needed, so it depends on what comes after them.
    `sizes` has the number of items of groups. `ended_at` tells this end of the run from one
    after a retry. `has_added`: running jobs have added others. `labels` are those that the workflow
    did not declare. `inputs` and `due_at` are as in its record.
    """

    run_id: str
    workflow: Workflow
    ended_at: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    failings: Mapping[str, str] = field(default_factory=dict)
    needless: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    due_at: str = ""
    has_added: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a job runs although it has ended before. `where` is the place of the change, if any.

    `is_after`: only because another job, which it waits for, runs.
    """

    text: str
    where: Where | None = None
    is_after: bool = False

    def __str__(self) -> str:
        return f"{self.text}: {self.where}" if self.where else self.text


@dataclass(frozen=True, slots=True)
class Choice:
    """What is kept of a run: names of jobs in the order of declaration, and why the others run.

    `gone` are the jobs that are no longer declared.
    """

    kept: tuple[str, ...]
    reasons: Mapping[str, Reason]
    gone: tuple[str, ...] = ()


def choose(
    graph: Graph,
    plain: Workflow,
    inputs: Mapping[str, Any],
    before: Before,
    again: Iterable[str] = (),
) -> Choice:
    """Choose what a run of a checked workflow keeps of an earlier run.

    Args:
        graph: the graph of the workflow, with positions.
        plain: the workflow in the form in which runs store it, like that of `before`.
        inputs: its resolved inputs.
        again: jobs that run even if they are unchanged.

    Errors: UsageError for unknown jobs in `again`, and if no job is left to run.
    """
    again = frozenset(again)
    for name in sorted(again - set(graph.job_by_name)):
        hint = did_you_mean(name, graph.job_by_name)
        raise UsageError(f"workflow {graph.workflow.name} has no job {show_name(name)}; {hint}")
    comparison = _Comparison(
        graph, build_graph(plain), build_graph(before.workflow), inputs, before
    )
    own = {name: Reason("as you asked") for name in again}
    reasons = comparison.find_reasons(own)
    while needed := comparison.find_needed(reasons):
        own |= needed
        reasons = comparison.find_reasons(own)
    kept = tuple(name for name in graph.job_by_name if name not in reasons)
    if len(kept) == len(graph):
        raise UsageError(
            f"no job would run: all that run {before.run_id} has done is kept, because nothing "
            "that its jobs depend on has changed; name a job to run it again"
        )
    old = comparison.old.job_by_name
    gone = tuple(name for name in old if name not in graph.job_by_name)
    return Choice(
        kept, {name: reasons[name] for name in graph.job_by_name if name in reasons}, gone
    )


@dataclass(frozen=True)
class _Comparison:
    """Two graphs of the same kind, and the positions of the new one."""

    placed: Graph
    new: Graph
    old: Graph
    inputs: Mapping[str, Any]
    before: Before

    def find_reasons(self, own: Mapping[str, Reason]) -> dict[str, Reason]:
        """Return why jobs run, blockers first; `own` are reasons that are known of some."""
        graph, reasons = self.placed, dict[str, Reason]()
        for name in graph.topological_order:
            reason = own.get(name) or self.find_change(name)
            if reason is None:
                first = next((each for each in graph.predecessors(name) if each in reasons), None)
                after = Reason(f"after {first}", is_after=True) if first else None
                reason = after or self.find_failing(name)
            if reason is not None:
                reasons[name] = reason
        return reasons

    def find_needed(self, reasons: Mapping[str, Reason]) -> dict[str, Reason]:
        """Return why jobs run that were not needed: what comes after them runs, and may need them.

        Jobs under `finally`, which run again in any case, need none.
        """
        needed = {}
        for name in self.before.needless - reasons.keys():
            after = (edge.future for edge in self.new.outgoing(name))
            runs = (each for each in after if each in reasons)
            if first := next((each for each in runs if not self._is_final(each)), None):
                text = f"was not needed in run {self.before.run_id}, and {first} runs again"
                needed[name] = Reason(text)
        return needed

    def _is_final(self, name: str) -> bool:
        return self.new.job_by_name[name].is_final

    def find_change(self, name: str) -> Reason | None:
        """Return what is different of a job itself, or None."""
        new, old = self.new.job_by_name[name], self.old.job_by_name.get(name)
        if new.is_final:
            return Reason("at the end")
        if old is None:
            return Reason("new")
        changes = self._changes(new, old)
        if (reason := next(changes, None)) is not None:
            return reason
        if self.before.has_added and self._is_before_open(name):
            return Reason("while jobs run, others are added to what comes after it")
        return None

    def find_failing(self, name: str) -> Reason | None:
        """Return why the end of an unchanged job cannot be kept, or None."""
        if failing := self.before.failings.get(name, "is not known"):
            return Reason(f"{failing} in run {self.before.run_id}")
        return None

    def _changes(self, new: JobSpec, old: JobSpec) -> Iterator[Reason]:
        for each in fields(JobSpec):
            if each.name in _WITHOUT_EFFECT:
                continue
            if _effect(new, each.name) != _effect(old, each.name):
                yield self._changed(new.name, each.name.rstrip("_"))
        if self._edges(self.new, new.name) != self._edges(self.old, new.name):
            where = self._find(new.name, "needs")
            yield Reason("it waits for other jobs than before", where)
        if self.new.branches.get(new.name) != self.old.branches.get(new.name):
            yield Reason("the conditions of its branch have changed", self._find(new.name))
        if self._inside(self.new, new) != self._inside(self.old, old):
            yield Reason("the workflow that it runs has changed", self._find(new.name, "workflow"))
        if self.new.workflow.env != self.old.workflow.env:
            yield Reason(
                "the workflow's `env` has changed", self.placed.workflow.places.find("env")
            )
        yield from self._changed_values(new)

    def _changed_values(self, job: JobSpec) -> Iterator[Reason]:
        """Yield what else a job reads that is another value in another run."""
        for uses in self._uses(job):
            for name in sorted(uses.inputs):
                if self.inputs.get(name) != self.before.inputs.get(name):
                    yield Reason(f"the input {name} has changed")
            if "canceled" in uses.statuses:
                yield Reason("it asks whether the run was canceled")
        if any(map(self._reads_run, self._texts(job))):
            yield Reason("it reads `run`, which is another run now")

    def _uses(self, job: JobSpec) -> Iterator[References]:
        for path, uses in self.new.uses_by_name.get(job.name, ()):
            if path[2] not in _KEYS_WITHOUT_EFFECT:
                yield uses
        yield find_references(dict(self.new.workflow.env))

    def _reads_run(self, text: str) -> bool:
        """Whether a text reads what is different of the new run; `run.due_at` is the same."""
        is_same = self.new.workflow.name == self.old.workflow.name
        for name in ("due_at", "workflow") if is_same else ("due_at",):
            text = re.sub(rf"(?<![\w.])run\.{name}\b", "''", text)
        return "run" in find_references(text).roots

    def _texts(self, job: JobSpec) -> Iterator[str]:
        """Yield the texts of a job, of its environment, and of the workflow that it runs."""
        yield from (text for _, text in find_texts(job))
        for path, text in find_workflow_texts(self.new.workflow):
            if path[0] == "env":
                yield text
        if (inside := self.new.workflow.workflows.get(job.workflow)) is not None:
            yield from _texts_inside(inside)

    def _changed(self, name: str, word: str) -> Reason:
        return Reason(f"its `{word}` has changed", self._find(name, word))

    def _find(self, name: str, *words: str) -> Where | None:
        return self.placed.workflow.places.find("jobs", name, *words)

    def _is_before_open(self, name: str) -> bool:
        """Whether a job is open, or comes before one: then it may have added jobs to that."""
        found, work = {name}, [name]
        while work:
            job = work.pop()
            if self.new.job_by_name[job].deferred:
                return True
            after = {edge.future for edge in self.new.outgoing(job)} - found
            found |= after
            work += after
        return False

    @staticmethod
    def _edges(graph: Graph, name: str) -> frozenset[tuple[str, str | None]]:
        before = graph.predecessors(name)
        return frozenset((each, graph.get_edge(each, name).on_failure) for each in before)

    @staticmethod
    def _inside(graph: Graph, job: JobSpec) -> Workflow | None:
        return graph.workflow.workflows.get(job.workflow)


def _texts_inside(workflow: Workflow) -> Iterator[str]:
    yield from (text for _, text in find_workflow_texts(workflow))
    for job in workflow.jobs:
        yield from (text for _, text in find_texts(job))
    for inside in workflow.workflows.values():
        yield from _texts_inside(inside)


def _effect(job: JobSpec, name: str) -> Any:
    """Return the part of a field that can change the result."""
    value = getattr(job, name)
    if name == "settings":
        return {
            key: value[key] for key in value if key.partition(".")[0] not in _KEYS_WITHOUT_EFFECT
        }
    if name == "for_each" and value is not None:
        return replace(value, max_items=None)
    if name == "approval" and value is not None:
        return replace(value, expires_s=None)
    return value.until if name == "poll" and value is not None else value
