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

The decorated functions remain callable. Problems are collected, and `spec()` reports all of them,
at the positions of their decorators and calls.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar, Unpack, overload

from flowq.callables import explain_unimportable, name_call
from flowq.declare.document import read_declaration
from flowq.declare.handles import (
    Declaration,
    DeclaredCall,
    DeclaredCommand,
    DeclaredJob,
    DeclaredSleep,
    Handle,
    JobHandles,
    Names,
    NestedJob,
    plain_text,
)
from flowq.declare.job_shapes import check_name
from flowq.declare.keys import WORKFLOW
from flowq.declare.nodes import MapNode, Node, ScalarNode, collector_paused, copy_maps
from flowq.declare.options import (
    CallOptions,
    JobOptions,
    NestedOptions,
    ShellOptions,
    SleepOptions,
)
from flowq.declare.positions import Positions
from flowq.declare.problems import Problems
from flowq.declare.values import (
    Unreadable,
    input_to_node,
    key_node,
    map_node,
    option_to_node,
    to_node,
)
from flowq.errors import FlowqError, Problem, UsageError, Where, WorkflowInvalid
from flowq.problems import (
    ARGUMENT_TWICE,
    BAD_NAME,
    DECLARED_TWICE,
    NO_SUCH_WORKFLOW,
    NOT_IMPORTABLE,
    UNKNOWN_KEY,
    WORKFLOW_IN_ITSELF,
    WRONG_SHAPE,
)
from flowq.spec import Defaults, Places
from flowq.spec import Workflow as Spec

P = ParamSpec("P")
R = TypeVar("R")

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Marks an input without a default."""

_KEY_BY_OPTION = {"if_": "if", "else_": "else", "with_": "with", "finally_": "finally"}


class Workflow:
    """A graph of jobs that is declared with decorators.

    `inputs` maps names to a default (`{"size": 256}`), to a type for a required input
    (`{"folder": str}`), or to a mapping as in YAML (`{"size": {"type": "int", "default": 256}}`).
    `defaults` has the default options of jobs, `{"timeout": "10m"}`. `env`, `max_parallel`,
    `concurrency`, `schedule`, `timeout` and `labels` are as in YAML.
    """

    item: Any = Handle("item")
    index: Any = Handle("index")
    result: Any = Handle("result")
    attempt: Any = Handle("attempt")
    run_id: Any = Handle("run.id")
    run_due_at: Any = Handle("run.due_at")
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
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        frame = find_caller()
        where = where_of(frame)
        self.name = name
        self.description = description
        self._folder = find_folder(frame)
        self._file = frame.f_code.co_filename
        self._problems = Problems(self._file)
        self._declared_at = where
        self._root = map_node(where)
        self._inputs = map_node(where)
        self._outputs = map_node(where)
        self._declaration_by_job: dict[JobHandles, Declaration] = {}
        self._job_names: set[str] = set()
        said = {
            "name": name,
            "description": description,
            "inputs": inputs,
            "defaults": defaults,
            "env": env,
            "max_parallel": max_parallel,
            "timeout": timeout,
            "concurrency": concurrency,
            "schedule": schedule,
            "labels": labels,
        }
        for key, value in said.items():
            if value is not None:
                self._say(self._root, key, value, where)
        if isinstance(declared := self._root.node_by_key.get("inputs"), MapNode):
            self._inputs = declared

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

        Its name is `name=`, or the function's name. `with_=` and `bind` set its arguments. A
        parameter whose default is a handle gets the value of that handle. With `for_each=`, the
        parameters `item` and `index` get the item and its index; with `matrix=`, parameters named
        like axes get their values.
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

        This imports nothing: only the workers need the function.
        """
        job, where = DeclaredCall(_to_name(name), self), here()
        self._enter(job, {"call": function, **options}, where)
        return job

    def shell(self, name: str, command: Any, **options: Unpack[ShellOptions]) -> DeclaredCommand:
        """Declare a command as a job: a list of a program and its arguments, or a text for a shell.

        `flow.shell("pack", ["tar", "-cf", flow.inputs.archive, "out"])` runs without a shell. In a
        text, the values of handles are quoted, and braces are text.
        """
        job, where = DeclaredCommand(_to_name(name), self), here()
        self._enter(job, {"run": command, **options}, where)
        return job

    def sleep(self, name: str, time: Any, **options: Unpack[SleepOptions]) -> DeclaredSleep:
        """Declare a job that waits, without a worker: `flow.sleep("settle", "10m", needs=deploy)`.

        `time` is a duration, an aware datetime, such an instant as text, or a handle of one.
        """
        job, where = DeclaredSleep(_to_name(name), self), here()
        if isinstance(time, timedelta):
            time = time.total_seconds()
        elif isinstance(time, datetime):
            time = time.isoformat()
        self._enter(job, {"sleep": time, **options}, where)
        return job

    def workflow(
        self,
        name: str,
        other: Workflow | Spec | str | os.PathLike[str],
        **options: Unpack[NestedOptions],
    ) -> NestedJob:
        """Declare another workflow as a job of this one: a value, or a YAML file beside this code.

        `with_=` and `bind` set its inputs; its `result` has its outputs by name.
        """
        job, where = NestedJob(_to_name(name), self), here()
        if isinstance(other, str | os.PathLike):
            called = os.fspath(other)
            nested = self._file_reader(called)
        else:
            nested, called = _spec_reader(other), other.name
            check_name(key_node(called, where), self._problems)
        self._enter(job, {"workflow": called, **options}, where, nested=nested)
        return job

    @staticmethod
    def expression(source: str) -> Any:
        """Return a handle for any expression: `flow.expression("len(jobs.list.result)")`."""
        return Handle(_to_name(source))

    def outputs(self, **values: Any) -> None:
        """Declare the outputs of the workflow, by name."""
        where = here()
        for name, value in values.items():
            self._say(self._outputs, name, value, where, f"output {name}", to_node)

    def input(
        self,
        name: str,
        *,
        type: Any = None,  # noqa: A002 - the word of the language
        default: Any = REQUIRED,
        description: str = "",
        choices: Iterable[str] = (),
        pattern: str | None = None,
    ) -> Any:
        """Declare an input and return its handle; without a default it is required."""
        said = {
            "type": type,
            "description": description or None,
            "choices": list(choices) or None,
            "pattern": pattern,
        }
        words = {key: value for key, value in said.items() if value is not None}
        if default is not REQUIRED:
            words["default"] = default
        name, where = _to_name(name), here()
        if name in self._inputs.node_by_key:
            self._refuse_twice("input", name, where)
        else:
            self._say(self._inputs, name, words, where, f"input {name}", input_to_node)
        return Handle(f"inputs.{name}")

    def bind(self, job: JobHandles, arguments: Mapping[str, Any]) -> None:
        """Set arguments of a job of this workflow, as `job.bind(…)` does."""
        self._bind(self._declaration_by_job[job], arguments, here())

    def spec(self) -> Spec:
        """Return the declared workflow as an immutable value, equal to that of the same YAML.

        Errors: WorkflowInvalid with all problems, in the order of the text.
        """
        workflow, problems = self.spec_partly()
        if problems:
            raise WorkflowInvalid(problems)
        return workflow

    def spec_partly(self) -> tuple[Spec, list[Problem]]:
        """Return the known part of the workflow, and all problems, in order.

        Shape: if there are problems, the workflow's `unread` has the paths of the unknown parts.
        """
        with collector_paused():
            workflow, problems = self._read()
        return workflow, problems.in_order()

    def _read(self) -> tuple[Spec, Problems]:
        copies: dict[int, Node] = {}  # reading changes the document, and may happen again
        document = self._document(copies)
        problems = Problems(self._file)
        problems.carry_over(self._problems, copies)
        self._check_functions(document, problems)
        if not self._declaration_by_job:
            problems.silence(document.node_by_key["jobs"])  # the checks report it
        workflow = read_declaration(
            document, WORKFLOW, self.name, problems, lambda jobs: self._read_nested(problems)
        )
        unread = workflow.unread
        if problems.found:
            named = {job.workflow for job in workflow if job.workflow}
            unread |= {("workflows", name) for name in named - workflow.workflows.keys()}
        places = Places(Positions(self._file, document, ""))
        return replace(workflow, places=places, folder=self._folder, unread=unread), problems

    # Declaring -----------------------------------------------------------------------------------

    def _decorate(self, function: Any, options: dict[str, Any], *, deferred: bool) -> Any:
        where = here()  # before `declare` is called from another line

        def declare(decorated: Any) -> DeclaredJob[Any, Any]:
            given = dict(options)
            called = decorated._function if isinstance(decorated, DeclaredJob) else decorated
            if not callable(called):
                raise UsageError(f"a job calls a function, not {called!r}")
            name = given.pop("name", None) or getattr(called, "__name__", repr(called))
            if given.pop("deferred", None) is not None:
                hint = "write @flow.deferred"
                self._problems.add(UNKNOWN_KEY, where, "a job has no option 'deferred'", hint)
            if not isinstance(name, str):
                self._problems.add(WRONG_SHAPE, where, f"name must be text, not {name!r}")
            job: DeclaredJob[Any, Any] = DeclaredJob(called, _to_name(name), self)
            said = {"call": name_call(called), "deferred": deferred or None, **given}
            self._enter(job, said, where, function=called)
            return job

        return declare if function is None else declare(function)

    def _enter(
        self,
        job: JobHandles,
        given: Mapping[str, Any],
        where: Where,
        *,
        function: Any = None,
        nested: Callable[[], Spec] | None = None,
    ) -> None:
        """Add a job with its options; an option that is None is absent."""
        options = {_KEY_BY_OPTION.get(each, each): value for each, value in given.items()}
        if not isinstance(is_final := options.pop("finally", None), bool | None):
            message = f"finally must be True or False, not {is_final!r}"
            self._problems.add(WRONG_SHAPE, where, message)
        defaults = job._default_by_parameter if isinstance(job, DeclaredJob) else {}
        one = Declaration(
            *(job, function, where, map_node(where), map_node(where), nested),
            is_final=is_final is True,
            replaceable=frozenset(defaults),
        )
        if job.name in self._job_names:
            self._refuse_twice("job", job.name, where)
        self._job_names.add(job.name)
        self._declaration_by_job[job] = one
        self._bind(one, defaults, where)
        for key, value in options.items():
            if key == "with" and isinstance(value, Mapping):
                self._bind(one, value, where)
            elif value is not None:
                self._say(one.node, key, value, where)

    def _bind(self, one: Declaration, arguments: Mapping[str, Any], where: Where) -> None:
        for given, value in arguments.items():
            name = _to_name(given)
            if name in one.with_.node_by_key and name not in one.replaceable:
                message = f"job {one.job.name} is given {name} twice"
                self._problems.add(ARGUMENT_TWICE, where, message, "keep one of them")
            what = f"argument {name} of job {one.job.name}"
            self._say(one.with_, name, value, where, what, to_node)

    def _say(
        self,
        around: MapNode,
        key: Any,
        value: Any,
        where: Where,
        what: str = "",
        convert: Callable[[Any, Where], Node] | None = None,
    ) -> None:
        """Add a value under a key; note a value that cannot become a node."""
        node: Node
        try:
            node = convert(value, where) if convert else option_to_node(key, value, where)
        except Unreadable as error:
            node = to_node(None, where)
            self._problems.add(error.code, node, f"{what or key} {error}", error.hint)
            self._problems.silence(node)
        around.enter(key_node(_to_name(key), where), node)

    def _refuse_twice(self, thing: str, name: str, where: Where) -> None:
        message = f"{thing} {name} is declared 2 times"
        self._problems.add(DECLARED_TWICE, where, message, "give each a name of its own")

    def _file_reader(self, file: str) -> Callable[[], Spec]:
        def read_file() -> Spec:
            # Not at the top: every child that imports a workflow would import the YAML parser.
            from flowq.declare.yaml import read_workflow  # noqa: PLC0415

            return read_workflow(os.path.join(os.path.dirname(self._file), file))  # noqa: PTH118, PTH120 - keeps symbolic links

        return read_file

    # Reading -------------------------------------------------------------------------------------

    def _document(self, copies: dict[int, Node]) -> MapNode:
        """Return the declarations as the document that YAML would have.

        Reading changes maps with misspelt keys, so maps are copied; `copies` gets the copies by the
        id of the original.
        """
        where = self._declared_at
        root = map_node(where)
        for key, node in self._root.node_by_key.items():
            root.enter(self._root.key_by_key[key], copy_maps(node, copies))
        jobs, final = map_node(where), map_node(where)
        for one in self._declaration_by_job.values():
            around = final if one.is_final else jobs
            if one.job.name not in jobs.node_by_key and one.job.name not in final.node_by_key:
                around.enter(key_node(one.job.name, one.where), _job_node(one, copies))
        parts = {"inputs": self._inputs, "outputs": self._outputs, "finally": final}
        for key, node in parts.items():
            if node.node_by_key:
                root.enter(key_node(key, where), copy_maps(node, copies))
        root.enter(key_node("jobs", where), jobs)
        return root

    def _check_functions(self, document: MapNode, problems: Problems) -> None:
        """Note functions that workers cannot import, instead of problems of their names."""
        for one in self._declaration_by_job.values():
            unimportable = explain_unimportable(one.function) if one.function else None
            if unimportable is None:
                continue
            reason, hint = unimportable
            message = f"job {one.job.name} calls what workers cannot import: {reason}"
            jobs = document.node_by_key["finally" if one.is_final else "jobs"]
            assert isinstance(jobs, MapNode)
            key, node = jobs.key_by_key[one.job.name], jobs.node_by_key[one.job.name]
            assert isinstance(node, MapNode)
            call = node.node_by_key["call"]
            problems.add(NOT_IMPORTABLE, call, message, hint)
            problems.silence(call)
            problems.silence(key)
            problems.note_gap(BAD_NAME, key)

    def _read_nested(self, problems: Problems) -> dict[str, Spec]:
        """Return the nested workflows by name, and add their problems."""
        workflows: dict[str, Spec] = {}
        for one in self._declaration_by_job.values():
            if one.nested is None:
                continue
            said = one.node.node_by_key["workflow"]
            name = said.text if isinstance(said, ScalarNode) else ""
            try:
                found = one.nested()
            except WorkflowInvalid as invalid:
                problems.extend(invalid.problems)
            except FlowqError as error:
                problems.add(NO_SUCH_WORKFLOW, one.where, str(error))
            except RecursionError:
                message = f"workflow {name} contains itself"
                problems.add(WORKFLOW_IN_ITSELF, one.where, message, "remove this job")
            else:
                if workflows.setdefault(name, found) != found:
                    message = f"two different workflows are called {name}"
                    problems.add(DECLARED_TWICE, one.where, message, "rename one of them")
        return workflows


def _job_node(one: Declaration, copies: dict[int, Node]) -> MapNode:
    node, with_ = copy_maps(one.node, copies), map_node(one.where)
    assert isinstance(node, MapNode)
    for key, inner in one.with_.entries:  # not copied: reading does not change them
        with_.enter(key, inner)
    for name, handle in one.find_own_arguments().items():
        with_.enter(key_node(name, one.where), to_node(handle, one.where))
    if with_.node_by_key and "with" not in node.node_by_key:
        node.enter(key_node("with", one.where), with_)
    return node


def _to_name(said: Any) -> str:
    return plain_text(said) if isinstance(said, str) else str(said)


def _spec_reader(other: Any) -> Callable[[], Spec]:
    if isinstance(other, Spec):
        return lambda: other
    if not isinstance(other, Workflow):
        raise UsageError(f"flow.workflow takes a workflow or a YAML file, not {other!r}")
    return other.spec


# Where a declaration was written: the innermost caller outside this package.


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
    line, column = _positions_of(frame.f_code)[frame.f_lasti // 2]  # an instruction has 2 bytes
    return Where(frame.f_code.co_filename, line or frame.f_lineno, (column or 0) + 1)


@lru_cache(maxsize=2)  # thousands of jobs may be declared in one long module
def _positions_of(code: CodeType) -> list[tuple[int | None, int | None]]:
    """Return line and column of each instruction."""
    return [(line, column) for line, _, column, _ in code.co_positions()]


def find_folder(frame: FrameType) -> str | None:
    """Return the folder of a top-level module, which is imported by the name of its file."""
    names = frame.f_globals
    if names.get("__package__") or not names.get("__file__"):
        return None
    return str(pathlib.Path(names["__file__"]).parent)
