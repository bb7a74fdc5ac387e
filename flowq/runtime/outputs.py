"""The outputs of a run: declared with its workflow, evaluated once it has ended.

The script that ends a run queues a job outside of the run (lua/runs.lua). A child executes
`keep_outputs`, which evaluates each output once and stores views in the record of the run, for
commands. A program that requests the values evaluates them itself. The name
`flowq.runtime.outputs.keep_outputs` is in the records of runs, so this function must not move.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from rq import get_current_job
from rq.timeouts import BaseTimeoutException
from rq.utils import as_text

from flowq.errors import RunNotFound, UsageError, WrongState
from flowq.expressions import evaluate, find_references
from flowq.plan import Outputs, Plan
from flowq.runtime import keys
from flowq.runtime.connections import retry_while_unavailable
from flowq.runtime.kept_outputs import is_kept, read_fields
from flowq.runtime.lookups import read_jobs
from flowq.runtime.masking import Mask
from flowq.runtime.printed import has_memory_for
from flowq.runtime.secrets import read_known
from flowq.runtime.views import MAX_OUTPUT_BYTES, NO_MEMORY, make_view
from flowq.runtime.wire import from_wire, to_wire
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

KEEP = "flowq.runtime.outputs.keep_outputs"


def write_outputs(outputs: Outputs) -> str:
    """Return the outputs in the form in which the record of a run stores them."""
    return json.dumps(to_wire(outputs), default=repr)


def fields_of_record(plan: Plan) -> dict[str, str]:
    """Return the fields of a run's record about its outputs and the job that evaluates them.

    `outputs_call` is RQ's data of that job as ASCII text. Its queue is that of the job
    `outputs_beside`, one to which the outputs refer: there, the classes of its result can be
    imported.
    """
    if plan.outputs is None:
        return {}
    named = frozenset(plan.outputs.result_of.values())
    used = [each.job_id for each in plan.enqueues if {each.job_id, each.group} & named]
    beside = [*used, *(each.job_id for each in plan.enqueues), ""]
    return {
        "outputs": write_outputs(plan.outputs),
        "outputs_call": pickle.dumps((KEEP, None, (plan.run_id,), {}), protocol=0).decode("ascii"),
        "outputs_beside": beside[0],
    }


# For a program -----------------------------------------------------------------------------------


def read_outputs(
    run_id: str,
    connection: Redis,
    instead: Callable[[str, Exception], Any] | None = None,
) -> dict[str, Any]:
    """Return the values of a run's outputs, by name; a job without a result gives None.

    Errors: RunNotFound; WrongState before the run has ended; WorkflowInvalid for an expression
    without a value; any error of loading a result. With `instead`, its return value for the
    output's name and the error is used as the value.
    """
    state, written = connection.hmget(keys.run(run_id), "state", "outputs")
    if state is None:
        raise RunNotFound(run_id)
    if as_text(state) not in RUN_ENDED:
        raise WrongState(
            f"run {run_id} is {as_text(state)}: its outputs are known when it has ended"
        )
    outputs = _parse(written)
    values: dict[str, Any] = {}
    for name in outputs.template:
        try:
            values[name] = _evaluated(outputs, name, connection)
        except Exception as error:
            if instead is None:
                raise
            values[name] = instead(name, error)
    return values


def _parse(written: Any) -> Outputs:
    return from_wire(Outputs, json.loads(written)) if written else Outputs({})


def _evaluated(outputs: Outputs, name: str, connection: Redis) -> Any:
    template = outputs.template[name]
    jobs = read_jobs(find_references(template), outputs.result_of, connection)
    return evaluate(template, inputs=outputs.inputs, jobs=jobs, scope={"run": outputs.run})


# For commands ------------------------------------------------------------------------------------


def keep_outputs(run_id: str) -> None:
    """Evaluate the outputs of an ended run, and store views of them. Runs in a job.

    Idempotent: existing views for this end of the run stay, and none are stored if the run has been
    retried since.
    """
    job = get_current_job()
    if job is None:
        raise UsageError("keep_outputs() runs only inside a job")
    connection, end = job.connection, job.id.rpartition("-")[2]
    fields = retry_while_unavailable(lambda: read_fields(run_id, connection))
    if _is_wanted(fields, end):
        written = json.dumps({"end": end, **_make_views(run_id, fields["outputs"], connection)})
        retry_while_unavailable(lambda: _keep(run_id, end, written, connection))


def _is_wanted(fields: Mapping[str, str], end: str) -> bool:
    return fields["state"] in RUN_ENDED and fields["ends"] == end and not is_kept(fields)


def _make_views(run_id: str, written: str, connection: Redis) -> dict[str, Any]:
    outputs = _parse(written)
    views: dict[str, Any] = {}
    errors: dict[str, str] = {}
    late: BaseTimeoutException | None = None
    mask = Mask()
    mask.add(read_known(outputs.secrets, os.environ))
    for name in outputs.template:
        try:
            if late is not None:
                raise late
            value = retry_while_unavailable(partial(_evaluated, outputs, name, connection))
            view = make_view(value, MAX_OUTPUT_BYTES, mask.hide if mask else None)
            fits = has_memory_for(json.dumps(view), run_id, connection)
            views[name] = view if fits else NO_MEMORY
        except BaseTimeoutException as error:  # it comes once
            late, errors[name] = error, f"the outputs took too long: {error}"
        except RedisError:
            raise
        except Exception as error:  # noqa: BLE001 - the reason is stored instead of a value
            errors[name] = mask.hide(str(error)) or type(error).__name__
    return {"views": views, "errors": errors}


def _keep(run_id: str, end: str, written: str, connection: Redis) -> None:
    def change(pipeline: Pipeline) -> None:
        is_wanted = _is_wanted(read_fields(run_id, pipeline), end)
        pipeline.multi()
        if is_wanted:
            pipeline.hset(keys.run(run_id), "kept_outputs", written)

    connection.transaction(change, keys.run(run_id))
