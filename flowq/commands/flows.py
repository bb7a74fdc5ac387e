"""Where the values of a command get to by way of variables, arguments of functions and pipes.

    count=${{ inputs.count }}; echo $((count + 1))

`places` asks here whether a variable, or an argument of a function, is read as code further on.
Data is followed by names, over the whole text and without regard to its order: a name too many
refuses a harmless command, a name too few would execute a value. The output of programs is not
followed, except that of `echo` and `printf`.

Three kinds of names are told apart, because their users are advised differently. `f()` stands for
the arguments of the function f, and `()` for those of the command itself (`set -- …`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from flowq.commands import programs
from flowq.commands.trees import (
    MAX_DEPTH,
    SUBSTITUTIONS,
    Text,
    arguments_of,
    code_in,
    find_ancestor,
    lines_around,
    parse,
    prefix_of,
    readers_of,
    text_of,
    walk,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_NAMES = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_VARIABLES = re.compile(r"\$\{?!?([A-Za-z_]\w*)", re.ASCII)
_POSITIONAL = re.compile(r"\$\{?!?[0-9@*]")
_READS_NAME = re.compile(r"\$\{!(?!\w+(?:\[[@*]\]|[@*])\})|\$\{[^}]*@P\}", re.ASCII)
"""`${!x}` and `${x@P}`; but `${!x[@]}` and `${!x*}` are names that the text itself gives."""

_KEYS = re.compile(r"\$\{(?:#|!\w+\[[@*]\]\})")
"""A length, or the indices of an array; nothing of a value is in there."""

_SLICE = re.compile(r"\$\{[^}:]*:(?![-=?+])")
_SUBSCRIPT = re.compile(r"[${]\w+\[([^\]]*)")
"""`$a[n]` in zsh, and `{a[n]}>file`, which the grammar takes for words."""

_ARGUMENT = re.compile(r"\w\[([^\]]*)")
_DECLARES_NUMBERS = re.compile(r"[-+]\w*[iEFlun]\w*")
_COMPARES_NUMBERS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "-t"})
_NUMBERS = programs.NUMBERS | {"integer", "float", "test", "printf", "logout"}
_READING = frozenset({"read", "mapfile", "readarray"})
_READ_INTO = frozenset({"REPLY", "MAPFILE"})
"""Where `read` and `mapfile` put what they read, unless they are told."""

_HOOKS = frozenset({"command_not_found_handle", "command_not_found_handler"})
"""Functions that get the words of a command that is not there."""

_ANY = "*()"
"""The arguments of commands of which only the shell knows the name: it may be any function."""

MAX_NESTED = 4

_LITERALS = ("raw_string", "word")
_LAST = "_"
"""The variable that has the last argument of the command before."""


class Flows:
    """What is read as code in one text, and what gets there."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self.is_too_deep = False
        """Whether there is `eval` within `eval`, more often than is looked at."""
        self._is_reading: dict[tuple[int, frozenset[str]], bool] = {}
        self._nodes = [] if text.is_deep else list(self._walk_all())

    def _walk_all(self) -> Iterator[Node]:
        """Yield the parts of the text, and of the code in the arguments of `eval` and `trap`."""
        left = [(self._text.root, 0)]
        while left:
            root, depth = left.pop()
            for node in walk(root):
                yield node
                code = code_in(self._literal_code_in(node))
                if code and depth == MAX_NESTED:
                    self.is_too_deep = True
                elif code:
                    left.append((parse(code), depth + 1))

    def _literal_code_in(self, node: Node) -> list[Node]:
        if node.type == "command":
            words = self._text.words(node)
            is_code = bool(words) and words[0].text in ("eval", "trap")
            return arguments_of(node)[1:] if is_code else []
        if node.type == "variable_assignment" and self._is_special(node):  # PS4='$((n))'
            return node.children_by_field_name("value")
        return []

    @staticmethod
    def _is_special(assignment: Node) -> bool:
        name = text_of(assignment.child_by_field_name("name"))
        return name in programs.SPECIAL or name in programs.EXECUTED

    @cached_property
    def calculated(self) -> frozenset[str]:
        """The names that arithmetic reads, or that are numbers, and those that get into them."""
        return self._with_sources(map(self._calculated_in, self._nodes))

    @cached_property
    def evaluated(self) -> frozenset[str]:
        """The names whose values are read as code, or as names that can have code in them, and
        those that get into them."""
        return self._find_evaluated(self._readers)

    @cached_property
    def split(self) -> frozenset[str]:
        """The names that stand without quotes where one of several words would be an operator of a
        test, or a command, and those that get into them."""
        return self._with_sources(map(self._split_in, self._nodes))

    @cached_property
    def functions(self) -> frozenset[str]:
        """The names of the functions that the text defines."""
        defined = (node for node in self._nodes if node.type == "function_definition")
        return frozenset(text_of(node.child_by_field_name("name")) for node in defined)

    def called(self, words: list[programs.Word]) -> frozenset[str]:
        """Return the functions that may get the arguments of a command."""
        name = words[0].text
        if name is None or not self.functions:
            return self.functions
        named = {name}
        if name in programs.WRAPPERS:
            named |= {word.text for word in words[1:] if word.text}
        return self.functions & (named | _HOOKS)

    def read_words(self, command: Node) -> list[list[programs.Word]]:
        """Return the words of a command, in each way in which they may be read."""
        found = self._text.read_words(command)
        if found[0] and found[0][0].text in self._forwarding:
            found.append([programs.Word("command"), *found[0][1:]])
        return found

    @cached_property
    def _forwarding(self) -> frozenset[str]:
        """The functions that take their arguments, or some of them, for a command: `"$@"`."""
        names = (
            _arguments_in(text_of(node), node)
            for node in self._nodes
            if node.type == "command_name"
        )
        return frozenset(name.removesuffix("()") for found in names for name in found)

    # Arithmetic ----------------------------------------------------------------------------------

    def _calculated_in(self, node: Node) -> Iterator[str]:
        text = " ".join(self._arithmetic_in(node))
        yield from _NAMES.findall(text)
        yield from _arguments_in(text, node)

    def _arithmetic_in(self, node: Node) -> Iterator[str]:
        """Yield the texts that are read as arithmetic; some of them are more than that."""
        kind, text = node.type, text_of(node)
        if kind == "subscript":
            yield text_of(node.child_by_field_name("index"))
        # The grammar takes some of them for commands, for example in a here-document.
        elif text.startswith(("$((", "((", "$[")) or (kind == "expansion" and _SLICE.match(text)):
            yield text
        elif kind == "c_style_for_statement":
            body = node.child_by_field_name("body")
            yield from (text_of(child) for child in node.children if child != body)
        elif kind in ("binary_expression", "unary_expression"):
            if text_of(node.child_by_field_name("operator")) in _COMPARES_NUMBERS:
                yield text
        elif kind == "test_command" and text.startswith("[ "):
            words = [programs.Word("["), *self._text.words_in_test(node)]
            if programs.has_open_operator(words):
                yield text
        elif kind == "unset_command":
            yield from _ARGUMENT.findall(text)
        elif kind == "declaration_command":
            options = (text_of(child) for child in node.children if child.type == "word")
            is_number = any(map(_DECLARES_NUMBERS.fullmatch, options))
            yield text if is_number else " ".join(_ARGUMENT.findall(text))
        elif kind == "command":
            yield from self._numbers_in(node)
        elif kind in ("string", "heredoc_body", "concatenation"):
            yield text if self._text.has_unread(node) else " ".join(_SUBSCRIPT.findall(text))
        elif kind == "array":
            elements = map(text_of, node.named_children)
            yield from (each.partition("=")[0] for each in elements if each.startswith("["))

    def _numbers_in(self, command: Node) -> Iterator[str]:
        """Yield the arguments that a command reads as numbers, and the subscripts in others."""
        words = self._text.words(command)
        name = words[0].text if words else None
        if name in programs.VARIABLES or name in programs.READ_AS_CODE:
            yield from _ARGUMENT.findall(text_of(command))
        if name not in _NUMBERS:
            return
        for place, node in enumerate(arguments_of(command)):
            is_format = name == "printf" and place < 3 and "%" in (words[place].text or "")
            if place and not is_format and programs.find_refusal(words, place):
                yield text_of(node)

    # Code ----------------------------------------------------------------------------------------

    def _find_evaluated(self, readers: frozenset[str]) -> frozenset[str]:
        return self._with_sources(self._evaluated_in(node, readers) for node in self._nodes)

    def _evaluated_in(self, node: Node, readers: frozenset[str]) -> Iterator[str]:
        if node.is_missing or node.type == "ERROR":  # what the grammar does not know may be code
            text = lines_around(node)
            yield from _NAMES.findall(text)
            yield from _arguments_in(text, node)
            return
        for child in self._code_in(node, readers):
            if child.type not in _LITERALS:
                yield from _VARIABLES.findall(text_of(child))
                yield from _arguments_in(text_of(child), node)

    def _code_in(self, node: Node, readers: frozenset[str]) -> Iterable[Node]:
        """Return the parts of a node that are read as code, or by a program that reads code."""
        kind = node.type
        if kind == "expansion":
            return [node] if _READS_NAME.match(text_of(node)) else []
        if kind == "heredoc_body":  # where the grammar does not know backticks
            return [node] if "`" in text_of(node) and self._text.has_unread(node) else []
        if kind in ("declaration_command", "unset_command"):
            children = [
                each for each in node.named_children if not programs.find_assigned(prefix_of(each))
            ]
            return [each for each in children if each.type != "variable_assignment"]
        if kind == "variable_assignment":
            value = node.child_by_field_name("value")
            return [value] if value is not None and self._is_special(node) else []
        if kind == "command":
            return self._code_of(node)
        if kind == "herestring_redirect" and node.parent is not None:
            return [node] if self._reads_once(node.parent, readers) else []
        if kind == "file_redirect" and node.parent is not None:
            if text_of(node).startswith("<") and self._reads_once(node.parent, readers):
                return self._printed(node)  # < <(echo "$x")
            return self._printed(node.parent) if self._reads(node, readers) else []
        if kind == "heredoc_redirect":
            is_read = any(self._reads(each, readers) for each in readers_of(node))
            return [each for each in node.children if is_read and each.type == "heredoc_body"]
        if kind == "pipeline":
            parts = node.named_children
            reading = [i for i, each in enumerate(parts) if self._reads(each, readers)]
            before = parts[: max(reading, default=0)]
            return [found for each in before for found in self._printed(each)]
        return []

    def _code_of(self, command: Node) -> list[Node]:
        found, nodes = self.read_words(command), arguments_of(command)
        if any(map(programs.runs_code, found)):
            return nodes
        return [
            node
            for place, node in enumerate(nodes)
            if node.type not in _LITERALS
            and any(programs.takes_code(words, place) for words in found)
        ]

    def _printed(self, statement: Node) -> Iterator[Node]:
        """Yield what `echo` and `printf` print in a statement, and its here-strings."""
        for node in walk(statement):
            is_printing = node.type == "command" and self._text.prints(node)
            if is_printing or node.type == "herestring_redirect":
                yield node

    # Words without quotes ------------------------------------------------------------------------

    def _split_in(self, node: Node) -> Iterator[str]:
        bare: list[Node] = []
        if node.type == "test_command" and text_of(node).startswith("[ "):
            bare = node.children
        elif node.type == "command":
            words, nodes = self._text.words(node), arguments_of(node)
            bare = nodes[: programs.count_before_command(words) + 1]
        for name, around in _bare_in(bare):
            yield name
            yield from _arguments_in(f"${name}", around)

    # Sources -------------------------------------------------------------------------------------

    def _with_sources(self, found: Iterable[Iterable[str]]) -> frozenset[str]:
        """Return names, and those of the variables whose values get into these."""
        left = [name for names in found for name in names]
        all_names: set[str] = set()
        while left:
            name = left.pop()
            if name not in all_names:
                all_names.add(name)
                left += self._sources.get(name, ())
                left += [_ANY] if name.endswith("()") else []
        return frozenset(all_names)

    @cached_property
    def _sources(self) -> Mapping[str, list[str]]:
        """The names from which others get their values.

        A name in a literal counts too: with n=5 and x=n, $((x)) is 5.
        """
        found: dict[str, list[str]] = {}
        for node in self._nodes:
            for target, values in self._assigned_in(node):
                found.setdefault(target, []).extend(self._read_in(values))
                if not values:  # `for x; do`, and `getopts`, take the arguments
                    found[target] += _arguments_in("$@", node)
        return found

    def _assigned_in(self, node: Node) -> Iterator[tuple[str, list[Node]]]:
        """Yield what a part of the text gives values to, and which."""
        if node.type == "variable_assignment":
            name = text_of(node.child_by_field_name("name")).partition("[")[0]
            values = [node.child_by_field_name("value") or node]
            yield name, values
        elif node.type == "for_statement":
            name = text_of(node.child_by_field_name("variable"))
            yield name, node.children_by_field_name("value")
        elif node.type == "expansion" and node.named_children:
            if any(child.type in ("=", ":=") for child in node.children):
                yield text_of(node.named_children[0]), node.named_children[1:]
        elif node.type == "declaration_command":
            yield from _assignments_in(node.named_children)
        elif node.type == "command":
            yield from self._given_by(node)

    def _given_by(self, command: Node) -> Iterator[tuple[str, list[Node]]]:
        words, arguments = self._text.words(command), arguments_of(command)
        if not words:
            return
        if words[0].text is None:
            yield _ANY, arguments
        else:
            for function in self.called(words):
                yield f"{function}()", arguments
        if words[0].text == "set":
            targets = [word.text for word in words if word.text and _NAMES.fullmatch(word.text)]
            for target in [*targets[1:], *_arguments_in("$@", command)]:
                yield target, arguments[1:]
        elif words[0].text == "getopts":
            yield "OPTARG", []
        elif words[0].text in programs.VARIABLES:
            yield from _assignments_in(arguments)

    def _read_in(self, values: list[Node]) -> Iterator[str]:
        left = list(values)
        while left:
            node = left.pop()
            is_output = node.type in SUBSTITUTIONS and not self._text.is_echo(node)
            if is_output or _KEYS.match(text_of(node)):
                continue
            if node.type in ("variable_name", "special_variable_name"):
                name = text_of(node)
                yield name
                yield from _arguments_in(f"${name}", node)
            elif not node.children:
                yield from (name for name in _NAMES.findall(text_of(node)) if name != _LAST)
            left += node.children

    # What reads code from its input --------------------------------------------------------------

    def reads_code(self, node: Node) -> bool:
        """Whether one of the commands of a statement reads code from its standard input.

        So it is said to of what is too deep to look at.
        """
        return self._reads_once(node, self._all_readers)

    @cached_property
    def _all_readers(self) -> frozenset[str]:
        return self._readers | self.evaluated

    @cached_property
    def _readers(self) -> frozenset[str]:
        """The variables into which no value may be read, and `f|` for functions that read code."""
        known = self.calculated | self._find_evaluated(frozenset())
        defined = [node for node in self._nodes if node.type == "function_definition"]
        return known | frozenset(
            text_of(node.child_by_field_name("name")) + "|"
            for node in defined
            if self._reads(node, known)
        )

    def _reads_once(self, node: Node, known: frozenset[str]) -> bool:
        """`_reads`, remembered: a command is asked about for each of its redirections."""
        if (node.id, known) not in self._is_reading:
            self._is_reading[node.id, known] = self._reads(node, known)
        return self._is_reading[node.id, known]

    def _reads(self, node: Node, known: frozenset[str], depth: int = 0) -> bool:
        """See `reads_code`. Shape: `known` as in `_readers`."""
        if depth > MAX_DEPTH:
            return True
        children = node.named_children
        if node.type == "command":
            words = self._text.words(node)
            if words and programs.reads_code(words):
                return True
            if words and any(f"{name}|" in known for name in self.called(words)):
                return True
            if words and words[0].text in _READING:
                return any(word.text in known for word in words[1:]) or bool(known & _READ_INTO)
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
    def reads_last_argument(self) -> bool:
        """Whether `$_` is read as code, which any command sets."""
        return _LAST in self.calculated or _LAST in self.evaluated


def _arguments_in(text: str, node: Node) -> Iterator[str]:
    """Yield `f()` where a text has arguments of the function f in it, in whose body a node is; `()`
    where it is in none."""
    if _POSITIONAL.search(text):
        around = find_ancestor(node, "function_definition", frozenset())
        name = text_of(around.child_by_field_name("name")) if around is not None else ""
        yield f"{name}()"


def _assignments_in(nodes: Iterable[Node]) -> Iterator[tuple[str, list[Node]]]:
    """Yield the variables that words such as `"x=$y"` give values to, and these."""
    for node in nodes:
        if name := programs.find_assigned(code_in([node])):
            yield name, [node]


def _bare_in(nodes: Iterable[Node]) -> Iterator[tuple[str, Node]]:
    """Yield the variables that stand there without quotes."""
    left = list(nodes)
    while left:
        node = left.pop()
        if node.type in ("variable_name", "special_variable_name"):
            yield text_of(node), node
        elif node.type not in ("string", "arithmetic_expansion", *SUBSTITUTIONS):
            left += node.children
