"""What is wrong with a workflow: one small function per rule, all problems at once.

A rule is a function from the workflow and its graph to problems, and knows nothing of the others.
Of a workflow that could be read only in part, a rule complains of nothing that is missing there.
`check` needs nothing but the declaration; `check_calls` looks at the functions that jobs call,
which the shell imports and passes in. Both look into nested workflows too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain

from flowq.checks import (
    beside,
    calls,
    commands,
    edges,
    expressions,
    groups,
    names,
    nested,
    retries,
    shell_words,
    times,
)
from flowq.checks.names import MAX_NAME_LENGTH
from flowq.errors import Problem, without_repeats
from flowq.graph import Graph, build_graph
from flowq.spec import Workflow

__all__ = ["MAX_NAME_LENGTH", "RULE_BY_CODE", "check", "check_calls", "in_text_order"]

RULE_BY_CODE: Mapping[str, str] = {
    "FQ117": "A job says exactly one of `call`, `run` and `workflow`",
    "FQ118": "A key stands beside the key that it belongs to",
    "FQ119": "A nested workflow is there",
    "FQ201": "Every job in `needs`, `blocks` and `blocked_by` is declared",
    "FQ202": "No job waits for itself",
    "FQ203": "No jobs wait for each other in a circle",
    "FQ204": "Every job in an expression is declared",
    "FQ205": "Every input in an expression is declared",
    "FQ206": "A `deferred: true` job has a blocker that can add others",
    "FQ207": "An edge has one policy, however often it is said",
    "FQ208": "No name is declared twice",
    "FQ209": "A job's name can be part of a job id",
    "FQ210": "A workflow has jobs",
    "FQ211": "Every input is used (a warning)",
    "FQ212": "A group has `results`, a single job has a `result`, a shell job an `exit_code`",
    "FQ213": "Names in expressions stand where they have a value",
    "FQ214": "A matrix has combinations, each once, and not too many",
    "FQ215": "`exclude` names axes of its matrix",
    "FQ216": "Every `matrix.NAME` in an expression is in the matrix",
    "FQ217": "An `if` that asks how the jobs before it ended says no `on_blocker_failure`",
    "FQ218": "A nested workflow gets the inputs that it declares",
    "FQ219": "The outputs of a nested workflow are declared",
    "FQ220": "A schedule has a cron expression",
    "FQ221": "The time zone of a schedule exists",
    "FQ222": "What limits a group stands at a group (a warning)",
    "FQ223": "Every workflow under `workflows` is used (a warning)",
    "FQ224": "A command with expressions is for a shell that keeps a value in quotes",
    "FQ225": "What asks about the jobs before it stands at a job that has some (a warning)",
    "FQ226": "What a group is made of is a list",
    "FQ227": "What holds whole runs back stands at the workflow that is run (a warning)",
    "FQ228": "An expression in a command stands where its value cannot become code",
    "FQ229": "What looks like a secret is read as one (a warning)",
    "FQ230": "What an approval gives is what it asks for",
    "FQ232": "Jobs under `finally`, and the others, do not name each other as what comes before",
    "FQ235": "An argument of a command is one value",
    "FQ236": "A job may not take longer than the workflow around it (a warning)",
    "FQ237": "The program of a command comes from a list that the workflow has (a warning)",
    "FQ239": "A command as a list holds nothing that only a shell understands (a warning)",
    "FQ240": "What is said about retries fits together (a warning)",
    "FQ501": "Every function can be imported",
    "FQ502": "What is called is a function",
    "FQ503": "A function takes the arguments that are passed to it",
    "FQ504": "A function gets the arguments that it requires",
    "FQ505": "A function takes its arguments by name",
    "FQ506": "What is called executes when it is called",
    "FQ507": "`on` and `never_on` name classes by which jobs raise them",
}
"""The rule behind each code, in one line; the codes are never given a second meaning. Those of
single expressions (FQ3xx) are in `flowq.expressions`, and are reported here with their places."""

Rule = Callable[[Workflow, Graph], Iterator[Problem]]

_RULES: tuple[Rule, ...] = (
    edges.check_names_of_jobs,
    edges.check_self_references,
    edges.check_cycles,
    expressions.check_expressions,
    expressions.check_secrets,
    edges.check_open_jobs,
    edges.check_policies,
    edges.check_final_jobs,
    names.check_duplicates,
    names.check_job_names,
    names.check_presence,
    names.check_unused_inputs,
    names.check_unused_workflows,
    beside.check_work,
    beside.check_meaning,
    groups.check_matrices,
    groups.check_conditions,
    groups.check_lists,
    groups.check_limits,
    groups.check_questions,
    nested.check_nested,
    nested.check_concurrency,
    times.check_schedule,
    times.check_timeouts,
    retries.check_retries,
    commands.check_shells,
    commands.check_places,
    commands.check_arguments,
    commands.check_code,
    shell_words.check_shell_words,
)


def check(workflow: Workflow, graph: Graph) -> list[Problem]:
    """Return all that is wrong with a workflow as declared, in the order of its text.

    Shape: errors and warnings (`severity`); empty when it can be compiled without a remark.
    """
    return in_text_order(
        chain.from_iterable(
            rule(each, each_graph) for each, each_graph in _all(workflow, graph) for rule in _RULES
        )
    )


def check_calls(
    workflow: Workflow, graph: Graph, find_callable: Callable[[str], Callable[..., object]]
) -> list[Problem]:
    """Return what is wrong with the functions that the jobs call, in the order of the text.

    `find_callable` imports what a `call` names, and raises what it likes when it cannot: user
    code runs in there.
    """
    return in_text_order(
        chain.from_iterable(
            rule(each, each_graph, find_callable)
            for each, each_graph in _all(workflow, graph)
            for rule in (calls.check_functions, retries.check_causes)
        )
    )


def in_text_order(problems: Iterable[Problem], file: str = "") -> list[Problem]:
    """Return problems by position, those in `file` before those in others, each once.

    Shape: those without a position come first, and equals keep their order.
    """

    def position(problem: Problem) -> tuple[bool, str, int, int]:
        if (where := problem.where) is None:
            return False, "", 0, 0
        return where.file != file, where.file, where.line, where.column

    return without_repeats(sorted(problems, key=position))


def _all(workflow: Workflow, graph: Graph) -> Iterator[tuple[Workflow, Graph]]:
    """Yield a workflow and all that are nested in it, each once."""
    yield workflow, graph
    seen = {id(workflow)}
    waiting = list(workflow.workflows.values())
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            waiting += each.workflows.values()
            yield each, build_graph(each)
