"""The outputs of a run: declared with its workflow, evaluated by whoever asks once it has ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rq.utils import as_text

from flowq.errors import RunNotFound, WrongState
from flowq.expressions import evaluate, find_references
from flowq.plan import Outputs
from flowq.runtime import keys
from flowq.runtime.lookups import read_jobs
from flowq.runtime.wire import from_wire, to_wire
from flowq.status import RUN_ENDED

if TYPE_CHECKING:
    from redis import Redis


def write_outputs(outputs: Outputs) -> str:
    """Return the outputs as the record of a run keeps them."""
    return json.dumps(to_wire(outputs), default=repr)


def read_outputs(
    run_id: str,
    connection: Redis,
    instead: Callable[[str, Exception], Any] | None = None,
) -> dict[str, Any]:
    """Return the values of a run's outputs, by name; a job without a result gives None.

    Errors: RunNotFound; WrongState before the run has ended; WorkflowInvalid for an expression
    without a value, and whatever loading a result raises; with `instead` what that makes of the
    output's name and the error takes its place.
    """
    state, written = connection.hmget(keys.run(run_id), "state", "outputs")
    if state is None:
        raise RunNotFound(run_id)
    if as_text(state) not in RUN_ENDED:
        raise WrongState(
            f"run {run_id} is {as_text(state)}: its outputs are known when it has ended"
        )
    outputs = from_wire(Outputs, json.loads(written)) if written else Outputs({})
    values: dict[str, Any] = {}
    for name in outputs.template:
        try:
            values[name] = _evaluated(outputs, name, connection)
        except Exception as error:
            if instead is None:
                raise
            values[name] = instead(name, error)
    return values


def _evaluated(outputs: Outputs, name: str, connection: Redis) -> Any:
    template = outputs.template[name]
    jobs = read_jobs(find_references(template), outputs.result_of, connection)
    return evaluate(template, inputs=outputs.inputs, jobs=jobs, scope={"run": outputs.run})
