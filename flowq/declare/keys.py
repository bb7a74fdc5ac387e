"""The words of the YAML language: which keys there are, how each is read, and what it means."""

from __future__ import annotations

from flowq.declare import defaults, foreign
from flowq.declare import job_shapes as job
from flowq.declare.job_shapes import COMBINATIONS, MATRIX, RETRIES
from flowq.declare.nodes import ListNode, MapNode, Node, ScalarNode
from flowq.declare.problems import Problems
from flowq.declare.shapes import (
    ARGUMENTS,
    DESCRIPTION,
    EXPRESSION,
    FIXED_TEXT,
    FLAG,
    POSITIVE,
    TEMPLATE,
    TEXT,
    TIMEOUT,
    Key,
    Shape,
    Vocabulary,
    choice,
    either,
    find_meant,
    read_node,
    read_template,
    say,
)
from flowq.spec import Concurrency, Schedule


def _read_schedule(label: str, node: Node, problems: Problems) -> Schedule | None:
    if isinstance(node, ListNode | ScalarNode):
        message = f"{label} must be a map, not {say(node)}"
        problems.add("FQ105", node, message, 'write {cron: "30 2 * * *", timezone: Europe/Berlin}')
        return None
    words = SCHEDULE.read(label, node, problems) or {}
    if "cron" not in node.node_by_key and "cron" not in find_meant(node, SCHEDULE):
        problems.add("FQ106", node, f"{label} has no `cron`", 'as in cron: "30 2 * * 1-5"')
    return Schedule(words.get("cron", "0 0 * * *"), words.get("timezone", "UTC"))


def _read_concurrency(label: str, node: Node, problems: Problems) -> Concurrency | None:
    if isinstance(node, ScalarNode):
        text = read_template(label, node, problems)
        return None if text is None else Concurrency(text)
    words = CONCURRENCY.read(label, node, problems) or {}
    is_missing = isinstance(node, MapNode) and "group" not in node.node_by_key
    if is_missing and "group" not in find_meant(node, CONCURRENCY):
        hint = "runs with the same text come one after the other"
        problems.add("FQ106", node, f"{label} has no `group`", hint)
    return Concurrency(words.get("group", ""), words.get("cancel_in_progress", False))


_CALLED = Key(
    job.CALL, "The function that the job calls: package.module:function.", ("photos.tasks:resize",)
)
_QUEUE = Key(FIXED_TEXT, "The queue whose workers run it.", ("default",))
_TIMEOUT = Key(TIMEOUT, "How long it may run.", ("30s", "10m"))
_RETRIES = Key(
    RETRIES,
    "How often it is tried again, when, and after which failures.",
    (3, {"max": 5, "backoff": "2s", "factor": 2, "on": ["ConnectionError", 137]}),
)
_DESCRIPTION = Key(DESCRIPTION, "What it is for.")
_ENV = Key(
    job.ENVIRONMENT,
    "Environment variables; `env.NAME` and `secrets.NAME` are read where the job runs.",
    ({"API_KEY": "${{ secrets.API_KEY }}"},),
)

JOB = Vocabulary(
    "a job",
    {
        "call": _CALLED,
        "run": Key(
            job.COMMAND,
            "A command: a program and its arguments as a list, or a text for a shell.",
            (["tar", "-cf", "${{ inputs.out }}", "data"], 'make -C "$FOLDER" && echo done'),
        ),
        "workflow": Key(
            FIXED_TEXT, "Another workflow: a file, or a name under `workflows`.", ("./photo.yaml",)
        ),
        "with": Key(ARGUMENTS, "The arguments, by name; values may hold ${{ expressions }}."),
        "needs": Key(job.NAMES, "Jobs that must run before this one.", ("fetch", ["a", "b"])),
        "blocks": Key(
            job.BLOCKS,
            "Jobs that must wait for this one.",
            ("report", {"report": {"on_failure": "ignore"}}),
        ),
        "blocked_by": Key(
            job.BLOCKS, "As `blocks`: jobs with `deferred: true` that wait for this one."
        ),
        "deferred": Key(FLAG, "The job is open: running jobs may add blockers to it."),
        "approval": Key(
            job.APPROVAL,
            "Wait for `flowq approve RUN JOB` when all else is ready.",
            (True, {"message": "Look at the report first", "expires": "2d"}),
        ),
        "for_each": Key(
            job.ITEMS,
            "One job for each item of a list, or of an expression that gives one.",
            (["a", "b"], "${{ jobs.list_photos.result }}"),
        ),
        "key": Key(
            EXPRESSION, "An expression that names an item; seen keys are dropped.", ("item.id",)
        ),
        "more": Key(
            EXPRESSION, "An expression on `result` that gives further items.", ("result.links",)
        ),
        "max_items": Key(POSITIVE, "The group fails above this number of items.", (10_000,)),
        "stop_when": Key(
            EXPRESSION,
            "An expression on `result`: once true, what has not started is skipped.",
            ("result.loss < 0.1",),
        ),
        "matrix": Key(
            MATRIX,
            "One job for each combination of some lists.",
            ({"os": ["linux", "windows"], "python": ["3.11", "3.12"]},),
        ),
        "include": Key(COMBINATIONS, "Further combinations of the matrix, or keys for some."),
        "exclude": Key(COMBINATIONS, "Combinations that the matrix leaves out."),
        "max_parallel": Key(POSITIVE, "How many jobs of the group run at a time.", (8,)),
        "fail_fast": Key(FLAG, "After a failure, cancel what has not started of the group."),
        "if": Key(
            EXPRESSION, "Run only if this expression is true.", ("inputs.publish", "always()")
        ),
        "continue_on_error": Key(
            job.TOLERANCE, "Failures that count as successes.", (True, 3, "20%")
        ),
        "on_blocker_failure": Key(
            job.POLICY, "What becomes of it when a job before it did not succeed."
        ),
        "if_empty": Key(
            choice("run", "skip"), "What becomes of it when there was nothing to wait for."
        ),
        "on_crash": Key(
            choice("requeue", "fail"), "What becomes of it when its worker is lost with it."
        ),
        "expires": Key(
            TIMEOUT, "How long it may wait to be started before it is canceled.", ("1d",)
        ),
        "retries": _RETRIES,
        "timeout": _TIMEOUT,
        "queue": _QUEUE,
        "at_front": Key(FLAG, "Enter the queue at its front."),
        "env": _ENV,
        "cwd": Key(TEMPLATE, "The folder that it runs in.", ("build",)),
        "secret_results": Key(
            choice("mask", "refuse"),
            "What becomes of a result with a secret in it: it is hidden where it is shown, or it "
            "fails the job.",
        ),
        "shell": Key(FIXED_TEXT, "The shell of `run`.", ("bash", "sh", "pwsh", "cmd")),
        "result": Key(
            choice("last", "text", "lines", "json"), "What of the output is the result of `run`."
        ),
        "description": _DESCRIPTION,
    },
    foreign=foreign.IN_A_JOB,
)

DEFAULTS = Vocabulary(
    "defaults",
    {key: JOB.keys[key] for key in defaults.KEYS},
    foreign={**foreign.IN_DEFAULTS, **defaults.REFUSED},
)

SCHEDULE = Vocabulary(
    "schedule",
    {
        "cron": Key(FIXED_TEXT, "Minute, hour, day, month, weekday.", ("30 2 * * 1-5",)),
        "timezone": Key(FIXED_TEXT, "A name of the IANA database.", ("Europe/Berlin",)),
    },
    foreign=foreign.IN_A_SCHEDULE,
    required=("cron",),
)

CONCURRENCY = Vocabulary(
    "concurrency",
    {
        "group": Key(TEMPLATE, "Runs with the same text come one after the other."),
        "cancel_in_progress": Key(FLAG, "A new run cancels the one that is going on."),
    },
    foreign=foreign.IN_CONCURRENCY,
    required=("group",),
)

WORKFLOW = Vocabulary(
    "a workflow",
    {
        "name": Key(FIXED_TEXT, "The name of the workflow; the file's, if nothing is said."),
        "description": _DESCRIPTION,
        "inputs": Key(Shape(read_node), "What is given to a run, by name."),
        "defaults": Key(
            Shape(DEFAULTS.read, {"anyOf": [{"type": "null"}, DEFAULTS.schema()]}),
            "What jobs get that do not say otherwise.",
        ),
        "env": _ENV,
        "jobs": Key(Shape(read_node), "The jobs, by name."),
        "finally": Key(
            Shape(read_node),
            "Jobs that run when all others have ended, however they ended; by name.",
        ),
        "workflows": Key(Shape(read_node), "Workflows that jobs run by name."),
        "outputs": Key(
            ARGUMENTS,
            "What a run results in; of a job that runs this workflow, the result.",
            ({"pages": "${{ jobs.build.result }}"},),
        ),
        "max_parallel": Key(POSITIVE, "How many jobs of a run are executed at a time.", (8,)),
        "timeout": Key(TIMEOUT, "How long a run may take before it is canceled.", ("1h",)),
        "concurrency": Key(
            either(_read_concurrency, TEXT.schema, CONCURRENCY.schema()),
            "One run at a time.",
            ({"group": "nightly", "cancel_in_progress": True},),
        ),
        "schedule": Key(
            Shape(_read_schedule, SCHEDULE.schema()),
            "When it runs by itself: `flowq schedule FILE`.",
            ({"cron": "30 2 * * *", "timezone": "Europe/Berlin"},),
        ),
    },
    foreign=foreign.IN_A_WORKFLOW,
    required=("jobs",),
)

_OF_FILES = frozenset({"name", "concurrency", "schedule"})

NESTED = Vocabulary(
    "a workflow inside of another",
    {name: key for name, key in WORKFLOW.keys.items() if name not in _OF_FILES},
    foreign={
        **foreign.IN_A_WORKFLOW,
        "name": "the key above is its name",
        "schedule": "it belongs to the whole file",
        "concurrency": "it belongs to the whole file",
    },
    required=("jobs",),
)

INSTEAD_OF_CALL = frozenset({"uses", "steps", "function", "func", "command", "script"})
"""Keys of other tools that say what a job does: then a missing `call` is no problem of its own."""
