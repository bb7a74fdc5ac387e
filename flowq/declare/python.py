"""A workflow declared with decorators: the same values as from YAML.

    flow = Workflow("gallery", inputs={"folder": "photos"})

    @flow.deferred                                  # known first, run last
    def gallery(photos, title): ...

    @flow.job(blocks=gallery, timeout="30s")
    def list_photos(folder=flow.inputs.folder): ...

    gallery.bind(photos=list_photos.result, title="Holidays")
    flow.spec()

The decorated functions stay callable as they are. Problems are collected, and `spec()` reports all
of them, with the positions of the decorators and calls that they are about.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import update_wrapper
from itertools import islice
from pathlib import Path as FilePath
from types import FrameType
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, overload

from flowq import spec
from flowq.declare import options as read
from flowq.declare.callables import explain_unimportable, name_call
from flowq.declare.handles import Handle, holds_handle, to_argument
from flowq.errors import Problem, UsageError, Where, WorkflowInvalid
from flowq.nearest import did_you_mean
from flowq.spec import Block, BlockerPolicy, Defaults, Input, JobSpec, Path, Places

P = ParamSpec("P")
R = TypeVar("R")

RULES = {
    "FQ103": "Every key is known",
    "FQ105": "Every value has the shape that its key asks for",
    "FQ110": "A duration is a number with ms, s, m, h or d",
    "FQ115": "The target of `blocked_by` is declared as deferred",
    "FQ116": "The default of an input fits its type",
    "FQ601": "Workers can import the function of a job",
    "FQ602": "An argument is given once",
}
"""The rules that only this front can see; those below FQ600 are the same in YAML."""


class JobOptions(TypedDict, total=False):
    """What `@flow.job(…)` and `@flow.deferred(…)` take; the words are those of YAML."""

    name: str
    needs: Any
    blocks: Any
    blocked_by: Any
    with_: Mapping[str, Any]
    queue: str
    timeout: str | float
    retries: Any
    description: str
    on_blocker_failure: BlockerPolicy


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "name": read.read_text,
    "needs": read.read_names,
    "blocks": read.read_blocks,
    "blocked_by": read.read_blocks,
    "with_": read.read_mapping,
    "queue": read.read_text,
    "timeout": read.read_timeout,
    "retries": read.read_retries,
    "description": read.read_text,
    "on_blocker_failure": read.read_policy,
}


class DeclaredJob(Generic[P, R]):
    """A function that is a job of a workflow: called, it is the function it was.

    `result` stands for what it will return in a run, and `bind` says with which arguments it runs.
    """

    def __init__(self, function: Callable[P, R], name: str, workflow: Workflow) -> None:
        self._function = function
        self._workflow = workflow
        self._default_by_parameter = _find_handles(function)
        self.name = name
        update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, here and now. Errors: UsageError where only a run has a value."""
        if self._default_by_parameter:
            self._refuse_handles(args, kwargs)
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<job {self.name} of workflow {self._workflow.name}>"

    def __reduce__(self) -> str:
        return str(self.__dict__["__qualname__"])

    @property
    def result(self) -> Any:
        """The handle of the job's result: `${{ jobs.NAME.result }}`."""
        return Handle(f"jobs.{self.name}.result")

    def bind(self, **arguments: Any) -> DeclaredJob[P, R]:
        """Say with which arguments the job runs; handles become expressions. Returns the job."""
        self._workflow._bind(self, arguments, _here())
        return self

    def _refuse_handles(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = inspect.signature(self._function).bind_partial(*args, **kwargs).arguments
        for name, default in self._default_by_parameter.items():
            if name not in given:
                known_as = to_argument(default)
                raise UsageError(f"{self.name}() needs {name}=: only a run knows {known_as}")


class Inputs:
    """The inputs of a workflow as handles: `flow.inputs.folder`. One is not declared by this."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Handle(f"inputs.{name}")

    def __getitem__(self, name: str) -> Any:
        return Handle(f"inputs.{name}")


@dataclass
class _Declaration:
    """What has been said about one job so far."""

    job: DeclaredJob[Any, Any]
    function: Any
    where: Where
    deferred: bool
    options: Mapping[str, Any]
    with_: dict[str, Any] = field(default_factory=dict)


class Workflow:
    """A graph of jobs that is declared with decorators.

    `inputs` maps names to a default (`{"size": 256}`), to a type for a required one
    (`{"folder": str}`), or to what YAML would say (`{"size": {"type": "int", "default": 256}}`).
    `defaults` has `queue`, `timeout` and `retries` for the jobs that do not say otherwise.
    """

    def __init__(
        self,
        name: str,
        description: str = "",
        *,
        inputs: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | Defaults | None = None,
    ) -> None:
        frame = _find_caller()
        where = _where(frame)
        self.name = name
        self.description = description
        self.inputs = Inputs()
        self._folder = _find_folder(frame)
        self._problems: list[Problem] = []
        self._declaration_by_job: dict[DeclaredJob[Any, Any], _Declaration] = {}
        self._inputs: list[Input] = []
        self._where_by_path: dict[Path, Where] = {(): where}
        self._defaults = self._read("defaults", read.read_defaults, defaults or {}, where)
        for key, value in (inputs or {}).items():
            self._add_input(key, where, read.read_short_input, value)

    def __repr__(self) -> str:
        return f"<workflow {self.name}: {', '.join(job.name for job in self._declaration_by_job)}>"

    @overload
    def job(
        self, function: Callable[P, R], /, **options: Unpack[JobOptions]
    ) -> DeclaredJob[P, R]: ...
    @overload
    def job(
        self, /, **options: Unpack[JobOptions]
    ) -> Callable[[Callable[P, R]], DeclaredJob[P, R]]: ...
    def job(self, function: Any = None, /, **options: Any) -> Any:
        """Declare a function as a job: `@flow.job`, `@flow.job(…)`, or `flow.job(function, …)`.

        Its name is the function's, unless `name=` says otherwise. Parameters whose default is a
        handle get their value in the run; `with_=` and `bind` say others.
        """
        return self._decorate(function, options, deferred=False)

    @overload
    def deferred(
        self, function: Callable[P, R], /, **options: Unpack[JobOptions]
    ) -> DeclaredJob[P, R]: ...
    @overload
    def deferred(
        self, /, **options: Unpack[JobOptions]
    ) -> Callable[[Callable[P, R]], DeclaredJob[P, R]]: ...
    def deferred(self, function: Any = None, /, **options: Any) -> Any:
        """Declare a function as a future job: known first, run after all jobs that block it."""
        return self._decorate(function, options, deferred=True)

    def input(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word of the language
        default: Any = read.REQUIRED,
        description: str = "",
        choices: Iterable[str] = (),
    ) -> Any:
        """Declare an input and return its handle; without a default it is required."""
        self._add_input(name, _here(), read.read_input, type, default, description, choices)
        return Handle(f"inputs.{name}")

    def spec(self) -> spec.Workflow:
        """Return what was declared, as an immutable value that equals that of its YAML twin.

        Errors: WorkflowInvalid with everything that was said wrongly, in the order of the text.
        """
        problems = [*self._problems, *self._find_late_problems()]
        if problems:
            raise WorkflowInvalid(sorted(problems, key=_position))
        return spec.Workflow(
            name=self.name,
            jobs=tuple(map(_to_job_spec, self._declaration_by_job.values())),
            inputs=tuple(self._inputs),
            description=self.description,
            defaults=self._defaults,
            places=Places(dict(self._where_by_path)),
            folder=self._folder,
        )

    # Declaring -----------------------------------------------------------------------------------

    def _decorate(self, function: Any, options: dict[str, Any], *, deferred: bool) -> Any:
        where = _here()  # now: later the frame will have moved on

        def decorate(decorated: Any) -> DeclaredJob[Any, Any]:
            return self._declare(decorated, options, deferred, where)

        return decorate if function is None else decorate(function)

    def _declare(
        self, function: Any, given: dict[str, Any], deferred: bool, where: Where
    ) -> DeclaredJob[Any, Any]:
        function = function._function if isinstance(function, DeclaredJob) else function
        if not callable(function):
            raise UsageError(f"a job calls a function, not {function!r}")
        options = self._read_options(given, where)
        name = str(options.get("name") or getattr(function, "__name__", repr(function)))
        job: DeclaredJob[Any, Any] = DeclaredJob(function, name, self)
        self._where_by_path["jobs", name] = where
        self._declaration_by_job[job] = _Declaration(job, function, where, deferred, options)
        self._bind(job, job._default_by_parameter, where)
        self._bind(job, options.get("with_") or {}, where)
        return job

    def _read_options(self, given: Mapping[str, Any], where: Where) -> dict[str, Any]:
        options = {}
        for name, value in given.items():
            if name not in _READERS:
                hint = did_you_mean(name, _READERS)
                self._note("FQ103", f"a job has no option {name!r}", where, hint)
            elif value is not None:
                options[name] = self._read(name, _READERS[name], value, where)
        return options

    def _bind(self, job: DeclaredJob[Any, Any], arguments: Mapping[str, Any], where: Where) -> None:
        declaration = self._declaration_by_job[job]
        for name, value in arguments.items():
            if name in declaration.with_ and name not in job._default_by_parameter:
                message = f"job {job.name} is given {name} twice"
                self._note("FQ602", message, where, "keep one of them")
            declaration.with_[name] = self._read(
                f"argument {name} of job {job.name}", to_argument, value, where
            )
            self._where_by_path["jobs", job.name, "with", name] = where

    def _add_input(self, name: str, where: Where, reader: Any, *words: Any) -> None:
        self._where_by_path["inputs", name] = where
        declared = self._read(f"input {name}", lambda _: reader(name, *words), name, where)
        if declared is not None:
            self._inputs.append(declared)

    # Problems ------------------------------------------------------------------------------------

    def _read(self, what: str, reader: Callable[[Any], Any], value: Any, where: Where) -> Any:
        try:
            return reader(value)
        except (ValueError, TypeError) as error:
            self._note(getattr(error, "code", "FQ105"), f"{what} {error}", where)
            return None

    def _note(self, code: str, message: str, where: Where, hint: str = "") -> None:
        self._problems.append(Problem(code, message, where, hint))

    def _find_late_problems(self) -> Iterable[Problem]:
        deferred = {one.job.name for one in self._declaration_by_job.values() if one.deferred}
        for one in self._declaration_by_job.values():
            if unimportable := explain_unimportable(one.function):
                reason, hint = unimportable
                message = f"job {one.job.name} calls what workers cannot import: {reason}"
                yield Problem("FQ601", message, one.where, hint)
            for block in one.options.get("blocked_by") or ():
                if block.name not in deferred:
                    yield _not_deferred(one, block.name)


def _not_deferred(one: _Declaration, target: str) -> Problem:
    message = f"job {one.job.name} is blocked_by {target}, which is not declared with deferred"
    hint = (
        f"blocked_by names the later job: {one.job.name} would run before {target}. If so, declare "
        f"{target} with @flow.deferred; if {target} runs first, write needs={target} here"
    )
    return Problem("FQ115", message, one.where, hint)


def _to_job_spec(one: _Declaration) -> JobSpec:
    said = one.options
    return JobSpec(
        name=one.job.name,
        call=name_call(one.function),
        with_=dict(one.with_),
        needs=said.get("needs") or (),
        blocks=_merge([*(said.get("blocks") or ()), *(said.get("blocked_by") or ())]),
        deferred=one.deferred,
        queue=said.get("queue"),
        timeout_s=said.get("timeout"),
        retries=said.get("retries"),
        description=said.get("description") or "",
        on_blocker_failure=said.get("on_blocker_failure"),
    )


def _merge(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Return each future job once, with the policy that one of the places says."""
    by_name: dict[str, Block] = {}
    for block in blocks:
        if block.name not in by_name or block.on_failure:
            by_name[block.name] = block
    return tuple(by_name.values())


def _find_handles(function: Any) -> dict[str, Any]:
    """Return the parameters whose default only a run knows, with these defaults."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables of C do not tell
        return {}
    return {p.name: p.default for p in parameters if holds_handle(p.default)}


# Where it was written ------------------------------------------------------------------------


def _find_caller() -> FrameType:
    """Return the frame of the user's code that called us."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _here() -> Where:
    return _where(_find_caller())


def _where(frame: FrameType) -> Where:
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, _, column, _ = next(positions, (None, None, None, None))
    return Where(frame.f_code.co_filename, line or frame.f_lineno, (column or 0) + 1)


def _find_folder(frame: FrameType) -> str | None:
    """Return the folder of a module that is imported by its file's name alone."""
    names = frame.f_globals
    if names.get("__package__") or not names.get("__file__"):
        return None
    return str(FilePath(names["__file__"]).parent)


def _position(problem: Problem) -> tuple[str, int]:
    where = problem.where
    return (where.file, where.line) if where else ("", 0)
