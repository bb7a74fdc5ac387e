"""A workflow as Python code: importing the code declares the same workflow.

`flowq export --to python` uses it. The code names functions by text, `flow.call("resize",
"photos.tasks:resize")`, so neither writing nor reading it imports them.
"""

from __future__ import annotations

import builtins
import json
import keyword
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowq.declare.document import write_declaration, write_job
from flowq.declare.nested import is_file
from flowq.expressions import as_source
from flowq.expressions.references import find_whole_reference
from flowq.expressions.templates import Expression, has_expression, split
from flowq.spec import JobSpec, Workflow

_TAKEN = frozenset({"flow", "flowq", *keyword.kwlist, *keyword.softkwlist, *dir(builtins)})
_BARE = frozenset({"item", "index", "result", "attempt"})
_NAMED = frozenset({"inputs", "matrix", "env", "secrets", "approval"})
_WITH_HANDLES = frozenset(
    {
        *("with", "env", "cwd", "for_each", "matrix", "include", "exclude"),
        *("queue", "timeout", "max_parallel", "retries", "continue_on_error"),
        *("concurrency", "rate"),
    }
)
_RESERVED = ("if", "else", "with", "finally")


def export_python(workflow: Workflow) -> str:
    """Return the code of a module that declares a workflow as `flow`.

    Nested workflows from files are named, not copied: the module belongs beside these files.
    """
    module = _Module()
    module.write(workflow, "flow")
    return "\n".join(["import flowq", "", *module.lines]).rstrip("\n") + "\n"


class _Module:
    """The code so far, with the names that it defines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names = set(_TAKEN)
        self.variable_by_id: dict[int, str] = {}

    def write(self, workflow: Workflow, variable: str) -> None:
        """Write a workflow, after those that it contains."""
        for name, nested in workflow.workflows.items():
            if not is_file(name) and id(nested) not in self.variable_by_id:
                self.variable_by_id[id(nested)] = inner = self.free_name(f"_{name}_flow")
                self.write(nested, inner)
        _Writer(self, workflow, variable).write()

    def free_name(self, wanted: str) -> str:
        """Return an unused variable name similar to the wanted one."""
        name = re.sub(r"\W", "_", wanted)
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def add(self, *lines: str) -> None:
        """Write some lines."""
        self.lines += lines


class _Writer:
    """Writes one workflow."""

    def __init__(self, module: _Module, workflow: Workflow, variable: str) -> None:
        self.module = module
        self.workflow = workflow
        self.variable = variable
        self.flow = "flowq.Workflow"  # the class has the handles too, before the value exists
        self.variable_by_job: dict[str, str] = {}

    def write(self) -> None:
        """Write the workflow, its jobs, and what needs all jobs: outputs, and some arguments."""
        self.module.add(*write_code(self.declaration(), f"{self.variable} = "), "")
        self.flow = self.variable
        later = [job for job in self.workflow.jobs if not self.write_job(job)]
        for job in later:
            bound = Bracketed(
                f"{self.variable_by_job[job.name]}.bind(", self.keywords(job.with_), ")"
            )
            self.module.add(*write_code(bound))
        if self.workflow.outputs:
            outputs = Bracketed(f"{self.flow}.outputs(", self.keywords(self.workflow.outputs), ")")
            self.module.add(*write_code(outputs))
        if later or self.workflow.outputs:
            self.module.add("")

    def declaration(self) -> Code:
        said = write_declaration(self.workflow)
        positional = [literal(self.workflow.name)]
        if "description" in said:
            positional.append(literal(said.pop("description")))
        for key in ("jobs", "finally", "workflows", "outputs"):
            said.pop(key, None)
        options = [(f"{key}=", self.option(key, value)) for key, value in said.items()]
        return Bracketed("flowq.Workflow(", [*(("", p) for p in positional), *options], ")")

    def option(self, key: str, value: Any) -> Code:
        """Return the value of a key, with handles where expressions are allowed."""
        if key in ("env", "concurrency", "labels", "schedule"):
            return self.data(value)
        if key == "defaults":
            return self.data(value)
        return _plain(value)

    def write_job(self, job: JobSpec) -> bool:
        """Write a job; return whether this includes its arguments."""
        said = write_job(job)
        is_complete = not self.names_later_jobs(job)
        if not is_complete:
            said.pop("with")
        items: list[tuple[str, Code]] = [("", literal(job.name)), ("", self.work(job))]
        for key in ("call", "run", "workflow", "sleep"):
            said.pop(key, None)
        if job.is_final:
            said["finally"] = True
        for key, value in said.items():
            name = f"{key}_=" if key in _RESERVED else f"{key}="
            items.append((name, self.job_option(key, value)))
        variable = self.module.free_name(job.name)
        verb = "sleep" if job.sleep is not None else "shell" if job.run is not None else "call"
        verb = "workflow" if job.workflow else verb
        code = Bracketed(f"{self.flow}.{verb}(", items, ")")
        self.module.add(*write_code(code, f"{variable} = "), "")
        self.variable_by_job[job.name] = variable
        return is_complete

    def names_later_jobs(self, job: JobSpec) -> bool:
        return any(
            (reference := find_whole_reference(part.source)) is not None
            and reference.root == "jobs"
            and reference.name not in self.variable_by_job
            for text in _texts(job.with_)
            for part in split(text)
            if isinstance(part, Expression)
        )

    def work(self, job: JobSpec) -> Code:
        if job.sleep is not None:
            return self.data(job.sleep)
        if job.run is not None:
            return self.data(job.run.command)
        if not job.workflow:
            return literal(job.call)
        nested = self.workflow.workflows.get(job.workflow)
        return self.module.variable_by_id.get(id(nested)) or literal(job.workflow)

    def job_option(self, key: str, value: Any) -> Code:
        if key in ("needs", "blocks", "else"):
            return self.jobs(value)
        if key == "for_each" and isinstance(value, str):
            return self.handle(as_source(value))
        if key == "approval" and isinstance(value, Mapping):
            words = ((k, self.data(v) if k == "message" else _plain(v)) for k, v in value.items())
            return Bracketed("{", [(f"{literal(word)}: ", code) for word, code in words], "}")
        if key in _WITH_HANDLES:
            return self.data(value)
        return _plain(value)

    def jobs(self, value: Any) -> Code:
        if isinstance(value, str):
            return self.variable_by_job.get(value) or literal(value)
        if isinstance(value, Mapping):
            pairs = [(f"{self.jobs(name)}: ", _plain(edge)) for name, edge in value.items()]
            return Bracketed("{", pairs, "}")
        return Bracketed("[", [("", self.jobs(name)) for name in value], "]")

    def keywords(self, value_by_name: Mapping[str, Any]) -> list[tuple[str, Code]]:
        """Return arguments by name; names that are no identifiers go into a dict."""
        good = {n: v for n, v in value_by_name.items() if _is_identifier(n)}
        items = [(f"{name}=", self.data(value)) for name, value in good.items()]
        odd = {n: v for n, v in value_by_name.items() if n not in good}
        return [*items, ("**", self.data(odd))] if odd else items

    def data(self, value: Any) -> Code:
        """Return data of a spec, in which texts are templates, as code."""
        if isinstance(value, str) and has_expression(value):
            return self.text(split(value))
        if isinstance(value, Mapping):
            pairs = [(f"{literal(key)}: ", self.data(item)) for key, item in value.items()]
            return Bracketed("{", pairs, "}")
        if isinstance(value, list | tuple):
            return Bracketed("[", [("", self.data(item)) for item in value], "]")
        return _plain(value)

    def text(self, parts: tuple[str | Expression, ...]) -> str:
        """Return the parts of a template as code: a handle, a literal, or both in one text."""
        if len(parts) == 1:
            (only,) = parts
            return literal(only) if isinstance(only, str) else self.handle(only.source)
        handles = [self.handle(part.source) for part in parts if isinstance(part, Expression)]
        texts = [
            part.replace("{", "{{").replace("}", "}}") if isinstance(part, str) else None
            for part in parts
        ]
        is_printable = all(part.isprintable() for part in parts if isinstance(part, str))
        if is_printable and not any(set(handle) & {'"', "'"} for handle in handles):
            waiting = iter(handles)
            whole = (f"\0{next(waiting)}\1" if text is None else text for text in texts)
            shown = literal("".join(whole))
            return f"f{shown}".replace("\\x00", "{").replace("\\x01", "}")
        shape = "".join("{}" if text is None else text for text in texts)
        return f"{literal(shape)}.format({', '.join(handles)})"

    def handle(self, source: str) -> str:
        """Return the code of a handle for exactly this expression."""
        reference = find_whole_reference(source)
        if reference is None or str(reference) != source:
            return self.part(source) or f"{self.flow}.expression({literal(source)})"
        is_single = reference.root == "jobs" and reference.attribute != "approval"
        if is_single and reference.name in self.variable_by_job:
            return f"{self.variable_by_job[reference.name]}.{reference.attribute}"
        if reference.root in _BARE:
            return f"{self.flow}.{reference.root}"
        if reference.root in _NAMED and _is_identifier(reference.name):
            return f"{self.flow}.{reference.root}.{reference.name}"
        if source in ("run.id", "run.due_at", "run.status", "run.failures"):
            return f"{self.flow}.{source.replace('.', '_')}"
        return f"{self.flow}.expression({literal(source)})"

    def part(self, source: str) -> str | None:
        """Return a handle with a key, `a.result["x"]`, for exactly this expression, or None."""
        if found := _APPROVAL.fullmatch(source):
            variable = self.variable_by_job.get(found[1])
            return (
                f"{variable}.approval.{found[2]}" if variable and _is_identifier(found[2]) else None
            )
        found = _KEYED.fullmatch(source)
        if found is None or json.dumps(json.loads(found[2]), ensure_ascii=False) != found[2]:
            return None
        handle = self.handle(found[1])
        return None if ".expression(" in handle else f"{handle}[{_plain(json.loads(found[2]))}]"


_APPROVAL = re.compile(r"jobs\.([A-Za-z_][A-Za-z0-9_-]*)\.approval\.([A-Za-z_][A-Za-z0-9_]*)")
_KEYED = re.compile(r"(.+)\[(\"(?:[^\"\\]|\\[\"\\/bfnrt])*\"|-?(?:0|[1-9][0-9]{0,8}))\]", re.DOTALL)
"""A value with a key, as a handle writes it: as JSON."""


def _is_identifier(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")


def _plain(value: Any) -> Code:
    """Return plain data as code; texts are literals."""
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, Mapping):
        pairs = [(f"{literal(key)}: ", _plain(item)) for key, item in value.items()]
        return Bracketed("{", pairs, "}")
    if isinstance(value, list | tuple):
        return Bracketed("[", [("", _plain(item)) for item in value], "]")
    return repr(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if has_expression(value):
            yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


# Formatting: code that is too long for one line is split.


WIDTH = 100


@dataclass(frozen=True, slots=True)
class Bracketed:
    """A call, a list or a dict. Shape: each item with its prefix, such as `key=`."""

    opening: str
    items: Sequence[tuple[str, Code]]
    closing: str


Code = str | Bracketed


def write_code(code: Code, prefix: str = "", suffix: str = "", indent: int = 0) -> Iterator[str]:
    """Yield the lines of a piece of code, between a prefix and a suffix."""
    flat = f"{prefix}{_flat(code)}{suffix}"
    if isinstance(code, str) or indent + len(flat) <= WIDTH or not code.items:
        yield " " * indent + flat
        return
    yield " " * indent + prefix + code.opening
    for before, item in code.items:
        yield from write_code(item, before, ",", indent + 4)
    yield " " * indent + code.closing + suffix


def _flat(code: Code) -> str:
    if isinstance(code, str):
        return code
    items = ", ".join(f"{before}{_flat(item)}" for before, item in code.items)
    return f"{code.opening}{items}{code.closing}"


def literal(text: str) -> str:
    """Return a text as a Python literal, with double quotes where they need no escape."""
    shown = repr(text)
    if shown[0] == "'" and '"' not in shown:
        return '"' + shown[1:-1].replace("\\'", "'") + '"'
    return shown
