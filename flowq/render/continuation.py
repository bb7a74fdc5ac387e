"""What a run keeps of the one that it continues, and why its other jobs run, as text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flowq.keeping import Choice
from flowq.render.lines import count, shortened, spelled_line

NAMED = 20
"""The most names in one line, and the most reasons."""

MAX_VALUE = 40
"""The most characters of the value of an input."""


def describe_choice(run_id: str, choice: Choice, sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield lines; `sizes` has the number of items of groups."""
    kept = (
        f"{name} ({count(sizes[name], 'item')})" if name in sizes else name for name in choice.kept
    )
    yield f"keeps of run {run_id}: {_list(kept) or 'nothing'}"
    own = [name for name, reason in choice.reasons.items() if not reason.is_after]
    for name in own[:NAMED]:
        reason = choice.reasons[name]
        where = f" ({spelled_line(str(reason.where))})" if reason.where else ""
        yield f"runs {spelled_line(name)}: {reason.text}{where}"
    if len(own) > NAMED:
        yield f"runs {len(own) - NAMED:,} others"
    if after := _list(name for name, reason in choice.reasons.items() if reason.is_after):
        yield f"runs after these: {after}"
    if choice.gone:
        yield f"no longer declared: {_list(choice.gone)}"


def describe_inputs(others: Iterable[tuple[str, Any, Any]]) -> Iterator[str]:
    """Yield lines about inputs that are as before though their default is another one."""
    for name, value, default in others:
        known, now = (_write(each) for each in (value, default))
        change = f"; -i {shlex.quote(f'{name}={now}')}" if len(now) <= MAX_VALUE else ""
        texts = (shortened(spelled_line(text), MAX_VALUE) for text in (known, now))
        yield "input as before: {} = {} (its default is {} now{})".format(
            name, *texts, spelled_line(change)
        )


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _list(names: Iterable[str]) -> str:
    known = [spelled_line(name) for name in names]
    more = f" and {len(known) - NAMED:,} more" if len(known) > NAMED else ""
    return ", ".join(known[:NAMED]) + more
