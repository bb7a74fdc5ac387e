"""The table of the language: each key once, with its shape, its meaning, and where it is allowed.

The reader (`document`), both exports, the JSON Schema and the check of keys that exclude each other
are derived from this table, and a test compares it with docs/language. Exports write the keys in
this order. Words of other tools have hints (`foreign`). No key is declared elsewhere,
and nothing here reads a whole document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flowq.declare import foreign
from flowq.declare import job_shapes as job
from flowq.declare.limits import (
    CONCURRENCY_OF_JOBS,
    CONCURRENCY_OF_RUNS,
    GROUP,
    RATE,
    RATE_LIMIT,
)
from flowq.declare.matrices import COMBINATIONS, MATRIX
from flowq.declare.shapes import (
    ARGUMENTS,
    DESCRIPTION,
    EXPRESSION,
    FIXED_TEXT,
    FLAG,
    POSITIVE,
    TEMPLATE,
    TIMEOUT,
    Key,
    Shape,
    Unsettled,
    Vocabulary,
    choice,
    or_expression,
    read_node,
)
from flowq.declare.workflow_shapes import LABELS, SCHEDULES
from flowq.spec import Defaults

RETRIES_MAX = "retries.max"
PARTS: Mapping[str, tuple[Shape, Any]] = {
    RETRIES_MAX: (job.RETRIES_MAX, 0),
    "concurrency.group": (GROUP, ""),
    "concurrency.limit": (POSITIVE, 1),
    "rate.limit": (RATE_LIMIT, ""),
    "rate.group": (GROUP, ""),
}
"""The parts of keys that may be expressions: their shapes, and what stands for one until then."""

_MAIN_PART = {"retries": "max", "concurrency": "group", "rate": "limit"}
"""The part that a key has if it is written as one value."""

TEXT_PARTS = frozenset({"concurrency.group", "rate.group"})
"""The settings whose values are texts, whatever an expression gives."""


def to_defaults(words: Mapping[str, Any]) -> Defaults:
    """Return the defaults of a workflow from their values by key."""
    fixed, settings = take_settings(words)
    named = {_name_default(DEFAULTS.keys[word]): fixed[word] for word in fixed}
    return Defaults(**named, settings=settings)


def write_defaults(defaults: Defaults) -> dict[str, Any]:
    """Return the defaults of a workflow in the words of the language."""
    said = {
        word: (key, getattr(defaults, _name_default(key))) for word, key in DEFAULTS.keys.items()
    }
    if defaults.queue == Defaults().queue:
        del said["queue"]
    return write_settings(
        {word: key.shape.write(value) for word, (key, value) in said.items() if value is not None},
        defaults.settings,
    )


def take_settings(words: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return values by key without expressions, and the templates of the expressions.

    Shape: the template of a part of a key is under `retries.max`.
    """
    fixed, settings = dict(words), {}
    for path, (_, unsettled) in PARTS.items():
        word, part = path.split(".")
        found = getattr(fixed.get(word), part, None)
        if isinstance(found, Unsettled):
            settings[path] = found.template
            fixed[word] = replace(fixed[word], **{part: unsettled})
    for word, value in words.items():
        if isinstance(value, Unsettled):
            del fixed[word]
            settings[f"{word}.{_MAIN_PART[word]}" if word in _MAIN_PART else word] = value.template
    return fixed, settings


def write_settings(said: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, Any]:
    """Return values by key together with the templates of settings, in the order of the table."""
    whole = dict(said)
    for path, template in settings.items():
        word, _, part = path.partition(".")
        if not part:
            whole[word] = template
            continue
        main, value = _MAIN_PART[word], whole.get(word, {})
        parts = {**(value if isinstance(value, dict) else {main: value}), part: template}
        whole[word] = template if parts.keys() == {main} else parts
    return {word: whole[word] for word in JOB.keys if word in whole}


def _name_default(key: Key) -> str:
    return key.attribute.rpartition(".")[2]


_WORK = "each job declares what it does"
_EDGE = "an edge is between two jobs: declare it at one of them"
_GROUP = "it makes a group of one job: write it there"
_OF_SINGLE_JOBS = {"workflow": "write it in the jobs of that workflow"}

_NOT_ASLEEP = {"sleep": "a job that sleeps does nothing else: make a job of each"}
_OF_WORKING_JOBS = {**_OF_SINGLE_JOBS, **_NOT_ASLEEP}

_OF_ONE_JOB = "one job starts first: let the group need that job"

_OF_LISTS = {
    "for_each": "give the list to one axis of the matrix, or the matrix to a workflow of its own"
}

_DESCRIPTION = "A description for people."
_ENV = "Environment variables. `env.NAME` and `secrets.NAME` are read where the job runs."
_ENV_EXAMPLES = ({"API_KEY": "${{ secrets.API_KEY }}"},)

JOB = Vocabulary(
    "a job",
    {
        "description": Key(
            DESCRIPTION,
            _DESCRIPTION,
            attribute="description",
            not_shared="it describes one job: write it there",
        ),
        "deferred": Key(
            FLAG,
            "Open the job: running jobs may add blockers to it.",
            attribute="deferred",
            not_shared="write it in the job that running jobs add blockers to",
        ),
        "needs": Key(
            job.NAMES,
            "Jobs that must run before this one.",
            ("fetch", ["a", "b"]),
            attribute="needs",
            not_shared=_EDGE,
        ),
        "if": Key(
            EXPRESSION,
            "Run only if this expression is true.",
            ("inputs.publish", "always()"),
            attribute="if_",
            not_shared="write it in each job: an `if` there would replace this one",
        ),
        "else": Key(
            job.NAMES,
            "If `if` is false, skip what needs only this job, and run these jobs (`skip`: none).",
            ("skip", "report_nothing"),
            attribute="else_",
            needs=("if",),
            not_shared="it belongs to an `if`: write it at that job",
        ),
        "approval": Key(
            job.APPROVAL,
            "Wait for `flowq approve RUN JOB` once everything else is ready.",
            (True, {"message": "Look at the report first", "expires": "2d"}),
            attribute="approval",
            not_shared="an approval is about one job: write it there",
        ),
        "for_each": Key(
            job.ITEMS,
            "One job for each item of a list, or of an expression that results in a list.",
            (["a", "b"], "${{ jobs.list_photos.result }}"),
            attribute="for_each.items",
            not_shared=_GROUP,
        ),
        "key": Key(
            EXPRESSION,
            "An expression for the key of an item; an item whose key was seen before is dropped.",
            ("item.id",),
            attribute="for_each.key",
            needs=("for_each",),
            not_shared=_GROUP,
        ),
        "more": Key(
            EXPRESSION,
            "An expression on `result` for further items of the group.",
            ("result.links",),
            attribute="for_each.more",
            needs=("for_each",),
            not_shared=_GROUP,
        ),
        "max_items": Key(
            POSITIVE,
            "The group fails if it has more items than this.",
            (10_000,),
            attribute="for_each.max_items",
            needs=("for_each",),
        ),
        "matrix": Key(
            MATRIX,
            "One job for each combination of the values of these lists.",
            ({"os": ["linux", "windows"], "python": ["3.11", "3.12"]},),
            attribute="matrix.axes",
            not_for=_OF_LISTS,
            not_shared=_GROUP,
        ),
        "include": Key(
            COMBINATIONS,
            "Further combinations of the matrix, or further keys for existing ones.",
            attribute="matrix.include",
            not_for=_OF_LISTS,
            not_shared=_GROUP,
        ),
        "exclude": Key(
            COMBINATIONS,
            "Combinations that the matrix leaves out.",
            attribute="matrix.exclude",
            needs=("matrix",),
            not_shared=_GROUP,
        ),
        "stop_when": Key(
            EXPRESSION,
            "An expression on `result`: once it is true, the rest of the group is skipped.",
            ("result.loss < 0.1",),
            attribute="for_each.stop_when matrix.stop_when",
            needs=("for_each", "matrix", "include"),
            not_shared=_GROUP,
        ),
        "call": Key(
            job.CALL,
            "The function that the job calls: package.module:function.",
            ("photos.tasks:resize",),
            attribute="call",
            not_shared=_WORK,
        ),
        "workflow": Key(
            FIXED_TEXT,
            "Another workflow: a file, or a name under `workflows`.",
            ("./photo.yaml",),
            attribute="workflow",
            not_shared=_WORK,
        ),
        "run": Key(
            job.COMMAND,
            "A command: a list of a program and its arguments, or a text for a shell.",
            (["tar", "-cf", "${{ inputs.out }}", "data"], 'make -C "$FOLDER" && echo done'),
            attribute="run.command",
            not_shared=f"{_WORK}; `shell` and `cwd` go here: defaults: {{shell: bash}}",
        ),
        "shell": Key(
            FIXED_TEXT,
            "The shell that runs `run`.",
            ("bash", "sh", "pwsh", "cmd"),
            attribute="run.shell",
            needs=("run",),
        ),
        "result": Key(
            choice("last", "text", "lines", "json"),
            "What the result is: the last line of the output, all of it, its lines, or its JSON.",
            attribute="run.result",
            needs=("run",),
        ),
        "sleep": Key(
            job.SLEEP,
            "Wait this long, or until this instant; no worker is occupied meanwhile.",
            ("10m", "2026-12-24T08:00:00+01:00", "${{ inputs.pause }}"),
            attribute="sleep",
            not_shared=_WORK,
        ),
        "poll": Key(
            job.POLL,
            "Execute the job again and again, until an expression on its `result` is true.",
            ({"until": "result.state == 'done'", "every": "30s", "within": "1h"},),
            attribute="poll",
            needs=("call", "run"),
            not_shared="it is about one job: write it there",
        ),
        "with": Key(
            ARGUMENTS,
            "The arguments, by name; values may hold ${{ expressions }}.",
            attribute="with_",
            not_for={
                "run": "a command has no named arguments: pass them under `env:`, and write $NAME",
                **_NOT_ASLEEP,
            },
            not_shared="each function has its own arguments: write them in each job",
        ),
        "env": Key(
            job.ENVIRONMENT,
            _ENV,
            _ENV_EXAMPLES,
            attribute="env",
            not_for=_OF_WORKING_JOBS,
            not_shared="write variables of all jobs under `env` of the workflow",
        ),
        "cwd": Key(
            TEMPLATE,
            "The folder that the job runs in.",
            ("build",),
            attribute="cwd",
            not_for=_OF_WORKING_JOBS,
        ),
        "secret_results": Key(
            choice("mask", "refuse"),
            "If a result contains a secret, hide it wherever the result is shown, or fail the job.",
            attribute="secret_results",
            not_for=_OF_WORKING_JOBS,
        ),
        "blocks": Key(
            job.BLOCKS,
            "Jobs that must wait for this one.",
            ("report", {"report": {"on_failure": "ignore"}}),
            attribute="blocks",
            not_shared=_EDGE,
        ),
        "blocked_by": Key(
            job.BLOCKS,
            "Jobs with `deferred: true` that must wait for this one; the same as `blocks`.",
            not_shared=_EDGE,
        ),
        "max_parallel": Key(
            or_expression(POSITIVE),
            "How many jobs of the group may run at the same time.",
            (8,),
            attribute="max_parallel",
        ),
        "fail_fast": Key(
            FLAG,
            "After a failure, cancel the other jobs of the group, also those that run.",
            attribute="fail_fast",
        ),
        "continue_on_error": Key(
            or_expression(job.TOLERANCE),
            "Which failures count as successes: all, this many, or this share of the group.",
            (True, 3, "20%", "${{ matrix.is_experimental }}"),
            attribute="continue_on_error",
        ),
        "on_blocker_failure": Key(
            choice("wait", "skip", "run"),
            "What the job does when a job before it did not succeed: wait, skip itself, or run.",
            attribute="on_blocker_failure",
        ),
        "start_when": Key(
            choice("one_success", "one_failed"),
            "Start at the first success, or failure, of a job before it, not when all have ended.",
            ("one_success", "one_failed"),
            attribute="start_when",
            not_for={
                "for_each": _OF_ONE_JOB,
                "matrix": _OF_ONE_JOB,
                "include": _OF_ONE_JOB,
                "on_blocker_failure": "`start_when` says when the job starts, and when it does not",
                "if_empty": "without jobs before it, a job with `start_when` is skipped",
            },
            not_shared="it is about the jobs before one job: write it there",
        ),
        "cancel_rest": Key(
            FLAG,
            "Once the job starts, cancel the jobs before it that have not ended.",
            attribute="cancel_rest",
            needs=("start_when",),
            not_shared="it belongs to a `start_when`: write it at that job",
        ),
        "if_empty": Key(
            choice("run", "skip"),
            "What an open job does when it has no blockers: run, or skip itself.",
            attribute="if_empty",
            not_shared="every job without blockers would be skipped: write it at the open job",
        ),
        "on_crash": Key(
            choice("requeue", "fail"),
            "What happens to the job if its worker dies: it is queued again, or it fails.",
            attribute="on_crash",
            not_for=_OF_WORKING_JOBS,
        ),
        "expires": Key(
            TIMEOUT,
            "How long the job may wait to start before it is canceled.",
            ("1d",),
            attribute="expires_s",
        ),
        "retries": Key(
            or_expression(job.RETRIES),
            "How often the job is retried, after which pauses, and after which failures.",
            (3, {"max": 5, "backoff": "2s", "factor": 2, "on": ["ConnectionError", 137]}),
            attribute="retries",
            not_for=_NOT_ASLEEP,
        ),
        "timeout": Key(
            or_expression(TIMEOUT),
            "How long the job may run.",
            ("30s", "10m"),
            attribute="timeout_s",
            not_for=_NOT_ASLEEP,
        ),
        "queue": Key(
            or_expression(FIXED_TEXT),
            "The queue whose workers run the job.",
            ("default", "${{ inputs.region }}"),
            attribute="queue",
            not_for=_OF_SINGLE_JOBS,
        ),
        "concurrency": Key(
            CONCURRENCY_OF_JOBS,
            "So many jobs with the same group run at the same time (default: 1), in all runs.",
            ("deploy", {"group": "shop-${{ inputs.shop }}", "limit": 3}),
            attribute="concurrency",
            not_for=_NOT_ASLEEP,
            not_shared="it is about one job: write it there",
        ),
        "rate": Key(
            RATE,
            "So many starts in each second, minute or hour, in all runs.",
            ("10/m", {"limit": "100/h", "group": "mail-server"}),
            attribute="rate",
            not_for=_NOT_ASLEEP,
            not_shared="it is about one job: write it there",
        ),
        "rate_limit": Key(
            RATE, "The same as `rate`.", not_shared="it is about one job: write it there"
        ),
        "at_front": Key(
            FLAG, "Enter the queue at the front.", attribute="at_front", not_for=_OF_SINGLE_JOBS
        ),
    },
    foreign=foreign.IN_A_JOB,
)

DEFAULTS = Vocabulary(
    "defaults",
    {word: key for word, key in JOB.keys.items() if not key.not_shared},
    foreign={
        **foreign.IN_DEFAULTS,
        **{word: key.not_shared for word, key in JOB.keys.items() if key.not_shared},
    },
    of=" of defaults",
)

_OF_JOBS = {
    word: "it belongs to a job" + (", or under `defaults`" if word in DEFAULTS.keys else "")
    for word in JOB.keys
}

WORKFLOW = Vocabulary(
    "a workflow",
    {
        "name": Key(FIXED_TEXT, "The name of the workflow (default: the name of the file)."),
        "description": Key(DESCRIPTION, _DESCRIPTION, attribute="description"),
        "inputs": Key(Shape(read_node), "The values that a run takes, by name."),
        "defaults": Key(
            Shape(DEFAULTS.read, {"anyOf": [{"type": "null"}, DEFAULTS.schema()]}, write_defaults),
            "Defaults for the keys of all jobs.",
        ),
        "env": Key(job.ENVIRONMENT, _ENV, _ENV_EXAMPLES, attribute="env"),
        "labels": Key(
            LABELS,
            "Texts by name, by which runs are found: `flowq runs --label NAME=VALUE`.",
            ({"team": "data", "customer": "${{ inputs.customer }}"},),
            attribute="labels",
        ),
        "max_parallel": Key(
            POSITIVE,
            "How many jobs of a run may be executed at the same time.",
            (8,),
            attribute="max_parallel",
        ),
        "timeout": Key(
            TIMEOUT,
            "How long a run may take before it is canceled.",
            ("1h",),
            attribute="timeout_s",
        ),
        "concurrency": Key(
            CONCURRENCY_OF_RUNS,
            "So many runs with the same group run at the same time (default: 1); the others wait.",
            ("nightly", {"group": "nightly", "limit": 3}),
            attribute="concurrency",
        ),
        "schedule": Key(
            SCHEDULES,
            "When the workflow runs by itself; `flowq schedule FILE` turns that on.",
            (
                "30 2 * * *",
                {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "catch_up": "last"},
                [{"cron": "0 6 * * *", "inputs": {"region": "eu"}}, {"cron": "0 9 * * *"}],
            ),
            attribute="schedules",
        ),
        "outputs": Key(
            ARGUMENTS,
            "The results of a run. A job that runs this workflow has them as its result.",
            ({"pages": "${{ jobs.build.result }}"},),
            attribute="outputs",
        ),
        "workflows": Key(Shape(read_node), "Workflows that jobs run by name."),
        "jobs": Key(Shape(read_node), "The jobs, by name."),
        "finally": Key(
            Shape(read_node),
            "Jobs that run when all others have ended, whatever their outcome; by name.",
        ),
    },
    foreign={**_OF_JOBS, **foreign.IN_A_WORKFLOW},
    required=("jobs",),
)

_OF_FILES = {
    "name": "the key above is its name",
    "schedule": "it belongs to the whole file",
    "concurrency": "it belongs to the whole file",
    "labels": "it belongs to the whole file: a run has labels, with all that is in it",
}

NESTED = Vocabulary(
    "a workflow inside of another",
    {word: key for word, key in WORKFLOW.keys.items() if word not in _OF_FILES},
    foreign={**_OF_JOBS, **foreign.IN_A_WORKFLOW, **_OF_FILES},
    required=("jobs",),
)

INSTEAD_OF_CALL = frozenset({"uses", "steps", "function", "func", "command", "script"})
"""Keys of other tools that say what a job does: then a missing `call` is no problem of its own."""
