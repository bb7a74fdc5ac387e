"""Workflows with any of the keys of the language, as values; they are right as far as shapes go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

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
    Rate,
    Retry,
    Schedule,
    Shell,
    Tolerance,
    Workflow,
)

NAMES = ["a", "b-c", "_d", "for", "print", "flow"]
INPUTS = (
    Input("size", "int", 3, False, "How large"),
    Input("folder", "path", None, True),
    Input("color", "enum", "3.10", False, "", ("red", "3.10")),
    Input("month", "str", "2026-10", False, "", (), r"[0-9]{4}-[0-9]{2}"),
    Input("data", "json", {"a": [1, None, "x"]}, False),
    Input("rate", "float", 1e-7, False),
    Input("maybe", "str", None, False),
)

pieces = st.sampled_from(
    ["a", "é", " ", "  ", "\n", "'", '"', "\\", ": ", " #", "-", "- ", "$", "{", "}", "$${{ x }}",
     "3.10", "on", "null", "~", "0o7", "1e3", ".inf", "!", "&", "*", "|", "%", "@", "`", "?", ",",
     "[", "=", "\t", "\u2028", "\x85", "😀", "<<", "...", "---", "\u00a0"]
)  # fmt: skip
expressions = st.sampled_from(
    ["inputs.size", "jobs.a.result", "jobs['b-c'].result", "jobs.b-c.results | len", "item",
     "matrix.os", "env.KEY", "secrets.KEY", "attempt", "run.id", "run.workflow",
     'inputs.folder ~ "x"',
     "jobs._d.outcomes",
     "{'a': 1}", "jobs.print.by_key['x y']", "inputs['size']"]
)  # fmt: skip
templates = st.lists(pieces | expressions.map("${{{{ {} }}}}".format), max_size=4).map("".join)


def _is_canonical(text: str) -> bool:
    """Whether no `$` of the text has got in front of an expression that came after it."""
    rest = text.replace("$${{ x }}", "")
    return "$${{" not in rest and "${{ x" not in rest


texts = templates.filter(_is_canonical)
words = texts.filter(lambda text: text.strip() != "" and "\x85" not in text)
descriptions = st.lists(pieces, max_size=3).map(lambda parts: f"A{''.join(parts)}".replace("$", ""))
fixed = st.sampled_from(["x", "high", "3.10", "a b", "on"])
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | texts
KEYS = st.sampled_from(["x", "y z"])
data = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=5,
)  # fmt: skip
arguments = st.dictionaries(
    st.sampled_from(["x", "y-z", "class", "3", "<<", "_u"]), data, max_size=3
)
environments = st.dictionaries(st.sampled_from(["KEY", "_x", "on"]), texts, max_size=2)
labels = st.sampled_from(["", "data", "3.10", "on", "a: b", "${{ inputs.size }}-${{ run.id }}"])
schedules = st.sampled_from([Schedule("30 2 * * *"), Schedule("0 3 * * 1", "Asia/Tokyo")]) | (
    st.builds(
        Schedule,
        st.just("30 2 * * *"),
        st.just("Europe/Berlin"),
        st.just({"folder": "${{ run.due_at[:10] }}", "size": 3}),
        st.sampled_from(["none", "last", "all"]),
    )
)
durations = st.sampled_from([0.5, 0.001, 30, 90, 600, 3600, 86_400, 1.25, 0.00005])
sources = st.sampled_from(["item.id", "result.links", "result < 0.1", 'item["a: b"]', "not index"])
counts = st.integers(1, 9)
SOME = Tolerance(percent=12.5)
results = st.sampled_from(["last", "text", "lines", "json"])
tolerances = st.sampled_from([ALL_TOLERATED, NONE_TOLERATED, Tolerance(3), SOME])
causes = st.lists(st.sampled_from(["OSError", "a.b:C", "137", "1-3"]), max_size=2, unique=True).map(
    tuple
)
policies = st.builds(
    Retry,
    st.integers(0, 5),
    st.just(0) | durations,
    st.sampled_from([1, 2, 1.5]),
    st.none() | durations,
    st.sampled_from([0, 0.2, 1]),
    st.none() | durations,
    causes,
    causes,
)
retries = st.builds(Retry, st.integers(0, 5), st.just(0) | durations) | policies


def _ignoring(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    return tuple(replace(block, on_failure="ignore") for block in blocks)


def defaults() -> st.SearchStrategy[Defaults]:
    optional: dict[str, st.SearchStrategy[Any]] = {
        "queue": st.just("default") | fixed,
        "timeout_s": durations,
        "retries": retries,
        "at_front": st.booleans(),
        "expires_s": durations,
        "on_crash": st.sampled_from(["requeue", "fail"]),
        "secret_results": st.sampled_from(["mask", "refuse"]),
        "on_blocker_failure": st.sampled_from(["wait", "skip", "run"]),
        "continue_on_error": tolerances,
        "cwd": words,
        "shell": fixed,
        "result": results,
        "max_parallel": counts,
        "fail_fast": st.booleans(),
        "max_items": counts,
    }
    return st.fixed_dictionaries({}, optional=optional).map(lambda said: Defaults(**said))


@st.composite
def for_eaches(draw: st.DrawFn) -> ForEach:
    items = draw(st.lists(data, max_size=3) | expressions.map("${{{{ {} }}}}".format))
    optional = {"key": sources, "more": sources, "stop_when": sources, "max_items": counts}
    return ForEach(items, **draw(st.fixed_dictionaries({}, optional=optional)))


@st.composite
def matrices(draw: st.DrawFn) -> Matrix:
    names = st.sampled_from(["os", "python", "_x"])
    axes = st.lists(data, max_size=3) | st.just("${{ inputs.data }}")
    combinations = st.lists(st.dictionaries(names, data, min_size=1), max_size=2).map(tuple)
    made = draw(st.dictionaries(names, axes, max_size=2))
    exclude = draw(combinations) if made else ()
    return Matrix(made, draw(combinations), exclude, draw(st.none() | sources))


@st.composite
def jobs(draw: st.DrawFn, name: str, nested: tuple[str, ...]) -> JobSpec:
    others = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)
    blocks = others.map(lambda names: tuple(Block(each) for each in names))
    optional: dict[str, st.SearchStrategy[Any]] = {
        "with_": arguments,
        "needs": others.map(tuple),
        "blocks": blocks | blocks.map(_ignoring),
        "deferred": st.booleans(),
        "description": descriptions,
        "on_blocker_failure": st.sampled_from(["wait", "skip", "run"]),
        "if_": st.sampled_from(["inputs.size > 2", "always()", "true", "'a: b' == item"]),
        "max_parallel": counts,
        "fail_fast": st.booleans(),
        "continue_on_error": tolerances,
        "approval": st.builds(
            Approval,
            st.just("") | texts,
            st.none() | durations,
            st.sampled_from([(), INPUTS[:1], INPUTS[2:5]]),
        ),
        "if_empty": st.sampled_from(["run", "skip"]),
        "start_when": st.sampled_from(["one_success", "one_failed"]),
        "cancel_rest": st.booleans(),
        "expires_s": durations,
        "concurrency": st.builds(Concurrency, fixed, st.booleans(), st.integers(1, 3)),
        "rate": st.builds(Rate, st.sampled_from(["10/m", "1/30s"]), st.just("") | fixed),
    }  # fmt: skip
    own: dict[str, st.SearchStrategy[Any]] = {
        "queue": fixed,
        "timeout_s": durations,
        "retries": retries,
        "on_crash": st.sampled_from(["requeue", "fail"]),
        "secret_results": st.sampled_from(["mask", "refuse"]),
        "at_front": st.booleans(),
        "env": environments,
        "cwd": words,
    }
    kind = draw(st.sampled_from(["call", "run", *nested]))
    if kind in ("call", "run"):
        optional |= own
    if kind == "run":
        optional.pop("with_")
    said = draw(st.fixed_dictionaries({}, optional=optional))
    if kind == "call":
        said["call"] = "photos.tasks:resize"
    elif kind == "run":
        lists = st.lists(words, min_size=1, max_size=3).map(tuple)
        program = st.builds(Shell, lists, st.none(), st.none() | results)
        text = st.builds(Shell, words, st.none() | fixed, st.none() | results)
        said["run"] = draw(text | program)
    else:
        said["workflow"] = kind
        limits = st.fixed_dictionaries({}, optional={"timeout_s": durations, "retries": retries})
        said |= draw(limits)
    group = draw(st.none() | for_eaches() | matrices())
    said |= {"for_each": group} if isinstance(group, ForEach) else {"matrix": group}
    if group is not None or said.keys() & {"on_blocker_failure", "if_empty"}:
        said.pop("start_when", None)
    if "start_when" not in said:
        said.pop("cancel_rest", None)
    return JobSpec(name, **said)


@st.composite
def workflows(draw: st.DrawFn, depth: int = 1) -> Workflow:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    inner = {}
    if depth and draw(st.booleans()):
        nested = draw(workflows(depth - 1))
        inner = {
            "inner-1": replace(
                nested,
                name="inner-1",
                schedule=None,
                more_schedules=(),
                concurrency=None,
                labels={},
            )
        }
    made = tuple(draw(jobs(name, tuple(inner))) for name in names)
    count = draw(st.integers(0, len(names) - 1)) if draw(st.booleans()) else 0
    main = len(names) - count
    made = (*made[:main], *(replace(job, is_final=True) for job in made[main:]))
    named = {job.workflow for job in made}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "description": descriptions,
        "defaults": defaults(),
        "env": environments,
        "labels": st.dictionaries(st.sampled_from(["team", "a.b/c-1", "3"]), labels, max_size=2),
        "outputs": arguments,
        "max_parallel": counts,
        "concurrency": st.builds(Concurrency, words, st.booleans(), st.integers(1, 3)),
        "timeout_s": durations,
        "schedule": schedules,
        "more_schedules": st.just(()) | st.tuples(schedules),
        "inputs": st.just(INPUTS),
    }  # fmt: skip
    said = draw(st.fixed_dictionaries({}, optional=optional))
    if "schedule" not in said:
        said.pop("more_schedules", None)
    used = {name: workflow for name, workflow in inner.items() if name in named}
    return Workflow("made up", made, workflows=used, **said)
