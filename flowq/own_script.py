"""The script that was started, as workers import it: as a module by the name of its file.

    $ python pipeline.py      # workers import its functions from the module `pipeline`

Workers never run a script as `__main__`, so what it does below `if __name__ == "__main__":` is done
here only. Anything else in it is executed in each of them, so code that submits runs must not stand
outside, where every worker would submit them again.

This process uses the script under that name too, so that objects of its classes in results are of
the same classes here.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from flowq.errors import UsageError
from flowq.importing import refuse_while_importing

GUARD = 'if __name__ == "__main__":'


def find_name(function: Any) -> str | None:
    """Return the name of the module in which workers find a function of `__main__`, or None."""
    main = sys.modules["__main__"]
    if _is_typed_in(function) or _explain(main) is not None:
        return None
    name = _name_of(main)
    sys.modules.setdefault(name, main)
    return name


def explain(function: Any) -> tuple[str, str] | None:
    """Return why workers cannot import a function of `__main__`, with a hint; None if they can."""
    main, name = sys.modules["__main__"], function.__qualname__
    if _is_typed_in(function) or not _name_of(main):
        reason = f"{name} was typed into a session or notebook, and workers import from files"
        return reason, f"write {name} into a file beside it, such as tasks.py, and import it"
    if unusable := _explain(main):
        reason, hint = unusable
        return f"{name} is defined in the script that was started, and {reason}", hint
    line = getattr(getattr(inspect.unwrap(function), "__code__", None), "co_firstlineno", 0)
    if any(line in lines for lines in _guarded_lines(main)):
        return f"{name} is defined below `{GUARD}`, which workers leave out", "move it above"
    return None


def refuse_unguarded(calls: Iterable[str]) -> None:
    """Refuse to submit calls where each worker that imports the script would submit them again.

    Errors: UsageError, if any of them is of a function of the script, and the script is executing
    what does not stand below `if __name__ == "__main__":`; also in a worker that imports modules.
    """
    refuse_while_importing()  # first, because a check of the calls would wait for that import
    main = sys.modules["__main__"]
    name = _name_of(main)
    if name == "__main__" or sys.modules.get(name) is not main:
        return
    if not any(call.partition(":")[0] == name for call in calls):
        return
    line, guarded = _running_line(main), _guarded_lines(main)
    if line is None:
        return
    if any(line in lines for lines in guarded) if line else guarded:
        return
    file = Path(_file_of(main)).name
    at = f" (line {line})" if line else ""
    raise UsageError(
        f"workers import {file} to find its functions, and would execute this{at} again: put what "
        f"submits runs and enqueues jobs at the end of {file}, under `{GUARD}`"
    )


def _is_typed_in(function: Any) -> bool:
    """Whether a function was read from elsewhere than the script: after `python -i script.py`."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = Path(_file_of(sys.modules["__main__"])).name
    return code is not None and Path(code.co_filename).name != name


def _file_of(main: ModuleType) -> str:
    """Return the file of the script; "" if it is no file."""
    file = getattr(main, "__file__", None)
    if file is None and sys.flags.inspect:  # Python forgets it after `python -i script.py`
        file = sys.argv[0]
    return str(file or "")


def _name_of(main: ModuleType) -> str:
    """Return the name under which the script could be imported; "" if it is no file."""
    spec = getattr(main, "__spec__", None)  # python -m package.module
    if spec is not None and spec.name != "__main__":
        return str(spec.name)
    return Path(_file_of(main)).stem


def _explain(main: ModuleType) -> tuple[str, str] | None:
    """Return why the script cannot be imported, with a hint; None if it can."""
    name = _name_of(main)
    if sys.modules.get(name) is main and name != "__main__":
        return None
    move = "move it to a module beside the script and import it"
    if not name or name == "__main__":
        return "workers would look for it in their own", move
    if getattr(main, "__spec__", None) is not None:
        return None
    file = Path(_file_of(main))
    if file.name == "<stdin>":
        return "that was read from standard input", "save it as a file, as in my_script.py"
    if not name.isidentifier() or file.suffix != ".py":
        return f"no module can be called {file.name}", "rename the file, as in my_script.py"
    found = "a module of Python" if name in sys.stdlib_module_names else _find_file(name)
    if found is None:
        return f"its folder is not on sys.path ({file.parent})", move
    if not (Path(found).exists() and file.exists() and file.samefile(found)):
        return f"the name {name} already means {found}", "rename the file"
    return None


def _find_file(name: str) -> str | None:
    """Return the file that `import name` loads, or what is in its place; None for nothing."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__file__", None) or "a built-in module"
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin or "a package"


def _running_line(main: ModuleType) -> int | None:
    """Return the line that the script is executing at its top level; None for one typed after it.

    For a thread, the line at which the main thread is. Returns 0 if there is none, because the
    script is at its end, or waits in another greenlet: then `flowq.importing` alone protects.
    """
    frames = sys._current_frames()
    for innermost in (inspect.currentframe(), frames.get(threading.main_thread().ident or 0)):
        frame = innermost
        while frame is not None:
            if frame.f_globals is vars(main) and frame.f_code.co_name == "<module>":
                is_typed = Path(frame.f_code.co_filename).name != Path(_file_of(main)).name
                return None if is_typed else frame.f_lineno
            frame = frame.f_back
    return 0


@lru_cache(maxsize=1)
def _guarded_lines(main: ModuleType) -> list[range]:
    """Return the lines that are executed only in the script that was started.

    All lines if they are not known.
    """
    try:
        tree = ast.parse(Path(_file_of(main)).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return [range(1, sys.maxsize)]
    blocks = [block for node in ast.walk(tree) for block in _find_guarded(node)]
    return [range(each[0].lineno, (each[-1].end_lineno or 0) + 1) for each in blocks]


def _find_guarded(node: ast.AST) -> Iterator[list[ast.stmt]]:
    if isinstance(node, ast.If):
        if _is_main_if(node.test, outcome=True):
            yield node.body
        if node.orelse and _is_main_if(node.test, outcome=False):
            yield node.orelse


def _is_main_if(test: ast.expr, *, outcome: bool) -> bool:
    """Whether a test with this outcome implies that `__name__` is `"__main__"`."""
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return _is_main_if(test.operand, outcome=not outcome)
        case ast.BoolOp():
            decides = isinstance(test.op, ast.And) is outcome  # all parts have the outcome
            return decides and any(_is_main_if(each, outcome=outcome) for each in test.values)
        case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq() as operator], comparators=[right]):
            compared = {getattr(each, "id", getattr(each, "value", None)) for each in (left, right)}
            are_both = any(isinstance(each, ast.Name) for each in (left, right))
            is_guard = are_both and compared == {"__name__", "__main__"}
            return is_guard and isinstance(operator, ast.Eq) is outcome
    return False
