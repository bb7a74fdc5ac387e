"""What is wrong with a workflow: one small function per rule, all problems at once.

A rule is a function from the workflow and its graph to problems, and knows nothing of the others.
`check` needs nothing but the declaration; `check_calls` looks at the functions that jobs call,
which the shell imports and passes in.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import Parameter
from itertools import chain
from types import ModuleType

from flowq.errors import FlowqError, Problem, Where
from flowq.graph import Edge, Graph
from flowq.nearest import did_you_mean
from flowq.spec import JobSpec, Workflow

RULE_BY_CODE: Mapping[str, str] = {
    "FQ201": "Every job in `needs`, `blocks` and `blocked_by` is declared",
    "FQ202": "No job waits for itself",
    "FQ203": "No jobs wait for each other in a circle",
    "FQ204": "Every job in an expression is declared",
    "FQ205": "Every input in an expression is declared",
    "FQ206": "A `deferred: true` job has a blocker that holds its door open",
    "FQ207": "An edge has one policy, however often it is said",
    "FQ208": "No name is declared twice",
    "FQ209": "A job's name can be part of a job id",
    "FQ210": "A workflow has jobs",
    "FQ211": "Every input is used (a warning)",
    "FQ501": "Every function can be imported",
    "FQ502": "What is called is a function",
    "FQ503": "A function takes the arguments that are passed to it",
    "FQ504": "A function gets the arguments that it requires",
    "FQ505": "A function takes its arguments by name",
}
"""The rule behind each code, in one line; the codes are never given a second meaning. Those of
single expressions (FQ3xx) are in `flowq.expressions`, and are reported here with their places."""

MAX_NAME_LENGTH = 200
"""Characters of a job name; ids are part of Redis keys and of every line that shows a job."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)

Rule = Callable[[Workflow, Graph], Iterator[Problem]]


def check(workflow: Workflow, graph: Graph) -> list[Problem]:
    """Return all that is wrong with a workflow as declared, in the order of its text.

    Shape: errors and warnings (`severity`); empty when it can be compiled without a remark.
    """
    return in_text_order(chain.from_iterable(rule(workflow, graph) for rule in _RULES))


def check_calls(
    workflow: Workflow, graph: Graph, find_callable: Callable[[str], object]
) -> list[Problem]:
    """Return what is wrong with the functions that the jobs call, in the order of the text.

    `find_callable` imports what a `call` names, and raises what it likes when it cannot: user
    code runs in there.
    """
    calls = dict.fromkeys(job.call for job in graph)
    found_by_call = {call: _resolve(call, find_callable) for call in calls}
    return in_text_order(
        chain.from_iterable(_call_problems(workflow, job, found_by_call[job.call]) for job in graph)
    )


def in_text_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return problems by position; those without one come first, and equals keep their order."""

    def position(problem: Problem) -> tuple[str, int, int]:
        where = problem.where
        return (where.file, where.line, where.column) if where else ("", 0, 0)

    return sorted(problems, key=position)


def _said_at(workflow: Workflow, edge: Edge) -> Where | None:
    return workflow.places.find(*edge.said[0].path)


# The rules of the graph.


def _unknown_jobs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for saying in graph.dangling:
        owner, key = str(saying.path[1]), saying.path[2]
        if key != "with":
            name = saying.blocker if key == "needs" else saying.future
            message = f"job {owner} {_VERB_BY_KEY[key]} {name}, and no job has that name"
            where = workflow.places.find(*saying.path)
            yield Problem("FQ201", message, where, _job_hint(graph, name, owner))


_VERB_BY_KEY: Mapping[str | int, str] = {
    "needs": "needs",
    "blocks": "blocks",
    "blocked_by": "is blocked_by",
}


def _job_hint(graph: Graph, name: str, owner: str) -> str:
    """Return the nearest job that is not the speaker itself; among very many nothing is near."""
    if len(graph) > _MAX_SEARCHED:
        return ""
    return did_you_mean(name, (other for other in graph.job_by_name if other != owner))


_MAX_SEARCHED = 2_000  # names: comparing costs some 20 µs each, for every mistake


def _self_references(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for edge in graph.edges:
        if edge.blocker == edge.future:
            message = f"job {edge.future} waits for itself"
            yield Problem("FQ202", message, _said_at(workflow, edge), "take that reference away")


def _cycles(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for cycle in graph.find_cycles():
        message = f"these jobs wait for each other: {' → '.join(cycle)}"
        hint = "each of them must run before the next: take one of these edges away"
        closing = graph.get_edge(cycle[-2], cycle[-1])
        yield Problem("FQ203", message, _said_at(workflow, closing), hint)


def _expressions(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    inputs = [declared.name for declared in workflow.inputs]
    for job, uses in graph.uses_by_name.items():
        for path, references in uses:
            for problem in chain(
                references.problems,
                _unknown_inputs(job, sorted(references.inputs), inputs),
                _unknown_results(graph, job, references.jobs),
            ):
                yield replace(problem, where=workflow.places.find(*path))


def _unknown_inputs(job: str, used: list[str], inputs: list[str]) -> Iterator[Problem]:
    for name in used:
        if name not in inputs:
            message = f"job {job} uses inputs.{name}, and the workflow has no such input"
            hint = did_you_mean(name, inputs) or f"declare it: inputs: {{{name}: {{type: str}}}}"
            yield Problem("FQ205", message, hint=hint)


def _unknown_results(
    graph: Graph, job: str, used: tuple[tuple[str, str], ...]
) -> Iterator[Problem]:
    for name, attribute in used:
        if name not in graph.job_by_name:
            message = f"job {job} uses jobs.{name}.{attribute}, and no job has that name"
            yield Problem("FQ204", message, hint=_job_hint(graph, name, job))


def _futures_without_blockers(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for job in graph:
        if job.deferred and not graph.predecessors(job.name):
            message = f"future job {job.name} is released at once: no job blocks it"
            hint = f"declare `blocks: {job.name}` at the job that finds its blockers"
            where = workflow.places.find("jobs", job.name, "deferred")
            yield Problem("FQ206", message, where, hint)


def _two_policies(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for edge in graph.edges:
        said = [saying for saying in edge.said if saying.path[2] in ("blocks", "blocked_by")]
        if len({saying.policy for saying in said}) > 1:
            message = f"the edge {edge.blocker} → {edge.future} has two policies for a failure"
            where = workflow.places.find(*said[-1].path)
            yield Problem("FQ207", message, where, "say `on_failure` of this edge in one place")


def _duplicate_names(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    names = {"jobs": [job.name for job in workflow], "inputs": [i.name for i in workflow.inputs]}
    for thing, declared in names.items():
        for name, count in Counter(declared).items():
            if count > 1:
                message = f"{thing[:-1]} {name} is declared {count} times"
                where = workflow.places.find(thing, name)
                yield Problem("FQ208", message, where, "give each a name of its own")


def _refused_names(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    for job in graph:
        if reason := _find_refusal(job.name):
            where = workflow.places.find("jobs", job.name)
            hint = "a name becomes part of a job id: letters, digits, _ and single - only"
            yield Problem("FQ209", f"the job name {job.name!r} {reason}", where, hint)


def _find_refusal(name: str) -> str | None:
    if len(name) > MAX_NAME_LENGTH:
        return f"is {len(name)} characters long; {MAX_NAME_LENGTH} are allowed"
    if "--" in name:
        return "holds --, which separates the items of a group in job ids"
    if not _NAME.fullmatch(name):
        return "is refused"
    return None


def _no_jobs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    if not workflow.jobs:
        message = f"the workflow {workflow.name} has no jobs"
        yield Problem("FQ210", message, workflow.places.find("jobs"), "add one under `jobs:`")


def _unused_inputs(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    uses = chain.from_iterable(graph.uses_by_name.values())
    used = {name for _, references in uses for name in references.inputs}
    for declared in workflow.inputs:
        if declared.name not in used:
            message = f"no job uses the input {declared.name}"
            hint = f"use it as ${{{{ inputs.{declared.name} }}}}, or take it away"
            where = workflow.places.find("inputs", declared.name)
            yield Problem("FQ211", message, where, hint, severity="warning")


_RULES: tuple[Rule, ...] = (
    _unknown_jobs,
    _self_references,
    _cycles,
    _expressions,
    _futures_without_blockers,
    _two_policies,
    _duplicate_names,
    _refused_names,
    _no_jobs,
    _unused_inputs,
)


# The rules of calls.


@dataclass(frozen=True, slots=True)
class _Unimportable:
    reason: str
    hint: str


def _resolve(call: str, find_callable: Callable[[str], object]) -> object:
    try:
        return find_callable(call)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's module may raise anything
        return _Unimportable(_reason(error), _import_hint(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, ImportError | FlowqError) or _is_missing_name(error):
        return str(error)
    return f"importing it raised {type(error).__name__}: {error}".rstrip(": ")


def _import_hint(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return "importable are installed packages, the workflow's folder and the current folder"
    if isinstance(error, AttributeError) and _is_missing_name(error):
        public = [name for name in dir(error.obj) if not name.startswith("_")]
        return did_you_mean(error.name or "", public)
    return ""


def _is_missing_name(error: BaseException) -> bool:
    return isinstance(error, AttributeError) and isinstance(error.obj, ModuleType)


def _call_problems(workflow: Workflow, job: JobSpec, found: object) -> Iterator[Problem]:
    where = workflow.places.find("jobs", job.name, "call")
    if isinstance(found, _Unimportable):
        message = f"job {job.name} cannot import {job.call}: {found.reason}"
        yield Problem("FQ501", message, where, found.hint)
    elif not callable(found):
        message = f"job {job.name} calls {job.call}, which is of type {type(found).__name__}"
        yield Problem("FQ502", message, where, "name a function: package.module:function")
    elif (parameters := _find_parameters(found)) is not None:
        yield from _argument_problems(workflow, job, parameters)


def _find_parameters(function: Callable[..., object]) -> list[Parameter] | None:
    """Return the parameters of a function, or None for one that does not tell (some in C)."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def _argument_problems(
    workflow: Workflow, job: JobSpec, parameters: list[Parameter]
) -> Iterator[Problem]:
    places, takes_all = workflow.places, _takes_all(parameters)
    for problem, name in chain(
        _positional_only(job, parameters, takes_all),
        () if takes_all else _unknown_arguments(job, parameters),
    ):
        yield replace(problem, where=places.find("jobs", job.name, "with", name))
    if missing := [p.name for p in parameters if _is_required(p) and p.name not in job.with_]:
        message = f"job {job.name} does not pass {', '.join(missing)} to {job.call}"
        where = places.find("jobs", job.name, "with")
        yield Problem("FQ504", message, where, f"add it under `with:`, as in {missing[0]}: …")


def _positional_only(
    job: JobSpec, parameters: list[Parameter], takes_all: bool
) -> Iterator[tuple[Problem, str]]:
    for parameter in parameters:
        passed = parameter.name in job.with_ and not takes_all
        required = parameter.default is Parameter.empty
        if parameter.kind is Parameter.POSITIONAL_ONLY and (required or passed):
            message = f"{job.call} takes {parameter.name} by position only; `with` passes by name"
            hint = "take the / out of the function's signature, or call another function"
            yield Problem("FQ505", message, hint=hint), parameter.name


def _unknown_arguments(job: JobSpec, parameters: list[Parameter]) -> Iterator[tuple[Problem, str]]:
    taken = [p.name for p in parameters if p.kind in _BY_NAME]
    positional = {p.name for p in parameters if p.kind is Parameter.POSITIONAL_ONLY}
    for name in job.with_:
        if name not in taken and name not in positional:
            message = f"job {job.name} passes {name}, which {job.call} does not take"
            yield Problem("FQ503", message, hint=did_you_mean(name, taken)), name


_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind in _BY_NAME


def _takes_all(parameters: list[Parameter]) -> bool:
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)
