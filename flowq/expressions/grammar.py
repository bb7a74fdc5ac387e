"""Parsing expressions with Jinja's parser, and checking that the engine can evaluate them.

Nothing is compiled or executed. Everything that the engine does not know by name is refused, and
all references are known before anything runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from typing import cast

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from flowq.expressions.functions import FUNCTIONS, TESTS, find_bad_pattern, find_wrong_arguments
from flowq.expressions.references import (
    BARE_ROOTS,
    FAILURE_PARTS,
    NAMED_ROOTS,
    OUTCOME_PARTS,
    RUN_ATTRIBUTES,
    STATUS_BY_FUNCTION,
    Reference,
    name_reference,
)
from flowq.expressions.refusals import Refused
from flowq.nearest import did_you_mean, find_nearest
from flowq.problems import (
    BAD_EXPRESSION,
    EXPRESSION_TOO_LARGE,
    INCOMPLETE_NAME,
    UNKNOWN_NAME,
    UNKNOWN_STATUS,
)
from flowq.status import ENDED, RUN_ENDED

FUNCTION_NAMES = frozenset(FUNCTIONS) | {"str", "default"}
TEST_NAMES = frozenset(TESTS) | {"defined"}
ROOTS = (
    *("inputs", "jobs", "item", "index", "matrix", "result", "env", "secrets", "approval", "run"),
    "attempt",
)

MAX_BRACKETS = 30
MAX_DEPTH = 100
"""Levels of one expression; a fixed limit, because the stack of a child is deeper."""

_PLAIN_NODES = (
    nodes.Const,
    nodes.List,
    nodes.Tuple,
    nodes.Dict,
    nodes.Pair,
    nodes.Keyword,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.CondExpr,
    nodes.Concat,
    nodes.Compare,
    nodes.Operand,
    nodes.BinExpr,
    nodes.UnaryExpr,
)

_ENVIRONMENT = Environment(autoescape=False)  # noqa: S701 - it only parses; nothing is rendered
_STRING = r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\""""
_HYPHENED_JOB = re.compile(rf"({_STRING})|(?<![\w.'\"\])])jobs\.([A-Za-z_]\w*(?:-\w+)+)", re.ASCII)
_STRINGS = re.compile(_STRING, re.DOTALL)
_BRACKETS = re.compile(r"[()\[\]{}]")
_FOREIGN_SIGNS = (
    (re.compile(r"&&"), "&&", "write `and`"),
    (re.compile(r"\|\|"), "||", "write `or`, or `x | default(y)` for what may be missing"),
    (re.compile(r"[=!]=="), "===", "write == or !="),
    (re.compile(r"!(?!=)"), "!", "write `not`"),
    (re.compile(r"\?"), "?", "write `a if condition else b`"),
    (re.compile(r"(?<![=!<>])=(?!=)(?![^(]*\))"), "=", "write == to compare"),
    (re.compile(r"\$"), "$", "names have no $ inside the braces"),
    (re.compile(r"\{\{"), "{{", "the braces of ${{ }} are all that an expression needs"),
    (re.compile(r"\{%"), "{%", "write `a if condition else b`, and `for_each` for a loop"),
    (re.compile(r"&"), "&", "write `and`"),
    (re.compile(r"(?<=[\[({])[^\[\](){}]* for "), "for", "write map(x, 'key'), select(x, 'key')"),
    *((re.compile(re.escape(sign)), sign, "put a text in quotes") for sign in "#@^`;\\"),
)
_PLACES_OF_THE_PARSER = re.compile(
    r"expected token '(?P<wanted>.*)', got '(?P<found>.*)'|unexpected '(?P<alone>.*)'", re.DOTALL
)
_WORD_BY_TOKEN = {
    "name": "a name",
    "integer": "a number",
    "float": "a number",
    "string": "a text",
    "end of print statement": "the end",
}
_JOINING = "put a text in quotes, and join values by an operator, such as and, == or ~"
_FOREIGN_NAMES = {
    "null": "write none",
    "undefined": "write none",
    "yes": "write true",
    "on": "write true",
    "no": "write false",
    "off": "write false",
    "contains": "write `b in a` for contains(a, b)",
    "startsWith": "write startswith(a, b)",
    "endsWith": "write endswith(a, b)",
    "selectattr": "write select(x, 'key', value)",
    "rejectattr": "write reject(x, 'key', value)",
    "filter": "write select(x, 'key', value)",
    "format": "put several ${{ }} into one text, or join texts with ~",
    "toJSON": "write json(x)",
    "tojson": "write json(x)",
    "fromJSON": "an input of type json, and the result of a job, are data already",
    "count": "write len(x)",
    "basename": "write basename(x)",
    "github": "an expression of flowq sees inputs, jobs, env, secrets and run",
    "needs": "write jobs.NAME.result",
    "steps": "write jobs.NAME.result",
    "vars": "declare an input: inputs.NAME",
    "runner": "a job runs where its queue's workers are; os.environ knows more about it",
    "loop": "write index for the number of an item",
}


class _Parser(Parser):
    """Jinja's parser, with Python's rules for powers: `2**3**2` is 2**9, and `-2**2` is -4."""

    def parse_pow(self) -> nodes.Expr:
        return self._raised(self.parse_unary())

    def parse_unary(self, with_filter: bool = True) -> nodes.Expr:
        sign = _NODE_BY_SIGN.get(self.stream.current.type)
        if sign is None:
            return super().parse_unary(with_filter)
        lineno = next(self.stream).lineno
        node: nodes.Expr = sign(self._raised(self.parse_unary(False)), lineno=lineno)
        node = self.parse_postfix(node)
        return self.parse_filter_expr(node) if with_filter else node

    def _raised(self, base: nodes.Expr) -> nodes.Expr:
        if self.stream.current.type != "pow":
            return base
        lineno = next(self.stream).lineno
        return nodes.Pow(base, self.parse_pow(), lineno=lineno)


_NODE_BY_SIGN = {"sub": nodes.Neg, "add": nodes.Pos}


@dataclass(frozen=True, slots=True)
class Parsed:
    """An expression that can be evaluated, unless it has refusals. References are in order.

    Shape: `doubts` are refusals of parts that have a value, but are certainly mistakes; checks
    report them.
    """

    tree: nodes.Expr
    references: tuple[Reference, ...]
    refusals: tuple[Refused, ...]
    doubts: tuple[Refused, ...] = ()


@lru_cache(maxsize=4_096)
def parse(source: str) -> Parsed:
    """Return the tree of an expression with its references. Errors: Refused for bad syntax."""
    try:
        tree = _read(source)
        found = list(_visit(tree))
        doubts = (*_find_doubts(tree), *_find_unknown_fields(tree))
    except RecursionError:  # a backstop: not only brackets can make a tree deep
        raise _too_deep() from None
    references = dict.fromkeys(one for one in found if isinstance(one, Reference))
    # A name that occurs twice is reported once.
    refusals = {(one.code, one.message): one for one in reversed(found) if isinstance(one, Refused)}
    return Parsed(tree, tuple(references), tuple(reversed(refusals.values())), doubts)


def _too_deep() -> Refused:
    return Refused(EXPRESSION_TOO_LARGE, "it is nested too deeply", "do this in a job's function")


def _read(source: str) -> nodes.Expr:
    if not source:
        raise Refused(
            BAD_EXPRESSION, "the expression is empty", "name a value, such as inputs.NAME"
        )
    bare = _STRINGS.sub("''", source)
    _refuse_foreign_signs(bare)
    depth = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in "([{" else -1
        if depth > MAX_BRACKETS:
            raise _too_deep()
    # `jobs.a-b` would be read as a subtraction.
    bracketed = _HYPHENED_JOB.sub(lambda it: it.group(1) or f"jobs['{it.group(2)}']", source)
    try:
        parser = _Parser(_ENVIRONMENT, bracketed, state="variable")
        tree = parser.parse_expression()
        rest = parser.stream.current
    except TemplateSyntaxError as error:
        raise _explain(error.message or "") from None
    except (ValueError, OverflowError):  # a number of too many digits, a broken \N{…}
        raise Refused(BAD_EXPRESSION, "it holds a number or a text that cannot be read") from None
    if not parser.stream.eos:
        raise _explain_rest(rest.type, f"{rest.value!s:.40}")
    assert isinstance(tree, nodes.Expr)
    return tree


def _refuse_foreign_signs(bare: str) -> None:
    for quote in "'\"":
        if quote in bare.replace("''", ""):
            message = f"a text is opened with {quote} and not closed"
            raise Refused(BAD_EXPRESSION, message, "close it, or write \\ before such a sign in it")
    for pattern, sign, hint in _FOREIGN_SIGNS:
        if pattern.search(bare):
            raise Refused(BAD_EXPRESSION, f"{sign} has no meaning in an expression", hint)


def _explain(complaint: str) -> Refused:
    """Return the problem that Jinja's parser reports, in flowq's words."""
    if complaint.startswith(("unexpected 'end of", "unexpected end of")):
        hint = "a value, a name or a closing bracket is missing at its end"
        return Refused(BAD_EXPRESSION, "it ends too early", hint)
    if found := _PLACES_OF_THE_PARSER.fullmatch(complaint):
        wanted, here = found["wanted"] or "a value", found["found"] or found["alone"]
        wanted, here = (_WORD_BY_TOKEN.get(word, word) for word in (wanted, here))
        hint = "remove it, or write what is missing in front of it; put a text in quotes"
        return Refused(BAD_EXPRESSION, f"there is {here} where {wanted} should be", hint)
    if complaint == "expected name or number":
        return Refused(BAD_EXPRESSION, "a name is missing after a dot", "as in inputs.NAME")
    return Refused(BAD_EXPRESSION, f"it cannot be read: {complaint}", "put a text in quotes")


def _explain_rest(kind: str, rest: str) -> Refused:
    """Return the problem of an expression that continues wrongly after its first value."""
    if rest in ("else", "elif"):
        message = f"`{rest}` stands without an `if`"
        return Refused(BAD_EXPRESSION, message, "write `a if condition else b`")
    if kind in _WORD_BY_TOKEN:
        return Refused(BAD_EXPRESSION, f"there is no operator in front of {rest}", _JOINING)
    hints = {",": "write a list in brackets: [a, b]", ":": "put a text in quotes"}
    hint = hints.get(rest, "remove it, or write what opens it")
    return Refused(BAD_EXPRESSION, f"there is a {rest} where it has no meaning", hint)


# Checking that the engine can evaluate the tree; each visit yields references and refusals.


def _visit(node: nodes.Node, depth: int = 0) -> Iterator[Reference | Refused]:
    if depth > MAX_DEPTH:
        raise _too_deep()
    reference = find_reference(node) or _find_part(node)
    if reference is not None:
        yield reference
        if refused := reference.find_refusal():
            yield refused
        return
    if refused := _find_refusal(node):
        yield refused.about(*_names_of(node))
    for child in _children(node):
        yield from _visit(child, depth + 1)


def _find_doubts(tree: nodes.Expr) -> Iterator[Refused]:
    compared = [tree] if isinstance(tree, nodes.Compare) else []
    for node in (*compared, *tree.find_all(nodes.Compare)):
        operands = (node.expr, *(operand.expr for operand in node.ops))
        yield from find_unknown(node, [each for each in operands if _is_status(each, "jobs")])
        of_run = [each for each in operands if _is_status(each, "ended")]
        yield from find_unknown(node, of_run, is_of_run=True)


def _find_unknown_fields(tree: nodes.Expr) -> Iterator[Refused]:
    """Yield fields that entries of `run.failures` and of `outcomes` do not have."""
    kinds = (nodes.Getattr, nodes.Getitem, nodes.Filter, nodes.Call)
    for node in (tree, *tree.find_all(kinds)):
        key, inside = _find_key(node), getattr(node, "node", None)
        if isinstance(node, nodes.Filter | nodes.Call):
            key, of = _find_mapped_key(node)
        elif isinstance(inside, nodes.Getitem) and _is_number(inside.arg):
            of = inside.node
        else:
            of = None
        fields = _find_fields(of) if of is not None else ()
        if key is not None and fields and key not in fields:
            hint = did_you_mean(key, fields) or f"there are {', '.join(fields)}"
            yield Refused(INCOMPLETE_NAME, f"an entry of that list has no {key!r}", hint).about(key)


def _find_mapped_key(node: nodes.Filter | nodes.Call) -> tuple[str | None, nodes.Node | None]:
    """Return the key that `map`, `select` or `reject` looks up in entries, and the list."""
    arguments: Sequence[nodes.Node | None] = node.args
    if isinstance(node, nodes.Filter):
        name, arguments = node.name, [node.node, *node.args]
    else:
        name = getattr(node.node, "name", "")
    if name not in ("map", "select", "reject") or len(arguments) < _LIST_AND_KEY:
        return None, None
    key = arguments[1].value if isinstance(arguments[1], nodes.Const) else None
    return (key.partition(".")[0] if isinstance(key, str) else None), arguments[0]


def _find_fields(node: nodes.Node) -> tuple[str, ...]:
    """Return the fields of a list's entries, if the list is known."""
    found = find_reference(node)
    if found is None:
        return ()
    if found.root == "ended" and found.name == "failures":
        return FAILURE_PARTS
    return OUTCOME_PARTS if found.root == "jobs" and found.attribute == "outcomes" else ()


def _is_number(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Neg):
        node = node.node
    return isinstance(node, nodes.Const) and isinstance(node.value, int)


_LIST_AND_KEY = 2


def _is_status(node: nodes.Node, root: str) -> bool:
    """Whether a node is the status of a job, or of the run."""
    reference = find_reference(node)
    if reference is None or reference.root != root:
        return False
    return "status" in (reference.attribute, reference.name if root == "ended" else "")


def _names_of(node: nodes.Node) -> tuple[str, ...]:
    """Return the name of a refused node, as written in the text."""
    callee = node.node if isinstance(node, nodes.Call) else node
    if isinstance(callee, nodes.Getattr):
        return (callee.attr,)
    return (callee.name,) if isinstance(callee, nodes.Name | nodes.Filter | nodes.Test) else ()


def _children(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield the parts of a node that have, or should have, a value."""
    callee = node.node if isinstance(node, nodes.Call) else None
    yield from (child for child in node.iter_child_nodes() if child is not callee)
    if isinstance(callee, nodes.Getattr) and find_reference(callee.node):
        yield callee.node  # values have no methods, but `inputs.x.upper()` uses the input x


def find_reference(node: nodes.Node) -> Reference | None:
    """Return the reference of a node, or None: `inputs.x`, `jobs.x.result`, also with brackets."""
    if isinstance(node, nodes.Name):
        return next((Reference(root) for root in BARE_ROOTS if root == node.name), None)
    if isinstance(node, nodes.Call):
        return _find_status(node)
    name = _find_key(node)
    if name is None or not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    for root in NAMED_ROOTS:
        if _is_name(node.node, root):
            return name_reference(root, name)
    job = _find_key(node.node)
    if job is not None and isinstance(node.node, nodes.Getattr | nodes.Getitem):
        return Reference("jobs", job, name) if _is_name(node.node.node, "jobs") else None
    return None


def _find_status(node: nodes.Call) -> Reference | None:
    """Return what `success()` and its like ask; they take no arguments."""
    if node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
        return None
    name = node.node.name if isinstance(node.node, nodes.Name) else ""
    return Reference("status", STATUS_BY_FUNCTION[name]) if name in STATUS_BY_FUNCTION else None


def find_conjuncts(source: str) -> frozenset[str]:
    """Return the status functions all of which must be true for an expression to be."""
    found, waiting = set(), [parse(source).tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, nodes.And):
            waiting += (node.left, node.right)
        elif isinstance(node, nodes.Call) and (status := _find_status(node)):
            found.add(status.name)
    return frozenset(found)


def _find_part(node: nodes.Node) -> Reference | None:
    """Return the reference of `jobs.x.result.y`, with the key that is looked up in its value."""
    key = _find_key(node)
    if key is None or not isinstance(node, nodes.Getattr | nodes.Getitem):
        return None
    whole = find_reference(node.node)
    return replace(whole, part=key) if whole is not None and whole.root == "jobs" else None


def _find_key(node: nodes.Node) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return node.arg.value if isinstance(node.arg.value, str) else None
    return None


def _is_name(node: nodes.Node, name: str) -> bool:
    return isinstance(node, nodes.Name) and node.name == name


def _find_refusal(node: nodes.Node) -> Refused | None:
    if isinstance(node, nodes.Name):
        return _refuse_name(node.name)
    if isinstance(node, nodes.Call):
        return _refuse_call(node)
    if isinstance(node, nodes.Filter):
        refused = _refuse_function(node.name, "filter") or _refuse_spread(node)
        return refused or _refuse_arguments(
            node.name, [cast(nodes.Expr, node.node), *node.args], node
        )
    if isinstance(node, nodes.Test) and node.name not in TEST_NAMES:
        return _refuse_unknown(node.name, "test", sorted(TEST_NAMES))
    if isinstance(node, nodes.Test):
        message = f"`is {node.name}` takes no arguments"
        return Refused(BAD_EXPRESSION, message) if node.args else None
    if isinstance(node, nodes.Const) and node.value in (inf, -inf):
        hint = "a number is at most 1.8e308; put a text in quotes"
        return Refused(BAD_EXPRESSION, "a number in it is too large", hint)
    if isinstance(node, _PLAIN_NODES):
        return None
    return Refused(BAD_EXPRESSION, f"{type(node).__name__.lower()} has no meaning in an expression")


def _refuse_name(name: str) -> Refused:
    if name == "inputs":
        return Refused(INCOMPLETE_NAME, "`inputs` as a whole has no value", "write inputs.NAME")
    if name == "jobs":
        hint = "write jobs.NAME.result, with the job's own name"
        return Refused(INCOMPLETE_NAME, "`jobs` without a name and a part has no value", hint)
    if name in ("env", "secrets"):
        return Refused(INCOMPLETE_NAME, f"`{name}` as a whole has no value", f"write {name}.NAME")
    if name == "run":
        hint = " or ".join(f"run.{attribute}" for attribute in RUN_ATTRIBUTES)
        return Refused(INCOMPLETE_NAME, "`run` as a whole has no value", f"write {hint}")
    if name in FUNCTION_NAMES:
        return Refused(UNKNOWN_NAME, f"{name} is a function", f"call it: {name}(…)")
    if name in STATUS_BY_FUNCTION:
        return Refused(UNKNOWN_NAME, f"{name} is a function", f"call it: {name}()")
    return _refuse_unknown(name, "name", ROOTS)


def _refuse_call(node: nodes.Call) -> Refused | None:
    if isinstance(node.node, nodes.Name):
        name = node.node.name
        refused = _refuse_function(name, "function") or _refuse_spread(node)
        return refused or _refuse_arguments(name, node.args, node)
    if isinstance(node.node, nodes.Getattr):
        name = node.node.attr
        known = f"write x | {name}" if name in FUNCTION_NAMES else _FOREIGN_NAMES.get(name)
        hint = known or did_you_mean(name, FUNCTION_NAMES)
        return Refused(UNKNOWN_NAME, f"values have no methods such as .{name}()", hint)
    return Refused(UNKNOWN_NAME, "only a function can be called, by its name")


def _refuse_arguments(
    name: str, args: list[nodes.Expr], node: nodes.Call | nodes.Filter
) -> Refused | None:
    """Refuse wrong arguments of a function, and an invalid pattern."""
    refused = find_wrong_arguments(name, len(args), [str(each.key) for each in node.kwargs])
    if refused is None and name == "matches" and isinstance(args[-1], nodes.Const):
        return find_bad_pattern(args[-1].value)
    return refused


def _refuse_spread(node: nodes.Call | nodes.Filter) -> Refused | None:
    if node.dyn_args is None and node.dyn_kwargs is None:
        return None
    return Refused(BAD_EXPRESSION, "* and ** have no meaning in front of an argument")


def _refuse_function(name: str, kind: str) -> Refused | None:
    if name in FUNCTION_NAMES:
        return None
    if name in STATUS_BY_FUNCTION and kind == "function":
        return Refused(
            BAD_EXPRESSION, f"{name}() takes no arguments", "it asks about all jobs before"
        )
    asked = kind == "function" and find_nearest(name, STATUS_BY_FUNCTION)
    return _refuse_unknown(name, kind, sorted(STATUS_BY_FUNCTION if asked else FUNCTION_NAMES))


def _refuse_unknown(name: str, kind: str, known: tuple[str, ...] | list[str]) -> Refused:
    if name in _FOREIGN_NAMES:
        return Refused(UNKNOWN_NAME, f"unknown {kind} {name!r}", _FOREIGN_NAMES[name])
    return Refused(UNKNOWN_NAME, f"unknown {kind} {name!r}", did_you_mean(name, known))


STATUSES = tuple(sorted({*ENDED, "running"}))  # the last one where a job has `start_when`
"""The values of `jobs.NAME.status`; expressions see jobs that have ended."""

STATUSES_OF_RUN = tuple(sorted(RUN_ENDED))
"""The values of `run.status` for a job under `finally`."""

_STATUS_BY_FOREIGN = {
    **dict.fromkeys(("success", "succeeded", "successful", "ok", "passed"), "finished"),
    **dict.fromkeys(("done", "complete", "completed"), "finished"),
    **dict.fromkeys(("failure", "error", "errored", "broken"), "failed"),
    **dict.fromkeys(("cancelled", "aborted"), "canceled"),
    **dict.fromkeys(("timeout", "timed_out"), "failed"),
}
_EQUALITIES = frozenset({"eq", "ne"})


def find_unknown(
    node: nodes.Compare, statuses: Iterable[nodes.Node], *, is_of_run: bool = False
) -> Iterator[Refused]:
    """Yield a refusal for each text that is no status.

    `statuses` are the operands of the comparison that are a job's status, or that of the run.
    """
    known = STATUSES_OF_RUN if is_of_run else STATUSES
    of_jobs = set(map(id, statuses))
    left: nodes.Node = node.expr
    for operand in node.ops:
        right = operand.expr
        words: Iterable[nodes.Node] = ()
        if operand.op in _EQUALITIES:
            if id(left) in of_jobs:
                words = (right,)
            elif id(right) in of_jobs:
                words = (left,)
        elif id(left) in of_jobs and isinstance(right, nodes.List | nodes.Tuple):
            words = right.items
        for word in words:
            if isinstance(word, nodes.Const) and word.value not in (None, *known):
                yield _refuse(word.value, is_of_run=is_of_run)
        left = right


def _refuse(word: object, *, is_of_run: bool) -> Refused:
    known = _STATUS_BY_FOREIGN.get(str(word).lower())
    if is_of_run:
        known = "succeeded" if known == "finished" or word == "finished" else known
    statuses = STATUSES_OF_RUN if is_of_run else STATUSES
    known = known or find_nearest(str(word), statuses)
    whose, who = ("run.status", "run") if is_of_run else ("a job's status", "job")
    told = f"{whose} is one of {', '.join(statuses)}"
    hint = f"write {known!r}; {told}" if known else told
    return Refused(UNKNOWN_STATUS, f"no {who} has the status {word!r}", hint).about(f"'{word}'")
