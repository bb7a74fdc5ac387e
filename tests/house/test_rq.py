"""RQ's private behaviour is known in one module, which fails by name when RQ changes."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rq

from flowq.runtime import rq as known
from flowq.runtime.job import Job
from flowq.runtime.queue import Queue
from flowq.runtime.rq_sources import RELIED_ON, Reliance
from flowq.runtime.wip import WIPRegistry
from flowq.workers.child import timeouts
from flowq.workers.worker import MultiprocessingWorker, Worker

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flowq"
THE_MODULE = PACKAGE / "runtime" / "rq.py"
DIGEST_LENGTH = 16
OURS: tuple[type, ...] = (
    Job,
    Queue,
    Worker,
    MultiprocessingWorker,
    WIPRegistry,
    known.JobBase,
    known.QueueBase,
    known.WorkerBase,
    known.PerformingWorker,
    timeouts.AlarmDeathPenalty,
    timeouts.ThreadDeathPenalty,
)


def find(name: str) -> Any:
    """Return what a dotted name stands for; the getter of a property."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = inspect.getattr_static(found, part)
        found = getattr(found, "__func__", found)
        return found.fget if isinstance(found, property) else found
    raise AssertionError(f"there is no {name}")


def digest(name: str) -> str:
    return hashlib.sha256(inspect.getsource(find(name)).encode()).hexdigest()[:DIGEST_LENGTH]


@pytest.mark.parametrize("each", RELIED_ON, ids=lambda each: each.source)
def test_rq_is_as_flowq_relies_on(each: Reliance) -> None:
    try:
        now = digest(each.source)
    except (AssertionError, AttributeError):
        pytest.fail(f"{each.source} is gone: look for what replaces it, then at {each.places}")
    assert now == each.digest, (
        f"{each.source} changed (RQ {rq.__version__}): read {_place(each.source)}, then "
        f"{', '.join(f'flowq/{place}' for place in each.places)}; the new digest is {now}"
    )


def _place(name: str) -> str:
    source = find(name)
    return f"{inspect.getsourcefile(source)}:{inspect.getsourcelines(source)[1]}"


@pytest.mark.parametrize("each", RELIED_ON, ids=lambda each: each.source)
def test_the_places_to_look_at_exist(each: Reliance) -> None:
    assert each.places
    for place in each.places:
        path, _, name = place.partition(":")
        text = (PACKAGE / path).read_text("utf-8")
        assert not name or any(f"{word}{name}" in text for word in ("def ", "class ", "\n")), (
            f"there is no {name} in flowq/{path}"
        )


def test_nothing_is_listed_twice() -> None:
    sources = [each.source for each in RELIED_ON]
    assert sorted(set(sources)) == sorted(sources)


# Overrides -------------------------------------------------------------------------------------


def overrides() -> Iterator[tuple[str, Any, Any]]:
    """Yield our methods and properties that take the place of RQ's, with RQ's, by RQ's name."""
    for ours in OURS:
        for name, method in vars(ours).items():
            theirs = next(
                (c for c in ours.__mro__ if c.__module__.startswith("rq.") and name in vars(c)),
                None,
            )
            if theirs is None or name in ("__doc__", "__module__", "__annotations__"):
                continue
            original = vars(theirs)[name]
            if inspect.isfunction(getattr(original, "__func__", original)) or isinstance(
                original, property
            ):
                yield f"{theirs.__module__}.{theirs.__qualname__}.{name}", method, original


OVERRIDES = list(overrides())


def test_there_are_overrides_to_check() -> None:
    assert len(OVERRIDES) > 20


def test_the_page_for_users_of_rq_lists_every_override() -> None:
    page = (ROOT / "docs" / "explanation" / "with-rq.md").read_text("utf-8")
    rows = re.findall(r"^\| `(rq\.[\w.]+)` \| (.*?) \|", page, re.MULTILINE)
    listed = {f"{owner}.{name}" for owner, names in rows for name in re.findall(r"`(\w+)`", names)}
    assert listed == {name for name, _, _ in OVERRIDES}


@pytest.mark.parametrize("name", sorted({name for name, _, _ in OVERRIDES}))
def test_every_override_is_relied_on(name: str) -> None:
    listed = {each.source for each in RELIED_ON}
    assert name in listed or name.rpartition(".")[0] in listed


@pytest.mark.parametrize(("name", "ours", "theirs"), OVERRIDES, ids=[o[0] for o in OVERRIDES])
def test_overrides_keep_the_names_of_parameters(name: str, ours: Any, theirs: Any) -> None:
    if isinstance(theirs, property):
        return
    mine, wanted = _parameters(ours), _parameters(theirs)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in mine.values())
    named = [n for n, p in wanted.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    missing = [n for n in named if n not in mine]
    assert not missing or takes_any, f"{name} also takes {missing}"
    # Those that both have stand in the same order, so that RQ may pass them by position.
    both = [n for n in named if n in mine and mine[n].kind is not mine[n].KEYWORD_ONLY]
    assert [n for n in mine if n in both] == both
    # What RQ passes by position is not called otherwise here.
    positional = [
        n for n, p in mine.items() if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty
    ]
    assert set(positional) <= set(named)


def _parameters(method: Any) -> dict[str, inspect.Parameter]:
    function: Callable[..., Any] = getattr(method, "__func__", method)
    return dict(inspect.signature(function).parameters)


# Private names -----------------------------------------------------------------------------------


def private_names_of_rq() -> set[str]:
    """Return what the classes and modules of RQ call with an underscore in front."""
    names: set[str] = set()
    for path in Path(rq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and _is_self(node.value):
                names.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


PRIVATE = private_names_of_rq()


def private_uses(path: Path) -> Iterator[str]:
    """Yield the uses of RQ's private names in a module of ours."""
    tree = ast.parse(path.read_text("utf-8"))
    modules = {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    of_rq = {cls.__name__: set(_own_names(cls)) for cls in OURS if cls.__module__ == _module(path)}
    for node, owner in _walk(tree):
        if not isinstance(node, ast.Attribute) or node.attr not in PRIVATE:
            continue
        if _is_self(node.value) or _is_super(node.value):
            is_used = owner in of_rq and node.attr not in of_rq[owner]
        else:
            is_used = ast.unparse(node.value) not in modules
        if is_used:
            yield f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"


def _walk(node: ast.AST, owner: str = "") -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        yield child, owner
        yield from _walk(child, child.name if isinstance(child, ast.ClassDef) else owner)


def _is_super(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "super"


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _own_names(cls: type) -> Iterator[str]:
    """Yield the names that a class of ours has made for itself."""
    theirs = {n for base in cls.__mro__ if base.__module__.startswith("rq.") for n in vars(base)}
    yield from (name for name in vars(cls) if name not in theirs)


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != THE_MODULE]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_rq_are_used_in_one_module(path: Path) -> None:
    assert not list(private_uses(path))
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rq"
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not imported


def test_private_uses_are_found() -> None:
    assert any("_stopped_job_id" in use for use in private_uses(THE_MODULE))
    assert any("_id" in use for use in private_uses(THE_MODULE))


def test_private_names_of_flowq_jobs_are_their_own() -> None:
    ours = {n for cls in (Job, Queue) for n in vars(cls) if n.startswith("_") and n[1] != "_"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ours
        if ast.unparse(node.value) in ("job", "queue", "task", "future", "adder")
    ]
    assert not found
