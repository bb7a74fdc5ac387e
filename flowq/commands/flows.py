"""Which names of a command for a shell are read as code further on.

    count=${{ inputs.count }}; echo $((count + 1))

`places` asks here whether a value may be given to a variable, or to a function as an argument.
`sources` follows names back to where their values come from. The literal code of `sh -c` is a text
of its own; the words behind it are judged like the arguments of a function.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from flowq.commands import programs
from flowq.commands.sources import LAST_ARGUMENT, NAMES, POSITIONAL, Sources, arguments_in
from flowq.commands.trees import (
    MAX_DEPTH,
    SUBSTITUTIONS,
    Text,
    arguments_of,
    code_in,
    has_substitution,
    lines_around,
    parse,
    parts_of,
    prefix_of,
    readers_of,
    text_of,
    walk,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_VARIABLES = re.compile(r"\$\{?!?([A-Za-z_]\w*)", re.ASCII)
_READS_NAME = re.compile(r"\$\{!(?!\w+(?:\[[@*]\]|[@*])\})|\$\{[^}]*@P\}", re.ASCII)
"""`${!x}` and `${x@P}`. `${!x[@]}` and `${!x*}` are names from the text itself."""

_SLICE = re.compile(r"\$\{[^}:]*:(?![-=?+])")
_SUBSCRIPT = re.compile(r"[${]\w+\[([^\]]*)")
"""`$a[n]` in zsh, and `{a[n]}>file`; the grammar takes both for words."""

_ARGUMENT = re.compile(r"\w\[([^\]]*)")
_DECLARES_NUMBERS = re.compile(r"[-+]\w*[iEFlun]\w*")
_COMPARES_NUMBERS = frozenset({"-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-v", "-R", "-t"})
_NUMBERS = programs.NUMBERS | {"integer", "float", "test", "printf", "logout"}
_READING = frozenset({"read", "mapfile", "readarray"})
_READ_INTO = frozenset({"REPLY", "MAPFILE"})
"""Where `read` and `mapfile` store what they read, by default."""

_INTERPRETERS = frozenset({"eval", "source", "trap", "sh", "bash", "dash"})
_LITERALS = ("raw_string", "word")

MAX_NESTED = 4


class Flows:
    """The names that one text reads as code."""

    def __init__(self, text: Text, depth: int = 0) -> None:
        self._text = text
        self._depth = depth
        """The number of outer texts: `sh -c` within `sh -c`."""
        self._codes: dict[int, Node] = {}
        """The roots of the code in `eval` and `trap`, by the id of their nodes."""
        self._inner: dict[str, Flows] = {}
        self._interpreters: dict[str, frozenset[str]] = {}
        self.is_too_deep = False
        """Whether `eval` is nested within `eval` more often than is examined."""
        self._is_reading: dict[tuple[int, frozenset[str]], bool] = {}
        self._nodes = [] if text.is_deep else list(self._walk_all())
        self.sources = Sources(text, self._nodes)

    def _walk_all(self) -> Iterator[Node]:
        """Yield the nodes of the text, and of the code in the arguments of `eval` and `trap`."""
        left = [(self._text.root, 0)]
        while left:
            root, depth = left.pop()
            for node in walk(root):
                yield node
                code = self._literal_code_in(node)
                if code and depth == MAX_NESTED:
                    self.is_too_deep = True
                elif code:
                    self._codes[node.id] = parse(code)
                    left.append((self._codes[node.id], depth + 1))

    def _literal_code_in(self, node: Node) -> str:
        if node.type == "command":
            words = self._text.words(node)
            name = words[0].text if words else None
            if name == "trap":  # each word by itself: signals are not part of the code
                return "\n".join(code_in([each]) for each in arguments_of(node)[1:])
            return code_in(arguments_of(node)[1:]) if name == "eval" else ""
        if node.type == "variable_assignment" and self._is_special(node):  # PS4='$((n))'
            return code_in(node.children_by_field_name("value"))
        return ""

    @staticmethod
    def _is_special(assignment: Node) -> bool:
        name = text_of(assignment.child_by_field_name("name"))
        return name in programs.SPECIAL or name in programs.EXECUTED

    @cached_property
    def calculated(self) -> frozenset[str]:
        """The names that arithmetic reads, or that are numbers, with their sources."""
        texts = ((node, " ".join(self._arithmetic_in(node))) for node in self._nodes)
        return self.sources.with_sources(
            [*NAMES.findall(text), *arguments_in(text, node)] for node, text in texts
        )

    @cached_property
    def evaluated(self) -> frozenset[str]:
        """The names whose values are read as code, or as names that may contain code, with their
        sources."""
        return self._find_evaluated(self._readers)

    @cached_property
    def split(self) -> frozenset[str]:
        """The names that stand without quotes where a word may be an operator of a test, or a
        command, with their sources."""
        return self.sources.with_sources(map(self._split_in, self._nodes))

    def read_words(self, command: Node) -> list[list[programs.Word]]:
        """Return the words of a command, once for each way to read them."""
        found = self._text.read_words(command)
        if found[0] and found[0][0].text is None:
            name = text_of(arguments_of(command)[0])
            found += [[programs.Word(each), *found[0][1:]] for each in self._interpreters_in(name)]
        command_word = programs.Word("command")
        for words in found[:]:
            if words and not self.sources.called(words).isdisjoint(self._forwarding):
                found.append([command_word, *words[1:]])
            place = programs.find_shell_code(words)
            if place and "" in self._inner_flows(words[place].text or "")._forwarding:
                before = [command_word, *[programs.Word("")] * (place + 1)]
                found.append([*before, *words[place + 2 :]])
        return found

    def _interpreters_in(self, name: str) -> frozenset[str]:
        """Return the interpreters that a command's name may be."""
        if name not in self._interpreters:
            variables = _VARIABLES.findall(name)
            variables += ["()"] if POSITIONAL.search(name) else []
            self._interpreters[name] = self.sources.with_sources([variables]) & _INTERPRETERS
        return self._interpreters[name]

    @cached_property
    def _forwarding(self) -> frozenset[str]:
        """The functions that execute their arguments, or some of them, as a command: `"$@"`.

        Includes functions that pass arguments to such a function. "" is the command itself.
        """
        found = self.sources.with_sources(map(self._commands_in, self._nodes))
        return frozenset(name.removesuffix("()") for name in found if name.endswith("()"))

    def _commands_in(self, node: Node) -> Iterator[str]:
        """Yield the names in a command's name, or in the name of the command that it starts."""
        words = self._text.words(node) if node.type == "command" else []
        if words and words[0].text not in ("test", "[", "find"):
            for part in arguments_of(node)[: programs.count_before_command(words) + 1]:
                if part.type not in ("raw_string", "word"):
                    yield from _VARIABLES.findall(text_of(part))
                    yield from arguments_in(text_of(part), node)

    def reads_arguments(self, words: list[programs.Word], at: int) -> bool:
        """Whether the word at `at` is an argument of `sh -c` that its code reads as code."""
        place = programs.find_shell_code(words)
        if not place or at <= place:
            return False
        inner = self._inner_flows(words[place].text or "")
        is_read = "()" in inner.calculated or "()" in inner.evaluated or "()" in inner.split
        return is_read or inner.is_too_deep

    def _inner_flows(self, code: str) -> Flows:
        if code not in self._inner:
            self._inner[code] = Flows(self._text.within(code), self._depth + 1)
            self._inner[code].is_too_deep |= self._depth >= MAX_NESTED
        return self._inner[code]

    # Arithmetic ----------------------------------------------------------------------------------

    def _arithmetic_in(self, node: Node) -> Iterator[str]:
        """Yield the texts that are read as arithmetic; some contain more than arithmetic."""
        kind, text = node.type, text_of(node)
        if kind == "subscript":
            yield text_of(node.child_by_field_name("index"))
        # The grammar reads some of these as commands, for example in a here-document.
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
        """Yield the arguments that a command reads as numbers, and subscripts in others."""
        words = self._text.words(command)
        name = words[0].text if words else None
        if name in programs.VARIABLES or name in programs.READ_AS_CODE:
            yield from _ARGUMENT.findall(text_of(command))
        if name not in _NUMBERS or name in programs.SHADOWED & self.sources.functions:
            return
        for place, node in enumerate(arguments_of(command)):
            is_format = name == "printf" and place < 3 and "%" in (words[place].text or "")
            if place and not is_format and programs.find_refusal(words, place):
                yield text_of(node)

    # Code ----------------------------------------------------------------------------------------

    def _find_evaluated(self, readers: frozenset[str]) -> frozenset[str]:
        return self.sources.with_sources(self._evaluated_in(node, readers) for node in self._nodes)

    def _evaluated_in(self, node: Node, readers: frozenset[str]) -> Iterator[str]:
        if node.is_missing or node.type == "ERROR":  # unknown syntax may be code
            text = lines_around(node)
            yield from NAMES.findall(text)
            yield from arguments_in(text, node)
            return
        for child in self._code_in(node, readers):
            if child.type == "command" and not self._text.prints(child) and child != node:
                yield from self.sources.outputs_of(child)
            elif child.type not in _LITERALS:
                yield from _VARIABLES.findall(text_of(child))
                yield from arguments_in(text_of(child), node)
                yield from self.sources.printed_by(
                    each for each in walk(child) if each.type in SUBSTITUTIONS
                )

    def _code_in(self, node: Node, readers: frozenset[str]) -> Iterable[Node]:
        """Return the parts of a node that the shell, or a program, reads as code."""
        kind = node.type
        if kind == "expansion":
            return [node] if _READS_NAME.match(text_of(node)) else []
        if kind == "heredoc_body":  # the grammar does not know backticks there
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
            parts = parts_of(node)
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
            and any(
                programs.takes_code(words, place) or self.reads_arguments(words, place)
                for words in found
            )
        ]

    def _printed(self, statement: Node) -> Iterator[Node]:
        """Yield the parts of a statement whose output is known: `echo` and `printf`, here-strings,
        and calls of functions."""
        for node in walk(statement):
            if node.type == "herestring_redirect" or (
                node.type == "command"
                and (self._text.prints(node) or next(self.sources.outputs_of(node), None))
            ):
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
            yield from arguments_in(f"${name}", around)

    # What reads code from its input --------------------------------------------------------------

    def reads_code(self, node: Node) -> bool:
        """Whether one of the commands of a statement reads code from its standard input.

        True for a statement that is nested too deeply to examine.
        """
        return self._reads_once(node, self._all_readers)

    @cached_property
    def _all_readers(self) -> frozenset[str]:
        return self._readers | self.evaluated

    @cached_property
    def redirects_code(self) -> bool:
        """Whether the redirections of `exec` may turn output, or a text of the command, into code.

        They apply to all commands after it: their output may go to a program that reads code, and
        their input may be a text of the command.
        """
        starting = [
            node
            for node in self._nodes
            if node.type == "command"
            and any(
                word.text in ("exec", "redirect")
                for words in self._text.read_words(node)
                for word in words[: programs.count_before_command(words) + 1]
            )
        ]
        beside = [
            each
            for node in starting
            for around in (node, node.parent)
            if around is node or (around is not None and around.type == "redirected_statement")
            for each in around.named_children
        ]
        if any(each.type == "file_redirect" and self.reads_code(each) for each in beside):
            return True
        has_input = any(
            each.type in ("herestring_redirect", "heredoc_redirect")
            or (each.type == "file_redirect" and "<(" in text_of(each))
            for each in beside
        )
        roots = [self._text.root, *self._codes.values()]
        return has_input and any(map(self.reads_code, roots))

    @cached_property
    def _readers(self) -> frozenset[str]:
        """The variables that must not be read from input, and `f|` for functions that read code."""
        known = self.calculated | self._find_evaluated(frozenset())
        callers: dict[str, set[str]] = {}
        left = []
        for node in self._nodes:
            if node.type == "function_definition":
                name = text_of(node.child_by_field_name("name"))
                if self._reads(node, known):
                    left.append(name)
                for command in walk(node):
                    words = self._text.words(command) if command.type == "command" else []
                    for called in self.sources.called(words) if words else ():
                        callers.setdefault(called, set()).add(name)
        found: set[str] = set()
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += callers.get(name, ())
        return known | {f"{name}|" for name in found}

    def _reads_once(self, node: Node, known: frozenset[str]) -> bool:
        """`_reads`, cached, because it is needed for each redirection of a command."""
        if (node.id, known) not in self._is_reading:
            self._is_reading[node.id, known] = self._reads(node, known)
        return self._is_reading[node.id, known]

    def _reads(self, node: Node, known: frozenset[str], depth: int = 0) -> bool:
        """See `reads_code`. Shape: `known` as in `_readers`."""
        if depth > MAX_DEPTH >> 2 * self._depth:  # the recursion continues in inner texts
            return True
        kind = node.type
        if kind == "command" and self._reads_as_command(node, known):
            return True
        if kind == "variable_assignment" and has_substitution(node):  # x=$(cat); eval "$x"
            name = text_of(node.child_by_field_name("name")).partition("[")[0]
            if name in known:
                return True
        if any(self._arithmetic_in(node)) and has_substitution(node):  # $(( $(cat) ))
            return True
        if node.id in self._codes and self._reads(self._codes[node.id], known, depth + 1):
            return True
        return any(self._reads(child, known, depth + 1) for child in node.named_children)

    def _reads_as_command(self, command: Node, known: frozenset[str]) -> bool:
        for words in filter(None, self.read_words(command)):
            if programs.reads_code(words):
                return True
            if any(f"{name}|" in known for name in self.sources.called(words)):
                return True
            into = _READ_INTO.union(word.text for word in words[1:] if word.text)
            if words[0].text in _READING and known & into:
                return True
            place = programs.find_shell_code(words)
            if place and words[place].text is not None:
                inner = self._inner_flows(words[place].text or "")
                if inner.is_too_deep or inner.reads_code(inner._text.root):
                    return True
        return any(map(has_substitution, self._code_of(command)))  # eval "$(cat)"

    @cached_property
    def reads_last_argument(self) -> bool:
        """Whether the text reads `$_` as code; every command sets it."""
        return LAST_ARGUMENT in self.calculated or LAST_ARGUMENT in self.evaluated


def _bare_in(nodes: Iterable[Node]) -> Iterator[tuple[str, Node]]:
    """Yield the variables that stand there without quotes."""
    left = list(nodes)
    while left:
        node = left.pop()
        if node.type in ("variable_name", "special_variable_name"):
            yield text_of(node), node
        elif node.type not in ("string", "arithmetic_expansion", *SUBSTITUTIONS):
            left += node.children
