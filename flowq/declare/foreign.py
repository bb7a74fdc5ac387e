"""Words of other tools in the place of keys, and what to write instead.

`keys` passes them to the vocabularies, whose readers report them.
"""

from __future__ import annotations

from collections.abc import Mapping

_ARGUMENTS = "arguments go under `with`, by name"
_CALL = "write `call: package.module:function`"
_RUN = "write `run: …`"
_NEEDS = "write `needs`"
_QUEUE = "a job runs where its queue's workers are: `queue: NAME`"

IN_A_JOB: Mapping[str, str] = {
    "steps": "a job does one thing: make each step a job, and order the jobs with `needs`",
    "uses": "name a Python function, `call: package.module:function`, or another workflow, "
    "`workflow: ./file.yaml`",
    "runs-on": "name the queue whose workers run it: `queue: NAME`",
    "strategy": "`matrix`, `max_parallel` and `fail_fast` go at the job itself",
    "timeout-minutes": "write `timeout: 10m`",
    "continue-on-error": "write `continue_on_error`",
    "max-parallel": "write `max_parallel`",
    "fail-fast": "write `fail_fast`",
    "working-directory": "write `cwd`",
    "container": _QUEUE,
    "services": _QUEUE,
    "permissions": "leave it out",
    "environment": "write `approval: true` for a job that needs an approval, or `env`",
    "synchronization": "write `concurrency: NAME`, or {group: NAME, limit: 3}",
    "mutex": "write `concurrency: NAME`",
    "semaphore": "write `concurrency: {group: NAME, limit: 3}`",
    "pool": "write `concurrency: {group: NAME, limit: 3}`",
    "secrets": "name each where it is used: `env: {KEY: ${{ secrets.KEY }}}`",
    "outputs": "other jobs read what the function returns as jobs.NAME.result",
    "args": _ARGUMENTS,
    "kwargs": _ARGUMENTS,
    "params": _ARGUMENTS,
    "parameters": _ARGUMENTS,
    "inputs": "inputs are declared once, for the workflow; arguments go under `with`",
    "depends_on": _NEEDS,
    "dependencies": _NEEDS,
    "requires": _NEEDS,
    "after": _NEEDS,
    "before": "write `blocks`",
    "function": _CALL,
    "func": _CALL,
    "command": _RUN,
    "script": _RUN,
    "name": "the key above is the job's name; a longer text goes under `description`",
    "backoff": "write `retries: {max: 3, backoff: 2s}`",
    "retry": "write `retries: {max: 3, backoff: 2s}`",
    "foreach": "write `for_each`",
    "loop": "write `for_each`",
    "with_items": "write `for_each`",
    "when": "write `if`",
    "unless": "write `if: not …`",
    **dict.fromkeys(("suspend", "delay", "pause"), "make a job of the pause: `sleep: 10m`"),
    "trigger_rule": "write `start_when: one_success` (or one_failed), or, for `all_done`, "
    "`if: always()`",
    "sensor": "write `poll: {until: …, every: 30s}` beside `call` or `run`",
    **dict.fromkeys(
        ("schedule", "defaults", "jobs", "finally", "workflows", "labels"),
        "it belongs to the workflow",
    ),
}

IN_CONCURRENCY: Mapping[str, str] = {
    "cancel-in-progress": "write `cancel_in_progress`",
    "max_runs": "write `limit`",
}

IN_DEFAULTS: Mapping[str, str] = {
    "timeout-minutes": "write `timeout: 10m`",
    "working-directory": "write `cwd`",
    "continue-on-error": "write `continue_on_error`",
    "max-parallel": "write `max_parallel`",
    "fail-fast": "write `fail_fast`",
    "retry": "write `retries: {max: 3, backoff: 2s}`",
    "runs-on": "name the queue whose workers run the jobs: `queue: NAME`",
}

IN_A_WORKFLOW: Mapping[str, str] = {
    "on": "a workflow is started by `flowq run FILE`, or by `schedule: {cron: …}`; its inputs "
    "go under `inputs`",
    "run-name": "leave it out",
    "permissions": "leave it out",
    "steps": "a workflow has `jobs`: a map of names to jobs",
    "tasks": "write `jobs`",
    "stages": "write `jobs`, and order them with `needs`",
    "nodes": "write `jobs`",
    "params": "write `inputs`",
    "parameters": "write `inputs`",
    "version": "leave it out",
    "cron": "write `schedule: {cron: …}`",
    "call": "a call belongs to a job: `jobs: {NAME: {call: …}}`",
    "run": "a command belongs to a job: `jobs: {NAME: {run: …}}`",
    "runs-on": "name a queue under `defaults`: `queue: NAME`",
}
