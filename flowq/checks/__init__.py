"""Checks a workflow: one small function per rule, all problems at once.

A rule is a function from a workflow and its graph to problems, and independent of other rules. If a
workflow could be read only in part, a rule reports nothing that merely follows from the gaps.
`check` needs only the declaration. `check_calls` checks the functions that jobs call, which the
caller imports. Both include nested workflows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from flowq.checks import (
    calls,
    commands,
    edges,
    expressions,
    firsts,
    groups,
    jobs,
    retries,
    settings,
    workflows,
)
from flowq.checks.jobs import MAX_NAME_LENGTH
from flowq.errors import Problem, without_repeats
from flowq.graph import Graph, build_graph
from flowq.spec import Workflow

__all__ = ["MAX_NAME_LENGTH", "check", "check_calls", "in_text_order"]

Rule = Callable[[Workflow, Graph], Iterator[Problem]]

_RULES: tuple[Rule, ...] = (
    edges.check_names_of_jobs,
    edges.check_self_references,
    edges.check_cycles,
    expressions.check_expressions,
    expressions.check_secrets,
    edges.check_open_jobs,
    edges.check_branches,
    edges.check_policies,
    edges.check_final_jobs,
    jobs.check_duplicates,
    jobs.check_job_names,
    jobs.check_lengths,
    jobs.check_presence,
    jobs.check_unused_inputs,
    jobs.check_unused_workflows,
    jobs.check_work,
    jobs.check_meaning,
    groups.check_matrices,
    groups.check_conditions,
    groups.check_lists,
    groups.check_limits,
    groups.check_limits_across_runs,
    groups.check_cancel_in_progress,
    groups.check_questions,
    firsts.check_starts,
    firsts.check_missing_results,
    workflows.check_nested,
    workflows.check_concurrency,
    workflows.check_schedule,
    workflows.check_timeouts,
    retries.check_retries,
    settings.check_settings,
    settings.check_queues,
    commands.check_shells,
    commands.check_places,
    commands.check_arguments,
    commands.check_code,
    commands.check_shell_words,
)


def check(workflow: Workflow, graph: Graph) -> list[Problem]:
    """Return all problems of a workflow's declaration, in the order of its text.

    Shape: errors and warnings (`severity`).
    """
    return in_text_order(
        chain.from_iterable(
            rule(each, each_graph) for each, each_graph in _all(workflow, graph) for rule in _RULES
        )
    )


def check_calls(
    workflow: Workflow, graph: Graph, find_callable: Callable[[str], Callable[..., object]]
) -> list[Problem]:
    """Return the problems of functions that the jobs call, in the order of the text.

    `find_callable` imports the function that a `call` names. It runs user code, so it may raise any
    exception.
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
    """Yield a workflow and all its nested workflows, each once."""
    yield workflow, graph
    seen = {id(workflow)}
    waiting = list(workflow.workflows.values())
    while waiting:
        each = waiting.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            waiting += each.workflows.values()
            yield each, build_graph(each)
