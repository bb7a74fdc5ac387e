"""The tree of a command for a shell, as the grammar of bash sees it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from flowq.commands.programs import (
    EXECUTED,
    SPECIAL,
    Word,
    find_refusal,
    is_assignment,
    reads_code,
    runs_code,
    takes_code,
)
from flowq.commands.values import QUOTED, WORD

if TYPE_CHECKING:  # the grammar is loaded for commands with expressions only
    from tree_sitter import Node, Parser

SUBSTITUTIONS = frozenset({"command_substitution", "process_substitution"})
"""What begins anew within quotes."""

MAX_DEPTH = 250
"""How many parts of a command may be around a value, each in the next one."""

_BEGINS = SUBSTITUTIONS | {
    "ansi_c_string",
    "arithmetic_expansion",
    "expansion",
    "raw_string",
    "simple_expansion",
    "string",
}

_NAMES = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_VARIABLES = re.compile(r"\$\{?!?([A-Za-z_]\w*)", re.ASCII)
_POSITIONAL = re.compile(r"\$\{?[0-9@*]")
_ONE_VARIABLE = re.compile(r"\"?\$\{?([A-Za-z_]\w*)\}?\"?", re.ASCII)
_READS_NAME = re.compile(r"\$\{(?:!\w+|\w+@P)\}", re.ASCII)
_DECLARES_NUMBERS = re.compile(r"[-+]\w*[iEFlun]\w*")
_PLAIN_END = re.compile(r"\w+|'\w+'|\"\w+\"|\\\w+", re.ASCII)
_SENSITIVE = re.compile(rb"['\"`(){}<\\#]")
_UNREAD = re.compile(r"`|\$[({\[]")
_COMPARES_NUMBERS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "-t"})


@cache
def _parser() -> Parser:
    from tree_sitter import Language, Parser  # noqa: PLC0415 - only for expressions in commands
    from tree_sitter_bash import language  # noqa: PLC0415

    return Parser(Language(language()))


_CONTINUED = re.compile(r"\A(?:\s|\\\n)+")


def text_of(node: Node | None) -> str:
    """Return the text of a node; empty for none."""
    return "" if node is None or node.text is None else node.text.decode("utf-8", "surrogatepass")


def field_of(parent: Node, child: Node) -> str | None:
    """Return what a node is to its parent."""
    return next(
        (parent.field_name_for_child(i) for i, each in enumerate(parent.children) if each == child),
        None,
    )


def find_ancestor(node: Node, kind: str, until: frozenset[str]) -> Node | None:
    """Return the nearest node around one that is of a kind, within the nearest of others."""
    around = node.parent
    while around is not None and around.type not in until:
        if around.type == kind:
            return around
        around = around.parent
    return None


def readers_of(document: Node) -> list[Node]:
    """Return the statements that can read a here-document: that which has it, its
    redirections, and a pipeline."""
    around = document.parent
    body = around.child_by_field_name("body") if around is not None else None
    beside = around.named_children if around is not None else []
    redirections = [each for each in beside if each.type == "file_redirect"]
    return [*filter(None, [body]), *redirections, *document.named_children]


class Text:
    """A command in which each expression is a reference `${NAME_0}`, `${NAME_1}`, …"""

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._bytes = text.encode("utf-8", "surrogatepass")
        self._root = _parser().parse(self._bytes).root_node
        marks = re.finditer(rb"\$\{%b_[0-9]+\}" % name.encode(), self._bytes)
        self._marks = [found.span() for found in marks]
        self._words_by_command: dict[int, tuple[list[Word], dict[int, int]]] = {}

    def find_mark(self, number: int) -> Node:
        """Return the smallest part of the text that an expression stands in."""
        found = self._root.descendant_for_byte_range(*self._marks[number])
        assert found is not None, "it is in the text"
        return found

    def is_mark(self, node: Node, number: int) -> bool:
        """Whether a part of the text is that expression, where the shell fills it in."""
        mark = f"${{{self._name}_{number}}}"
        # To the grammar, spaces before it are a part of it behind a substitution in quotes, and a \
        # at the end of the line before it is one at the beginning of quotes.
        text = _CONTINUED.sub("", text_of(node))
        return node.type == "expansion" and text == mark and len(node.children) == 3

    def find_letter(self, number: int) -> str:
        """Return how an expression has to be written: the nearest quotes around it decide."""
        node: Node | None = self.find_mark(number)
        if node is not None and node.type == "comment":
            return QUOTED
        while node is not None and node.type not in SUBSTITUTIONS:
            if node.type in ("string", "heredoc_body"):
                return QUOTED
            node = node.parent
        return WORD

    def is_as_written(self, mark: Node, letter: str) -> bool:
        """Whether an expression is read as it was written: a word has quotes of its own."""
        around = mark.parent
        if letter == WORD:
            return around is not None and around.type == "string" and len(around.children) == 3
        while around is not None and around.type not in SUBSTITUTIONS:
            if around.type in ("string", "heredoc_body"):
                return True
            around = around.parent
        return False

    def has_unread(self, node: Node) -> bool:
        """Whether the literal text of quotes, of a here-document or of a word begins anything.

        The grammar does not know what arithmetic and backticks are in some places.
        """
        text, start = bytearray(node.text or b""), node.start_byte
        for child in node.children:
            if child.type in _BEGINS:
                text[child.start_byte - start : child.end_byte - start] = b" "
                start += child.end_byte - child.start_byte - 1
        literal = re.sub(r"\\.", "", text.decode("utf-8", "surrogatepass"), flags=re.DOTALL)
        return _UNREAD.search(literal) is not None

    def find_unreadable(self, mark: Node) -> int | None:
        """Return the line from which on the text cannot be read around a part of it.

        That is where the statement around it is an error, or something before it that could have
        changed what is within quotes.
        """
        statement = mark
        while statement.parent is not None and statement.parent.parent is not None:
            statement = statement.parent
        if statement.has_error or statement.type == "ERROR" or self._root.type == "ERROR":
            return statement.start_point[0] + 1
        for node in self._doubtful:
            is_near = node.end_point[0] == statement.start_point[0]
            is_before = node.start_byte < mark.start_byte
            if is_before and (is_near or node.is_missing or _SENSITIVE.search(node.text or b"")):
                return node.start_point[0] + 1
        return None

    @cached_property
    def _nodes(self) -> list[Node]:
        found, left = [], [self._root]
        while left:
            node = left.pop()
            found.append(node)
            left += node.children
        return found

    @cached_property
    def _doubtful(self) -> list[Node]:
        return [
            node
            for node in self._nodes
            if node.type == "ERROR"
            or node.is_missing
            or (node.type == "heredoc_redirect" and not self._is_plain_document(node))
        ]

    def _is_plain_document(self, node: Node) -> bool:
        """Whether a here-document ends where every shell ends it: the grammar is not that exact."""
        parts = {child.type: child for child in node.children}
        start, end = parts.get("heredoc_start"), parts.get("heredoc_end")
        if start is None or end is None or not _PLAIN_END.fullmatch(text_of(start)):
            return False
        if sum(line.count(b"<<") for line in [self._lines[start.start_point[0]]]) != 1:
            return False  # two of them in one line
        delimiter = text_of(start).strip("'\"\\").encode()
        first, last = start.start_point[0] + 1, end.start_point[0]
        if self._lines[first - 1].rstrip(b" \t").endswith(b"\\"):
            return False
        lines = self._lines[first : last + 1]
        if "<<-" in parts:
            lines = [line.lstrip(b"\t") for line in lines]
        body = parts.get("heredoc_body")
        is_where = body is None or body.start_point[0] == first
        return is_where and bool(lines) and lines[-1] == delimiter and delimiter not in lines[:-1]

    @cached_property
    def _lines(self) -> list[bytes]:
        return self._bytes.split(b"\n")

    @cached_property
    def has_ansi_quotes(self) -> bool:
        """Whether there is `$'…'` in the text."""
        return any(node.type == "ansi_c_string" for node in self._nodes)

    @cached_property
    def has_aliases(self) -> bool:
        """Whether the text defines aliases."""
        return any(
            words and words[0].text == "alias"
            for words in (self._words(node) for node in self._nodes if node.type == "command")
        )

    @cached_property
    def has_coprocesses(self) -> bool:
        """Whether the word `coproc` is in the text: what is written to one is not followed."""
        return any(node.type == "word" and node.text == b"coproc" for node in self._nodes)

    @cached_property
    def functions(self) -> frozenset[str]:
        """The names of the functions that the text defines."""
        defined = (node for node in self._nodes if node.type == "function_definition")
        return frozenset(text_of(node.child_by_field_name("name")) for node in defined)

    @cached_property
    def calculated(self) -> frozenset[str]:
        """The variables that arithmetic reads, or that are numbers, and those that get into them.

        `f()` stands for the arguments of the function f.
        """
        return self._with_sources(map(self._calculated_in, self._nodes))

    def _calculated_in(self, node: Node) -> Iterator[str]:
        text = ""
        is_group = node.type == "compound_statement" and node.children[0].type == "(("
        is_slice = node.type == "expansion" and any(child.type == ":" for child in node.children)
        if node.type == "arithmetic_expansion" or is_group or is_slice:
            text = text_of(node)
        elif node.type == "c_style_for_statement":
            body = node.child_by_field_name("body")
            text = " ".join(text_of(child) for child in node.children if child != body)
        elif node.type == "subscript":
            text = text_of(node.child_by_field_name("index"))
        elif node.type in ("binary_expression", "unary_expression"):
            is_number = text_of(node.child_by_field_name("operator")) in _COMPARES_NUMBERS
            text = text_of(node) if is_number else ""
        elif node.type == "declaration_command":
            options = [text_of(child) for child in node.children if child.type == "word"]
            is_number = any(map(_DECLARES_NUMBERS.fullmatch, options))
            text = text_of(node) if is_number else ""
        elif node.type == "command":
            text = " ".join(self._numbers_in(node))
        yield from _NAMES.findall(text)
        yield from _arguments_in(text, node)

    def _numbers_in(self, command: Node) -> Iterator[str]:
        """Yield the arguments that a command reads as numbers."""
        words = self._words(command)
        if not words or words[0].text not in _NUMBERS:
            return
        is_printing = words[0].text == "printf"
        for place, node in enumerate(_arguments(command)):
            is_format = is_printing and place < 3 and "%" in (words[place].text or "")
            if place and not is_format and find_refusal(words, place):
                yield text_of(node)

    @cached_property
    def evaluated(self) -> frozenset[str]:
        """The variables whose values are read as code, or as names that can have code in them, and
        those that get into them; see `calculated`."""
        return self._with_sources(map(self._evaluated_in, self._nodes))

    def _evaluated_in(self, node: Node) -> Iterator[str]:
        for child in self._code_in(node):
            if child.type not in ("raw_string", "word"):
                yield from _VARIABLES.findall(text_of(child))
                yield from _arguments_in(text_of(child), node)

    def _code_in(self, node: Node) -> Iterable[Node]:
        """Return the parts of a node that are read as code, or by a program that reads code."""
        kind, functions = node.type, self._reading_functions
        if kind == "expansion":
            return [node] if _READS_NAME.fullmatch(text_of(node)) else []
        if kind in ("declaration_command", "unset_command"):
            children = [each for each in node.named_children if not is_assignment(_prefix(each))]
            return [each for each in children if each.type != "variable_assignment"]
        if kind == "variable_assignment":
            is_read = text_of(node.child_by_field_name("name")) in SPECIAL | EXECUTED
            return filter(None, [node.child_by_field_name("value")] if is_read else [])
        if kind == "command":
            return self._code_of(node)
        if kind == "herestring_redirect" and node.parent is not None:
            return [node] if self._reads(node.parent, functions) else []
        if kind == "file_redirect" and node.parent is not None:
            return self._printed(node.parent) if self._reads(node, functions) else []
        if kind == "heredoc_redirect":
            is_read = any(self._reads(each, functions) for each in readers_of(node))
            return [each for each in node.children if is_read and each.type == "heredoc_body"]
        if kind == "pipeline":
            parts = node.named_children
            reading = [i for i, each in enumerate(parts) if self._reads(each, functions)]
            return [
                found for each in parts[: max(reading, default=0)] for found in self._printed(each)
            ]
        return []

    def _code_of(self, command: Node) -> list[Node]:
        words, nodes = self._words(command), _arguments(command)
        if runs_code(words):
            return nodes
        found = [node for place, node in enumerate(nodes) if takes_code(words, place)]
        # What is not quoted may be a whole command.
        is_bare = bool(nodes) and any("expansion" in child.type for child in nodes[0].children)
        return [*found, nodes[0]] if is_bare else found

    def _printed(self, statement: Node) -> Iterator[Node]:
        """Yield what `echo` and `printf` print in a statement, and its here-strings."""
        left = [statement]
        while left:
            node = left.pop()
            if node.type == "herestring_redirect" or (
                node.type == "command" and self._prints(node)
            ):
                yield node
            left += node.children

    def _with_sources(self, found: Iterable[Iterable[str]]) -> frozenset[str]:
        """Return names, and those of the variables whose values get into these."""
        left = [name for names in found for name in names]
        all_names: set[str] = set()
        while left:
            name = left.pop()
            if name not in all_names:
                all_names.add(name)
                left += self._sources.get(name, ())
        return frozenset(all_names)

    @cached_property
    def _sources(self) -> Mapping[str, list[str]]:
        """The variables from which others get their values, but for the output of commands other
        than `echo` and `printf`."""
        found: dict[str, list[str]] = {}
        for node in self._nodes:
            if node.type == "variable_assignment":
                name, values = node.child_by_field_name("name"), [node.child_by_field_name("value")]
            elif node.type == "for_statement":
                name = node.child_by_field_name("variable")
                values = [*node.children_by_field_name("value")]
            elif node.type == "command":
                name, values = node.child_by_field_name("name"), [*_arguments(node)[1:]]
                if text_of(name) not in self.functions:
                    continue
            else:
                continue
            target = text_of(name).partition("[")[0] + ("()" if node.type == "command" else "")
            found.setdefault(target, []).extend(self._read_in([*filter(None, values)]))
        return found

    def _read_in(self, left: list[Node]) -> Iterator[str]:
        while left:
            node = left.pop()
            is_output = node.type in SUBSTITUTIONS and not self.is_echo(node)
            if is_output or text_of(node).startswith("${#"):
                continue
            if node.type in ("variable_name", "special_variable_name"):
                name = text_of(node)
                yield name
                yield from _arguments_in(f"${name}", node)
            left += node.children

    # Words ---------------------------------------------------------------------------------------

    def words_of(self, command: Node, child: Node) -> tuple[list[Word], int]:
        """Return the words of a command, and the place of one; -1 for what is no word of it."""
        words = self._words(command)
        return words, self._words_by_command[command.id][1].get(child.id, -1)

    def words_in_test(self, test: Node) -> list[Word]:
        """Return the words between `[` and `]`."""
        return [word for child in test.children[1:-1] for word in self._flat(child)]

    def reads_code(self, node: Node) -> bool:
        """Whether one of the commands of a statement reads code from its standard input.

        So it is said to of what is too deep to look at.
        """
        return self._reads(node, self._reading_functions | self.evaluated | self.calculated)

    def _reads(self, node: Node, known: frozenset[str], depth: int = 0) -> bool:
        """See `reads_code`. Shape: `known` are variables into which no value may be read, and
        `f|` for a function f that reads code."""
        if depth > MAX_DEPTH:
            return True
        children = node.named_children
        if node.type == "command":
            words = self._words(node)
            if words and (reads_code(words) or f"{words[0].text}|" in known):
                return True
            if words and words[0].text in ("read", "mapfile", "readarray"):
                return any(word.text in known for word in words[1:])
        if node.type in ("command", "file_redirect"):
            children = [
                each
                for each in children
                if each.type == "file_redirect" or text_of(each).startswith(">(")
            ]
        elif node.type in ("string", "heredoc_body"):
            return False
        return any(self._reads(child, known, depth + 1) for child in children)

    @cached_property
    def _reading_functions(self) -> frozenset[str]:
        defined = [node for node in self._nodes if node.type == "function_definition"]
        return frozenset(
            text_of(node.child_by_field_name("name")) + "|"
            for node in defined
            if self._reads(node, frozenset())
        )

    def is_printed(self, mark: Node) -> bool:
        """Whether a value is an argument of a command that prints it."""
        command = find_ancestor(mark, "command", frozenset())
        return command is not None and self._prints(command)

    def is_echo(self, substitution: Node) -> bool:
        """Whether `$(…)` or `<(…)` is nothing but a command that prints its arguments."""
        inside = substitution.named_children
        return len(inside) == 1 and inside[0].type == "command" and self._prints(inside[0])

    def _prints(self, command: Node) -> bool:
        words = self._words(command)
        return bool(words) and words[0].text in ("echo", "printf")

    def _words(self, command: Node) -> list[Word]:
        if command.id not in self._words_by_command:
            nodes = _arguments(command)
            places = {node.id: place for place, node in enumerate(nodes)}
            words = [self._word(node) for node in nodes]
            if words and (name := _ONE_VARIABLE.fullmatch(text_of(nodes[0]))):
                words[0] = replace(words[0], text=self._literals.get(name[1]))
            self._words_by_command[command.id] = words, places
        return self._words_by_command[command.id][0]

    @cached_property
    def _literals(self) -> Mapping[str, str | None]:
        """The first words of the variables that get one literal in the text, and no other value."""
        found: dict[str, str | None] = {}
        for node in self._nodes:
            if node.type == "variable_assignment":
                name, value = (node.child_by_field_name(field) for field in ("name", "value"))
                literal = _literal(value) if value is not None else None
                is_new = text_of(name) not in found
                found[text_of(name)] = literal.split()[0] if is_new and literal else None
        return found

    def _flat(self, node: Node) -> Iterator[Word]:
        if node.type in ("binary_expression", "unary_expression"):
            for child in node.children:
                yield from self._flat(child)
        else:
            yield self._word(node)

    def _word(self, node: Node) -> Word:
        has_value = self._name.encode() in (node.text or b"")
        text = _literal(node)
        return Word(text, "" if text is not None else _prefix(node), has_value)


_NUMBERS = frozenset({"let", "integer", "float", "test", "printf", "exit", "return", "shift"})


def _arguments_in(text: str, node: Node) -> Iterator[str]:
    """Yield `f()` where a text has arguments of the function f in it, in whose body a node is."""
    if _POSITIONAL.search(text):
        around = find_ancestor(node, "function_definition", frozenset())
        if around is not None:
            yield text_of(around.child_by_field_name("name")) + "()"


def _arguments(command: Node) -> list[Node]:
    """Return the parts of a command that are its words: its name, and its arguments."""
    return [
        child
        for i, child in enumerate(command.children)
        if command.field_name_for_child(i) in ("name", "argument")
    ]


def _literal(node: Node) -> str | None:
    """Return what a word says, if the shell has nothing to fill in there."""
    text = text_of(node)
    if node.type in ("command_name", "concatenation"):
        parts = [_literal(child) for child in node.children]
        return None if None in parts else "".join(filter(None, parts))
    if node.type == "string":
        inside = [child for child in node.children if child.type != '"']
        if any(child.type != "string_content" for child in inside):
            return None
        return re.sub(r'\\([\\"$`\n])', r"\1", text[1:-1])
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "ansi_c_string":
        return None if "\\" in text else text[2:-1]
    if node.type == "word":
        return re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""))
    is_plain = node.type in ("number", "test_operator") or not node.is_named
    return text if is_plain else None


def _prefix(node: Node) -> str:
    """Return what is known of the beginning of a word."""
    if node.type == "string":
        first = node.children[1] if len(node.children) > 1 else None
        return text_of(first) if first is not None and first.type == "string_content" else ""
    if node.type not in ("command_name", "concatenation"):
        return ""
    known = ""
    for child in node.children:
        text = _literal(child)
        if text is None:
            return known + _prefix(child)
        known += text
    return known
