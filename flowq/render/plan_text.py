"""A plan as text: its numbered operations, written as the equivalent API calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flowq.declare.retries import say_policy
from flowq.durations import write_seconds
from flowq.expressions import as_source
from flowq.plan import Commit, Enqueue, Expansion, Group, Join, Operation, Plan, Start
from flowq.render.lines import spelled_line
from flowq.spec import Approval, Poll, Retry


def render_plan(plan: Plan) -> str:
    """Return one line for each operation; jobs are named as declared. It ends with a newline."""
    name_by_id = {enqueue.job_id: enqueue.name for enqueue in plan.enqueues}
    rows = [_cells(operation, name_by_id) for operation in plan]
    number, widths = len(str(len(rows))), _widths(rows)
    out = [f"{plan.workflow}: {_summary(plan)}"]
    if plan.timeout_s is not None:
        out.append(f"  timeout={write_seconds(plan.timeout_s)}s")
    out += [f"  label {name}={spelled_line(value)}" for name, value in plan.labels.items()]
    out += [f"  {name} = {value!r}" for name, value in plan.inputs.items()]
    for index, row in enumerate(rows, 1):
        cells = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.append(f"{index:>{number}}  {cells}".rstrip())
    return "\n".join(out) + "\n"


def _summary(plan: Plan) -> str:
    edges = sum(len(enqueue.blocks) for enqueue in plan.enqueues)
    futures = sum(enqueue.deferred for enqueue in plan.enqueues)
    # `check` counts those that are declared: each combination and start is another planned job.
    counts = ((len(plan.enqueues), "planned job"), (futures, "future job"), (edges, "edge"))
    return ", ".join(f"{count} {thing}{'' if count == 1 else 's'}" for count, thing in counts)


def _cells(operation: Operation, name_by_id: Mapping[str, str]) -> tuple[str, str, str, str]:
    if isinstance(operation, Commit):
        return "commit", operation.run_id, "", ""
    if isinstance(operation, Enqueue):
        edges, options = _edges(operation, name_by_id), _options(operation)
        described = spelled_line(operation.description)
        return "enqueue", spelled_line(operation.name), edges, "  ".join([described, *options])
    if isinstance(operation, Group):
        return "group", operation.name, "", "  ".join(_limits(operation))
    return "release", name_by_id[operation.job_id], "", ""


def _widths(rows: list[tuple[str, str, str, str]]) -> list[int]:
    """Return the width of each column; one long cell does not push all others out of sight."""
    longest = (max(len(row[column]) for row in rows) for column in range(4))
    return [min(width, 40) for width in longest]


def _edges(enqueue: Enqueue, name_by_id: Mapping[str, str]) -> str:
    futures = [
        name_by_id[block.name] + (" (on_failure=ignore)" if block.on_failure == "ignore" else "")
        for block in enqueue.blocks
    ]
    said = ["deferred=True"] if enqueue.deferred else []
    said += [f"blocked_by={', '.join(futures)}"] if futures else []
    return "  ".join(said)


def _options(enqueue: Enqueue) -> Iterator[str]:
    """Yield what is not as a job has it that says nothing."""
    if enqueue.is_open:
        yield "open"
    if enqueue.ended_of:
        yield "finally"
    if enqueue.queue != "default":
        yield f"queue={enqueue.queue}"
    if enqueue.timeout_s is not None:
        yield f"timeout={write_seconds(enqueue.timeout_s)}s"
    templates = enqueue.does.templates if isinstance(enqueue.does, Expansion) else ()
    for each in (enqueue, *templates):
        yield from _limits_of_workflow(each)
        yield from _limits_across_runs(each)
    if enqueue.retries is not None:
        yield f"retries={_retries(enqueue.retries)}"
    if enqueue.is_tolerated and enqueue.group:
        yield "continue_on_error"
    for each in templates:
        yield from (
            f"{word}={spelled_line(text)}"
            for word, text in each.settings.items()
            if not word.startswith(("concurrency.", "rate."))
        )
    asks = [each.approval for each in templates]
    if approval := next(filter(None, [enqueue.approval, *asks]), None):
        yield _approval(approval)
    polls = [each.poll for each in templates]
    if poll := next(filter(None, [enqueue.poll, *polls]), None):
        yield _poll(poll)
    if enqueue.if_ is False and not enqueue.condition and enqueue.branch:
        yield from enqueue.branch.values()  # it is left out
    elif enqueue.if_ is not None:
        yield f"if={spelled_line(str(enqueue.if_))}"
    if enqueue.if_empty == "skip":
        yield f"if_empty={enqueue.if_empty}"
    if enqueue.start_when is not None:
        yield f"start_when={enqueue.start_when}"
        if enqueue.cancel_rest:
            yield "cancel_rest"
    elif enqueue.on_blocker_failure != "skip":
        yield f"on_blocker_failure={enqueue.on_blocker_failure}"


def _limits_across_runs(enqueue: Enqueue) -> Iterator[str]:
    """Yield `concurrency=deploy(limit=3, cancel_in_progress)`, and `rate=10/m(mail server)`."""
    settings = enqueue.settings
    if (one := enqueue.concurrency) is not None and not isinstance(enqueue.does, Join):
        limit = settings.get("concurrency.limit", one.limit)
        more = [f"limit={limit}"] if limit != 1 else []
        more += ["cancel_in_progress"] if one.cancel_in_progress else []
        said = f"({', '.join(more)})" if more else ""
        yield f"concurrency={spelled_line(settings.get('concurrency.group', one.group))}{said}"
    if (rate := enqueue.rate) is not None:
        group = spelled_line(settings.get("rate.group", rate.group))
        yield f"rate={settings.get('rate.limit', rate.limit)}({group})"


def _limits_of_workflow(enqueue: Enqueue) -> Iterator[str]:
    does = enqueue.does
    if isinstance(does, Start) and does.nested.timeout_s is not None:
        yield f"timeout of the workflow={write_seconds(does.nested.timeout_s)}s"
    if isinstance(does, Join) and does.retries is not None:
        yield f"retries of the workflow={_retries(does.retries)}"


def _approval(approval: Approval) -> str:
    """Return what an approval says and asks for: `approval("Ship?", host: enum, expires=60s)`."""
    said = [f'"{spelled_line(approval.message)}"'] if approval.message else []
    said += [f"{each.name}: {each.type}" for each in approval.inputs]
    said += (
        [f"expires={write_seconds(approval.expires_s)}s"] if approval.expires_s is not None else []
    )
    return f"approval({', '.join(said)})" if said else "approval"


def _poll(poll: Poll) -> str:
    """Return when a job is executed again: `poll(every 30s until result == 'done', within=60s)`."""
    within = "" if poll.within_s is None else f", within={write_seconds(poll.within_s)}s"
    until = spelled_line(as_source(poll.until))
    return f"poll(every {write_seconds(poll.every_s)}s until {until}{within})"


def _limits(group: Group) -> Iterator[str]:
    if not group.is_open:
        yield f"{len(group.keys)} items"
    if group.max_parallel is not None:
        yield f"max_parallel={group.max_parallel}"
    if group.fail_fast:
        yield "fail_fast"
    if (tolerance := group.tolerance) is not None:
        much = f"{tolerance.percent:g}%" if tolerance.count is None else str(tolerance.count)
        yield f"continue_on_error={much}"


def _retries(retries: Retry) -> str:
    backoff = f" every {write_seconds(retries.backoff_s)}s" if retries.backoff_s else ""
    further = [
        f"{name}={','.join(value) if isinstance(value, list) else write_seconds(value)}{unit}"
        for name, value in say_policy(retries).items()
        for unit in ["s" if name in ("max_backoff", "within") else ""]
    ]
    return " ".join([f"{retries.max}{backoff}", *further])
