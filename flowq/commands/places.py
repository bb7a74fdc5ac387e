"""Where expressions stand in a command for a shell, and whether a value may stand there.

The grammar of bash (tree-sitter) finds the place. Every node on the path from the expression up to
the root must be of a kind that is known to be harmless in every shell of `flowq.commands.values`.
All other kinds are refused, including unforeseen ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from flowq.commands import programs, trees
from flowq.commands.flows import Flows
from flowq.commands.programs import COMPUTE, ENV, LIST, Refusal
from flowq.commands.trees import Text
from flowq.commands.values import (
    BASHES,
    KORN_SHELLS,
    PLAIN_SHELLS,
    QUOTED,
    REFUSED,
    find_shell,
    make_name,
    refer,
)
from flowq.expressions.refusals import Refused
from flowq.expressions.templates import Expression, has_live_expression, split
from flowq.spec import Shell

if TYPE_CHECKING:
    from tree_sitter import Node


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands.

    Shape: `letter` as in `flowq.commands.values`; `is_program` if it is the name of a command, or
    part of it.
    """

    expression: Expression
    letter: str
    refusal: Refusal | None = None
    is_program: bool = False


@lru_cache(maxsize=256)
def find_places(command: str, shell_name: str | None) -> tuple[Place, ...]:
    """Return the places of the expressions of a command, in order.

    The shell must be known to `find_shell`. Errors: Refused for an expression that is not closed.
    """
    if not has_live_expression(command):
        return ()
    shell = find_shell(shell_name) or ""
    parts = split(command)
    expressions = [part for part in parts if isinstance(part, Expression)]
    texts = [part if isinstance(part, str) else None for part in parts]
    name = make_name("".join(filter(None, texts)))
    first = Text(refer(texts, QUOTED * len(expressions), name), name)
    letters = "".join(map(first.find_letter, range(len(expressions))))
    # The text that the shell gets is judged: quotes around a value may change how it is parsed.
    judge = _Judge(Text(refer(texts, letters, name), name), shell)
    return tuple(
        judge.judge(number, expression, letters[number])
        for number, expression in enumerate(expressions)
    )


def with_places(shell: Shell) -> Shell:
    """Return a command with the places of its expressions, which workers need."""
    command = shell.command
    if shell.places or not isinstance(command, str) or find_shell(shell.shell) is None:
        return shell
    try:
        places = find_places(command, shell.shell)
    except Refused:  # the worker reports it
        return shell
    letters = (REFUSED if place.refusal else place.letter for place in places)
    return replace(shell, places="".join(letters)) if places else shell


_QUOTES = '"{}"'
_UNSURE = Refusal("is in a part of the command that can be read in two ways", ENV)
_ALIASED = Refusal("is in a command that defines aliases, which change others", "use functions")
_COPROCESS = Refusal("is in a command with `coproc`, which may read it as code", "use a pipe")
_EXEC = Refusal(
    "is in a command where `exec` redirects what the commands after it print or read, and one "
    "of them reads code",
    "redirect only the command that needs it",
)
_SINGLE = Refusal("is within single quotes, where the shell fills in nothing", f"write {_QUOTES}")
_ESCAPED = Refusal(
    r"follows a \, or is in a word that the shell does not expand", f"write {_QUOTES}"
)
_ARITHMETIC = Refusal("is in arithmetic, where a shell may execute code in a value", COMPUTE)
_BACKTICKS = Refusal("is within backticks, where quotes mean something else", "write $(…)")
_DECLARED = Refusal(
    "is assigned to a variable in its declaration", "write NAME={} first, and then `export NAME`"
)
_IN_EXPANSION = Refusal(
    "is within ${…}, parts of which are arithmetic or patterns",
    "assign it to a variable on a line of its own: NAME={}, and write $NAME here",
)
_READS_INPUT = Refusal("is given to a program that reads code from its input", LIST)


class _Judge:
    """Judges the places of one text, for one shell."""

    def __init__(self, text: Text, shell: str) -> None:
        self._text = text
        self._flows = Flows(text)
        self._shell = shell

    def judge(self, number: int, expression: Expression, letter: str) -> Place:
        """Return the place of an expression, with the reason if no value may stand there."""
        text = self._text
        node = text.find_mark(number)
        if node.type == "comment":
            return Place(expression, letter)
        if not text.is_mark(node, number):
            return Place(expression, letter, _find_reason(node))
        if not text.is_as_written(node, letter):
            return Place(expression, letter, _UNSURE)
        is_program = trees.find_ancestor(node, "command_name", trees.SUBSTITUTIONS) is not None
        return Place(expression, letter, self._find_refusal(node), is_program)

    def _find_refusal(self, mark: Node) -> Refusal | None:
        text = self._text
        if text.is_deep:
            return Refusal("is in a command that nests too deeply", ENV)
        if text.has_aliases:
            return _ALIASED
        if text.has_coprocesses:
            return _COPROCESS
        if self._flows.redirects_code:
            return _EXEC
        if self._flows.is_too_deep:
            return Refusal("is in a command with `eval` in `eval` in `eval`", ENV)
        if self._shell in PLAIN_SHELLS and text.has_ansi_quotes:
            return Refusal("is in a command with $'…', which not every `sh` knows", ENV)
        if line := text.find_unreadable(mark):
            return Refusal(f"is in a part that cannot be read (its line {line})", ENV)
        child, parent, is_direct, depth = mark, mark.parent, True, 0
        while parent is not None:
            depth += 1
            if depth > trees.MAX_DEPTH:
                return Refusal("is nested too deeply in the command", ENV)
            if parent.type not in _FREE:
                judge = _JUDGES.get(parent.type, _refuse)
                step = _Step(text, self._flows, self._shell, mark, parent, child, is_direct)
                if refusal := judge(step):
                    return refusal
            is_direct = is_direct and (
                parent.type not in trees.SUBSTITUTIONS or text.is_printed_in(parent, mark)
            )
            child, parent = parent, parent.parent
        return None


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of the path from a value to the whole text.

    Shape: `is_direct` until the path passes a substitution whose output is not the value itself
    (as that of `echo` and `printf` is).
    """

    text: Text
    flows: Flows
    shell: str
    mark: Node
    parent: Node
    child: Node
    is_direct: bool

    @property
    def field(self) -> str | None:
        """The name of the child's field in its parent."""
        return trees.field_of(self.parent, self.child)


def _find_reason(node: Node) -> Refusal:
    """Return why the shell expands nothing in a place."""
    if node.type in ("raw_string", "ansi_c_string"):
        return _SINGLE
    if node.type in ("heredoc_body", "heredoc_content", "heredoc_start", "heredoc_redirect"):
        instead = "write <<EOF without quotes"
        return Refusal("is in a here-document with a quoted end, or in its end", instead)
    if node.type == "regex":
        return Refusal("is in a pattern", "compare with = or ==, or use `case`")
    return _ESCAPED


# The steps ---------------------------------------------------------------------------------------

_FREE = programs.names(
    """
    program list if_statement elif_clause else_clause while_statement do_group
    negated_command command_name variable_assignments
    case_item
    """
)
"""Kinds of nodes that do not affect the meaning of their parts."""


def _refuse(step: _Step) -> Refusal:
    kind = step.parent.type
    if kind in ("expansion", "regex"):
        return _IN_EXPANSION
    if kind in ("arithmetic_expansion", "c_style_for_statement", "subscript"):
        return _ARITHMETIC
    if kind in ("declaration_command", "unset_command"):
        return _DECLARED
    return Refusal(f"is in a {kind.replace('_', ' ').lower()}", ENV)


def _judge_literal(step: _Step) -> Refusal | None:
    return _UNSURE if step.text.has_unread(step.parent) else None


def _judge_command(step: _Step) -> Refusal | None:
    words, place = step.text.words_of(step.parent, step.child)
    if len(words) > programs.MAX_WORDS:
        return programs.find_refusal(words, place)
    if refusal := _judge_redirected(step):  # redirections may stand before the name
        return refusal
    # Without quotes around it, so it may be several words.
    is_name = step.child.type == "command_name"
    is_output = is_name and step.child.children[0].type in trees.SUBSTITUTIONS
    if is_output and step.is_direct:
        return Refusal("is printed as part of a command", LIST)
    if place <= 0:  # the name, what stands before it, or a redirection
        return None
    if words[0].text == "exit" and step.shell in BASHES | PLAIN_SHELLS:
        return None  # which read a number there, and no arithmetic
    if step.is_direct and (refusal := _judge_argument(step, words)):
        return refusal
    if words[0].text in programs.SHADOWED & step.flows.sources.functions:
        return None
    readings = step.flows.read_words(step.parent)
    if step.is_direct and any(step.flows.reads_arguments(each, place) for each in readings):
        return Refusal("is an argument of code for a shell that reads it as code", ENV)
    found = (programs.find_refusal(each, place) for each in readings)
    return next(filter(None, found), None)


def _judge_argument(step: _Step, words: list[programs.Word]) -> Refusal | None:
    """Judge an argument of functions of the text, and of any command if `$_` is read as code."""
    flows = step.flows
    if flows.reads_last_argument:
        return Refusal("is in a command that reads $_ as code", "use a variable of your own")
    for name in sorted(flows.sources.called(words)):
        if f"{name}()" in flows.calculated:
            return Refusal(f"is an argument of {name}, which is read in arithmetic", COMPUTE)
        if f"{name}()" in flows.evaluated:
            return Refusal(f"is an argument of {name}, which reads it as code", ENV)
        if f"{name}()" in flows.split:
            return Refusal(f"is an argument of {name}, {_UNQUOTED}", 'write it as "$1" there')
    return None


_BARE = "and that stands without quotes where an operator of a test, or a command, may be"
_UNQUOTED = "which has it without quotes where an operator of a test, or a command, may be"


def _judge_substitution(step: _Step) -> Refusal | None:
    opening = step.parent.children[0].type
    if opening == "$(":  # within a here-document the grammar does not know $((
        return _ARITHMETIC if trees.text_of(step.parent).startswith("$((") else None
    return _BACKTICKS if opening == "`" else _refuse(step)


def _judge_process(step: _Step) -> Refusal | None:
    """Judge `<(…)`, whose output may be the input of a program."""
    around = step.parent.parent
    if around is not None and around.type == "file_redirect" and step.is_direct:
        is_printed = step.text.is_printed_in(step.parent, step.mark)
        statement = around.parent
        if is_printed and statement is not None and step.flows.reads_code(statement):
            return _READS_INPUT
    return _need(step, BASHES | {"ksh", "ksh93", "zsh"}, "<(…)")


def _judge_redirected(step: _Step) -> Refusal | None:
    """Judge a command with redirections: `> >(sh)` executes its output."""
    redirections = [child for child in step.parent.named_children if child != step.child]
    redirections = [child for child in redirections if child.type == "file_redirect"]
    is_shown = step.is_direct and _is_shown(step)
    return _READS_INPUT if is_shown and any(map(step.flows.reads_code, redirections)) else None


def _is_shown(step: _Step) -> bool:
    """Whether a value is an argument of a command that prints it, or the input of one."""
    is_input = trees.find_ancestor(step.mark, "herestring_redirect", frozenset()) is not None
    return is_input or step.text.is_printed(step.mark)


def _need(step: _Step, shells: frozenset[str], what: str) -> Refusal | None:
    if step.shell in shells:
        return None
    return Refusal(f"is in {what}, which {step.shell} does not have", "set `shell: bash`")


_LARGE = BASHES | KORN_SHELLS | {"zsh"}


def _judge_function(step: _Step) -> Refusal | None:
    if step.field != "body":
        return _refuse(step)
    flows = step.flows
    output = f"{trees.text_of(step.parent.child_by_field_name('name'))}>"
    is_read = output in flows.evaluated or output in flows.calculated or output in flows.split
    if is_read and step.is_direct and _is_shown(step):
        return Refusal("is printed by a function, and what that prints is read as code", ENV)
    return _judge_redirected(step)


def _judge_loop(step: _Step) -> Refusal | None:
    if step.field == "body":
        return None
    is_for = step.parent.children[0].type == "for"
    if not is_for or step.field != "value":
        return _refuse(step)
    variable = step.parent.child_by_field_name("variable")
    return _judge_variable(step, variable)


def _judge_variable(step: _Step, variable: Node | None) -> Refusal | None:
    """Judge the variable that gets a value: it must not be read as arithmetic or code."""
    if variable is None or variable.type != "variable_name":
        return _ARITHMETIC
    name = trees.text_of(variable)
    if name in programs.SPECIAL:
        return Refusal(f"is assigned to {name}, which has a meaning of its own in shells", ENV)
    if name in programs.EXECUTED:
        return Refusal(f"is assigned to {name}, which programs execute", ENV)
    if not step.is_direct:
        return None
    if name in step.flows.calculated:
        return Refusal(f"is assigned to {name}, which is read in arithmetic", COMPUTE)
    if name in step.flows.evaluated:
        return Refusal(f"is assigned to {name}, which is read as code", ENV)
    if name in step.flows.split:
        return Refusal(f"is given to {name}, {_BARE}", f'write it as "${name}" there')
    return None


def _judge_redirection(step: _Step) -> Refusal | None:
    operator = next((c.type for c in step.parent.children if c.type[0] in "<>&"), "")
    if operator in ("<", ">", ">>", ">|"):
        return None
    if operator in ("&>", "&>>"):
        return _need(step, BASHES | {"zsh"}, operator)
    return Refusal(f"stands behind {operator}", "redirect to a file with > or <")


def _judge_here_string(step: _Step) -> Refusal | None:
    command = step.parent.parent
    if command is not None and step.flows.reads_code(command):
        return _READS_INPUT
    return _need(step, _LARGE, "<<<")


def _judge_here_document(step: _Step) -> Refusal | None:
    if step.child.type != "heredoc_body":
        is_known = step.field in ("redirect", "right") or step.child.type == "pipeline"
        return None if is_known else _refuse(step)
    readers = trees.readers_of(step.parent)
    return _READS_INPUT if any(map(step.flows.reads_code, readers)) else None


def _judge_pipeline(step: _Step) -> Refusal | None:
    """Judge a pipeline: text that is printed for a program that executes it is code."""
    children = trees.parts_of(step.parent)
    after = children[children.index(step.child) + 1 :]
    if step.is_direct and _is_shown(step) and any(map(step.flows.reads_code, after)):
        return _READS_INPUT
    return None


def _judge_test(step: _Step) -> Refusal | None:
    if step.parent.children[0].type == "[[":
        return _need(step, _LARGE, "[[ ]]")
    if step.parent.children[0].type != "[":
        return _ARITHMETIC
    words = [programs.Word("["), *step.text.words_in_test(step.parent)]
    return programs.find_refusal(words, 1)


def _judge_comparison(step: _Step) -> Refusal | None:
    """Judge an operator of a test: only operators of texts and files are harmless."""
    operator = trees.text_of(step.parent.child_by_field_name("operator"))
    known = programs.TEST_OF_ONE | {"!"}
    if step.parent.type == "binary_expression":
        known = programs.TEST_OF_TWO | {"&&", "||", "<", ">"}
    if operator in known:
        return None
    if operator == "=~":
        return Refusal("is in a pattern", "compare with = or ==, or use `case`")
    if operator in ("-a", "-o"):
        return Refusal("is in a test that is not a plain one", programs.TEST_ADVICE)
    if operator[:1] == "-" and operator[1:].isalpha():
        instead = programs.COMPARE_BY_TEST.get(operator, COMPUTE)
        return Refusal(f"is compared with {operator}, which is arithmetic", instead)
    return _ARITHMETIC


_JUDGES: Mapping[str, Callable[[_Step], Refusal | None]] = {
    "array": lambda step: _need(step, _LARGE, "an array"),
    "binary_expression": _judge_comparison,
    "c_style_for_statement": lambda step: None if step.field == "body" else _ARITHMETIC,
    "case_statement": lambda step: (
        None if step.field == "value" or step.child.type == "case_item" else _refuse(step)
    ),
    "command": _judge_command,
    "concatenation": _judge_literal,
    "command_substitution": _judge_substitution,
    "compound_statement": lambda step: None if step.parent.children[0].type == "{" else _ARITHMETIC,
    "file_redirect": _judge_redirection,
    "for_statement": _judge_loop,
    "function_definition": _judge_function,
    "heredoc_body": _judge_literal,
    "heredoc_redirect": _judge_here_document,
    "herestring_redirect": _judge_here_string,
    "parenthesized_expression": lambda step: None,
    "pipeline": _judge_pipeline,
    "string": _judge_literal,
    "process_substitution": _judge_process,
    "redirected_statement": _judge_redirected,
    "subshell": lambda step: _ARITHMETIC if trees.text_of(step.parent).startswith("((") else None,
    "test_command": _judge_test,
    "unary_expression": _judge_comparison,
    "variable_assignment": lambda step: (
        _judge_variable(step, step.parent.child_by_field_name("name"))
        if step.field == "value"
        else _refuse(step)
    ),
}
