"""Expressions, `${{ … }}` in a declaration: their references, and their values.

A value is evaluated in two steps, and data must never be read as an expression:

1. `fill(value, inputs=…, scope=…)`, when a run is planned, and again when an item is known. A text
   whose expressions need nothing else is replaced by its value, *escaped*; any other text stays
   whole. So the result is a template again, and every live expression in it was written by the
   workflow's author.
2. `evaluate(value, inputs=…, jobs=…, scope=…)`, once, where the job runs. It returns plain values,
   which are not searched again. `decide` does the same for a condition.

So the result of `fill` must go through `evaluate`, even if it has no references. `as_template`
turns an expression that is declared without braces (`if`, `more`) into a template.

- `templates` splits texts, `grammar` parses an expression, `references` has what it refers to.
- `engine` evaluates, with `functions`, `operators` and `limits`; `plain` reads values of results.
- `places` is the table of keys with expressions, and of the names that have a value there.
- `refusals` are the errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions.limits import UNITS_OF_A_JOB, Budget, current_budget, one_budget
from flowq.expressions.references import (
    Reference,
    Scope,
    Values,
    find_whole_reference,
    guess_references,
)
from flowq.expressions.refusals import NoResult, Refused, refuse_no_result
from flowq.expressions.templates import (
    Expression,
    as_source,
    as_template,
    escape,
    find_expressions,
    has_expression,
    has_live_expression,
    split,
    tidy,
    to_text,
)
from flowq.texts import from_bytes

__all__ = [
    "UNITS_OF_A_JOB",
    "Budget",
    "NoResult",
    "Reference",
    "References",
    "as_items",
    "as_source",
    "as_template",
    "current_budget",
    "decide",
    "escape",
    "evaluate",
    "fill",
    "find_live_texts",
    "find_references",
    "is_live",
    "needs_success",
    "one_budget",
    "tidy",
    "write",
    "write_argument",
]


@dataclass(frozen=True, slots=True)
class References:
    """What the expressions in a value refer to.

    Shape: `jobs` are (name, attribute), in the order of the text, without repeats; `parts` adds the
    first key that is looked up in the value. `roots` are the first names: `inputs`, `jobs`, `item`,
    `index`, `matrix`, `result`, `env`, `secrets`, `run`, `ended` for `run.status` and
    `run.failures`, and `status` for any function of `statuses`, which are `success`, `failure`,
    `always`, `canceled`. `constants` are the expressions without references. `problems` are those
    of the expressions themselves; they have no position. Whether the names exist is not checked.
    """

    inputs: frozenset[str] = frozenset()
    jobs: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()
    roots: frozenset[str] = frozenset()
    matrix: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    statuses: frozenset[str] = frozenset()
    parts: tuple[tuple[str, str, str], ...] = ()
    constants: tuple[str, ...] = ()
    approval: frozenset[str] = frozenset()
    ended: frozenset[str] = frozenset()


_NONE = References()
_CACHED_LENGTH = 4_000
_CACHED_TEXTS = 16_384
_SCALARS = frozenset({int, float, bool, type(None)})


def find_references(value: Any) -> References:
    """Return the references of all expressions in a value, however deep. Never raises."""
    if isinstance(value, str) and not has_expression(value):
        return _NONE
    texts = list(find_live_texts(value))
    # A long text is data with an escape in it, and not worth its place in the cache.
    if len(texts) == 1 and len(texts[0]) <= _CACHED_LENGTH:
        return _references_in(texts[0])
    return _sort_out([one for text in texts for one in _find_in(text)]) if texts else _NONE


@lru_cache(maxsize=_CACHED_TEXTS)  # the checks, the plan and each item of a group ask again
def _references_in(text: str) -> References:
    return _sort_out(_find_in(text))


def is_live(value: Any) -> bool:
    """Whether a value contains an expression, however deep; escapes do not count."""
    return any(has_live_expression(text) for text in find_live_texts(value))


_Found = Reference | Problem | Expression  # an expression, if it has no references


def _sort_out(found: Sequence[_Found]) -> References:
    names: dict[str, set[str]] = {}
    jobs: dict[tuple[str, str], None] = {}
    parts: dict[tuple[str, str, str], None] = {}
    problems: list[Problem] = []
    constants: dict[str, None] = {}
    for one in found:
        if isinstance(one, Problem):
            problems.append(one)
        elif isinstance(one, Expression):
            constants[str(one)] = None
        elif one.root == "jobs":
            jobs[one.name, one.attribute] = None
            if one.part:
                parts[one.name, one.attribute, one.part] = None
        else:
            names.setdefault(one.root, set()).add(one.name)
    named = {_FIELD_BY_ROOT[r]: frozenset(names[r] - {""}) for r in names if r in _FIELD_BY_ROOT}
    roots = frozenset([*names, "jobs"] if jobs else names)
    return References(
        jobs=tuple(jobs),
        problems=tuple(problems),
        roots=roots,
        parts=tuple(parts),
        constants=tuple(constants),
        **named,
    )


_FIELD_BY_ROOT = {
    "inputs": "inputs",
    "matrix": "matrix",
    "env": "env",
    "secrets": "secrets",
    "approval": "approval",
    "ended": "ended",
    "status": "statuses",
}


def fill(
    value: Any,
    *,
    inputs: Mapping[str, Any],
    scope: Scope | None = None,
) -> Any:
    """Return the value with every text filled in that needs nothing else; again a template.

    Shape: a text that is one expression becomes its value, of any type; lists and mappings are
    copied. Idempotent. Errors: WorkflowInvalid.
    """
    values = Values(inputs, scope=scope or {})

    def filled(text: str) -> Any:
        parts = _parts_of(text)
        return escape(_put_together(parts, values)) if _are_known(parts, values) else text

    return _map_texts(value, filled)


def evaluate(
    value: Any,
    *,
    inputs: Mapping[str, Any] | None = None,
    results: Mapping[str, Any] | None = None,
    jobs: Mapping[str, Mapping[str, Any]] | None = None,
    scope: Scope | None = None,
    statuses: Mapping[str, bool] | None = None,
    made: Callable[[str, Any], None] | None = None,
) -> Any:
    """Return the value of a template: every expression evaluated, every escape undone.

    Shape: `results` by job name, and `jobs` by name and attribute (`results`, `outcomes`, `by_key`,
    `status`), with a `NoResult` for each item whose result must not be read; `statuses` has the
    values of `success()`, `failure()` and `canceled()`. Only what the template refers to is needed.
    `made` is called with each expression, without braces, and its value.
    Errors: WorkflowInvalid, whose problem quotes the expression.
    """
    values = Values(inputs or {}, results or {}, jobs or {}, scope or {}, statuses or {}, made=made)
    items = (
        item
        for found in (jobs or {}).values()
        for item in (*found.get("results", ()), *found.get("by_key", {}).values())
    )
    may_lack_results = any(type(item) is NoResult for item in items)

    def evaluated(text: str) -> Any:
        parts = _parts_of(text)
        made = _put_together(parts, values)
        if may_lack_results and len(parts) == 1:
            try:
                refuse_no_result(made)
            except Refused as refused:
                raise refused.inside(str(parts[0])) from None
        return made

    return _map_texts(value, evaluated)


def decide(template: Any, **known: Any) -> bool:
    """Return whether a condition is true; `known` has the arguments of `evaluate`.

    Errors: those of `evaluate`, and WorkflowInvalid for a value that is neither true nor false.
    """
    value = evaluate(template, **known)
    if type(value) is bool:
        return value
    from flowq.expressions.plain import is_true  # noqa: PLC0415 - as below

    try:
        return is_true(value)
    except Refused as refused:
        raise WorkflowInvalid([refused.as_problem(str(template))]) from None


def needs_success(condition: str) -> bool:
    """Return whether a condition, as a template, is only true if nothing failed before.

    A condition without a status function means `success() and (…)`.
    """
    if not find_references(condition).statuses:
        return True
    parts = _parts_of(condition)
    from flowq.expressions.grammar import find_conjuncts  # noqa: PLC0415 - as below

    wholes = [part.source for part in parts if isinstance(part, Expression)]
    return len(parts) == 1 and "success" in find_conjuncts(wholes[0])


def write(value: Any, source: str) -> str:
    """Return the value of an expression as text; messages quote `source`.

    Errors: WorkflowInvalid for a value without a text form.
    """
    try:
        return to_text(value, current_budget())
    except Refused as refused:
        raise WorkflowInvalid([refused.as_problem(source)]) from None


def write_argument(value: Any, source: str) -> str:
    """Return the value of an expression as one argument of a program; bytes stay as they are.

    Messages quote `source`. Errors: WorkflowInvalid for none, and for several values.
    """
    if type(value) is str:
        return value
    from flowq.expressions.plain import refuse_several  # noqa: PLC0415 - as below

    try:
        refuse_several(value)
    except Refused as refused:
        raise WorkflowInvalid([refused.as_problem(source)]) from None
    if issubclass(type(value), bytes):
        return from_bytes(bytes.__getitem__(value, slice(None)))
    return write(value, source)


def as_items(values: Iterable[Any], source: str) -> list[Any]:
    """Return the items of a group as a list; a set has the same order in every process.

    numpy's scalars become Python values. Errors: WorkflowInvalid for a set without an order.
    """
    from flowq.expressions.plain import SETS, enter, in_order  # noqa: PLC0415 - as below

    if not issubclass(type(values), SETS):
        return list(map(enter, values))
    try:
        return in_order(values)
    except Refused as refused:
        raise WorkflowInvalid([refused.as_problem(source)]) from None


def find_live_texts(value: Any) -> Iterator[str]:
    """Yield the texts in a value that have an expression, or an escaped one, however deep."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            if has_expression(part):
                yield part
        elif isinstance(part, Mapping):
            waiting += reversed(list(part.values()))
        elif isinstance(part, list | tuple):
            waiting += reversed(part)


def _find_in(text: str) -> list[_Found]:
    found: list[_Found] = []
    try:
        parts = _parts_of(text)
    except Refused:
        parts = ()
        for _, written in find_expressions(text):
            try:
                parts += split(written)
            except Refused as refused:  # the other expressions can be read
                found.append(refused.as_problem(written))
                found += guess_references(re.split(r"[}\n]", written[3:], maxsplit=1)[0])
    for part in parts:
        if isinstance(part, Expression):
            references, refusals, doubts = _look_into(part.source)
            found += references or (() if refusals else (part,))
            found += (refused.as_problem(str(part)) for refused in (*refusals, *doubts))
    return found


def _look_into(
    source: str,
) -> tuple[tuple[Reference, ...], tuple[Refused, ...], tuple[Refused, ...]]:
    """Return the references of an expression, its refusals, and its doubtful parts."""
    whole = find_whole_reference(source)
    if whole is not None:
        refused = whole.find_refusal()
        return (whole,), (refused,) if refused else (), ()
    # Not at the top: Jinja's import takes a child longer than its own start.
    from flowq.expressions.grammar import parse  # noqa: PLC0415

    try:
        parsed = parse(source)
    except Refused as refused:
        return guess_references(source), (refused,), ()
    return parsed.references, parsed.refusals, parsed.doubts


def _parts_of(text: str) -> tuple[str | Expression, ...]:
    return _split(text) if len(text) <= _CACHED_LENGTH else split(text)


_split = lru_cache(maxsize=_CACHED_TEXTS)(split)


def _are_known(parts: Sequence[str | Expression], values: Values) -> bool:
    for part in parts:
        if isinstance(part, Expression):
            references, refusals, _ = _look_into(part.source)
            if refusals:
                raise refusals[0].inside(str(part))
            if not all(map(values.knows, references)):
                return False
    return True


def _put_together(parts: tuple[str | Expression, ...], values: Values) -> Any:
    if len(parts) == 1:
        return _value_of(parts[0], values)
    texts = [to_text(_value_of(part, values), values.budget) for part in parts]
    values.budget.pay(len(texts), sum(map(len, texts)))
    return "".join(texts)


def _value_of(part: str | Expression, values: Values) -> Any:
    if isinstance(part, str):
        return part
    try:
        whole = find_whole_reference(part.source)
        if whole is not None and whole.find_refusal() is None:
            value = values.get(whole)
        else:
            _, refusals, _ = _look_into(part.source)
            if refusals:
                raise refusals[0]
            from flowq.expressions.engine import evaluate_tree  # noqa: PLC0415 - as above
            from flowq.expressions.grammar import parse  # noqa: PLC0415

            value = evaluate_tree(parse(part.source).tree, values)
    except Refused as refused:
        raise refused.inside(str(part)) from None
    if values.made is not None:
        values.made(part.source, value)
    return value


def _map_texts(value: Any, change: Callable[[str], Any]) -> Any:
    if isinstance(value, str):
        if not has_expression(value):
            return value
        try:
            return change(value)
        except Refused as refused:
            raise WorkflowInvalid([refused.as_problem(value)]) from None
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    if type(value) not in _SCALARS and isinstance(value, Mapping):  # a slow question
        return {key: _map_texts(item, change) for key, item in value.items()}
    return value
