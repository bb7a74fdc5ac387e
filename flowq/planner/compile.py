"""Turn the jobs of one workflow, or of one nested workflow, into planned jobs and groups.

`make_plan` and `plan_nested` make a `Frame` of a checked graph and its inputs. It fills in the
expressions that the inputs decide and leaves the others to the run. It has no clock, makes no ids,
and imports no user code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flowq.binding import describe
from flowq.checks import in_text_order
from flowq.checks.groups import check_combinations, check_count
from flowq.commands.places import with_places
from flowq.declare.keys import RETRIES_MAX
from flowq.durations import write_pause
from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import (
    UNITS_OF_A_JOB,
    as_source,
    as_template,
    current_budget,
    decide,
    evaluate,
    find_references,
    is_live,
    one_budget,
)
from flowq.graph import Graph, Uses, final_first
from flowq.matrix import Leg, expand_matrix, is_open
from flowq.plan import Call, Enqueue, Expansion, Group, Join, Nested, Sleep, Slot, Start
from flowq.planner.filling import fill_in
from flowq.planner.policies import find_policy, find_rate, tolerates_one
from flowq.planner.portable import make_portable
from flowq.planner.secrets import Secrets, find_secrets
from flowq.problems import BAD_DURATION, BAD_MATRIX
from flowq.settings import settle
from flowq.spec import (
    MAX_ITEMS,
    NONE_TOLERATED,
    REFUSE,
    Approval,
    Block,
    ForEach,
    JobSpec,
    Matrix,
    Path,
    Poll,
    Retry,
    Shell,
    Workflow,
    options_of,
)
from flowq.status import LIST, START
from flowq.texts import show


@dataclass(frozen=True)
class Frame:
    """A graph, with what its planned jobs have in common.

    Shape: all ids start with `base`, all names with `prefix`. In a nested workflow, `join_id` is
    the job that waits for all others, and `inherited` has the names of the secrets that the inputs
    may contain.
    """

    graph: Graph
    inputs: Mapping[str, Any]
    run: Mapping[str, str]
    base: str
    prefix: str = ""
    join_id: str = ""
    slots: tuple[Slot, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    outer_finals: tuple[str, ...] = ()
    inherited: tuple[str, ...] = ()
    _problems: list[Problem] = field(default_factory=list)

    def compile(self) -> tuple[list[Group], list[Enqueue]]:
        """Return the groups, and the jobs in topological order, otherwise as declared.

        Errors: WorkflowInvalid with all expressions that have no value with these inputs;
        CycleError.
        """
        order = self.graph.topological_order
        with one_budget():
            groups = [self._group(job) for job in self.graph if _is_group(job)]
            enqueues = [enqueue for name in order for enqueue in reversed(self._jobs_of(name))]
        if self._problems:
            raise WorkflowInvalid(in_text_order(dict.fromkeys(self._problems)))
        return groups, enqueues

    # Groups --------------------------------------------------------------------------------------

    def _group(self, job: JobSpec) -> Group:
        legs = self._legs_by_name.get(job.name, {})
        return Group(
            self._id(job.name),
            self.prefix + job.name,
            is_open=self._is_open(job),
            keys=tuple(legs),
            items=tuple(legs.values()),
            max_items=(job.for_each.max_items or MAX_ITEMS) if job.for_each else None,
            max_parallel=job.max_parallel,
            tolerance=None if job.continue_on_error == NONE_TOLERATED else job.continue_on_error,
            fail_fast=bool(job.fail_fast),
            approval=job.approval,
        )

    @cached_property
    def _legs_by_name(self) -> dict[str, dict[str, Leg]]:
        return {
            job.name: self._expanded(job, self._filled_matrix(job, job.matrix))
            for job in self.graph
            if job.matrix is not None and not self._is_open(job)
        }

    def _expanded(self, job: JobSpec, matrix: Matrix) -> dict[str, Leg]:
        legs = expand_matrix(matrix)
        where = self.graph.workflow.places.find("jobs", job.name, "matrix")
        self._problems.extend(check_count(job.name, len(legs), where))
        return legs

    def _filled_matrix(self, job: JobSpec, matrix: Matrix) -> Matrix:
        def known(key: str, value: Any) -> Any:
            filled = self._filled(value, ("jobs", job.name, key))
            return [] if filled is None else evaluate(filled)

        axes = {name: known("matrix", values) for name, values in matrix.axes.items()}
        for name, values in axes.items():
            if not isinstance(values, list | tuple):
                where = self.graph.workflow.places.find("jobs", job.name, "matrix", name)
                message = f"{name} in the matrix of job {job.name} is {values!r:.60}, not a list"
                self._problems.append(Problem(BAD_MATRIX, message, where))
                axes[name] = []
        where = self.graph.workflow.places.find("jobs", job.name, "matrix")
        include = tuple(known("include", matrix.include))
        exclude = tuple(known("exclude", matrix.exclude))
        if excess := list(check_combinations(job.name, axes, where, (*include, *exclude))):
            self._problems.extend(excess)
            axes, include, exclude = {}, (), ()
        return replace(matrix, axes=axes, include=include, exclude=exclude)

    def _jobs_of(self, name: str) -> list[Enqueue]:
        """Return the jobs of one declaration; a job comes after those that it blocks."""
        job, job_id = self.graph.job_by_name[name], self._id(name)
        if self._is_open(job):
            return [self._expansion(job)]
        if job.matrix is None:
            return self._single(job, job_id, self.prefix + name, self._is_held(job))
        found: list[Enqueue] = []
        for index, (key, leg) in reversed(list(enumerate(self._legs_by_name[name].items()))):
            item = f"{self.prefix}{name}[{show(key)}]"
            is_held = self._is_held(job)
            scope = {"matrix": leg, "index": index}
            found += self._single(job, f"{job_id}--{index}", item, is_held, job_id, scope)
        return found

    def _expansion(self, job: JobSpec) -> Enqueue:
        job_id, name = self._id(job.name), self.prefix + job.name
        each = self._matrix_of_results(job) if job.matrix else self._for_each(job)
        is_held = job.approval is not None
        templates = self._single(replace(job, expires_s=None), job_id, name, is_held, job_id)
        self._check_settings(templates[0], job, each.items)
        keys = _OF_A_LIST | {"if"} if self._branch(job) else _OF_A_LIST
        left = self._find_left(job, keys, self._scope)
        return Enqueue(
            job_id,
            name + LIST,
            Expansion(each, tuple(templates), is_matrix=job.matrix is not None),
            deferred=self._is_held(job),
            retries=self._retries(job),
            description=f"{'matrix' if job.matrix else 'for_each'} of {name}",
            scope=self._scope if any("run" in uses.roots for _, uses in left) else {},
            if_=self._join_conditions(job, None, self._scope),
            branch=self._branch(job),
            **self._common(job),
            **self._needs(left),
        )

    def _check_settings(self, template: Enqueue, job: JobSpec, items: Any) -> None:
        """Note the first item whose settings have wrong values, if the list is known already."""
        if not template.settings or not isinstance(items, list | tuple) or is_live(items):
            return
        for index, item in enumerate(evaluate(items)):
            current_budget().grant(UNITS_OF_A_JOB)
            scope = {"item": item, "index": index}
            waiting = replace(job, name=f"{job.name}[{index}]", settings=template.settings)
            _, problems = settle(waiting, f"job {waiting.name}", self.inputs, scope)
            if problems:
                self._note(job, problems)
                return

    def _for_each(self, job: JobSpec) -> ForEach:
        assert job.for_each is not None
        return replace(
            job.for_each,
            items=self._filled(job.for_each.items, ("jobs", job.name, "for_each")),
            key=self._template(job.for_each.key, job.name, "key"),
            more=self._template(job.for_each.more, job.name, "more"),
            stop_when=None,
        )

    def _matrix_of_results(self, job: JobSpec) -> ForEach:
        """Return the parts of a matrix that an expansion combines when the results are known."""
        assert job.matrix is not None
        path = ("jobs", job.name)
        items = {
            "axes": self._filled(dict(job.matrix.axes), (*path, "matrix")),
            "include": self._filled(list(job.matrix.include), (*path, "include")),
            "exclude": self._filled(list(job.matrix.exclude), (*path, "exclude")),
        }
        return ForEach(items)

    # Jobs ----------------------------------------------------------------------------------------

    def _single(
        self,
        job: JobSpec,
        job_id: str,
        name: str,
        is_held: bool,
        group: str = "",
        scope: Mapping[str, Any] | None = None,
    ) -> list[Enqueue]:
        """Return the jobs of a declaration, or of one of its items, the last ones first."""
        current_budget().grant(UNITS_OF_A_JOB)
        scope = {**self._scope, **(scope or {})}
        is_told_apart = "continue_on_error" in job.settings
        job = self._settled(job, scope)
        enqueue = self._declared(job, job_id, name, is_held, group, scope)
        if is_told_apart:
            enqueue = replace(enqueue, is_tolerated=tolerates_one(job.continue_on_error))
        if not job.workflow:
            return [enqueue]
        nested = self._nested_by_name[job.workflow]
        return [self._join(job, nested, enqueue), self._start(job, nested, enqueue)]

    def _settled(self, job: JobSpec, scope: Mapping[str, Any]) -> JobSpec:
        """Return a job with the values of those settings that are known with its combination."""
        if not job.settings:
            return job
        job, problems = settle(job, f"job {job.name}", self.inputs, scope)
        self._note(job, problems)
        return job

    def _note(self, job: JobSpec, problems: Iterable[tuple[str, Problem]]) -> None:
        """Note problems of settings at their positions."""
        places = self.graph.workflow.places
        for word, problem in problems:
            found = places.place(problem, "jobs", job.name, *word.split("."))
            self._problems.extend(found)

    @cached_property
    def secrets(self) -> Secrets:
        """The secrets that the jobs may meet."""
        return find_secrets(self.graph, self.env, self.inherited)

    @cached_property
    def _nested_by_name(self) -> Mapping[str, Workflow]:
        done: dict[int, Workflow] = {}
        nested = self.graph.workflow.workflows.items()
        return {name: make_portable(workflow, done) for name, workflow in nested}

    def _join(self, job: JobSpec, nested: Workflow, enqueue: Enqueue) -> Enqueue:
        """Return the job that ends a nested workflow: its result is the outputs."""
        inner = {each.name: each for each in nested.jobs}
        left = find_references(nested.outputs)
        used = dict.fromkeys(name for name, _ in left.jobs if name in inner)
        return replace(
            enqueue,
            does=Join(nested.outputs, job.retries),
            deferred=True,
            on_blocker_failure="skip",
            if_empty="skip",
            inputs_from=f"{enqueue.job_id}--0",
            result_of={name: f"{enqueue.job_id}--{name}" for name in used},
            groups=tuple(name for name in used if _is_group(inner[name])),
            scope={**enqueue.scope, "run": self.run},
            env={},
            branch={},
            rate=None,
            **_OF_THE_START,
            secrets=self.secrets.all_of(job.name),
            description=f"outputs of {nested.name}",
        )

    def _start(self, job: JobSpec, nested: Workflow, enqueue: Enqueue) -> Enqueue:
        """Return the job that adds the jobs of a nested workflow when its inputs are known."""
        join_id, name = enqueue.job_id, enqueue.name
        declared = enqueue.does
        assert isinstance(declared, Call)  # a job with `workflow` has no command
        finals = self._finals_after(is_final=bool(enqueue.ended_of))
        # The place of the workflow in its own group is the join's, and its jobs have it too.
        own = f"group:{enqueue.group}"
        slots = tuple(
            replace(slot, holder=join_id) if slot.limit == own else slot for slot in enqueue.slots
        )
        timeout_s = nested.timeout_s if job.timeout_s is None else job.timeout_s
        read = self.secrets.read_by(job.name)
        prefix = f"{name}."
        inside = Nested(nested, join_id, prefix, slots, self._env, finals, timeout_s, read)
        return replace(
            enqueue,
            job_id=f"{join_id}--0",
            name=name + START,
            blocks=(Block(join_id), *(Block(each, "ignore") for each in finals)),
            group="",
            slots=slots,
            stop_when=None,
            grows=False,
            is_tolerated=False,
            inside=join_id,
            does=Start(inside, declared.kwargs, declared.is_live),
            description=f"start of {nested.name}",
        )

    def _declared(
        self,
        job: JobSpec,
        job_id: str,
        name: str,
        is_held: bool,
        group: str,
        scope: Mapping[str, Any],
    ) -> Enqueue:
        defaults = self.graph.workflow.defaults
        left = self._find_left(job, _OF_A_JOB, scope)
        kwargs, is_live = self._arguments(job, scope), any(path[2] == "with" for path, _ in left)
        call = Call(job.call, evaluate(kwargs) if kwargs and not is_live else kwargs, is_live)
        stop_when = (job.for_each or job.matrix or _NO_GROUP).stop_when
        own_slots = (Slot(f"group:{group}"),) if group and job.max_parallel is not None else ()
        needs_run = any("run" in uses.roots for _, uses in left)
        own_env = self._filled(job.env, ("jobs", job.name, "env"), scope) if job.env else {}
        does = self._does(job, call, scope)
        return Enqueue(
            job_id,
            name,
            does,
            deferred=is_held,
            env={**self._env, **own_env} if own_env else self._env,
            cwd=self._filled(job.cwd, ("jobs", job.name, "cwd"), scope),
            if_=self._condition(job, scope),
            condition=job.if_ or "",
            branch={} if self._is_open(job) else self._branch(job),
            stop_when=self._template(stop_when, job.name, "stop_when", scope),
            scope={key: value for key, value in scope.items() if key != "run" or needs_run},
            group=group,
            group_name=self.prefix + job.name if group else "",
            grows=bool(job.for_each and job.for_each.more),
            slots=(*self.slots, *own_slots),
            is_tolerated=not group and tolerates_one(job.continue_on_error),
            approval=self._approval(job, scope),
            poll=self._poll(job, scope),
            timeout_s=defaults.timeout_s
            if job.timeout_s is None or job.workflow
            else job.timeout_s,
            retries=self._retries(job),
            description=job.description or describe(job, kwargs, does),
            settings=job.settings,
            concurrency=job.concurrency,
            rate=find_rate(job, self.graph.workflow.name),
            **self._common(job),
            **self._needs(left),
        )

    def _retries(self, job: JobSpec) -> Retry | None:
        """Return the retries of each job; those of a nested workflow apply to it as a whole."""
        own = None if job.workflow or RETRIES_MAX in job.settings else job.retries
        return own or self.graph.workflow.defaults.retries

    # What runs at the end ------------------------------------------------------------------------

    @cached_property
    def _own_finals(self) -> tuple[str, ...]:
        """The ids of the jobs that wait for all other jobs to end."""
        jobs, waits_for = self.graph.job_by_name, self.graph.predecessors
        first = final_first(self.graph, {name: waits_for(name) for name in jobs})
        return tuple(job_id for name in first for job_id in self._entries(name))

    def _finals_after(self, *, is_final: bool) -> tuple[str, ...]:
        """Return the jobs under `finally`, here and in outer workflows, that wait for a job."""
        return self.outer_finals if is_final else (*self._own_finals, *self.outer_finals)

    def _arguments(self, job: JobSpec, scope: Mapping[str, Any]) -> Mapping[str, Any]:
        uses = self.graph.uses_by_name.get(job.name, ())
        filled = {str(path[3]): path[:4] for path, _ in uses if path[2] == "with"}
        return {
            key: self._filled(value, filled[key], scope) if key in filled else value
            for key, value in job.with_.items()
        }

    @cached_property
    def _env(self) -> Mapping[str, str]:
        return self._filled(self.env, ("env",)) or {}

    def _common(self, job: JobSpec) -> dict[str, Any]:
        return {
            **options_of(job),
            "blocks": self._blocks(job.name),
            "on_blocker_failure": find_policy(job),
            "queue": job.queue or self.graph.workflow.defaults.queue,
            "inside": self.join_id,
            "ended_of": self._own_finals[0] if job.is_final else "",
            "is_open": job.deferred,
            "secrets": self.secrets.read_by(job.name),
            "refuses_secrets": job.secret_results == REFUSE,
        }

    def _find_left(self, job: JobSpec, keys: frozenset[str], scope: Mapping[str, Any]) -> Uses:
        """Return the references of those texts of a job that are not filled in yet."""
        uses_by_path = self.graph.uses_by_name.get(job.name, ())
        known = {"inputs", *scope} if uses_by_path else ()
        return tuple(
            (path, uses)
            for path, uses in uses_by_path
            if path[2] in keys and (path[2] == "run" or not uses.roots.issubset(known))
        )

    def _needs(self, left: Uses) -> dict[str, Any]:
        """Return what such texts need to be evaluated: jobs, groups and inputs."""
        if not left:
            return {}
        names = dict.fromkeys(name for _, uses in left for name, _ in uses.jobs)
        inputs = frozenset(name for _, uses in left for name in uses.inputs)
        return {
            "result_of": {name: self._id(name) for name in names},
            "groups": tuple(name for name in names if _is_group(self.graph.job_by_name[name])),
            "inputs": {key: value for key, value in self.inputs.items() if key in inputs},
        }

    # Names and edges -----------------------------------------------------------------------------

    def _id(self, name: str) -> str:
        return self.base + name

    def _is_open(self, job: JobSpec) -> bool:
        """Whether an expansion adds the jobs of a group: they are known in the run only."""
        return job.for_each is not None or job.name in self._open_matrices

    @cached_property
    def _open_matrices(self) -> frozenset[str]:
        return frozenset(job.name for job in self.graph if job.matrix and is_open(job.matrix))

    def _is_held(self, job: JobSpec) -> bool:
        """Whether the job is a future job: it has to wait, or may have to."""
        if (
            job.approval is not None
            or job.expires_s is not None
            or self.graph.predecessors(job.name)
        ):
            return True
        return not self.join_id and self.graph.is_future(job.name)

    def _blocks(self, name: str) -> tuple[Block, ...]:
        edges = self.graph.outgoing(name)
        blocks = [
            Block(job_id, edge.on_failure)
            for edge in edges
            for job_id in self._entries(edge.future)
        ]
        if self.join_id:
            blocks.append(Block(self.join_id))
        known = {block.name for block in blocks}
        is_final = self.graph.job_by_name[name].is_final
        finals = self._finals_after(is_final=is_final)
        return (*blocks, *(Block(each, "ignore") for each in finals if each not in known))

    def _entries(self, name: str) -> list[str]:
        """Return the ids of the jobs that wait for the predecessors of a declaration."""
        job, job_id = self.graph.job_by_name[name], self._id(name)
        ids = [job_id]
        if job.matrix is not None and not self._is_open(job):
            ids = [f"{job_id}--{index}" for index in range(len(self._legs_by_name[name]))]
        if job.workflow and not self._is_open(job):
            return [f"{each}--0" for each in ids]
        return ids

    # Expressions ---------------------------------------------------------------------------------

    @property
    def _scope(self) -> Mapping[str, Any]:
        return {"run": self.run}

    def _filled(self, value: Any, path: Path, scope: Mapping[str, Any] | None = None) -> Any:
        if value is None:
            return None
        try:
            return fill_in(
                self.graph.workflow, path, value, inputs=self.inputs, scope=scope or self._scope
            )
        except WorkflowInvalid as invalid:
            self._problems.extend(invalid.problems)
            return None

    def _template(
        self, source: str | None, job: str, key: str, scope: Mapping[str, Any] | None = None
    ) -> Any:
        return (
            None if source is None else self._filled(as_template(source), ("jobs", job, key), scope)
        )

    def _condition(self, job: JobSpec, scope: Mapping[str, Any]) -> Any:
        """Return what is left of a job's `if`: None if it is true, False if it is false."""
        template = self._template(job.if_, job.name, "if", scope)
        if not self._is_open(job):
            template = self._join_conditions(job, template, scope)
        if template is None or is_live(template):
            return template
        try:
            return None if decide(template) else False
        except WorkflowInvalid as invalid:
            where = self.graph.workflow.places.find("jobs", job.name, "if")
            self._problems.extend(replace(problem, where=where) for problem in invalid.problems)
            return None

    def _branch(self, job: JobSpec) -> Mapping[str, str]:
        """Return the conditions of a job's branch as templates, each with why it is false."""
        conditions = self.graph.branches.get(job.name, ())
        return {as_template(each.source): each.otherwise for each in conditions}

    def _join_conditions(self, job: JobSpec, own: Any, scope: Mapping[str, Any]) -> Any:
        """Return the conditions of a job's branch and its own `if` as one template.

        An `if` that is known to be false remains; nothing else matters then.
        """
        conditions = self.graph.branches.get(job.name, ())
        if not conditions:
            return own
        sources = [each.source for each in conditions]
        if own is not None and is_live(own):
            sources.append(as_source(own))
        elif own is not None and not decide(own):
            return own
        joined = " and ".join(f"({source})" for source in sources)
        return self._template(joined, job.name, "if", scope)

    def _approval(self, job: JobSpec, scope: Mapping[str, Any]) -> Approval | None:
        if job.approval is None or not job.approval.message:
            return job.approval
        path = ("jobs", job.name, "approval", "message")
        return replace(job.approval, message=self._filled(job.approval.message, path, scope))

    def _poll(self, job: JobSpec, scope: Mapping[str, Any]) -> Poll | None:
        if job.poll is None:
            return None
        path = ("jobs", job.name, "poll", "until")
        return replace(job.poll, until=self._filled(as_template(job.poll.until), path, scope))

    def _does(self, job: JobSpec, call: Call, scope: Mapping[str, Any]) -> Call | Shell | Sleep:
        if job.run is not None:
            return with_places(job.run)
        return call if job.sleep is None else Sleep(self._pause(job, job.sleep, scope))

    def _pause(self, job: JobSpec, time: str, scope: Mapping[str, Any]) -> str:
        """Return how long a job sleeps; what is known now is checked now."""
        path = ("jobs", job.name, "sleep")
        filled = self._filled(time, path, scope)
        if filled is None or is_live(filled):
            return filled or ""
        try:
            return write_pause(evaluate(filled))
        except ValueError as refused:
            where = self.graph.workflow.places.find(*path)
            self._problems.append(
                Problem(BAD_DURATION, f"sleep of job {job.name}: {refused}", where)
            )
            return ""


_SETTINGS = frozenset({"queue", "timeout", "retries", "continue_on_error", "concurrency", "rate"})
_PAUSES = frozenset({"sleep", "poll"})
_OF_A_JOB = (
    frozenset({"with", "env", "run", "cwd", "if", "stop_when", "approval"}) | _SETTINGS | _PAUSES
)
_OF_A_LIST = frozenset({"for_each", "key", "more", "matrix", "include", "exclude"})
"""The keys whose texts the items of a group use, and those that the expansion uses."""

_OF_THE_START: dict[str, Any] = dict.fromkeys(
    ("cwd", "if_", "approval", "expires_s", "start_when", "cancel_rest")
)
_NO_GROUP = ForEach(())


def _is_group(job: JobSpec) -> bool:
    return job.for_each is not None or job.matrix is not None
