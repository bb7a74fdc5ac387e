"""Bind the template of a group to one item; describe jobs in words.

The planner makes the template of a group, and `flowq.runtime.groups` binds it to each item. This
module must remain light to import: the children that add items load no graph and no checks.
"""

from __future__ import annotations

import re
import reprlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from flowq.durations import parse_pause, write_duration
from flowq.expressions import evaluate, fill, find_live_texts, find_references, is_live
from flowq.expressions.refusals import Refused
from flowq.expressions.templates import has_expression, split
from flowq.plan import Call, Does, Enqueue, Nested, Sleep, Slot, Start
from flowq.spec import Block, JobSpec, Shell
from flowq.texts import show


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a group, or a combination of a matrix.

    Shape: `label` is its name in displays: its key or its index.
    """

    index: int
    value: Any
    label: str
    is_combination: bool = False

    @property
    def scope(self) -> dict[str, Any]:
        """The names that expressions of the item's jobs can see."""
        return {"matrix" if self.is_combination else "item": self.value, "index": self.index}


def bind_item(template: Enqueue, item: Item, group_id: str) -> Enqueue:
    """Return a job of an item: its ids and name, with the expressions that the item decides."""
    item_id = f"{group_id}--{item.index}"
    scope = item.scope

    def known(value: Any) -> Any:
        return None if value is None else fill(value, inputs=template.inputs, scope=scope)

    bound = replace(
        template,
        job_id=item_id + template.job_id.removeprefix(group_id),
        name=_renamed(template.name, template, item),
        blocks=tuple(
            Block(item_id, block.on_failure) if block.name == group_id else block
            for block in template.blocks
        ),
        env=known(template.env),
        cwd=known(template.cwd),
        if_=known(template.if_),
        approval=template.approval
        and replace(template.approval, message=known(template.approval.message)),
        poll=template.poll and replace(template.poll, until=known(template.poll.until)),
        description=template.description,
    )
    does = template.does
    if isinstance(does, Sleep):
        does = Sleep(known(does.time))
    if isinstance(does, Call | Start) and does.is_live:
        kwargs = known(does.kwargs)
        if isinstance(does, Call) and bound.description == describe_call(
            does.function, does.kwargs
        ):
            bound = replace(bound, description=describe_call(does.function, kwargs))
        is_live = bool(find_references(kwargs).roots)
        does = replace(does, kwargs=kwargs if is_live else evaluate(kwargs), is_live=is_live)
    if isinstance(does, Start):
        does = replace(does, nested=_moved_nested(does.nested, template, item, item_id))
    bound = replace(bound, does=does)
    if _needs_scope(bound):
        bound = replace(bound, scope={**template.scope, **scope})
    if bound.inputs_from:
        bound = replace(bound, inputs_from=_moved(bound.inputs_from, group_id, item_id))
        result_of = {k: _moved(v, group_id, item_id) for k, v in bound.result_of.items()}
        bound = replace(bound, result_of=result_of)
    if bound.inside == group_id:
        bound = replace(bound, inside=item_id)
    if bound.slots:
        bound = replace(bound, slots=_moved_slots(bound.slots, group_id, item_id))
    return bound


def can_fail(template: Enqueue, *, has_index: bool) -> bool:
    """Whether some items could have no job: an expression or a setting that they decide may fail.

    Without `has_index`, the template counts only if none of its expressions refers to `index`.
    """
    does = template.does
    parts = [
        *(template.settings, template.env, template.cwd, template.if_),
        template.approval and template.approval.message,
        template.poll and template.poll.until,
        does.kwargs if isinstance(does, Call | Start) else None,
        does.time if isinstance(does, Sleep) else None,
    ]
    roots = find_references(parts).roots
    if "index" in roots and not has_index:
        return False
    if template.settings:
        return True
    texts = (text for text in find_live_texts(parts) if not _WHOLE_ITEM.fullmatch(text))
    return any(find_references(text).roots & {"item", "index", "matrix"} for text in texts)


_WHOLE_ITEM = re.compile(r"\$\{\{\s*(item|index)\s*\}\}")


def _moved(job_id: str, group_id: str, item_id: str) -> str:
    return item_id + job_id.removeprefix(group_id)


def _moved_nested(nested: Nested, template: Enqueue, item: Item, item_id: str) -> Nested:
    return replace(
        nested,
        join_id=item_id,
        prefix=_renamed(nested.prefix, template, item),
        slots=_moved_slots(nested.slots, nested.join_id, item_id),
    )


def _moved_slots(slots: tuple[Slot, ...], group_id: str, item_id: str) -> tuple[Slot, ...]:
    """Return slots of a template's job, with the item's join as holder, not the group's."""
    return tuple(
        replace(slot, holder=item_id) if slot.holder == group_id else slot for slot in slots
    )


def _renamed(name: str, template: Enqueue, item: Item) -> str:
    """Return `thumb[3](start)` for `thumb(start)`: the label follows the group's name."""
    group_name = template.group_name
    return f"{group_name}[{show(item.label)}]{name.removeprefix(group_name)}"


def _needs_scope(bound: Enqueue) -> bool:
    """Whether a job still needs its item when it runs."""
    message = bound.approval.message if bound.approval else ""
    judges = bool(bound.ended_of) and bound.if_ is not None
    does = bound.does
    runs_live = does.is_live if isinstance(does, Call | Start) else isinstance(does, Shell | Sleep)
    is_asked = judges or runs_live or bool(bound.stop_when or bound.poll)
    return is_asked or is_live(bound.if_) or is_live(message)


# Words -------------------------------------------------------------------------------------------


def describe_call(call: str, kwargs: Mapping[str, Any]) -> str:
    """Return a call for display: short, with `…` for values that are not known yet."""
    return f"{call}({', '.join(f'{key}={_shortened(value)}' for key, value in kwargs.items())})"


def describe_command(command: str | Sequence[str]) -> str:
    """Return a command as it would be written in a shell; expressions remain."""
    return command if isinstance(command, str) else " ".join(map(_as_word, command))


def _as_word(template: str) -> str:
    try:
        parts = split(template)
    except Refused:
        parts = (template,)
    text = "".join(map(str, parts))
    if all(isinstance(part, str) for part in parts):
        return shlex.quote(text)
    literals = "".join(part for part in parts if isinstance(part, str))
    is_plain = not literals or shlex.quote(literals) == literals
    return text if is_plain else shlex.quote(text)


def _shortened(template: Any) -> str:
    text = repr(template)
    if len(text) <= MAX_VALUE and not has_expression(text):
        return text
    if is_live(template):
        return "…"
    value = evaluate(template)
    text = repr(value)
    return text if len(text) <= MAX_VALUE else _brief.repr(value)


MAX_VALUE = 40
"""The length of the longest value that is shown completely."""

_brief = reprlib.Repr()  # its settings are arguments from Python 3.12 on only
_brief.maxstring = _brief.maxother = MAX_VALUE
_brief.maxlist = _brief.maxdict = 4
_brief.maxlevel = 2


MAX_COMMAND = 60


def _show_pause(written: str) -> str:
    pause = parse_pause(written)
    return written if isinstance(pause, datetime) else str(write_duration(pause))


def describe(job: JobSpec, filled: Mapping[str, Any], does: Does) -> str:
    """Return what a job does, in one line; how long it sleeps, if `does` has the time already."""
    if job.run is not None:
        first, _, rest = describe_command(job.run.command).strip().partition("\n")
        return first if len(first) <= MAX_COMMAND and not rest else f"{first[:MAX_COMMAND]}…"
    if isinstance(does, Sleep):
        is_filled = does.time and has_expression(job.sleep or "")
        is_known = is_filled and not is_live(does.time)
        return f"sleep {_show_pause(does.time) if is_known else job.sleep}"
    return describe_call(job.call or job.workflow, filled)
