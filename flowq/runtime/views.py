"""Views: JSON for the display of values, made in the process that has the value.

A child stores views of a job's arguments and its result, and of each output of a run. Commands that
show the run read nothing else, so they import no user modules and execute no user code. A view is
never read back as a value.

A value that JSON cannot express, or that is too large, becomes `{"$view": {"repr": …, "type": …}}`.
If the text is incomplete, this also has `"truncated": true`, and the `length` if there is one.
"""

from __future__ import annotations

import json
import json.encoder
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowq.runtime.masking import Mask

MAX_BYTES = 4096
"""The limit of the view of one result, or of the arguments of one job."""

MAX_OUTPUT_BYTES = 65_536
"""The limit of the view of one output of a run."""

MAX_REPR_BYTES = 1024
"""The limit of the text for a value, inside a view, that JSON cannot express."""

MARK = "$view"

MAX_DEPTH = 50
MAX_TEXT = 200
"""The most characters of a text inside a value that is cut."""

MAX_SIMPLE = 20
_MAX_SIMPLE_INT = 2**63
_CONSTANTS = {None: "null", True: "true", False: "false"}
_MAX_INT_BITS = 4096  # Python refuses to write integers of more than 4300 digits

_encode = json.JSONEncoder(separators=(",", ":")).encode
_quote = json.encoder.encode_basestring_ascii


class _TooLarge(Exception):
    """The whole view would be too large."""


def write_view(
    value: Any, max_bytes: float = MAX_BYTES, hide: Callable[[str], str] | None = None
) -> str:
    """Return a view of a value as ASCII text of at most `max_bytes`.

    `hide` is applied to all texts in it. Errors of user code are suppressed, but the timeout of the
    job is raised.
    """
    if hide is None:
        text = _write_simple(value)
        if text is not None and len(text) <= max_bytes:
            return text
    return _encode(make_view(value, max_bytes, hide))


def _write_simple(value: Any) -> str | None:
    """Return the view of a short value of a few scalars, in a fifth of the time; else None."""
    kind = type(value)
    if kind is not dict:
        return _write_scalar(value)
    if len(value) > MAX_SIMPLE:
        return None
    parts = []
    for key, item in value.items():
        text = _write_scalar(item)
        if text is None or type(key) is not str or key == MARK:
            return None
        parts.append(f"{_quote(key)}:{text}")
    return f"{{{','.join(parts)}}}"


def _write_scalar(value: Any) -> str | None:
    kind = type(value)
    if kind is str:
        return _quote(value) if len(value) <= MAX_BYTES else None
    if kind is int:
        return repr(value) if -_MAX_SIMPLE_INT < value < _MAX_SIMPLE_INT else None
    if kind is bool or value is None:
        return _CONSTANTS[value]
    return repr(value) if kind is float and math.isfinite(value) else None


def make_view(
    value: Any, max_bytes: float = MAX_BYTES, hide: Callable[[str], str] | None = None
) -> Any:
    """Return a view of a value, as `json.loads` would return it."""
    if value is None or type(value) is bool:
        return value
    viewer = _Viewer(max_bytes, hide)
    try:
        view = viewer.whole(value, 0)
        if viewer.is_surely_short or len(_encode(view)) <= max_bytes:
            return view
    except BaseException as error:  # noqa: BLE001 - too large, or what code of users raises
        _pass_timeout(error)
    try:
        return viewer.cut(value)
    except BaseException as error:  # noqa: BLE001 - the same
        _pass_timeout(error)
        return {MARK: {"repr": "<unprintable>", "type": "", "truncated": True}}


def _pass_timeout(error: BaseException) -> None:
    """Raise the error again if it is the timeout of the job, which is raised only once."""
    if any(kind.__module__ == "rq.timeouts" for kind in type(error).__mro__):
        raise error


class _Viewer:
    """Makes one view. `_left` is a lower bound of the bytes that are left."""

    def __init__(self, max_bytes: float, hide: Callable[[str], str] | None) -> None:
        self._max_bytes = self._left = max_bytes
        self._hide = hide

    @property
    def is_surely_short(self) -> bool:
        """Whether the view fits even if each character needs the most bytes."""
        return self._max_bytes >= 12 * (self._max_bytes - self._left)

    def whole(self, value: Any, depth: int) -> Any:
        """Return a view of the whole value. Errors: _TooLarge; any error of user code."""
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int or kind is float or kind is bool or value is None:
            return self._number(value)
        if depth > MAX_DEPTH:
            raise _TooLarge
        if isinstance(value, Mapping | list | tuple):
            self._take(2)
            if 2 * len(value) > self._left:
                raise _TooLarge
        if isinstance(value, Mapping):
            found = self._mapping(value, depth)
            if found is not None:
                return found
        elif isinstance(value, list | tuple):
            return [self.whole(item, depth + 1) for item in value]
        elif isinstance(value, str):
            return self._text(str.__str__(value))
        elif isinstance(value, bool | int | float):
            return self._number(float(value) if isinstance(value, float) else int(value))
        elif type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
            # A scalar of numpy, known by the module's name, so that numpy is not imported for this.
            return self.whole(value.item(), depth + 1)
        return self._stranger(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any] | None:
        """Return a view of a mapping; None if JSON cannot express it."""
        found: dict[str, Any] = {}
        for key in value:
            if not isinstance(key, str) or key == MARK:
                return None
            found[self._text(str.__str__(key))] = self.whole(value[key], depth + 1)
        return found

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _TooLarge

    def _text(self, value: str) -> str:
        self._take(len(value) + 3)
        return self._hide(value) if self._hide else value

    def _number(self, value: float | None) -> Any:
        self._take(2)
        if self._hide and (shown := self._hide(str(value))) != str(value):
            return shown
        if isinstance(value, float):
            return value if math.isfinite(value) else self._stranger(value)
        if isinstance(value, int):
            bits = value.bit_length()
            self._take(bits // 3)
            if bits > _MAX_INT_BITS:
                raise _TooLarge
        return value

    def _stranger(self, value: Any) -> dict[str, Any]:
        text, is_whole = _write_brief(value, MAX_REPR_BYTES, self._hide)
        marked = self._mark(value, text, MAX_REPR_BYTES, is_whole)
        self._take(len(marked[MARK]["repr"]))
        return marked

    def cut(self, value: Any) -> dict[str, Any]:
        """Return a view of the beginning of a value."""
        room = min(self._max_bytes, MAX_BYTES)
        text, _ = _write_brief(value, room, self._hide)
        return self._mark(value, text, room, is_whole=False)

    def _mark(self, value: Any, text: str, max_bytes: float, is_whole: bool) -> dict[str, Any]:
        kind = type(value)
        shown: dict[str, Any] = {"repr": "", "type": f"{kind.__module__}.{kind.__qualname__}"}
        shown["type"], _ = _cut(shown["type"], 200)
        room = (
            int(max_bytes) - len(_encode({MARK: shown})) - len(',"truncated":true,"length":') - 20
        )
        shown["repr"], fits = _cut(text, room)
        if not (is_whole and fits):
            shown["truncated"] = True
            if (length := _length(value)) is not None:
                shown["length"] = length
        return {MARK: shown}


def _length(value: Any) -> int | None:
    try:
        return len(value)
    except BaseException as error:  # noqa: BLE001 - the code of users; most have no length
        _pass_timeout(error)
        return None


def _cut(text: str, max_bytes: int) -> tuple[str, bool]:
    """Return the part of a text that fits (without quotes), and whether it is the whole text."""
    shown = text[:max_bytes]
    while len(_encode(shown)) - 2 > max_bytes:
        shown = shown[: len(shown) * 9 // 10]
    return shown, len(shown) == len(text)


# Texts -------------------------------------------------------------------------------------------


class _Full(Exception):
    """There is no room left."""


class _Brief:
    """Writes the text of a value like `repr`, but only as much as fits."""

    def __init__(self, room: float, hide: Callable[[str], str] | None) -> None:
        self._room = room
        self._hide = hide
        self.parts: list[str] = []
        self.is_whole = True

    def write(self, value: Any, depth: int = 0) -> None:
        if depth > MAX_DEPTH:
            raise _Full
        if isinstance(value, dict):
            self._items("{", value, "}", depth, value)
        elif isinstance(value, list):
            self._items("[", value, "]", depth)
        elif isinstance(value, tuple):
            self._items("(", value, ",)" if len(value) == 1 else ")", depth)
        elif isinstance(value, set | frozenset) and value:
            is_set = isinstance(value, set)
            self._items("{" if is_set else "frozenset({", value, "}" if is_set else "})", depth)
        elif isinstance(value, str | bytes | bytearray) and not isinstance(value, Enum):
            self._text(value)
        elif type(value) is int and value.bit_length() > _MAX_INT_BITS:
            self.is_whole = False
            self._add(f"<an int of {value.bit_length()} bits>")
        elif _is_plain_dataclass(value):
            self._fields(value, depth)
        else:
            self._add(self._hidden(_repr(value)))

    def _items(
        self,
        begin: str,
        items: Iterable[Any],
        end: str,
        depth: int,
        value_by_key: Mapping[Any, Any] | None = None,
    ) -> None:
        self._add(begin)
        for at, item in enumerate(items):
            if at:
                self._add(", ")
            self.write(item, depth + 1)
            if value_by_key is not None:
                self._add(": ")
                self.write(value_by_key[item], depth + 1)
        self._add(end)

    def _fields(self, value: Any, depth: int) -> None:
        self._add(f"{type(value).__qualname__}(")
        for at, each in enumerate(each for each in fields(value) if each.repr):
            self._add(f"{', ' if at else ''}{each.name}=")
            self.write(getattr(value, each.name), depth + 1)
        self._add(")")

    def _text(self, value: str | bytes | bytearray) -> None:
        room = int(max(self._room, MAX_TEXT)) if not self.parts else MAX_TEXT
        part = value[: 2 * room]  # more than is shown, so that no part of a secret is left
        if isinstance(part, str):
            part = self._hidden(part)
        is_whole = len(value) <= room
        quoted = self._hidden(repr(part if is_whole else part[:room]))
        if not is_whole:
            self.is_whole = False
            quoted = f"{quoted[:-1]}…{quoted[-1]}"
        self._add(quoted)

    def _hidden(self, text: str) -> str:
        return self._hide(text) if self._hide else text

    def _add(self, text: str) -> None:
        self.parts.append(text)
        self._room -= len(text)
        if self._room < 0:
            raise _Full


def _is_plain_dataclass(value: Any) -> bool:
    """Whether the value is of a dataclass with a generated `__repr__`, which has no limit."""
    if not is_dataclass(value) or isinstance(value, type):
        return False
    function = type(value).__repr__
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    return code is not None and code.co_filename == "<string>"


def _write_brief(value: Any, room: float, hide: Callable[[str], str] | None) -> tuple[str, bool]:
    """Return the text of a value, and whether it is complete."""
    brief = _Brief(room, hide)
    try:
        brief.write(value)
    except (_Full, RecursionError):
        return "".join(brief.parts), False
    except BaseException as error:  # noqa: BLE001 - a user's container may raise anything
        _pass_timeout(error)
        return f"<unprintable: {type(error).__name__}>", True
    return "".join(brief.parts), brief.is_whole


def _repr(value: object) -> str:
    try:
        return repr(value)
    except BaseException as error:  # noqa: BLE001 - a user's __repr__ may raise anything
        _pass_timeout(error)
        return f"<unprintable: {type(error).__name__}>"


# Reading -----------------------------------------------------------------------------------------


def to_document(view: Any) -> Any:
    """Return a view as `--json` shows it, without marks."""
    if isinstance(view, list):
        return [to_document(item) for item in view]
    if isinstance(view, dict):
        if (marked := _find_mark(view)) is not None:
            return marked
        return {key: to_document(item) for key, item in view.items()}
    return view


def to_printable(view: Any) -> Any:
    """Return a view as an object whose `repr` is the text for a reader."""
    if isinstance(view, list):
        return [to_printable(item) for item in view]
    if isinstance(view, dict):
        if (marked := _find_mark(view)) is not None:
            return _Printable(marked)
        return {key: to_printable(item) for key, item in view.items()}
    return view


def is_marked(view: Any) -> bool:
    """Whether a view is marked: JSON cannot express the value, or it was cut."""
    return isinstance(view, dict) and _find_mark(view) is not None


def _find_mark(view: Mapping[str, Any]) -> Mapping[str, Any] | None:
    marked = view.get(MARK) if len(view) == 1 else None
    return marked if isinstance(marked, dict) else None


class _Printable:
    def __init__(self, marked: Mapping[str, Any]) -> None:
        self._marked = marked

    def __repr__(self) -> str:
        text = str(self._marked.get("repr", ""))
        if not self._marked.get("truncated"):
            return text
        length = self._marked.get("length")
        return f"{text}… (cut{'' if length is None else f'; its length is {length:,}'})"


LARGE_BYTES = 1024
"""Views of an end that are longer count in the memory budget of their run (lua/printed.lua)."""

NO_MEMORY = {
    MARK: {
        "repr": "<not kept: the memory budget of the run is used up>",
        "type": "",
        "truncated": True,
    }
}
"""Instead of the arguments and the result in a large view that no longer fits."""

NOT_KEPT = {
    MARK: {
        "repr": "<not shown: a worker without views has run the job>",
        "type": "",
        "truncated": True,
    }
}
"""The view of a result that an older version, or a worker without flowq's job class, has stored."""


def strip_view(view: str) -> str:
    """Return the view of an end without the job's arguments and result, which takes little memory.

    `view` comes from a child, which may send anything: what cannot be read becomes an empty view.
    """
    try:
        parts = json.loads(view)
        stripped = {
            name: NO_MEMORY if name in ("arguments", "result") else part
            for name, part in parts.items()
        }
    except (ValueError, AttributeError, RecursionError):
        return "{}"
    text = _encode(stripped)
    return text if len(text) <= LARGE_BYTES else "{}"


# Of a job ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shown:
    """What commands show of one execution of a job, collected while it runs.

    Attributes:
        mask: the secrets to hide. Other jobs get the unmasked result.
        ended: the view of the same execution that another process has made.
        exit_code: of the job's command.
        code: the digest of its code (flowq/workers/child/code_digest.py).
        failure: as `flowq.runtime.attempts` writes it.
        error: a line for a failure of which nothing else is known.
    """

    mask: Mask | None = None
    ended: str = ""
    exit_code: int | None = None
    code: str = ""
    failure: str = ""
    error: str = ""
    _arguments: str = ""
    _result: str = ""

    def hide_with(self, mask: Mask) -> None:
        """Hide these secrets from now on."""
        self.mask = mask

    def note_exit_code(self, code: int) -> None:
        """Note the exit code of the job's command."""
        self.exit_code = code

    def adopt_end(self, view: str, code: str) -> None:
        """Take the view and the digest of code that another process has made."""
        self.ended, self.code = view, code

    def keep_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Store a view of the arguments, before the function can change them."""
        self._arguments = write_view(arguments, hide=self._hide)

    def keep_result(self, result: Any) -> None:
        """Store a view of the result."""
        self._result = write_view(result, hide=self._hide)

    @property
    def _hide(self) -> Callable[[str], str] | None:
        return self.mask.hide if self.mask else None

    def hide(self, text: str) -> str:
        """Return a text without the secrets."""
        return self.mask.hide(text) if self.mask else text

    def at_end(self, outcome: str) -> str:
        """Return the view for the job's hash: `arguments`, `result`, `exit_code` and `failure`.

        Empty for a job that was not executed here.
        """
        known = self._arguments or self._result or self.failure or (self.error and not self.ended)
        if not known and self.exit_code is None:
            return self.ended
        parts = [f'"arguments":{self._arguments}'] if self._arguments else []
        if outcome == "finished" and self._result:
            parts.append(f'"result":{self._result}')
        if outcome == "failed" and self.failure:
            parts.append(f'"failure":{self.failure}')
        elif outcome == "failed" and self.error:
            parts.append(f'"error":{json.dumps(self.error)}')
        if self.exit_code is not None:
            parts.append(f'"exit_code":{self.exit_code}')
        return f"{{{','.join(parts)}}}"
