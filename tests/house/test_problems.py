"""Codes of problems are written in one module, and the register tells the truth about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowq import problems
from flowq.problems import RULE_BY_CODE

FLOWQ = Path(__file__).parents[2] / "flowq"
REGISTER = FLOWQ / "problems.py"
TEXT_BY_PATH = {
    path.relative_to(FLOWQ): path.read_text("utf-8")
    for path in sorted(FLOWQ.rglob("*.py"))
    if path != REGISTER
}
NAME_BY_CODE = {
    code: name
    for name, code in vars(problems).items()
    if isinstance(code, str) and code in RULE_BY_CODE
}


def test_no_module_but_the_register_writes_a_code() -> None:
    found = {
        f"{path}: {code}": f"write {NAME_BY_CODE.get(code, 'the constant')} of flowq/problems.py"
        for path, text in TEXT_BY_PATH.items()
        for code in re.findall(r"\bFQ\d{3}\b", text)
    }
    assert not found


@pytest.mark.parametrize("code", RULE_BY_CODE)
def test_the_rooms_of_a_rule_are_those_that_report_it(code: str) -> None:
    name = re.compile(rf"\b{NAME_BY_CODE[code]}\b")
    rooms = {
        path.parts[0].removesuffix(".py")
        for path, text in TEXT_BY_PATH.items()
        if name.search(text)
    }
    assert sorted(rooms) == list(RULE_BY_CODE[code].rooms)


def test_each_code_is_registered_once_and_in_order_within_its_hundred() -> None:
    codes = re.findall(r'"(FQ\d{3})"', REGISTER.read_text("utf-8"))
    assert codes == sorted(set(codes)) == list(RULE_BY_CODE)
    assert len({rule.title for rule in RULE_BY_CODE.values()}) == len(codes)
    assert all("\n" not in rule.title for rule in RULE_BY_CODE.values())
