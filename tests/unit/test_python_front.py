"""Workflows declared with decorators are the values that YAML gives, and say what is wrong."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from enum import Enum, IntFlag
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.compiling import load
from flowq.declare.python import Workflow
from flowq.errors import Problem, UsageError, WorkflowInvalid
from flowq.expressions.templates import Expression, split
from flowq.spec import Block, Defaults, Input, JobSpec, Retry

here = Workflow("here", inputs={"folder": "photos", "price": 3})


@here.deferred
def gallery(photos: list[str], title: str = "") -> str:
    """Make a page."""
    return f"{title}: {photos}"


@here.job(blocks=gallery, timeout="30s", retries=3)
def list_photos(folder: str = here.inputs.folder, limit: int = 10) -> list[str]:
    return [folder] * limit


@here.job
async def fetch(url: str) -> str:
    return url


def plain(value: object = None) -> object:
    return value


def as_argument(value: object) -> object:
    """Return what a value is in the spec, as the argument of a job."""
    flow = Workflow("x")
    flow.call("a", "m:f", with_={"value": value})
    return flow.spec().jobs[0].with_["value"]


def problems_of(flow: Workflow) -> tuple[Problem, ...]:
    with pytest.raises(WorkflowInvalid) as caught:
        flow.spec()
    return caught.value.problems


def only_problem_of(flow: Workflow) -> Problem:
    (problem,) = problems_of(flow)
    return problem


# The value


def test_a_declared_workflow_is_the_value_that_yaml_gives() -> None:
    flow = Workflow(
        "sandwich",
        "Bread first",
        inputs={"slices": 4, "jam": str},
        defaults={"queue": "kitchen", "timeout": "10m", "retries": {"max": 2, "backoff": "1s"}},
    )
    serve = flow.deferred(plain, name="serve", on_blocker_failure="run", description="At last")
    cut = flow.job(plain, name="cut", blocks=serve, timeout="1m", queue="knives", retries=1)
    spread = flow.job(plain, name="spread", needs=cut, blocked_by="serve")
    spread.bind(value=cut.result)
    call = f"{__name__}:plain"
    spec = flow.spec()
    assert spec.name == "sandwich"
    assert spec.description == "Bread first"
    assert spec.inputs == (Input("slices", "int", 4, False), Input("jam", "str", None, True))
    assert spec.defaults == Defaults("kitchen", 600, Retry(2, 1))
    assert spec.jobs == (
        JobSpec("serve", call, deferred=True, on_blocker_failure="run", description="At last"),
        JobSpec(
            "cut", call, blocks=(Block("serve"),), timeout_s=60, queue="knives", retries=Retry(1)
        ),
        JobSpec(
            "spread",
            call,
            {"value": "${{ jobs.cut.result }}"},
            needs=("cut",),
            blocks=(Block("serve"),),
        ),
    )


def test_declaring_is_repeatable_and_the_value_does_not_change_afterwards() -> None:
    flow = Workflow("x")
    job = flow.job(plain, name="a")
    before = flow.spec()
    assert before == flow.spec()
    job.bind(value=1)
    assert before.jobs[0].with_ == {}


def test_parameters_with_a_handle_as_default_are_bound_and_other_defaults_are_not() -> None:
    job = here.spec().find("list_photos")
    assert job is not None
    assert job.with_ == {"folder": "${{ inputs.folder }}"}


def test_bind_overrides_a_default() -> None:
    flow = Workflow("x")

    @flow.job
    def size(value: str = flow.inputs.value) -> None: ...

    size.bind(value="small")
    workflow, _ = flow.spec_partly()
    assert workflow.jobs[0].with_ == {"value": "small"}


def test_an_edge_can_have_a_policy() -> None:
    flow = Workflow("x")
    last = flow.deferred(plain, name="last")
    flow.job(plain, name="a", blocks={last: {"on_failure": "ignore"}, "b": None})
    assert flow.spec().jobs[1].blocks == (Block("last", "ignore"), Block("b"))


def test_an_edge_said_twice_is_one_edge() -> None:
    flow = Workflow("x")
    last = flow.deferred(plain, name="last")
    flow.job(plain, name="a", blocks=[last, "last"], blocked_by=last, needs=["b", "b"])
    assert flow.spec().jobs[1].blocks == (Block("last"),)
    assert flow.spec().jobs[1].needs == ("b",)


@pytest.mark.parametrize(
    ("said", "declared"),
    [
        ("photos", Input("x", "str", "photos", False)),
        (True, Input("x", "bool", True, False)),
        (4, Input("x", "int", 4, False)),
        (0.5, Input("x", "float", 0.5, False)),
        (["a"], Input("x", "list", ["a"], False)),
        ({"type": "json", "default": {"a": 1}}, Input("x", "json", {"a": 1}, False)),
        (PurePosixPath("a/b"), Input("x", "path", "a/b", False)),
        (Path, Input("x", "path")),
        (int, Input("x", "int")),
        ({"choices": ["a", "b"], "default": "a"}, Input("x", "enum", "a", False, "", ("a", "b"))),
        ({"type": "int", "default": "4"}, Input("x", "int", 4, False)),
        ({"type": "int", "default": None}, Input("x", "int", None, False)),
        (None, Input("x", "str", None, False)),
        ({"type": "float", "default": 1, "description": "d"}, Input("x", "float", 1, False, "d")),
    ],
)
def test_inputs_are_declared_by_a_default_a_type_or_the_words_of_yaml(
    said: Any, declared: Input
) -> None:
    assert Workflow("x", inputs={"x": said}).spec().inputs == (declared,)


def test_an_input_can_be_declared_where_its_handle_is_needed() -> None:
    flow = Workflow("x")
    size = flow.input("size", type=int, description="In pixels")
    assert size == "${{ inputs.size }}" == flow.inputs.size
    assert flow.spec().inputs == (Input("size", "int", None, True, "In pixels"),)


# Handles


def test_a_handle_equals_the_text_of_its_expression() -> None:
    assert list_photos.result == "${{ jobs.list_photos.result }}"
    assert list_photos.result["a"][0] == '${{ jobs.list_photos.result["a"][0] }}'
    assert here.inputs["folder"] == here.inputs.folder
    assert hash(here.inputs.folder) == hash("${{ inputs.folder }}")
    assert here.inputs.folder != here.inputs.price


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (f"{here.inputs.folder}/a", "${{ inputs.folder }}/a"),
        ("{}/{}".format(here.inputs.folder, "a"), "${{ inputs.folder }}/a"),
        ("a/" + str(here.inputs.folder), "a/${{ inputs.folder }}"),
        (f"${here.inputs.price}", "${{ '$' }}${{ inputs.price }}"),
        ("${{ inputs.folder }}", "$${{ inputs.folder }}"),
        ("$${{ x }}", "$$${{ x }}"),
        (f"${{{{ x }}}} {here.inputs.price}", "$${{ x }} ${{ inputs.price }}"),
        ("{{ x }} $x", "{{ x }} $x"),
    ],
)
def test_text_made_of_a_handle_is_an_expression_and_other_text_a_literal(
    argument: str, text: str
) -> None:
    assert as_argument(argument) == text


def test_arguments_become_plain_data() -> None:
    said = {"a": (1, [here.inputs.folder]), "b": None, "c": True, "d": 0.5}
    assert as_argument(said) == {"a": [1, ["${{ inputs.folder }}"]], "b": None, "c": True, "d": 0.5}


@given(st.text(alphabet="${} ax'\"", max_size=12), st.text(alphabet="${} a", max_size=8))
def test_literals_around_a_handle_survive(before: str, after: str) -> None:
    parts = split(as_argument(f"{before}{here.inputs.folder}{after}"))
    assert "".join(map(_filled, parts)) == f"{before}VALUE{after}"


def _filled(part: str | Expression) -> str:
    if isinstance(part, str):
        return part
    return "VALUE" if part.source == "inputs.folder" else part.source.strip("'")


@pytest.mark.parametrize("use", [bool, list, len, lambda handle: f"{handle:>10}"])
def test_a_handle_has_no_value_while_declaring(use: Any) -> None:
    with pytest.raises(UsageError, match=r"jobs\.list_photos\.result"):
        use(list_photos.result)


# The functions


def test_a_declared_function_is_called_as_it_was() -> None:
    assert gallery(["a"], title="b") == "b: ['a']"
    assert gallery.__name__ == "gallery"
    assert gallery.__doc__ == "Make a page."
    assert list(inspect.signature(gallery).parameters) == ["photos", "title"]
    assert list_photos("x", 2) == ["x", "x"]


def test_an_async_function_gives_its_coroutine() -> None:
    assert asyncio.run(fetch("u")) == "u"


def test_calling_without_what_only_a_run_knows_raises_what_python_raises() -> None:
    with pytest.raises(TypeError) as caught:
        list_photos(limit=2)
    assert str(caught.value) == "list_photos() missing 1 required positional argument: 'folder'"
    assert "${{ inputs.folder }} has a value in a run only" in caught.value.__notes__[0]


def test_the_error_of_a_plain_call_names_the_parameters_as_python_does() -> None:
    flow = Workflow("x", inputs={"a": 1, "b": 1, "c": 1})

    def bare(first, a, b=0, *more, c, d=0): ...  # type: ignore[no-untyped-def]

    def declared(first, a=flow.inputs.a, b=0, *more, c=flow.inputs.c, d=0): ...  # type: ignore[no-untyped-def]

    declared.__qualname__ = bare.__qualname__
    call = flow.job(declared)
    for args, kwargs in (
        ((), {}),
        ((1,), {}),
        ((1, 2), {}),
        ((), {"c": 1}),
        ((), {"nonsense": 1}),
        ((1, 2), {"a": 1}),
    ):
        said = []
        for function in (bare, call):
            with pytest.raises(TypeError) as caught:
                function(*args, **kwargs)
            said.append(str(caught.value))
        assert said[0] == said[1]
    assert call(1, 2, c=3) is None


def test_a_declared_function_pickles_by_reference() -> None:
    assert pickle.loads(pickle.dumps(gallery)) is gallery


def test_one_function_can_be_several_jobs() -> None:
    flow = Workflow("x")
    first = flow.job(gallery, name="first")
    flow.job(first, name="second", needs=first)
    assert {job.call for job in flow.spec()} == {f"{__name__}:gallery"}


# Positions and problems


def test_positions_are_those_of_the_decorators_and_binds() -> None:
    flow, start = Workflow("x"), _line()

    @flow.job
    def a() -> None: ...

    @flow.job(
        queue="b",
    )
    def b(value: int) -> None: ...

    b.bind(value=1)
    workflow, _ = flow.spec_partly()
    where = workflow.places.where_by_path
    assert where[()].line == start
    assert where["jobs", "a"].line == start + 2
    assert where["jobs", "b", "queue"].line == start + 5
    assert where["jobs", "b", "with", "value"].line == start + 10
    assert {where[path].file for path in where} == {__file__}


def _line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_all_problems_are_reported_at_once_in_the_order_of_the_text() -> None:
    flow = Workflow("x", defaults={"time_out": 3})
    flow.job(plain, name="a", timeout="3 bananas")
    flow.job(plain, name="b", retry=3)  # type: ignore[call-overload]
    flow.job(plain, name="c").bind(value={1, 2})
    found = problems_of(flow)
    assert [problem.code for problem in found] == ["FQ103", "FQ110", "FQ108", "FQ105"]
    assert [str(problem.where.file) for problem in found if problem.where] == [__file__] * 4
    assert "write `retries:" in found[2].hint


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"needs": list_photos.result}, "leave .result out"),
        ({"needs": plain}, "takes jobs of this workflow or their names"),
        ({"blocks": {"b": {"on_failure": "wait"}}}, "must be ignore"),
        ({"retries": "three"}, "must be a whole number or a map"),
        ({"retries": {"max": 3, "backof": 1}}, "did you mean 'backoff'"),
        ({"timeout": 0}, "must be more than zero"),
        ({"timeout": "9999d"}, "at most 3650d"),
        ({"with_": {"a": {f"{here.inputs.folder}": 1}}}, "only in values"),
        ({"timeout": True}, "must be a duration"),
        ({"on_blocker_failure": "maybe"}, "must be one of wait, skip, run"),
        ({"queue": ["x"]}, "must be text"),
        ({"approval": "the boss"}, "must be true or a map"),
        ({"with_": [1]}, "must be a map"),
        ({"with_": {"a": object()}}, "argument a of job b is of type object"),
        ({"with_": {"a": gallery}}, "its value is gallery.result"),
        ({"with_": {"a": {1: 2}}}, "keys of a mapping are texts"),
        ({"with_": {"a": Path("x")}}, r"or str\(…\) of it"),
    ],
)
def test_an_option_that_cannot_be_meant_is_a_problem(options: Any, words: str) -> None:
    flow = Workflow("x")
    flow.job(plain, **{"name": "b", **options})
    with pytest.raises(WorkflowInvalid, match=words):
        flow.spec()


@pytest.mark.parametrize("key", ["retries", "timeout", "needs", "approval", "env"])
def test_a_value_of_a_strange_type_is_one_problem(key: str) -> None:
    flow = Workflow("x")
    flow.call("b", "time:time", **{key: object()})
    assert only_problem_of(flow).message.startswith(f"{key} is of type object")


@pytest.mark.parametrize(
    "said", [{"type": "int", "default": "many"}, {"type": "int", "default": True}]
)
def test_a_default_that_does_not_fit_its_type_is_a_problem(said: Any) -> None:
    assert only_problem_of(Workflow("x", inputs={"x": said})).code == "FQ116"


def test_blocked_by_explains_its_direction() -> None:
    flow = Workflow("x")
    first = flow.job(plain, name="first")
    flow.job(plain, name="second", blocked_by=first)
    problem = only_problem_of(flow)
    assert problem.code == "FQ115"
    assert "`needs: first`" in problem.hint
    assert "`blocks: first`" in problem.hint


def test_an_argument_given_twice_is_a_problem() -> None:
    flow = Workflow("x")
    flow.job(plain, name="a", with_={"value": 1}).bind(value=2)
    assert only_problem_of(flow).code == "FQ602"


def test_functions_that_workers_cannot_import_are_problems() -> None:
    def nested() -> None: ...

    def scripted() -> None: ...

    scripted.__module__, scripted.__qualname__ = "__main__", "scripted"
    flow = Workflow("x")
    for function in (nested, lambda: None, scripted):
        flow.job(function)
    found = problems_of(flow)
    assert {problem.code for problem in found} == {"FQ601"}
    for problem, words in zip(
        found, ("is defined inside", "a lambda", "was typed into"), strict=True
    ):
        assert words in problem.message
        assert problem.hint


def test_a_result_that_is_added_to_text_in_a_declaration_is_refused_with_what_to_write() -> None:
    flow = Workflow("sums")
    look = flow.call("look", "time:time")
    for add in (lambda: "at " + look.result, lambda: look.result + 1):
        with pytest.raises(UsageError, match="f-string") as caught:
            add()
        assert "${{ jobs.look.result }} is known only in a run" in str(caught.value)


def test_a_wrong_option_hides_no_other_problem(tmp_path: Path) -> None:
    file = tmp_path / "wrong_options.py"
    file.write_text(
        "import flowq\n"
        "flow = flowq.Workflow('w', timeout='soon', inputs={'n': {'type': 'number'}})\n"
        "a = flow.shell('a', 'x', timeout='soon', needs='nobody', env={'A': flow.inputs.none})\n"
        "b = flow.shell('b', 'x', retry=3)\n"
        "c = flow.shell('c', {}, needs=b, with_={'n': flow.inputs.n})\n"
        "d = flow.call('d', 'm.f', needs='e', if_='inputs.n')\n"
        "e = flow.call('e', 'm:f', needs=d)\n",
        "utf-8",
    )
    with pytest.raises(WorkflowInvalid) as caught:
        load(str(file))
    found = [(p.where.line, p.code) for p in caught.value.problems if p.where]
    assert found == [
        *((2, "FQ110"), (2, "FQ105"), (3, "FQ110"), (3, "FQ201"), (3, "FQ205")),
        *((4, "FQ108"), (5, "FQ105"), (5, "FQ118"), (6, "FQ114"), (6, "FQ203")),
    ]


# Values of subclasses, and of other types --------------------------------------------------------


class Env(str, Enum):  # noqa: UP042 - a StrEnum shows itself as its value
    PROD = "prod"
    ON = "inputs.size > 1"


class Level(int, Enum):
    HIGH = 3


class Rate(float, Enum):
    SLOW = 0.5


class Flags(IntFlag):
    A = 1
    B = 2


class Loud(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"

    def __format__(self, format_spec: str) -> str:
        return "LOUD"


class Number(float):
    def __repr__(self) -> str:
        return f"Number({float(self)!r})"

    __str__ = __repr__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Env.PROD, "prod"),
        (Loud("soft"), "soft"),
        (Loud("soft ${{ x }}"), "soft $${{ x }}"),
        (Level.HIGH, 3),
        (Rate.SLOW, 0.5),
        (Flags.A | Flags.B, 3),
        (Number(1.5), 1.5),
        ({Env.PROD: [Env.PROD]}, {"prod": ["prod"]}),
    ],
)
def test_a_value_of_a_subclass_is_the_value_of_its_type(value: Any, expected: Any) -> None:
    found = as_argument(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", [Env.PROD, Loud("prod")])
def test_a_text_that_shows_itself_otherwise_is_the_text_it_holds(text: str) -> None:
    """Everywhere: as an option, a name, a key, an input and a word of a command."""

    def declare(said: str) -> Workflow:
        flow = Workflow("x", inputs={said: said}, env={said: said}, defaults={"queue": said})
        flow.call(said, "m:f", queue=said, with_={said: said, "b": {said: 1}}, env={said: said})
        flow.shell("b", said, needs=said, cwd=said, if_=flow.inputs[said])
        flow.shell("c", ["echo", said], needs=[said], matrix={said: [said]})
        flow.shell("d", "true", if_=flow.expression(said), blocks={said: None})
        flow.input("i", type="enum", choices=[said], default=said)
        flow.outputs(a=said)
        return flow

    assert declare(text).spec() == declare("prod").spec()
    assert "Env." not in repr(declare(text).spec())
    assert "LOUD" not in repr(declare(text).spec())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": True}, "queue must be text, not True"),
        ({"queue": Level.HIGH}, "queue must be text, not 3"),
        ({"cwd": 1.0}, "cwd must be text, not 1.0"),
        ({"description": float("nan")}, "description must be text, not nan"),
        ({"approval": {"message": 3}}, "message must be text, not 3"),
        ({"needs": 3}, "needs must be a job's name, or a list of names, not 3"),
        ({"needs": [True]}, "needs must be a job's name, or a list of names, not True"),
        ({"blocks": 3}, "blocks must be a job's name, or a list of names, not 3"),
        ({"blocked_by": [3]}, "blocked_by must be a job's name, or a list of names, not 3"),
        ({"for_each": [1], "key": 3}, "key must be text, not 3"),
        ({"env": {"X": None}}, "X in env must be text, not None"),
    ],
)
def test_a_number_is_no_text_in_python(options: Any, words: str) -> None:
    flow = Workflow("x")
    flow.call("a", "m:f", **options)
    assert only_problem_of(flow).message == words


@pytest.mark.parametrize("command", [3, True, float("nan")])
def test_a_number_is_no_command(command: Any) -> None:
    flow = Workflow("x")
    flow.shell("a", command)
    assert only_problem_of(flow).message == f"run must be text, not {command}"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"type": "str", "default": 3}, "must be text, not 3"),
        ({"type": "enum", "choices": [1, 2]}, "choices must be a list of texts"),
        ({"pattern": 3}, "pattern must be text, not 3"),
    ],
)
def test_a_number_is_no_text_of_an_input(said: Any, words: str) -> None:
    flow = Workflow("x", inputs={"x": said})
    flow.call("a", "m:f")
    assert words in only_problem_of(flow).message


def test_variables_may_be_numbers_and_flags() -> None:
    flow = Workflow("x", env={"PORT": 8080, "RATE": 0.5, "DEBUG": True})
    flow.call("a", "m:f", env={"LEVEL": Level.HIGH})
    assert flow.spec().env == {"PORT": "8080", "RATE": "0.5", "DEBUG": "true"}
    assert flow.spec().jobs[0].env == {"LEVEL": "3"}
