"""A workflow declared with decorators: the same values as from YAML.

    flow = Workflow("gallery", inputs={"folder": "photos"})

    @flow.job                                       # known first, run last
    def gallery(thumbs, title): ...

    @flow.job(with_={"folder": flow.inputs.folder})
    def list_photos(folder): ...

    @flow.job(for_each=list_photos.result, blocks=gallery, timeout="30s")
    def thumb(item): ...

    gallery.bind(thumbs=thumb.results, title="Holidays")
    flow.spec()

The decorated functions stay callable as they are. Problems are collected, and `spec()` reports all
of them, with the positions of the decorators and calls that they are about.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from types import FrameType
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from flowq.callables import CALL, explain_unimportable, name_call
from flowq.declare import defaults as shared
from flowq.declare import group_options as group
from flowq.declare import job_options
from flowq.declare import options as read
from flowq.declare.handles import (
    Declaration,
    DeclaredCall,
    DeclaredCommand,
    DeclaredJob,
    Handle,
    JobHandles,
    Names,
    NestedJob,
    to_argument,
)
from flowq.declare.job_options import CallOptions, JobOptions, NestedOptions, ShellOptions
from flowq.errors import FlowqError, Problem, UsageError, Where, WorkflowInvalid
from flowq.nearest import did_you_mean
from flowq.problems import (
    ARGUMENT_TWICE,
    BAD_CALL,
    BAD_NAME,
    BLOCKED_BY_NOT_DEFERRED,
    DECLARED_TWICE,
    FOREIGN_WORD,
    KEY_OUT_OF_PLACE,
    NO_SUCH_WORKFLOW,
    NOT_IMPORTABLE,
    UNKNOWN_KEY,
    WORKFLOW_IN_ITSELF,
    WRONG_SHAPE,
)
from flowq.spec import Defaults, Input, JobSpec, Path, Places
from flowq.spec import Workflow as Spec

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*-?")
_Read = Callable[[Any], Any]
_UNKNOWN = "?"
"""The key, among the options of a job, of one that there is not."""


class Workflow:
    """A graph of jobs that is declared with decorators.

    `inputs` maps names to a default (`{"size": 256}`), to a type for a required one
    (`{"folder": str}`), or to what YAML would say (`{"size": {"type": "int", "default": 256}}`).
    `defaults` has options for the jobs that do not say otherwise, `{"timeout": "10m"}`; `env`,
    `max_parallel`, `concurrency`, `schedule` and `timeout` are as in YAML.
    """

    item: Any = Handle("item")
    index: Any = Handle("index")
    result: Any = Handle("result")
    attempt: Any = Handle("attempt")
    run_id: Any = Handle("run.id")
    run_status: Any = Handle("run.status")
    run_failures: Any = Handle("run.failures")
    matrix = Names("matrix")
    env = Names("env")
    secrets = Names("secrets")
    inputs = Names("inputs")
    approval = Names("approval")

    def __init__(
        self,
        name: str,
        description: str = "",
        *,
        inputs: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | Defaults | None = None,
        env: Mapping[str, Any] | None = None,
        max_parallel: int | None = None,
        concurrency: Any = None,
        schedule: Any = None,
        timeout: float | str | None = None,
    ) -> None:
        frame = find_caller()
        where = where_of(frame)
        self.name = name
        self.description = description
        self._folder = find_folder(frame)
        self._file = frame.f_code.co_filename
        self._problems: list[Problem] = []
        self._unread: set[Path] = set()
        self._declaration_by_job: dict[JobHandles, Declaration] = {}
        self._inputs: list[Input] = []
        self._outputs: dict[str, Any] = {}
        self._where_by_path: dict[Path, Where] = {(): where}
        self._defaults = self._read_defaults(defaults or {}, where)
        self._said = {
            "env": self._read("env", group.read_environment, env or {}, where),
            "max_parallel": self._maybe("max_parallel", group.read_positive, max_parallel, where),
            "concurrency": self._maybe("concurrency", group.read_concurrency, concurrency, where),
            "schedule": self._maybe("schedule", group.read_schedule, schedule, where),
            "timeout_s": self._maybe("timeout", read.read_timeout, timeout, where),
        }
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

        Its name is the function's, unless `name=` says otherwise. `with_=` and `bind` say what it
        is called with; a parameter whose default is a handle gets its value as well. With
        `for_each=` the parameters `item` and `index` get theirs, with `matrix=` those that are
        named as its axes.
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
        """Declare a function as an open job: running jobs may add blockers to it."""
        return self._decorate(function, options, deferred=True)

    def call(self, name: str, function: str, **options: Unpack[CallOptions]) -> DeclaredCall:
        """Declare a function as a job by its name: `flow.call("pack", "files.tasks:pack")`.

        Nothing is imported by this: the function may live with the workers only.
        """
        job, where = DeclaredCall(name, self), here()
        said = self._read_options(options, CallOptions, where)
        if not CALL.fullmatch(function):
            message = f"job {name} calls {function!r}, which is not package.module:function"
            self._note(BAD_CALL, message, where, "for example: photos.tasks:make_thumbnail")
            self._unread.add(("jobs", name, "call"))
        self._enter(Declaration(job, None, where, said, call=function))
        return job

    def shell(self, name: str, command: Any, **options: Unpack[ShellOptions]) -> DeclaredCommand:
        """Declare a command as a job: a list of a program and its arguments, or a text for a shell.

        `flow.shell("pack", ["tar", "-cf", flow.inputs.archive, "out"])` needs no shell. In a text
        the values of handles are quoted, and braces are text.
        """
        job, where = DeclaredCommand(name, self), here()
        said = self._read_options(options, ShellOptions, where)
        text = self._read(f"the command of job {name}", group.read_command, command, where)
        said["run"] = None if text is None else job_options.to_shell(text, said)
        self._enter(Declaration(job, None, where, said))
        return job

    def workflow(
        self,
        name: str,
        other: Workflow | Spec | str | os.PathLike[str],
        **options: Unpack[NestedOptions],
    ) -> NestedJob:
        """Declare another workflow as a job of this one: a value, or a YAML file beside this code.

        `with_=` and `bind` say its inputs; its `result` has its outputs by name.
        """
        job, where = NestedJob(name, self), here()
        said = self._read_options(options, NestedOptions, where)
        is_file = isinstance(other, str | os.PathLike)
        called = os.fspath(other) if isinstance(other, str | os.PathLike) else other.name
        nested = self._file_reader(called) if is_file else _spec_reader(other)
        if not is_file and not _NAME.fullmatch(called):
            message = f"{called!r} cannot be the name of a workflow inside of another"
            self._note(BAD_NAME, message, where, "letters, digits, _ and - only, no digit first")
        self._enter(Declaration(job, None, where, said, workflow=called, nested=nested))
        return job

    @staticmethod
    def expression(source: str) -> Any:
        """Return a handle of any expression: `flow.expression("len(jobs.list.result)")`."""
        return Handle(source)

    def outputs(self, **values: Any) -> None:
        """Say what the workflow results in where it is a job of another one."""
        where = here()
        for name, value in values.items():
            self._where_by_path["outputs", name] = where
            path = ("outputs", name)
            self._outputs[name] = self._read(f"output {name}", to_argument, value, where, path)

    def input(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word of the language
        default: Any = read.REQUIRED,
        description: str = "",
        choices: Iterable[str] = (),
        pattern: str | None = None,
    ) -> Any:
        """Declare an input and return its handle; without a default it is required."""
        words = (type, default, description, choices, pattern)
        self._add_input(name, here(), read.read_input, *words)
        return Handle(f"inputs.{name}")

    def bind(self, job: JobHandles, arguments: Mapping[str, Any]) -> None:
        """Say with which arguments a job of this workflow runs, as `job.bind(…)` does."""
        self._bind(self._declaration_by_job[job], arguments, here())

    def spec(self) -> Spec:
        """Return what was declared, as an immutable value that equals that of its YAML twin.

        Errors: WorkflowInvalid with everything that was said wrongly, in the order of the text.
        """
        workflow, problems = self.spec_partly()
        if problems:
            raise WorkflowInvalid(problems)
        return workflow

    def spec_partly(self) -> tuple[Spec, list[Problem]]:
        """Return what can be told of the workflow, and everything that was said wrongly, in order.

        Shape: where there are problems, the workflow's `unread` says what it does not tell.
        """
        problems = [*self._problems, *self._find_late_problems()]
        workflows = self._read_nested(problems)
        jobs = map(_to_job_spec, self._declaration_by_job.values())
        workflow = Spec(
            name=self.name,
            jobs=tuple(sorted(jobs, key=lambda job: job.is_final)),
            inputs=tuple(self._inputs),
            description=self.description,
            defaults=self._defaults,
            outputs=dict(self._outputs),
            workflows=workflows,
            places=Places(dict(self._where_by_path)),
            folder=self._folder,
            unread=frozenset(self._find_unread(workflows)) if problems else frozenset(),
            **{key: value for key, value in self._said.items() if value is not None},
        )
        return workflow, sorted(problems, key=_position)

    # Declaring -----------------------------------------------------------------------------------

    def _decorate(self, function: Any, options: dict[str, Any], *, deferred: bool) -> Any:
        where = here()  # now: later the frame will have moved on

        def decorate(decorated: Any) -> DeclaredJob[Any, Any]:
            return self._declare(decorated, options, deferred, where)

        return decorate if function is None else decorate(function)

    def _declare(
        self, function: Any, given: dict[str, Any], deferred: bool, where: Where
    ) -> DeclaredJob[Any, Any]:
        function = function._function if isinstance(function, DeclaredJob) else function
        if not callable(function):
            raise UsageError(f"a job calls a function, not {function!r}")
        options = self._read_options(given, JobOptions, where)
        name = str(options.get("name") or getattr(function, "__name__", repr(function)))
        job: DeclaredJob[Any, Any] = DeclaredJob(function, name, self)
        own = job._default_by_parameter
        one = Declaration(job, function, where, {**options, "deferred": deferred})
        one.replaceable = frozenset(own)
        self._enter(one, own)
        return job

    def _enter(self, one: Declaration, own: Mapping[str, Any] | None = None) -> None:
        """Take up a declaration, with what its options say about arguments."""
        self._where_by_path["jobs", one.job.name] = one.where
        self._declaration_by_job[one.job] = one
        for name, needed in job_options.find_alone(one.options):
            message = f"{name} of job {one.job.name} stands without {needed[0]}"
            hint = f"it belongs to a job with {' or '.join(needed)}"
            self._note(KEY_OUT_OF_PLACE, message, one.where, hint)
        self._bind(one, own or {}, one.where)
        self._bind(one, one.options.get("with_") or {}, one.where)

    def _read_options(self, given: Mapping[str, Any], kind: Any, where: Where) -> dict[str, Any]:
        options = {}
        known = kind.__annotations__
        for name, value in given.items():
            if name not in known:
                is_open = name == "deferred"
                hint = "write @flow.deferred" if is_open else did_you_mean(name, known)
                self._note(UNKNOWN_KEY, f"a job has no option {name!r}", where, hint)
                options[_UNKNOWN] = name
            elif value is not None:
                options[name] = self._read(name, job_options.READERS[name], value, where)
        return options

    def _read_defaults(self, given: Any, where: Where) -> Defaults:
        if isinstance(given, Defaults):
            return given
        said = {}
        for name, value in (self._read("defaults", read.read_mapping, given, where) or {}).items():
            key = name.rstrip("_")
            if key in shared.KEYS and value is not None:
                what = f"{key} of defaults"
                said[key] = self._read(what, job_options.READERS[key], value, where)
            elif key in shared.REFUSED:
                self._note(FOREIGN_WORD, f"defaults has no key {key!r}", where, shared.REFUSED[key])
            elif key not in shared.KEYS and not read.is_free(key):
                hint = did_you_mean(key, shared.KEYS)
                self._note(UNKNOWN_KEY, f"unknown key {key!r} in defaults", where, hint)
        return shared.to_defaults(said)

    def _bind(self, one: Declaration, arguments: Mapping[str, Any], where: Where) -> None:
        for name, value in arguments.items():
            if name in one.with_ and name not in one.replaceable:
                message = f"job {one.job.name} is given {name} twice"
                self._note(ARGUMENT_TWICE, message, where, "keep one of them")
            what, path = f"argument {name} of job {one.job.name}", ("jobs", one.job.name, "with")
            one.with_[name] = self._read(what, to_argument, value, where, (*path, name))
            self._where_by_path["jobs", one.job.name, "with", name] = where

    def _add_input(self, name: str, where: Where, reader: Any, *words: Any) -> None:
        self._where_by_path["inputs", name] = where
        declared = self._read(f"input {name}", lambda _: reader(name, *words), name, where)
        if declared is None:
            self._unread.add(("inputs", name))
        self._inputs.append(declared or Input(name))

    def _file_reader(self, file: str) -> Callable[[], Spec]:
        def read_file() -> Spec:
            # Not at the top: every child that imports a workflow would read the YAML parser too.
            from flowq.declare.yaml import read_workflow  # noqa: PLC0415

            return read_workflow(os.path.join(os.path.dirname(self._file), file))  # noqa: PTH118, PTH120 - keeps symbolic links

        return read_file

    # Problems ------------------------------------------------------------------------------------

    def _read_nested(self, problems: list[Problem]) -> dict[str, Spec]:
        """Return the nested workflows by name; what is wrong in them joins the problems."""
        workflows: dict[str, Spec] = {}
        for one in self._declaration_by_job.values():
            try:
                found = one.nested() if one.nested is not None else None
            except WorkflowInvalid as invalid:
                problems += [problem for problem in invalid.problems if problem not in problems]
            except FlowqError as error:
                problems.append(Problem(NO_SUCH_WORKFLOW, str(error), one.where))
            except RecursionError:
                message = f"workflow {one.workflow} contains itself"
                problems.append(
                    Problem(WORKFLOW_IN_ITSELF, message, one.where, "take this job away")
                )
            else:
                if found is not None and workflows.setdefault(one.workflow, found) != found:
                    message = f"two different workflows are called {one.workflow}"
                    problems.append(
                        Problem(DECLARED_TWICE, message, one.where, "rename one of them")
                    )
        return workflows

    def _find_unread(self, workflows: Mapping[str, Spec]) -> Iterable[Path]:
        """Yield the parts that are known in part, or not at all."""
        yield from self._unread
        for one in self._declaration_by_job.values():
            path = ("jobs", one.job.name)
            if _UNKNOWN in one.options:
                yield path
            yield from ((*path, key.rstrip("_")) for key, v in one.options.items() if v is None)
            if one.workflow and one.workflow not in workflows:
                yield ("workflows", one.workflow)

    def _maybe(self, what: str, reader: _Read, value: Any, where: Where) -> Any:
        return None if value is None else self._read(what, reader, value, where)

    def _read(
        self, what: str, reader: _Read, value: Any, where: Where, path: Path | None = None
    ) -> Any:
        try:
            return reader(value)
        except (ValueError, TypeError) as error:
            self._note(getattr(error, "code", WRONG_SHAPE), f"{what} {error}", where)
            self._unread.add(path or (what,))
            return None

    def _note(self, code: str, message: str, where: Where, hint: str = "") -> None:
        self._problems.append(Problem(code, message, where, hint))

    def _find_late_problems(self) -> Iterable[Problem]:
        deferred = {one.job.name for one in self._declaration_by_job.values() if one.deferred}
        for one in self._declaration_by_job.values():
            unimportable = explain_unimportable(one.function) if one.function else None
            if unimportable:
                reason, hint = unimportable
                message = f"job {one.job.name} calls what workers cannot import: {reason}"
                yield Problem(NOT_IMPORTABLE, message, one.where, hint)
            for block in one.options.get("blocked_by") or ():
                if block.name not in deferred:
                    yield _not_deferred(one, block.name)


def _spec_reader(other: Any) -> Callable[[], Spec]:
    if isinstance(other, Spec):
        return lambda: other
    if not isinstance(other, Workflow):
        raise UsageError(f"flow.workflow takes a workflow or a YAML file, not {other!r}")
    return other.spec


def _not_deferred(one: Declaration, target: str) -> Problem:
    message = f"job {one.job.name} is blocked_by {target}, which is not declared with deferred"
    hint = (
        f"blocked_by names the later job: {one.job.name} would run before {target}. If so, write "
        f"blocks={target}; if {target} runs first, write needs={target}"
    )
    return Problem(BLOCKED_BY_NOT_DEFERRED, message, one.where, hint)


def _to_job_spec(one: Declaration) -> JobSpec:
    call = name_call(one.function) if one.function is not None else one.call
    return job_options.to_job_spec(
        one.job.name, one.options, one.arguments(), call=call, workflow=one.workflow
    )


def _position(problem: Problem) -> tuple[str, int]:
    where = problem.where
    return (where.file, where.line) if where else ("", 0)


# Where a declaration was written: the place outside of this package that called it.


_HERE = str(pathlib.Path(__file__).parent)


def find_caller() -> FrameType:
    """Return the frame of the user's code that called us."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_HERE) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def here() -> Where:
    """Return the position in the user's code that called us."""
    return where_of(find_caller())


def where_of(frame: FrameType) -> Where:
    """Return the position that a frame is executing."""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, _, column, _ = next(positions, (None, None, None, None))
    return Where(frame.f_code.co_filename, line or frame.f_lineno, (column or 0) + 1)


def find_folder(frame: FrameType) -> str | None:
    """Return the folder of a module that is imported by its file's name alone."""
    names = frame.f_globals
    if names.get("__package__") or not names.get("__file__"):
        return None
    return str(pathlib.Path(names["__file__"]).parent)
