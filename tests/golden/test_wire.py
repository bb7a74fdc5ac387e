"""What is written of a plan into Redis: every release reads what every other one has written.

`wire/<version>.json` is what that release wrote for `wire/shop.yaml`. The file of this version is
compared with what is written today; `FLOWQ_UPDATE_GOLDEN=1 pytest tests/golden` writes it anew. The
files of earlier releases are only read, and stay. `wire/pickled.json` has what was written before
there was a plain form.
"""

from __future__ import annotations

import json
import os
import pickle
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flowq._version import __version__
from flowq.compiling import load
from flowq.errors import NewerFormat, Where
from flowq.graph import build_graph
from flowq.inputs import EXAMPLE_BY_TYPE, resolve_inputs
from flowq.plan import (
    Call,
    Does,
    Enqueue,
    Expansion,
    Join,
    Nested,
    Outputs,
    Plan,
    Sleep,
    Slot,
    Start,
)
from flowq.planner import make_plan
from flowq.runtime.outputs import write_outputs
from flowq.runtime.planned import call_of
from flowq.runtime.wire import (
    FIRST_FORMAT,
    FORMAT,
    LIMITS_FORMAT,
    QUOTED_VALUES_FORMAT,
    RETRIES_FORMAT,
    USUAL_FORMAT,
    from_wire,
    to_wire,
)
from flowq.spec import (
    Approval,
    Concurrency,
    Defaults,
    ForEach,
    Input,
    JobSpec,
    Poll,
    Rate,
    Retry,
    Schedule,
    Shell,
    Workflow,
)
from tests.reading import parse_workflow

WIRE = Path(__file__).parent / "wire"
RELEASES = sorted(path.stem for path in WIRE.glob("*.json") if path.stem != "pickled")
EXAMPLES = sorted((Path(__file__).parents[2] / "workflows").glob("*.yaml"))
KINDS = {"expansion": Expansion, "nested": Nested}
UPDATE = os.environ.get("FLOWQ_UPDATE_GOLDEN") == "1"


@cache
def shop() -> Workflow:
    return parse_workflow((WIRE / "shop.yaml").read_text("utf-8"), "/srv/shop.yaml")


@cache
def plan_of_shop() -> Plan:
    return make_plan(build_graph(shop()), resolve_inputs(shop(), {}), "run000golden")


def written_today() -> dict[str, Any]:
    plan = plan_of_shop()
    assert plan.outputs is not None
    return {
        "jobs": arguments_of(plan),
        "outputs": json.loads(write_outputs(plan.outputs)),
        "scheduled": to_wire(shop()),
    }


def arguments_of(plan: Plan) -> dict[str, Any]:
    return {each.job_id: call_of(each)[1:] for each in plan.enqueues}


def read(name: str) -> Any:
    return json.loads((WIRE / f"{name}.json").read_text("utf-8"))


def read_parts(document: Mapping[str, Any]) -> Iterator[tuple[type[Any], Any]]:
    """Yield what a release wrote of each value, and the kind of value that it is."""
    for args, _ in document["jobs"].values():
        for name in KINDS.keys() & (args[0].keys() if args else ()):
            yield KINDS[name], args[0][name]
    yield Outputs, document["outputs"]
    yield Workflow, document["scheduled"]


def test_what_is_written_is_what_the_file_of_this_version_has() -> None:
    text = json.dumps(written_today(), indent=1, sort_keys=True) + "\n"
    path = WIRE / f"{__version__}.json"
    if UPDATE:
        path.write_text(text, "utf-8")
    assert path.exists(), f"no golden file {path.name}: run with FLOWQ_UPDATE_GOLDEN=1"
    assert json.loads(path.read_text("utf-8")) == json.loads(text)


@pytest.mark.parametrize("release", RELEASES)
def test_what_a_release_wrote_is_read_and_nothing_of_it_is_lost(release: str) -> None:
    parts = list(read_parts(read(release)))
    assert {kind for kind, _ in parts} == {Expansion, Nested, Outputs, Workflow}
    for kind, data in parts:
        assert to_wire(from_wire(kind, data)) == data


def test_what_is_read_is_what_was_planned() -> None:
    by_id = {each.job_id: each for each in plan_of_shop().enqueues}
    for job_id, (args, _) in read(__version__)["jobs"].items():
        for name in KINDS.keys() & (args[0].keys() if args else ()):
            planned = by_id[job_id].does
            planned = planned.nested if isinstance(planned, Start) else planned
            assert from_wire(KINDS[name], args[0][name]) == planned
    assert from_wire(Outputs, read(__version__)["outputs"]) == plan_of_shop().outputs
    again = from_wire(Workflow, read(__version__)["scheduled"])
    assert (again, again.folder) == (shop(), shop().folder)
    assert again.places.where_by_path == dict(shop().places.where_by_path)


def without_old_defaults(data: Any) -> Any:
    """Return what is written without what versions before pickled where nothing was said."""
    if isinstance(data, dict):
        old = {"max_items": 100_000, "result": "last", "fail_fast": False, "at_front": False}
        old |= {"if_empty": "run", "on_crash": "requeue"}
        kept = {key: value for key, value in data.items() if old.get(key, data) != value}
        return {key: without_old_defaults(value) for key, value in kept.items()}
    return [without_old_defaults(each) for each in data] if isinstance(data, list) else data


def test_what_was_pickled_before_there_was_a_plain_form_is_read() -> None:
    pickled, plain = read("pickled"), read("0.1.0")
    for job_id, text in pickled["jobs"].items():
        (work,), (expected,) = pickle.loads(b64decode(text)), plain["jobs"][job_id][0]
        for name in KINDS.keys() & work.keys():
            work[name] = without_old_defaults(to_wire(from_wire(KINDS[name], work[name])))
        assert is_part_of(work, expected)  # later forms may say more, and need more
    workflow = pickle.loads(b64decode(pickled["workflow"]))
    written = without_old_defaults(to_wire(from_wire(Workflow, workflow)))
    assert written == plain["scheduled"]
    assert from_wire(Outputs, json.loads(pickled["outputs"])) == plan_of_shop().outputs


def is_part_of(earlier: Any, later: Any) -> bool:
    if isinstance(earlier, dict):
        return all(key in later and is_part_of(earlier[key], later[key]) for key in earlier)
    if isinstance(earlier, list):
        return len(earlier) == len(later) and all(map(is_part_of, earlier, later))
    return bool(earlier == later)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_jobs_of_a_plan_have_arguments_of_plain_data(path: Path) -> None:
    workflow = load(str(path))
    required = (each for each in workflow.inputs if each.required)
    given = {each.name: (*each.choices, EXAMPLE_BY_TYPE[each.type])[0] for each in required}
    plan = make_plan(build_graph(workflow), resolve_inputs(workflow, given), "run")
    for args, kwargs in arguments_of(plan).values():
        assert json.loads(json.dumps([args, kwargs])) == [list(args), kwargs]


def test_every_field_that_can_be_written_is_in_the_golden_files() -> None:
    written: dict[type[Any], set[str]] = {}
    for value in find_values([plan_of_shop().enqueues, plan_of_shop().outputs, shop()]):
        written.setdefault(type(value), set()).update(to_wire(value))
    for kind, names in written.items():
        left = {each.name for each in fields(kind)} - names - NOT_IN_SHOP.get(kind, set())
        assert not left, f"nothing in shop.yaml leads to {kind.__name__}.{'/'.join(left)}"


NOT_IN_SHOP: Mapping[type[Any], set[str]] = {
    Workflow: {"unread", "timeout_s", "labels", "more_schedules"},
    Schedule: {"inputs", "catch_up"},
    # `does` is written flat.
    Enqueue: {
        *("does", "is_open", "ended_of", "secrets", "refuses_secrets", "settings", "branch"),
        *("poll", "start_when", "cancel_rest", "concurrency", "rate"),
    },
    Join: {"retries"},
    Nested: {"finals", "timeout_s", "secrets"},
    Outputs: {"secrets"},
    Slot: {"most"},
    Concurrency: {"limit"},
    Expansion: {"is_matrix"},
    JobSpec: {"is_final", "secret_results", "settings", "else_", "sleep", "poll"}
    | {"start_when", "cancel_rest", "concurrency", "rate"},
    Approval: {"inputs"},
    Defaults: {each.name for each in fields(Defaults)} - {"queue", "timeout_s", "retries"},
    Where: {"merged_in"},
    Retry: {"factor", "max_backoff_s", "jitter", "within_s", "on", "never_on"},
}
"""What is never written, and fields that are younger than shop.yaml."""


def test_what_an_approval_asks_for_and_secrets_are_written_and_read() -> None:
    asks = Approval("Sure?", 60, (Input("host", "enum", choices=("a", "b")), Input("n", "int", 3)))
    template = Enqueue("a", "a", Call("m:f"), approval=asks, secrets=("A",), refuses_secrets=True)
    assert from_wire(Enqueue, to_wire(template)) == template


def find_values(value: Any) -> Iterator[Any]:
    """Yield the dataclasses in a value, which may be one itself."""
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | frozenset):
        for each in value:
            yield from find_values(each)
    elif is_dataclass(value):
        yield value
        for each in fields(value):
            yield from find_values(getattr(value, each.name))


def test_a_field_that_is_missing_has_its_default_and_one_that_is_unknown_is_ignored() -> None:
    data = {"flowq": USUAL_FORMAT, "each": {"items": [1]}, "templates": [], "nicer": True}
    expansion = from_wire(Expansion, data)
    assert expansion.each.max_items is None
    assert to_wire(expansion) == {"flowq": USUAL_FORMAT, "each": {"items": [1]}, "templates": []}


def test_what_is_younger_than_the_shop_is_written_and_read() -> None:
    shell = Shell(("tar", "-cf", "${{ item }}"))
    nested = Nested(Workflow("inner", (), timeout_s=60), "a", "a.", timeout_s=600)
    policy = Retry(2, 1.5, 2, 60, 0.1, 600, ("OSError", "137"), ("a.b:C",))
    kinds = (shell, Start(nested, {"a": 1}), Join({"b": 2}, Retry(2, 1.5)), Sleep("0"))
    poll = Poll("${{ result }}", 5, 60)
    template = Enqueue("a", "a", kinds[0], deferred=True, is_open=True, retries=policy, poll=poll)
    template = replace(template, concurrency=Concurrency("g", True, 3), rate=Rate("10/m", "h"))
    template = replace(template, slots=(Slot("rate:h", "a", "10/60"),))
    templates = tuple(replace(template, does=does) for does in kinds)
    data = to_wire(Expansion(ForEach([1]), templates))
    assert data["templates"][0]["is_open"] is True
    assert data["templates"][0]["run"] == {"command": ["tar", "-cf", "${{ item }}"]}
    assert data["templates"][2]["workflow_retries"] == {"max": 2, "backoff_s": 1.5}
    assert [each["call"] for each in data["templates"]] == [""] * 4  # older versions need it
    assert from_wire(Expansion, json.loads(json.dumps(data))).templates == templates


@pytest.mark.parametrize(
    ("job", "needed"),
    [
        ({"does": Shell("x"), "retries": Retry(3, 2)}, USUAL_FORMAT),
        ({"does": Shell("x"), "retries": Retry(3, on=("OSError",))}, RETRIES_FORMAT),
        ({"does": Shell("x ${{ attempt }}")}, RETRIES_FORMAT),
        ({"does": Shell("x attempt"), "env": {"A": "${{ env.attempt }}"}}, USUAL_FORMAT),
        ({"does": Shell("x"), "env": {"A": "${{ attempt }}"}}, RETRIES_FORMAT),
        ({"does": Join({}, Retry(3, jitter=0.1))}, RETRIES_FORMAT),
    ],
)
def test_what_older_versions_must_not_ignore_of_retries_has_a_higher_number(
    job: Mapping[str, Any], needed: int
) -> None:
    each = Enqueue("r-a", "a", **job)
    template = Enqueue("r-b", "b(list)", Expansion(ForEach([1]), (each,)))
    assert [call_of(it)[1][0]["flowq"] for it in (each, template)] == [needed, needed]
    is_join, does = isinstance(each.does, Join), each.does
    spec = JobSpec(
        "a",
        run=None if is_join else does,
        env=each.env,
        retries=does.retries if is_join else each.retries,
    )
    inner = Workflow("outer", (), workflows={"inner": Workflow("inner", (spec,))})
    start = Enqueue("r-c--0", "c(start)", Start(Nested(inner, "r-c", "c.")))
    assert call_of(start)[1][0]["flowq"] == needed


def test_a_start_at_the_first_end_needs_a_worker_that_knows_what_was_undecided() -> None:
    def format_of(enqueue: Enqueue) -> int:
        ((work,), _) = call_of(enqueue)[1:]
        return int(work["flowq"])

    plain = Enqueue("r-a", "a", Shell("x"), start_when="one_failed", cancel_rest=True)
    assert format_of(plain) == USUAL_FORMAT  # the scripts alone decide
    assert format_of(replace(plain, result_of={"b": "r-b"})) == FIRST_FORMAT
    spec = JobSpec("a", run=Shell("x"), start_when="one_failed")
    outer = Workflow("outer", (), workflows={"inner": Workflow("inner", (spec,))})
    start = Enqueue("r-c--0", "c(start)", Start(Nested(outer, "r-c", "c.")))
    assert format_of(start) == FIRST_FORMAT
    assert format_of(Enqueue("r-d", "d(list)", Expansion(ForEach([1]), (start,)))) == FIRST_FORMAT
    assert from_wire(Enqueue, to_wire(plain)) == plain


def test_older_versions_execute_no_job_with_a_rate_and_add_none_with_a_limit_across_runs() -> None:
    """They keep the slots of `concurrency`, which are those of `max_parallel`."""
    plain = Enqueue("r-a", "a", Call("m:f"))
    shared = replace(plain, concurrency=Concurrency("g"))
    rated = replace(plain, rate=Rate("10/m", "g"))
    assert call_of(shared) == call_of(plain) == ("m.f", (), {})
    spec = JobSpec("a", "m:f", concurrency=Concurrency("g"))
    nested = Nested(Workflow("inner", (spec,)), "r-c", "c.")
    for each in (
        rated,
        *(Enqueue("r-b", "b", Expansion(ForEach([1]), (item,))) for item in (shared, rated)),
        Enqueue("r-c--0", "c(start)", Start(nested)),
        replace(shared, does=Start(Nested(Workflow("inner", ()), "r-c", "c.")), inside="r-c"),
    ):
        assert call_of(each)[1][0]["flowq"] == LIMITS_FORMAT


def test_values_within_quotes_need_a_worker_that_refers_to_them() -> None:
    def format_of(does: Does) -> int:
        ((work,), _) = call_of(Enqueue("a", "a", does))[1:]
        return int(work["flowq"])

    quoted, word = Shell('echo "a ${{ item }}"', places="q"), Shell("echo ${{ item }}", places="w")
    assert (format_of(quoted), format_of(word)) == (QUOTED_VALUES_FORMAT, USUAL_FORMAT)
    inner = Workflow("inner", (JobSpec("b", run=quoted),))
    outer = Workflow("outer", (), workflows={"inner": inner})
    template = Enqueue("b", "b", quoted)
    assert format_of(Start(Nested(outer, "a", "a."))) == QUOTED_VALUES_FORMAT
    assert format_of(Expansion(ForEach([1]), (template,))) == QUOTED_VALUES_FORMAT
    assert from_wire(Enqueue, to_wire(template)).does == quoted


def test_a_form_that_only_newer_versions_know_is_refused() -> None:
    with pytest.raises(NewerFormat, match="upgrade flowq here"):
        from_wire(Expansion, {"flowq": FORMAT + 1, "templates": []})


def test_values_of_users_are_left_as_they_are() -> None:
    given = object()
    template = Enqueue("a", "a", Call("m:f", {"x": given, "y": (1, shop())}), inputs={"z": {given}})
    again = from_wire(Enqueue, to_wire(template))
    assert again == template
    assert again.does.kwargs["x"] is given
    assert again.does.kwargs["y"] is template.does.kwargs["y"]
