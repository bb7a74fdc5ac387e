"""What is wrong with names, functions and arguments in expressions, and how often it is told."""

from __future__ import annotations

import pytest

from flowq.checks import check
from flowq.compiling import find_problems
from flowq.errors import Problem
from flowq.graph import build_graph
from flowq.spec import JobSpec, Shell, Workflow
from tests.reading import parse_workflow


def problems_of(job: JobSpec) -> list[Problem]:
    workflow = Workflow("w", (job,))
    return check(workflow, build_graph(workflow))


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ("inputs.x or not inputs.x", "FQ205"),
        ("jobs.x.result or not jobs.x.result", "FQ204"),
        ("x or not x", "FQ302"),
        ("x(1) or not x(2)", "FQ302"),
        ("item or not item", "FQ213"),
        ("run.status or not run.status", "FQ213"),
    ],
)
def test_a_name_that_is_wrong_twice_in_one_expression_is_one_problem(
    condition: str, code: str
) -> None:
    text = f"jobs:\n  a: {{run: x, if: '{condition}'}}\n"
    found = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    assert [(p.code, p.where.column) for p in found if p.where] == [(code, 20)]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nope", "there are index, inputs, item, matrix, result, run"),
        ("jobb", "there are index, inputs, item, matrix, result, run"),  # jobs has no value there
        ("resul", "did you mean 'result'?"),
    ],
)
def test_only_names_that_have_a_value_there_are_proposed(name: str, hint: str) -> None:
    text = f"jobs:\n  a: {{run: x, poll: {{until: {name}}}}}\n"
    (found,) = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    assert (found.code, found.hint) == ("FQ302", hint)


def test_expressions_with_one_wrong_name_are_a_problem_each() -> None:
    text = "jobs:\n  a: {run: 'echo ${{ inputs.x }} ${{ x }} ${{ x }} ${{ inputs.x }}'}\n"
    found = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    assert [p.code for p in found] == ["FQ205", "FQ302", "FQ302", "FQ205"]


@pytest.mark.parametrize(
    "text",
    [
        "${{ inputs.x + }}",
        "${{ inputs['x'] + }}",
        "${{ nope(inputs.x) }}",
        "${{ inputs.x.upper() }}",
        "${{ inputs.x | nope }}",
        "${{ matches(inputs.x, '(') }}",
        "${{ len(inputs.x, 1) }}",
        "${{ inputs.x is divisibleby(3) }}",
        "${{ inputs.x",
        "${{ inputs.x } ${{ run.id }}",
        "${{ run.id } ${{ inputs.x }}",
    ],
)
def test_an_input_in_an_expression_that_is_refused_counts_as_used(text: str) -> None:
    frame = 'inputs: {x: {type: str, default: a}}\njobs:\n  a:\n    run: [echo, "%s"]\n'
    found = find_problems(parse_workflow(frame % text, "x.yaml"), imports=False)
    assert len(found) == 1
    assert found[0].severity == "error"


def test_an_expression_that_is_not_closed_hides_no_wrong_names_before_and_behind_it() -> None:
    command = "echo ${{ x }} ${{ inputs.b } ${{ nope(jobs.c.result) }} ${{ inputs.d"
    text = f"jobs:\n  a: {{run: '{command}'}}\n"
    found = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    told = [text.splitlines()[1][p.where.column - 1 :][:5] for p in found if p.where]
    assert [(p.code, what) for p, what in zip(found, told, strict=True)] == [
        ("FQ302", "x }} "),
        ("FQ301", "${{ i"),
        ("FQ205", "input"),
        ("FQ302", "nope("),
        ("FQ204", "jobs."),
        ("FQ301", "${{ i"),
        ("FQ205", "input"),
    ]


@pytest.mark.parametrize(
    ("call", "message", "hint"),
    [
        ("len(1, 2)", "len takes 1 argument, not 2", "write len(list)"),
        ("'a' | replace('b')", "replace takes 3 arguments, not 2", "write replace(text, old, new)"),
        ("sort([1], rev=true)", "sort has no argument 'rev'", "write sort(items, reverse)"),
        ("default(1)", "default takes 2 arguments, not 1", "write default(value, fallback)"),
        ("1 | default(2, true)", "default takes 2 arguments, not 3", "(value, fallback)"),
        ("max()", "max takes at least 1 argument, not 0", "write max(first, …)"),
        ("str()", "str takes 1 argument, not 0", "write str(value)"),
        ("'a' | upper(1)", "upper takes 1 argument, not 2", "write upper(text)"),
        ("range(1, 2, 3, 4)", "range takes 1 to 3 arguments, not 4", "range(first, last, step)"),
        ("join(['a'], ',', separator=';')", "join takes 1 to 2 arguments, not 3", "join(items"),
    ],
)
def test_a_function_with_arguments_that_it_does_not_take_is_found_before_a_run(
    call: str, message: str, hint: str
) -> None:
    (problem,) = problems_of(JobSpec("a", run=Shell(("echo", f"${{{{ {call} }}}}"))))
    assert problem.code == "FQ301"
    assert problem.message.endswith(message)
    assert hint in problem.hint


@pytest.mark.parametrize(
    "call",
    [
        *("len([1])", "zip()", "zip([1], [2], [3])", "max(1, 2)", "[1] | max", "range(1, 2, 3)"),
        *("['a'] | join", "join(['a'], separator=',')", "sort([1], reverse=true)", "1 | str"),
        *("'a' | split", "[{'k': 1}] | select('k', none)", "round(1.5, 1)", "default(1, 2)"),
    ],
)
def test_a_function_with_arguments_that_it_takes_is_no_problem(call: str) -> None:
    text = f"${{{{ json({call}) }}}}"
    assert not problems_of(JobSpec("a", run=Shell(("echo", text))))


def test_how_the_run_ended_is_told_by_its_name_where_that_is_not_known() -> None:
    text = 'outputs: {f: "${{ run.failures }}"}\njobs: {a: {run: [echo, "${{ run.status }}"]}}\n'
    outputs, job = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    assert "uses run.failures in `outputs`" in outputs.message
    assert outputs.where is not None
    assert (outputs.code, outputs.where.column) == ("FQ213", 19)
    assert job.message == ("job a asks how the run ended, which is known only under `finally`")


@pytest.mark.parametrize(
    ("test", "instead"),
    [
        ("[ § -eq 1 ]", "[ ${{ run.id == 1 }} = true ]"),
        ("test 2 -ne §", "[ ${{ run.id != 1 }} = true ]"),
        ("[[ § -lt 3 ]]", "[ ${{ run.id < 1 }} = true ]"),
        ("[[ § -ge 3 ]]", "[ ${{ run.id >= 1 }} = true ]"),
    ],
)
def test_a_comparison_of_numbers_is_moved_into_the_expression(test: str, instead: str) -> None:
    (problem,) = problems_of(JobSpec("a", run=Shell(test.replace("§", "${{ run.id }}"))))
    assert (problem.code, instead in problem.hint) == ("FQ228", True)
    assert not problems_of(JobSpec("a", run=Shell(instead)))


def test_a_command_as_a_list_with_words_for_a_shell_is_shown_as_a_text() -> None:
    command = ("tar", "-cf", "it's", "*.x", "${{ run.id }}", ">", "a b")
    problem, _ = problems_of(JobSpec("a", run=Shell(command)))
    text = problem.hint.partition(": run: ")[2]
    workflow = parse_workflow(f"jobs: {{a: {{run: {text}}}}}", "x.yaml")
    assert workflow.jobs[0].run == Shell("tar -cf 'it'\"'\"'s' *.x ${{ run.id }} > 'a b'")
