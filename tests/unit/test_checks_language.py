"""The rules of groups, conditions, commands and schedules, one by one."""

from __future__ import annotations

from typing import Any

import pytest

from flowq.checks import check
from flowq.compiling import find_problems
from flowq.errors import Problem
from flowq.graph import build_graph
from flowq.spec import (
    Block,
    Defaults,
    ForEach,
    Input,
    JobSpec,
    Matrix,
    Schedule,
    Shell,
    Tolerance,
    Workflow,
)
from tests.reading import parse_workflow

CALL = "tasks:run"
EACH = ForEach([1, 2])


def problems_of(*jobs: JobSpec, **said: Any) -> list[Problem]:
    workflow = Workflow("w", jobs, **said)
    return check(workflow, build_graph(workflow))


def only_problem_of(*jobs: JobSpec, **said: Any) -> Problem:
    (problem,) = problems_of(*jobs, **said)
    return problem


def call(name: str = "a", **said: Any) -> JobSpec:
    return JobSpec(name, CALL, **said)


@pytest.mark.parametrize(
    ("job", "names"),
    [
        (call(with_={"x": "${{ item }}"}), "item"),
        (call(with_={"x": "${{ index }}"}, matrix=Matrix({"m": [1]})), "index"),
        (call(with_={"x": "${{ matrix.m }}"}, for_each=EACH), "matrix"),
        (call(with_={"x": "${{ result }}"}, for_each=EACH), "result"),
        (call(with_={"x": "${{ failure() }}"}), "failure()"),
        (call(if_="env.HOME == ''"), "env"),
        (call(if_="secrets.HOME == ''"), "secrets"),
        (call(for_each=ForEach("${{ secrets.LIST }}")), "secrets"),
        (call(for_each=ForEach("${{ item }}")), "item"),
        (call(for_each=ForEach([1], key="result")), "result"),
        (call(for_each=ForEach([1], more="env.X")), "env"),
        (call(matrix=Matrix({"m": "${{ run.id }}"})), "run"),
        (call(matrix=Matrix({"m": [1]}, stop_when="item")), "item"),
        (call(env={"X": "${{ always() }}"}), "always()"),
    ],
)
def test_a_name_where_it_has_no_value_is_a_problem(job: JobSpec, names: str) -> None:
    problem = only_problem_of(job)
    assert problem.code == "FQ213"
    assert f"uses {names}" in problem.message.replace("`", "")
    assert problem.hint


@pytest.mark.parametrize(
    "job",
    [
        call(with_={"x": "${{ item.a ~ index ~ env.X ~ run.id }}"}, for_each=EACH),
        call(env={"x": "${{ matrix.m ~ env.X }}"}, matrix=Matrix({"m": [1]})),
        call(if_="item > 2 and success()", for_each=EACH),
        call(for_each=ForEach([1], "item.id", "result.links", 9, "result and index > 2")),
        call(matrix=Matrix({"m": [1]}, ({"n": 2},), (), "result < matrix.m + matrix.n")),
        call(cwd="out/${{ item }}", for_each=EACH),
        call(with_={"x": "${{ secrets.TOKEN }}"}, env={"X": "${{ secrets.TOKEN }}"}),
        JobSpec("a", run=Shell("echo ${{ secrets.X }} ${{ env.X }}"), cwd="${{ env.HOME }}"),
        JobSpec("a", run=Shell(("echo", "--x=${{ secrets.X }}", "${{ env.X }}"))),
        JobSpec("a", run=Shell("echo ${{ item }}"), for_each=EACH),
    ],
)
def test_a_name_where_it_has_a_value_is_none(job: JobSpec) -> None:
    assert problems_of(job) == []


@pytest.mark.parametrize(
    "name",
    ["TOKEN", "UPLOAD_TOKEN", "AWS_ACCESS_KEY_ID", "db_password", "SECRETS", "MY_CREDENTIALS"],
)
def test_a_variable_that_looks_like_a_secret_is_a_warning(name: str) -> None:
    for job in (
        call(with_={"x": [f"${{{{ env.{name} }}}}"]}),
        call(env={"X": f"${{{{ env.{name} }}}}"}),
        JobSpec("a", run=Shell(("echo", f"${{{{ env.{name} }}}}"))),
    ):
        problem = only_problem_of(job)
        assert (problem.code, problem.severity) == ("FQ229", "warning")
        assert f"secrets.{name}" in problem.hint
    (problem,) = problems_of(call(), env={"X": f"${{{{ env.{name} }}}}"})
    assert problem.code == "FQ229"


def test_a_variable_that_does_not_look_like_one_is_none() -> None:
    for name in ("HOME", "KEYBOARD", "MONKEY", "TOKENIZER", "DEST"):
        assert problems_of(call(with_={"x": f"${{{{ env.{name} }}}}"})) == []


@pytest.mark.parametrize(
    ("expression", "is_several"),
    [
        ("inputs.files", True),
        ("inputs.data", False),
        ("inputs.files[0]", False),
        ("inputs.files | json", False),
        ("jobs.each.results", True),
        ("jobs.each.results[0]", False),
        ("jobs.inner.result", True),
        ("jobs.inner.result.x", False),
        ("jobs.one.result", False),
        ("matrix", True),
        ("matrix.m", False),
    ],
)
def test_an_argument_that_is_known_to_be_several_values_is_a_problem(
    expression: str, is_several: bool
) -> None:
    inner = Workflow("inner", (call("a"),), outputs={"x": "${{ jobs.a.result }}"})
    found = problems_of(
        call("one"),
        call("each", for_each=EACH),
        JobSpec("inner", workflow="inner"),
        JobSpec(
            "a",
            run=Shell(("echo", f"--x=${{{{ {expression} }}}}")),
            matrix=Matrix({"m": [1]}),
        ),
        call("b", with_={"x": "${{ inputs.files ~ inputs.data }}"}),
        inputs=(Input("files", "list"), Input("data", "json")),
        workflows={"inner": inner},
    )
    assert [problem.code for problem in found] == ["FQ235"] * is_several


@pytest.mark.parametrize(
    ("command", "is_code"),
    [
        ("[sh, -c, 'echo ${{ inputs.s }}']", True),
        ("[bash, -ec, '${{ inputs.s }}']", True),
        ("[env, A=b, sh, -c, '${{ inputs.s }}']", True),
        ("[docker, exec, box, python3, -c, 'print(${{ inputs.s }})']", True),
        ("[perl, -e, '${{ inputs.s }}']", True),
        ("[sh, -c, 'echo $1', sh, '${{ inputs.s }}']", False),
        ("[python3, -c, 'import sys; print(sys.argv)', '${{ inputs.s }}']", False),
        ("[python3, script.py, '${{ inputs.s }}']", False),
        ("[echo, -c, '${{ inputs.s }}']", False),
        ("['${{ inputs.s }}', -c, x]", False),
    ],
)
def test_a_value_is_no_code_of_a_program_in_a_list(command: str, is_code: bool) -> None:
    text = f"name: c\ninputs: {{s: {{default: x}}}}\njobs: {{a: {{run: {command}}}}}"
    workflow = parse_workflow(text, "c.yaml")
    found = [problem.code for problem in check(workflow, build_graph(workflow))]
    assert found == ["FQ228"] * is_code


def test_names_of_the_workflow_itself_are_checked_too() -> None:
    said = {"outputs": {"x": "${{ jobs.b.result }} ${{ env.X }} ${{ inputs.y }}"}}
    assert sorted(p.code for p in problems_of(call(), **said)) == ["FQ204", "FQ205", "FQ213"]
    assert problems_of(call(), outputs={"x": "${{ jobs.a.result }}"}) == []


@pytest.mark.parametrize(
    ("attribute", "group", "is_right"),
    [
        ("result", None, True),
        ("results", None, False),
        ("outcomes", None, False),
        ("by_key['a']", None, False),
        ("status", None, True),
        ("result", EACH, False),
        ("results", EACH, True),
        ("outcomes", EACH, True),
        ("by_key['a']", EACH, True),
        ("status", EACH, True),
        ("error", None, True),
        ("error.type", None, True),
        ("error", EACH, False),
        ("attempts", None, True),
        ("attempts", EACH, False),
        ("exit_code", None, False),
        ("exit_code", EACH, False),
    ],
)
def test_a_group_has_results_and_a_job_has_one(
    attribute: str, group: ForEach | None, is_right: bool
) -> None:
    user = call("b", with_={"x": f"${{{{ jobs.a.{attribute} }}}}"})
    codes = [problem.code for problem in problems_of(call(for_each=group), user)]
    assert codes == ([] if is_right else ["FQ212"])


def test_a_shell_job_has_an_exit_code_and_an_error_has_two_parts() -> None:
    shell = JobSpec("a", run=Shell("true"))
    said = "${{ [jobs.a.exit_code, jobs.a.error.message] }}"
    assert problems_of(shell, call("b", with_={"x": said})) == []
    (problem,) = problems_of(shell, call("b", with_={"x": "${{ jobs.a.error.massage }}"}))
    assert (problem.code, problem.hint) == ("FQ303", "did you mean 'message'?")


@pytest.mark.parametrize(
    ("matrix", "code"),
    [
        (Matrix(), "FQ214"),
        (Matrix({"a": []}), "FQ214"),
        (Matrix({"a": [1, 1]}), "FQ214"),
        (Matrix({"a": list(range(200)), "b": list(range(200))}), "FQ214"),
        (Matrix({"a": list(range(5_000))}, include=({"b": 1},) * 401), "FQ214"),
        (Matrix(include=tuple({"b": at} for at in range(10_001))), "FQ214"),
        (Matrix({"a": [1]}, exclude=({"b": 1},)), "FQ215"),
    ],
)
def test_a_matrix_has_combinations(matrix: Matrix, code: str) -> None:
    assert only_problem_of(call(matrix=matrix)).code == code


def test_true_and_one_are_not_twice_the_same() -> None:
    assert problems_of(call(matrix=Matrix({"a": [1, True, "1", 1.0]}))) == []


def test_success_alone_leaves_the_policy_to_the_job() -> None:
    before, after = call("b"), {"needs": ("b",)}
    assert problems_of(before, call(if_="success()", on_blocker_failure="wait", **after)) == []
    problem = only_problem_of(before, call(if_="failure()", on_blocker_failure="run", **after))
    assert problem.code == "FQ217"


@pytest.mark.parametrize(
    "said", [{"max_parallel": 2}, {"fail_fast": True}, {"continue_on_error": Tolerance(percent=20)}]
)
def test_a_limit_of_a_group_at_a_single_job_is_a_warning(said: dict[str, Any]) -> None:
    problem = only_problem_of(call(**said))
    assert (problem.code, problem.severity) == ("FQ222", "warning")
    assert problems_of(call(for_each=EACH, **said)) == []


@pytest.mark.parametrize("job", [JobSpec("a"), JobSpec("a", CALL, run=Shell("date"))])
def test_a_job_does_one_thing(job: JobSpec) -> None:
    assert only_problem_of(job).code == "FQ117"


@pytest.mark.parametrize(
    ("schedule", "code"),
    [
        (Schedule("0 0 * *"), "FQ220"),
        (Schedule("@daily"), "FQ220"),
        (Schedule("61 0 * * *"), "FQ220"),
        (Schedule("0 0 30 2 *"), "FQ220"),
        (Schedule("1," * 100_000 + "1 * * * *"), "FQ220"),
        (Schedule("0 0 * * *", "Mars/Olympus"), "FQ221"),
        (Schedule("0 0 * * *", "../etc/passwd"), "FQ221"),
        (Schedule("0 0 * * *", ""), "FQ221"),
    ],
)
def test_a_schedule_can_be_understood(schedule: Schedule, code: str) -> None:
    assert only_problem_of(call(), schedule=schedule).code == code


@pytest.mark.parametrize(
    ("shell", "written"),
    [
        ("cmd", "write !NAME!"),
        ("cmd.exe", "write !NAME!"),
        (r"C:\\Windows\\System32\\CMD.EXE", "write !NAME!"),
        ("pwsh", "write $env:NAME"),
        ("powershell.exe", "write $env:NAME"),
        ("python", "write os.environ['NAME']"),
        ("python3", "write os.environ['NAME']"),
        ("/usr/bin/python3.12", "write os.environ['NAME']"),
        ("pythonw.exe", "write os.environ['NAME']"),
        ("fish", 'write "$NAME"'),
        ("perl", "write $ENV{NAME}"),
        ("nu", "write $env.NAME"),
        ("./bin/tclsh", "read that variable"),
        ("yash", "read that variable"),
    ],
)
def test_a_shell_whose_quotes_are_not_known_gets_no_expressions(shell: str, written: str) -> None:
    problem = only_problem_of(JobSpec("a", run=Shell("echo ${{ run.id }}", shell)))
    assert problem.code == "FQ224"
    assert written in problem.hint
    assert problems_of(JobSpec("a", run=Shell("echo $${{ x }}", shell))) == []


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("echo '§'", 'write "${{ run.id }}"'),
        ("echo $(( § + 1 ))", "${{ run.id + 1 }}"),
        ("[[ § -eq 1 ]]", "[ ${{ run.id == 1 }} = true ]"),
        ('sh -c "ls §"', '[program, "${{ run.id }}"]'),
        ("eval §", 'env: {ID: "${{ run.id }}"}'),
        ("echo `ls §`", "$(…)"),
        ("printf §", "printf '%s\\n' ${{ run.id }}"),
        ("export A=§", "NAME=${{ run.id }}"),
        ("cat <<'EOF'\n§\nEOF", "<<EOF"),
    ],
)
def test_a_value_that_could_become_code_is_refused_with_what_to_write(
    command: str, instead: str
) -> None:
    problem = only_problem_of(JobSpec("a", run=Shell(command.replace("§", "${{ run.id }}"))))
    assert problem.code == "FQ228"
    assert instead in problem.hint


@pytest.mark.parametrize(
    ("more", "is_told"),
    [
        ({"run": Shell("${{ inputs.any }} x")}, True),
        ({"run": Shell("./${{ inputs.any }}.sh x")}, True),
        ({"run": Shell("${{ inputs.one }} x")}, False),
        ({"run": Shell("echo $(${{ inputs.any }})")}, True),
        ({"run": Shell("echo $(cat ${{ inputs.any }})")}, False),
        ({"run": Shell("${{ matrix.p }} x"), "matrix": Matrix({"p": ["a", "b"]})}, False),
        ({"run": Shell("${{ matrix.p }} x"), "matrix": Matrix({"p": "${{ inputs.l }}"})}, True),
        ({"run": Shell("${{ item }} x"), "for_each": ForEach(["a", "b"])}, False),
        ({"run": Shell("${{ item }} x"), "for_each": ForEach("${{ inputs.l }}")}, True),
        ({"run": Shell("${{ item ~ 'x' }} x"), "for_each": ForEach(["a"])}, True),
    ],
)
def test_the_program_of_a_command_comes_from_a_list(more: dict[str, Any], is_told: bool) -> None:
    declared = (
        Input("any"),
        Input("one", "enum", choices=("a", "b")),
        Input("l", "list"),
    )
    found = problems_of(JobSpec("a", **more), inputs=declared)
    told = [each for each in found if each.code == "FQ237"]
    assert [each.severity for each in told] == ["warning"] * is_told
    assert {each.code for each in found} <= {"FQ237", "FQ211"}


@pytest.mark.parametrize("said", [{"if_": "failure()"}, {"on_blocker_failure": "run"}])
def test_a_question_about_jobs_before_it_needs_some(said: dict[str, Any]) -> None:
    problem = only_problem_of(call(**said))
    assert (problem.code, problem.severity) == ("FQ225", "warning")
    assert problems_of(call("b"), call(needs=("b",), **said)) == []
    assert problems_of(call(if_="always()")) == []


@pytest.mark.parametrize(
    ("kind", "is_right"), [("list", True), ("json", True), ("int", False), ("str", False)]
)
def test_a_group_is_made_of_a_list(kind: Any, is_right: bool) -> None:
    inputs = (Input("x", kind),)
    for group in (
        {"for_each": ForEach("${{ inputs.x }}")},
        {"matrix": Matrix({"a": "${{ inputs.x }}"})},
    ):
        codes = [problem.code for problem in problems_of(call(**group), inputs=inputs)]
        assert codes == ([] if is_right else ["FQ226"])


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ("${{ 3 }}", "the number 3, not a list"),
        ("${{ [1, 2] | len }}", "the number 2, not a list"),
        ("${{ 'abc' }}", "the text 'abc', not a list"),
        ("${{ {'a': 1} }}", "a map of 1, not a list"),
        ("${{ none }}", "none, not a list"),
        ("${{ run.id }}", "run.id, which is text"),
        ("${{ jobs.list.status }}", "jobs.list.status, which is text"),
        ("${{ jobs.list.exit_code }}", "jobs.list.exit_code, which is a number"),
        ("${{ jobs.list.result }}", "jobs.list.result, which is text"),
        ("${{ range(3) }}", ""),
        ("${{ jobs.list.result | split }}", ""),
        ("${{ jobs.lines.result }}", ""),
        ("${{ jobs.called.result }}", ""),
    ],
)
def test_what_is_surely_no_list_makes_no_group(items: str, told: str) -> None:
    jobs = (
        JobSpec("list", run=Shell("ls")),
        JobSpec("lines", run=Shell("ls", result="lines")),
        call("called"),
    )
    found = problems_of(*jobs, call("group", for_each=ForEach(items)))
    assert [each.code for each in found] == ["FQ226"] * bool(told)
    assert all(told in each.message and each.hint for each in found)


def test_the_default_of_results_says_whether_a_command_gives_a_list() -> None:
    jobs = (
        JobSpec("list", run=Shell("ls")),
        call("group", for_each=ForEach("${{ jobs.list.result }}")),
    )
    assert problems_of(*jobs, defaults=Defaults(result="lines")) == []


# Constants -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "key"),
    [
        (call(with_={"x": ["${{ 1 / 0 }}"]}), "with"),
        (call(env={"X": "${{ len(5) }} and more"}), "env"),
        (call(cwd="${{ first([]) }}"), "cwd"),
        (call(if_="1 / 0"), "if"),
        (call(for_each=ForEach("${{ [1] + 1 }}")), "for_each"),
        (call(for_each=ForEach([1], key="[][0]")), "key"),
        (call(matrix=Matrix({"m": "${{ range(1, 2, 0) }}"})), "matrix"),
        (JobSpec("a", run=Shell("echo ${{ inputs.x }} ${{ 'a' + 1 }}")), "run"),
    ],
)
def test_an_expression_of_constants_that_never_has_a_value_is_a_problem(
    job: JobSpec, key: str
) -> None:
    problem = only_problem_of(job, inputs=(Input("x", "int", 1),) if key == "run" else ())
    assert problem.code == "FQ305"


def test_such_an_expression_of_the_workflow_itself_is_a_problem_too() -> None:
    said = {"env": {"X": "${{ 1 / 0 }}"}, "outputs": {"o": "${{ len(5) }}"}}
    assert [each.code for each in problems_of(call(), **said)] == ["FQ305", "FQ305"]


def test_each_such_expression_is_told_once_and_quoted() -> None:
    problems = problems_of(call(with_={"x": "${{ 1/0 }} ${{ 1/0 }} ${{ len(5) }}"}))
    assert [each.message for each in problems] == [
        "`${{ 1/0 }}`: this divides by zero",
        "`${{ len(5) }}`: len does not work with the number 5",
    ]


@pytest.mark.parametrize(
    "expression",
    [
        "1 / 0 if inputs.x else 2",
        "inputs.x and 1 / 0",
        "1 / 0 + inputs.x",
        "default([][0], 2)",
        "[].x is defined",
        "1 / 0 if false else 2",
    ],
)
def test_what_depends_on_values_or_has_one_is_none(expression: str) -> None:
    job = call(with_={"x": f"${{{{ {expression} }}}}"})
    problems = problems_of(job, call("b", with_={"x": "${{ inputs.x }}"}), inputs=(Input("x"),))
    assert problems == []


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("jobs.a.status == 'success'", ["success"]),
        ("'success' == jobs.a.status", ["success"]),
        ("jobs.a.status != 'succeeded' and inputs.x", ["succeeded"]),
        ("jobs['a'].status in ['finished', 'passed', 'error']", ["passed", "error"]),
        ("jobs.a.status not in ('done', 'failed')", ["done"]),
        ("len([jobs.a.status == 'Finished']) == 1", ["Finished"]),
        ("'x' if jobs.a.status == 'queued' else 'y'", ["queued"]),
        ("jobs.a.status in ['finished', 'failed', 'stopped', 'canceled']", []),
        ("jobs.a.status == inputs.x or 'skipped' == jobs.a.status", []),
        ("jobs.a.result == 'success'", []),
        ("jobs.a.status == none", []),
    ],
)
def test_a_status_that_no_job_has_is_refused(condition: str, words: list[str]) -> None:
    text = f'inputs: {{x: {{}}}}\njobs:\n  a: {{run: x}}\n  b: {{run: "y", if: "{condition}"}}\n'
    found = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    told = [each for each in found if each.code == "FQ307"]
    assert [each.message.rpartition(" ")[2].strip("'") for each in told] == words
    assert all("finished" in each.hint for each in told)


# finally -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jobs", "codes"),
    [
        ([call("a"), call("end", is_final=True)], []),
        ([call("a"), call("end", is_final=True), call("next", is_final=True, needs=("end",))], []),
        ([call("a"), call("end", is_final=True, with_={"x": "${{ jobs.a.result }}"})], []),
        ([call("a"), call("end", is_final=True, with_={"x": "${{ run.status }}"})], []),
        ([call("a"), call("end", is_final=True, if_="len(run.failures) > 1")], []),
        ([call("a"), call("end", is_final=True, needs=("a",))], ["FQ232"]),
        ([call("a", blocks=(Block("end"),)), call("end", is_final=True)], ["FQ232"]),
        ([call("a", needs=("end",)), call("end", is_final=True)], ["FQ232"]),
        ([call("a", with_={"x": "${{ jobs.end.result }}"}), call("end", is_final=True)], ["FQ232"]),
        ([call("a", with_={"x": "${{ run.status }}"})], ["FQ213"]),
        ([call("a", if_="run.failures | len")], ["FQ213"]),
        ([call("a"), call("end", is_final=True, with_={"x": "${{ run.state }}"})], ["FQ303"]),
        ([call("a"), call("end", is_final=True, if_="run.status == 'success'")], ["FQ307"]),
        ([call("a"), call("end", is_final=True, if_="run.status in ['failed']")], []),
        (
            [call("a", needs=("end",)), call("b"), call("end", is_final=True, needs=("b",))],
            ["FQ232", "FQ232"],
        ),
        ([call("a"), call("a", is_final=True)], ["FQ208"]),
        ([call("end", is_final=True)], ["FQ210"]),
    ],
)
def test_what_runs_at_the_end_is_apart_from_the_others(
    jobs: list[JobSpec], codes: list[str]
) -> None:
    assert [problem.code for problem in problems_of(*jobs)] == codes


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("run.failures[0].name", "there are job, error, exit_code"),
        ("run.failures[-1]['exit_cod']", "did you mean 'exit_code'?"),
        ("run.failures | map('jub')", "did you mean 'job'?"),
        ("map(run.failures, 'error.type') | select('x') | len", None),
        ("jobs.g.outcomes[0].statuz", "did you mean 'status'?"),
        ("jobs.g.outcomes | select('status', 'failed') | len", None),
        ("reject(jobs.g.outcomes, 'state')", "did you mean 'status'?"),
        ("run.failures[0].job", None),
        ("jobs.g.results[0].name", None),
    ],
)
def test_the_fields_of_an_entry_are_known(source: str, hint: str | None) -> None:
    jobs = (call("g", for_each=EACH), call("z", is_final=True, with_={"x": f"${{{{ {source} }}}}"}))
    assert [(p.code, p.hint) for p in problems_of(*jobs)] == ([("FQ303", hint)] if hint else [])


def test_an_expression_that_cannot_be_read_hides_no_unknown_names() -> None:
    text = "jobs:\n  a: {run: x, if: \"inputs.x && jobs.nobody.status == 'inputs.y'\"}\n"
    found = find_problems(parse_workflow(text, "x.yaml"), imports=False)
    assert [p.code for p in found] == ["FQ301", "FQ205", "FQ204"]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("ls", "*.txt", "|", "wc", "-l"), ["*.txt", "|"]),
        (("cp", "$HOME/x", "~/y", "2>&1"), ["$HOME/x", "~/y", "2>&1"]),
        (("docker", "run", "-v", "${PWD}:/w", "x"), ["${PWD}:/w"]),
        (("echo", "$(date)", "price: $5", "a & b"), ["$(date)"]),
        (("find", ".", "-name", "*.md", "-exec", "rm", "{}", ";"), []),
        (("awk", "{print $NF}", "f"), []),
        (("bash", "-c", "a | b && c $HOME", "|"), []),
        (("tar", "-cf", "x.tar", "--exclude=*.pyc", "src/*.py"), ["src/*.py"]),
        (("wc", "--files0-from=${{ run.id }}"), []),
        (("grep", "-E", "a|b$", "f"), []),
    ],
)
def test_words_for_a_shell_in_a_list_get_a_warning(
    command: tuple[str, ...], words: list[str]
) -> None:
    found = [p for p in problems_of(JobSpec("a", run=Shell(command))) if p.code == "FQ239"]
    assert [p.message.split(" passes ")[1].split(" as an ")[0] for p in found] == words
    assert {p.severity for p in found} <= {"warning"}
