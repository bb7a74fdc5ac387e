"""Regular expressions that users write, matched in a time that grows with the text and no faster.

The syntax is Python's, and so is the meaning, but for what needs backtracking: backreferences,
lookaround, atomic groups, possessive repeats. RE2 matches, and never sees the text's own
characters: Python's `re` says which characters of the text each part of a pattern takes, one at a
time; characters that no part tells apart become one symbol, and RE2 reads symbols. So case,
Unicode classes and the like are Python's own, and `\\w{1,200}` stays small.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from re import _parser  # type: ignore[attr-defined]  # the one reader of Python's own syntax
from typing import Any

MAX_LENGTH = 1_000
"""Characters of a pattern."""

MAX_PARTS = 10_000
"""Parts of a pattern with its repeats written out."""

MAX_STEPS = 200_000_000
"""Characters of a text times parts of its pattern: less than a second."""

LIMIT_S = 2.0
"""How long a match may take where RE2 is not there, and Python's `re` matches in a process."""

_KINDS = re.ASCII | re.LOCALE | re.UNICODE
_OF_CHARACTERS = re.ASCII | re.IGNORECASE | re.DOTALL
_CLASS_BY_CATEGORY = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
_WORD_BY_REFUSED = {
    "GROUPREF": "a backreference, such as \\1",
    "GROUPREF_EXISTS": "a group that asks whether another one matched, (?(1)…)",
    "ASSERT": "a lookahead or lookbehind, (?=…) or (?<=…)",
    "ASSERT_NOT": "a lookahead or lookbehind, (?!…) or (?<!…)",
    "ATOMIC_GROUP": "an atomic group, (?>…)",
    "POSSESSIVE_REPEAT": "a possessive repeat, such as a*+",
}
_WORD_SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"
_FIRST_SYMBOL = 0x100
_NOTHING = r"[^\x{0}-\x{10ffff}]"


class PatternRefused(ValueError):
    """A pattern that cannot be matched in linear time, or is none; the message is a sentence."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that can never be matched. Errors: PatternRefused."""
    _read(pattern)


def count_steps(pattern: str, text: str) -> int:
    """Return how much work a match is at most. Errors: PatternRefused."""
    return len(_read(pattern).parts) * (len(text) + 1)


def is_match(pattern: str, text: str) -> bool:
    """Return whether the whole text matches, as with `re.fullmatch`.

    Errors: PatternRefused, also for a text that is too long for this pattern.
    """
    program = _read(pattern)
    if count_steps(pattern, text) > MAX_STEPS:
        message = f"a text of {len(text):,} characters is too long for the pattern"
        raise PatternRefused(message, "shorten the repeats of the pattern, or check it in a job")
    try:
        import re2  # noqa: PLC0415 - most workflows have no pattern
    except ImportError:
        return _match_apart(pattern, text)
    return program.is_match(text, re2)


# Reading a pattern -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Program:
    """A pattern whose repeats are written out.

    Shape: a part is text for RE2, or the number of one of `classes`, which take one character.
    `word` is what `\\b` takes for a word. With `has_lines`, `^` and `$` are about lines; with
    `has_end`, `$` is also in front of a newline that ends the text.
    """

    parts: tuple[str | int, ...]
    classes: tuple[re.Pattern[str], ...]
    word: re.Pattern[str] | None
    has_lines: bool
    has_end: bool

    def is_match(self, text: str, re2: Any) -> bool:
        last = text[-1:] if self.has_end and text.endswith("\n") else ""
        symbols = _Symbols(self, text)
        translated = text[: len(text) - len(last)].translate(symbols.symbol_by_character) + last
        classes = [symbols.write_class(number) for number in range(len(self.classes))]
        source = "".join(part if isinstance(part, str) else classes[part] for part in self.parts)
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True
        options.max_mem = 64 << 20
        try:
            return re2.fullmatch(f"(?m){source}", translated, options) is not None
        except re2.error:
            raise PatternRefused("the pattern is too large", "shorten its repeats") from None


class _Symbols:
    """The characters of a text as symbols: one for all that the parts of a pattern take alike."""

    def __init__(self, program: _Program, text: str) -> None:
        characters = "".join({*text, *("\n" if program.has_end else "")})
        taken = dict.fromkeys(characters, 0)
        words = set(program.word.findall(characters)) if program.word else set[str]()
        for number, each in enumerate(program.classes):
            for character in each.findall(characters):
                taken[character] |= 1 << number
        self._taken_by_symbol: dict[str, int] = {}
        self.symbol_by_character: dict[int, str] = {}
        new_words = iter(_WORD_SYMBOLS)
        symbol_by_kind: dict[tuple[int, bool, bool], str] = {}
        for character, bits in taken.items():
            is_line = program.has_lines and character == "\n"
            kind = (bits, character in words, is_line)
            if kind not in symbol_by_kind:
                new = "\n" if is_line else chr(_FIRST_SYMBOL + len(symbol_by_kind))
                if character in words and (new := next(new_words, "")) == "":
                    message = "the pattern tells too many characters apart beside \\b"
                    raise PatternRefused(message, "write what stands around the word instead")
                symbol_by_kind[kind] = new
            self.symbol_by_character[ord(character)] = symbol_by_kind[kind]
            self._taken_by_symbol[symbol_by_kind[kind]] = bits
        if program.has_end:
            self._taken_by_symbol["\n"] = taken["\n"]

    def write_class(self, number: int) -> str:
        """Return the symbols that a class takes, as RE2 reads them."""
        taken = sorted(ord(s) for s, bits in self._taken_by_symbol.items() if bits >> number & 1)
        ranges = "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in _ranges(taken))
        return f"[{ranges}]" if ranges else _NOTHING


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    first = last = -1
    for number in numbers:
        if number != last + 1 or first < 0:
            if first >= 0:
                yield first, last
            first = number
        last = number
    if first >= 0:
        yield first, last


@lru_cache(maxsize=256)
def _read(pattern: str) -> _Program:
    if len(pattern) > MAX_LENGTH:
        message = f"it has more than {MAX_LENGTH:,} characters"
        raise PatternRefused(message, "check such a text in a job's function")
    try:
        with warnings.catch_warnings():  # of what may mean something else one day
            warnings.simplefilter("ignore")
            tree = _parser.parse(pattern)
            return _Reader().read(tree)
    except (re.error, OverflowError) as error:
        raise PatternRefused(f"it is no regular expression: {error}") from None
    except RecursionError:
        raise PatternRefused("it is nested too deeply") from None


class _Reader:
    """Reads the tree of one pattern."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, int], int] = {}
        self.anchors: set[str] = set()
        self.words: set[int] = set()

    def read(self, tree: Any) -> _Program:
        parts = self.sequence(tree, tree.state.flags)
        if len(self.words) > 1 or {"line", "end"} <= self.anchors:
            message = "\\b, ^ and $ mean different things in different places of it"
            raise PatternRefused(message, "write its flags once, at its beginning")
        return _Program(
            parts=tuple(parts),
            classes=tuple(re.compile(source, flags) for source, flags in self.numbers),
            word=next((re.compile(r"\w", flags) for flags in self.words), None),
            has_lines="line" in self.anchors,
            has_end="end" in self.anchors,
        )

    def sequence(self, nodes: Any, flags: int) -> list[str | int]:
        parts: list[str | int] = []
        for operator, value in nodes:
            parts += self.node(str(operator), value, flags)
            _check_size(len(parts))
        return parts

    def node(self, operator: str, value: Any, flags: int) -> list[str | int]:
        if operator == "SUBPATTERN":
            _, added, removed, inner = value
            kept = flags & ~_KINDS if added & _KINDS else flags
            return ["(?:", *self.sequence(inner, (kept | added) & ~removed), ")"]
        if operator == "BRANCH":
            branches = [self.sequence(inner, flags) for inner in value[1]]
            return ["(?:", *branches[0], *(p for b in branches[1:] for p in ("|", *b)), ")"]
        if operator in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = value
            return self.repeat(least, most, inner, flags)
        if operator == "AT":
            return [self.anchor(str(value), flags)]
        if operator in _WORD_BY_REFUSED:
            hint = "RE2's syntax has none: say it without, or check the text in a job's function"
            raise PatternRefused(f"it has {_WORD_BY_REFUSED[operator]}", hint)
        if operator == "FAILURE":
            return [_NOTHING]
        key = (_write_class(operator, value), flags & _OF_CHARACTERS)
        return [self.numbers.setdefault(key, len(self.numbers))]

    def repeat(self, least: int, most: int, inner: Any, flags: int) -> list[str | int]:
        parts = self.sequence(inner, flags)
        is_one = len(parts) == 1 and isinstance(parts[0], int)
        body = parts if is_one else ["(?:", *parts, ")"]
        is_endless = most == _parser.MAXREPEAT
        times = least if is_endless else most
        _check_size(times * len(body))
        return [*body * least, *([*body, "*"] if is_endless else [*body, "?"] * (most - least))]

    def anchor(self, which: str, flags: int) -> str:
        if which in ("AT_BOUNDARY", "AT_NON_BOUNDARY"):
            self.words.add(flags & re.ASCII)
            return r"\b" if which == "AT_BOUNDARY" else r"\B"
        if which in ("AT_BEGINNING", "AT_END") and flags & re.MULTILINE:
            self.anchors.add("line")
            return "^" if which == "AT_BEGINNING" else "$"
        if which == "AT_END":
            self.anchors.add("end")
            return "$"
        return r"\z" if which == "AT_END_STRING" else r"\A"


def _check_size(parts: int) -> None:
    if parts > MAX_PARTS:
        message = f"with its repeats written out it has more than {MAX_PARTS:,} parts"
        raise PatternRefused(message, "shorten its repeats, such as {1,1000}")


def _write_class(operator: str, value: Any) -> str:
    """Return what takes one character, as `re` reads it."""
    if operator == "ANY":
        return "."
    if operator == "LITERAL":
        return f"[{_write_character(value)}]"
    if operator == "NOT_LITERAL":
        return f"[^{_write_character(value)}]"
    assert operator == "IN"
    return f"[{''.join(_write_item(str(kind), inner) for kind, inner in value)}]"


def _write_item(kind: str, value: Any) -> str:
    if kind == "NEGATE":
        return "^"
    if kind == "CATEGORY":
        return _CLASS_BY_CATEGORY[str(value)]
    if kind == "RANGE":
        return "-".join(map(_write_character, value))
    return _write_character(value)


def _write_character(number: int) -> str:
    return f"\\U{number:08x}"


# Without RE2 -------------------------------------------------------------------------------------

_PROGRAM = """
import json, re, sys
pattern, text = json.load(sys.stdin)
sys.stdout.write("yes" if re.fullmatch(pattern, text) else "no")
"""


def _match_apart(pattern: str, text: str) -> bool:
    """Match in a process that is killed when it takes too long."""
    import json  # noqa: PLC0415 - as below
    import subprocess  # noqa: PLC0415 - only where RE2 is not there

    try:
        done = subprocess.run(  # noqa: S603 - a fixed text
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, text]),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
        )
    except subprocess.TimeoutExpired:
        message = f"to match it takes more than {LIMIT_S:g} s"
        raise PatternRefused(message, "nested repeats such as (a+)+ take long") from None
    except (subprocess.CalledProcessError, OSError) as error:
        raise PatternRefused(f"it cannot be matched: {error}") from None
    return done.stdout == "yes"
