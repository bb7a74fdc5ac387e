"""`${{ … }}`: what is found, what comes out, and what nobody gets out."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowq.errors import Problem, WorkflowInvalid
from flowq.expressions import escape, evaluate, fill, find_references

INPUTS = {"size": 256, "name": "sun", "items": [1, 2, 3], "flag": True, "none": None}
RESULTS: dict[str, Any] = {
    "photos": ["a/one.jpg", "a/two.jpg"],
    "build-web": {"url": "http://x", "keys": "not a method"},
    "when": date(2026, 1, 2),
}


def value_of(source: str) -> Any:
    return evaluate(f"${{{{ {source} }}}}", inputs=INPUTS, results=RESULTS)


def refusal_of(source: str) -> Problem:
    with pytest.raises(WorkflowInvalid) as caught:
        value_of(source)
    (problem,) = caught.value.problems
    return problem


def problems_of(text: str) -> list[str]:
    return [problem.code for problem in find_references(text).problems]


# References


def test_references_are_found_however_deep_they_stand() -> None:
    value = {
        "a": ["${{ inputs.size + 1 }}", {"b": "x ${{ jobs.photos.result[0] }} y"}],
        "c": "${{ jobs['build-web'].result | json }}${{ jobs.photos.result }}",
        "d": 3,
    }
    found = find_references(value)
    assert found.inputs == {"size"}
    assert found.jobs == (("photos", "result"), ("build-web", "result"))
    assert found.problems == ()


@pytest.mark.parametrize("source", ["jobs.build-web.result", "jobs['build-web'].result"])
def test_a_hyphen_in_a_job_name_is_not_a_minus(source: str) -> None:
    assert find_references(f"${{{{ {source} }}}}").jobs == (("build-web", "result"),)
    assert value_of(source) == RESULTS["build-web"]
    assert value_of(f"len({source})") == 2


def test_a_minus_after_a_result_is_a_minus() -> None:
    assert evaluate("${{ jobs.a.result-1 }}", results={"a": 3}) == 2


def test_a_job_name_in_quotes_is_text() -> None:
    assert find_references("${{ 'jobs.a-b.result' }}").jobs == ()
    assert value_of("'jobs.a-b.result'") == "jobs.a-b.result"


def test_text_without_an_expression_refers_to_nothing() -> None:
    assert find_references("$${{ jobs.x.result }} {{ y }} $ { }").jobs == ()


@pytest.mark.parametrize(
    ("source", "code", "hint"),
    [
        ("inptus.size", "FQ302", "did you mean 'inputs'?"),
        ("lenn(inputs.items)", "FQ302", "did you mean 'len'?"),
        ("inputs.items | leng", "FQ302", "did you mean 'len'?"),
        ("null", "FQ302", "write none"),
        ("contains(inputs.items, 1)", "FQ302", "write `b in a`"),
        ("range", "FQ302", "call it"),
        ("inputs.name.upper()", "FQ302", "write x | upper"),
        ("inputs", "FQ303", "inputs.NAME"),
        ("inputs[inputs.name]", "FQ303", "inputs.NAME"),
        ("jobs.photos", "FQ303", "jobs.NAME.result"),
        ("jobs.photos.foo", "FQ303", "jobs.photos.result"),
        ("jobs.photos.reslts", "FQ303", "jobs.photos.results"),
        ("run.number", "FQ303", "run.id"),
        ("env", "FQ303", "env.NAME"),
        ("run", "FQ303", "run.id"),
        ("success", "FQ302", "success()"),
        ("success('a')", "FQ301", "all jobs before"),
        ("inputs.size | success", "FQ302", ""),
        ("secrets", "FQ303", "secrets.NAME"),
        ('secrets["../KEY"]', "FQ303", "letters, digits"),
        ("inputs.size && inputs.flag", "FQ301", "write `and`"),
        ("inputs.size || 3", "FQ301", "write `or`"),
        ("!inputs.flag", "FQ301", "write `not`"),
        ("inputs.flag ? 1 : 2", "FQ301", "a if condition else b"),
        ("inputs.size = 3", "FQ301", "=="),
        ("inputs.size === 3", "FQ301", "=="),
        ("$inputs.size", "FQ301", "have no $"),
        ("inputs.size +", "FQ301", ""),
        ("inputs.size inputs.name", "FQ301", ""),
        ("'open", "FQ301", ""),
        ("", "FQ301", ""),
        ("len(*inputs.items)", "FQ301", ""),
        ("1 is divisibleby 3", "FQ302", ""),
    ],
)
def test_what_is_wrong_is_known_before_anything_runs(source: str, code: str, hint: str) -> None:
    (problem,) = find_references(f"${{{{ {source} }}}}").problems
    assert problem.code == code
    assert hint in problem.hint
    assert source.strip() in problem.message
    assert refusal_of(source).code == code


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("succes()", "did you mean 'success'?"),
        ("'{0}'.format(1)", "put several ${{ }} into one text, or join texts with ~"),
    ],
)
def test_a_misspelt_question_and_a_foreign_method_are_known(source: str, hint: str) -> None:
    assert refusal_of(source).hint == hint


def test_an_expression_that_is_never_closed_is_a_problem() -> None:
    assert problems_of("a ${{ inputs.size") == ["FQ301"]
    assert problems_of("a ${{ inputs.size }") == ["FQ301"]


# Values


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("inputs.size", 256),
        ("inputs.items", [1, 2, 3]),
        ("inputs.none", None),
        ("inputs.size / 2 - 1", 127.0),
        ("inputs.size // 3 * 2 % 7 ** 1", 2),
        ("-inputs.size", -256),
        ("not inputs.flag", False),
        ("inputs.flag and inputs.size", 256),
        ("inputs.none or 'x'", "x"),
        ("1 if inputs.flag else 2", 1),
        ("1 < 2 <= 2 != 3", True),
        ("2 in inputs.items and 9 not in inputs.items", True),
        ("inputs.items[0] + inputs.items[-1]", 4),
        ("inputs.items[1:]", [2, 3]),
        ("jobs.build-web.result.url", "http://x"),
        ("jobs.build-web.result.keys", "not a method"),
        ("jobs.build-web.result['url']", "http://x"),
        ("{'a': {'b': [1, (2, 3)]}}", {"a": {"b": [1, [2, 3]]}}),
        ("inputs.name ~ '-' ~ inputs.size ~ true ~ none", "sun-256truenull"),
        ("'}}' ~ \"{{\"", "}}{{"),
        ("len(inputs.items)", 3),
        ("inputs.items | len", 3),
        ("range(1, 6, 2)", [1, 3, 5]),
        ("zip(inputs.items, 'abc')", [[1, "a"], [2, "b"], [3, "c"]]),
        ("chunks(range(5), 2)", [[0, 1], [2, 3], [4]]),
        ("json({'a': none, 'é': 1.5})", '{"a": null, "é": 1.5}'),
        ("basename(jobs.photos.result[0])", "one.jpg"),
        ("jobs.photos.result | first | stem", "one"),
        ("inputs.items | join('-')", "1-2-3"),
        ("inputs.items | reverse | sort | sum", 6),
        ("sort([2, 3, 1], reverse=true)", [3, 2, 1]),
        ("'a,b' | split(',') | last | upper | lower | title | trim", "B"),
        ("unique([1, 1, 2])", [1, 2]),
        ("'aXa' | replace('a', 'b')", "bXb"),
        ("int('7') + float('0.5') + round(2.345, 1) + abs(-1)", 10.8),
        ("str(inputs.size)", "256"),
        ("min(inputs.items) + max(3, 4)", 5),
        ("keys({'a': 1}) + values({'a': 'b'})", ["a", "b"]),
        ("items({'a': 1})", [["a", 1]]),
        ("default(inputs.unknown, 5)", 5),
        ("jobs.build-web.result.nothing | default('x')", "x"),
        ("inputs.unknown is defined", False),
        ("inputs.size is defined and inputs.size is number", True),
        ("inputs.none is none and inputs.name is string and inputs.flag is boolean", True),
        ("inputs.items is sequence and jobs.build-web.result is mapping", True),
        ("jobs.when.result", date(2026, 1, 2)),
    ],
)
def test_an_expression_gives_a_native_value(source: str, value: Any) -> None:
    found = value_of(source)
    assert found == value
    assert type(found) is type(value)


def test_a_value_that_is_wholly_one_expression_keeps_its_type_else_it_is_text() -> None:
    assert evaluate("${{inputs.size}}", inputs=INPUTS) == 256
    assert evaluate("${{ inputs.size }} px", inputs=INPUTS) == "256 px"
    assert evaluate("${{ inputs.size }}${{ inputs.flag }}", inputs=INPUTS) == "256true"
    assert evaluate("x${{ inputs.items }}${{ inputs.none }}", inputs=INPUTS) == "x[1, 2, 3]null"


def test_lists_and_mappings_are_evaluated_inside_and_keys_are_not() -> None:
    value = {"${{ a }}": ["${{ inputs.size }}", ("x", 1, None)]}
    assert evaluate(value, inputs=INPUTS) == {"${{ a }}": [256, ["x", 1, None]]}


def test_dollars_escape() -> None:
    assert evaluate("$${{ x }} costs $5 {{ y }}") == "${{ x }} costs $5 {{ y }}"
    assert evaluate("$$${{ x }}") == "$${{ x }}"


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("inputs.size / 0", "divides by zero"),
        ("inputs.size + 'x'", "+ does not work with the number 256 and the text 'x'"),
        ("1 < 'a'", "< does not work"),
        ("inputs.unknown", "there is no inputs.unknown"),
        ("jobs.unknown.result", "job unknown"),
        ("jobs.build-web.result.nothing", "has no 'nothing'"),
        ("inputs.items[7]", "inputs.items is a list of 3, and has no item 7"),
        ("inputs.size.x", "inputs.size is the number 256, and that has no 'x'"),
        ("inputs.size[1:]", "cannot be sliced"),
        ("[1, 2][::0]", "a step that is not 0"),
        ("[1, 2]['a':]", "a slice needs whole numbers"),
        ("-inputs.name", "not a number"),
        ("upper(3)", "upper does not work with the number 3"),
        ("int('x')", "int does not work with the text 'x'"),
        ("max([])", "max does not work"),
        ("chunks(inputs.items, 0)", "at least 1"),
        ("zip([1], [1, 2])", "same length"),
        ("'%d' % 3", "does not format"),
        ("{1: 2}", "keys of a map"),
        ("jobs.when.result + 1", "+ does not work with the date 2026-01-02 and the number 1"),
        ("(0 - 8) ** 0.5", "a negative number has no real root"),
    ],
)
def test_an_error_quotes_the_expression_and_says_which_part(source: str, part: str) -> None:
    problem = refusal_of(source)
    assert problem.code == "FQ305"
    assert f"`${{{{ {source} }}}}`" in problem.message
    assert part in problem.message


@pytest.mark.parametrize(
    ("source", "part", "hint"),
    [
        ("-5s", "there is no operator in front of s", "put a text in quotes"),
        ("inputs.size inputs.name", "no operator in front of inputs", "and, == or ~"),
        ("10:30", "there is a : where it has no meaning", "put a text in quotes"),
        ("1, 2", "there is a , where it has no meaning", "[a, b]"),
        ("1 else 2", "`else` stands without an `if`", "a if condition else b"),
        ("not", "it ends too early", "missing at its end"),
        ("(1", "it ends too early", "missing at its end"),
        (")", "there is ) where a value should be", "remove it"),
        ("{'a' 1}", "there is a number where : should be", "remove it"),
        ("inputs.", "a name is missing after a dot", "inputs.NAME"),
        ("'abc", "a text is opened with ' and not closed", "close it"),
        ("{{ inputs.size }}", "{{ has no meaning", "braces"),
        ("{% if inputs.size %}", "{% has no meaning", "for_each"),
        ("[x for x in inputs.items]", "for has no meaning", "map(x, 'key')"),
        ("1 # one", "# has no meaning", "in quotes"),
        ("`ls`", "` has no meaning", "in quotes"),
        ("yes", "unknown name 'yes'", "write true"),
        ("1e999", "too large", "in quotes"),
    ],
)
def test_what_cannot_be_read_is_said_in_words_with_a_way_out(
    source: str, part: str, hint: str
) -> None:
    (problem, *_) = find_references(f"${{{{ {source} }}}}").problems
    assert problem.code in ("FQ301", "FQ302")
    assert part in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    "source",
    [
        *("range(true)", "range(1, true)", "chunks([1], true)", "round(1.5, true)"),
        *("'a' * true", "[1] * true", "[1, 2][:true]", "[1, 2][true]", "-true"),
    ],
)
def test_a_flag_is_no_number_where_something_is_counted(source: str) -> None:
    assert refusal_of(source).code == "FQ305"


def test_what_cannot_be_done_with_a_list_of_maps_tells_how_to_take_one_key() -> None:
    for name in ("sort", "max", "sum"):
        problem = refusal_of(f"[{{'a': 1}}, {{'a': 2}}] | {name}")
        assert problem.message.endswith(f"{name} does not work with a list of 2 maps")
        assert problem.hint == f"of a list of maps take one key first: | map('KEY') | {name}"


# Two phases


def test_fill_replaces_what_needs_inputs_only_and_leaves_what_names_jobs() -> None:
    value = {"a": "${{ inputs.size }}", "b": "${{ jobs.photos.result }}", "c": ["${{ 1 + 1 }}"]}
    assert fill(value, inputs=INPUTS) == {
        "a": 256,
        "b": "${{ jobs.photos.result }}",
        "c": [2],
    }


def test_a_text_that_names_a_job_stays_whole() -> None:
    text = "${{ inputs.name }}${{ jobs.photos.result }}"
    assert fill(text, inputs={"name": "$"}) == text


HOSTILE = st.text(alphabet="${} ajobs.inputx", max_size=12) | st.sampled_from(
    ["${{ jobs.x.result }}", "$${{ jobs.x.result }}", "${{ inputs.b }}", "$", "{{", "${", "}}"]
)
DATA = st.recursive(
    HOSTILE | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=6,
)


@given(DATA)
def test_data_is_never_evaluated_however_it_looks(data: Any) -> None:
    filled = fill({"whole": "${{ inputs.a }}"}, inputs={"a": data})
    assert find_references(filled).jobs == ()
    assert evaluate(filled, results={"x": "SECRET"}) == {"whole": data}


@given(HOSTILE, HOSTILE, HOSTILE)
def test_two_phases_give_what_one_would(one: str, two: str, between: str) -> None:
    text = "${{ inputs.a }}" + escape(between) + "!${{ inputs.b }}"
    filled = fill(text, inputs={"a": one, "b": two})
    assert find_references(filled).jobs == ()
    assert evaluate(filled, results={"x": "SECRET"}) == f"{one}{between}!{two}"


@given(HOSTILE, HOSTILE)
def test_data_beside_a_result_stays_data(one: str, two: str) -> None:
    text = "${{ inputs.a }}${{ jobs.y.result }}${{ inputs.a }}"
    filled = fill(text, inputs={"a": one})
    found = evaluate(filled, inputs={"a": one}, results={"x": "SECRET", "y": two})
    assert found == one + two + one


@given(DATA)
def test_escape_and_evaluate_are_inverse(data: Any) -> None:
    assert evaluate(escape(data)) == data
    assert find_references(escape(data)).problems == ()


@given(st.text(alphabet="${}[]()'\"\\.|~+-*/=<>!&?,:ab1 \n", max_size=40))
def test_nonsense_is_a_problem_and_never_an_exception(source: str) -> None:
    text = f"${{{{ {source} }}}}"
    find_references(text)
    with suppress(WorkflowInvalid):
        json.dumps(evaluate(text, inputs=INPUTS), default=str)


# Import cost


def test_a_plain_reference_does_not_import_the_engine() -> None:
    program = (
        "import sys; from flowq.expressions import evaluate\n"
        "assert evaluate('${{ jobs.a.result }}', results={'a': 3}) == 3\n"
        "assert evaluate('x ${{ inputs.a }}', inputs={'a': 3}) == 'x 3'\n"
        "sys.exit('jinja2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


PHOTOS = [
    {"name": "a", "status": "failed", "owner": {"id": 1}},
    {"name": "b", "status": "finished", "size": 0},
    {"name": "c", "status": None, "size": 2.0},
]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("inputs.photos | map('name')", ["a", "b", "c"]),
        ("map(inputs.photos[:1], 'owner.id')", [1]),
        ("inputs.photos | select('status', 'failed') | map('name')", ["a"]),
        ("inputs.photos | reject('status', 'failed') | map('name')", ["b", "c"]),
        ("inputs.photos | select('size') | map('name')", ["c"]),
        ("inputs.photos | reject('size') | map('name')", ["a", "b"]),
        ("inputs.photos | select('size', 2) | len", 1),
        ("inputs.photos | select('owner.id', true) | len", 0),
        ("inputs.photos | select('status', none) | map('name')", ["c"]),
        ("[0, 1, '', 'x', none] | select", [1, "x"]),
        ("[0, 1, '', none] | reject", [0, "", None]),
        ("[0, none, '', none] | compact", [0, ""]),
        ("startswith('v1.2', 'v') and 'v1.2' | endswith('.2')", True),
        ("startswith('v1.2', 'w') or endswith('v1.2', 'v')", False),
        ("[1, 2, 3, 4][1:3]", [2, 3]),
        ("[1, 2, 3, 4][-2:]", [3, 4]),
        ("[1, 2, 3, 4][:-1]", [1, 2, 3]),
        ("[1, 2, 3, 4][::-2]", [4, 2]),
        ("'abcd'[1:] ~ 'abcd'[9:]", "bcd"),
    ],
)
def test_lists_can_be_filtered_and_cut(source: str, value: Any) -> None:
    assert evaluate(f"${{{{ {source} }}}}", inputs={"photos": PHOTOS}) == value


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("inputs.photos | map('nam')", "an item has no 'nam'"),
        ("inputs.photos | map('name.x')", "an item has no 'x'"),
        ("'abc' | map('x')", "map does not work with"),
        ("'abc' | compact", "compact does not work with"),
        ("startswith(1, 'a')", "startswith does not work with"),
        ("[1, 2]['a':]", "a slice needs whole numbers"),
        ("[1, 2][::0]", "a slice needs whole numbers"),
        ("range(90000) | map('x')", "an item has no 'x'"),
        ("select(range(90000)) | len ~ select(range(90000)) ~ select(range(90000))", "FQ306"),
    ],
)
def test_what_cannot_be_filtered_is_said(source: str, words: str) -> None:
    with pytest.raises(WorkflowInvalid) as caught:
        evaluate(f"${{{{ {source} }}}}", inputs={"photos": PHOTOS})
    assert words in str(caught.value)
