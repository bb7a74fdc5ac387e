"""Redis and RQ: how jobs, future jobs and runs are stored, and the code that executes a run's jobs.

Jobs
queue.py        `flowq.Queue`, and the default connection
job.py          `flowq.Job`: its results and its ends
holds.py        the options `deferred=`, `blocked_by=`, `blocks=`; enqueueing.py the arguments of
                the script that adds jobs, and copies of jobs
futures.py      adding to a future job; blockers.py how its blockers ended
attempts.py     how an attempt failed; policies.py the retries of a job; waiting.py a job that
                waits after its `if`
serializing.py  results and arguments as bytes, with limits of their size

Runs
runs.py         submit, read, cancel and remove runs; planned.py the jobs of a plan
run_lists.py    lists of runs, by workflow, state and label; run_labels.py labels
over_time.py    how the last runs of a workflow, and their jobs, have ended
groups.py       add items, and the jobs of nested workflows, while a run runs
schedules.py    the schedules that the server knows
approvals.py    approve, reject, release; retry.py run again
keeping.py      take over how jobs ended in an earlier run
outputs.py      evaluates the outputs of a run; kept_outputs.py what is kept of them for commands
event_log.py    reads the events of one run, or of all
explain.py      why a job has not run; limits.py who has a slot of a limit across runs
results.py      how jobs ended; wip.py what runs now
tracing.py      the trace context of a run, for OpenTelemetry
counts.py       how many jobs of a run are in which state, and pages of a group's items
listening.py    which workers are alive, and which queues have some
printed.py      what jobs print, within the memory budget of their run
views.py        values as JSON for display; wire.py plans as data for other versions

In a job
work.py         executes a job of a workflow; lookups.py the results that its expressions need
shell.py        runs commands; secrets.py, masking/ secrets; variables.py the environment
progress.py     what a job reports of its progress; command_progress.py what a command does
admission.py, unpickling.py  the limits of a worker with `--allow`

The server
keys.py         the names of all keys; scripts.py, lua/ the scripts; steps.py long operations
connections.py  refusals, outages, and the server's clock
maintenance.py  finds lost workers (`Lease`) and ends that no script saw
rq.py           RQ's private names; rq_sources.py the code of RQ that flowq relies on
uninstalling.py removes all data of flowq

A module of this package is loaded when it is first used, also as an attribute: commands that only
look need few of them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
