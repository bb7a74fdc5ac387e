"""The syntax tree of a command for a shell, by the grammar of bash, and questions about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from flowq.commands.programs import Word, count_before_command, is_known
from flowq.commands.values import QUOTED, WORD

if TYPE_CHECKING:  # the grammar is loaded for commands with expressions only
    from tree_sitter import Node, Parser

SUBSTITUTIONS = frozenset({"command_substitution", "process_substitution"})
"""Nodes whose content is independent of the quotes around them."""

MAX_DEPTH = 250
"""The maximum number of nodes around a value."""

MAX_TREE_DEPTH = 4 * MAX_DEPTH
"""The maximum depth of the whole tree, which has additional nodes without a meaning."""

_BEGINS = SUBSTITUTIONS | {
    "ansi_c_string",
    "arithmetic_expansion",
    "expansion",
    "raw_string",
    "simple_expansion",
    "string",
}

_ONE_VARIABLE = re.compile(r"\"?\$\{?([A-Za-z_]\w*)(?:\[[@*0]\])?\}?\"?", re.ASCII)
_PLAIN_END = re.compile(r"\w+|'\w+'|\"\w+\"|\\\w+", re.ASCII)
_SENSITIVE = re.compile(rb"['\"`(){}<\\#]")
_UNREAD = re.compile(r"`|\$[({\[]")


@cache
def _parser() -> Parser:
    from tree_sitter import Language, Parser  # noqa: PLC0415 - only for expressions in commands
    from tree_sitter_bash import language  # noqa: PLC0415

    return Parser(Language(language()))


def parse(text: str) -> Node:
    """Return the tree of a text."""
    return _parser().parse(text.encode("utf-8", "surrogatepass")).root_node


def walk(root: Node) -> Iterator[Node]:
    """Yield a node and all nodes in it."""
    left = [root]
    while left:
        node = left.pop()
        yield node
        left += node.children


_CONTINUED = re.compile(r"\A(?:\s|\\\n)+")


def text_of(node: Node | None) -> str:
    """Return the text of a node; "" for None."""
    return "" if node is None or node.text is None else node.text.decode("utf-8", "surrogatepass")


def field_of(parent: Node, child: Node) -> str | None:
    """Return the name of a node's field in its parent."""
    return next(
        (parent.field_name_for_child(i) for i, each in enumerate(parent.children) if each == child),
        None,
    )


def find_ancestor(node: Node, kind: str, until: frozenset[str]) -> Node | None:
    """Return the nearest ancestor of a kind, below the nearest ancestor of the kinds in `until`."""
    around = node.parent
    while around is not None and around.type not in until:
        if around.type == kind:
            return around
        around = around.parent
    return None


def has_substitution(node: Node) -> bool:
    """Whether a node contains `$(…)` or `<(…)`."""
    return any(each.type in SUBSTITUTIONS for each in walk(node))


def lines_around(node: Node) -> str:
    """Return the whole lines of a node."""
    root = node
    while root.parent is not None:
        root = root.parent
    first, lines = root.start_point[0], (root.text or b"").split(b"\n")
    found = lines[node.start_point[0] - first : node.end_point[0] - first + 1]
    return b"\n".join(found).decode("utf-8", "replace")


def parts_of(pipeline: Node) -> list[Node]:
    """Return the commands of a pipeline, and the here-documents after it: `| cat <<E`."""
    around = pipeline.parent
    beside = around.named_children if around is not None else []
    documents = [each for each in beside if each.type == "heredoc_redirect"]
    return [*pipeline.named_children, *documents]


def readers_of(document: Node) -> list[Node]:
    """Return the statements that may read a here-document: its own statement, the redirections
    beside it, and a pipeline."""
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
        self.root = parse(text)
        marks = re.finditer(rb"\$\{%b_[0-9]+\}" % name.encode(), self._bytes)
        self._marks = [found.span() for found in marks]
        self._words_by_command: dict[int, tuple[list[Word], dict[int, int]]] = {}

    def within(self, code: str) -> Text:
        """Return a text of code inside this one."""
        return Text(code, self._name)

    def find_mark(self, number: int) -> Node:
        """Return the smallest node that contains an expression."""
        found = self.root.descendant_for_byte_range(*self._marks[number])
        assert found is not None, "it is in the text"
        return found

    def is_mark(self, node: Node, number: int) -> bool:
        """Whether a node is that expression, and the shell expands it there."""
        mark = f"${{{self._name}_{number}}}"
        # The grammar includes spaces before it (after a substitution in quotes), and a \ at the end
        # of the previous line (at the beginning of quotes).
        text = _CONTINUED.sub("", text_of(node))
        return node.type == "expansion" and text == mark and len(node.children) == 3

    def find_letter(self, number: int) -> str:
        """Return the letter of an expression: the nearest quotes around it decide."""
        node: Node | None = self.find_mark(number)
        if node is not None and node.type == "comment":
            return QUOTED
        while node is not None and node.type not in SUBSTITUTIONS:
            if node.type in ("string", "heredoc_body"):
                return QUOTED
            node = node.parent
        return WORD

    def is_as_written(self, mark: Node, letter: str) -> bool:
        """Whether the quotes around an expression are parsed as intended."""
        around = mark.parent
        if letter == WORD:
            return around is not None and around.type == "string" and len(around.children) == 3
        while around is not None and around.type not in SUBSTITUTIONS:
            if around.type in ("string", "heredoc_body"):
                return True
            around = around.parent
        return False

    def has_unread(self, node: Node) -> bool:
        """Whether literal text in quotes, a here-document or a word contains a substitution.

        In some places the grammar does not recognize arithmetic and backticks.
        """
        text, start = bytearray(node.text or b""), node.start_byte
        for child in node.children:
            if child.type in _BEGINS:
                text[child.start_byte - start : child.end_byte - start] = b" "
                start += child.end_byte - child.start_byte - 1
        literal = re.sub(r"\\.", "", text.decode("utf-8", "surrogatepass"), flags=re.DOTALL)
        return _UNREAD.search(literal) is not None

    def find_unreadable(self, mark: Node) -> int | None:
        """Return the line of a syntax error that makes a place uncertain, or None.

        That is an error in its statement, or one before it that could affect which text is quoted.
        """
        statement = mark
        while statement.parent is not None and statement.parent.parent is not None:
            statement = statement.parent
        if statement.has_error or statement.type == "ERROR" or self.root.type == "ERROR":
            return statement.start_point[0] + 1
        for node in self._doubtful:
            is_near = node.end_point[0] == statement.start_point[0]
            is_before = node.start_byte < mark.start_byte
            if is_before and (is_near or node.is_missing or _SENSITIVE.search(node.text or b"")):
                return node.start_point[0] + 1
        return None

    @cached_property
    def _nodes(self) -> list[Node]:
        return list(walk(self.root))

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
        """Whether a here-document certainly ends where every shell ends it."""
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
        """Whether the text contains `$'…'`."""
        return any(node.type == "ansi_c_string" for node in self._nodes)

    @cached_property
    def has_aliases(self) -> bool:
        """Whether the text defines aliases."""
        return any(
            words and words[0].text == "alias"
            for words in (self.words(node) for node in self._nodes if node.type == "command")
        )

    @cached_property
    def has_coprocesses(self) -> bool:
        """Whether the text contains the word `coproc`; the input of coprocesses is not followed."""
        return any(node.type == "word" and node.text == b"coproc" for node in self._nodes)

    # Words ---------------------------------------------------------------------------------------

    def words_of(self, command: Node, child: Node) -> tuple[list[Word], int]:
        """Return the words of a command, and the place of a node among them; -1 if it is none."""
        words = self.words(command)
        return words, self._words_by_command[command.id][1].get(child.id, -1)

    def words_in_test(self, test: Node) -> list[Word]:
        """Return the words between `[` and `]`."""
        return [word for child in test.children[1:-1] for word in self._flat(child)]

    def is_printed(self, mark: Node) -> bool:
        """Whether a value is an argument of `echo` or `printf`."""
        command = find_ancestor(mark, "command", frozenset())
        return command is not None and self.prints(command)

    def printed_in(self, statement: Node) -> Iterator[Node]:
        """Yield the commands that print a statement's output, and the documents that `cat` prints.

        Of `$(…)`, `<(…)` and functions, these are the commands inside; of a pipeline, the last one.
        """
        left = list(statement.named_children) if statement.type != "command" else [statement]
        while left:
            node = left.pop()
            if node.type == "pipeline":
                parts = node.named_children
                left.append(parts[-1])
                if parts[-1].type == "command" and self._is_cat(parts[-1]):
                    left += parts[:-1]
            elif node.type == "redirected_statement":
                redirections = (text_of(each).replace(" ", "") for each in node.named_children)
                if not any(text in (">&2", "1>&2") for text in redirections):
                    left.append(node.named_children[0])
                    body = node.named_children[0]
                    is_cat = body.type == "command" and self._is_cat(body)
                    left += node.named_children[1:] if is_cat else []
            elif node.type == "command":
                yield node
                left += node.named_children if self._is_cat(node) else []
            elif node.type in ("heredoc_redirect", "herestring_redirect"):
                yield node
            elif node.type not in _BEGINS:
                left += node.named_children

    def is_printed_in(self, statement: Node, mark: Node) -> bool:
        """Whether a statement prints a value, as far as output is followed."""
        return any(
            node.start_byte <= mark.start_byte and mark.end_byte <= node.end_byte
            for node in self.printed_in(statement)
            if node.type != "command" or self.prints(node)
        )

    def _is_cat(self, command: Node) -> bool:
        words = self.words(command)
        return bool(words) and words[0].text == "cat"

    def prints(self, command: Node) -> bool:
        """Whether a command is `echo` or `printf`, or starts one of them."""
        words = self.words(command)
        first = words[: count_before_command(words) + 1] if words else []
        return any((word.text or "").rpartition("/")[2] in ("echo", "printf") for word in first)

    def words(self, command: Node) -> list[Word]:
        """Return the words of a command."""
        if command.id not in self._words_by_command:
            nodes = arguments_of(command)
            places = {node.id: place for place, node in enumerate(nodes)}
            words = [self._word(node) for node in nodes]
            if words and len(names := self._names_of(nodes[0])) == 1:
                words[0] = replace(words[0], text=names[0])
            self._words_by_command[command.id] = words, places
        return self._words_by_command[command.id][0]

    @cached_property
    def is_deep(self) -> bool:
        """Whether the tree is too deep to examine; every node has a copy of its text."""
        left = [(self.root, 0)]
        while left:
            node, depth = left.pop()
            if depth > MAX_TREE_DEPTH:
                return True
            left += ((child, depth + 1) for child in node.children)
        return False

    def read_words(self, command: Node) -> list[list[Word]]:
        """Return the words of a command; several readings if its name is a variable to which the
        text assigns several literals."""
        words = self.words(command)
        is_open = bool(words) and words[0].text is None
        name = _ONE_VARIABLE.fullmatch(text_of(arguments_of(command)[0])) if is_open else None
        known = self._known_literals.get(name[1], []) if name else []
        return [words, *([replace(words[0], text=name), *words[1:]] for name in known)]

    def _names_of(self, node: Node) -> list[str]:
        name = _ONE_VARIABLE.fullmatch(text_of(node))
        return self._literals.get(name[1], []) if name else []

    @cached_property
    def _literals(self) -> Mapping[str, list[str]]:
        """The first words of the literals that the text assigns, by variable."""
        found: dict[str, list[str]] = {}
        for node in self._nodes:
            if node.type in ("variable_assignment", "for_statement"):
                is_loop = node.type == "for_statement"
                name = node.child_by_field_name("variable" if is_loop else "name")
                for value in node.children_by_field_name("value"):
                    parts = value.named_children if value.type == "array" else [value]
                    words = ((_literal(part) or "").split() for part in parts)
                    target = found.setdefault(text_of(name).partition("[")[0], [])
                    target += [each[0] for each in words if each]
        return found

    @cached_property
    def _known_literals(self) -> Mapping[str, list[str]]:
        """The names of known commands among `_literals`."""
        return {
            name: sorted({each for each in found if is_known(each)})
            for name, found in self._literals.items()
        }

    def _flat(self, node: Node) -> Iterator[Word]:
        if node.type in ("binary_expression", "unary_expression"):
            for child in node.children:
                yield from self._flat(child)
        else:
            yield self._word(node)

    def _word(self, node: Node) -> Word:
        has_value = self._name.encode() in (node.text or b"")
        text = _literal(node)
        return Word(text, "" if text is not None else prefix_of(node), has_value)


def code_in(nodes: list[Node]) -> str:
    """Return the code in words, as far as it is known."""
    return " ".join(map(_code_of, nodes))


def _code_of(node: Node) -> str:
    literal, text = _literal(node), text_of(node)
    if literal is not None:
        return literal
    if node.type == "string":
        return re.sub(r'\\([\\"$`\n])', r"\1", text[1:-1])
    return "".join(map(_code_of, node.children)) if node.type == "concatenation" else text


def arguments_of(command: Node) -> list[Node]:
    """Return the words of a command: its name and its arguments."""
    return [
        child
        for i, child in enumerate(command.children)
        if command.field_name_for_child(i) in ("name", "argument")
    ]


def _literal(node: Node) -> str | None:
    """Return the value of a word, or None if the shell expands anything in it."""
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


def prefix_of(node: Node) -> str:
    """Return the known beginning of a word."""
    if node.type == "string":
        first = node.children[1] if len(node.children) > 1 else None
        return text_of(first) if first is not None and first.type == "string_content" else ""
    if node.type not in ("command_name", "concatenation"):
        return ""
    known = ""
    for child in node.children:
        text = _literal(child)
        if text is None:
            return known + prefix_of(child)
        known += text
    return known
