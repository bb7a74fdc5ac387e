"""A workflow as YAML text: reading it gives the same workflow. Comments were never part of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowq.declare.nested import is_file
from flowq.declare.nodes import resolve
from flowq.declare.retries import say_policy
from flowq.durations import write_duration
from flowq.spec import (
    ALL_TOLERATED,
    NONE_TOLERATED,
    Approval,
    Block,
    Concurrency,
    Defaults,
    ForEach,
    Input,
    JobSpec,
    Matrix,
    Retry,
    Schedule,
    Tolerance,
    Workflow,
)


def export_yaml(workflow: Workflow) -> str:
    """Return a workflow as YAML text.

    Nested workflows from files are named, not copied: the text belongs beside these files.
    """
    return emit({"name": workflow.name, **say_workflow(workflow)})


def say_workflow(workflow: Workflow) -> dict[str, Any]:
    """Return a workflow in the words of the language, but for its name; only what was said."""
    inline = {n: w for n, w in workflow.workflows.items() if not is_file(n)}
    return _only_said(
        description=workflow.description,
        inputs=Section({each.name: _input(each) for each in workflow.inputs}),
        defaults=_defaults(workflow.defaults),
        env=dict(workflow.env),
        max_parallel=workflow.max_parallel,
        timeout=_duration(workflow.timeout_s),
        concurrency=_concurrency(workflow.concurrency),
        schedule=_schedule(workflow.schedule),
        outputs=dict(workflow.outputs),
        workflows=Section({n: Section(say_workflow(w)) for n, w in inline.items()}),
        jobs=_jobs(workflow, is_final=False),
        finally_=_jobs(workflow, is_final=True),
    )


def _jobs(workflow: Workflow, *, is_final: bool) -> Section:
    jobs = (job for job in workflow.jobs if job.is_final == is_final)
    return Section({job.name: Section(say_job(job)) for job in jobs})


def _only_said(**value_by_key: Any) -> dict[str, Any]:
    """Return what was said; None, an empty text and an empty map are the defaults."""
    said = value_by_key.items()
    return {key.rstrip("_"): value for key, value in said if not _is_default(value)}


def _is_default(value: Any) -> bool:
    return value is None or (isinstance(value, str | Mapping | tuple) and not value)


def say_job(job: JobSpec) -> dict[str, Any]:
    """Return a job in the words of the language; only what was said."""
    each, matrix = job.for_each, job.matrix
    return {
        **_only_said(
            description=job.description,
            deferred=job.deferred or None,
            needs=_one_or_many(job.needs),
            if_=job.if_,
            approval=_approval(job.approval),
        ),
        **(_for_each(each) if each is not None else {}),
        **(_matrix(matrix) if matrix is not None else {}),
        **_only_said(call=job.call, workflow=job.workflow),
        **({"run": _command(job.run.command)} if job.run is not None else {}),
        **_only_said(
            shell=job.run.shell if job.run else None,
            result=job.run.result if job.run else None,
            with_=dict(job.with_),
            env=dict(job.env),
            cwd=job.cwd,
            secret_results=job.secret_results,
            blocks=_blocks(job.blocks),
            max_parallel=job.max_parallel,
            fail_fast=job.fail_fast,
            continue_on_error=_tolerance(job.continue_on_error),
            on_blocker_failure=job.on_blocker_failure,
            if_empty=job.if_empty,
            on_crash=job.on_crash,
            expires=_duration(job.expires_s),
            retries=_retries(job.retries),
            timeout=_duration(job.timeout_s),
            queue=job.queue,
            at_front=job.at_front,
        ),
    }


def _for_each(each: ForEach) -> dict[str, Any]:
    further = _only_said(
        key=each.key, more=each.more, max_items=each.max_items, stop_when=each.stop_when
    )
    return {"for_each": each.items, **further}


def _matrix(matrix: Matrix) -> dict[str, Any]:
    axes = {"matrix": dict(matrix.axes)} if matrix.axes or not matrix.include else {}
    combinations = {"include": matrix.include, "exclude": matrix.exclude}
    listed = {key: [dict(each) for each in value] for key, value in combinations.items() if value}
    return {**axes, **listed, **_only_said(stop_when=matrix.stop_when)}


def _one_or_many(names: Sequence[str]) -> Any:
    return names[0] if len(names) == 1 else list(names) or None


def _command(command: str | tuple[str, ...]) -> Any:
    return command if isinstance(command, str) else list(command)


def _blocks(blocks: Sequence[Block]) -> Any:
    if any(block.on_failure for block in blocks):
        return {b.name: {"on_failure": b.on_failure} if b.on_failure else None for b in blocks}
    return _one_or_many([block.name for block in blocks])


def _retries(retries: Retry | None) -> Any:
    if retries is None or retries == Retry(retries.max):
        return None if retries is None else retries.max
    backoff = write_duration(retries.backoff_s) if retries.backoff_s else None
    said = say_policy(retries)
    for name in ("max_backoff", "within"):
        if name in said:
            said[name] = write_duration(said[name])
    for name in ("on", "never_on"):
        if name in said:
            said[name] = [int(each) if each.isdigit() else each for each in said[name]]
    return {"max": retries.max, **_only_said(backoff=backoff), **said}


def _duration(seconds: float | None) -> Any:
    return None if seconds is None else write_duration(seconds)


def _tolerance(tolerance: Tolerance | None) -> Any:
    if tolerance is None:
        return None
    if tolerance == ALL_TOLERATED:
        return True
    if tolerance == NONE_TOLERATED:
        return False
    return tolerance.count if tolerance.percent is None else f"{tolerance.percent}%"


def _approval(approval: Approval | None) -> Any:
    if approval is None:
        return None
    inputs = {each.name: _input(each) for each in approval.inputs}
    expires = _duration(approval.expires_s)
    return _only_said(message=approval.message, inputs=inputs, expires=expires) or True


def _defaults(defaults: Defaults) -> dict[str, Any]:
    return _only_said(
        queue=None if defaults.queue == "default" else defaults.queue,
        at_front=defaults.at_front,
        timeout=_duration(defaults.timeout_s),
        retries=_retries(defaults.retries),
        expires=_duration(defaults.expires_s),
        on_crash=defaults.on_crash,
        on_blocker_failure=defaults.on_blocker_failure,
        continue_on_error=_tolerance(defaults.continue_on_error),
        cwd=defaults.cwd,
        secret_results=defaults.secret_results,
        shell=defaults.shell,
        result=defaults.result,
        max_parallel=defaults.max_parallel,
        fail_fast=defaults.fail_fast,
        max_items=defaults.max_items,
    )


def _concurrency(concurrency: Concurrency | None) -> Any:
    if concurrency is None:
        return None
    said = _only_said(cancel_in_progress=concurrency.cancel_in_progress or None)
    return {"group": concurrency.group, **said}


def _schedule(schedule: Schedule | None) -> Any:
    if schedule is None:
        return None
    zone = {} if schedule.timezone == "UTC" else {"timezone": schedule.timezone}
    return {"cron": schedule.cron, **zone}


def _input(declared: Input) -> dict[str, Any]:
    said: dict[str, Any] = {"type": declared.type}
    if declared.choices:
        said["choices"] = list(declared.choices)
    if declared.pattern is not None:
        said["pattern"] = declared.pattern
    if not declared.required:
        said["default"] = declared.default
    return {**said, **_only_said(description=declared.description)}


# Plain data as YAML text that reads back as exactly that data: block style, short maps in flow.


WIDTH = 88
"""Columns that a map or list in flow style may take."""

_PLAIN = re.compile(r"[^\W\d]|[\w$./(~+][^\x00-\x1f\x7f-\xa0\u2028\u2029\ufeff]*[^\s:]")
_PLAIN_IN_FLOW = re.compile(r"[\w./~+-]([\w./ ~+*()=<>%@-]*[\w./~+)-])?")
_DANGEROUS = re.compile(r": |:\t| #|\t")
_UNPRINTABLE = re.compile("[\x7f-\x9f\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_NO_LITERAL = re.compile(
    "[^\n\x20-\x7e\xa1-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_FLOW_DEPTH = 2


def emit(document: Mapping[str, Any]) -> str:
    """Return a map as YAML text; one blank line stands between the parts of its larger entries."""
    lines: list[str] = []
    for key, value in document.items():
        part = list(_entry(key, value, 0))
        if lines and (len(part) > 1 or lines[-1].startswith(" ")):
            lines.append("")
        lines += part
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, indent: int) -> Iterator[str]:
    head = f"{' ' * indent}{_scalar(key, in_flow=True)}:"
    inline = _inline(value, WIDTH - len(head) - 1)
    if inline is not None:
        yield f"{head} {inline}"
    elif isinstance(value, str):
        yield f"{head} {_chomping(value)}"
        yield from _literal(value, indent + 2)
    else:
        yield head
        yield from _block(value, indent + 2)


def _block(value: Any, indent: int) -> Iterator[str]:
    if isinstance(value, Mapping):
        for position, (key, item) in enumerate(value.items()):
            part = list(_entry(key, item, indent))
            if position and isinstance(item, Section):
                yield ""
            yield from part
    else:
        for item in value:
            yield from _item(item, indent)


def _item(value: Any, indent: int) -> Iterator[str]:
    dash = f"{' ' * indent}- "
    inline = _inline(value, WIDTH - len(dash))
    if inline is not None:
        yield dash + inline
    elif isinstance(value, str):
        yield dash + _chomping(value)
        yield from _literal(value, indent + 2)
    else:
        first, *rest = _block(value, indent + 2)
        yield dash + first.lstrip(" ")
        yield from rest


class Section(dict[str, Any]):
    """A map that always stands in block style, with a blank line in front of it."""


def _inline(value: Any, width: int) -> str | None:
    """Return a value on one line, or None for what needs several."""
    if isinstance(value, str):
        return None if _is_literal(value) else _scalar(value)
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value)
    if isinstance(value, Section) and value:
        return None
    text = _flow(value)
    is_short = len(text) <= width and _depth(value) <= _FLOW_DEPTH
    return text if is_short or not value else None


def _depth(value: Any) -> int:
    if isinstance(value, Mapping):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list | tuple):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{_scalar(key, in_flow=True)}: {_flow(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return _scalar(value, in_flow=True)


def _scalar(value: Any, *, in_flow: bool = False) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if value != value else (".inf" if value > 0 else "-.inf")
    if isinstance(value, int | float):
        return repr(value)
    return value if _is_plain(value, in_flow) else _quoted(value)


def _is_plain(text: str, in_flow: bool) -> bool:
    pattern = _PLAIN_IN_FLOW if in_flow else _PLAIN
    if pattern.fullmatch(text) is None or _DANGEROUS.search(text):
        return False
    return isinstance(resolve(text), str) and not text.startswith(("-", "..."))


def _quoted(text: str) -> str:
    return _UNPRINTABLE.sub(_escape, json.dumps(text, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _is_literal(text: str) -> bool:
    """Whether a text reads best as lines of its own, and can stand there as it is."""
    is_long = "\n" in text.rstrip("\n") and not text.endswith("\n\n")
    return is_long and text[0] not in " \n" and _NO_LITERAL.search(text) is None


def _chomping(text: str) -> str:
    return "|" if text.endswith("\n") else "|-"


def _literal(text: str, indent: int) -> Iterator[str]:
    lines = text.removesuffix("\n").split("\n")
    return (" " * indent + line if line else "" for line in lines)
