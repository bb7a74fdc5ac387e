"""Hides secrets in exceptions: in their messages, and in all that error reporting tools read.

Such tools read arguments, attributes, notes, causes, groups, and the local variables of frames. So
the exception itself is changed, in place if possible, and keeps its class, on which retries and
handlers depend.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from typing import Any

from flowq.runtime.masking import Mask

_ATTRIBUTES = ("filename", "filename2", "strerror", "msg", "text", "name", "path", "code", "value")
"""Attributes that Python's own exceptions do not have in their `__dict__`."""

MAX_DEPTH = 20


@contextmanager
def hiding_in_errors(mask: Mask) -> Iterator[None]:
    """Hide the values in any exception raised in a `with` block."""
    raised: BaseException | None = None
    try:
        yield
    except BaseException as error:
        if not mask:
            raise
        raised = _mask(error, mask)
        if raised is error:
            raise
    if raised is not None:
        context = raised.__context__
        try:
            raise raised
        finally:
            raised.__context__ = context  # Python has set it to the unmasked exception


def _mask(error: BaseException, mask: Mask) -> BaseException:
    try:
        return _Masking(mask).masked(error)
    except Exception:  # noqa: BLE001 - user code, or too deeply nested
        said = "it could not be masked, and is not shown because the job has secrets"
        return _stand_in(type(error), said)


class _Masking:
    """Masks one exception, and everything in it."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._masked: dict[int, BaseException] = {}
        self._kept: list[BaseException] = []  # keeps them alive, so that ids stay unique

    def masked(self, error: BaseException) -> BaseException:
        """Return the exception without the values: itself, or a substitute."""
        if id(error) in self._masked:
            return self._masked[id(error)]
        self._masked[id(error)] = error
        self._kept.append(error)
        cause, context, is_quiet = error.__cause__, error.__context__, error.__suppress_context__
        traceback.clear_frames(error.__traceback__)
        self._change(error)
        made = self._in_place_of(error)
        self._masked[id(error)] = made
        made.__traceback__ = error.__traceback__
        made.__cause__ = cause and self.masked(cause)
        made.__context__ = context and self.masked(context)
        made.__suppress_context__ = is_quiet
        return made

    def _change(self, error: BaseException) -> None:
        args = self.hidden(error.args)
        if args is not error.args:
            error.args = args
        for name in _ATTRIBUTES:
            with suppress(Exception):  # a missing attribute, or a read-only one
                self._change_attribute(error, name, getattr(error, name))
        for name, value in list(vars(error).items()):
            with suppress(Exception):
                self._change_attribute(error, name, value)

    def _change_attribute(self, error: BaseException, name: str, value: Any) -> None:
        changed = self.hidden(value, is_argument=False)
        if changed is not value:
            setattr(error, name, changed)

    def _in_place_of(self, error: BaseException) -> BaseException:
        """Return the exception, or a substitute whose text does not contain the values."""
        if isinstance(error, BaseExceptionGroup):
            parts = [self.masked(part) for part in error.exceptions]
            message = self._mask.hide(error.message)
            if message == error.message and all(
                new is old for new, old in zip(parts, error.exceptions, strict=True)
            ):
                return error
            return _adopt(_make_group(type(error), message, parts), error)
        text = _say(error)
        shown = self._mask.hide(text)
        return error if shown == text else _adopt(_stand_in(type(error), shown), error)

    def hidden(self, value: Any, depth: int = 0, *, is_argument: bool = True) -> Any:
        """Return a value without secrets: itself, if it contains none.

        An object of an unknown kind is replaced by its masked text only if it is an argument, which
        is shown.
        """
        if depth > MAX_DEPTH:
            return value
        if isinstance(value, str):
            return _same(value, self._mask.hide(value))
        if isinstance(value, bytes | bytearray):
            return _same(value, self._mask.hide_bytes(bytes(value)))
        if isinstance(value, BaseException):
            return self.masked(value)
        if isinstance(value, type | int | float | None):
            return value
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
            return value if (shown := self.hidden(path)) == path else shown
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._hidden_inside(value, depth, is_argument)
        if is_dataclass(value) and not isinstance(value, type):
            return self._hidden_in_fields(value, depth)
        if not is_argument:
            return value
        text = _say(value, repr)
        return value if (shown := self._mask.hide(text)) == text else shown

    def _hidden_inside(self, value: Any, depth: int, is_argument: bool) -> Any:
        def hidden(part: Any) -> Any:
            return self.hidden(part, depth + 1, is_argument=is_argument)

        if isinstance(value, Mapping):
            pairs = [(key, item, hidden(key), hidden(item)) for key, item in value.items()]
            if all(key is new_key and item is new for key, item, new_key, new in pairs):
                return value
            return {new_key: new for _, _, new_key, new in pairs}
        parts = [(part, hidden(part)) for part in value]
        if all(part is new for part, new in parts):
            return value
        kind = type(value) if type(value) in (list, tuple, set, frozenset) else tuple
        return kind(new for _, new in parts)

    def _hidden_in_fields(self, value: Any, depth: int) -> Any:
        """Return a dataclass, such as a problem of flowq, without secrets."""
        changed = {}
        for each in fields(value):
            part = getattr(value, each.name)
            new = self.hidden(part, depth + 1)
            if new is not part:
                changed[each.name] = new
        if not changed:
            return value
        from dataclasses import replace  # noqa: PLC0415 - where it is used

        try:
            return replace(value, **changed)
        except Exception:  # noqa: BLE001 - a user's class may need other arguments
            return self._mask.hide(_say(value, repr))


def _same(value: Any, shown: Any) -> Any:
    return value if shown == value else shown


def _say(value: Any, say: Any = str) -> str:
    try:
        return str(say(value))
    except Exception:  # noqa: BLE001 - code of users
        return ""


def _make_group(
    kind: type[BaseExceptionGroup[Any]], message: str, parts: list[BaseException]
) -> BaseException:
    try:
        return kind(message, parts)
    except Exception:  # noqa: BLE001 - a user's class may need other arguments
        return BaseExceptionGroup(message, parts)


def _stand_in(kind: type[BaseException], text: str) -> BaseException:
    """Return an exception of a class with that name, and with this text."""
    body: dict[str, Any] = {
        "__str__": lambda _: text,
        "__repr__": lambda _: f"{kind.__name__}({text!r})",
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
    }
    bases: tuple[type[BaseException], ...] = (kind, Exception)
    for base in bases:
        with suppress(Exception):  # some classes allow no subclasses, or need arguments
            made_kind = type(kind.__name__, (base,), body)
            made: BaseException = made_kind.__new__(made_kind)  # type: ignore[call-overload]
            if str(made) == text:
                return made
    return RuntimeError(text)


def _adopt(made: BaseException, error: BaseException) -> BaseException:
    with suppress(Exception):
        vars(made).update(vars(error))
    return made
