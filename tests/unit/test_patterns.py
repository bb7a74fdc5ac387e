"""Patterns mean what they mean to Python, and take a time that grows like the text."""

from __future__ import annotations

import random
import re
import sys
import warnings

import pytest

from flowq import patterns
from flowq.declare.yaml import parse_workflow
from flowq.errors import WorkflowInvalid
from flowq.expressions import evaluate, find_references
from flowq.inputs import resolve_inputs
from flowq.patterns import PatternRefused, check_pattern, is_match

CHARACTERS = [*"abAéÉß1٣ \n_-İıſsKk汉.]", "\\", "\ud800", "\x1c"]
CLASSES = [r"\w", r"\W", r"\d", r"\D", r"\s", r"\S", "."]
ANCHORS = ["^", "$", r"\b", r"\B", r"\Z", r"\A"]
GROUPS = ["(?:", "(", "(?i:", "(?s:", "(?a:", "(?-i:", "(?m:"]
REPEATS = ["", "", "", "*", "+", "?", "{2}", "{0,3}", "*?", "??"]
FLAGS = ["", "(?i)", "(?s)", "(?m)", "(?a)", "(?ia)"]


@pytest.fixture(params=["re2", "a process"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "re2":
        pytest.importorskip("re2")
    else:
        monkeypatch.setitem(sys.modules, "re2", None)
    return str(request.param)


class _Writer:
    """Writes patterns, in which no repeat stands inside of another: those would take long."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def write(self) -> str:
        pattern = self.random.choice(FLAGS) + self._some(0, may_repeat=True)
        return f"{pattern}|{self._some(0, may_repeat=True)}" if self._happens(0.3) else pattern

    def text(self) -> str:
        return "".join(self.random.choices(CHARACTERS, k=self.random.randint(0, 6)))

    def _happens(self, chance: float) -> bool:
        return self.random.random() < chance

    def _some(self, depth: int, *, may_repeat: bool) -> str:
        count = self.random.randint(0, 4)
        return "".join(self._one(depth, may_repeat=may_repeat) for _ in range(count))

    def _one(self, depth: int, *, may_repeat: bool) -> str:
        repeat = self.random.choice(REPEATS) if may_repeat else ""
        kind = self.random.choice(["character", "class", "set", "anchor", "group", "branches"])
        if kind == "character" or depth > 3:
            return re.escape(self.random.choice(CHARACTERS)) + repeat
        if kind == "class":
            return self.random.choice(CLASSES) + repeat
        if kind == "anchor":
            return self.random.choice(ANCHORS)
        if kind == "set":
            inside = [*map(re.escape, CHARACTERS), r"\w", r"\D", "a-f", "A-Z", "à-ÿ"]
            chosen = "".join(self.random.choices(inside, k=3))
            return f"[{self.random.choice(['', '^'])}{chosen}]{repeat}"
        inner = self._some(depth + 1, may_repeat=may_repeat and not repeat)
        if kind == "branches":
            return f"(?:{inner}|{self._some(depth + 1, may_repeat=False)}){repeat}"
        return f"{self.random.choice(GROUPS)}{inner}){repeat}"


def test_a_pattern_matches_what_it_matches_in_python() -> None:
    pytest.importorskip("re2")
    writer, matching, compared, refused = _Writer(13), 0, 0, 0
    for _ in range(400):
        pattern = writer.write()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                expected = re.compile(pattern)
            except re.error:
                continue
        for text in (writer.text(), writer.text()):
            if r"\B" in pattern and not text:
                continue  # Python has changed its mind
            try:
                found = is_match(pattern, text)
            except PatternRefused:  # `^`, `$` or \b that mean different things in different places
                refused += 1
                continue
            assert found is bool(expected.fullmatch(text)), (pattern, text)
            matching += found
            compared += 1
    assert compared > 500
    assert matching > 40
    assert refused < 40


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("[0-9]{4}-[0-9]{2}", "2026-11", True),
        ("[0-9]{4}-[0-9]{2}", "2026-11\n", False),
        ("a$", "a\n", False),
        ("a$\n?", "a\n", True),
        (r"\w{1,200}", "é" * 200, True),
        ("(?i)straße", "STRAßE", True),
        (r".*\bété\b.*", "un été chaud", True),
        (r".*\bété\b.*", "un étén chaud", False),
        ("(?m)^a$\n^b$", "a\nb", True),
        ("(?x) a b  # two letters", "ab", True),
        ("caf.", "caf\udce9", True),
        ("", "", True),
        ("[^a]", "", False),
    ],
)
def test_anchors_classes_and_flags_are_those_of_python(
    engine: str, pattern: str, text: str, fits: bool
) -> None:
    assert is_match(pattern, text) is fits


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(a)\1", "a backreference"),
        ("(?P<n>a)(?P=n)", "a backreference"),
        ("(?=a)a", "a lookahead or lookbehind"),
        ("(?!a)b", "a lookahead or lookbehind"),
        ("b(?<=b)", "a lookahead or lookbehind"),
        ("(?>a)", "an atomic group"),
        ("a*+", "a possessive repeat"),
        ("(a)?(?(1)b|c)", "a group that asks"),
        ("[", "no regular expression"),
        ("a{99999999999999999999}", "no regular expression"),
        ("((a{30}){30}){30}", "more than 10,000 parts"),
        ("a" * 1_001, "more than 1,000 characters"),
        ("(?m:^a)$", "in different places"),
    ],
)
def test_what_cannot_be_matched_in_linear_time_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(PatternRefused, match=said):
        check_pattern(pattern)
    with pytest.raises(PatternRefused, match=said):
        is_match(pattern, "a")


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*a){20}b", "(a|aa)+$b"])
def test_a_nasty_pattern_comes_back_at_once(pattern: str) -> None:
    pytest.importorskip("re2")
    assert not is_match(pattern, "a" * 100_000)


def test_a_text_that_is_too_long_for_its_pattern_is_refused() -> None:
    with pytest.raises(PatternRefused, match="too long for the pattern"):
        is_match("[a-z]{1,900}", "a" * 300_000)


def test_without_re2_a_nasty_pattern_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    monkeypatch.setattr(patterns, "LIMIT_S", 0.3)
    with pytest.raises(PatternRefused, match=r"takes more than 0\.3 s"):
        is_match("(a+)+b", "a" * 60)


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
        WorkflowInvalid, match=r"r.yaml:2:\d+: FQ105 pattern cannot be used: it has a lookahead"
    ):
        parse_workflow(workflow_with_pattern % "(?=a)ab", "r.yaml")


def test_an_expression_asks_whether_a_text_matches() -> None:
    known = {"inputs": {"day": "2026-11-29"}}
    assert evaluate("${{ matches(inputs.day, '[0-9-]{10}') }}", **known) is True
    assert evaluate("${{ inputs.day | matches('[a-z]+') }}", **known) is False


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("inputs.x | matches('(?=a)')", "a lookahead"),
        ("matches(inputs.x, '[')", "no regular expression"),
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
    text = "${{ inputs.x | matches('(a{1,60}){1,60}') }}" * 500
    with pytest.raises(WorkflowInvalid, match="FQ306"):
        evaluate(text, inputs={"x": "a" * 5_000})
