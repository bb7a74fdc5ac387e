"""What runs in the child for a job whose arguments use the results of other jobs.

A job with plain arguments is enqueued as its own function. One whose `with:` names results is
enqueued as `call_with_results`, which reads them first; so it also runs under a worker that knows
nothing of flowq.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rq import get_current_job
from rq.utils import import_attribute

from flowq.errors import UsageError
from flowq.expressions import evaluate
from flowq.runtime.outcomes import get_results


def call_with_results(
    function: str,
    kwargs: Mapping[str, Any],
    result_of: Mapping[str, str],
    inputs: Mapping[str, Any],
) -> Any:
    """Fill in what `kwargs` says about results and inputs, and call the function.

    Shape: `function` is `package.module.name`; `result_of` maps names to job ids. A coroutine is
    returned as it is, and RQ runs it. Errors: WorkflowInvalid for an expression that fails on the
    actual values; whatever the function raises.
    """
    job = get_current_job()
    if job is None:
        raise UsageError("call_with_results() runs inside a job only")
    result_by_id = get_results(result_of.values(), job.connection)
    results = {name: result_by_id.get(job_id) for name, job_id in result_of.items()}
    arguments = {
        name: evaluate(value, inputs=inputs, results=results) for name, value in kwargs.items()
    }
    return import_attribute(function)(**arguments)
