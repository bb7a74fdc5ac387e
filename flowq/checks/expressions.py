"""The rules of expressions: what they name is declared, and has a value where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

from flowq.checks.edges import suggest_job
from flowq.checks.groups import KEYS_OF_GROUPS
from flowq.errors import Excerpt, Problem, WorkflowInvalid
from flowq.expressions import (
    UNITS_OF_A_JOB,
    References,
    current_budget,
    evaluate,
    find_references,
)
from flowq.expressions.places import (
    ROOTS_BY_KEY,
    ROOTS_BY_WORKFLOW_KEY,
    ROOTS_OF_DEFAULT_SETTINGS,
    find_workflow_texts,
)
from flowq.expressions.references import ERROR_PARTS
from flowq.expressions.templates import has_expression
from flowq.graph import Graph
from flowq.nearest import did_you_mean
from flowq.problems import (
    GROUP_OR_SINGLE_JOB,
    INCOMPLETE_NAME,
    NO_VALUE_HERE,
    NOT_IN_APPROVAL,
    SECRET_IN_ENV,
    UNKNOWN_AXIS,
    UNKNOWN_INPUT,
    UNKNOWN_JOB_IN_EXPRESSION,
    UNKNOWN_NAME,
    UNKNOWN_OUTPUT,
)
from flowq.spec import JobSpec, Path, Workflow

_PLAIN_BY_KEY = {key: roots & {"inputs", "jobs"} for key, roots in ROOTS_BY_KEY.items()}
_GROUP_ATTRIBUTES = frozenset({"results", "outcomes", "by_key"})
_OWN_ATTRIBUTES = frozenset({"error", "exit_code", "attempts"})
"""The attributes of a single job that a group does not have."""


def check_expressions(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Expressions can be read, have a value, and the jobs and inputs in them are declared."""
    current_budget().grant(UNITS_OF_A_JOB * len(graph.job_by_name))
    inputs = [declared.name for declared in workflow.inputs]
    known = frozenset(inputs)
    for name, path, references in _own_uses(workflow, graph):
        key = str(path[2])
        if references.roots <= _PLAIN_BY_KEY[key] and _is_plain(references, known, graph):
            continue
        job, owner = graph.job_by_name[name], f"job {name}"
        found: Iterator[Problem] = chain(
            _shared_problems(owner, references, inputs, graph, ROOTS_BY_KEY[key], name),
            _misplaced(owner, key, references, ROOTS_BY_KEY[key]),
            _not_in_this_job(workflow, job, key, references),
        )
        yield from chain.from_iterable(workflow.places.place(each, *path) for each in found)
    for path, text in find_workflow_texts(workflow):
        key, references = str(path[0]), find_references(text)
        owner, roots = f"`{key}` of the workflow", ROOTS_BY_WORKFLOW_KEY[key]
        if key == "defaults" and path[1] != "cwd":
            roots = ROOTS_OF_DEFAULT_SETTINGS
        found = chain(
            _shared_problems(owner, references, inputs, graph, roots),
            _misplaced(owner, key, references, roots),
        )
        yield from chain.from_iterable(workflow.places.place(each, *path) for each in found)


def _own_uses(workflow: Workflow, graph: Graph) -> Iterator[tuple[str, Path, References]]:
    """Yield what each text of a job refers to, with the job's name.

    Leaves out texts that come from `defaults`, which are checked once, as texts of the workflow.
    """
    is_shared = has_expression(workflow.defaults.cwd or "")
    shared = {job.name for job in workflow.jobs if job.cwd is None} if is_shared else ()
    for name, uses in graph.uses_by_name.items():
        for path, references in uses:
            if path[2] != "cwd" or name not in shared:
                yield name, path, references


def _about(problem: Problem, *names: str) -> Problem:
    """Return the problem at these names in its text."""
    return replace(problem, excerpt=Excerpt(names=names))


def _is_plain(references: References, inputs: frozenset[str], graph: Graph) -> bool:
    """Whether a text uses only inputs and results of single jobs, as most do."""
    if references.problems or references.parts or references.constants:
        return False
    if not references.inputs <= inputs:
        return False
    jobs = graph.job_by_name
    return all(
        attribute == "result" and name in jobs and not _is_group(jobs[name])
        for name, attribute in references.jobs
    )


def _is_group(job: JobSpec) -> bool:
    return job.for_each is not None or job.matrix is not None


def _shared_problems(
    owner: str,
    references: References,
    inputs: list[str],
    graph: Graph,
    allowed: frozenset[str],
    speaker: str = "",
) -> Iterable[Problem]:
    return chain(
        (_advise(problem, inputs, graph, allowed) for problem in references.problems),
        _failing(references.constants),
        _unknown_inputs(owner, references.inputs, inputs, graph) if references.inputs else (),
        _unknown_results(graph, owner, references, speaker) if references.jobs else (),
    )


def _advise(problem: Problem, inputs: list[str], graph: Graph, allowed: frozenset[str]) -> Problem:
    """Return a problem; for the bare name of a job or an input, with a hint how to write it."""
    name = problem.excerpt.names[0] if problem.excerpt and problem.excerpt.names else ""
    if problem.code != UNKNOWN_NAME or f"unknown name {name!r}" not in problem.message:
        return problem
    if name in graph.job_by_name:
        return replace(problem, hint=f"for what the job returned, write jobs.{name}.result")
    if name in inputs:
        return replace(problem, hint=f"write inputs.{name}")
    if problem.hint.startswith(("there are ", "did you mean ")):  # of the names of this place only
        return replace(problem, hint=did_you_mean(name, _say_roots(allowed)))
    return problem


def _say_roots(roots: frozenset[str]) -> list[str]:
    """Return names as expressions have them: what `ended` stands for is a part of `run`."""
    return sorted(roots - {"status", "ended"})


def _failing(constants: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each constant expression that has no value."""
    for constant in constants:
        try:
            evaluate(constant)
        except WorkflowInvalid as invalid:
            yield from invalid.problems


def _unknown_inputs(
    owner: str, used: frozenset[str], inputs: list[str], graph: Graph
) -> Iterator[Problem]:
    for name in sorted(used):
        if name not in inputs and graph.workflow.is_whole("inputs"):
            message = f"{owner} uses inputs.{name}, but the workflow has no such input"
            hint = did_you_mean(name, inputs) or f"declare it: inputs: {{{name}: {{type: str}}}}"
            yield _about(Problem(UNKNOWN_INPUT, message, hint=hint), "inputs", name)


def _unknown_results(
    graph: Graph, owner: str, references: References, speaker: str
) -> Iterator[Problem]:
    for name, attribute in references.jobs:
        if name not in graph.job_by_name and not graph.workflow.is_whole("jobs"):
            continue
        if name not in graph.job_by_name:
            message = f"{owner} uses jobs.{name}.{attribute}, but no job has that name"
            problem = Problem(
                UNKNOWN_JOB_IN_EXPRESSION, message, hint=suggest_job(graph, name, speaker)
            )
            yield _about(problem, "jobs", name, attribute)
        else:
            yield from _wrong_number(owner, graph.workflow, graph.job_by_name[name], attribute)
    for name, attribute, part in references.parts:
        if attribute == "result" and name in graph.job_by_name:
            yield from _unknown_output(owner, graph, name, part)
        if attribute == "error" and part not in ERROR_PARTS:
            message = f"{owner} uses jobs.{name}.error.{part}, but an error has no {part!r}"
            hint = did_you_mean(part, ERROR_PARTS) or "write .error.type or .error.message"
            yield _about(Problem(INCOMPLETE_NAME, message, hint=hint), "jobs", name, "error", part)
        is_known = name in graph.job_by_name and graph.workflow.is_whole(
            "jobs", name, "approval", "inputs"
        )
        if attribute == "approval" and is_known:
            used = f"{owner} uses jobs.{name}.approval.{part}"
            yield from _not_asked(used, graph.job_by_name[name], part)


def _not_asked(used: str, job: JobSpec, name: str) -> Iterator[Problem]:
    """Yield a problem if the approval of a job lacks an input that an expression uses."""
    asked = [each.name for each in job.approval.inputs] if job.approval else []
    if name not in asked:
        what = "an approval" if job.approval is None else repr(name)
        declare = f"approval: {{inputs: {{{name}: {{type: str}}}}}}"
        hint = did_you_mean(name, asked) or f"declare it in job {job.name}: {declare}"
        yield _about(
            Problem(
                NOT_IN_APPROVAL, f"{used}, but job {job.name} does not ask for {what}", hint=hint
            ),
            "approval",
            name,
        )


def _wrong_number(
    owner: str, workflow: Workflow, job: JobSpec, attribute: str
) -> Iterator[Problem]:
    """Yield a problem if an expression uses a group as a single job, or the reverse."""
    is_group, kind, hint = _is_group(job), "a group of jobs", ""
    if is_group and attribute == "result":
        hint = f"write jobs.{job.name}.results for the list, or .by_key[…] for one of them"
    elif is_group and attribute == "approval":
        hint = f"each item has its own: pass it on in the result of {job.name}"
    elif is_group and attribute in _OWN_ATTRIBUTES:
        hint = f"each item has its own: jobs.{job.name}.outcomes"
    elif attribute == "exit_code" and job.run is None and workflow.is_known(job.name, "run"):
        kind = "not a shell job"
        hint = f"a command has an exit code (`run:`); ask for jobs.{job.name}.status or .error"
    elif (
        not is_group
        and attribute in _GROUP_ATTRIBUTES
        and workflow.is_known(job.name, *KEYS_OF_GROUPS)
    ):
        kind = "a single job"
        hint = f"write jobs.{job.name}.result, or give {job.name} a `for_each` or a `matrix`"
    if hint:
        message = f"{owner} uses jobs.{job.name}.{attribute}, but {job.name} is {kind}"
        problem = Problem(GROUP_OR_SINGLE_JOB, message, hint=hint)
        yield _about(problem, "jobs", job.name, attribute)


def _unknown_output(owner: str, graph: Graph, name: str, part: str) -> Iterator[Problem]:
    nested = graph.workflow.workflows.get(graph.job_by_name[name].workflow)
    if nested is not None and part not in nested.outputs and nested.is_whole("outputs"):
        message = f"{owner} uses jobs.{name}.result.{part}, but {nested.name} has no such output"
        hint = did_you_mean(part, nested.outputs) or f"declare it there: outputs: {{{part}: …}}"
        yield _about(Problem(UNKNOWN_OUTPUT, message, hint=hint), "jobs", name, "result", part)


def check_secrets(workflow: Workflow, graph: Graph) -> Iterator[Problem]:
    """Variables that look like secrets are read as secrets (a warning)."""
    of_jobs = (
        (f"job {name}", path, references)
        for name, path, references in _own_uses(workflow, graph)
        if references.env
    )
    of_workflow = (
        (f"`{path[0]}` of the workflow", path, find_references(text))
        for path, text in find_workflow_texts(workflow)
    )
    for owner, path, references in chain(of_jobs, of_workflow):
        for name in sorted(references.env):
            if not _WORDS_OF_SECRETS.isdisjoint(name.upper().split("_")):
                message = f"{owner} uses env.{name}, which looks like a secret; `env` is not hidden"
                hint = f"write secrets.{name}, which is hidden in everything that the job shows"
                problem = Problem(SECRET_IN_ENV, message, hint=hint, severity="warning")
                yield from workflow.places.place(_about(problem, "env", name), *path)


_SECRET_WORDS = ("TOKEN", "PASSWORD", "PASSWD", "SECRET", "KEY", "CREDENTIAL")
_WORDS_OF_SECRETS = frozenset([*_SECRET_WORDS, *(f"{word}S" for word in _SECRET_WORDS)])


# Names that have a value only in some places.


def _misplaced(
    owner: str, key: str, references: References, allowed: frozenset[str]
) -> Iterator[Problem]:
    for root in sorted(references.roots - allowed):
        names: tuple[str, ...] = (root,)
        shown = f"`{root}`"
        if root == "status":
            names = (min(references.statuses),)
            shown = f"{names[0]}()"
        elif root == "ended":
            names = ("run", min(references.ended))
            shown = ".".join(names)
        message = f"{owner} uses {shown} in `{key}`, where it has no value"
        yield _about(Problem(NO_VALUE_HERE, message, hint=_HINT_BY_ROOT[root]), *names)


_HINT_BY_ROOT: Mapping[str, str] = {
    "status": "use it only in `if`; it refers to the jobs before this one",
    "item": "`item` and `index` belong to a job with `for_each`, in all its keys except that one",
    "index": "`item` and `index` belong to a job with `for_each`, in all its keys except that one",
    "matrix": "`matrix` belongs to a job with a `matrix`, in all of its keys except that one",
    "result": "`result` is what the job itself returned, in `more`, `stop_when` and `poll`; the "
    "result of another job is jobs.NAME.result",
    "env": "use it under `with`, `env`, `run` or `cwd`: it is read where the job runs",
    "secrets": "use it under `with`, `env`, `run` or `cwd`: it is read where the job runs, and "
    "kept nowhere",
    "attempt": "use it under `with`, `env`, `run` or `cwd`: it is counted where the job runs",
    "jobs": "results of other jobs are not known there",
    "run": "use it in the arguments of a job",
    "ended": "only jobs under `finally` know how the run ended, while they run",
    "approval": "the inputs of an approval are known only after it: use them under `with`, `env`, "
    "`run` or `cwd` of the job that asks, and as jobs.NAME.approval.INPUT in jobs after that",
}


def _not_in_this_job(
    workflow: Workflow, job: JobSpec, key: str, references: References
) -> Iterator[Problem]:
    roots = references.roots & ROOTS_BY_KEY[key]
    is_asked = "approval" in roots and workflow.is_whole("jobs", job.name, "approval", "inputs")
    for name in sorted(references.approval) if is_asked else ():
        yield from _not_asked(f"job {job.name} uses approval.{name}", job, name)
    for root in sorted(roots & {"item", "index"}):
        if job.for_each is None and workflow.is_known(job.name, "for_each"):
            message = f"job {job.name} uses `{root}`, but has no `for_each`"
            hint = "add `for_each:` with a list, or an expression that gives one"
            yield _about(Problem(NO_VALUE_HERE, message, hint=hint), root)
    if "ended" in roots and not job.is_final:
        message = f"job {job.name} asks how the run ended, which is known only under `finally`"
        problem = Problem(NO_VALUE_HERE, message, hint="move the job to `finally:`")
        yield _about(problem, "run")
    is_matrix_known = workflow.is_known(job.name, "matrix", "include")
    if "matrix" in roots and job.matrix is None and is_matrix_known:
        message = f"job {job.name} uses `matrix`, but has no `matrix`"
        problem = Problem(NO_VALUE_HERE, message, hint="add `matrix: {NAME: [values]}`")
        yield _about(problem, "matrix")
    if "secrets" in roots and job.workflow:
        message = (
            f"job {job.name} passes a secret to another workflow, whose inputs are stored in Redis"
        )
        hint = "use secrets.NAME in the jobs of that workflow: it is read where they run"
        yield _about(Problem(NO_VALUE_HERE, message, hint=hint), "secrets")
    if "attempt" in roots and job.workflow and key == "with":
        message = f"job {job.name} passes `attempt` to another workflow, whose inputs are made once"
        problem = Problem(NO_VALUE_HERE, message, hint="use `attempt` in the jobs of that workflow")
        yield _about(problem, "attempt")
    if job.matrix is not None and is_matrix_known:
        known = dict.fromkeys(chain(job.matrix.axes, *job.matrix.include))
        for name in sorted(references.matrix - known.keys()):
            message = f"job {job.name} uses matrix.{name}, but its matrix has no {name}"
            problem = Problem(UNKNOWN_AXIS, message, hint=did_you_mean(name, known))
            yield _about(problem, "matrix", name)
