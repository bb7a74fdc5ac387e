"""Which names of a command for a shell get their values from which others.

`flows` asks here, starting from the names that are read as code. Values are followed by name over
the whole text, regardless of order. One name too many refuses a harmless command; one too few would
execute a value. The output of programs is not followed, except that of `echo`, `printf` and `cat`.

Besides variables there are three kinds of names, because users get different advice for each. `f()`
stands for the arguments of the function f, `()` for those of the command itself (`set -- …`), and
`f>` for what f prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from flowq.commands import programs
from flowq.commands.trees import (
    SUBSTITUTIONS,
    Text,
    arguments_of,
    code_in,
    find_ancestor,
    text_of,
)

if TYPE_CHECKING:
    from tree_sitter import Node


NAMES = re.compile(r"[A-Za-z_]\w*", re.ASCII)
POSITIONAL = re.compile(r"\$\{?!?[0-9@*]")
_KEYS = re.compile(r"\$\{(?:#|!\w+\[[@*]\]\})")
"""A length, or the indices of an array: neither contains any of the value."""

_HOOKS = frozenset({"command_not_found_handle", "command_not_found_handler"})
"""Functions that get the words of a command that does not exist."""

_ANY = "*()"
"""The arguments of a command whose name only the shell knows: it may be any function."""

ANY_OUTPUT = "*>"
"""What such a command prints."""

LAST_ARGUMENT = "_"
"""The variable with the last argument of the previous command."""


class Sources:
    """What gets a value from what in one text, and in the code inside it (`nodes`)."""

    def __init__(self, text: Text, nodes: list[Node]) -> None:
        self._text = text
        self._nodes = nodes

    @cached_property
    def functions(self) -> frozenset[str]:
        """The names of the functions that the text defines."""
        defined = (node for node in self._nodes if node.type == "function_definition")
        return frozenset(text_of(node.child_by_field_name("name")) for node in defined)

    def called(self, words: list[programs.Word]) -> frozenset[str]:
        """Return the functions that a command may call with its arguments."""
        name = words[0].text
        if name is None or programs.hides_command(words) or not self.functions:
            return self.functions
        named = {name}
        if name in programs.WRAPPERS:
            named |= {word.text for word in words[1:] if word.text}
        return self.functions & (named | _HOOKS)

    def with_sources(self, found: Iterable[Iterable[str]]) -> frozenset[str]:
        """Return names, and all names whose values get into them."""
        left = [name for names in found for name in names]
        all_names: set[str] = set()
        while left:
            name = left.pop()
            if name not in all_names:
                all_names.add(name)
                left += self._givers.get(name, ())
                left += [_ANY] if name.endswith("()") else []
        return frozenset(all_names)

    @cached_property
    def _givers(self) -> Mapping[str, list[str]]:
        """The names that give others their values.

        A name in a literal counts: with n=5 and x=n, $((x)) is 5.
        """
        found: dict[str, list[str]] = {ANY_OUTPUT: [f"{name}>" for name in self.functions]}
        for node in self._nodes:
            if node.type == "function_definition":
                name = text_of(node.child_by_field_name("name"))
                found.setdefault(f"{name}>", []).extend(self.printed_by(node.named_children[1:]))
            for target, values in self._assigned_in(node):
                found.setdefault(target, []).extend(self._read_in(values))
                if not values:  # `for x; do` and `getopts` read the arguments
                    found[target] += arguments_in("$@", node)
        return found

    def _assigned_in(self, node: Node) -> Iterator[tuple[str, list[Node]]]:
        """Yield the names that a node gives values to, with the values."""
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
        if words[0].text is None or programs.hides_command(words):
            yield _ANY, arguments
        else:
            for function in self.called(words):
                yield f"{function}()", arguments
        if words[0].text == "set":
            targets = [word.text for word in words if word.text and NAMES.fullmatch(word.text)]
            for target in [*targets[1:], *arguments_in("$@", command)]:
                yield target, arguments[1:]
        elif words[0].text == "getopts":
            yield "OPTARG", []
        elif words[0].text in programs.VARIABLES:
            yield from _assignments_in(arguments)

    def _read_in(self, values: list[Node]) -> Iterator[str]:
        left = list(values)
        while left:
            node = left.pop()
            if node.type in SUBSTITUTIONS:
                yield from self.printed_by([node])
                continue
            if _KEYS.match(text_of(node)):
                continue
            if node.type in ("variable_name", "special_variable_name"):
                name = text_of(node)
                yield name
                yield from arguments_in(f"${name}", node)
            elif not node.children:
                yield from (name for name in NAMES.findall(text_of(node)) if name != LAST_ARGUMENT)
            left += node.children

    def printed_by(self, statements: Iterable[Node]) -> Iterator[str]:
        """Yield the names in the output of statements, as far as it is followed."""
        for statement in statements:
            for node in self._text.printed_in(statement):
                if node.type == "command" and not self._text.prints(node):
                    yield from self.outputs_of(node)
                else:
                    yield from self._read_in([node])

    def outputs_of(self, command: Node) -> Iterator[str]:
        """Yield `f>` for each function that a command may call."""
        words = self._text.words(command)
        if words and (words[0].text is None or programs.hides_command(words)):
            yield ANY_OUTPUT
        elif words:
            yield from (f"{name}>" for name in self.called(words))


def arguments_in(text: str, node: Node) -> Iterator[str]:
    """Yield `f()` if a text in the body of the function f refers to arguments, `()` if it does so
    outside of functions."""
    if POSITIONAL.search(text):
        around = find_ancestor(node, "function_definition", frozenset())
        name = text_of(around.child_by_field_name("name")) if around is not None else ""
        yield f"{name}()"


def _assignments_in(nodes: Iterable[Node]) -> Iterator[tuple[str, list[Node]]]:
    """Yield the variables that words such as `"x=$y"` assign, with the values."""
    for node in nodes:
        if name := programs.find_assigned(code_in([node])):
            yield name, [node]
