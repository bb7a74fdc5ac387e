"""Patterns are matched in time that grows linearly with the text, with RE2 and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from flowq import patterns
from flowq.errors import WorkflowInvalid
from flowq.expressions import evaluate, find_references
from flowq.inputs import resolve_inputs
from flowq.patterns import PatternRefused, check_pattern, is_match
from tests.reading import parse_workflow


@pytest.fixture(params=["re2", "a process"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "re2":
        pytest.importorskip("re2")
    else:
        hide_re2(monkeypatch)
    yield str(request.param)
    patterns._compile.cache_clear()


def hide_re2(monkeypatch: pytest.MonkeyPatch) -> None:
    patterns._compile.cache_clear()
    monkeypatch.setitem(sys.modules, "re2", None)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("[0-9]{4}-[0-9]{2}", "2026-11", True),
        ("[0-9]{4}-[0-9]{2}", "2026-11\n", False),
        ("a$", "a\n", False),
        (r"\w{1,200}", "e" * 200, True),
        (r"\w+", "é", False),
        (r"\d+", "٣", False),
        ("(?i)straße", "STRAßE", True),
        ("(?m)^a$\n^b$", "a\nb", True),
        ("caf.", "caf\udce9", True),
        ("", "", True),
        ("[^a]", "", False),
    ],
)
def test_both_engines_agree(engine: str, pattern: str, text: str, fits: bool) -> None:
    assert is_match(pattern, text) is fits


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", r"invalid escape sequence: \\1"),
        ("(?=a)a", r"invalid perl operator: \(\?="),
        ("b(?<=b)", r"invalid perl operator: \(\?<="),
        ("(?>a)", r"invalid perl operator: \(\?>"),
        ("a*+", r"bad repetition operator: \*\+"),
        ("[", r"missing \]"),
        ("((a{30}){30}){30}", "invalid repetition size"),
        ("[a-z]{1,1001}", "invalid repetition size"),
        ("\ud800", "surrogates not allowed"),
        ("a" * 1_001, "more than 1,000 characters"),
    ],
)
def test_what_cannot_be_matched_in_linear_time_is_refused(pattern: str, said: str) -> None:
    pytest.importorskip("re2")
    with pytest.raises(PatternRefused, match=said):
        check_pattern(pattern)
    with pytest.raises(PatternRefused, match=said):
        is_match(pattern, "a")


def test_a_pattern_that_only_python_takes_is_refused_with_the_reason() -> None:
    pytest.importorskip("re2")
    with pytest.raises(PatternRefused) as caught:
        check_pattern("(?!a)b")
    assert "no lookaround" in caught.value.hint
    with pytest.raises(PatternRefused) as caught:
        check_pattern("(")
    assert not caught.value.hint


def test_nonsense_is_refused_by_both_engines(engine: str) -> None:
    with pytest.raises(PatternRefused):
        check_pattern("[")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*a){20}b", "(a|aa)+$b"])
def test_a_nasty_pattern_comes_back_at_once(pattern: str) -> None:
    pytest.importorskip("re2")
    assert not is_match(pattern, "a" * 100_000)


def test_a_text_that_is_too_long_for_its_pattern_is_refused() -> None:
    with pytest.raises(PatternRefused, match="too long for the pattern"):
        is_match("[a-z]{1,900}", "a" * 300_000)


def test_without_re2_a_nasty_pattern_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_re2(monkeypatch)
    monkeypatch.setattr(patterns, "LIMIT_S", 0.3)
    with pytest.raises(PatternRefused, match=r"takes more than 0\.3 s"):
        is_match("(a+)+b", "a" * 60)
    patterns._compile.cache_clear()


def test_what_python_warns_of_is_said_nowhere(recwarn: pytest.WarningsRecorder) -> None:
    assert is_match("[[a]", "[")
    assert not recwarn.list


def test_the_engine_says_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("re2")
    is_match(r"(?:\w*a\w{300})*(\w|é){0,900}", "é汉a" * 5_000)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def workflow_with_pattern() -> str:
    return "name: r\ninputs: {v: {type: str, pattern: '%s', default: ab}}\njobs: {a: {call: m:f}}"


def test_the_pattern_of_an_input_is_matched_in_linear_time(workflow_with_pattern: str) -> None:
    workflow = parse_workflow(workflow_with_pattern % "(a+)+b", "r.yaml")
    with pytest.raises(WorkflowInvalid, match=r"FQ403 the input v must match \(a\+\)\+b"):
        resolve_inputs(workflow, {"v": "a" * 100_000})


def test_a_pattern_that_needs_backtracking_is_a_problem_of_the_workflow(
    workflow_with_pattern: str,
) -> None:
    with pytest.raises(
        WorkflowInvalid, match=r"r.yaml:2:\d+: FQ105 pattern cannot be used: RE2 cannot read it"
    ):
        parse_workflow(workflow_with_pattern % "(?=a)ab", "r.yaml")


def test_an_expression_asks_whether_a_text_matches() -> None:
    known = {"inputs": {"day": "2026-11-29"}}
    assert evaluate("${{ matches(inputs.day, '[0-9-]{10}') }}", **known) is True
    assert evaluate("${{ inputs.day | matches('[a-z]+') }}", **known) is False


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("inputs.x | matches('(?=a)')", "invalid perl operator"),
        ("matches(inputs.x, '[')", "missing ]"),
        ("matches(inputs.x, 3)", "must be a text"),
    ],
)
def test_a_pattern_in_an_expression_is_looked_at_before_anything_runs(
    source: str, said: str
) -> None:
    (problem,) = find_references(f"${{{{ {source} }}}}").problems
    assert problem.code == "FQ305"
    assert said in problem.message


def test_many_matches_in_one_text_have_one_budget() -> None:
    text = "${{ inputs.x | matches('(a{1,30}){1,30}') }}" * 500
    with pytest.raises(WorkflowInvalid, match="FQ306"):
        evaluate(text, inputs={"x": "a" * 5_000})
