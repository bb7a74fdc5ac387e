"""Errors travel between processes, and decide what the command line exits with."""

from __future__ import annotations

import pickle

import pytest

from flowq import errors
from flowq.errors import FlowqError, Problem, Where

PROBLEM = Problem("FQ101", "unknown key 'tineout'", Where("a.yaml", 3, 5), "did you mean timeout?")
INSTANCES = [
    errors.FlowqError("text"),
    errors.UsageError("text"),
    errors.NotAFutureJob("job"),
    errors.NotOpen("job", "name"),
    errors.CycleError(["a", "b", "a"]),
    errors.JobIdTaken("job", "a queue"),
    errors.Unsupported("text"),
    errors.WorkflowInvalid([PROBLEM]),
    errors.ServerUnavailable("redis://host", "refused"),
    errors.StateUnusable("/home/me/state", "it is a link"),
    errors.NotFound("text"),
    errors.WorkflowNotFound("x.yaml", "no such file"),
    errors.RunNotFound("abc"),
    errors.JobNotFound("abc-a"),
    errors.WrongState("text"),
    errors.FutureAlreadyStarted("job"),
    errors.FutureEnded("job", "canceled"),
    errors.RunFailed("abc", ["a", "b"], {"b": "ValueError: no"}),
    errors.RunFailed("abc", [], {}, "canceled", "it timed out"),
    errors.RunNotEnded("abc", 5, "a is queued"),
    errors.PollFailed(3, "10m"),
    errors.SecretInResult(),
    errors.ShellFailed("make all", 2, "no rule"),
    errors.TooManyItems("crawl", 100),
    errors.NewerFormat(2, 1),
    errors.NotAllowed("os.system", "shop.*", "start the worker with --allow os.system too"),
    errors.Unserializable("result[3]", "a lock", "TypeError: no", "leave it out"),
    errors.DoNotRetry("no such customer"),
    errors.RetryLater(30, "busy"),
]


def _leaves(cls: type[FlowqError]) -> set[type[FlowqError]]:
    return {cls}.union(*(_leaves(sub) for sub in cls.__subclasses__()))


def test_every_error_is_listed_here() -> None:
    ours = {cls for cls in _leaves(FlowqError) if cls.__module__ == "flowq.errors"}
    assert {type(error) for error in INSTANCES} == ours


@pytest.mark.parametrize("error", INSTANCES, ids=lambda error: type(error).__name__)
def test_error_survives_pickle_with_its_fields(error: FlowqError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert str(error)


def test_a_problem_prints_where_what_and_what_to_do() -> None:
    expected = "a.yaml:3:5: FQ101 unknown key 'tineout'\n    did you mean timeout?"
    assert str(PROBLEM) == expected


def test_the_tree_at_the_top_of_the_file_names_every_error_with_its_exit_code() -> None:
    tree = errors.__doc__ or ""
    for cls in _leaves(FlowqError):
        if cls.__module__ == "flowq.errors":
            assert cls.__name__ in tree
